//! The join: from a trace and a capture to one row for each packet and recorded socket, in parallel over flows.
//!
//! The rows are the same for any number of threads: flows are joined on their own, and their rows put in the order
//! of the capture.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use tcpprobe_trace::join::{CaptureRow, Match, Outcome, PacketRow, Reason};
use tcpprobe_trace::reader::{FlowRow, SessionRow, TraceReader};

use crate::capture::{CaptureError, ReadSummary, read_tcp};
use crate::clocks::Clocks;
use crate::copies;
use crate::flows::Dealer;
use crate::outcomes::{Coverage, outcomes};
use crate::packet::Packet;
use crate::reconstruct::{Matched, match_flow, rows};
use crate::sightings::FlowPacket;

/// Why a join cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The capture cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] tcpprobe_trace::Error),
}

/// A capture joined to a trace.
#[derive(Debug)]
pub struct Joined {
    /// What the capture is.
    pub capture: CaptureRow,
    /// What was read of it.
    pub read: ReadSummary,
    /// A row for each packet and recorded socket, by frame number.
    pub packets: Vec<PacketRow>,
    /// Rows by match and reason.
    pub counts: BTreeMap<(Match, Option<Reason>), u64>,
    /// TCP packets of recorded flows; smaller than the number of rows where both ends were recorded.
    pub of_recorded_flows: u64,
}

/// Joins a capture to a trace; changes neither.
pub fn join(trace: &Path, capture: &Path) -> Result<Joined, Error> {
    let reader = TraceReader::open(trace)?;
    let flows = reader.flows()?;
    let (packets, read) = read_tcp(capture)?;

    let mut dealer = Dealer::new(&flows);
    let mut shared = HashMap::new();
    for flow in dealer.shared().collect::<Vec<_>>() {
        shared.insert(flow, reader.samples(flows[flow as usize].id)?);
    }
    for (packet, index) in packets.iter().zip(0u32..) {
        dealer.deal(index, packet, &shared);
    }
    drop(shared);

    let work: Vec<Work<'_>> = flows.iter().zip(&dealer.dealt).filter(|(_, dealt)| !dealt.is_empty()).collect();
    let matched = match_all(trace, &work, &packets)?;
    let every = work.par_iter().zip(&matched).flat_map_iter(|((_, dealt), m)| m.delays(&packets, dealt));
    let clocks = Clocks::estimate(every.collect());
    let mut rows: Vec<PacketRow> = work
        .par_iter()
        .zip(&matched)
        .flat_map_iter(|((flow, dealt), m)| rows(flow, m, &packets, dealt, &clocks))
        .collect();
    rows.par_sort_unstable_by_key(|r| (r.number, r.flow_id, !r.is_out));

    let coverage = Coverage {
        span_ns: read.first_ts_ns.zip(read.last_ts_ns),
        whole: is_whole(capture, &read, &reader.sessions()?),
    };
    let told: Vec<_> = work
        .par_iter()
        .zip(&matched)
        .map(|((_, dealt), m)| outcomes(&m.samples, &packets, dealt, &m.found, &clocks, coverage))
        .collect();
    let mut samples = BTreeMap::new();
    let mut packetless = Vec::new();
    for ((flow, _), (counts, without)) in work.iter().zip(told) {
        samples.extend(counts.into_iter().map(|(outcome, n)| ((flow.id, outcome), n)));
        packetless.extend(without);
    }
    let seen: HashSet<i64> = work.iter().map(|(flow, _)| flow.id).collect();
    for (flow, n) in reader.samples_by_flow()? {
        if !seen.contains(&flow) {
            samples.insert((flow, Outcome::FlowNotCaptured), n);
        }
    }
    packetless.sort_unstable();

    let mut counts = BTreeMap::new();
    for row in &rows {
        *counts.entry((row.matched, row.reason)).or_insert(0) += 1;
    }
    // a packet of two recorded sockets counts once
    let of_recorded_flows = rows.chunk_by(|a, b| a.number == b.number).count() as u64;
    let mut capture = capture_row(capture, &read, &flows, &rows, of_recorded_flows);
    capture.clock = clocks.row(read.first_ts_ns.unwrap_or(0));
    capture.samples = samples;
    capture.packetless = packetless;
    Ok(Joined { capture, read, packets: rows, counts, of_recorded_flows })
}

/// A flow with its packets.
type Work<'a> = (&'a FlowRow, &'a Vec<FlowPacket>);

fn match_all(trace: &Path, work: &[Work<'_>], packets: &[Packet]) -> Result<Vec<Matched>, Error> {
    let copies = copies::are_usual(packets);
    let of_each = work.par_iter().map_init(
        // a connection to the trace for each thread: SQLite's are not shared
        || TraceReader::open(trace),
        |reader, (flow, dealt)| {
            let samples = match reader {
                Ok(reader) => reader.samples(flow.id)?,
                Err(_) => TraceReader::open(trace)?.samples(flow.id)?,
            };
            Ok(match_flow(flow, samples, packets, dealt, copies))
        },
    );
    of_each.collect()
}

/// Has this capture all that came to it? `record` knows of its own, and a file may say so itself.
fn is_whole(path: &Path, read: &ReadSummary, sessions: &[SessionRow]) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let own = sessions.iter().find(|s| s.capture_path.as_ref() == Some(&path));
    let dropped = own.and_then(|s| s.capture_dropped);
    let file = read.capture.if_dropped.zip(read.capture.os_dropped).map(|(a, b)| a + b);
    dropped.or(file) == Some(0) && read.capture.truncated.is_none()
}

fn capture_row(
    path: &Path,
    read: &ReadSummary,
    flows: &[FlowRow],
    rows: &[PacketRow],
    of_recorded_flows: u64,
) -> CaptureRow {
    let session_of: HashMap<i64, i64> = flows.iter().map(|f| (f.id, f.session_id)).collect();
    let mut sessions: BTreeMap<i64, u64> = BTreeMap::new();
    let mut joined = 0;
    let mut last = None;
    for row in rows {
        *sessions.entry(session_of[&row.flow_id]).or_insert(0) += 1;
        // a packet with two rows counts once
        if row.matched != Match::None && last != Some(row.number) {
            joined += 1;
            last = Some(row.number);
        }
    }
    let mut unjoined: BTreeMap<String, u64> = BTreeMap::new();
    let skipped = read.skipped.iter().map(|(reason, &n)| (reason.as_str(), n));
    let rest = [("no recorded flow", read.tcp_packets - of_recorded_flows), ("not TCP", read.not_tcp)];
    for (reason, n) in skipped.chain(rest).filter(|(_, n)| *n > 0) {
        unjoined.insert(reason.to_owned(), n);
    }
    CaptureRow {
        path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
        session_id: sessions.iter().max_by_key(|(id, n)| (**n, std::cmp::Reverse(**id))).map(|(id, _)| *id),
        link_type: read.capture.link_type.map_or(0, |l| l.0),
        snaplen: read.capture.snaplen.unwrap_or(0),
        packets: read.capture.packets,
        tcp_packets: read.tcp_packets,
        joined,
        clock: None,
        truncated: read.capture.truncated.is_some(),
        unjoined,
        translations: Vec::new(),
        samples: BTreeMap::new(),
        packetless: Vec::new(),
    }
}
