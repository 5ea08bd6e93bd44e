//! What became of the samples that no packet has: the other half of the account.
//!
//! Must not know files or how packets were matched.

use tcpprobe_trace::join::Outcome;
use tcpprobe_trace::reader::SampleRow;
use tcpprobe_trace::sample::Phase;

use crate::clocks::Clocks;
use crate::hash::{HashSet, HashSetExt as _};
use crate::matching::Found;
use crate::packet::Packet;
use crate::reconstruct::SAME_HOST_NS;
use crate::seq::distance;
use crate::sightings::{FlowPacket, failed, never_sent, serves, space};

/// What is known of the capture as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coverage {
    /// Times of its first and last frame, ns of its own clock.
    pub(crate) span_ns: Option<(i64, i64)>,
    /// It is known to have lost nothing that came to it.
    pub(crate) whole: bool,
}

/// The outcomes of a flow's samples of segments, by id.
pub(crate) fn outcomes(
    samples: &[SampleRow],
    all: &[Packet],
    packets: &[FlowPacket],
    found: &[Found],
    clocks: &Clocks,
    coverage: Coverage,
) -> Vec<(i64, Outcome)> {
    let joined = joined(samples, all, packets, found);
    let undecided = [false, true].map(|is_out| Undecided::new(is_out, all, packets, found));
    let at_sender = coverage.whole && is_at_the_sender(samples, all, packets, found);
    let within = [false, true].map(|is_out| {
        let mut of = (0..samples.len()).filter(|&i| joined[i] && samples[i].kind.is_out() == is_out);
        let first = of.next()?;
        Some((first, of.next_back().unwrap_or(first)))
    });
    let mut outcomes = Vec::new();
    for (i, s) in samples.iter().enumerate() {
        let fails = fails(samples, i);
        let is_out = s.kind.is_out();
        if !(serves(samples, i, is_out) || fails) {
            continue;
        }
        let outcome = if joined[i] {
            Outcome::Joined
        } else if fails {
            Outcome::FailedLocally
        } else if !is_between(within[usize::from(is_out)], i) && is_outside(s.ts_ns, clocks, coverage) {
            Outcome::OutsideCapture
        } else if undecided[usize::from(is_out)].may_be(s) {
            Outcome::Ambiguous
        } else if is_out && at_sender {
            Outcome::DroppedInQdisc
        } else {
            Outcome::NotCaptured
        };
        outcomes.push((s.id, outcome));
    }
    outcomes
}

/// The outcomes of samples that no packets of their flow are near to.
pub(crate) fn outcomes_beyond(samples: &[SampleRow], clocks: &Clocks, coverage: Coverage) -> Vec<(i64, Outcome)> {
    let outcome = |i: usize| {
        let s = &samples[i];
        let fails = fails(samples, i);
        let outcome = match fails {
            true => Outcome::FailedLocally,
            false if is_outside(s.ts_ns, clocks, coverage) => Outcome::OutsideCapture,
            false => Outcome::NotCaptured,
        };
        (serves(samples, i, s.kind.is_out()) || fails).then_some((s.id, outcome))
    };
    (0..samples.len()).filter_map(outcome).collect()
}

/// Could the segment of a sample not be sent?
fn fails(samples: &[SampleRow], i: usize) -> bool {
    let (s, before) = (&samples[i], i.checked_sub(1).map(|b| &samples[b]));
    failed(s, samples.get(i + 1)) || never_sent(s, before) || (s.error != 0 && s.phase == Phase::Transmit)
}

