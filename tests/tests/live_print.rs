//! Live tests of `tcpprobe record --print`: the module's lines while they happen.
//!
//! What cannot run here is shown as ignored, with the reason.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Completion, Trial};

use tcpprobe_tests::lab::{LabOptions, Ns};
use tcpprobe_tests::preconditions;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene};
use tcpprobe_tests::tools::{self, Running};

/// A test's name and its steps; its port is its place behind the first one.
type Test = (&'static str, fn(&Scene) -> Result<()>);

const TESTS: &[Test] = &[
    ("without_a_trace_until_no_one_reads", without_a_trace_until_no_one_reads),
    ("what_is_printed_is_what_the_trace_has", what_is_printed_is_what_the_trace_has),
];
const FIRST_PORT: u16 = 6301;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let missing = preconditions::missing();
    let trials = (FIRST_PORT..).zip(TESTS).map(|(port, &(name, steps))| {
        let missing = missing.clone();
        Trial::ignorable_test(name, move || match missing {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => Scene::new(port, &LabOptions::default())
                .and_then(|scene| steps(&scene))
                .map(|()| Completion::Completed)
                .map_err(|error| format!("{error:#}").into()),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// As `cat /proc/net/tcpprobe | head -5` did: five lines, and an end without a complaint.
fn without_a_trace_until_no_one_reads(scene: &Scene) -> Result<()> {
    let mut command = scene.lab.command(Ns::A, "sh");
    command.args(["-c", "{ \"$0\" record --print --port \"$1\"; echo \"code $?\" >&2; } | head -n 5"]);
    command.arg(tools::tcpprobe()?).arg(scene.port.to_string()).current_dir(scene.file("."));
    let mut recorder = Running::start(&mut command)?;
    recorder.wait_for_stderr("recording", STEP_LIMIT)?;
    scene.send(scene.transfer(10_000_000))?;
    let finished = recorder.wait(STEP_LIMIT)?;
    ensure!(finished.stderr.lines().any(|l| l == "code 0"), "{}", finished.stderr);
    ensure!(!finished.stderr.contains("tcpprobe:"), "an error was reported\n{}", finished.stderr);
    ensure!(finished.stdout.lines().count() == 5, "{}", finished.stdout);
    for line in finished.stdout.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let port = format!(":{}", scene.port);
        ensure!(words.len() == 11 && words[1..3].iter().any(|w| w.ends_with(&port)), "{line}");
    }
    let files = std::fs::read_dir(scene.file("."))?.count();
    ensure!(files == 0, "{files} files where none was asked for");
    Ok(())
}

fn what_is_printed_is_what_the_trace_has(scene: &Scene) -> Result<()> {
    let recorder = scene.record(Ns::A, &["--print", "--no-pcap"])?;
    scene.send(scene.transfer(1_000_000))?;
    let printed = Scene::stop(recorder)?.stdout;
    let mut export = Command::new(tools::tcpprobe()?);
    export.arg("export").arg(scene.trace()).args(["--to", "tcpprobe"]);
    let exported = tools::run(&mut export, STEP_LIMIT)?.expect_code(0)?.stdout;
    ensure!(printed.lines().count() > 20, "few lines for a megabyte:\n{printed}");
    ensure!(timeless(&printed) == timeless(&exported), "printed\n{printed}\nexported\n{exported}");
    ensure!(scene.number("SELECT complete FROM sessions")? == 1, "the session is not complete");
    Ok(())
}

/// The lines without their times, which count from two starts a moment apart; in no order, for two processors may print
/// what happened at once in either.
fn timeless(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter_map(|l| Some(l.split_once(' ')?.1)).collect();
    lines.sort_unstable();
    lines
}
