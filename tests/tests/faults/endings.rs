//! How a recording ends, beyond what the live tests of `namespaces` have: always in order, and without leaving a BPF
//! program or a link in the kernel.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene};
use tcpprobe_tests::tools::{self, Running};

use crate::in_kernel::InKernel;
use crate::kept::{Endless, expect_whole, record_into};

/// SIGHUP, SIGINT twice, SIGTERM and SIGINT at once, SIGKILL.
pub(crate) fn signals(scene: &Scene, _rounds: u32) -> Result<()> {
    let traffic = Endless::start(scene)?;
    let orders: [&[Signal]; 5] = [
        &[Signal::SIGHUP],
        &[Signal::SIGINT, Signal::SIGINT],
        &[Signal::SIGTERM, Signal::SIGINT],
        &[Signal::SIGTERM, Signal::SIGTERM],
        &[Signal::SIGKILL],
    ];
    for (number, signals) in orders.into_iter().enumerate() {
        let trace = scene.file(&format!("signals-{number}.db"));
        let recorder = record_into(scene, &trace, &[])?;
        let in_kernel = InKernel::of(recorder.pid())?;
        signals.iter().try_for_each(|&signal| recorder.signal(signal))?;
        let is_killed = signals.contains(&Signal::SIGKILL);
        let finished = recorder.wait(STEP_LIMIT)?;
        if !is_killed {
            finished.expect_code(0).with_context(|| format!("{signals:?}"))?;
        }
        in_kernel.expect_gone().with_context(|| format!("{signals:?}"))?;
        expect_whole(&trace, !is_killed).with_context(|| format!("{signals:?}"))?;
    }
    drop(traffic);
    Ok(())
}

/// The window is closed.
pub(crate) fn terminal(scene: &Scene, _rounds: u32) -> Result<()> {
    let trace = scene.file("terminal.db");
    let socket = format!("tcpprobe-faults-{}", scene.port);
    let tmux = |arguments: &[&str]| {
        let mut command = Command::new("tmux");
        tools::run(command.args(["-L", &socket, "-f", "/dev/null"]).args(arguments), STEP_LIMIT)
    };
    let netns = scene.lab.namespace(Ns::A);
    let (program, port) = (tools::tcpprobe()?, scene.port);
    let record = format!(
        "exec ip netns exec {netns} {} record --no-pcap --port {port} -w {}",
        program.display(),
        trace.display()
    );
    tmux(&["new-session", "-d", &record])?.expect_code(0)?;
    let pid = tmux(&["list-panes", "-F", "#{pane_pid}"])?.expect_code(0)?.stdout;
    let pid = Pid::from_raw(pid.trim().parse().with_context(|| pid.clone())?);
    let deadline = Instant::now() + STEP_LIMIT;
    let in_kernel = loop {
        match InKernel::of(pid) {
            Ok(found) if trace.exists() && found.is_attached() => break found,
            _ => ensure!(Instant::now() < deadline, "nothing is recorded"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    scene.send(scene.transfer(100_000))?;
    tmux(&["kill-server"])?.expect_code(0)?;
    while kill(pid, None).is_ok() {
        ensure!(Instant::now() < deadline, "the recorder outlives its terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
    in_kernel.expect_gone()?;
    expect_whole(&trace, true).map(drop)
}

/// Ctrl-Z and `fg`, or a machine that was suspended: what came meanwhile is recorded, or counted as lost.
pub(crate) fn stopped_and_continued(scene: &Scene, _rounds: u32) -> Result<()> {
    let trace = scene.file("stopped.db");
    let recorder = record_into(scene, &trace, &["--no-pcap", "--buffer", "64KiB"])?;
    let in_kernel = InKernel::of(recorder.pid())?;
    recorder.signal(Signal::SIGSTOP)?;
    scene.send(scene.transfer(5_000_000))?;
    recorder.signal(Signal::SIGCONT)?;
    scene.send(scene.transfer(100_000))?;
    Scene::stop(recorder)?;
    in_kernel.expect_gone()?;
    expect_whole(&trace, true)?;
    crate::load::expect_all_accounted(&trace, true)
}

/// A command that cannot start, one that is gone while its child goes on, one that takes no notice of Ctrl-C, and one
/// that is killed.
pub(crate) fn command(scene: &Scene, _rounds: u32) -> Result<()> {
    let cases: [(&str, &[&str], i32); 3] = [
        ("cannot start", &["/no/such/program"], 1),
        ("forks and exits", &["sh", "-c", "sleep 60 >/dev/null 2>&1 & exit 3"], 3),
        ("killed", &["sh", "-c", "kill -9 $$"], 137),
    ];
    for (number, (what, command, code)) in cases.into_iter().enumerate() {
        let trace = scene.file(&format!("command-{number}.db"));
        let started = Instant::now();
        let arguments = [&["--no-pcap", "--"], command].concat();
        let mut recorder = scene.lab.command(Ns::A, tools::tcpprobe()?);
        recorder.args(["record", "--port", &scene.port.to_string(), "-w"]).arg(&trace).args(arguments);
        let said = tools::run(&mut recorder, STEP_LIMIT)?.expect_code(code).context(what)?.stderr;
        ensure!(started.elapsed() < Duration::from_secs(20), "{what}: ended after {:?}", started.elapsed());
        if code == 1 {
            ensure!(said.contains("cannot start /no/such/program"), "{said}");
            ensure!(!trace.exists(), "{what}: a trace was made all the same");
        } else {
            expect_whole(&trace, true).context(what)?;
        }
    }
    let trace = scene.file("deaf.db");
    let deaf = ["--no-pcap", "--", "sh", "-c", "trap '' INT; echo ready; exec sleep 60"];
    let mut recorder: Running = record_into(scene, &trace, &deaf)?;
    recorder.wait_for_stdout("ready", STEP_LIMIT)?;
    let in_kernel = InKernel::of(recorder.pid())?;
    recorder.signal(Signal::SIGINT)?;
    std::thread::sleep(Duration::from_millis(100));
    recorder.stop(Signal::SIGINT, STEP_LIMIT)?.expect_code(0)?;
    in_kernel.expect_gone()?;
    expect_whole(&trace, true).map(drop)
}
