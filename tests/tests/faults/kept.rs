//! What must hold of a trace after whatever went wrong.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use rusqlite::Connection;

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene, Transfer};
use tcpprobe_tests::tools::{self, Finished, Running};

pub(crate) const SECOND_NS: i64 = 1_000_000_000;

/// CLOCK_MONOTONIC, by which samples are taken.
pub(crate) fn mono_ns() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() * SECOND_NS + now.tv_nsec())
}

/// A connection that sends until this is dropped.
pub(crate) struct Endless {
    _client: Running,
    _server: Running,
}

impl Endless {
    pub(crate) fn start(scene: &Scene) -> Result<Endless> {
        let transfer = Transfer { bytes: 1 << 40, ..scene.transfer(0) };
        let server = scene.serve(&transfer)?;
        Ok(Endless { _client: Running::start(&mut scene.client(&transfer)?)?, _server: server })
    }
}

/// Runs a command of tcpprobe on a trace.
pub(crate) fn tcpprobe(trace: &Path, command: &str, more: &[&str]) -> Result<Finished> {
    tools::run(Command::new(tools::tcpprobe()?).arg(command).arg(trace).args(more), STEP_LIMIT * 4)
}

/// A recorder of the test's port into a trace of its own, under way.
pub(crate) fn record_into(scene: &Scene, trace: &Path, more: &[&str]) -> Result<Running> {
    let mut command = scene.lab.command(Ns::A, tools::tcpprobe()?);
    command.args(["record", "--port", &scene.port.to_string(), "-w"]).arg(trace).args(more);
    let mut recorder = Running::start(&mut command)?;
    recorder.wait_for_stderr("recording", STEP_LIMIT)?;
    Ok(recorder)
}

fn number(db: &Connection, sql: &str) -> Result<i64> {
    db.query_row(sql, [], |row| row.get(0)).with_context(|| sql.to_owned())
}

/// Opens the trace as a user would, and has everything that any trace promises: it is whole, no sample is there twice,
/// what it counts is there, and its last session is complete or not. Returns the newest sample's time, 0 for none.
pub(crate) fn expect_whole(trace: &Path, is_complete: bool) -> Result<i64> {
    let shown = tcpprobe(trace, "show", &[])?.expect_code(0).context("the trace does not open")?;
    ensure!(!shown.stderr.contains("tcpprobe: "), "an error at opening: {}", shown.stderr);
    let backlog = std::path::PathBuf::from(format!("{}-backlog", trace.display()));
    ensure!(!backlog.exists(), "the backlog was not written down: {}", shown.stderr);
    let db = Connection::open(trace)?;
    let integrity: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0))?;
    ensure!(integrity == "ok", "{integrity}");
    let newest = "(SELECT max(id) FROM sessions)";
    let complete =
        number(&db, &format!("SELECT complete = 1 AND ended_ns IS NOT NULL FROM sessions WHERE id = {newest}"))?;
    ensure!((complete == 1) == is_complete, "complete is {complete}");
    let counts = "SELECT count(*) FROM sessions s WHERE samples <> (SELECT count(*) FROM samples x JOIN flows f ON \
                  f.id = x.flow_id WHERE f.session_id = s.id)";
    ensure!(number(&db, counts)? == 0, "a session does not have the samples that it counts");
    let twice = "SELECT count(*) FROM (SELECT 1 FROM samples GROUP BY flow_id, serial HAVING count(*) > 1)";
    ensure!(number(&db, twice)? == 0, "samples are there twice");
    let verified = tcpprobe(trace, "verify", &[])?;
    ensure!(verified.status.code() == Some(0), "verify: {}{}", verified.stdout, verified.stderr);
    number(
        &db,
        &format!(
            "SELECT coalesce(max(mono_ns), 0) FROM samples x JOIN flows f ON f.id = x.flow_id WHERE session_id = {newest}"
        ),
    )
}

/// No more is missing before a moment than the last second.
pub(crate) fn expect_newest(newest_ns: i64, fault_ns: i64, what: &str) -> Result<()> {
    let missing_ms = (fault_ns - newest_ns) / 1_000_000;
    eprintln!("{what}: all but the last {missing_ms} ms are there");
    ensure!(missing_ms < 1_000, "{what}: {missing_ms} ms are missing");
    Ok(())
}

/// The next recording into the trace works, and so does a join of its capture.
pub(crate) fn expect_next_works(scene: &Scene, trace: &Path) -> Result<()> {
    let pcap = trace.with_extension("next.pcap");
    let _ = std::fs::remove_file(&pcap);
    let recorder = record_into(scene, trace, &["--pcap", &pcap.display().to_string()])?;
    scene.send(scene.transfer(100_000))?;
    Scene::stop(recorder).context("the next recording")?;
    ensure!(expect_whole(trace, true)? > 0, "the next recording has nothing");
    tcpprobe(trace, "join", &[&pcap.display().to_string()])?.expect_code(0).context("the next join")?;
    Ok(())
}
