//! Which packets with a socket's addresses are not its own but another connection's that was not recorded: one before
//! it, or one that took the same ports after the recording had ended.
//!
//! A SYN with a new first number begins another connection, and so does a number that none gets to from where it was
//! (RFC 9293: windows are below 1 GiB). Of the connections that follow each other in a capture those are the socket's
//! that have a sample, or that it could have been. Must not know how samples were found.

use std::borrow::Cow;

use tcpprobe_trace::reader::SampleRow;

use crate::matching::Found;
use crate::packet::Packet;
use crate::rebuild::edges_of;
use crate::seq::{Position, distance};
use crate::sightings::FlowPacket;

/// No window is as wide (RFC 7323 §2.3).
const FAR: u32 = 1 << 30;

/// A flow's own packets, each with what was found for it; the strangers among those of its addresses left out.
pub(crate) fn own<'a>(
    samples: &[SampleRow],
    all: &[Packet],
    packets: &'a [FlowPacket],
    found: &'a [Found],
) -> (Cow<'a, [FlowPacket]>, Cow<'a, [Found]>) {
    let incarnations = incarnations(all, packets);
    let mut is_known = vec![false; incarnations.last().map_or(0, |last| last.0 + 1)];
    for ((i, _), f) in incarnations.iter().zip(found) {
        is_known[*i] |= f.sample().is_some();
    }
    // where no packet has a sample, as with the logs of others, nothing tells whose they are
    if is_known.iter().all(|k| *k) || is_known.iter().all(|k| !k) {
        return (Cow::Borrowed(packets), Cow::Borrowed(found));
    }
    let reach = Reach::of(samples);
    let mut is_other = vec![false; is_known.len()];
    for ((i, begins), packet) in incarnations.iter().zip(packets) {
        let p = &all[packet.index as usize];
        // what comes in may be anybody's; what the socket sends is at its own numbers, but for the answers to others
        let is_far = packet.is_out && !p.flags.rst() && !reach.has(p.seq);
        is_other[*i] |= !is_known[*i] && (*begins || is_far);
    }
    let is_own = |k: &usize| !is_other[incarnations[*k].0];
    let kept: Vec<usize> = (0..packets.len()).filter(is_own).collect();
    (kept.iter().map(|&k| packets[k]).collect(), kept.iter().map(|&k| found[k]).collect())
}

/// For each packet which of the connections that follow each other it is of, and whether its SYN began that.
fn incarnations(all: &[Packet], packets: &[FlowPacket]) -> Vec<(usize, bool)> {
    let mut number = 0;
    // by direction: where the connection is, and its SYN's number
    let mut at: [Option<u32>; 2] = [None; 2];
    let mut syn: [Option<u32>; 2] = [None; 2];
    let mut first = true;
    packets
        .iter()
        .map(|packet| {
            let p = &all[packet.index as usize];
            let (sent, acked) = (usize::from(packet.is_out), usize::from(!packet.is_out));
            let opens = p.flags.syn() && !p.flags.ack();
            let is_far = |n: u32, of: usize| at[of].is_some_and(|at| distance(n, at) >= FAR);
            let begins = opens && syn[sent] != Some(p.seq);
            let is_new = begins || is_far(p.seq, sent) || (p.flags.ack() && is_far(p.ack, acked));
            if is_new {
                number += usize::from(!first);
                (at, syn) = ([None; 2], [None; 2]);
            }
            first = false;
            at[sent] = Some(p.seq);
            if p.flags.ack() {
                at[acked] = Some(p.ack);
            }
            if opens {
                syn[sent] = Some(p.seq);
            }
            (number, begins)
        })
        .collect()
}

/// The numbers that a socket was at, by its samples.
struct Reach {
    low: Position,
    high: Position,
}

impl Reach {
    fn of(samples: &[SampleRow]) -> Reach {
        let edges = edges_of(samples);
        let low = edges.iter().map(|e| e.una).min().unwrap_or(Position::MIN);
        let high = edges.iter().map(|e| e.nxt).max().unwrap_or(Position::MAX);
        Reach { low: low - i64::from(FAR), high: high + i64::from(FAR) }
    }

    /// Can the socket have been at this number?
    fn has(&self, seq: u32) -> bool {
        let room = self.high - self.low;
        i64::from(seq.wrapping_sub(self.low.seq())) <= room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_goes_around_the_circle() {
        let reach = Reach { low: 0xffff_ff00.into(), high: 0x1_0000_0100.into() };
        assert!(reach.has(0xffff_ff00) && reach.has(0) && reach.has(0x100));
        assert!(!reach.has(0x101) && !reach.has(0xffff_feff));
        assert!(Reach { low: (-5).into(), high: (1 << 33).into() }.has(77), "more than a lap");
    }
}
