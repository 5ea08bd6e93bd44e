//! The disk is full, or refuses; a file or an interface goes away.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::kill;

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene};
use tcpprobe_tests::tools::{self, Finished, Running};

use crate::Chance;
use crate::in_kernel::InKernel;
use crate::kept::{Endless, expect_newest, expect_next_works, expect_whole, mono_ns, record_into};

/// A small file system; gone when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: PathBuf, kib: u64) -> Result<SmallDisk> {
        std::fs::create_dir_all(&at)?;
        mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "tcpprobe-test"], &at)?;
        Ok(SmallDisk(at))
    }

    /// Gives it more room.
    pub(crate) fn grow(&self) -> Result<()> {
        mount(&["-o", "remount,size=400m"], &self.0)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<()> {
    tools::run(Command::new("mount").args(arguments).arg(at), STEP_LIMIT)?.expect_code(0).map(drop)
}

/// Why no small disk can be had, if so.
pub(crate) fn missing_tmpfs() -> Option<String> {
    let folder = tempfile::tempdir().ok()?;
    SmallDisk::mount(folder.path().join("disk"), 64).err().map(|e| format!("no small file system here: {e:#}"))
}

/// A recording that ended by itself for want of a file: it says of which, why, and what is kept.
fn expect_words(finished: &Finished, words: &[&str]) -> Result<()> {
    ensure!(finished.status.code() == Some(1), "ended with {}\n{}", finished.status, finished.stderr);
    ensure!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    let named = finished.stderr.lines().any(|l| l.starts_with("tcpprobe: ") && words.iter().any(|w| l.contains(w)));
    ensure!(named, "no line with one of {words:?}:\n{}", finished.stderr);
    Ok(())
}

/// Either there is the account of a recording, or what is kept of it is said; the session is not complete.
fn expect_account(finished: &Finished, trace: &Path) -> Result<i64> {
    let says = |start: &str| finished.stderr.lines().any(|line| line.starts_with(start));
    ensure!(says("recorded ") != says("kept "), "no account:\n{}", finished.stderr);
    expect_whole(trace, false)
}

const FULL: [&str; 2] = ["database or disk is full", "No space left on device"];

pub(crate) fn record_full(scene: &Scene, rounds: u32) -> Result<()> {
    let mut chance = Chance::new();
    for round in 0..rounds {
        let kib = 1_000 + chance.below(20_000);
        let what = format!("round {round}, {kib} KiB");
        let disk = SmallDisk::mount(scene.file("disk"), kib)?;
        let trace = disk.file("trace.db");
        let traffic = Endless::start(scene)?;
        let started_ns = mono_ns()?;
        let pcap = if round % 2 == 0 { "--no-pcap" } else { "--snaplen=96" };
        let recorder = record_into(scene, &trace, &[pcap])?;
        let in_kernel = InKernel::of(recorder.pid())?;
        let full_ns = nearly_full(&disk, &recorder);
        let finished = recorder.wait(STEP_LIMIT * 2).context(what.clone())?;
        drop(traffic);
        expect_words(&finished, &FULL).context(what.clone())?;
        in_kernel.expect_gone().context(what.clone())?;
        disk.grow()?;
        let newest_ns = expect_account(&finished, &trace).context(what.clone())?;
        // of the first second nothing need be there
        expect_newest(newest_ns.max(started_ns), full_ns?, &what).with_context(|| finished.stderr.clone())?;
        expect_next_works(scene, &trace).context(what)?;
    }
    Ok(())
}

/// Waits for the end of a recorder; returns when the disk had room for less than two batches of the backlog.
fn nearly_full(disk: &SmallDisk, recorder: &Running) -> Result<i64> {
    const TWO_BATCHES: u64 = 2 << 20;
    let deadline = Instant::now() + STEP_LIMIT * 2;
    let mut since_ns = None;
    while kill(recorder.pid(), None).is_ok() {
        let disk = nix::sys::statvfs::statvfs(&disk.0)?;
        if since_ns.is_none() && disk.blocks_available() * disk.fragment_size() < TWO_BATCHES {
            since_ns = Some(mono_ns()?);
        }
        ensure!(Instant::now() < deadline, "the disk does not get full");
        std::thread::sleep(Duration::from_millis(10));
    }
    since_ns.context("the recorder ended before the disk was full")
}

/// `ulimit -f`: the kernel sends a signal that would end the process.
pub(crate) fn record_at_limit(scene: &Scene, rounds: u32) -> Result<()> {
    let mut chance = Chance::new();
    for round in 0..rounds {
        let trace = scene.file(&format!("limit-{round}.db"));
        let blocks = (1_000 + chance.below(4_000)).to_string();
        let what = format!("round {round}, {blocks} blocks");
        let traffic = Endless::start(scene)?;
        let mut command = scene.lab.command(Ns::A, "sh");
        command.args(["-c", "ulimit -f $0; exec \"$@\"", &blocks]).arg(tools::tcpprobe()?);
        command.args(["record", "--port", &scene.port.to_string(), "-w"]).arg(&trace);
        if round % 2 == 0 {
            command.arg("--no-pcap");
        }
        let finished = Running::start(&mut command)?.wait(STEP_LIMIT * 2).context(what.clone())?;
        drop(traffic);
        expect_words(&finished, &["disk I/O error", "disk is full", "File too large"]).context(what.clone())?;
        expect_account(&finished, &trace).context(what)?;
        expect_next_works(scene, &trace)?;
    }
    Ok(())
}

/// Compiles what makes writes fail.
pub(crate) fn failing_writes(scene: &Scene) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/failing_writes.c");
    let library = scene.file("failing_writes.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-Wall", "-Werror", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    tools::run(&mut cc, STEP_LIMIT)?.expect_code(0)?;
    Ok(library)
}

pub(crate) fn record_with_io_errors(scene: &Scene, rounds: u32) -> Result<()> {
    let library = failing_writes(scene)?;
    let mut chance = Chance::new();
    for round in 0..rounds {
        let trace = scene.file(&format!("errors-{round}.db"));
        let after = 20 + chance.below(1_500);
        let what = format!("round {round}, from write {after} on");
        let traffic = Endless::start(scene)?;
        let mut command = scene.lab.command(Ns::A, tools::tcpprobe()?);
        command.env("LD_PRELOAD", &library).env("FAIL_FROM", after.to_string()).env("FAIL_IN", scene.file(""));
        command.args(["record", "--port", &scene.port.to_string(), "-w"]).arg(&trace);
        let finished = Running::start(&mut command)?.wait(STEP_LIMIT * 2).context(what.clone())?;
        drop(traffic);
        expect_words(&finished, &["disk I/O error", "Input/output error"]).context(what.clone())?;
        if finished.stderr.contains("recording port") {
            expect_account(&finished, &trace).context(what.clone())?;
        }
        expect_next_works(scene, &trace).context(what)?;
    }
    Ok(())
}

pub(crate) fn record_loses_a_file(scene: &Scene, rounds: u32) -> Result<()> {
    let mut chance = Chance::new();
    for round in 0..rounds {
        let trace = scene.file(&format!("removed-{round}.db"));
        let suffix = [".db", ".db-wal", ".db-shm", ".db-backlog", ".pcap"][round as usize % 5];
        let file = scene.file(&format!("removed-{round}{suffix}"));
        let traffic = Endless::start(scene)?;
        let recorder = record_into(scene, &trace, &[])?;
        let in_kernel = InKernel::of(recorder.pid())?;
        std::thread::sleep(chance.millis(10, 1_500));
        std::fs::remove_file(&file)?;
        let removed_ns = mono_ns()?;
        let finished = recorder.wait(STEP_LIMIT)?;
        drop(traffic);
        let what = format!("round {round}, without {}", file.display());
        expect_words(&finished, &["was removed"]).context(what.clone())?;
        in_kernel.expect_gone().context(what.clone())?;
        ensure!(finished.stderr.contains(&format!("tcpprobe: {}:", file.display())), "{what}: {}", finished.stderr);
        if suffix == ".db" {
            ensure!(!trace.exists(), "{what}: the trace is there again");
        } else {
            let newest_ns = expect_account(&finished, &trace).context(what.clone())?;
            expect_newest(newest_ns, removed_ns, &what)?;
        }
        expect_next_works(scene, &trace).context(what)?;
    }
    Ok(())
}

pub(crate) fn record_loses_its_interface(scene: &Scene, rounds: u32) -> Result<()> {
    let mut chance = Chance::new();
    for round in 0..rounds {
        let what = format!("round {round}");
        let trace = scene.file(&format!("interface-{round}.db"));
        let ip = |arguments: &[&str]| -> Result<()> {
            tools::run(scene.lab.command(Ns::A, "ip").args(arguments), STEP_LIMIT)?.expect_code(0).map(drop)
        };
        ip(&["link", "add", "gone0", "type", "veth", "peer", "name", "gone1"])?;
        ip(&["link", "set", "gone0", "up"])?;
        let traffic = Endless::start(scene)?;
        let recorder = record_into(scene, &trace, &["-i", "gone0"])?;
        let in_kernel = InKernel::of(recorder.pid())?;
        std::thread::sleep(chance.millis(10, 1_000));
        ip(&["link", "del", "gone0"])?;
        let gone_ns = mono_ns()?;
        let finished = recorder.wait(Duration::from_secs(20)).context(what.clone())?;
        drop(traffic);
        expect_words(&finished, &["gone0"]).context(what.clone())?;
        in_kernel.expect_gone().context(what.clone())?;
        let newest_ns = expect_account(&finished, &trace).context(what.clone())?;
        expect_newest(newest_ns, gone_ns, &what)?;
        expect_next_works(scene, &trace)?;
    }
    Ok(())
}
