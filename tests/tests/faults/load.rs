//! More than there is room for, and many flows: nothing is lost that is not counted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene, Transfer};
use tcpprobe_tests::tools::{self, Running};

use crate::kept::{Endless, expect_whole, record_into};

/// Of each flow, samples and losses are as many as its last serial says. Were some lost?
pub(crate) fn expect_all_accounted(trace: &Path, with_losses: bool) -> Result<()> {
    let db = Connection::open(trace)?;
    let number = |sql: &str| -> Result<i64> { db.query_row(sql, [], |r| r.get(0)).with_context(|| sql.to_owned()) };
    let not_accounted = number(
        "SELECT count(*) FROM (SELECT f.id, count(x.serial) AS n, max(x.serial) AS last,
           (SELECT coalesce(sum(count), 0) FROM losses l WHERE l.flow_id = f.id) AS lost
         FROM flows f JOIN samples x ON x.flow_id = f.id GROUP BY f.id) WHERE n + lost <> last",
    )?;
    ensure!(not_accounted == 0, "{not_accounted} flows have samples missing that no one counts");
    let lost = number("SELECT sum(lost) FROM sessions")?;
    eprintln!("{} samples, {lost} lost", number("SELECT sum(samples) FROM sessions")?);
    ensure!(!with_losses || lost > 0, "nothing was lost: the test shows nothing");
    Ok(())
}

/// The smallest buffer, and as much as this machine sends.
pub(crate) fn exhausted_ring(scene: &Scene, rounds: u32) -> Result<()> {
    for round in 0..rounds {
        let trace = scene.file(&format!("ring-{round}.db"));
        let recorder = record_into(scene, &trace, &["--no-pcap", "--buffer", "64KiB"])?;
        let traffic = Endless::start(scene)?;
        std::thread::sleep(Duration::from_millis(1_500));
        let said = Scene::stop(recorder)?.stderr;
        drop(traffic);
        ensure!(said.contains("ring full: a larger --buffer"), "{said}");
        expect_whole(&trace, true)?;
        expect_all_accounted(&trace, true)?;
    }
    Ok(())
}

/// One connection after the other; the number is that of the connections.
pub(crate) fn short_connections(scene: &Scene, connections: u32) -> Result<()> {
    // there are fewer ports than connections, and each would stay in TIME_WAIT for a minute
    for ns in [Ns::A, Ns::B] {
        let set = "echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse; echo 1024 65000 > /proc/sys/net/ipv4/ip_local_port_range";
        tools::run(scene.lab.command(ns, "sh").args(["-ec", set]), STEP_LIMIT)?.expect_code(0)?;
    }
    let trace = scene.file("short.db");
    let recorder = record_into(scene, &trace, &["--no-pcap"])?;
    let mut left = connections;
    while left > 0 {
        let now = left.min(200);
        scene.send(Transfer { bytes: 100, connections: now, ..scene.transfer(0) })?;
        left -= now;
    }
    let memory = peak_memory_kib(&recorder)?;
    Scene::stop(recorder)?;
    expect_whole(&trace, true)?;
    expect_all_accounted(&trace, false)?;
    expect_flows(&trace, connections, memory)
}

/// All of them at once; the number is that of the connections.
pub(crate) fn concurrent_flows(scene: &Scene, connections: u32) -> Result<()> {
    let trace = scene.file("many.db");
    let recorder = record_into(scene, &trace, &["--no-pcap"])?;
    scene.send(Transfer { bytes: 5_000, connections, ..scene.transfer(0) })?;
    let memory = peak_memory_kib(&recorder)?;
    let finished = recorder.stop(nix::sys::signal::Signal::SIGINT, STEP_LIMIT * 4)?.expect_code(0)?;
    ensure!(finished.stderr.contains("flows"), "{}", finished.stderr);
    expect_whole(&trace, true)?;
    expect_all_accounted(&trace, false)?;
    expect_flows(&trace, connections, memory)
}

fn peak_memory_kib(recorder: &Running) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", recorder.pid()))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no peak of memory in /proc")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Both ends of each are sampled; a flow of which the kernel showed nothing is none.
fn expect_flows(trace: &Path, connections: u32, memory_kib: u64) -> Result<()> {
    let db = Connection::open(trace)?;
    let flows: i64 = db.query_row("SELECT count(*) FROM flows", [], |r| r.get(0))?;
    eprintln!("{flows} flows of {connections} connections, {memory_kib} KiB of memory at most");
    let expected = 2 * i64::from(connections);
    ensure!(flows <= expected && flows >= expected - expected / 50, "{flows} flows of {connections} connections");
    Ok(())
}
