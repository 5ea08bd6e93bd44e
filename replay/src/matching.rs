//! Which sample was taken for which packet: one direction of one flow.
//!
//! The k-th transmission of a range goes with the k-th sample of it. Who is k-th is decided by what cannot lie, in
//! this order: the range itself, the timestamp value that the sender put in, the number of transmissions on both
//! sides, the order among neighbours that are certain, and the time. Where two samples are still possible the
//! packet gets none: a wrong state is worse than none. Knows numbers and positions; must not know files.

use std::collections::HashMap;

use tcpprobe_trace::join::Reason;

use crate::packet::TcpFlags;
use crate::seq::Position;
use crate::spans::Spans;

/// A segment as the matching sees it, of a packet or of a sample alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    /// First position.
    pub(crate) start: Position,
    /// Position after its last byte, SYN and FIN counted; `start` where it takes no space.
    pub(crate) end: Position,
    /// Acknowledgment number.
    pub(crate) ack: u32,
    /// Flag bits.
    pub(crate) flags: u16,
    /// Timestamp value, if known.
    pub(crate) tsval: Option<u32>,
    /// Time, ns; of its own clock.
    pub(crate) ts_ns: Option<i64>,
}

/// A packet's sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Taken for this very segment.
    Exact(u32),
    /// The packet is a part of it, or begins with it.
    Within(u32),
    /// None, and why.
    Nothing(Reason),
}

impl Found {
    pub(crate) fn sample(self) -> Option<u32> {
        match self {
            Found::Exact(s) | Found::Within(s) => Some(s),
            Found::Nothing(_) => None,
        }
    }
}

/// Flags that make segments without space different from each other.
const KEY_FLAGS: u16 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0 | TcpFlags::ACK.0;

type EmptyKey = (Position, u32, u16);

fn empty_key(s: &Sighting) -> EmptyKey {
    (s.start, s.ack, s.flags & KEY_FLAGS)
}

/// Clocks of one host agree to better than this; sampling and tapping take less than this.
const SLACK_NS: i64 = 100_000;
/// So many certain neighbours on each side say what delays are usual here.
const NEIGHBOURS: usize = 16;

/// What is already certain, for deciding the rest.
struct Certain {
    /// Of each packet that has one: packet, sample, delay.
    pairs: Vec<(u32, u32, Option<i64>)>,
    /// Do samples and packets stand in the same order?
    in_order: bool,
}

struct Matcher<'a> {
    holes_before: &'a [u32],
    packets: &'a [Sighting],
    samples: &'a [Sighting],
    sample_spans: Spans,
    packet_spans: Spans,
    empty_samples: HashMap<EmptyKey, Vec<u32>>,
    empty_packets: HashMap<EmptyKey, Vec<u32>>,
}

/// Finds each packet's sample. Packets come in the order of the capture, samples in that of their serials.
/// `holes_before` has, for each sample, the number of holes in the flow's serials before it.
pub(crate) fn match_direction(packets: &[Sighting], samples: &[Sighting], holes_before: &[u32]) -> Vec<Found> {
    let matcher = Matcher::new(packets, samples, holes_before);
    let has_holes = holes_before.last().is_some_and(|&n| n > 0);
    let mut candidates = Vec::new();
    let mut found = Vec::with_capacity(packets.len());
    let mut open = Vec::new();
    let mut rivals = Vec::new();
    for p in 0..packets.len() as u32 {
        matcher.candidates(p, &mut candidates);
        match candidates.as_slice() {
            [] => found.push(Found::Nothing(Reason::NotSampled)),
            [only] => {
                // several packets that fit one sample may each have had their own, and the others' were lost
                if has_holes {
                    matcher.rivals(p, &mut rivals);
                }
                let sure = !has_holes || rivals.len() <= 1;
                found.push(if sure { matcher.verdict(p, *only) } else { Found::Nothing(Reason::Hole) });
            }
            _ => {
                open.push(p);
                found.push(Found::Nothing(Reason::Ambiguous));
            }
        }
    }
    if open.is_empty() {
        return found;
    }
    let certain = Certain::of(&found, packets, samples);
    for p in open {
        matcher.candidates(p, &mut candidates);
        if let Some(sample) = matcher.decide(p, &candidates, &certain) {
            found[p as usize] = matcher.verdict(p, sample);
        }
    }
    found
}

