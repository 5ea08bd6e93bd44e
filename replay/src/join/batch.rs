//! One batch of a capture, joined: its rows, and what it tells of the whole.

use rayon::prelude::*;
use tcpprobe_trace::join::{Match, Outcome, PacketRow, Translation};

use super::driver::Context;
use crate::batches::Batch;
use crate::clocks::{self, Clocks, Delay};
use crate::copies;
use crate::hash::{HashMap, HashMapExt as _};
use crate::reconstruct::Least;
use crate::sightings::FlowPacket;
use crate::steps;
use crate::views::{Account, Matching, Places, View, account, by_flow};

/// So many stretches of a batch say how delays went.
const STRETCHES: usize = 128;

/// What was found in a batch.
pub(super) struct Found {
    /// Of its own packets, by flow and frame number.
    pub(super) rows: Vec<PacketRow>,
    /// Packets that have a row, and those with a state.
    pub(super) of_recorded_flows: u64,
    pub(super) joined: u64,
    /// The most telling of what it tells of the clocks; nothing where it is the whole capture.
    pub(super) delays: Vec<Delay>,
    pub(super) clocks: Clocks,
    pub(super) flows: Vec<OfFlow>,
    pub(super) translations: Vec<Translation>,
    /// TCP packets that more than one flow may have, and those that were not compared.
    pub(super) undecided: u64,
    pub(super) left_out: u64,
    pub(super) flows_left_out: u64,
}

/// What became of a flow's samples in a batch.
pub(super) struct OfFlow {
    /// Position of the flow.
    pub(super) flow: u32,
    /// What its delays vary from.
    pub(super) least: Least,
    pub(super) outcomes: Vec<(i64, Outcome)>,
    /// Ids of the first and the last sample that were looked at.
    pub(super) asked: (i64, i64),
}

/// Joins a batch; `uncut`: as in [`Matching`].
pub(super) fn join(context: &Context<'_>, batch: Batch, uncut: usize) -> tcpprobe_trace::Result<Found> {
    let coverage = context.coverage(&batch);
    let whole = batch.begins && batch.ends;
    let places = match whole {
        true => None,
        false => Some(Places { landmarks: context.landmarks()?, tracks: &batch.tracks, shown: &batch.shown }),
    };
    let mut packets = batch.packets;
    let mut dealt: HashMap<u32, Vec<FlowPacket>> = HashMap::new();
    for (owners, index) in batch.owners.iter().zip(0u32..) {
        for (flow, is_out) in owners.iter().zip([true, false]) {
            if let Some(flow) = flow {
                dealt.entry(*flow).or_default().push(FlowPacket { index, is_out });
            }
        }
    }
    let mut dealt: Vec<(u32, Vec<FlowPacket>)> = dealt.into_iter().collect();
    dealt.sort_unstable_by_key(|d| d.0);
    let copies = copies::are_usual(&packets);
    let matching = Matching {
        readers: context.readers,
        flows: context.flows,
        counts: &context.counts,
        signatures: &context.signatures,
        copies,
        own: &batch.own,
        uncut,
        places,
    };
    let mut views = matching.by_address(&packets, dealt)?;
    let translated = matching.translate(&mut packets, &mut views)?;
    steps::settle(&context.steps, context.flows, &packets, &mut views);
    let delays = views.par_iter().with_min_len(uncut).flat_map_iter(|v| v.matched.delays(&packets, &v.packets));
    let delays: Vec<Delay> = delays.collect();
    let telling = if whole { Vec::new() } else { clocks::telling(&delays, STRETCHES) };
    let clocks = Clocks::estimate(delays);
    views.par_iter_mut().with_min_len(uncut).for_each(|v| v.matched.doubt(&packets, &v.packets, &clocks));
    let of_flows = by_flow(&views);
    let accounts: Vec<_> = of_flows
        .par_iter()
        .with_min_len(uncut)
        .map(|of_flow| {
            let flow = of_flow[0].flow;
            (flow, account(&context.flows[flow as usize], of_flow, &packets, &clocks, coverage))
        })
        .collect();
    let own = Own { packets: &batch.own, shifted_from: &translated.shifted_from };
    let Rows { by_flow: rows, packets: of_recorded_flows, joined } = Rows::new(&accounts, &of_flows, &own);
    let of_flow = |(flow, Account { least, outcomes, asked, .. })| OfFlow { flow, least, outcomes, asked };
    let flows = accounts.into_iter().map(of_flow).collect();
    context.spare.give(packets, batch.owners, batch.own);
    Ok(Found {
        rows,
        of_recorded_flows,
        joined,
        delays: telling,
        clocks,
        flows,
        translations: translated.rows,
        undecided: translated.undecided,
        left_out: translated.left_out,
        flows_left_out: translated.flows_left_out,
    })
}

