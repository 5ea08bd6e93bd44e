//! Why the kernel does not take a program, in words that need no knowledge of BPF.
//!
//! Owns the reading of errors of loading and attaching. Must not attach anything itself.

use std::error::Error as StdError;

use aya::programs::ProgramError;
use nix::errno::Errno;

use crate::check::{Facts, Lockdown};
use crate::plan::{How, Program};

/// What the kernel answered, as far as the words depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The error number, where there is one.
    errno: Option<Errno>,
    /// Last line of the verifier's log, without its statistics; empty where the program was not read that far.
    verifier: String,
    /// All of it in short, for those who do know BPF.
    said: String,
}

impl Answer {
    pub(crate) fn of(error: &ProgramError) -> Answer {
        let errno = causes(error).find_map(|e| e.downcast_ref::<std::io::Error>()).and_then(|e| e.raw_os_error());
        let errno = errno.map(Errno::from_raw);
        if let ProgramError::LoadError { io_error, verifier_log } = error {
            let verifier = last_line(&verifier_log.to_string());
            let said = if verifier.is_empty() { io_error.to_string() } else { verifier.clone() };
            return Answer { errno, verifier, said };
        }
        Answer { errno, verifier: String::new(), said: in_short(error) }
    }
}

/// Why this program cannot be attached: the meaning first, and what the kernel said in parentheses where that adds to it.
pub(crate) fn plain(program: &Program, answer: &Answer, facts: &Facts) -> String {
    if let Some(lack) = lacking(program.how, facts) {
        return lack.to_owned();
    }
    let denied = matches!(answer.errno, Some(Errno::EPERM | Errno::EACCES));
    let said = &answer.said;
    if answer.verifier.is_empty() && denied {
        let missing = facts.missing_for_bpf();
        if !missing.is_empty() {
            let verb = if missing.len() == 1 { "is" } else { "are" };
            return format!("this user may not: {} {verb} missing", missing.join(" and "));
        }
        if facts.memlock.is_some_and(|m| m.limit_bytes.is_some()) {
            return "the limit of locked memory (ulimit -l) is too low, or forbidden otherwise".into();
        }
        if facts.in_user_namespace {
            return "this user's capabilities count in a user namespace only, and the kernel asks for real ones".into();
        }
    }
    if reads_forbidden(&answer.verifier) && facts.lockdown == Some(Lockdown::Confidentiality) {
        return "kernel lockdown (confidentiality) forbids BPF to read kernel memory".into();
    }
    if fewer_arguments(program, answer) {
        return match program.target {
            "kfree_skb" => "this kernel's tracepoint does not name the socket (since 6.11)".into(),
            "tcp_retransmit_skb" => "this kernel's tracepoint tells no error of a retransmission (since 6.17)".into(),
            _ => format!("this kernel's tracepoint has fewer arguments than this program reads ({said})"),
        };
    }
    if answer.verifier.contains("rcu_ptr_") && program.target == "net_dev_queue" {
        return "this kernel hands out a packet's socket only by the other way (since 6.3)".into();
    }
    if is_absent(answer) {
        return match program.how {
            How::TpBtf | How::RawTp => format!("this kernel has no tracepoint {}", program.target),
            _ => format!("this kernel has no function {} of its own: inlined, or under another name", program.target),
        };
    }
    match answer.errno {
        Some(Errno::EACCES) if matches!(program.how, How::Kprobe | How::Kretprobe) => format!(
            "kernel.perf_event_paranoid above 2, as Debian sets it, leaves kprobes to root; `sysctl kernel.perf_event_paranoid=2` gives them to CAP_PERFMON ({said})"
        ),
        _ if !answer.verifier.is_empty() => format!("the kernel's verifier does not accept this program ({said})"),
        Some(Errno::EBUSY) => format!("something else holds this function: another tracer, or a live patch ({said})"),
        Some(Errno::EPERM | Errno::EACCES) if program.how.patches_code() => {
            format!("the kernel does not let this function be patched, though this user may ({said})")
        }
        Some(Errno::EPERM | Errno::EACCES) => format!(
            "forbidden, though this user has the capabilities: by a container's seccomp filter or a security module ({said})"
        ),
        _ => format!("the kernel refuses ({said})"),
    }
}

/// What the kernel was built without, where that is why no program of this kind can be attached.
pub(crate) fn lacking(how: How, facts: &Facts) -> Option<&'static str> {
    match how {
        How::Kprobe | How::Kretprobe if facts.kprobes == Some(false) => {
            Some("this kernel has no kprobes: CONFIG_KPROBES is off")
        }
        How::Fentry | How::Fexit if facts.direct_calls == Some(false) => {
            Some("this kernel cannot attach BPF to functions: CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS is off")
        }
        _ => None,
    }
}

/// A helper that the kernel withholds from every program (`bpf_tracing_func_proto`).
fn reads_forbidden(verifier: &str) -> bool {
    verifier.contains("bpf_probe_read_kernel") && (verifier.contains("unknown func") || verifier.contains("cannot use"))
}

