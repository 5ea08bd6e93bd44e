//! A join that does not come to its end has left nothing of itself, and can be done again.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rusqlite::Connection;

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene};
use tcpprobe_tests::tools::{self, Running};

use crate::Chance;
use crate::disk::{SmallDisk, failing_writes};
use crate::kept::{Endless, expect_next_works, expect_whole, record_into, tcpprobe};

/// A recording with its capture, what a join of it leaves, how long that takes, and how much of this it writes.
struct Recorded {
    trace: PathBuf,
    pcap: PathBuf,
    before: Vec<String>,
    after: Vec<String>,
    takes: Duration,
    writes: Duration,
}

impl Recorded {
    fn of(scene: &Scene) -> Result<Recorded> {
        Recorded::with(scene, "recorded", 12_000_000, &[])
    }

    fn with(scene: &Scene, name: &str, bytes: u64, more: &[&str]) -> Result<Recorded> {
        let (trace, pcap) = (scene.file(&format!("{name}.db")), scene.file(&format!("{name}.pcap")));
        let recorder = record_into(scene, &trace, &[&["-i", scene.lab.interface(Ns::A)], more].concat())?;
        scene.send(scene.transfer(bytes))?;
        Scene::stop(recorder)?;
        let joined = scene.file(&format!("{name}-joined.db"));
        std::fs::copy(&trace, &joined)?;
        let started = Instant::now();
        let joining = Running::start(&mut join_command(&joined, &pcap)?)?;
        await_writing(&joining, &joined, true)?;
        let begun = Instant::now();
        await_writing(&joining, &joined, false)?;
        let writes = begun.elapsed();
        joining.wait(STEP_LIMIT * 4)?.expect_code(0)?;
        let takes = started.elapsed();
        Ok(Recorded { before: rows(&trace)?, after: rows(&joined)?, takes, writes, trace, pcap })
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

/// Waits until a join has begun its transaction, or has none any more; it may come to its end without being seen in it.
fn await_writing(joining: &Running, trace: &Path, begun: bool) -> Result<()> {
    let process = PathBuf::from(format!("/proc/{}", joining.pid()));
    let deadline = Instant::now() + STEP_LIMIT;
    while process.exists() && is_writing(joining.pid(), trace)? != begun {
        ensure!(Instant::now() < deadline, "the join does not {} to write", if begun { "begin" } else { "cease" });
        // nobody is told of a lock that is taken
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Has a process the lock of the one that writes? It is asked for, not taken: nobody is disturbed.
fn is_writing(pid: Pid, trace: &Path) -> Result<bool> {
    // RESERVED_LOCK of os.h, where there is no log; WAL_WRITE_LOCK of "WAL-mode File Format", in the log's index
    for (suffix, byte) in [("", 0x4000_0001), ("-shm", 120)] {
        let Ok(file) = File::open(format!("{}{suffix}", trace.display())) else { continue };
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_GETLK(&mut lock)).context("a lock cannot be asked for")?;
        if lock.l_type != libc::F_UNLCK as libc::c_short && lock.l_pid == pid.as_raw() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Each round kills a join before its end: in turn a short one and one that keeps others away while it reads, two of them
/// while they may write and two at any moment. In every third round the trace was joined before.
pub(crate) fn killed(scene: &Scene, rounds: u32) -> Result<()> {
    /// A join of this many bytes of capture, or more, keeps others away.
    const LONG_BYTES: u64 = 1 << 20;
    /// Each try of a round that comes too late halves the time in which the next one kills.
    const TRIES: u32 = 16;
    let short = Recorded::with(scene, "short", 6_000_000, &[])?;
    let long = Recorded::with(scene, "long", 12_000_000, &["--snaplen", "192"])?;
    ensure!(std::fs::metadata(&short.pcap)?.len() < LONG_BYTES, "this join keeps others away too");
    ensure!(std::fs::metadata(&long.pcap)?.len() >= LONG_BYTES, "this join keeps no one away either");
    let (mut chance, mut too_late) = (Chance::new(), 0);
    for round in 0..rounds {
        let recorded = if round % 2 == 0 { &short } else { &long };
        let while_writing = round % 4 < 2;
        let mut within = if while_writing { recorded.writes } else { recorded.takes };
        for attempt in 1.. {
            let trace = recorded.copied_into(&scene.file("copy"))?;
            if round % 3 == 2 {
                join(&trace, &recorded.pcap)?;
            }
            let joining = Running::start(&mut join_command(&trace, &recorded.pcap)?)?;
            if while_writing {
                await_writing(&joining, &trace, true)?;
            }
            let after = Duration::from_micros(chance.below(within.as_micros() as u64));
            std::thread::sleep(after);
            let is_in_time = !while_writing || is_writing(joining.pid(), &trace)?;
            // it may have come to its end just before
            let _ = joining.signal(Signal::SIGKILL);
            let is_killed = joining.wait(STEP_LIMIT)?.status.signal() == Some(Signal::SIGKILL as i32);
            recorded.expect_all_or_nothing(&trace, &format!("round {round}, killed after {after:?}"))?;
            if is_in_time && is_killed {
                break;
            }
            ensure!(attempt < TRIES, "round {round}: no kill came before the end, the last one after {after:?}");
            too_late += 1;
            within /= 2;
        }
    }
    eprintln!("{rounds} joins were killed before their end; {too_late} kills came too late, and were repeated");
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
