//! How a recording ends.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene, Transfer};
use tcpprobe_tests::tools::{self, Running};

use crate::expect::{expect_number, expect_sound, record_and_join};

pub(crate) fn child_command(scene: &Scene) -> Result<()> {
    let mut command = scene.record_command(Ns::A, &["--no-pcap", "--", "sh", "-c", "exit 7"])?;
    tools::run(&mut command, STEP_LIMIT)?.expect_code(7)?;
    expect_sound(scene, 1)
}

pub(crate) fn duration(scene: &Scene) -> Result<()> {
    let started = Instant::now();
    let recorder = scene.record(Ns::A, &["--duration", "2s"])?;
    scene.send(scene.transfer(100_000))?;
    recorder.wait(STEP_LIMIT)?.expect_code(0)?;
    ensure!(started.elapsed() >= Duration::from_secs(2), "ended after {:?}", started.elapsed());
    expect_sound(scene, 1)?;
    expect_number(scene, 2, "SELECT count(*) FROM flows")
}

pub(crate) fn sigint(scene: &Scene) -> Result<()> {
    end_by_signal(scene, Signal::SIGINT)
}

pub(crate) fn sigterm(scene: &Scene) -> Result<()> {
    end_by_signal(scene, Signal::SIGTERM)
}

/// In the middle of a transfer: what was recorded until then is complete and can be joined.
fn end_by_signal(scene: &Scene, signal: Signal) -> Result<()> {
    let recorder = scene.record(Ns::A, &["-i", scene.lab.interface(Ns::A)])?;
    scene.send(scene.transfer(1_000_000))?;
    let transfer = Transfer { bytes: 1 << 40, ..scene.transfer(0) };
    let server = scene.serve(&transfer)?;
    let mut client = scene.lab.command(Ns::A, tools::traffic()?);
    let address = format!("{}:{}", transfer.to, transfer.port);
    let client = Running::start(client.args(["send", "--connect", &address, "--bytes", &transfer.bytes.to_string()]))?;
    std::thread::sleep(Duration::from_millis(300));
    recorder.stop(signal, STEP_LIMIT)?.expect_code(0)?;
    drop((client, server));
    expect_sound(scene, 1)?;
    // What was on its way at the end may have been sampled or captured only.
    scene.join_and_check(&scene.capture(), &["--min-matched", "0.99"])
}

/// In the middle of a transfer that is too fast to be written at once: what came more than a second before is not lost.
pub(crate) fn sigkill(scene: &Scene) -> Result<()> {
    let recorder = scene.record(Ns::A, &["--no-pcap"])?;
    let transfer = Transfer { bytes: 1 << 40, ..scene.transfer(0) };
    let server = scene.serve(&transfer)?;
    let mut client = scene.lab.command(Ns::A, tools::traffic()?);
    let address = format!("{}:{}", transfer.to, transfer.port);
    let client = Running::start(client.args(["send", "--connect", &address, "--bytes", &transfer.bytes.to_string()]))?;
    let backlog = scene.file("trace.db-backlog");
    let deadline = Instant::now() + STEP_LIMIT;
    while std::fs::metadata(&backlog).map_or(0, |m| m.len()) < 8 << 20 {
        ensure!(Instant::now() < deadline, "nothing waits to be written");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut show = Command::new(tools::tcpprobe()?);
    let shown = tools::run(show.arg("show").arg(scene.trace()), STEP_LIMIT)?.expect_code(0)?;
    ensure!(shown.stdout.contains("MB of records wait to be written"), "{}{}", shown.stdout, shown.stderr);
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let killed_ns = now.tv_sec() * 1_000_000_000 + now.tv_nsec();
    recorder.stop(Signal::SIGKILL, STEP_LIMIT)?;
    drop((client, server));
    let shown = tools::run(&mut show, STEP_LIMIT)?.expect_code(0)?;
    ensure!(shown.stderr.contains("recovered"), "{}", shown.stderr);
    ensure!(!backlog.exists(), "the backlog is there still");
    let newest_ns = scene.number("SELECT max(mono_ns) FROM samples")?;
    ensure!(killed_ns - newest_ns < 1_000_000_000, "{} ms are missing", (killed_ns - newest_ns) / 1_000_000);
    let twice = "SELECT count(*) FROM (SELECT 1 FROM samples GROUP BY flow_id, serial HAVING count(*) > 1)";
    expect_number(scene, 0, twice)?;
    expect_number(scene, 0, "SELECT complete FROM sessions")?;
    expect_number(scene, scene.number("SELECT count(*) FROM samples")?, "SELECT samples FROM sessions")?;
    let integrity: String = scene.database()?.query_row("PRAGMA integrity_check", [], |r| r.get(0))?;
    ensure!(integrity == "ok", "{integrity}");
    let recorder = scene.record(Ns::A, &["--no-pcap"])?;
    scene.send(scene.transfer(100_000))?;
    Scene::stop(recorder)?;
    expect_number(scene, 1, "SELECT complete FROM sessions WHERE id = 2")
}

/// A recording never overwrites: neither the first session nor its capture.
pub(crate) fn second_session(scene: &Scene) -> Result<()> {
    let interface = scene.lab.interface(Ns::A);
    record_and_join(scene, scene.transfer(200_000))?;
    let first = (session_rows(scene)?, fingerprint(&scene.capture())?);
    let recorder = scene.record(Ns::A, &["-i", interface])?;
    scene.send(scene.transfer(300_000))?;
    Scene::stop(recorder)?;
    ensure!(first == (session_rows(scene)?, fingerprint(&scene.capture())?), "the first session has changed");
    expect_sound(scene, 2)?;
    for session in [1, 2] {
        expect_number(scene, 2, &format!("SELECT count(*) FROM flows WHERE session_id = {session}"))?;
    }
    Ok(())
}

/// All rows that belong to session 1, as one number.
fn session_rows(scene: &Scene) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    let database = scene.database()?;
    for sql in [
        "SELECT * FROM sessions WHERE id = 1",
        "SELECT * FROM flows WHERE session_id = 1 ORDER BY id",
        "SELECT * FROM samples WHERE flow_id IN (SELECT id FROM flows WHERE session_id = 1) ORDER BY id",
        "SELECT * FROM clocks WHERE session_id = 1 ORDER BY mono_before_ns",
        "SELECT * FROM packets WHERE flow_id IN (SELECT id FROM flows WHERE session_id = 1) ORDER BY id",
    ] {
        let mut statement = database.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                format!("{:?}", row.get_ref(column)?).hash(&mut hasher);
            }
        }
    }
    Ok(hasher.finish())
}

fn fingerprint(path: &std::path::Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    std::fs::read(path).with_context(|| path.display().to_string())?.hash(&mut hasher);
    Ok(hasher.finish())
}

pub(crate) fn forced_backend_missing(scene: &Scene) -> Result<()> {
    let mut command = scene.record_command(Ns::A, &["--backend", "kprobe", "--duration", "1s"])?;
    let finished = tools::run(&mut command, STEP_LIMIT)?.expect_code(1)?;
    ensure!(finished.stderr.contains("kprobe"), "the error does not name what is missing: {}", finished.stderr);
    Ok(())
}
