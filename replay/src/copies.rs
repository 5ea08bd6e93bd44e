//! Sightings of one packet: on several interfaces of a host, before and behind a tunnel, or twice after the network
//! doubled it. Numbered in the order of the capture: 0 the first, 1 the second, …
//!
//! Owns when two packets are one; must not know how samples were found.

use std::collections::HashMap;

use crate::matching::{COPY_NS, Found};
use crate::packet::Packet;
use crate::sightings::{FlowPacket, space};

/// What two sightings have in common.
type Looks = (bool, u32, u32, u32, u16, Option<u32>, Option<u32>, Option<u16>);

/// For each packet of a flow how many sightings of it came before.
pub(crate) fn number(all: &[Packet], packets: &[FlowPacket], found: &[Found]) -> Vec<u32> {
    // first number, length, acknowledgment number of each packet of a sample
    let mut of_samples: HashMap<u32, Vec<(u32, u32, u32)>> = HashMap::new();
    let mut unsampled: HashMap<Looks, Vec<&Packet>> = HashMap::new();
    let mut number = Vec::with_capacity(packets.len());
    for (packet, f) in packets.iter().zip(found) {
        let p = &all[packet.index as usize];
        let len = space(p.len, p.flags.0) as u32;
        number.push(match f.sample() {
            Some(s) => {
                let seen = of_samples.entry(s).or_default();
                let same = |&&(seq, of, ack): &&(u32, u32, u32)| match len {
                    0 => (seq, of, ack) == (p.seq, 0, p.ack),
                    // a byte of one transmission is seen again
                    _ => p.seq.wrapping_sub(seq) < of,
                };
                let before = seen.iter().filter(same).count();
                seen.push((p.seq, len, p.ack));
                before as u32
            }
            None => {
                let looks = (packet.is_out, p.seq, p.ack, p.len, p.flags.0, p.tsval, p.tsecr, p.ip_id);
                let seen = unsampled.entry(looks).or_default();
                let before = seen.iter().filter(|q| are_one(p, q)).count();
                seen.push(p);
                before as u32
            }
        });
    }
    number
}

/// Are two packets that look alike one?
fn are_one(a: &Packet, b: &Packet) -> bool {
    let places = a.interface.zip(b.interface);
    let counted = a.ip_id.is_some_and(|id| id != 0);
    let close = a.ts_ns.zip(b.ts_ns).is_some_and(|(a, b)| a.abs_diff(b) <= COPY_NS as u64);
    counted || close || places.is_some_and(|(p, q)| (p, a.sll_type) != (q, b.sll_type) && a.tsval.is_some())
}
