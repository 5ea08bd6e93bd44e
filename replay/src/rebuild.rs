//! The sender's window edges at packets that have no sample of their own: what the sender did is replayed in its own
//! order, samples and packets together.
//!
//! The capture's order is not the sender's: what is sent waits in a queue after it was sampled, what is received waits
//! for TCP, and at the peer's end everything is half a round trip off. [`crate::order`] puts each packet between two
//! samples; here their effects are played. Must not know files.

use tcpprobe_trace::reader::{FlowRow, SampleRow};
use tcpprobe_trace::sample::{Kind, Phase, Sampled};

use crate::clocks::Clocks;
use crate::copies;
use crate::echoes::Echoes;
use crate::matching::Found;
use crate::order::{Evidence, places};
use crate::packet::Packet;
use crate::pieces;
use crate::scoreboard::Scoreboard;
use crate::segments::Segments;
use crate::seq::{MOST_WINDOW, Position, nearest};
use crate::sightings::{FlowPacket, space};

/// What is known at a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its own sample, or the latest one before it.
    pub(crate) sample: Option<u32>,
    /// When the sender had it in hand, ns of the recording's clock; `None`: nothing tells.
    pub(crate) at_ns: Option<i64>,
    /// `snd_nxt` and `snd_una`, where the samples know them.
    pub(crate) edges: Option<(u32, u32)>,
    /// Selectively acknowledged bytes between the two.
    pub(crate) sacked_bytes: Option<u32>,
}

/// The window's edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edges {
    pub(crate) nxt: Position,
    pub(crate) una: Position,
}

/// Beyond the last sample nothing is known of what comes.
const NO_LIMIT: Edges = Edges { nxt: Position::MAX, una: Position::MAX };

/// Replays a flow; what is known at each of its packets, in the order of the capture. Where samples are taken of
/// received segments alone, before each is processed, what is sent meanwhile has the state of the next one.
pub(crate) fn rebuild(
    samples: &[SampleRow],
    all: &[Packet],
    packets: &[FlowPacket],
    found: &[Found],
    clocks: &Clocks,
    flow: &FlowRow,
    copies: &[u32],
) -> Vec<Known> {
    let has_edges = samples.iter().any(|s| s.snd_nxt.is_some() && s.snd_una.is_some());
    if is_plain(samples, all, packets, found) {
        let sacked_bytes = Some(0).filter(|_| has_edges);
        return vec![Known { sacked_bytes, ..Known::default() }; packets.len()];
    }
    let mut known = vec![Known::default(); packets.len()];
    let edges = edges_of(samples);
    let Some(&begin) = edges.first() else { return known };
    let echoes = Echoes::new(begin.una, begin.nxt, all, packets);
    let mut firsts = copies::firsts(all, packets, found, copies);
    if flow.sampled == Sampled::Changes {
        firsts = pieces::begins(Evidence { samples, edges: &edges, all, packets, found, firsts: &firsts });
    }
    let evidence = Evidence { samples, edges: &edges, all, packets, found, firsts: &firsts };
    let segments = Segments::new(samples, &edges, all, packets);
    let places = places(evidence, clocks, &echoes, flow, segments.as_ref());
    let mut own: Vec<(usize, usize)> =
        found.iter().enumerate().filter_map(|(p, f)| Some((f.sample()? as usize, p))).collect();
    own.sort_unstable();
    let mut replay = Replay { at: begin, board: Scoreboard::default(), has_edges, segments: segments.as_ref() };
    if packets.first().is_some_and(|packet| !all[packet.index as usize].flags.syn()) {
        // the capture began later: what was acknowledged of what was outstanding then is not in it
        let first = places.iter().map(|p| p.slot.saturating_sub(1)).chain(own.iter().map(|o| o.0)).min();
        replay.board.forget(first.map_or(begin.nxt, |s| edges[s].nxt));
    }
    let (mut places, mut own) = (places.iter().peekable(), own.iter().peekable());
    for slot in 0..=samples.len() {
        let limit = edges.get(slot).copied().unwrap_or(NO_LIMIT);
        while let Some(place) = places.next_if(|p| p.slot == slot) {
            let packet = packets[place.packet];
            let p = &all[packet.index as usize];
            known[place.packet].at_ns = Some(place.at_ns);
            replay.stands_at(p, packet.is_out, limit);
            if let Some(last) = slot.checked_sub(1) {
                let at = replay.echoed(&echoes, place.packet, p, packet.is_out, edges[last], limit);
                let next = flow.sampled == Sampled::Received && packet.is_out && slot < samples.len();
                let sample = if next { slot } else { last };
                known[place.packet] = Known { at_ns: Some(place.at_ns), ..replay.known(sample, at) };
            }
            replay.packet(p, packet.is_out, limit);
        }
        let (Some(sample), Some(&at)) = (samples.get(slot), edges.get(slot)) else { break };
        replay.at = at;
        replay.board.acknowledge(at.una);
        let limit = edges.get(slot + 1).copied().unwrap_or(NO_LIMIT);
        let first = own.clone();
        while let Some(&&(_, p)) = own.peek().filter(|o| o.0 == slot) {
            known[p] = Known { sacked_bytes: replay.sacked_bytes(sample, at), ..replay.known(slot, at) };
            own.next();
        }
        replay.sample(sample, limit);
        for &(_, p) in first.take_while(|o| o.0 == slot) {
            replay.packet(&all[packets[p].index as usize], packets[p].is_out, limit);
        }
    }
    for (i, &first) in firsts.iter().enumerate().filter(|&(i, &first)| i != first && found[i].sample().is_none()) {
        known[i] = known[first];
    }
    known
}

