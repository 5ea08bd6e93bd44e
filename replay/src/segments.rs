//! How many segments, as the kernel counts them, a number of selectively acknowledged bytes is: samples have segments
//! (`sacked_out`), captured ACKs have bytes.
//!
//! Owns where one transmission ends and the next one begins; must not know which samples and ACKs are compared.

use std::cmp::Reverse;
use std::collections::BTreeSet;

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
        // each with the packet that told of it last, from 1
        let (mut bounds, mut fin): (Vec<(Position, usize)>, Option<Position>) = (Vec::new(), None);
        let mut bound = |seq: u32, len: u32, flags: u16, near: Position, packet: usize| {
            let start = nearest(seq, near);
            let (data, end) = (start + i64::from(len), start + space(len, flags));
            if end > start {
                bounds.extend([start, data, end].map(|at| (at, packet)));
                fin = fin.or(Some(data).filter(|_| len > 0 && end > data));
            }
            (start, end)
        };
        let sends = || samples.iter().zip(edges).filter(|(s, _)| s.has_segment && s.kind == Kind::Send);
        let mut next = sends().skip(1).map(|(s, _)| s.seq);
        for (s, at) in sends().filter(|(s, _)| s.phase == Phase::Transmit) {
            // what found no room in a queue of the host begins again, and may have grown
            if next.next() != Some(s.seq) {
                bound(s.seq, s.len, s.flags, at.nxt, 0);
            }
        }
        let begin = edges.first()?.nxt;
        let (mut end, mut again) = (begin, Vec::new());
        for (packet, number) in packets.iter().filter(|packet| packet.is_out).zip(1..) {
            let p = &all[packet.index as usize];
            let sent = bound(p.seq, p.len, p.flags.0, end, number);
            if sent.1 > end {
                end = sent.1;
            } else if sent.1 > sent.0 {
                // not where it begins
                again.push(((sent.0 + 1, sent.1), number));
            }
        }
        let cut = cut_by(all, packets, begin);
        bounds.extend(cut.iter().flat_map(|&((start, end), (_, number))| [(start, number), (end, number)]));
        let cuts = Cuts::new(bounds, &again);
        let mut full = cuts.first_sent(samples, edges);
        if samples.iter().any(|s| s.mss != samples[0].mss) {
            cuts.sent_again(samples, edges, &mut full);
        }
        // `mss` has room for what every segment has alone (`tcp_current_mss`)
        let mut taken = vec![0; full.len()];
        cuts.last_over(&cut, |stretch, (bytes, _)| taken[stretch] = bytes);
        let mut stretches: Vec<Stretch> = Vec::with_capacity(full.len());
        for ((&start, full), taken) in cuts.0.iter().zip(full).zip(taken) {
            let before = stretches.last().map_or(0, |last| last.up_to(start));
            let mss = if fin == Some(start) { 0 } else { (full - taken).max(1) };
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

/// Where what was sent at once begins and ends: ascending, each once. What is said of each stretch is as long.
struct Cuts(Vec<Position>);

impl Cuts {
    /// Where something was sent again across a bound, there is none any more, unless a later packet has it again.
    fn new(mut bounds: Vec<(Position, usize)>, again: &[((Position, Position), usize)]) -> Cuts {
        bounds.sort_unstable_by_key(|&(at, packet)| (at, Reverse(packet)));
        bounds.dedup_by_key(|bound| bound.0);
        let cuts = Cuts(bounds.iter().map(|bound| bound.0).collect());
        let mut is_gone = vec![false; bounds.len()];
        cuts.last_over(again, |bound, packet| is_gone[bound] = bounds[bound].1 < packet);
        Cuts(cuts.0.into_iter().zip(is_gone).filter(|&(_, is_gone)| !is_gone).map(|(at, _)| at).collect())
    }

    /// For each stretch that begins within one or more of these, in the order of time: the last one. Each is looked at
    /// once, however many of them there are.
    fn last_over<T: Copy>(&self, these: &[((Position, Position), T)], mut is: impl FnMut(usize, T)) {
        // of each stretch the next one that none has been found for yet, or one before it
        let mut open: Vec<usize> = (0..=self.0.len()).collect();
        for &((start, end), what) in these.iter().rev() {
            let mut at = self.0.partition_point(|&b| b < start);
            loop {
                while open[at] != at {
                    open[at] = open[open[at]];
                    at = open[at];
                }
                if self.0.get(at).is_none_or(|&b| b >= end) {
                    break;
                }
                is(at, what);
                open[at] = at + 1;
            }
        }
    }

    /// `mss` of each stretch as it was when it was sent first.
    fn first_sent(&self, samples: &[SampleRow], edges: &[Edges]) -> Vec<i64> {
        let (mut sample, mut mss) = (0, 0);
        let of = |&start: &Position| {
            while sample < samples.len() && (edges[sample].nxt <= start || mss == 0) {
                mss = samples[sample].mss.map_or(mss, i64::from);
                sample += 1;
            }
            mss
        };
        self.0.iter().map(of).collect()
    }

    /// As it was when it was sent again.
    fn sent_again(&self, samples: &[SampleRow], edges: &[Edges], full: &mut [i64]) {
        let is_again = |s: &SampleRow| s.has_segment && s.kind == Kind::Retransmit;
        let again = samples.iter().zip(edges).filter(|(s, _)| is_again(s)).filter_map(|(s, at)| {
            let start = nearest(s.seq, at.una);
            Some(((start, start + i64::from(s.len)), i64::from(s.mss?)))
        });
        self.last_over(&again.collect::<Vec<_>>(), |stretch, mss| full[stretch] = mss);
    }
}

/// What is cut into segments with each packet that is sent, and how many bytes of each segment options took that not every
/// segment has: of that only packets tell. With the packet's number, from 1; nothing, where no packet has any.
fn cut_by(all: &[Packet], packets: &[FlowPacket], begin: Position) -> Vec<((Position, Position), (i64, usize))> {
    let has_data = |p: &Packet| p.len > 0 && !p.flags.syn();
    let of = |packet: &FlowPacket| &all[packet.index as usize];
    if !packets.iter().any(|packet| packet.is_out && has_data(of(packet)) && of(packet).varying_options_bytes > 0) {
        return Vec::new();
    }
    let mut outstanding = Outstanding { splits: BTreeSet::new(), end: begin };
    let (mut cut, mut number) = (Vec::new(), 0);
    for packet in packets {
        let p = of(packet);
        number += usize::from(packet.is_out);
        if !packet.is_out {
            outstanding.acknowledged(p);
        } else if has_data(p) {
            cut.push((outstanding.sent(p), (i64::from(p.varying_options_bytes), number)));
        }
    }
    cut
}

/// Of what is outstanding, where each packet of the kernel's begins and ends.
struct Outstanding {
    splits: BTreeSet<Position>,
    /// Of all that was sent.
    end: Position,
}

impl Outstanding {
    /// What is cut into segments when this is sent: where it is a part of what was once sent at once, the rest as well
    /// (`tcp_fragment`).
    fn sent(&mut self, p: &Packet) -> (Position, Position) {
        let start = nearest(p.seq, self.end);
        let end = start + i64::from(p.len);
        let before = self.splits.range(..=start).next_back();
        let whole = match (before, self.splits.range(end..).next()) {
            (Some(&before), Some(&behind)) if end <= self.end => (before, behind),
            // new, or acknowledged while it was on its way to the capture
            _ => (start, end),
        };
        self.splits.extend([start, end]);
        self.end = self.end.max(end);
        whole
    }

    /// What was selectively acknowledged is split from the rest (`tcp_match_skb_to_sack`).
    fn acknowledged(&mut self, p: &Packet) {
        if !p.flags.ack() {
            return;
        }
        let ack = nearest(p.ack, self.end);
        while self.splits.first().is_some_and(|&split| split < ack) {
            self.splits.pop_first();
        }
        for (left, right) in p.sack.iter() {
            let edges = [left, right].map(|edge| nearest(edge, self.end));
            self.splits.extend(edges.into_iter().filter(|&edge| ack <= edge && edge <= self.end));
        }
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn the_last_over_each_is_found(
            bounds in prop::collection::btree_set(0i64..60, 0..30),
            these in prop::collection::vec((0i64..60, 0i64..30), 0..30),
        ) {
            let cuts = Cuts(bounds.iter().map(|&at| at.into()).collect());
            let these: Vec<_> = these.iter().map(|&(start, len)| (start.into(), (start + len).into())).zip(0..).collect();
            let mut found = vec![None; bounds.len()];
            cuts.last_over(&these, |stretch, number| {
                assert_eq!(found[stretch].replace(number), None, "once");
            });
            let over = |at: Position| these.iter().rfind(|((start, end), _)| *start <= at && at < *end).map(|t| t.1);
            let expected: Vec<Option<i32>> = cuts.0.iter().map(|&at| over(at)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    /// What was sent, each packet with its sample: sequence number, bytes, bytes of options.
    fn sent(of: &[(u32, u32, u8)]) -> Segments {
        let packet = |&(seq, len, options): &(u32, u32, u8)| Packet {
            varying_options_bytes: options,
            ..packet("10.0.0.1:1", "10.0.0.2:2", seq, 1, len, PUSH)
        };
        let all: Vec<Packet> = of.iter().map(packet).collect();
        let packets: Vec<FlowPacket> =
            (0..all.len()).map(|index| FlowPacket { index: index as u32, is_out: true }).collect();
        let (mut samples, mut nxt) = (Vec::new(), 1000);
        for (p, serial) in all.iter().zip(1..) {
            samples.push(SampleRow {
                kind: if p.seq < nxt { Kind::Retransmit } else { Kind::Send },
                snd_una: Some(1000),
                snd_nxt: Some(nxt),
                sacked_out: Some(0),
                mss: Some(1448),
                ..sample(serial, p, true)
            });
            nxt = nxt.max(p.seq + p.len);
        }
        Segments::new(&samples, &crate::rebuild::edges_of(&samples), &all, &packets).unwrap()
    }

    fn segments_of(all: &Segments, start: u32, end: u32) -> i64 {
        all.between(Position::first(start), Position::first(end))
    }

    /// MPTCP's DSS takes 24 bytes of each: 1,431 bytes are sent at once, as one segment and 7 bytes.
    #[test]
    fn what_other_options_take_is_no_room_for_data() {
        let all = sent(&[(1000, 2848, 24), (3848, 1431, 24), (5279, 1424, 24)]);
        assert_eq!(segments_of(&all, 3848, 5279), 2);
        assert_eq!(segments_of(&all, 1000, 6703), 2 + 2 + 1);
    }

    /// Sent behind a SACK option, and sent again without one.
    #[test]
    fn what_is_sent_again_is_cut_anew() {
        let tail = sent(&[(1000, 2872, 12), (2448, 1424, 0)]);
        assert_eq!(segments_of(&tail, 1000, 2448), 1, "so is what was sent along with it");
        let segments = sent(&[(1000, 1436, 12), (2436, 1436, 12), (1000, 1448, 0), (2448, 1424, 0)]);
        assert_eq!(segments_of(&segments, 1000, 3872), 2);
    }

    #[test]
    fn a_fin_along_with_data_is_no_segment() {
        let all = segments(&[(0, 1000, 1000), (1000, 2001, 1000)], true);
        assert_eq!(all.of(&board(&[(1000, 2001)])), 1);
        assert_eq!(all.of(&board(&[(0, 2001)])), 2);
    }
}
