//! Sightings of one packet: on several interfaces of a host, before and behind a tunnel, or twice after the network
//! doubled it. Numbered in the order of the capture: 0 the first, 1 the second, …
//!
//! Owns when two packets are one; must not know how samples were found.

use crate::ends::Ends;
use crate::hash::{HashMap, HashMapExt as _};
use crate::matching::{COPY_NS, Found};
use crate::packet::Packet;
use crate::sightings::{FlowPacket, space};

/// Does a capture show packets more than once, as the one of a mirrored port does, without a word on where it saw
/// them? A network that doubles some of them is something else. Duplicate ACKs can be alike and close; data is not
/// sent twice at once.
pub(crate) fn are_usual(all: &[Packet]) -> bool {
    let (mut count, mut again) = (0u64, 0u64);
    // of many packets some tell; those that look alike have the same number
    let is_asked = |p: &&Packet| all.len() < MANY || p.seq.wrapping_mul(0x9e37_79b9) >> 29 == 0;
    let looks = |p: &Packet| (Ends::of(p), p.seq, p.ack, p.len, p.flags, p.tsval, p.ip_id);
    // the latest of each look, and not all that are close: a file of coarse times has any number of these
    let mut latest: HashMap<_, &Packet> = HashMap::new();
    for p in all.iter().filter(|p| p.len > 0 && p.interface.is_none() && p.sll_type.is_none()).filter(is_asked) {
        count += 1;
        again += u64::from(latest.insert(looks(p), p).is_some_and(|before| are_close(p, before)));
    }
    again * 4 > count
}

/// Of so many packets one in eight is asked whether it was seen before.
const MANY: usize = 1 << 14;

fn are_close(a: &Packet, b: &Packet) -> bool {
    a.ts_ns.zip(b.ts_ns).is_some_and(|(a, b)| a.abs_diff(b) <= COPY_NS as u64)
}

/// What two sightings have in common.
type Looks = (bool, u32, u32, u32, u16, Option<u32>, Option<u32>, Option<u16>);

/// Sightings of one packet among those that look alike.
struct Alike<'a> {
    /// Its sample, where the first of them has one.
    sample: Option<u32>,
    packets: Vec<&'a Packet>,
}

/// A packet of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) seq: u32,
    /// So many numbers it takes.
    pub(crate) space: u32,
    pub(crate) ack: u32,
}

/// So many packets of a sample are looked at: 64 KiB are 1,366 segments of the smallest MSS (48 bytes), and no network
/// cuts into single bytes.
const MOST_PIECES: usize = 4096;

impl Segment {
    /// How many sightings of it came before, by the packets of its sample from the latest one back, each with how many
    /// came before it.
    pub(crate) fn seen(self, before: impl Iterator<Item = (Segment, u32)>) -> u32 {
        let mut seen = 0;
        for (earlier, of_earlier) in before.take(MOST_PIECES) {
            seen += u32::from(match self.space {
                0 => earlier == self,
                // a byte of one transmission is seen again
                _ => self.seq.wrapping_sub(earlier.seq) < earlier.space,
            });
            // what came before this one was counted with it
            if earlier == self {
                return seen + of_earlier;
            }
        }
        seen
    }
}

/// A packet that has a sample.
struct Sampled {
    segment: Segment,
    /// So many sightings of it came before.
    seen: u32,
    /// The packet of this sample that came before.
    before: Option<usize>,
}

/// Of so many that look alike the latest are compared: a flood of them does not take its square.
const MOST_COMPARED: usize = 64;

/// Where those begin that are compared, of so many.
fn compared(of: usize) -> usize {
    of.saturating_sub(MOST_COMPARED)
}

/// For each packet of a flow how many sightings of it came before. `usual`: does the capture show packets more than
/// once, without a word on where ([`are_usual`])?
pub(crate) fn number(all: &[Packet], packets: &[FlowPacket], found: &[Found], usual: bool) -> Vec<u32> {
    let mut of_samples: Vec<Sampled> = Vec::new();
    let mut latest: Vec<Option<usize>> =
        vec![None; found.iter().filter_map(|f| f.sample()).max().map_or(0, |s| s as usize + 1)];
    // of each look that a packet without a sample has, all that have it
    let unsampled = packets.iter().zip(found).filter(|(_, f)| f.sample().is_none());
    let mut alike: HashMap<Looks, Vec<Alike<'_>>> =
        unsampled.map(|(packet, _)| (looks(&all[packet.index as usize], packet.is_out), Vec::new())).collect();
    let mut number = Vec::with_capacity(packets.len());
    for (packet, f) in packets.iter().zip(found) {
        let p = &all[packet.index as usize];
        number.push(match f.sample() {
            Some(s) => {
                let seen = if alike.is_empty() { None } else { alike.get_mut(&looks(p, packet.is_out)) };
                if let Some(seen) = seen {
                    let from = compared(seen.len());
                    match seen[from..].iter_mut().find(|one| one.sample == Some(s)) {
                        Some(one) => one.packets.push(p),
                        None => seen.push(Alike { sample: Some(s), packets: vec![p] }),
                    }
                }
                let segment = Segment { seq: p.seq, space: space(p.len, p.flags.0) as u32, ack: p.ack };
                let before = latest[s as usize].replace(of_samples.len());
                let earlier = std::iter::successors(before.map(|at| &of_samples[at]), |e| Some(&of_samples[e.before?]));
                let seen = segment.seen(earlier.map(|e| (e.segment, e.seen)));
                of_samples.push(Sampled { segment, seen, before });
                seen
            }
            None => {
                let seen = alike.entry(looks(p, packet.is_out)).or_default();
                let is_one = |one: &&mut Alike<'_>| {
                    one.packets[compared(one.packets.len())..].iter().all(|q| are_one(p, q, usual))
                };
                let from = compared(seen.len());
                match seen[from..].iter_mut().find(is_one) {
                    Some(one) => {
                        one.packets.push(p);
                        one.packets.len() as u32 - 1
                    }
                    None => {
                        seen.push(Alike { sample: None, packets: vec![p] });
                        0
                    }
                }
            }
        });
    }
    number
}

