//! Simulated recordings of many connections, joined, and every row compared with the truth. One test for each world.
//!
//! `TCPPROBE_SIM_SEEDS=N` runs N recordings of each world, `TCPPROBE_SIM_WORLD` and `TCPPROBE_SIM_SEED` a single one,
//! `TCPPROBE_SIM_DUMP=1` lists the connections that a fault is on, `TCPPROBE_SIM_FLOW=N` a connection of one's choice.

mod soundness;
mod thinned;

use std::collections::{BTreeMap, BTreeSet};
use std::env::var;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tcpprobe_fixtures::sim::listing::list;
use tcpprobe_fixtures::sim::verdict::{Share, Verdict, compare};
use tcpprobe_fixtures::sim::world::World;
use tcpprobe_fixtures::sim::worlds::{MIXED, WORLDS, by_name, mixed};
use tcpprobe_fixtures::sim::{Recording, simulate};
use tcpprobe_replay::join::{Batching, join};
use tcpprobe_trace::join::{JoinWriter, PacketRow};
use tcpprobe_trace::verify::{JOIN, verify};

/// Recordings of each world. With all worlds these are more than 10,000 connections.
const SEEDS: u64 = 12;
/// Recordings of worlds that are put together at random.
const MIXED_SEEDS: u64 = 60;

