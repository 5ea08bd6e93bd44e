//! The kernel matrix: recordings that `scripts/vm.sh` has made on other kernels, in emulated machines, judged here.
//!
//! One trial for each kernel and run, so that a failure says what failed where. What cannot be had (QEMU, a kernel, a
//! protocol that a kernel lacks) is shown as ignored, with the reason. The recordings stay in target/vm;
//! with TCPPROBE_TEST_JUDGE=1 those that are there are judged, and no machine is started.

mod agreement;
mod machine;
mod protocols;
mod table;
mod transfers;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Trial};

use machine::{KERNELS, Machines, Run};

/// A run's name in scripts/vm, and its judge.
type Judge = (&'static str, fn(&Run) -> Result<()>);

const RUNS: &[Judge] = &[
    ("fentry_cubic", transfers::cubic_and_joined_inside),
    ("fentry_bbr", transfers::bbr),
    ("kprobe_cubic", transfers::cubic),
    ("kprobe_bbr", transfers::bbr),
    ("tracepoint_cubic", transfers::cubic),
    ("tracepoint_bbr", transfers::bbr),
    ("fentry_dctcp", transfers::dctcp),
    ("failing", transfers::failing_locally),
    ("fentry_stepped", transfers::stepped),
    ("fentry_suspended", transfers::suspended),
    ("nested_ipv4", agreement::backends),
    ("nested_ipv6", agreement::backends),
    ("nested_no_timestamps", agreement::backends),
    ("user_fentry", transfers::of_a_user),
    ("user_kprobe", transfers::of_a_user_who_asks),
    ("user_tracepoint", transfers::of_a_user),
    ("user_without_capabilities", transfers::refused_to_a_user),
    ("user_without_perfmon", transfers::refused_to_a_user),
    ("mptcp", protocols::mptcp),
    ("fastopen", protocols::fastopen),
    ("syncookies", protocols::syncookies),
    ("accecn", protocols::accecn),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let name = |kernel: &str, run: &str| format!("{kernel}_{run}");
    let wanted = |name: &str| match &arguments.filter {
        Some(filter) if arguments.exact => name == filter,
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    };
    // a machine is started for the runs that are asked for, and for no others
    let runs_of = |kernel: &str| {
        let runs = RUNS.iter().map(|(run, _)| *run).filter(|run| wanted(&name(kernel, run)));
        runs.collect::<Vec<_>>()
    };
    let machines = Machines::new(KERNELS.map(|kernel| (kernel, runs_of(kernel))));
    let mut trials = Vec::new();
    for kernel in KERNELS {
        for &(run, judge) in RUNS {
            let machines = machines.clone();
            trials.push(Trial::ignorable_test(name(kernel, run), move || {
                let run = match machines.run(kernel, run) {
                    Ok(run) => run?,
                    Err(lacking) => return Ok(Completion::ignored_with(lacking)),
                };
                judge(&run).map_err(|error| format!("files in {}: {error:#}", run.folder.display()))?;
                Ok(Completion::Completed)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