/// Of each packet which one it is seen again of, by these numbers of sightings; itself, where it is the first of those that
/// have a sample, or of those that have none.
pub(crate) fn firsts(all: &[Packet], packets: &[FlowPacket], found: &[Found], copies: &[u32]) -> Vec<usize> {
    let mut firsts: Vec<usize> = (0..packets.len()).collect();
    if copies.iter().all(|&c| c == 0) {
        return firsts;
    }
    let mut latest: HashMap<(bool, Looks), usize> = HashMap::new();
    for (i, (packet, &copy)) in packets.iter().zip(copies).enumerate() {
        let looks = (found[i].sample().is_some(), looks(&all[packet.index as usize], packet.is_out));
        match latest.get(&looks) {
            Some(&first) if copy > 0 => firsts[i] = first,
            _ => _ = latest.insert(looks, i),
        }
    }
    firsts
}

fn looks(p: &Packet, is_out: bool) -> Looks {
    (is_out, p.seq, p.ack, p.len, p.flags.0, p.tsval, p.tsecr, p.ip_id)
}

/// Are two packets that look alike one? Duplicate ACKs, and a SYN-ACK that was asked for twice, can be alike and close.
fn are_one(a: &Packet, b: &Packet, usual: bool) -> bool {
    let counted = a.ip_id.is_some_and(|id| id != 0);
    counted
        || match a.interface.zip(b.interface) {
            // a place shows a packet once
            Some((p, q)) => (p, a.sll_type) != (q, b.sll_type) && (a.tsval.is_some() || are_close(a, b)),
            // a cooked capture does not always say where
            None => (usual || a.sll_type.is_some()) && are_close(a, b),
        }
}

#[cfg(test)]
mod tests {
    use tcpprobe_trace::join::Reason;

    use super::*;
    use crate::translation::testing::{ACK, packet};

    fn at(seq: u32, ts_ns: i64) -> Packet {
        Packet { ts_ns: Some(ts_ns), ..packet("10.0.0.1:1", "10.0.0.2:2", seq, 5, 100, ACK) }
    }

    #[test]
    fn a_mirror_shows_everything_twice_and_what_is_sent_again_later_is_no_copy() {
        let mirrored: Vec<Packet> = (0..8).flat_map(|i| [at(i, i.into()), at(i, i64::from(i) + COPY_NS)]).collect();
        assert!(are_usual(&mirrored));
        let again: Vec<Packet> = (0..8).flat_map(|i| [at(i, i.into()), at(i, i64::from(i) + COPY_NS + 1)]).collect();
        assert!(!are_usual(&again));
    }

    #[test]
    fn a_twin_of_which_nothing_tells_whose_it_is_is_seen_again_nevertheless() {
        let ack = |interface: u32, ts_ns: i64| Packet {
            interface: Some(interface),
            tsval: Some(7),
            ..Packet { ts_ns: Some(ts_ns), ..packet("10.0.0.1:1", "10.0.0.2:2", 1, 5, 0, ACK) }
        };
        // two duplicate ACKs, alike in everything, on their way through a router
        let all = [ack(1, 0), ack(1, 1), ack(2, 2), ack(2, 3)];
        let packets: Vec<FlowPacket> = (0..4).map(|index| FlowPacket { index, is_out: true }).collect();
        let ambiguous = Found::Nothing(Reason::Ambiguous);
        let found = [Found::Exact(0), Found::Exact(1), ambiguous, ambiguous];
        assert_eq!(number(&all, &packets, &found, false), [0, 0, 1, 1]);
    }

    #[test]
    fn a_flood_of_one_packet_does_not_take_the_square_of_the_packets() {
        let all = vec![at(1, 0); 200_000];
        let packets: Vec<FlowPacket> = (0..200_000).map(|index| FlowPacket { index, is_out: true }).collect();
        for found in [Found::Exact(0), Found::Nothing(Reason::NotSampled)] {
            for usual in [false, true] {
                let numbers = number(&all, &packets, &vec![found; all.len()], usual);
                let is_copy = found.sample().is_some() || usual;
                assert_eq!(numbers.last(), Some(&if is_copy { 199_999 } else { 0 }), "{found:?}, {usual}");
            }
        }
    }

    #[test]
    fn times_of_a_whole_second_do_not_take_the_square_of_the_packets() {
        // each compared with each would be 2 × 10¹⁰
        let all: Vec<Packet> = (0..200_000).map(|i| at(i, 0)).collect();
        assert!(!are_usual(&all));
    }
}
