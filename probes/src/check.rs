//! What this kernel and this process are, read without privileges and before anything is loaded.

use std::path::Path;
use std::sync::LazyLock;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Where the kernel shows its own types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel's release, as `uname -r` says it.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Is the running kernel at least this version? Distributions' suffixes are ignored.
pub fn kernel_at_least(major: u32, minor: u32) -> bool {
    version(&kernel_release()) >= (major, minor)
}

/// Major and minor version of a release such as `6.1.0-56-cloud-amd64`; 0 where there is no number.
pub(crate) fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// How far the kernel is shut even for root (kernel_lockdown(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// Against being changed: recording works.
    Integrity,
    /// Against being read too: BPF may not read kernel memory, and recording does not work.
    Confidentiality,
}

impl Lockdown {
    /// The kernel's own word.
    pub fn name(self) -> &'static str {
        match self {
            Lockdown::None => "none",
            Lockdown::Integrity => "integrity",
            Lockdown::Confidentiality => "confidentiality",
        }
    }
}

/// A capability (capabilities(7)) that a part of tcpprobe uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name, `CAP_BPF`.
    pub name: &'static str,
    bit: u32,
    /// What it is used for.
    pub purpose: &'static str,
    /// Does every recording of samples need it?
    pub required: bool,
}

const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

const CAPABILITIES: [Capability; 5] = [
    Capability { name: "CAP_BPF", bit: 39, purpose: "load BPF programs", required: true },
    Capability { name: "CAP_PERFMON", bit: 38, purpose: "attach them, read kernel memory", required: true },
    Capability { name: "CAP_NET_RAW", bit: 13, purpose: "capture packets", required: false },
    // setns(2); bpf_enable_stats in kernel/bpf/syscall.c
    Capability {
        name: "CAP_SYS_ADMIN",
        bit: CAP_SYS_ADMIN,
        purpose: "capture in another --netns, tell the probes' cost",
        required: false,
    },
    Capability {
        name: "CAP_SYS_RESOURCE",
        bit: CAP_SYS_RESOURCE,
        purpose: "raise the limit of locked memory before Linux 5.11",
        required: false,
    },
];

/// The limit of locked memory (RLIMIT_MEMLOCK), where BPF maps count against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock {
    /// In bytes, after it was raised as far as this user may; `None`: unlimited.
    pub limit_bytes: Option<u64>,
}

/// What is known of kernel and process without trying anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// As `uname -r`.
    pub kernel_release: String,
    /// Does the kernel describe its types, in [`BTF_PATH`]?
    pub has_btf: bool,
    /// `None`: the kernel does not say, for it has no lockdown or securityfs is not mounted.
    pub lockdown: Option<Lockdown>,
    /// `None` from Linux 5.11 on, where BPF's memory is counted by control groups instead.
    pub memlock: Option<Memlock>,
    /// Capabilities in effect, as a mask of their numbers.
    pub effective: u64,
    /// Is this process in another user namespace than the first? Then its capabilities do not reach the kernel's BPF.
    pub in_user_namespace: bool,
    /// Was the kernel built with kprobes? `None` where it does not list its symbols.
    pub kprobes: Option<bool>,
    /// Was the kernel built with what fentry needs? `None` where it does not list its symbols.
    pub direct_calls: Option<bool>,
}

impl Facts {
    /// Those of the running kernel and of this process.
    pub fn gather() -> Facts {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
        Facts {
            kernel_release: kernel_release(),
            has_btf: Path::new(BTF_PATH).exists(),
            lockdown: lockdown_mode(&lockdown),
            memlock: memlock(),
            effective: effective(&status).unwrap_or(0),
            in_user_namespace: std::fs::read_link("/proc/self/ns/user")
                .is_ok_and(|l| l.as_os_str() != FIRST_USER_NAMESPACE),
            kprobes: BUILT_IN.map(|b| b.kprobes),
            direct_calls: BUILT_IN.map(|b| b.direct_calls),
        }
    }

    /// Is this capability in effect? CAP_SYS_ADMIN stands for the two that were split off it in 5.8.
    pub fn holds(&self, capability: &Capability) -> bool {
        let has = |bit: u32| self.effective >> bit & 1 == 1;
        has(capability.bit) || capability.required && has(CAP_SYS_ADMIN)
    }

    /// The capabilities that matter here: CAP_SYS_RESOURCE only where it would raise a limit.
    pub fn capabilities(&self) -> impl Iterator<Item = Capability> {
        let limited = self.memlock.is_some_and(|m| m.limit_bytes.is_some());
        CAPABILITIES.into_iter().filter(move |c| c.bit != CAP_SYS_RESOURCE || limited)
    }

