//! Runs a join: batches are read, joined on all threads, and put together in their order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{channel, sync_channel};

use tcpprobe_trace::join::{CaptureRow, Outcome, Unjoined};
use tcpprobe_trace::reader::{self, ClockStep, FlowRow, Sacked, TraceReader};

use super::batch::{self, Found};
use super::ledger::Ledger;
use super::{Error, Joined, Part};
use crate::batches::{Batch, Batcher, Spare};
use crate::capture::ReadSummary;
use crate::clocks::Clocks;
use crate::hash::{HashMap, HashSet};
use crate::outcomes::{Coverage, outcomes_beyond};
use crate::readers::{Counts, Readers};
use crate::tracks::Landmarks;
use crate::translation::Signatures;

/// Landmarks between two readings of samples that no batch has looked at.
const AT_ONCE: usize = 1 << 10;

/// What all batches are joined with.
pub(super) struct Context<'a> {
    pub(super) readers: &'a Readers<'a>,
    pub(super) flows: &'a [FlowRow],
    pub(super) counts: Counts,
    pub(super) signatures: Signatures,
    capture: PathBuf,
    /// What the recording missed of this capture, if it is its own.
    dropped: Option<u64>,
    landmarks: OnceLock<Landmarks>,
    /// Where the recording's wall clock was set.
    pub(super) steps: Vec<ClockStep>,
    pub(super) spare: Spare,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        readers: &'a Readers<'a>,
        capture: &Path,
        flows: &'a [FlowRow],
    ) -> tcpprobe_trace::Result<Context<'a>> {
        let capture = std::path::absolute(capture).unwrap_or_else(|_| capture.to_owned());
        let sessions = readers.read(TraceReader::sessions)?;
        let own = sessions.iter().find(|s| s.capture_path.as_ref() == Some(&capture));
        let dropped = own.and_then(|s| s.capture_dropped);
        Ok(Context {
            readers,
            flows,
            counts: Counts::default(),
            signatures: Signatures::default(),
            capture,
            dropped,
            landmarks: OnceLock::new(),
            steps: readers.read(TraceReader::clock_steps)?,
            spare: Spare::default(),
        })
    }

    /// Read when they are asked for first.
    pub(super) fn landmarks(&self) -> tcpprobe_trace::Result<&Landmarks> {
        if let Some(known) = self.landmarks.get() {
            return Ok(known);
        }
        let read = Landmarks::read(self.readers, self.flows)?;
        Ok(self.landmarks.get_or_init(|| read))
    }

    /// What a batch can know of the whole capture.
    pub(super) fn coverage(&self, batch: &Batch) -> Coverage {
        let last = if batch.ends { batch.read.last_ts_ns } else { Some(i64::MAX) };
        Coverage { span_ns: batch.read.first_ts_ns.zip(last), whole: self.is_whole(&batch.read, batch.ends) }
    }

    /// Has this capture all that came to it? `record` knows of its own, and a file may say so itself, at its end.
    fn is_whole(&self, read: &ReadSummary, ends: bool) -> bool {
        // not their sum: counters of a damaged file may go around to 0
        let file = read.capture.if_dropped.zip(read.capture.os_dropped).map(|(a, b)| a.max(b)).filter(|_| ends);
        self.dropped.or(file) == Some(0) && read.capture.truncated.is_none()
    }
}

/// Joins all batches.
pub(super) fn run<'a>(
    context: &Context<'a>,
    mut batcher: Batcher<'_>,
    take: &mut dyn FnMut(Part) -> tcpprobe_trace::Result<()>,
) -> Result<Joined, Error> {
    let mut ledger = Ledger::default();
    let mut read = batcher.read();
    let mut add = |found: Found| {
        let mut packetless = Vec::new();
        let packets = ledger.add(context.flows, found, &mut packetless);
        take(Part { packets, packetless })
    };
    if rayon::current_num_threads() == 1 {
        while let Some(batch) = batcher.next()? {
            read = batch.read.clone();
            add(batch::join(context, batch, 1)?)?;
        }
    } else {
        in_parallel(context, batcher, &mut read, &mut add)?;
    }
    let clocks = ledger.clocks();
    let mut packetless = Vec::new();
    let asked = ledger.close(context.flows, &mut packetless);
    take(Part { packets: Vec::new(), packetless })?;
    beyond(context, &read, &clocks, &asked, &mut ledger, take)?;
    let seen: HashSet<u32> = asked.iter().map(|(flow, _)| *flow).collect();
    for (flow, _) in context.flows.iter().zip(0u32..).filter(|(_, at)| !seen.contains(at)) {
        match context.counts.of(context.readers, flow.id)? {
            0 => {}
            n => _ = ledger.samples.insert((flow.id, Outcome::FlowNotCaptured), n),
        }
    }
    let capture = capture_row(context, &read, &clocks, &mut ledger);
    let Ledger { counts, of_recorded_flows, flows_left_out, .. } = ledger;
    Ok(Joined { capture, read, packets: Vec::new(), counts, of_recorded_flows, flows_left_out })
}