impl<'a> Matcher<'a> {
    fn new(packets: &'a [Sighting], samples: &'a [Sighting], holes_before: &'a [u32]) -> Matcher<'a> {
        Matcher {
            holes_before,
            packets,
            samples,
            sample_spans: spans(samples),
            packet_spans: spans(packets),
            empty_samples: empties(samples),
            empty_packets: empties(packets),
        }
    }

    /// The samples that could be this packet's, ascending.
    fn candidates(&self, packet: u32, into: &mut Vec<u32>) {
        let p = &self.packets[packet as usize];
        if p.end == p.start {
            into.clear();
            into.extend(self.empty_samples.get(&empty_key(p)).into_iter().flatten());
        } else {
            self.sample_spans.covering(p.start, into);
        }
        into.retain(|&s| {
            let s = &self.samples[s as usize];
            same_or_unknown(p.tsval, s.tsval) && same_kind(p, s)
        });
    }

    /// The packets that are transmissions of the same first byte, with the same timestamp, ascending.
    fn rivals(&self, packet: u32, into: &mut Vec<u32>) {
        let p = &self.packets[packet as usize];
        if p.end == p.start {
            into.clear();
            into.extend(self.empty_packets.get(&empty_key(p)).into_iter().flatten());
        } else {
            self.packet_spans.covering(p.start, into);
        }
        into.retain(|&r| self.packets[r as usize].tsval == p.tsval && same_kind(p, &self.packets[r as usize]));
    }

    /// Among several candidates the one that must be it.
    fn decide(&self, packet: u32, candidates: &[u32], certain: &Certain) -> Option<u32> {
        let at = certain.pairs.partition_point(|&(p, _, _)| p < packet);
        let possible: Vec<u32> =
            candidates.iter().copied().filter(|&s| certain.allows(at, self.delay(packet, s), s)).collect();
        match possible.as_slice() {
            [] => return None,
            [only] => return Some(*only),
            _ => {}
        }
        let mut rivals = Vec::new();
        self.rivals(packet, &mut rivals);
        // as many transmissions as samples: only then is the k-th the k-th, and only if no sample is missing there
        if rivals.len() != candidates.len() || self.hole_around(candidates) {
            return None;
        }
        let k = rivals.iter().position(|&r| r == packet)?;
        possible.contains(&candidates[k]).then(|| candidates[k])
    }

    /// Is a sample missing between the neighbours of these?
    fn hole_around(&self, candidates: &[u32]) -> bool {
        let (Some(&first), Some(&last)) = (candidates.first(), candidates.last()) else { return false };
        let before = self.holes_before[(first as usize).saturating_sub(1)];
        let after = self.holes_before[(last as usize + 1).min(self.holes_before.len() - 1)];
        before != after
    }

    fn delay(&self, packet: u32, sample: u32) -> Option<i64> {
        Some(self.packets[packet as usize].ts_ns? - self.samples[sample as usize].ts_ns?)
    }

    /// How a packet and the sample of its first byte fit together.
    fn verdict(&self, packet: u32, sample: u32) -> Found {
        let (p, s) = (&self.packets[packet as usize], &self.samples[sample as usize]);
        if p.start == s.start && p.end == s.end {
            return Found::Exact(sample);
        }
        // merged on the way: every byte must be of some sample
        let mut covered = s.end;
        let mut more = Vec::new();
        while covered < p.end {
            self.sample_spans.covering(covered, &mut more);
            let next = more
                .iter()
                .map(|&i| &self.samples[i as usize])
                .filter(|s| same_or_unknown(p.tsval, s.tsval))
                .map(|s| s.end)
                .max();
            match next {
                Some(end) => covered = end,
                None => return Found::Nothing(Reason::NotSampled),
            }
        }
        Found::Within(sample)
    }
}

impl Certain {
    fn of(found: &[Found], packets: &[Sighting], samples: &[Sighting]) -> Certain {
        let pairs: Vec<_> = found
            .iter()
            .zip(0u32..)
            .filter_map(|(f, p)| {
                let s = f.sample()?;
                let delay = packets[p as usize].ts_ns.zip(samples[s as usize].ts_ns).map(|(p, s)| p - s);
                Some((p, s, delay))
            })
            .collect();
        let in_order = pairs.is_sorted_by_key(|&(_, s, _)| s);
        Certain { pairs, in_order }
    }

    /// Can this sample be that of a packet that stands before `pairs[at]`?
    fn allows(&self, at: usize, delay: Option<i64>, sample: u32) -> bool {
        let (before, after) = self.pairs.split_at(at);
        if self.in_order {
            let early = before.last().is_some_and(|&(_, s, _)| sample < s);
            let late = after.first().is_some_and(|&(_, s, _)| sample > s);
            if early || late {
                return false;
            }
        }
        let near = before.iter().rev().take(NEIGHBOURS).chain(after.iter().take(NEIGHBOURS));
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for delay in near.filter_map(|&(_, _, d)| d) {
            least = least.min(delay);
            most = most.max(delay);
        }
        match delay {
            // no clock, or nothing to compare with: time says nothing
            None => true,
            Some(_) if least > most => true,
            // half of the usual spread beyond it is still usual
            Some(d) => {
                let slack = SLACK_NS + (most - least) / 2;
                least - slack <= d && d <= most + slack
            }
        }
    }
}

fn spans(of: &[Sighting]) -> Spans {
    Spans::new(of.iter().zip(0u32..).map(|(s, i)| (s.start, s.end, i)))
}

fn empties(of: &[Sighting]) -> HashMap<EmptyKey, Vec<u32>> {
    let mut map: HashMap<EmptyKey, Vec<u32>> = HashMap::new();
    for (s, i) in of.iter().zip(0u32..).filter(|(s, _)| s.end == s.start) {
        map.entry(empty_key(s)).or_default().push(i);
    }
    map
}

fn same_or_unknown(a: Option<u32>, b: Option<u32>) -> bool {
    a.zip(b).is_none_or(|(a, b)| a == b)
}

/// A reset is never a part of data, nor the other way round.
fn same_kind(a: &Sighting, b: &Sighting) -> bool {
    (a.flags ^ b.flags) & TcpFlags::RST.0 == 0
}