/// Which packets are a batch's own.
struct Own<'a> {
    /// Of those that were captured.
    packets: &'a [bool],
    /// Of each of those that were added with other numbers, the captured one.
    shifted_from: &'a [u32],
}

impl Own<'_> {
    /// Position of the captured one, if it is an own one.
    fn captured(&self, packet: FlowPacket) -> Option<usize> {
        let index = packet.index as usize;
        let captured = match index.checked_sub(self.packets.len()) {
            None => index,
            Some(shifted) => *self.shifted_from.get(shifted)? as usize,
        };
        self.packets.get(captured).filter(|own| **own).map(|_| captured)
    }
}

/// The rows of a batch's own packets.
struct Rows {
    /// By flow, and of each by frame number: whoever reads one flow of a trace finds its rows together.
    by_flow: Vec<PacketRow>,
    /// Packets that have one; a packet of two recorded sockets counts once.
    packets: u64,
    /// Packets with a state in one of theirs.
    joined: u64,
}

impl Rows {
    /// `views` of each account.
    fn new(accounts: &[(u32, Account)], views: &[Vec<&View>], own: &Own<'_>) -> Rows {
        let mut by_flow: Vec<PacketRow> =
            Vec::with_capacity(accounts.iter().map(|(_, account)| account.rows.len()).sum());
        let mut shown: Vec<Option<Frame>> = vec![None; own.packets.len()];
        let mut agreed: HashMap<u64, u32> = HashMap::new();
        for ((_, account), views) in accounts.iter().zip(views) {
            let from = by_flow.len();
            let packets = views.iter().flat_map(|view| &view.packets);
            for (row, packet) in account.rows.iter().zip(packets) {
                let Some(at) = own.captured(*packet) else { continue };
                let frame = Frame::of(row);
                shown[at] = Some(match shown[at] {
                    None => frame,
                    Some(other) => {
                        let (sent, received) = if row.is_out { (frame, other) } else { (other, frame) };
                        if let Some(copy) = Frame::agree(sent, received) {
                            agreed.insert(row.number, copy);
                        }
                        Frame { joined: frame.joined || other.joined, ..frame }
                    }
                });
                by_flow.push(*row);
            }
            // those of one view are in this order
            if views.len() > 1 {
                by_flow[from..].sort_by_key(|row| (row.number, !row.is_out));
            }
        }
        if !agreed.is_empty() {
            for row in &mut by_flow {
                row.copy = agreed.get(&row.number).copied().unwrap_or(row.copy);
            }
        }
        let shown = || shown.iter().flatten();
        let joined = shown().filter(|frame| frame.joined).count() as u64;
        Rows { packets: shown().count() as u64, joined, by_flow }
    }
}

/// What a row says of its frame, which may have another one: for its sender's socket and its receiver's.
#[derive(Clone, Copy)]
struct Frame {
    copy: u32,
    /// Was a sample found?
    sampled: bool,
    /// Has it a state?
    joined: bool,
}

impl Frame {
    fn of(row: &PacketRow) -> Frame {
        Frame { copy: row.copy, sampled: row.matched.is_own(), joined: row.matched != Match::None }
    }

    /// Which copy the frame is, where what its sender's socket and its receiver's say cannot both be right: what was
    /// received once was sent once, while the network may double what was sent once. What samples tell is surer than what
    /// packets alone do.
    fn agree(sent: Frame, received: Frame) -> Option<u32> {
        match (sent.sampled, received.sampled) {
            _ if sent.copy == received.copy => None,
            (true, true) => None,
            (true, false) => Some(sent.copy),
            (false, true) => Some(received.copy).filter(|&copy| copy > sent.copy),
            (false, false) => Some(sent.copy.max(received.copy)),
        }
    }
}