/// Reads batches on a thread of its own, and joins as many at once as there are threads.
fn in_parallel(
    context: &Context<'_>,
    mut batcher: Batcher<'_>,
    read: &mut ReadSummary,
    add: &mut dyn FnMut(Found) -> tcpprobe_trace::Result<()>,
) -> Result<(), Error> {
    let threads = rayon::current_num_threads();
    // while one batch takes long, what was found in those behind it waits in memory
    let most_ahead = (threads + threads.div_ceil(2)) as u64;
    std::thread::scope(|scope| {
        // none waits: memory holds those that are being joined, and the one that is being read
        let (give, batches) = sync_channel(0);
        scope.spawn(move || {
            loop {
                let next = batcher.next().transpose();
                let Some(next) = next else { break };
                let is_error = next.is_err();
                if give.send(next).is_err() || is_error {
                    break;
                }
            }
        });
        let (done, results) = channel();
        rayon::in_place_scope(|pool| {
            let (mut running, mut number, mut next) = (0, 0u64, 0u64);
            let mut early: BTreeMap<u64, Found> = BTreeMap::new();
            loop {
                while running < threads && number - next < most_ahead {
                    // no thread is to wait until rows are put together and written, nor these for the capture
                    let there = if early.contains_key(&next) { batches.try_recv().ok() } else { batches.recv().ok() };
                    let Some(batch) = there.transpose()? else { break };
                    *read = batch.read.clone();
                    // a thread that waits for what others took of its batch does nothing: worth it where they would not
                    // have one of their own
                    let uncut = if running + 1 == threads && !batch.ends { usize::MAX } else { 1 };
                    let (done, at) = (done.clone(), number);
                    pool.spawn(move |_| {
                        let found = catch_unwind(AssertUnwindSafe(|| batch::join(context, batch, uncut)));
                        // who does not listen any more has an error already
                        let _ = done.send((at, found));
                    });
                    (running, number) = (running + 1, number + 1);
                }
                if let Some(found) = early.remove(&next) {
                    add(found)?;
                    next += 1;
                    continue;
                }
                if running == 0 {
                    return Ok(());
                }
                let Ok((at, found)) = results.recv() else { return Ok(()) };
                running -= 1;
                // a defect must not make the others wait for a result that never comes
                early.insert(at, found.unwrap_or_else(|panic| resume_unwind(panic))?);
            }
        })
    })
}

/// The samples of captured flows from before their first packets and after their last ones, of which no batch has read.
fn beyond(
    context: &Context<'_>,
    read: &ReadSummary,
    clocks: &Clocks,
    asked: &[(u32, (i64, i64))],
    ledger: &mut Ledger,
    take: &mut dyn FnMut(Part) -> tcpprobe_trace::Result<()>,
) -> Result<(), Error> {
    let span_ns = read.first_ts_ns.zip(read.last_ts_ns);
    let coverage = Coverage { span_ns, whole: context.is_whole(read, true) };
    for &(flow, (first, last)) in asked {
        let id = context.flows[flow as usize].id;
        let before = (first != i64::MIN).then(|| (i64::MIN, first - 1));
        let after = (last != i64::MAX).then(|| (last + 1, i64::MAX));
        for (mut from, to) in before.into_iter().chain(after) {
            let ids = context.landmarks()?.ids(flow, AT_ONCE).filter(|i| (from..to).contains(i)).skip(1);
            for until in ids.chain([to]).collect::<Vec<_>>() {
                let mut packetless = Vec::new();
                let part = reader::Part { flow: &context.flows[flow as usize], ids: (from, until), sacked: Sacked::No };
                let samples = context.readers.read(|reader| reader.samples_of(&[part]))?.concat();
                ledger.add_samples(id, outcomes_beyond(&samples, clocks, coverage).into_iter(), &mut packetless);
                take(Part { packets: Vec::new(), packetless })?;
                from = until.saturating_add(1);
            }
        }
    }
    Ok(())
}

fn capture_row(context: &Context<'_>, read: &ReadSummary, clocks: &Clocks, ledger: &mut Ledger) -> CaptureRow {
    let session_of: HashMap<i64, i64> = context.flows.iter().map(|f| (f.id, f.session_id)).collect();
    let mut sessions: BTreeMap<i64, u64> = BTreeMap::new();
    for (flow, n) in &ledger.rows {
        *sessions.entry(session_of[flow]).or_insert(0) += n;
    }
    let known = ledger.of_recorded_flows + ledger.undecided + ledger.left_out;
    let rest = [
        (Unjoined::NoRecordedFlow.name(), read.tcp_packets - known),
        (Unjoined::SeveralFlows.name(), ledger.undecided),
        (Unjoined::NotCompared.name(), ledger.left_out),
        ("not TCP", read.not_tcp),
    ];
    let skipped = read.skipped.iter().map(|(reason, &n)| (reason.as_str(), n));
    let mut unjoined: BTreeMap<String, u64> = BTreeMap::new();
    for (reason, n) in skipped.chain(rest).filter(|(_, n)| *n > 0) {
        unjoined.insert(reason.to_owned(), n);
    }
    CaptureRow {
        path: context.capture.clone(),
        session_id: sessions.iter().max_by_key(|(id, n)| (**n, std::cmp::Reverse(**id))).map(|(id, _)| *id),
        link_type: read.capture.link_type.map_or(0, |l| l.0),
        snaplen: read.capture.snaplen.unwrap_or(0),
        packets: read.capture.packets,
        tcp_packets: read.tcp_packets,
        joined: ledger.joined,
        clock: clocks.row(read.first_ts_ns.unwrap_or(0)),
        truncated: read.capture.truncated.is_some(),
        unjoined,
        translations: std::mem::take(&mut ledger.translations),
        samples: std::mem::take(&mut ledger.samples),
        packetless: Vec::new(),
    }
}