/// Has every packet its sample, and was nothing selectively acknowledged? Then there is nothing to replay.
fn is_plain(samples: &[SampleRow], all: &[Packet], packets: &[FlowPacket], found: &[Found]) -> bool {
    let of = |packet: &FlowPacket| &all[packet.index as usize];
    // of what was outstanding before the capture began only samples know
    let begins = packets.first().is_some_and(|packet| of(packet).flags.syn());
    let nothing = |s: &SampleRow| s.sacked_out.map_or(begins, |n| n == 0);
    let says_nothing = |packet: &FlowPacket| of(packet).sack.is_empty() && of(packet).sack.complete();
    found.iter().all(|f| f.sample().is_some()) && samples.iter().all(nothing) && packets.iter().all(says_nothing)
}

/// The edges at each sample, unwrapped; `bytes_sent` bridges what samples are missing, retransmissions left aside.
pub(crate) fn edges_of(samples: &[SampleRow]) -> Vec<Edges> {
    let mut last: Option<(Position, Position, Option<i64>)> = None;
    samples
        .iter()
        .map(|s| {
            // what does not know its edges has those of the one before
            let nxt = match (last, s.snd_nxt) {
                (None, nxt) => Position::first(nxt.unwrap_or(0)),
                (Some((at, _, _)), None) => at,
                (Some((at, _, bytes)), Some(nxt)) => {
                    let sent = s.bytes_sent.zip(bytes).map_or(0, |(now, then)| now.saturating_sub(then));
                    nearest(nxt, at + sent.clamp(0, 1 << 50))
                }
            };
            let una = match (last, s.snd_una) {
                (_, Some(una)) => nearest(una, nxt),
                (Some((_, una, _)), None) => una,
                (None, None) => nxt,
            };
            last = Some((nxt, una, s.bytes_sent));
            Edges { nxt, una }
        })
        .collect()
}

/// A position within what timestamps leave open, and that within what the samples on both sides do.
fn within(
    value: Position,
    (low, high): (Option<Position>, Option<Position>),
    last: Position,
    limit: Position,
) -> Position {
    let low = low.unwrap_or(Position::MIN);
    value.max(low).min(high.unwrap_or(Position::MAX).max(low)).clamp(last, limit.max(last))
}

struct Replay<'a> {
    at: Edges,
    board: Scoreboard,
    has_edges: bool,
    segments: Option<&'a Segments>,
}

