//! The join: from a trace and a capture to one row for each packet and recorded socket, in parallel over flows.
//!
//! The rows are the same for any number of threads: flows are joined on their own, and their rows put in the order
//! of the capture.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use tcpprobe_trace::join::{CaptureRow, Match, Outcome, PacketRow, Reason, Unjoined};
use tcpprobe_trace::reader::{FlowRow, SessionRow, TraceReader};

use crate::capture::{CaptureError, ReadSummary, read_tcp};
use crate::clocks::Clocks;
use crate::copies;
use crate::flows::Dealer;
use crate::outcomes::Coverage;
use crate::views::{Matching, account, by_flow};

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
    /// Flows that were not looked for under other addresses, for there are too many of them.
    pub flows_left_out: u64,
}

/// Joins a capture to a trace; changes neither.
pub fn join(trace: &Path, capture: &Path) -> Result<Joined, Error> {
    let reader = TraceReader::open(trace)?;
    let flows = reader.flows()?;
    let (mut packets, read) = read_tcp(capture)?;

    let mut dealer = Dealer::new(&flows);
    let mut shared = HashMap::new();
    for flow in dealer.shared().collect::<Vec<_>>() {
        shared.insert(flow, reader.samples(flows[flow as usize].id)?);
    }
    for (packet, index) in packets.iter().zip(0u32..) {
        dealer.deal(index, packet, &shared);
    }
    drop(shared);

    let matching = Matching { trace, flows: &flows, copies: copies::are_usual(&packets) };
    let mut views = matching.by_address(&packets, dealer.dealt())?;
    let translated = matching.translate(&mut packets, &mut views)?;
    let every = views.par_iter().flat_map_iter(|v| v.matched.delays(&packets, &v.packets));
    let clocks = Clocks::estimate(every.collect());
    views.par_iter_mut().for_each(|v| v.matched.doubt(&packets, &v.packets, &clocks));
    let coverage = Coverage {
        span_ns: read.first_ts_ns.zip(read.last_ts_ns),
        whole: is_whole(capture, &read, &reader.sessions()?),
    };
    let accounts: Vec<_> = by_flow(&views)
        .into_par_iter()
        .map(|of_flow| {
            let flow = &flows[of_flow[0].flow as usize];
            (flow.id, account(flow, &of_flow, &packets, &clocks, coverage))
        })
        .collect();
    let mut rows: Vec<PacketRow> = Vec::new();
    let mut samples = BTreeMap::new();
    let mut packetless = Vec::new();
    let mut seen = HashSet::new();
    for (flow, account) in accounts {
        seen.insert(flow);
        rows.extend(account.rows);
        samples.extend(account.samples.into_iter().map(|(outcome, n)| ((flow, outcome), n)));
        packetless.extend(account.packetless);
    }
    rows.par_sort_unstable_by_key(|r| (r.number, r.flow_id, !r.is_out));
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
    let unknown = read.tcp_packets - of_recorded_flows - translated.undecided - translated.left_out;
    let rest = [
        (Unjoined::NoRecordedFlow, unknown),
        (Unjoined::SeveralFlows, translated.undecided),
        (Unjoined::NotCompared, translated.left_out),
    ];
    let mut capture = capture_row(capture, &read, &flows, &rows, &rest);
    capture.translations = translated.rows;
    capture.clock = clocks.row(read.first_ts_ns.unwrap_or(0));
    capture.samples = samples;
    capture.packetless = packetless;
    let flows_left_out = translated.flows_left_out;
    Ok(Joined { capture, read, packets: rows, counts, of_recorded_flows, flows_left_out })
}

/// Has this capture all that came to it? `record` knows of its own, and a file may say so itself.
fn is_whole(path: &Path, read: &ReadSummary, sessions: &[SessionRow]) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let own = sessions.iter().find(|s| s.capture_path.as_ref() == Some(&path));
    let dropped = own.and_then(|s| s.capture_dropped);
    // not their sum: counters of a damaged file may go around to 0
    let file = read.capture.if_dropped.zip(read.capture.os_dropped).map(|(a, b)| a.max(b));
    dropped.or(file) == Some(0) && read.capture.truncated.is_none()
}

fn capture_row(
    path: &Path,
    read: &ReadSummary,
    flows: &[FlowRow],
    rows: &[PacketRow],
    rest: &[(Unjoined, u64)],
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
    let rest = rest.iter().map(|(reason, n)| (reason.name(), *n)).chain([("not TCP", read.not_tcp)]);
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
