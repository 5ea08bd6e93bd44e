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
    acked: Steps,
    sent: Steps,
}

/// The largest position up to each stamp.
#[derive(Debug, Default)]
struct Steps {
    steps: Vec<(Position, Position)>,
}

impl Steps {
    fn new(mut points: Vec<(Position, Position)>) -> Steps {
        points.sort_unstable();
        let mut most = Position::MIN;
        for point in &mut points {
            most = most.max(point.1);
            point.1 = most;
        }
        Steps { steps: points }
    }

    /// The largest position at stamps below this one, and at it.
    fn around(&self, stamp: Position) -> (Option<Position>, Option<Position>) {
        let most = |before: usize| before.checked_sub(1).map(|i| self.steps[i].1);
        let below = self.steps.partition_point(|s| s.0 < stamp);
        (most(below), most(self.steps.partition_point(|s| s.0 <= stamp)))
    }
}

impl Echoes {
    /// From a flow's packets; `una` and `nxt` are where its first sample was.
    pub(crate) fn new(una: Position, nxt: Position, all: &[Packet], packets: &[FlowPacket]) -> Echoes {
        let mut axis: Option<Unwrapper> = None;
        let (mut ack_at, mut end_at) = (una, nxt);
        let (mut acked, mut sent) = (Vec::new(), Vec::new());
        let mut stamps = Vec::with_capacity(packets.len());
        // what the socket has acknowledged to its peer, by the capture
        let mut told: Option<u32> = None;
        for packet in packets {
            let p = &all[packet.index as usize];
            let counts = p.flags.ack() && !p.flags.rst() && !p.flags.syn();
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
                return Echoes { stamps: vec![None; packets.len()], ..Echoes::default() };
            }
            if let Some(axis) = &mut axis {
                axis.advance(at);
            }
            ack_at = ack_at.max(nearest(p.ack, ack_at));
            acked.push((at, nearest(p.ack, ack_at)));
        }
        Echoes { stamps, acked: Steps::new(acked), sent: Steps::new(sent) }
    }

    /// `snd_una` at a packet that was sent is no less than the first and no more than the second.
    pub(crate) fn una_at(&self, packet: usize) -> (Option<Position>, Option<Position>) {
        self.stamps[packet].map_or((None, None), |s| self.acked.around(s))
    }

    /// `snd_nxt` at a packet that was received, likewise.
    pub(crate) fn nxt_at(&self, packet: usize) -> (Option<Position>, Option<Position>) {
        self.stamps[packet].map_or((None, None), |s| self.sent.around(s))
    }
}
