//! One batch of a capture, joined: its rows, and what it tells of the whole.

use rayon::prelude::*;
use tcpprobe_trace::join::{Match, Outcome, PacketRow, Translation};

use super::driver::Context;
use crate::batches::Batch;
use crate::clocks::{Clocks, Delay};
use crate::copies;
use crate::hash::{HashMap, HashMapExt as _};
use crate::packet::Packet;
use crate::reconstruct::Least;
use crate::sightings::FlowPacket;
use crate::steps;
use crate::views::{Account, Matching, Places, account, by_flow};

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

pub(super) fn join(context: &Context<'_>, batch: Batch) -> tcpprobe_trace::Result<Found> {
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
        readers: &context.readers,
        flows: context.flows,
        counts: &context.counts,
        signatures: &context.signatures,
        copies,
        own: &batch.own,
        places,
    };
    let mut views = matching.by_address(&packets, dealt)?;
    let translated = matching.translate(&mut packets, &mut views)?;
    steps::settle(&context.steps, context.flows, &packets, &mut views);
    let delays: Vec<Delay> = views.par_iter().flat_map_iter(|v| v.matched.delays(&packets, &v.packets)).collect();
    let telling = if whole { Vec::new() } else { telling(&delays) };
    let clocks = Clocks::estimate(delays);
    views.par_iter_mut().for_each(|v| v.matched.doubt(&packets, &v.packets, &clocks));
    let accounts: Vec<_> = by_flow(&views)
        .into_par_iter()
        .map(|of_flow| {
            let flow = of_flow[0].flow;
            (flow, account(&context.flows[flow as usize], &of_flow, &packets, &clocks, coverage))
        })
        .collect();
    let Rows { by_flow: rows, packets: of_recorded_flows, joined } = Rows::new(&accounts, &packets, &batch.own);
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
    fn new(accounts: &[(u32, Account)], packets: &[Packet], own: &[bool]) -> Rows {
        // a row is too long to be moved by every step of a sort
        let mut order: Vec<(u64, u32, u32)> = Vec::with_capacity(packets.len());
        for ((_, account), at) in accounts.iter().zip(0..) {
            order.extend(account.rows.iter().zip(0..).map(|(r, i)| (r.number, at, i)));
        }
        order.sort_unstable();
        // packets are in this order, too; those whose numbers were shifted stand behind the captured ones
        let mut captured = packets.iter().zip(own).peekable();
        order.retain(|&(number, ..)| {
            while captured.next_if(|(p, _)| p.number < number).is_some() {}
            captured.peek().is_some_and(|(p, own)| p.number == number && **own)
        });
        let row = |at: u32, i: u32| &accounts[at as usize].1.rows[i as usize];
        let of_packets = || order.chunk_by(|a, b| a.0 == b.0);
        let is_joined = |rows: &&[(u64, u32, u32)]| rows.iter().any(|&(_, at, i)| row(at, i).matched != Match::None);
        let (packets, joined) = (of_packets().count() as u64, of_packets().filter(is_joined).count() as u64);
        order.sort_unstable_by_key(|&(number, at, i)| (at, number, !row(at, i).is_out));
        let by_flow = order.into_iter().map(|(_, at, i)| *row(at, i)).collect();
        Rows { by_flow, packets, joined }
    }
}

/// So many stretches of a batch say how delays went.
const STRETCHES: usize = 128;

/// Of each stretch and direction the fastest, the slowest and a delay between.
fn telling(delays: &[Delay]) -> Vec<Delay> {
    let mut telling = Vec::new();
    for is_out in [true, false] {
        let mut of: Vec<&Delay> = delays.iter().filter(|d| d.is_out == is_out).collect();
        of.sort_unstable_by_key(|d| (d.ts_ns, d.delay_ns));
        for stretch in of.chunks(of.len().div_ceil(STRETCHES).max(1)) {
            let mut few: Vec<Delay> = stretch.iter().copied().copied().collect();
            few.sort_unstable_by_key(|d| (d.delay_ns, d.ts_ns));
            let few = [few.first(), few.get(few.len() / 2), few.last()];
            telling.extend(few.into_iter().flatten().copied());
        }
    }
    telling.sort_unstable_by_key(|d| (d.ts_ns, d.delay_ns, d.is_out));
    telling.dedup();
    telling
}
