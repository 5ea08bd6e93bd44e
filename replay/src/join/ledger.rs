//! What batches tell, put together in the order of the capture.
//!
//! A sample near the edge of a batch is looked at in two: one of them may know its packet, the other not. What became of
//! it is said when no later batch can look at it again.

use std::collections::BTreeMap;

use tcpprobe_trace::join::{Match, Outcome, PacketRow, Reason, Translation};
use tcpprobe_trace::reader::FlowRow;

use super::again::Again;
use super::batch::{Found, OfFlow};
use crate::clocks::{Clocks, Delay, telling};
use crate::hash::{HashMap, HashMapExt as _};
use crate::reconstruct::Least;

/// So many delays are kept, then the most telling of so many stretches: a capture may be of any length.
const MOST_DELAYS: usize = 1 << 17;
const STRETCHES: usize = 1 << 13;

/// Everything but rows.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) counts: BTreeMap<(Match, Option<Reason>), u64>,
    pub(super) of_recorded_flows: u64,
    /// Packets with a state.
    pub(super) joined: u64,
    /// Rows by flow id.
    pub(super) rows: HashMap<i64, u64>,
    /// By flow id.
    pub(super) samples: BTreeMap<(i64, Outcome), u64>,
    pub(super) undecided: u64,
    pub(super) left_out: u64,
    pub(super) flows_left_out: u64,
    pub(super) translations: Vec<Translation>,
    /// By position.
    flows: BTreeMap<u32, Open>,
    again: Again,
    delays: Vec<Delay>,
    clocks: Option<Clocks>,
    batches: u64,
}

/// A flow whose samples may be looked at again.
#[derive(Default)]
struct Open {
    /// By sample.
    pending: Vec<(i64, Outcome)>,
    /// Ids of the first and the last sample that were looked at so far.
    asked: Option<(i64, i64)>,
    least: Least,
}

impl Ledger {
    /// Adds a batch. Delays in its rows are made to vary from the smallest one of all batches so far, and what was seen in
    /// earlier ones counts as seen again; what has become of samples is added to `packetless` as far as it is certain.
    pub(super) fn add(
        &mut self,
        flows: &[FlowRow],
        mut found: Found,
        packetless: &mut Vec<(i64, Outcome)>,
    ) -> Vec<PacketRow> {
        let mut lower: HashMap<(i64, bool), i64> = HashMap::new();
        for of_flow in found.flows {
            let (id, flow) = (flows[of_flow.flow as usize].id, of_flow.flow);
            let open = self.flows.entry(flow).or_default();
            for (is_out, least) in [false, true].into_iter().zip(of_flow.least) {
                let so_far = &mut open.least[usize::from(is_out)];
                let Some(least) = least else { continue };
                *so_far = Some(so_far.map_or(least, |l| l.min(least)));
                if let Some(by @ 1..) = so_far.map(|l| least - l) {
                    lower.insert((id, is_out), by);
                }
            }
            certain(&mut self.samples, id, open.add(of_flow), packetless);
        }
        if !lower.is_empty() {
            for row in &mut found.rows {
                if let Some(by) = lower.get(&(row.flow_id, row.is_out)) {
                    row.delay_variation_ns = row.delay_variation_ns.map(|v| v.saturating_add(*by));
                }
            }
        }
        self.again.number(&mut found.rows);
        self.of_recorded_flows += found.of_recorded_flows;
        self.joined += found.joined;
        self.undecided += found.undecided;
        self.left_out += found.left_out;
        self.flows_left_out = self.flows_left_out.max(found.flows_left_out);
        for t in found.translations {
            let same = |o: &&mut Translation| Translation { packets: t.packets, ..**o } == t;
            match self.translations.iter_mut().find(same) {
                Some(known) => known.packets += t.packets,
                None => self.translations.push(t),
            }
        }
        self.batches += 1;
        self.clocks = Some(found.clocks).filter(|_| self.batches == 1);
        self.delays.append(&mut found.delays);
        if self.delays.len() > MOST_DELAYS {
            self.delays = telling(&self.delays, STRETCHES);
        }
        self.count(&found.rows);
        found.rows
    }

