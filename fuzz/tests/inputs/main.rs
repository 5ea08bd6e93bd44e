//! Everything that reads bytes of others, on bytes that are damaged.
//!
//! `TCPPROBE_FUZZ_SECONDS=300 cargo test -p tcpprobe-fuzz --test inputs -- capture` tries one for longer.

mod bytes;
mod commands;
mod seeds;
mod traces;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use peak_alloc::PeakAlloc;
use tcpprobe_fuzz::run::{Plan, Target, run};
use tcpprobe_tests::preconditions::missing_program;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How many inputs each target took.
static TRIED: Mutex<Vec<(&str, u64)>> = Mutex::new(Vec::new());

type MakeTarget = fn() -> anyhow::Result<Target>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // what one input allocates must not be counted for another one
    arguments.test_threads = Some(1);
    let targets: [(&str, MakeTarget); 9] = [
        ("capture", bytes::capture),
        ("frame", bytes::frame),
        ("log", bytes::log),
        ("record", bytes::record),
        ("trace", traces::trace),
        ("command_capture", commands::capture),
        ("command_log", commands::log),
        ("command_trace", commands::trace),
        ("command_backlog", commands::backlog),
    ];
    let trials = targets.map(|(name, target)| {
        Trial::ignorable_test(name, move || {
            match missing_program(&["prlimit"]).filter(|_| name.starts_with("command_")) {
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => attempt(target).map(|()| Completion::Completed),
            }
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into());
    // not while the list of tests is being printed
    for (name, tried) in TRIED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        eprintln!("{name}: {tried} inputs");
    }
    conclusion.exit_code()
}

fn attempt(target: MakeTarget) -> Result<(), Failed> {
    let target = target().map_err(|e| format!("{e:#}"))?;
    let tried = run(&target, &Plan::from_environment(), &MEMORY)?;
    TRIED.lock().unwrap_or_else(PoisonError::into_inner).push((target.name, tried));
    Ok(())
}