    /// Names of the capabilities that BPF needs and this process lacks.
    pub fn missing_for_bpf(&self) -> Vec<&'static str> {
        CAPABILITIES.iter().filter(|c| c.required && !self.holds(c)).map(|c| c.name).collect()
    }
}

/// `PROC_USER_INIT_INO` of include/linux/proc_ns.h.
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// What the kernel was built with, as its symbols show.
#[derive(Clone, Copy)]
struct BuiltIn {
    kprobes: bool,
    direct_calls: bool,
}

/// Once, for the list has some hundred thousand lines; `None` where the kernel shows none.
static BUILT_IN: LazyLock<Option<BuiltIn>> = LazyLock::new(|| {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    built_in(&symbols)
});

fn built_in(symbols: &str) -> Option<BuiltIn> {
    // address, type, name, and for modules their name
    let mut names = symbols.lines().filter_map(|l| l.split_ascii_whitespace().nth(2)).peekable();
    names.peek()?;
    let mut found = BuiltIn { kprobes: false, direct_calls: false };
    for name in names {
        found.kprobes |= name == "register_kprobe";
        found.direct_calls |= name == "register_ftrace_direct";
    }
    Some(found)
}

/// `none [integrity] confidentiality`: the mode in brackets is in force.
fn lockdown_mode(file: &str) -> Option<Lockdown> {
    let mode = file.split_once('[')?.1.split_once(']')?.0;
    [Lockdown::None, Lockdown::Integrity, Lockdown::Confidentiality].into_iter().find(|l| l.name() == mode)
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Do maps and programs count as locked memory? Not since 5.11 (97306be45fbe, "bpf: Eliminate rlimit-based memory
/// accounting infra for bpf maps").
fn counts_locked_memory() -> bool {
    !kernel_at_least(5, 11)
}

fn memlock() -> Option<Memlock> {
    if !counts_locked_memory() {
        return None;
    }
    let soft = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?.0;
    Some(Memlock { limit_bytes: (soft != RLIM_INFINITY).then_some(soft) })
}

/// Raises the limit of locked memory as far as this process may, where BPF's memory counts against it: the usual limit
/// of 64 KiB holds no ring. Not being allowed is no error here; the map that finds no room says so.
pub(crate) fn raise_memlock() {
    if !counts_locked_memory() {
        return;
    }
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) == Err(Errno::EPERM) {
        // up to the hard limit anyone may
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions() {
        assert_eq!(version("5.10.0-28-cloud-amd64"), (5, 10));
        assert_eq!(version("6.18.44"), (6, 18));
        assert_eq!(version("7.0-rc1"), (7, 0));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn capability_mask() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000000c000002000\n"), Some(0xc0_0000_2000));
        assert_eq!(effective("nothing"), None);
    }

    #[test]
    fn sys_admin_stands_for_bpf_and_perfmon_but_not_for_net_raw() {
        let held = |effective| {
            let facts = Facts { effective, ..Facts::default() };
            facts.capabilities().filter(|c| facts.holds(c)).map(|c| c.name).collect::<Vec<_>>()
        };
        assert_eq!(held(1 << CAP_SYS_ADMIN), ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"]);
        assert_eq!(held(1 << 38), ["CAP_PERFMON"]);
        assert_eq!(held(1 << 13), ["CAP_NET_RAW"]);
        assert_eq!(Facts { effective: 1 << 39, ..Facts::default() }.missing_for_bpf(), ["CAP_PERFMON"]);
    }

    #[test]
    fn sys_resource_matters_only_where_a_limit_would_be_raised() {
        let names = |memlock| {
            let facts = Facts { memlock, ..Facts::default() };
            facts.capabilities().any(|c| c.name == "CAP_SYS_RESOURCE")
        };
        assert!(names(Some(Memlock { limit_bytes: Some(65_536) })));
        assert!(!names(Some(Memlock { limit_bytes: None })));
        assert!(!names(None));
    }

    #[test]
    fn the_lockdown_in_force_is_the_one_in_brackets() {
        assert_eq!(lockdown_mode("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(lockdown_mode("[none] integrity confidentiality\n"), Some(Lockdown::None));
        assert_eq!(lockdown_mode(""), None);
    }

    #[test]
    fn a_kernel_that_lists_no_symbols_is_not_said_to_lack_them() {
        assert!(built_in("").is_none());
        let some = built_in("0000000000000000 T register_kprobe\n0000000000000000 t f\t[module]\n").unwrap();
        assert!(some.kprobes && !some.direct_calls);
    }
}
