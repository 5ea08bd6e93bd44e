//! ACKs that overtook each other on their way to TCP, though they are alike in all that a sample has of them.
//!
//! The matching gives the first of their samples to the one that was captured first. What each of them selectively
//! acknowledges says more: from a sample to the next one `sacked_out` grows by its segments. Owns the order of such ACKs;
//! must not know how they were matched.

use tcpprobe_trace::reader::SampleRow;
use tcpprobe_trace::sample::{Kind, Phase};

use crate::matching::{EARLY_NS, Found};
use crate::packet::{Packet, TcpFlags};
use crate::rebuild::{Edges, edges_of};
use crate::scoreboard::Scoreboard;
use crate::segments::Segments;
use crate::seq::nearest;
use crate::sightings::FlowPacket;

/// So many processors may hold ACKs of one flow at once; among more than these nothing is looked for.
const MOST_OVERTAKEN: usize = 16;

/// A received packet and its sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Own {
    sample: u32,
    packet: usize,
    /// Is the packet all of the sample, and no other one too, as a copy is?
    alone: bool,
}

/// A flow's packets and samples.
#[derive(Clone, Copy)]
pub(crate) struct Flow<'a> {
    /// By serial.
    pub(crate) samples: &'a [SampleRow],
    pub(crate) all: &'a [Packet],
    pub(crate) packets: &'a [FlowPacket],
    /// Was the capture taken at the socket's own host?
    pub(crate) is_near: bool,
}

/// Gives each of several ACKs that are alike the sample after which as many segments are selectively acknowledged as it
/// says, where the one that has it does not fit.
pub(crate) fn reorder(flow: Flow<'_>, found: &mut [Found]) {
    if flow.packets.iter().all(|packet| flow.all[packet.index as usize].sack.is_empty()) {
        return;
    }
    let mut own = flow.own(found);
    if !own.windows(2).any(|w| flow.are_alike(w[0], w[1])) {
        return;
    }
    let edges = edges_of(flow.samples);
    let Some(segments) = Segments::new(flow.samples, &edges, flow.all, flow.packets) else { return };
    let mut board = Scoreboard::default();
    if flow.packets.first().is_some_and(|packet| !flow.all[packet.index as usize].flags.syn()) {
        // what was selectively acknowledged before the first of these packets is not among them
        let first = found.iter().filter_map(|f| f.sample()).min().unwrap_or(own[0].sample);
        board.forget(edges[first as usize].nxt);
    }
    for i in 0..own.len() {
        let at = edges[own[i].sample as usize];
        board.acknowledge(at.una);
        if let Some(overtaker) = flow.overtaker(&own[i..], &edges, &segments, &board) {
            let overtaken = &mut own[i..=i + overtaker];
            let samples: Vec<u32> = overtaken.iter().map(|o| o.sample).collect();
            overtaken.rotate_right(1);
            for (own, sample) in overtaken.iter_mut().zip(samples) {
                own.sample = sample;
                found[own.packet] = Found::Exact(sample);
            }
        }
        flow.take_up(own[i], at, &mut board);
    }
}

impl Flow<'_> {
    fn packet(&self, own: Own) -> &Packet {
        &self.all[self.packets[own.packet].index as usize]
    }

    /// What was received and has a sample of before it was processed, in the order of those.
    fn own(&self, found: &[Found]) -> Vec<Own> {
        let before = |s: u32| {
            let s = &self.samples[s as usize];
            (s.kind, s.phase) == (Kind::Ack, Phase::Before)
        };
        let received = found.iter().enumerate().filter(|&(i, _)| !self.packets[i].is_out);
        let mut own: Vec<Own> = received
            .filter_map(|(packet, f)| {
                let sample = f.sample().filter(|&s| before(s))?;
                Some(Own { sample, packet, alone: matches!(f, Found::Exact(_)) })
            })
            .collect();
        own.sort_by_key(|o| (o.sample, o.packet));
        own.dedup_by(|again, first| {
            let is_again = again.sample == first.sample;
            first.alone &= !is_again;
            is_again
        });
        own
    }

    /// Could each be the other's packet, but for what they selectively acknowledge?
    fn are_alike(&self, a: Own, b: Own) -> bool {
        let (p, q) = (self.packet(a), self.packet(b));
        let other = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0;
        let is_pure = |p: &Packet| p.len == 0 && p.flags.ack() && p.flags.0 & other == 0 && p.sack.complete();
        let numbers = |p: &Packet| (p.seq, p.ack, p.tsval);
        a.alone && b.alone && is_pure(p) && is_pure(q) && numbers(p) == numbers(q) && p.sack != q.sack
    }

    /// Which of the ACKs behind the first one was taken up before it: the count of before is right, that of after it is
    /// right with this one and not with the first, and so is the count when all of these were taken up.
    fn overtaker(&self, own: &[Own], edges: &[Edges], segments: &Segments, board: &Scoreboard) -> Option<usize> {
        let first = own[0];
        let alike = own[1..].iter().take(MOST_OVERTAKEN).take_while(|&&o| self.are_alike(first, o)).count();
        if alike == 0 {
            return None;
        }
        let at = edges[first.sample as usize];
        let counted = |board: &Scoreboard| board.bytes(at.una, at.nxt).map(|_| segments.of(board));
        let with = |some: &[Own]| {
            let mut board = board.clone();
            some.iter().for_each(|&o| self.take_up(o, edges[o.sample as usize], &mut board));
            counted(&board)
        };
        let sample = &self.samples[first.sample as usize];
        let before = sample.sacked_out.map(i64::from)?;
        let after = self.sacked_after(first)?;
        if counted(board)? != before || with(&own[..1])? == after {
            return None;
        }
        // what is received is captured before TCP has it
        let in_time = |o: Own| {
            let late = self.packet(o).ts_ns.and_then(|t| t.checked_sub(sample.ts_ns));
            !self.is_near || late.is_some_and(|l| l <= EARLY_NS)
        };
        (1..=alike).find(|&i| {
            in_time(own[i]) && with(&own[i..=i]) == Some(after) && with(&own[..=i]) == self.sacked_after(own[i])
        })
    }

    /// Segments selectively acknowledged once a sample's ACK was taken up; `None`: samples are missing, or do not say.
    fn sacked_after(&self, own: Own) -> Option<i64> {
        let (sample, next) = (&self.samples[own.sample as usize], self.samples.get(own.sample as usize + 1)?);
        next.sacked_out.filter(|_| next.serial == sample.serial + 1).map(i64::from)
    }

    /// What an ACK says of what is outstanding.
    fn take_up(&self, own: Own, at: Edges, board: &mut Scoreboard) {
        let p = self.packet(own);
        if !p.flags.ack() || p.flags.rst() {
            return;
        }
        let una = nearest(p.ack, at.una);
        if una > at.una && una <= at.nxt {
            board.acknowledge(una);
        }
        board.take_up(&p.sack, una.max(at.una), at.nxt);
    }
}
