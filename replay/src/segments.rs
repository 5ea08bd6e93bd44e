//! How many segments, as the kernel counts them, a number of selectively acknowledged bytes is: samples have segments
//! (`sacked_out`), captured ACKs have bytes.
//!
//! Owns where one transmission ends and the next one begins; must not know which samples and ACKs are compared.

use tcpprobe_trace::reader::SampleRow;
use tcpprobe_trace::sample::{Kind, Phase};

use crate::packet::Packet;
use crate::rebuild::Edges;
use crate::scoreboard::Scoreboard;
use crate::seq::{Position, nearest};
use crate::sightings::{FlowPacket, space};

/// A stretch of the stream that was sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    start: Position,
    /// Bytes of a full segment when it was sent; 0: a FIN along with data, which is no segment of its own.
    mss: i64,
    /// Segments of all stretches before this one.
    before: i64,
}

/// Everything that a flow sent, cut into segments (`tcp_skb_pcount`).
#[derive(Debug, Default)]
pub(crate) struct Segments {
    stretches: Vec<Stretch>,
}

impl Segments {
    /// From samples and packets of what was sent. `None`: no sample says how many segments were acknowledged.
    pub(crate) fn new(
        samples: &[SampleRow],
        edges: &[Edges],
        all: &[Packet],
        packets: &[FlowPacket],
    ) -> Option<Segments> {
        if !samples.iter().any(|s| s.sacked_out.is_some() && s.mss.is_some()) {
            return None;
        }
        // each with the bytes that options took of a full segment there, of which only packets tell
        let (mut bounds, mut fin): (Vec<(Position, Option<u8>)>, Option<Position>) = (Vec::new(), None);
        let mut bound = |seq: u32, len: u32, flags: u16, near: Position, options: Option<u8>| {
            let start = nearest(seq, near);
            let (data, end) = (start + i64::from(len), start + space(len, flags));
            if end > start {
                bounds.extend([(start, options), (data, None), (end, None)]);
                fin = fin.or(Some(data).filter(|_| len > 0 && end > data));
            }
            end
        };
        let sends = || samples.iter().zip(edges).filter(|(s, _)| s.has_segment && s.kind == Kind::Send);
        let mut next = sends().skip(1).map(|(s, _)| s.seq);
        for (s, at) in sends().filter(|(s, _)| s.phase == Phase::Transmit) {
            // what found no room in a queue of the host begins again, and may have grown
            if next.next() != Some(s.seq) {
                bound(s.seq, s.len, s.flags, at.nxt, None);
            }
        }
        let mut end = edges.first()?.nxt;
        for p in packets.iter().filter(|packet| packet.is_out).map(|packet| &all[packet.index as usize]) {
            let options = Some(p.varying_options_bytes).filter(|_| !p.flags.syn());
            end = end.max(bound(p.seq, p.len, p.flags.0, end, options));
        }
        // of several packets the first one tells: what was sent again was rarely selectively acknowledged
        bounds.sort_by_key(|&(at, options)| (at, options.is_none()));
        bounds.dedup_by_key(|bound| bound.0);
        let mut stretches: Vec<Stretch> = Vec::with_capacity(bounds.len());
        let (mut sample, mut mss, mut options) = (0, 0, 0);
        for (start, there) in bounds {
            // as it was when this was sent
            while sample < samples.len() && (edges[sample].nxt <= start || mss == 0) {
                mss = samples[sample].mss.map_or(mss, i64::from);
                sample += 1;
            }
            let before = stretches.last().map_or(0, |last| last.up_to(start));
            // `mss_cache` has room for what every segment has alone: `tcp_current_mss` takes off the rest
            options = there.map_or(options, i64::from);
            let mss = if fin == Some(start) { 0 } else { (mss - options).max(1) };
            stretches.push(Stretch { start, mss, before });
        }
        Some(Segments { stretches })
    }

    /// Segments up to a position; one that is in it in part counts.
    fn up_to(&self, at: Position) -> i64 {
        let next = self.stretches.partition_point(|s| s.start <= at);
        next.checked_sub(1).map_or(0, |i| self.stretches[i].up_to(at))
    }

    /// Segments from a position on, up to another.
    fn between(&self, start: Position, end: Position) -> i64 {
        let next = self.stretches.partition_point(|s| s.start < start);
        match self.stretches.get(next) {
            Some(first) if first.start < end => {
                let head = next.checked_sub(1).map_or(0, |i| count(first.start - start, self.stretches[i].mss));
                head + self.up_to(end) - first.before
            }
            _ => next.checked_sub(1).map_or(0, |i| count(end - start, self.stretches[i].mss)),
        }
    }

