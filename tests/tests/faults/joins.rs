//! A join that does not come to its end has left nothing of itself, and can be done again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rusqlite::Connection;

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene};
use tcpprobe_tests::tools::{self, Running};

use crate::Chance;
use crate::disk::{SmallDisk, failing_writes};
use crate::kept::{Endless, expect_next_works, expect_whole, record_into, tcpprobe};

/// A recording with its capture, what a join of it leaves, and how long that takes.
struct Recorded {
    trace: PathBuf,
    pcap: PathBuf,
    before: Vec<String>,
    after: Vec<String>,
    takes: Duration,
}

impl Recorded {
    fn of(scene: &Scene) -> Result<Recorded> {
        let (trace, pcap) = (scene.file("recorded.db"), scene.file("recorded.pcap"));
        let recorder = record_into(scene, &trace, &["-i", scene.lab.interface(Ns::A)])?;
        scene.send(scene.transfer(12_000_000))?;
        Scene::stop(recorder)?;
        let joined = scene.file("joined.db");
        std::fs::copy(&trace, &joined)?;
        let started = Instant::now();
        join(&joined, &pcap)?;
        let takes = started.elapsed();
        Ok(Recorded { before: rows(&trace)?, after: rows(&joined)?, takes, trace, pcap })
    }

    /// A copy in another folder.
    fn copied_into(&self, folder: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let to = folder.join("trace.db");
        std::fs::copy(&self.trace, &to)?;
        Ok(to)
    }

    /// The trace is as before the join or, if that has come to its end, as after it; and another join does the same.
    fn expect_all_or_nothing(&self, trace: &Path, what: &str) -> Result<()> {
        expect_whole(trace, true).context(what.to_owned())?;
        let left = rows(trace)?;
        ensure!(left == self.before || left == self.after, "{what}: a part of a join is there");
        join(trace, &self.pcap).context(what.to_owned())?;
        ensure!(rows(trace)? == self.after, "{what}: the next join does not do the same");
        Ok(())
    }
}

fn join(trace: &Path, pcap: &Path) -> Result<()> {
    tcpprobe(trace, "join", &[&pcap.display().to_string()])?.expect_code(0).map(drop)
}

fn join_command(trace: &Path, pcap: &Path) -> Result<Command> {
    let mut command = Command::new(tools::tcpprobe()?);
    command.arg("join").arg(trace).arg(pcap);
    Ok(command)
}

/// What a join writes, without the numbers that rows have by themselves.
fn rows(trace: &Path) -> Result<Vec<String>> {
    let db = Connection::open(trace)?;
    let mut found = Vec::new();
    for sql in [
        "SELECT path, packets, tcp_packets, joined, clock_offset_ns FROM captures",
        "SELECT number, ts_ns, flow_id, dir, seq, ack, len, sample_id, match, reason, delay_ns, copy FROM packets
         ORDER BY number, flow_id",
        "SELECT flow_id, outcome, samples FROM sample_counts ORDER BY flow_id, outcome",
        "SELECT flow_id, sample_id FROM samples_without_packet ORDER BY sample_id",
        "SELECT name FROM sqlite_master ORDER BY name",
    ] {
        let mut statement = db.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let values = (0..columns).map(|c| Ok(format!("{:?}", row.get_ref(c)?))).collect::<Result<Vec<_>>>()?;
            found.push(values.join(" "));
        }
    }
    Ok(found)
}

/// A trace that was joined before is joined again in every third round.
pub(crate) fn killed(scene: &Scene, rounds: u32) -> Result<()> {
    let recorded = Recorded::of(scene)?;
    let (mut chance, mut killed) = (Chance::new(), 0);
    for round in 0..rounds {
        let trace = recorded.copied_into(&scene.file("copy"))?;
        if round % 3 == 2 {
            join(&trace, &recorded.pcap)?;
        }
        let joining = Running::start(&mut join_command(&trace, &recorded.pcap)?)?;
        let after = Duration::from_micros(chance.below(recorded.takes.as_micros() as u64));
        std::thread::sleep(after);
        // it may have come to its end just before
        let _ = joining.signal(Signal::SIGKILL);
        killed += u32::from(joining.wait(STEP_LIMIT)?.status.code().is_none());
        recorded.expect_all_or_nothing(&trace, &format!("round {round}, killed after {after:?}"))?;
    }
    eprintln!("{killed} of {rounds} joins were killed before their end");
    expect_next_works(scene, &scene.file("copy/trace.db"))
}

pub(crate) fn full(scene: &Scene, rounds: u32) -> Result<()> {
    let recorded = Recorded::of(scene)?;
    let kib = std::fs::metadata(&recorded.trace)?.len() / 1024;
    let mut chance = Chance::new();
    for round in 0..rounds {
        // beside the trace there is room for less than a join takes
        let room_kib = chance.below(kib);
        let what = format!("round {round}, room for {room_kib} KiB");
        let disk = SmallDisk::mount(scene.file("disk"), kib + 16 + room_kib)?;
        let trace = recorded.copied_into(&disk.file(""))?;
        let finished = tools::run(&mut join_command(&trace, &recorded.pcap)?, STEP_LIMIT)?;
        if finished.status.code() != Some(0) {
            let said = finished.expect_code(1).context(what.clone())?.stderr;
            ensure!(said.contains("trace.db") && said.contains("full"), "{what}: {said}");
        }
        disk.grow()?;
        recorded.expect_all_or_nothing(&trace, &what)?;
    }
    Ok(())
}

pub(crate) fn with_io_errors(scene: &Scene, rounds: u32) -> Result<()> {
    let recorded = Recorded::of(scene)?;
    let library = failing_writes(scene)?;
    let mut chance = Chance::new();
    for round in 0..rounds {
        let from = chance.below(1_500);
        let what = format!("round {round}, from write {from} on");
        let trace = recorded.copied_into(&scene.file("copy"))?;
        let mut joining = join_command(&trace, &recorded.pcap)?;
        joining.env("LD_PRELOAD", &library).env("FAIL_FROM", from.to_string()).env("FAIL_IN", scene.file("copy"));
        let finished = tools::run(&mut joining, STEP_LIMIT)?;
        if finished.status.code() != Some(0) {
            let said = finished.expect_code(1).context(what.clone())?.stderr;
            ensure!(said.contains("trace.db") && said.contains("I/O"), "{what}: {said}");
        }
        recorded.expect_all_or_nothing(&trace, &what)?;
    }
    Ok(())
}

/// As a join does that writes its rows: what is recorded meanwhile waits.
pub(crate) fn record_waits(scene: &Scene, rounds: u32) -> Result<()> {
    for _ in 0..rounds {
        let trace = scene.file("both.db");
        let traffic = Endless::start(scene)?;
        let recorder = record_into(scene, &trace, &["--no-pcap"])?;
        // longer than SQLite's own patience
        let writing = Connection::open(&trace)?;
        writing.busy_timeout(STEP_LIMIT)?;
        writing.execute_batch("BEGIN IMMEDIATE")?;
        std::thread::sleep(Duration::from_secs(6));
        writing.execute_batch("ROLLBACK")?;
        drop(writing);
        drop(traffic);
        let said = Scene::stop(recorder)?.stderr;
        ensure!(said.contains("recorded"), "{said}");
        expect_whole(&trace, true)?;
    }
    Ok(())
}
