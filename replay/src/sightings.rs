//! Samples and packets of one direction as the matching sees them: alike, with their numbers unwrapped.
//!
//! Owns which samples can be a packet's at all; must not know how they are matched.

use tcpprobe_trace::reader::SampleRow;
use tcpprobe_trace::sample::{Kind, Phase};

use crate::matching::Sighting;
use crate::packet::{Packet, TcpFlags};
use crate::seq::{MOST_WINDOW, Position, Unwrapper, distance, nearest};

/// A packet of a flow: its position among all packets of the capture, and whether the flow's socket sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowPacket {
    pub(crate) index: u32,
    pub(crate) is_out: bool,
}

/// One direction of a flow: which of its samples and packets, and what they look like.
pub(crate) struct Direction {
    pub(crate) of_samples: Vec<u32>,
    pub(crate) of_packets: Vec<u32>,
    pub(crate) sampled: Vec<Sighting>,
    pub(crate) captured: Vec<Sighting>,
    /// CLOCK_MONOTONIC of each sample of what was sent, ns, where none was taken with its stamp.
    pub(crate) unstamped: Option<Vec<i64>>,
}

impl Direction {
    pub(crate) fn new(is_out: bool, samples: &[SampleRow], all: &[Packet], packets: &[FlowPacket]) -> Direction {
        let of_samples: Vec<u32> = (0..samples.len() as u32).filter(|&i| serves(samples, i as usize, is_out)).collect();
        let of_packets: Vec<u32> =
            (0..packets.len() as u32).filter(|&i| packets[i as usize].is_out == is_out).collect();
        let sampled = sightings_of_samples(samples, &of_samples);
        let captured = sightings_of_packets(all, packets, &of_packets, samples, &of_samples, &sampled);
        let is_unstamped = is_out && sampled.iter().all(|s| s.tsval.is_none());
        let unstamped = is_unstamped.then(|| of_samples.iter().map(|&i| samples[i as usize].mono_ns).collect());
        Direction { of_samples, of_packets, sampled, captured, unstamped }
    }
}

/// For each sample the number of holes in the serials before it; the first sample of a flow has the serial 1. `begins`:
/// are these samples the flow's from its first one on?
pub(crate) fn holes_before(samples: &[SampleRow], begins: bool) -> Vec<u32> {
    let mut holes = 0;
    let mut expected = samples.first().filter(|_| !begins).map_or(1, |s| s.serial);
    samples
        .iter()
        .map(|s| {
            holes += u32::from(s.serial > expected);
            expected = s.serial + 1;
            holes
        })
        .collect()
}

/// Can this sample be the one of a packet in this direction?
pub(crate) fn serves(samples: &[SampleRow], i: usize, is_out: bool) -> bool {
    let s = &samples[i];
    if !s.has_segment || s.kind.is_out() != is_out {
        return false;
    }
    match (s.kind, s.phase) {
        (Kind::Send | Kind::Retransmit, Phase::Transmit) => s.error == 0 && !failed(s, samples.get(i + 1)),
        // the kernel's word after a retransmission: its transmit sample is another one
        (Kind::Send | Kind::Retransmit, _) => false,
        // one segment, two samples: the one from before it was processed is taken
        (Kind::Ack, Phase::After) => match samples[..i].iter().rev().find(|b| b.kind == Kind::Ack) {
            Some(b) => b.phase != Phase::Before || (b.seq, b.len, b.ack, b.flags) != (s.seq, s.len, s.ack, s.flags),
            // of a batch the first samples are not there
            None => samples[0].serial == 1,
        },
        // a change of state names a segment where one made it (the SYN-ACK), which may have a sample of its own
        (Kind::State, _) => !i.checked_sub(1).is_some_and(|b| {
            let b = &samples[b];
            b.kind == Kind::Ack && b.phase == Phase::Before && (b.seq, b.ack, b.flags) == (s.seq, s.ack, s.flags)
        }),
        (Kind::Ack, _) => true,
    }
}

/// Did this transmission fail on the host? The kernel says so right after it (`tcp:tcp_retransmit_skb`, since ≈6.17).
/// Some errors are of a retransmission that was not even tried, and say nothing of the transmission before: that one may
/// still be in the queue (EBUSY, `skb_still_in_host_queue`).
pub(crate) fn failed(transmit: &SampleRow, next: Option<&SampleRow>) -> bool {
    // the word is of an attempt that has a sample of its own, or came to none: never of what was sent for the first time
    (transmit.kind, transmit.phase) == (Kind::Retransmit, Phase::Transmit)
        && next.is_some_and(|n| is_refusal(n) && n.seq == transmit.seq && !NOT_TRIED.contains(&n.error))
}