    /// Segments of what is selectively acknowledged.
    pub(crate) fn of(&self, board: &Scoreboard) -> i64 {
        board.ranges().map(|(start, end)| self.between(start, end)).sum()
    }
}

impl Stretch {
    fn up_to(&self, at: Position) -> i64 {
        self.before + count(at - self.start, self.mss)
    }
}

fn count(bytes: i64, mss: i64) -> i64 {
    if mss == 0 { 0 } else { bytes.max(0) / mss + i64::from(bytes.max(0) % mss != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translation::testing::{PUSH, packet, sample};

    /// Stretches of (start, end, bytes of a full segment); `fin`: the last one ends with a FIN.
    fn segments(of: &[(i64, i64, i64)], fin: bool) -> Segments {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut push = |start: i64, mss: i64| {
            let before = stretches.last().map_or(0, |last| last.up_to(start.into()));
            stretches.push(Stretch { start: start.into(), mss, before });
        };
        for &(start, _, mss) in of {
            push(start, mss);
        }
        if let Some(&(_, end, mss)) = of.last() {
            push(end - i64::from(fin), if fin { 0 } else { mss });
        }
        Segments { stretches }
    }

    fn board(ranges: &[(i64, i64)]) -> Scoreboard {
        let mut board = Scoreboard::default();
        for &(start, end) in ranges {
            board.add(start.into(), end.into(), 0.into(), Position::MAX);
        }
        board
    }

    #[test]
    fn each_transmission_counts_its_own_segments() {
        let all = segments(&[(0, 1000, 1000), (1000, 3500, 1000), (3500, 3600, 1000)], false);
        assert_eq!(all.of(&board(&[(0, 1000)])), 1);
        assert_eq!(all.of(&board(&[(1000, 3500)])), 3, "a short one at its end");
        assert_eq!(all.of(&board(&[(0, 3600)])), 5);
        assert_eq!(all.of(&board(&[(0, 1000), (3500, 3600)])), 2);
    }

    #[test]
    fn a_transmission_may_be_acknowledged_in_part() {
        let all = segments(&[(0, 4000, 1000), (4000, 8000, 1000)], false);
        assert_eq!(all.of(&board(&[(1000, 3000)])), 2);
        assert_eq!(all.of(&board(&[(3000, 6000)])), 3);
        assert_eq!(all.of(&board(&[])), 0);
    }

    #[test]
    fn full_segments_are_those_of_their_time() {
        let all = segments(&[(0, 2000, 1000), (2000, 4000, 500)], false);
        assert_eq!(all.of(&board(&[(0, 4000)])), 2 + 4);
    }

    /// MPTCP's DSS takes 24 bytes of each: 1,431 bytes are sent at once, as one segment and 7 bytes.
    #[test]
    fn what_other_options_take_is_no_room_for_data() {
        let (local, remote) = ("10.0.0.1:1", "10.0.0.2:2");
        let sent = |seq, len| Packet { varying_options_bytes: 24, ..packet(local, remote, seq, 1, len, PUSH) };
        let all = [sent(1000, 2848), sent(3848, 1431), sent(5279, 1424)];
        let packets: Vec<FlowPacket> = (0..3).map(|index| FlowPacket { index, is_out: true }).collect();
        let samples: Vec<SampleRow> = all
            .iter()
            .zip(1..)
            .map(|(p, serial)| SampleRow {
                snd_una: Some(1000),
                snd_nxt: Some(p.seq),
                sacked_out: Some(0),
                mss: Some(1448),
                ..sample(serial, p, true)
            })
            .collect();
        let edges = crate::rebuild::edges_of(&samples);
        let all = Segments::new(&samples, &edges, &all, &packets).unwrap();
        let of = |start: u32, end: u32| all.between(Position::first(start), Position::first(end));
        assert_eq!(of(3848, 5279), 2);
        assert_eq!(of(1000, 6703), 2 + 2 + 1);
    }

    #[test]
    fn a_fin_along_with_data_is_no_segment() {
        let all = segments(&[(0, 1000, 1000), (1000, 2001, 1000)], true);
        assert_eq!(all.of(&board(&[(1000, 2001)])), 1);
        assert_eq!(all.of(&board(&[(0, 2001)])), 2);
    }
}
