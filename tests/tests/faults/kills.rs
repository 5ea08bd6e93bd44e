//! The recorder, or the machine, stops without warning.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use tcpprobe_tests::scene::{STEP_LIMIT, Scene};

use crate::Chance;
use crate::in_kernel::InKernel;
use crate::kept::{Endless, expect_newest, expect_next_works, expect_whole, mono_ns, record_into, tcpprobe};

/// SIGKILL at random moments. The capture ends within a packet at worst, and is joined up to there.
pub(crate) fn record(scene: &Scene, rounds: u32) -> Result<()> {
    let mut chance = Chance::new();
    for round in 0..rounds {
        let trace = scene.file("trace.db");
        let pcap = scene.file("killed.pcap");
        let traffic = Endless::start(scene)?;
        let recorder = record_into(scene, &trace, &["--pcap", &pcap.display().to_string()])?;
        let in_kernel = InKernel::of(recorder.pid())?;
        let after = chance.millis(1, 2_500);
        std::thread::sleep(after);
        let killed_ns = mono_ns()?;
        recorder.stop(Signal::SIGKILL, STEP_LIMIT)?;
        drop(traffic);
        let what = format!("round {round}, killed after {after:?}");
        in_kernel.expect_gone().context(what.clone())?;
        let newest_ns = expect_whole(&trace, false).context(what.clone())?;
        // of the first second nothing need be there
        if newest_ns > 0 || after.as_millis() >= 1_000 {
            expect_newest(newest_ns, killed_ns, &what)?;
        }
        // joins take their time
        if round % 8 == 0 && std::fs::metadata(&pcap)?.len() > 24 {
            tcpprobe(&trace, "join", &[&pcap.display().to_string()])?.expect_code(0).context(what)?;
        }
        std::fs::remove_file(&pcap)?;
        if round % 16 == 15 {
            std::fs::remove_file(&trace)?;
        }
    }
    expect_next_works(scene, &scene.file("trace.db"))
}

/// The machine stops: the files are those of one moment, but for what was not forced to the disk, of which each file
/// keeps a part.
pub(crate) fn machine(scene: &Scene, rounds: u32) -> Result<()> {
    const PER_RECORDING: u32 = 20;
    let mut chance = Chance::new();
    let mut left = rounds;
    while left > 0 {
        let trace = scene.file("running.db");
        let traffic = Endless::start(scene)?;
        let recorder = record_into(scene, &trace, &["--no-pcap"])?;
        // that a session has begun is forced to the disk
        let begun_frames = frames(&trace)?.0;
        let mut copies = Vec::new();
        for _ in 0..left.min(PER_RECORDING) {
            std::thread::sleep(chance.millis(5, 400));
            recorder.signal(Signal::SIGSTOP)?;
            let stopped_ns = mono_ns()?;
            let copied = copy(scene, &trace, copies.len());
            recorder.signal(Signal::SIGCONT)?;
            copies.push((copied?, stopped_ns));
        }
        Scene::stop(recorder)?;
        drop(traffic);
        for (number, (copy, stopped_ns)) in copies.iter().enumerate() {
            let cut = if number % 2 == 1 { cut_unsynced(copy, begun_frames, &mut chance)? } else { "nothing".into() };
            let what = format!("{}, cut: {cut}", copy.display());
            let newest_ns = expect_whole(copy, false).context(what.clone())?;
            if number % 2 == 0 && newest_ns > 0 {
                expect_newest(newest_ns, *stopped_ns, &what)?;
            }
        }
        if let Some((copy, _)) = copies.first() {
            expect_next_works(scene, copy)?;
        }
        std::fs::remove_dir_all(scene.file("copies"))?;
        std::fs::remove_file(&trace)?;
        left -= left.min(PER_RECORDING);
    }
    Ok(())
}

fn beside(trace: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", trace.display()))
}

/// Copies the trace and what stands beside it.
fn copy(scene: &Scene, trace: &Path, number: usize) -> Result<PathBuf> {
    let folder = scene.file("copies").join(number.to_string());
    std::fs::create_dir_all(&folder)?;
    let to = folder.join("trace.db");
    for suffix in ["", "-wal", "-shm", "-journal", "-backlog"] {
        let from = beside(trace, suffix);
        if from.exists() {
            std::fs::copy(&from, beside(&to, suffix))?;
        }
    }
    Ok(to)
}

/// Cuts off what the recorder has not forced to the disk: a part of the log's frames that no checkpoint has begun to take
/// over (SQLite forces the log to the disk before that), and of the backlog.
fn cut_unsynced(trace: &Path, begun_frames: u64, chance: &mut Chance) -> Result<String> {
    const LOG_HEAD_BYTES: u64 = 32;
    const FRAME_BYTES: u64 = 24 + 4096;
    let (frames, taken_up) = frames(trace)?;
    let taken_up = taken_up.max(begun_frames);
    let mut said = String::new();
    if frames > taken_up {
        let at = LOG_HEAD_BYTES + FRAME_BYTES * taken_up + chance.below(FRAME_BYTES * (frames - taken_up));
        OpenOptions::new().write(true).open(beside(trace, "-wal"))?.set_len(at)?;
        said = format!("the log at {at} of {frames} frames");
    }
    // the index lives in memory
    std::fs::remove_file(beside(trace, "-shm"))?;
    let backlog = OpenOptions::new().write(true).open(beside(trace, "-backlog"))?;
    let length = backlog.metadata()?.len();
    ensure!(length > 0, "the backlog has no head");
    let at = 4096 + chance.below(length.saturating_sub(4096).max(1));
    if at < length {
        backlog.set_len(at)?;
        said.push_str(&format!(" the backlog at {at} of {length}"));
    }
    Ok(said)
}

/// How many frames the log has by SQLite's index of it, and how many a checkpoint has taken up.
fn frames(trace: &Path) -> Result<(u64, u64)> {
    let index = File::open(beside(trace, "-shm"))?;
    let number_at = |at| -> Result<u64> {
        let mut bytes = [0; 4];
        index.read_exact_at(&mut bytes, at)?;
        Ok(u32::from_ne_bytes(bytes).into())
    };
    // by the format of the index (walformat.html)
    Ok((number_at(16)?, number_at(128)?))
}