impl Replay<'_> {
    /// What is selectively acknowledged at a sample, where what the capture says is as many segments as the sample has:
    /// an ACK may have waited, been merged, or never come to TCP.
    fn sacked_bytes(&self, sample: &SampleRow, at: Edges) -> Option<u32> {
        let bytes = self.board.bytes(at.una, at.nxt).filter(|_| self.has_edges);
        match (sample.sacked_out, self.segments) {
            (Some(0), _) => Some(0).filter(|_| self.has_edges),
            (Some(counted), Some(segments)) => bytes.filter(|_| segments.of(&self.board) == i64::from(counted)),
            _ => bytes,
        }
    }

    fn known(&self, sample: usize, at: Edges) -> Known {
        let sample = u32::try_from(sample).ok();
        Known {
            sample,
            at_ns: None,
            edges: self.has_edges.then_some((at.nxt.seq(), at.una.seq())),
            sacked_bytes: self.board.bytes(at.una, at.nxt).filter(|_| self.has_edges),
        }
    }

    /// The edges at a packet, within what timestamps and the samples on both sides leave open.
    fn echoed(&self, echoes: &Echoes, packet: usize, p: &Packet, is_out: bool, last: Edges, limit: Edges) -> Edges {
        match is_out {
            // where packets are missing from the capture, one edge may be known to be beyond the other's place
            true => {
                let mut una = within(self.at.una, echoes.una_at(packet), last.una, limit.una);
                if space(p.len, p.flags.0) > 0 {
                    // what has been acknowledged is not sent again, whatever ACK passed the tap before
                    una = una.min(nearest(p.seq, self.at.nxt)).max(last.una);
                }
                Edges { una, nxt: self.at.nxt.max(una) }
            }
            false => {
                let nxt = within(self.at.nxt, echoes.nxt_at(packet), last.nxt, limit.nxt);
                Edges { nxt: nxt.max(self.at.una).max(self.sent_for(p, limit)), ..self.at }
            }
        }
    }

    /// Nothing that is sent begins beyond `snd_nxt`, and nothing beyond it is acknowledged: what was sent before may be
    /// missing from the samples and from the capture.
    fn stands_at(&mut self, p: &Packet, is_out: bool, limit: Edges) {
        if p.flags.rst() {
            return;
        }
        if is_out {
            self.sent(p.seq, 0, limit);
        } else {
            self.is_sent(self.sent_for(p, limit), limit);
        }
    }

    /// What must have been sent before a packet was received: what it acknowledges, unless the next sample knows that it
    /// was not (RFC 9293 §3.10.7.4).
    fn sent_for(&self, p: &Packet, limit: Edges) -> Position {
        let ack = nearest(p.ack, self.at.una);
        if p.flags.ack() && !p.flags.rst() && ack <= limit.nxt { ack } else { Position::MIN }
    }

    /// What the segment of a sample does, up to what the next sample knows.
    fn sample(&mut self, s: &SampleRow, limit: Edges) {
        if !s.has_segment {
            return;
        }
        match (s.kind, s.phase) {
            (Kind::Send | Kind::Retransmit, Phase::Transmit) => self.sent(s.seq, space(s.len, s.flags), limit),
            (Kind::Ack, Phase::Before) => self.acknowledged(s.ack, limit),
            _ => {}
        }
    }

    /// What a packet does to the edges, for those after it.
    fn packet(&mut self, p: &Packet, is_out: bool, limit: Edges) {
        if p.flags.rst() {
            return;
        }
        if is_out {
            self.sent(p.seq, space(p.len, p.flags.0), limit);
        } else if p.flags.ack() {
            self.acknowledged(p.ack, limit);
            self.board.take_up(&p.sack, self.at.una, self.at.nxt);
        }
    }

    fn sent(&mut self, seq: u32, space: i64, limit: Edges) {
        self.is_sent(nearest(seq, self.at.nxt) + space, limit);
    }

    /// All up to here has been sent: no more than a window of it without acknowledgment.
    fn is_sent(&mut self, end: Position, limit: Edges) {
        self.at.nxt = self.at.nxt.max(end.min(limit.nxt));
        let una = (self.at.nxt - MOST_WINDOW).min(limit.una);
        if una > self.at.una {
            self.at.una = una;
            self.board.acknowledge(una);
        }
    }

    fn acknowledged(&mut self, ack: u32, limit: Edges) {
        let ack = nearest(ack, self.at.una);
        // what was never sent cannot be acknowledged (RFC 9293 §3.10.7.4); the next sample knows whether it was sent
        if ack > self.at.una && (ack <= self.at.nxt || ack <= limit.una) {
            self.at.una = ack.min(limit.una);
            self.at.nxt = self.at.nxt.max(self.at.una);
            self.board.acknowledge(self.at.una);
        }
    }
}
