//! What timestamps that echo each other say of the sender's order (RFC 7323): a segment carries back the latest stamp
//! that its sender had taken from the peer, so it was sent after that ACK was processed, and before any ACK with a
//! later stamp was.
//!
//! Owns these bounds; must not know samples.

use crate::packet::Packet;
use crate::seq::{Position, Unwrapper, nearest};
use crate::sightings::{FlowPacket, space};

/// Bounds of the window's edges at each packet of a flow.
#[derive(Debug, Default)]
pub(crate) struct Echoes {
    /// For each packet its place on the axis of the peer's stamps: its own stamp, or the one that it echoes.
    stamps: Vec<Option<Position>>,
    /// Is it the first received packet of the capture with its stamp?
    firsts: Vec<bool>,
    acked: Steps,
    sent: Steps,
}

/// Positions by stamp, ascending; of each its own and the largest up to it.
#[derive(Debug, Default)]
struct Steps {
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    stamp: Position,
    position: Position,
    most: Position,
}

impl Steps {
    fn new(points: Vec<(Position, Position)>) -> Steps {
        let mut steps: Vec<Step> =
            points.into_iter().map(|(stamp, position)| Step { stamp, position, most: position }).collect();
        steps.sort_unstable();
        let mut most = Position::MIN;
        for step in &mut steps {
            most = most.max(step.position);
            step.most = most;
        }
        Steps { steps }
    }

    /// Positions of the steps with this stamp, in the list.
    fn with(&self, stamp: Position) -> std::ops::Range<usize> {
        self.steps.partition_point(|s| s.stamp < stamp)..self.steps.partition_point(|s| s.stamp <= stamp)
    }

    /// The largest position of so many first steps.
    fn most(&self, of: usize) -> Option<Position> {
        of.checked_sub(1).map(|last| self.steps[last].most)
    }
}

impl Echoes {
    /// From a flow's packets; `una` and `nxt` are where its first sample was.
    pub(crate) fn new(una: Position, nxt: Position, all: &[Packet], packets: &[FlowPacket]) -> Echoes {
        let mut axis: Option<Unwrapper> = None;
        let (mut ack_at, mut end_at) = (una, nxt);
        let (mut acked, mut sent) = (Vec::new(), Vec::new());
        let mut stamps = Vec::with_capacity(packets.len());
        let mut firsts = vec![false; packets.len()];
        let mut latest: Option<Position> = None;
        // what the socket has acknowledged to its peer, by the capture
        let mut told: Option<u32> = None;
        for (i, packet) in packets.iter().enumerate() {
            let p = &all[packet.index as usize];
            // the stamp of the peer's SYN is the first to be carried back, and may be that of later segments too
            let counts = !p.flags.rst() && (if p.flags.syn() { !packet.is_out } else { p.flags.ack() });
            let stamp = if packet.is_out { p.tsecr } else { p.tsval };
            // a zero is no echo (RFC 7323 §3.2)
            let at =
                stamp.filter(|&s| counts && s != 0).map(|s| axis.get_or_insert_with(|| Unwrapper::begin(s)).nearest(s));
            stamps.push(at);
            if packet.is_out {
                end_at = end_at.max(nearest(p.seq, end_at) + space(p.len, p.flags.0));
                told = if p.flags.ack() { Some(p.ack) } else { told };
                if let Some(at) = at {
                    sent.push((at, nearest(p.seq, end_at) + space(p.len, p.flags.0)));
                }
                continue;
            }
            let Some(at) = at else { continue };
            // a stamp is taken only from what begins at or before the last acknowledgment (RFC 7323 §4.3)
            let taken = told.is_none_or(|t| p.seq.wrapping_sub(t) as i32 <= 0);
            if !taken {
                return Echoes { stamps: vec![None; packets.len()], firsts, ..Echoes::default() };
            }
            if let Some(axis) = &mut axis {
                axis.advance(at);
            }
            firsts[i] = latest.is_none_or(|l| at > l);
            latest = latest.max(Some(at));
            let ack = if p.flags.ack() { nearest(p.ack, ack_at) } else { una };
            ack_at = ack_at.max(ack);
            acked.push((at, ack));
        }
        Echoes { stamps, firsts, acked: Steps::new(acked), sent: Steps::new(sent) }
    }

    /// A packet's place on the axis of the peer's stamps: its own, or the one that it carries back.
    pub(crate) fn stamp(&self, packet: usize) -> Option<Position> {
        self.stamps[packet]
    }

    /// `snd_una` at a packet that was sent is no less than the first and no more than the second.
    pub(crate) fn una_at(&self, packet: usize) -> (Option<Position>, Option<Position>) {
        let Some(stamp) = self.stamps[packet] else { return (None, None) };
        let with = self.acked.with(stamp);
        // it was taken from one of them: at least the first was processed
        let first = self.acked.steps.get(with.start).filter(|s| s.stamp == stamp).map(|s| s.position);
        (self.acked.most(with.start).max(first), self.acked.most(with.end))
    }

    /// `snd_nxt` at a packet that was received, likewise.
    pub(crate) fn nxt_at(&self, packet: usize) -> (Option<Position>, Option<Position>) {
        let Some(stamp) = self.stamps[packet] else { return (None, None) };
        let with = self.sent.with(stamp);
        // what echoes a stamp was sent after the first ACK that has it
        let end = if self.firsts[packet] { with.start } else { with.end };
        (self.sent.most(with.start), self.sent.most(end))
    }
}
