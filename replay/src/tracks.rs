//! How far connections have come: where in a trace the samples of a stretch of a capture are.
//!
//! A connection's own numbers and its peer's only rise. Their sum is its progress, of which packets and samples know
//! without any clock. Owns which samples a stretch of packets needs; must not know how they are matched.

use std::ops::RangeInclusive;

use rayon::prelude::*;
use tcpprobe_trace::reader::{FlowRow, SampleRow};

use crate::hash::{HashMap, HashMapExt as _};
use crate::packet::{Packet, TcpFlags};
use crate::readers::Readers;
use crate::seq::{MOST_WINDOW, Position, distance, nearest};
use crate::sightings::space;

/// Samples of so many bytes before and after a stretch's packets, and of twice what was in flight or what is acknowledged
/// so late, are read along.
const LEAST_SLACK: i64 = 1 << 17;
/// Stamps that are no farther off, in ticks, are of one counter: others may have been rewritten on the way. From one
/// landmark to the next takes a while.
const NEAR_STAMP: u32 = 1 << 22;

/// Samples whose landmarks one thread reads at a time.
const AT_ONCE: u64 = 1 << 18;

/// A connection's own numbers and its peer's, as far as its packets have shown them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    own: Position,
    peer: Position,
}

impl Track {
    /// Of a flow of which nothing is known.
    const BEGIN: Track = Track { own: Position::BEGIN, peer: Position::BEGIN };

    /// Own and peer's numbers together.
    pub(crate) fn progress(self) -> i64 {
        (self.own - Position::default()).saturating_add(self.peer - Position::default())
    }

    /// So many bytes back in both directions.
    fn back(self, bytes: i64) -> Track {
        Track { own: self.own - bytes, peer: self.peer - bytes }
    }

    /// How many bytes what a packet acknowledges is behind what the capture has shown: where data is sent, that much is
    /// on its way.
    pub(crate) fn behind(self, p: &Packet, is_out: bool) -> i64 {
        let shown = if is_out { self.peer } else { self.own };
        let behind = shown - nearest(p.ack, shown);
        if p.flags.ack() && !p.flags.rst() && behind <= MOST_WINDOW { behind } else { 0 }
    }