/// Of 1000 packets with a sample at which something was selectively acknowledged, so many must say how much. Where the
/// capture begins late or lacks packets, it does not know it, of each loss for a round trip or more.
const SACKED_FLOOR: u32 = 850;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        trial("regressions".into(), regressions),
        trial("enough_connections".into(), enough_connections),
        trial("every_feature_occurs".into(), soundness::every_feature_occurs),
        trial("what_is_over_was_delivered".into(), soundness::what_is_over_was_delivered),
        trial("the_truth_is_consistent".into(), soundness::the_truth_is_consistent),
        trial("a_seed_says_everything".into(), soundness::a_seed_says_everything),
    ];
    let only = var("TCPPROBE_SIM_WORLD").ok();
    for world in WORLDS.iter().filter(|w| only.as_ref().is_none_or(|name| name == w.name)) {
        trials.push(trial(format!("world_{}", world.name), || world_is_right(world.name, SEEDS, |_| *world)));
        trials.push(trial(format!("batches_{}", world.name), || world_in_batches(world.name, SEEDS / 3, |_| *world)));
        if thinned::can_be_told(world) {
            trials.push(trial(format!("thinned_{}", world.name), || thinned::is_near(world)));
        }
    }
    if only.is_none_or(|name| name == MIXED) {
        trials.push(trial(format!("world_{MIXED}"), || world_is_right(MIXED, MIXED_SEEDS, mixed)));
        trials.push(trial(format!("batches_{MIXED}"), || world_in_batches(MIXED, MIXED_SEEDS / 3, mixed)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, || test().map_err(|e| format!("{e:#}").into()))
}

fn number(name: &str) -> Result<Option<u64>> {
    match var(name) {
        Ok(text) => Ok(Some(text.parse().with_context(|| format!("{name}={text} is no number"))?)),
        Err(_) => Ok(None),
    }
}

/// The seeds to run: so many, where nothing else is asked for.
fn seeds(usual: u64) -> Result<Range<u64>> {
    Ok(match number("TCPPROBE_SIM_SEED")? {
        Some(seed) => seed..seed + 1,
        None => 0..number("TCPPROBE_SIM_SEEDS")?.unwrap_or(usual),
    })
}

/// Joins recordings of a world; `world` makes the one of a seed.
fn world_is_right(name: &str, usual: u64, world: impl Fn(u64) -> World) -> Result<()> {
    try_world(name, usual, world, Batching::default(), 0)
}

/// As a capture that is too large to be joined at once: cut into many batches, in each of which little is known of a
/// connection. Nothing may be wrong, and of 1000 packets at most 40 more may be without their sample.
fn world_in_batches(name: &str, usual: u64, world: impl Fn(u64) -> World) -> Result<()> {
    try_world(name, usual, world, BATCHES, 40)
}

/// Batches so short that each recording has many.
const BATCHES: Batching = Batching { packets: 1000, margin: 10 };

fn try_world(name: &str, usual: u64, world: impl Fn(u64) -> World, batching: Batching, allowance: u32) -> Result<()> {
    let mut shares = [Share::default(); 3];
    let mut missed: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut faults = String::new();
    let (mut wrong, mut dropped, mut all_denied) = (0, 0, 0);
    let mut floor = [0; 2];
    for seed in seeds(usual)? {
        let recording = simulate(&world(seed), seed);
        floor = recording.world.floor;
        let (verdict, rows, violations) = joined(&recording, batching)?;
        for (all, one) in shares.iter_mut().zip(verdict.shares.into_iter().chain([verdict.sacked])) {
            all.there += one.there;
            all.found += one.found;
        }
        for (words, n) in &verdict.missed {
            let first = verdict.examples[words];
            let entry = missed
                .entry(words.clone())
                .or_insert((0, format!("seed {seed} connection {} packet {}", first.0, first.1)));
            entry.0 += n;
        }
        wrong += verdict.wrong.len();
        dropped += verdict.dropped;
        all_denied += verdict.denied;
        if wrong < 10 * MOST_SHOWN {
            faults += &words(&recording, &verdict, &rows);
        }
        if let Some(connection) = number("TCPPROBE_SIM_FLOW")? {
            eprintln!("{}", list(&recording, connection as usize, &rows, &BTreeSet::new()));
        }
        ensure!(violations.is_empty(), "world {name} seed {seed}: `verify` finds\n{}", violations.join("\n"));
    }
    let [data, empty, sacked] = shares;
    let summary = format!(
        "{}: {} of {} packets with data, {} of {} others have their sample; what is SACKed is said of {} of {}; {wrong} wrong; {dropped} dropped by the host, {all_denied} denied; missed: {missed:?}",
        name, data.found, data.there, empty.found, empty.there, sacked.found, sacked.there
    );
    eprintln!("{summary}");
    ensure!(wrong == 0, "{wrong} wrong rows\n{faults}\n{summary}");
    // a batch begins late for what was selectively acknowledged before it
    let sacked_floor = if allowance == 0 { SACKED_FLOOR } else { 0 };
    let floors = [
        (data, floor[0] - allowance, "with data"),
        (empty, floor[1] - allowance, "others"),
        (sacked, sacked_floor, "what is SACKed there"),
    ];
    for (share, floor, what) in floors {
        ensure!(share.found * 1000 >= share.there * u64::from(floor), "too few packets ({what}) found: {summary}");
    }
    Ok(())
}

/// Faults of a recording that are shown, and a tenth of those of all recordings of a world.
const MOST_SHOWN: usize = 20;

/// What is wrong, in words, and how to see it again.
fn words(recording: &Recording, verdict: &Verdict, rows: &[PacketRow]) -> String {
    let mut text = String::new();
    let (world, seed) = (recording.world.name, recording.seed);
    for w in verdict.wrong.iter().take(MOST_SHOWN) {
        let _ = writeln!(text, "world {world} seed {seed} connection {} packet {}: {}", w.connection, w.number, w.what);
    }
    if !verdict.wrong.is_empty() {
        let _ = writeln!(text, "  again: TCPPROBE_SIM_WORLD={world} TCPPROBE_SIM_SEED={seed} TCPPROBE_SIM_DUMP=1");
    }
    if var("TCPPROBE_SIM_DUMP").is_ok() {
        let mut by_connection: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        for w in &verdict.wrong {
            by_connection.entry(w.connection).or_default().insert(w.number);
        }
        let _ = writeln!(text, "{:?}", recording.world);
        for (connection, numbers) in by_connection {
            let _ = writeln!(text, "connection {connection}\n{}", list(recording, connection, rows, &numbers));
        }
    }
    text
}

static ONE: LazyLock<ThreadPool> = LazyLock::new(|| pool(1));
static SEVERAL: LazyLock<ThreadPool> = LazyLock::new(|| pool(4));

#[expect(clippy::expect_used, reason = "a test")]
fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

/// What is right and wrong of a join, its rows, and what `verify` says of it.
fn joined(recording: &Recording, batching: Batching) -> Result<(Verdict, Vec<PacketRow>, Vec<String>)> {
    // in memory where that is possible: a disk's delays would be most of the time
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let (trace, capture) = (folder.path().join("trace.db"), folder.path().join("trace.pcap"));
    recording.write_trace(&trace, &capture)?;
    recording.write_capture(&capture)?;
    let joined = SEVERAL.install(|| join(&trace, &capture, batching))?;
    // of each world once: the order in which batches are done must not matter
    if batching != Batching::default() && recording.seed == 0 {
        let alone = ONE.install(|| join(&trace, &capture, batching))?;
        ensure!(alone.packets == joined.packets, "one thread and four find different rows");
        ensure!(alone.capture == joined.capture, "one thread and four count differently");
    }
    let mut writer = JoinWriter::begin(&trace, false)?;
    writer.write(&joined.capture, joined.packets.iter().copied())?;
    writer.commit()?;
    let mut violations = Vec::new();
    verify(&trace, &mut |violation| {
        let is_of_the_join = JOIN.iter().any(|check| check.name == violation.check);
        if is_of_the_join {
            violations.push(format!("{violation:?}"));
        }
        Ok(())
    })?;
    let mut verdict = compare(recording, &joined.packets);
    verdict.account(recording, &joined.capture.packetless);
    Ok((verdict, joined.packets, violations))
}

/// What once went wrong.
fn regressions() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/regressions.txt");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut faults = String::new();
    for line in text.lines().map(|l| l.split('#').next().unwrap_or("").trim()).filter(|l| !l.is_empty()) {
        let mut parts = line.split_whitespace();
        let (Some(world), Some(seed)) = (parts.next(), parts.next()) else { bail!("`{line}` is no world and seed") };
        let seed = seed.parse().with_context(|| format!("`{line}`"))?;
        let world = by_name(world, seed).with_context(|| format!("there is no world {world}"))?;
        let recording = simulate(&world, seed);
        let batching = if parts.next() == Some("batches") { BATCHES } else { Batching::default() };
        let (verdict, rows, violations) = joined(&recording, batching)?;
        faults += &words(&recording, &verdict, &rows);
        ensure!(violations.is_empty(), "`{line}`: `verify` finds\n{}", violations.join("\n"));
    }
    ensure!(faults.is_empty(), "{faults}");
    Ok(())
}

fn enough_connections() -> Result<()> {
    let connections: u64 = WORLDS.iter().map(|w| u64::from(w.connections) * SEEDS).sum();
    ensure!(connections >= 10_000, "{connections} connections");
    Ok(())
}