/// tp_btf says so in the verifier (`btf_ctx_access`), raw_tp by EINVAL at attaching (`bpf_probe_register`).
fn fewer_arguments(program: &Program, answer: &Answer) -> bool {
    match program.how {
        How::TpBtf => {
            answer.verifier.contains("invalid bpf_context access") || answer.verifier.contains("-th argument")
        }
        How::RawTp => answer.verifier.is_empty() && answer.errno == Some(Errno::EINVAL),
        _ => false,
    }
}

fn is_absent(answer: &Answer) -> bool {
    answer.errno == Some(Errno::ENOENT) || answer.said.contains("unknown BTF type")
}

/// The verifier's last word; the lines behind it are statistics.
fn last_line(log: &str) -> String {
    const STATISTICS: [&str; 5] = ["processed ", "verification time", "stack depth", "mark_precise", "subprog "];
    let mut lines = log.lines().rev().map(str::trim);
    lines.find(|l| !l.is_empty() && !STATISTICS.iter().any(|s| l.starts_with(s))).unwrap_or_default().to_owned()
}

/// An error and all its causes, each once.
pub(crate) fn in_short(error: &(dyn StdError + 'static)) -> String {
    let mut said = String::new();
    for cause in causes(error) {
        let more = cause.to_string();
        if said.is_empty() {
            said = more;
        } else if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
    }
    said
}

pub(crate) fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |e: &&'a (dyn StdError + 'static)| (*e).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(how: How, target: &'static str) -> Program {
        Program { name: "tested", how, target }
    }

    fn answer(errno: Errno, verifier: &str) -> Answer {
        Answer { errno: Some(errno), verifier: verifier.into(), said: format!("said {verifier}") }
    }

    fn root() -> Facts {
        Facts { effective: u64::MAX, ..Facts::default() }
    }

    #[test]
    fn arguments_that_came_later_are_named_with_their_kernel() {
        let verifier = answer(Errno::EACCES, "invalid bpf_context access off=24 size=8");
        let socket = "this kernel's tracepoint does not name the socket (since 6.11)";
        assert_eq!(plain(&at(How::TpBtf, "kfree_skb"), &verifier, &root()), socket);
        assert_eq!(plain(&at(How::RawTp, "kfree_skb"), &answer(Errno::EINVAL, ""), &root()), socket);
        let error = plain(&at(How::TpBtf, "tcp_retransmit_skb"), &verifier, &root());
        assert!(error.contains("6.17") && !error.contains("bpf_context"), "{error}");
    }

    #[test]
    fn a_user_without_capabilities_is_told_which_and_not_that_the_kernel_cannot() {
        let user = Facts::default();
        let words = plain(&at(How::Fentry, "tcp_rcv_established"), &answer(Errno::EPERM, ""), &user);
        assert_eq!(words, "this user may not: CAP_BPF and CAP_PERFMON are missing");
        let contained = Facts { in_user_namespace: true, ..root() };
        let words = plain(&at(How::RawTp, "tcp_probe"), &answer(Errno::EPERM, ""), &contained);
        assert!(words.contains("user namespace"), "{words}");
    }

    #[test]
    fn what_the_kernel_was_built_without_goes_before_its_error() {
        let facts = Facts { kprobes: Some(false), direct_calls: Some(false), ..root() };
        let words = plain(&at(How::Kretprobe, "tcp_rcv_established"), &answer(Errno::ENOENT, ""), &facts);
        assert!(words.contains("CONFIG_KPROBES"), "{words}");
        let words = plain(&at(How::Fexit, "tcp_rcv_established"), &answer(Errno::EOPNOTSUPP, ""), &facts);
        assert!(words.contains("CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"), "{words}");
    }

    #[test]
    fn lockdown_is_named_only_where_it_is_on() {
        let withheld = answer(Errno::EINVAL, "program of this type cannot use helper bpf_probe_read_kernel#113");
        let program = at(How::Kprobe, "tcp_rcv_established");
        let locked = Facts { lockdown: Some(Lockdown::Confidentiality), ..root() };
        assert!(plain(&program, &withheld, &locked).contains("lockdown"));
        let words = plain(&program, &withheld, &root());
        assert!(words.starts_with("the kernel's verifier does not accept this program (said"), "{words}");
    }

    #[test]
    fn a_function_that_is_not_there_and_one_that_cannot_be_patched() {
        let program = at(How::Kprobe, "__tcp_transmit_skb");
        assert!(plain(&program, &answer(Errno::ENOENT, ""), &root()).contains("no function __tcp_transmit_skb"));
        assert!(plain(&program, &answer(Errno::EPERM, ""), &root()).contains("though this user may"));
        assert!(plain(&program, &answer(Errno::EBUSY, ""), &root()).contains("another tracer"));
    }

    #[test]
    fn the_verifiers_word_is_what_stands_before_its_statistics() {
        let log = "0: (79) r1 = *(u64 *)(r1 +24)\ninvalid bpf_context access off=24 size=8\nprocessed 1 insns\n\n";
        assert_eq!(last_line(log), "invalid bpf_context access off=24 size=8");
        assert_eq!(last_line(""), "");
        let since_7_3 = format!("{log}subprog 0 (net_dev_queue_btf) main insns_self 5 insns_total 5 stack 0\n");
        assert_eq!(last_line(&since_7_3), "invalid bpf_context access off=24 size=8");
    }
}