    /// What all batches together tell of the clocks: of a capture of one batch its own estimate.
    pub(super) fn clocks(&mut self) -> Clocks {
        self.clocks.take().unwrap_or_else(|| Clocks::estimate(std::mem::take(&mut self.delays)))
    }

    /// At the end: what was still open. Returns for each flow the ids of the first and the last sample that were looked at.
    pub(super) fn close(&mut self, flows: &[FlowRow], packetless: &mut Vec<(i64, Outcome)>) -> Vec<(u32, (i64, i64))> {
        let mut asked = Vec::new();
        for (flow, open) in std::mem::take(&mut self.flows) {
            let id = flows[flow as usize].id;
            certain(&mut self.samples, id, open.pending, packetless);
            asked.extend(open.asked.map(|asked| (flow, asked)));
        }
        asked
    }

    /// Adds what became of samples that no batch has looked at.
    pub(super) fn add_samples(
        &mut self,
        flow_id: i64,
        outcomes: impl Iterator<Item = (i64, Outcome)>,
        packetless: &mut Vec<(i64, Outcome)>,
    ) {
        certain(&mut self.samples, flow_id, outcomes, packetless);
    }

    fn count(&mut self, rows: &[PacketRow]) {
        for alike in rows.chunk_by(|a, b| (a.matched, a.reason) == (b.matched, b.reason)) {
            *self.counts.entry((alike[0].matched, alike[0].reason)).or_insert(0) += alike.len() as u64;
        }
        for of_flow in rows.chunk_by(|a, b| a.flow_id == b.flow_id) {
            *self.rows.entry(of_flow[0].flow_id).or_insert(0) += of_flow.len() as u64;
        }
    }
}

fn certain(
    samples: &mut BTreeMap<(i64, Outcome), u64>,
    flow_id: i64,
    outcomes: impl IntoIterator<Item = (i64, Outcome)>,
    packetless: &mut Vec<(i64, Outcome)>,
) {
    let mut outcomes = outcomes.into_iter().peekable();
    while let Some((sample, outcome)) = outcomes.next() {
        let mut alike = 1;
        let is_worth_a_row = !matches!(outcome, Outcome::Joined | Outcome::OutsideCapture);
        packetless.extend(Some((sample, outcome)).filter(|_| is_worth_a_row));
        while let Some((sample, _)) = outcomes.next_if(|o| o.1 == outcome) {
            packetless.extend(Some((sample, outcome)).filter(|_| is_worth_a_row));
            alike += 1;
        }
        *samples.entry((flow_id, outcome)).or_insert(0) += alike;
    }
}

impl Open {
    /// What is certain now: of the samples before those of this batch.
    fn add(&mut self, of_flow: OfFlow) -> Vec<(i64, Outcome)> {
        let (first, last) = of_flow.asked;
        let later = self.pending.split_off(self.pending.partition_point(|p| p.0 < first));
        let certain = std::mem::replace(&mut self.pending, later);
        self.pending.extend(of_flow.outcomes);
        // two lists that are sorted
        self.pending.sort_by_key(|&(sample, outcome)| (sample, rank(outcome)));
        self.pending.dedup_by_key(|p| p.0);
        self.asked = Some(self.asked.map_or((first, last), |(f, l)| (f.min(first), l.max(last))));
        certain
    }
}

/// Of two outcomes of one sample the lower one is true: who knows its packet knows most.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Joined => 0,
        Outcome::FailedLocally => 1,
        Outcome::Ambiguous => 2,
        Outcome::DroppedInQdisc => 3,
        Outcome::NotCaptured => 4,
        Outcome::OutsideCapture => 5,
        Outcome::FlowNotCaptured => 6,
    }
}