    /// Goes on with a packet. `at_its_time` is where the samples of that time are.
    fn follow(track: &mut Option<Track>, p: &Packet, is_out: bool, at_its_time: impl Fn() -> Track) {
        if p.flags.rst() {
            return;
        }
        let end = p.seq.wrapping_add(space(p.len, p.flags.0) as u32);
        let ack = p.flags.ack().then_some(p.ack);
        let (own, peer) = if is_out { (Some(end), ack) } else { (ack, Some(end)) };
        // another connection's, or behind a gap
        let is_far =
            |at: Position, number: Option<u32>| number.is_some_and(|n| i64::from(distance(n, at.seq())) > MOST_WINDOW);
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

/// A flow has no more landmarks than this: of those of a longer one every second is dropped, again and again.
const MOST_MARKS: usize = 1 << 13;

/// A sample, and how far its flow had come.
#[derive(Clone, Copy, Debug)]
struct Mark {
    id: i64,
    ts_ns: i64,
    at: Track,
    /// The stamps of what the flow received, and of what it sent, there or as near as is known.
    stamps: [Option<u32>; 2],
}

/// Of each flow some of its samples.
#[derive(Debug, Default)]
pub(crate) struct Landmarks {
    by_flow: HashMap<u32, Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    marks: Vec<Mark>,
    /// The last one that was read, kept or not.
    last: Option<Mark>,
    /// How many were read; of 2 to the power of `thinned` one is kept.
    read: usize,
    thinned: u32,
    last_serial: u64,
    bytes_sent: Option<i64>,
    most_in_flight: i64,
    /// The order of ids is not that of the serials: a trace of someone else.
    disordered: bool,
}

impl Landmarks {
    /// Reads them, on all threads: it takes a look at nearly each page of the samples, and nothing is joined before.
    pub(crate) fn read(readers: &Readers<'_>, flows: &[FlowRow]) -> tcpprobe_trace::Result<Landmarks> {
        let positions: HashMap<i64, u32> = flows.iter().map(|f| f.id).zip(0..).collect();
        let session_of = |id| positions.get(&id).map(|&flow| flows[flow as usize].session_id);
        let pieces = readers.read(|reader| reader.pieces(AT_ONCE))?;
        let mut by_flow: HashMap<u32, Marks> = HashMap::new();
        // memory holds what few of them have
        for some in pieces.chunks(2 * rayon::current_num_threads()) {
            let read = |begins: &RangeInclusive<i64>| {
                let mut found = Vec::new();
                readers.read(|reader| reader.landmarks(begins, session_of, |id, sample| found.push((id, *sample))))?;
                Ok(found)
            };
            let found: Vec<_> = some.par_iter().map(read).collect::<tcpprobe_trace::Result<_>>()?;
            for (id, sample) in found.iter().flatten() {
                if let Some(&flow) = positions.get(id) {
                    by_flow.entry(flow).or_default().add(sample);
                }
            }
        }
        by_flow.retain(|_, marks| !marks.disordered && !marks.marks.is_empty());
        by_flow.values_mut().for_each(Marks::begin_with_stamps);
        Ok(Landmarks { by_flow })
    }

    /// Goes on with a packet of a flow. Of one that has no landmarks all samples are few, and it has no track.
    pub(crate) fn follow(&self, track: &mut Option<Track>, flow: u32, p: &Packet, is_out: bool) {
        let Some(marks) = self.by_flow.get(&flow) else { return };
        // a connection begins: what came before was another one of the same addresses, near in numbers or not
        if p.flags.syn() && !p.flags.rst() {
            *track = None;
        }
        match track {
            // once for a flow, as it looks at all of its landmarks
            None => Track::follow(track, p, is_out, || marks.at_numbers(p, is_out)),
            Some(_) => Track::follow(track, p, is_out, || marks.at_time(p.ts_ns)),
        }
    }

    /// The ids of the first and the last sample that packets from one place of a flow to another need, the farthest of
    /// which is so many bytes behind; as far as there are any, where it has no landmarks on that side.
    pub(crate) fn between(&self, flow: u32, from: Track, to: Track, behind: i64) -> (i64, i64) {
        let Some(of_flow) = self.by_flow.get(&flow) else { return (i64::MIN, i64::MAX) };
        let (marks, slack) = (&of_flow.marks, of_flow.slack().max(behind.saturating_add(LEAST_SLACK)));
        let (from, to) = (from.progress().saturating_sub(slack), to.progress().saturating_add(slack));
        let first = marks.partition_point(|m| m.at.progress() < from);
        let last = marks.partition_point(|m| m.at.progress() <= to);
        let first = first.checked_sub(1).and_then(|i| marks.get(i));
        (first.map_or(i64::MIN, |m| m.id), marks.get(last).map_or(i64::MAX, |m| m.id))
    }

    /// The ids of some of a flow's samples, ascending: about of each so many landmarks one, had all been kept.
    pub(crate) fn ids(&self, flow: u32, one_of: usize) -> impl Iterator<Item = i64> {
        let marks = self.by_flow.get(&flow);
        let step = marks.map_or(1, |m| (one_of >> m.thinned).max(1));
        marks.into_iter().flat_map(|m| &m.marks).map(|m| m.id).step_by(step)
    }
}

impl Marks {
    /// Where the flow was at a time, as far as clocks tell.
    fn at_time(&self, ts_ns: Option<i64>) -> Track {
        let near = match ts_ns {
            Some(t) => {
                let after = self.marks.partition_point(|m| m.ts_ns < t);
                let around = [after.checked_sub(1), Some(after)].into_iter().flatten();
                around.filter_map(|i| self.marks.get(i)).min_by_key(|m| m.ts_ns.abs_diff(t))
            }
            None => self.marks.first(),
        };
        near.map_or(Track::BEGIN, |m| m.at)
    }

    /// Where it was at a packet, by the numbers: in a long connection these come again after each lap. Of several laps
    /// that with the nearest stamp, which the kernel counts by no clock that can be set; without stamps by time.
    fn at_numbers(&self, p: &Packet, is_out: bool) -> Track {
        if p.flags.syn() {
            return self.marks.first().map_or(Track::BEGIN, |m| m.at);
        }
        let ack = p.flags.ack().then_some(p.ack);
        let (own, peer) = if is_out { (Some(p.seq), ack) } else { (ack, Some(p.seq)) };
        let pairs = || self.marks.iter().zip(self.marks.iter().skip(1));
        // before the first landmark and behind the last one there may be as much as between two others
        let widest = pairs().map(|(m, next)| next.at.progress() - m.at.progress()).max().unwrap_or(0);
        let (slack, widest) = (self.slack().min(MOST_WINDOW), widest.min(MOST_WINDOW));
        let (first, last) = (self.marks.first(), self.marks.last());
        let before = first.map(|m| (m, m.at.back(slack + widest), m.at));
        let behind = last.map(|m| (m, m.at.back(slack), m.at.back(-slack - widest)));
        let between = pairs().map(|(m, next)| (m, m.at.back(slack), next.at.back(-slack)));
        let is_in = |number: Option<u32>, from: Position, to: Position| {
            number.is_none_or(|n| i64::from(n.wrapping_sub(from.seq())) <= to - from)
        };
        let near = before
            .into_iter()
            .chain(between)
            .chain(behind)
            .filter(|(_, from, to)| is_in(own, from.own, to.own) && is_in(peer, from.peer, to.peer));
        let near: Vec<&Mark> = near.map(|(m, ..)| m).collect();
        let off = |m: &Mark| Some(distance(p.tsval?, m.stamps[usize::from(is_out)]?)).filter(|&off| off <= NEAR_STAMP);
        let by_stamp = near.iter().filter_map(|m| Some((off(m)?, m))).min_by_key(|(off, _)| *off);
        let by_time = || near.iter().min_by_key(|m| p.ts_ns.map_or(0, |t| m.ts_ns.abs_diff(t)));
        by_stamp.map(|(_, m)| m).or_else(by_time).map_or_else(|| self.at_time(p.ts_ns), |m| m.at)
    }

    /// What precedes the first stamp of a direction has that one.
    fn begin_with_stamps(&mut self) {
        let mut next = [None; 2];
        for mark in self.marks.iter_mut().rev() {
            next = [0, 1].map(|i| mark.stamps[i].or(next[i]));
            mark.stamps = next;
        }
    }

    /// So many bytes a packet may be from the samples that it needs.
    fn slack(&self) -> i64 {
        self.most_in_flight.saturating_mul(2).saturating_add(LEAST_SLACK)
    }

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
        let at = match &self.last {
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
        let mut stamps = self.last.map_or([None; 2], |m| m.stamps);
        if let Some(stamp) = s.tsval.filter(|&stamp| stamp != 0) {
            stamps[usize::from(s.kind.is_out())] = Some(stamp);
        }
        self.keep(Mark { id: s.id, ts_ns: s.ts_ns, at, stamps });
    }

    fn keep(&mut self, mark: Mark) {
        if self.read.is_multiple_of(1 << self.thinned) {
            self.marks.push(mark);
        }
        (self.read, self.last) = (self.read + 1, Some(mark));
        if self.marks.len() == MOST_MARKS {
            let mut is_kept = false;
            self.marks.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.thinned += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_any_number_of_landmarks_few_are_kept_evenly_spread() {
        for read in [1, MOST_MARKS as i64 - 1, MOST_MARKS as i64, 1_000_003] {
            let mut marks = Marks::default();
            for id in 0..read {
                marks.keep(Mark { id, ts_ns: id, at: Track::BEGIN, stamps: [None; 2] });
            }
            let ids: Vec<i64> = marks.marks.iter().map(|m| m.id).collect();
            let step = 1 << marks.thinned;
            assert!(ids.len() < MOST_MARKS && ids.len() as i64 * 2 >= read.min(MOST_MARKS as i64 / 2), "{read}");
            assert!(ids.iter().copied().eq((0..read).step_by(step)), "{read}: one of {step}");
        }
    }
}