/// Is this the kernel's word on a retransmission that came to no transmission, for want of a route or of memory?
pub(crate) fn never_sent(word: &SampleRow, before: Option<&SampleRow>) -> bool {
    is_refusal(word) && !before.is_some_and(|b| failed(b, Some(word)))
}

fn is_refusal(s: &SampleRow) -> bool {
    (s.kind, s.phase) == (Kind::Retransmit, Phase::After) && s.error != 0
}

/// Errors of `__tcp_retransmit_skb` before it hands anything on, because the first one still waits: EBUSY.
const NOT_TRIED: [i32; 1] = [16];

/// The sequence numbers that a segment takes.
pub(crate) fn space(len: u32, flags: u16) -> i64 {
    let one = |flag: TcpFlags| i64::from(flags & flag.0 != 0);
    i64::from(len) + one(TcpFlags::SYN) + one(TcpFlags::FIN)
}

fn sightings_of_samples(samples: &[SampleRow], of: &[u32]) -> Vec<Sighting> {
    let mut last: Option<(Position, Option<i64>)> = None;
    // how far a socket went where samples are missing: by what it sent, retransmissions make it a little less; by what
    // it expects next
    let went = |s: &SampleRow| if s.kind.is_out() { s.bytes_sent } else { s.rcv_position };
    of.iter()
        .map(|&i| {
            let s = &samples[i as usize];
            let start = match last {
                None => Unwrapper::begin(s.seq).unwrap(s.seq),
                Some((at, bytes)) => {
                    let far = went(s).zip(bytes).map_or(0, |(now, then)| now.saturating_sub(then));
                    nearest(s.seq, at + far.clamp(0, 1 << 50))
                }
            };
            last = Some((start, went(s)));
            Sighting {
                start,
                end: start + space(s.len, s.flags),
                ack: s.ack,
                flags: s.flags,
                tsval: s.tsval,
                ts_ns: Some(s.ts_ns),
                ip_id: s.ip_id,
                place: None,
            }
        })
        .collect()
}

/// Stamps that are no farther off, in ticks, are of one counter: others may have been rewritten on the way.
const NEAR_STAMP: u32 = 1 << 16;

fn sightings_of_packets(
    all: &[Packet],
    packets: &[FlowPacket],
    of: &[u32],
    samples: &[SampleRow],
    of_samples: &[u32],
    sampled: &[Sighting],
) -> Vec<Sighting> {
    // a capture may begin gigabytes after the samples: the first packet is looked for where samples have its stamp, which
    // no clock that is set changes, or were at its time
    let mut unwrapper: Option<Unwrapper> = None;
    let begin = |p: &Packet| {
        let each = || of_samples.iter().zip(sampled);
        let off = |s: &Sighting| Some(distance(p.tsval?, s.tsval?)).filter(|&off| off <= NEAR_STAMP);
        let by_stamp = each().filter_map(|(_, s)| Some((off(s)?, s))).min_by_key(|(off, _)| *off);
        let by_time = || match p.ts_ns {
            Some(t) => each().min_by_key(|(i, _)| samples[**i as usize].ts_ns.abs_diff(t)),
            None => each().next(),
        };
        let near = by_stamp.map(|(_, s)| s).or_else(|| by_time().map(|(_, s)| s));
        near.map_or_else(|| Unwrapper::begin(p.seq), |s| Unwrapper::near(s.start))
    };
    of.iter()
        .map(|&i| {
            let p = &all[packets[i as usize].index as usize];
            let mut from = *unwrapper.get_or_insert_with(|| begin(p));
            let mut start = from.unwrap(p.seq);
            if unwrapper.is_some_and(|u| (start - u.position()).abs() > MOST_WINDOW) {
                // no window is as wide: packets are missing here, and the samples of that time tell how many
                from = begin(p);
                start = from.unwrap(p.seq);
            }
            unwrapper = Some(from);
            Sighting {
                start,
                end: start + space(p.len, p.flags.0),
                ack: p.ack,
                flags: p.flags.0,
                tsval: p.tsval,
                ts_ns: p.ts_ns,
                ip_id: p.ip_id,
                place: p.interface.or(p.sll_type.map(|_| 0)).map(|i| (i, p.sll_type.unwrap_or(0))),
            }
        })
        .collect()
}