/// Which samples have a packet, those among them that a packet was merged of.
fn joined(samples: &[SampleRow], all: &[Packet], packets: &[FlowPacket], found: &[Found]) -> Vec<bool> {
    let mut joined = vec![false; samples.len()];
    for (packet, f) in packets.iter().zip(found) {
        let Some(first) = f.sample() else { continue };
        joined[first as usize] = true;
        let p = &all[packet.index as usize];
        let end = p.seq.wrapping_add(space(p.len, p.flags.0) as u32);
        let (first, after) = (&samples[first as usize], &samples[first as usize + 1..]);
        let mut covered = end_of(first);
        for (s, done) in after.iter().zip(&mut joined[f.sample().map_or(0, |i| i as usize + 1)..]) {
            if covered.wrapping_sub(end) as i32 >= 0 {
                break;
            }
            if s.has_segment && s.kind.is_out() == packet.is_out && s.seq == covered && end_of(s) != covered {
                *done = true;
                covered = end_of(s);
            }
        }
    }
    joined
}

fn end_of(s: &SampleRow) -> u32 {
    s.seq.wrapping_add(space(s.len, s.flags) as u32)
}

/// Do samples of the direction's packets stand on both sides? Then it passed the tap, if at all, while that was open.
fn is_between(joined: Option<(usize, usize)>, sample: usize) -> bool {
    joined.is_some_and(|(first, last)| first < sample && sample < last)
}

fn is_outside(ts_ns: i64, clocks: &Clocks, coverage: Coverage) -> bool {
    let at_ns = clocks.offset_at_sample_ns(ts_ns).map(|offset| ts_ns.saturating_add(offset));
    coverage.span_ns.zip(at_ns).is_some_and(|((first, last), at)| at < first || at > last)
}

/// Was the capture taken where the flow's socket is? Then packets pass the tap as they are sent, and as they are
/// received: no round trip lies between the fastest of both.
fn is_at_the_sender(samples: &[SampleRow], all: &[Packet], packets: &[FlowPacket], found: &[Found]) -> bool {
    let delays = |is_out: bool| {
        packets.iter().zip(found).filter(move |(p, _)| p.is_out == is_out).filter_map(|(packet, f)| {
            all[packet.index as usize].ts_ns?.checked_sub(samples[f.sample()? as usize].ts_ns)
        })
    };
    let apart = delays(true).min().zip(delays(false).max()).map(|(sent, received)| sent.saturating_sub(received));
    apart.is_some_and(|ns| ns < SAME_HOST_NS)
}

/// Packets of one direction without a sample.
struct Undecided {
    /// Sequence number, and the one after it; by the first.
    ranges: Vec<(u32, u32)>,
    longest: u32,
    /// Sequence and acknowledgment number of those that take no space.
    empty: HashSet<(u32, u32)>,
}

impl Undecided {
    fn new(is_out: bool, all: &[Packet], packets: &[FlowPacket], found: &[Found]) -> Undecided {
        let mut undecided = Undecided { ranges: Vec::new(), longest: 0, empty: HashSet::new() };
        for (packet, _) in packets.iter().zip(found).filter(|(p, f)| p.is_out == is_out && f.sample().is_none()) {
            let p = &all[packet.index as usize];
            match space(p.len, p.flags.0) as u32 {
                0 => {
                    undecided.empty.insert((p.seq, p.ack));
                }
                len => {
                    undecided.ranges.push((p.seq, p.seq.wrapping_add(len)));
                    undecided.longest = undecided.longest.max(len);
                }
            }
        }
        undecided.ranges.sort_unstable();
        undecided
    }

    /// Can one of them be this sample's?
    fn may_be(&self, s: &SampleRow) -> bool {
        let end = end_of(s);
        if end == s.seq {
            return self.empty.contains(&(s.seq, s.ack));
        }
        // those that begin early enough before its end, around the end of the circle too
        let from = s.seq.wrapping_sub(self.longest);
        let begins = |range: &(u32, u32)| range.0.wrapping_sub(from);
        let count = self.ranges.len();
        let start = self.ranges.partition_point(|r| r.0 < from);
        let near = (start..count).chain(0..start).map(|i| &self.ranges[i]);
        let mut near = near.take_while(|r| begins(r) < end.wrapping_sub(from));
        near.any(|r| distance(r.0, s.seq) <= self.longest.max(s.len + 2) && r.1.wrapping_sub(s.seq) as i32 > 0)
    }
}
