//! How far connections have come: where in a trace the samples of a stretch of a capture are.
//!
//! A connection's own numbers and its peer's only rise. Their sum is its progress, of which packets and samples know
//! without any clock. Owns which samples a stretch of packets needs; must not know how they are matched.

use tcpprobe_trace::reader::{FlowRow, SampleRow, TraceReader};

use crate::hash::{HashMap, HashMapExt as _};
use crate::packet::{Packet, TcpFlags};
use crate::seq::{Position, distance, nearest};
use crate::sightings::space;

/// No window is as wide (RFC 7323 §2.3): what is farther off is another connection's, or comes after a gap.
const FAR: u32 = 1 << 30;
/// Samples of so many bytes before and after a stretch's packets, and of twice what was in flight, are read along.
const LEAST_SLACK: i64 = 1 << 17;

/// A connection's own numbers and its peer's, as far as its packets have shown them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    own: Position,
    peer: Position,
}

impl Track {
    /// Own and peer's numbers together.
    fn progress(self) -> i64 {
        (self.own - Position::default()).saturating_add(self.peer - Position::default())
    }

    /// Goes on with a packet. `at_its_time` is where the samples of that time are.
    fn follow(track: &mut Option<Track>, p: &Packet, is_out: bool, at_its_time: impl Fn() -> Track) {
        if p.flags.rst() {
            return;
        }
        let end = p.seq.wrapping_add(space(p.len, p.flags.0) as u32);
        let ack = p.flags.ack().then_some(p.ack);
        let (own, peer) = if is_out { (Some(end), ack) } else { (ack, Some(end)) };
        let is_far = |at: Position, number: Option<u32>| number.is_some_and(|n| distance(n, at.seq()) > FAR);
        let at = match *track {
            Some(at) if !is_far(at.own, own) && !is_far(at.peer, peer) => at,
            _ => at_its_time(),
        };
        let on = |at: Position, number: Option<u32>, anew: bool| match number {
            Some(n) if anew => nearest(n, at),
            Some(n) => at.max(nearest(n, at)),
            None => at,
        };
        let anew = track.is_none() || Some(at) != *track;
        *track = Some(Track { own: on(at.own, own, anew), peer: on(at.peer, peer, anew) });
    }
}

/// A sample, and how far its flow had come.
#[derive(Clone, Copy, Debug)]
struct Mark {
    id: i64,
    ts_ns: i64,
    at: Track,
}

/// Of each flow some of its samples.
#[derive(Debug, Default)]
pub(crate) struct Landmarks {
    by_flow: HashMap<u32, Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    marks: Vec<Mark>,
    last_serial: u64,
    bytes_sent: Option<i64>,
    most_in_flight: i64,
    /// The order of ids is not that of the serials: a trace of someone else.
    disordered: bool,
}

impl Landmarks {
    /// Reads them.
    pub(crate) fn read(reader: &TraceReader, flows: &[FlowRow]) -> tcpprobe_trace::Result<Landmarks> {
        let positions: HashMap<i64, u32> = flows.iter().map(|f| f.id).zip(0..).collect();
        let mut by_flow: HashMap<u32, Marks> = HashMap::new();
        reader.landmarks(|flow_id, sample| {
            if let Some(&flow) = positions.get(&flow_id) {
                by_flow.entry(flow).or_default().add(sample);
            }
        })?;
        by_flow.retain(|_, marks| !marks.disordered && !marks.marks.is_empty());
        Ok(Landmarks { by_flow })
    }

    /// Goes on with a packet of a flow. Of one that has no landmarks all samples are few, and it has no track.
    pub(crate) fn follow(&self, track: &mut Option<Track>, flow: u32, p: &Packet, is_out: bool) {
        if track.is_some() || self.by_flow.contains_key(&flow) {
            Track::follow(track, p, is_out, || self.at(flow, p.ts_ns));
        }
    }

    /// Where a flow was at a time, as far as clocks tell.
    fn at(&self, flow: u32, ts_ns: Option<i64>) -> Track {
        let marks = self.by_flow.get(&flow).map_or(&[][..], |m| &m.marks);
        let near = match ts_ns {
            Some(t) => {
                let after = marks.partition_point(|m| m.ts_ns < t);
                let around = [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|i| marks.get(i));
                around.min_by_key(|m| m.ts_ns.abs_diff(t))
            }
            None => marks.first(),
        };
        near.map_or(Track { own: Position::first(0), peer: Position::first(0) }, |m| m.at)
    }

    /// The ids of the first and the last sample that packets from one place of a flow to another need; as far as there
    /// are any, where it has no landmarks on that side.
    pub(crate) fn between(&self, flow: u32, from: Track, to: Track) -> (i64, i64) {
        let Some(Marks { marks, most_in_flight, .. }) = self.by_flow.get(&flow) else { return (i64::MIN, i64::MAX) };
        let slack = most_in_flight.saturating_mul(2).saturating_add(LEAST_SLACK);
        let (from, to) = (from.progress().saturating_sub(slack), to.progress().saturating_add(slack));
        let first = marks.partition_point(|m| m.at.progress() < from);
        let last = marks.partition_point(|m| m.at.progress() <= to);
        let first = first.checked_sub(1).and_then(|i| marks.get(i));
        (first.map_or(i64::MIN, |m| m.id), marks.get(last).map_or(i64::MAX, |m| m.id))
    }

    /// The ids of a flow's landmarks, ascending.
    pub(crate) fn ids(&self, flow: u32) -> impl Iterator<Item = i64> {
        self.by_flow.get(&flow).into_iter().flat_map(|m| &m.marks).map(|m| m.id)
    }
}

impl Marks {
    fn add(&mut self, s: &SampleRow) {
        self.disordered |= s.serial <= self.last_serial;
        self.last_serial = s.serial;
        // a SYN says nothing of where the peer is
        if s.has_segment && s.flags & TcpFlags::ACK.0 == 0 {
            return;
        }
        // without its edges a sample says nothing of where it was, but by its segment
        let (own, peer) = match (s.has_segment, s.kind.is_out()) {
            (false, _) => (s.snd_nxt, None),
            (true, true) => (s.snd_nxt.or(Some(s.seq)), Some(s.ack)),
            (true, false) => (s.snd_nxt.or(Some(s.ack)), Some(s.seq)),
        };
        let (Some(own), Some(peer)) = (own, peer) else { return };
        let at = match self.marks.last() {
            None => Track { own: Position::first(own), peer: Position::first(peer) },
            Some(Mark { at, .. }) => {
                let sent = s.bytes_sent.zip(self.bytes_sent).map_or(0, |(now, then)| now.saturating_sub(then));
                // never back: what goes back is a number before the one that was seen
                let own = nearest(own, at.own + sent.clamp(0, 1 << 50)).max(at.own);
                Track { own, peer: nearest(peer, at.peer).max(at.peer) }
            }
        };
        self.bytes_sent = s.bytes_sent.or(self.bytes_sent);
        if let Some((nxt, una)) = s.snd_nxt.zip(s.snd_una) {
            self.most_in_flight = self.most_in_flight.max(i64::from(nxt.wrapping_sub(una)));
        }
        self.marks.push(Mark { id: s.id, ts_ns: s.ts_ns, at });
    }
}
