//! `tcpprobe join`: joins captures to a trace, all of them or none, and says what was matched and what was not.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tcpprobe_replay::capture::Capture;
use tcpprobe_replay::join::{Batching, Joined, Readers, join_capture_in_parts};
use tcpprobe_trace::join::{ClockEstimate, JoinWriter, Match, Outcome, Translation};
use tcpprobe_trace::reader::TraceReader;

use crate::Outcome as Ended;
use crate::args::JoinArgs;
use crate::progress::Progress;
use crate::record::recover::before_reading;
use crate::words::{count, counted, nanoseconds, percent, say};

/// Translated flows beyond these are counted, not listed.
const MOST_LINES: usize = 10;

/// Of a capture of so many bytes rows are written while others are looked for.
const LONG_BYTES: u64 = 1 << 20;

pub(crate) fn run(args: &JoinArgs) -> Ended {
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.into())
            .build_global()
            .context("cannot start the threads")?;
    }
    before_reading(&args.trace);
    // an older one is brought up to date once everything else is in order
    let is_old = match TraceReader::open(&args.trace) {
        Err(tcpprobe_trace::Error::OldVersion { .. }) if !args.dry_run => true,
        opened => opened.map(|_| false)?,
    };
    let mut is_long = false;
    for capture in &args.captures {
        // before anything is written: is each of them a capture at all? A pipe can be read but once
        match std::fs::metadata(capture) {
            Ok(m) if !m.is_file() && !m.is_dir() => is_long = true,
            file => {
                Capture::open(capture)?;
                is_long |= file.is_ok_and(|m| m.len() >= LONG_BYTES);
            }
        }
    }
    if is_old {
        tcpprobe_trace::upgrade(&args.trace)?;
    }
    let mut writer = if args.dry_run { None } else { Some(JoinWriter::begin(&args.trace, is_long)?) };
    let readers = match &writer {
        None => Readers::new(&args.trace),
        Some(writer) => Readers::beside(writer, &args.trace)?,
    };
    let mut joined = Vec::new();
    for capture in &args.captures {
        joined.push(match &mut writer {
            None => {
                let (opened, _bar) = open(capture)?;
                join_capture_in_parts(&readers, opened, Batching::default(), |_| Ok(()))?
            }
            Some(writer) => written(writer, &readers, capture)?,
        });
    }
    if let Some(writer) = writer {
        writer.commit()?;
    }
    for (joined, path) in joined.iter().zip(&args.captures) {
        summary(joined, path);
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a capture, and a bar for how much of it has been read.
pub(crate) fn open(path: &Path) -> anyhow::Result<(Capture, Progress)> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let bytes = file.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let bar = Progress::of_bytes(&name, bytes);
    Ok((Capture::from_reader(bar.reading(file), path)?, bar))
}

/// Joins a capture and writes what is found while the join goes on.
fn written(writer: &mut JoinWriter, readers: &Readers<'_>, capture: &Path) -> anyhow::Result<Joined> {
    let path = std::path::absolute(capture).unwrap_or_else(|_| capture.to_owned());
    let mut id = None;
    let (opened, _bar) = open(capture)?;
    let joined = join_capture_in_parts(readers, opened, Batching::default(), |part| {
        let id = match id {
            Some(id) => id,
            None => *id.insert(writer.start(&path)?),
        };
        writer.add(id, part.packets.into_iter(), &part.packetless)
    })?;
    let id = id.map_or_else(|| writer.start(&path), Ok)?;
    writer.finish(id, &joined.capture)?;
    Ok(joined)
}

fn summary(joined: &Joined, path: &Path) {
    let capture = &joined.capture;
    let rows: u64 = joined.counts.values().sum();
    say!(
        "{}: {} packets, {} TCP, {} of recorded flows",
        path.display(),
        count(capture.packets),
        count(capture.tcp_packets),
        count(joined.of_recorded_flows)
    );
    if let Some(cut) = &joined.read.capture.truncated {
        say!("  the file ends within a record, after packet {}: joined as far as it goes", count(cut.after_frame));
    }
    for t in capture.translations.iter().take(MOST_LINES) {
        say!("  {}", translation_words(t));
    }
    if let Some(more @ 1..) = capture.translations.len().checked_sub(MOST_LINES) {
        say!("  {} more under other addresses or numbers; all: the table `translations`", counted(more as u64, "flow"));
    }
    if joined.flows_left_out > 0 {
        say!("  {} not looked for under other addresses: too many samples", counted(joined.flows_left_out, "flow"));
    }
    let mut by_match: BTreeMap<Match, u64> = BTreeMap::new();
    for ((matched, _), n) in &joined.counts {
        *by_match.entry(*matched).or_insert(0) += n;
    }
    for matched in Match::ALL {
        let n = by_match.get(&matched).copied().unwrap_or(0);
        say!("  {:<9} {:>12}  {}", matched.name(), count(n), percent(n, rows));
        for ((m, reason), n) in &joined.counts {
            if let (true, Some(reason)) = (*m == matched, reason) {
                say!("            {:>12}  {}", count(*n), reason.name());
            }
        }
    }
    for (reason, n) in &capture.unjoined {
        say!("  not joined {:>10}  {reason}", count(*n));
    }
    let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
    for ((_, outcome), n) in &capture.samples {
        *outcomes.entry(*outcome).or_insert(0) += n;
    }
    for (outcome, n) in &outcomes {
        say!("  samples   {:>12}  {}", count(*n), outcome.name());
    }
    if let Some(clock) = capture.clock {
        say!("  {}", clock_words(&clock));
    }
}

/// Under which addresses and numbers the capture has a flow.
fn translation_words(t: &Translation) -> String {
    let mut words = format!("flow {} is {} > {}", t.flow_id, t.local, t.remote);
    for (shift, whose) in [(t.seq_shift, "its"), (t.peer_seq_shift, "its peer's")] {
        if shift != 0 {
            words.push_str(&format!(", {whose} numbers + {shift}"));
        }
    }
    format!("{words}: {}", counted(t.packets, "packet"))
}

/// The difference of the clocks and how sure it is.
fn clock_words(clock: &ClockEstimate) -> String {
    let mut words = format!("capture's clock - recording's clock: {}", nanoseconds(clock.offset_ns));
    match clock.offset_error_ns {
        Some(error) => words.push_str(&format!(" ± {}", nanoseconds(error))),
        None => words.push_str(", the path's delay included (seen in one direction only)"),
    }
    if let Some((drift, error)) = clock.drift_ppb {
        words.push_str(&format!(", drift {:.3} ± {:.3} ppm", drift as f64 / 1e3, error as f64 / 1e3));
    }
    match clock.steps {
        0 => {}
        1 => words.push_str("; a clock was set meanwhile"),
        n => words.push_str(&format!("; clocks were set {n} times meanwhile")),
    }
    words
}
