//! Flows that a capture shows under other addresses or sequence numbers than their sockets have: behind a NAT, a load
//! balancer, or a firewall that draws initial sequence numbers of its own.
//!
//! Connections of which at least one end is no recorded socket are compared with the samples: [`index`] finds pairs
//! and how far the numbers would be shifted, [`agreement`] weighs them, [`choice`] decides. Where two answers are
//! possible none is given: a wrong state is worse than none. Must not know files.

mod agreement;
mod choice;
mod connections;
mod index;
mod signatures;

use std::net::SocketAddr;

use tcpprobe_trace::join::Translation;
use tcpprobe_trace::reader::{FlowRow, SampleRow};

use crate::flows::Owners;
use crate::hash::{HashMap, HashMapExt as _};
use crate::packet::{Packet, SackBlocks, TcpFlags};
use crate::seq::distance;
use crate::sightings::FlowPacket;
use agreement::agreement;
use choice::{Choice, Fit, choose};
use connections::{Connection, connections};
use index::Index;

pub(crate) use signatures::Signatures;

/// Flags of segments at whose ends an application's write, or the stream itself, begins or ends.
const MARK: u16 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::PSH.0;

/// Of longer connections this many parts are looked at, evenly spread,
const PARTS: usize = 16;
/// and this many packets of each.
const OF_EACH_PART: usize = 2048;

/// A connection of fewer packets proves nothing.
const FEWEST: usize = 3;
/// So many connections are looked at, those with the most packets.
const MOST_CONNECTIONS: usize = 1 << 16;

/// How far a part of a stream may be from another one, in bytes and in ticks.
const NEAR_NUMBER: u32 = 1 << 24;
const NEAR_STAMP: u32 = 1 << 16;

/// The capture's numbers minus the socket's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Shifts {
    /// Sequence numbers of what the socket sends.
    pub(crate) own: u32,
    /// Of what its peer sends.
    pub(crate) peer: u32,
    /// Timestamp values of what the socket sends: who answers handshakes for another one shifts these too.
    pub(crate) own_stamps: u32,
    /// Of what its peer sends.
    pub(crate) peer_stamps: u32,
}

impl Shifts {
    /// A packet of the capture with the numbers that the flow's socket has for it.
    pub(crate) fn back(self, p: &Packet, is_out: bool) -> Packet {
        let back = Shifts {
            own: self.own.wrapping_neg(),
            peer: self.peer.wrapping_neg(),
            own_stamps: self.own_stamps.wrapping_neg(),
            peer_stamps: self.peer_stamps.wrapping_neg(),
        };
        back.forth(p, is_out)
    }

    /// A packet of the socket with the numbers that the capture has for it.
    pub(crate) fn forth(self, p: &Packet, is_out: bool) -> Packet {
        let (seq, ack) = if is_out { (self.own, self.peer) } else { (self.peer, self.own) };
        let (sent, echoed) = (self.stamps(is_out), self.stamps(!is_out));
        let mut shifted = *p;
        shifted.tsval = p.tsval.map(|t| t.wrapping_add(sent));
        // a zero is no echo (RFC 7323 §3.2)
        shifted.tsecr = p.tsecr.map(|t| if t == 0 { 0 } else { t.wrapping_add(echoed) });
        shifted.seq = p.seq.wrapping_add(seq);
        if p.flags.ack() {
            shifted.ack = p.ack.wrapping_add(ack);
        }
        let blocks: Vec<_> = p.sack.iter().map(|(l, r)| (l.wrapping_add(ack), r.wrapping_add(ack))).collect();
        let sack = SackBlocks::new(&blocks);
        shifted.sack = if p.sack.complete() { sack } else { sack.cut() };
        shifted
    }

    /// Are numbers, and stamps if they are shifted at all, so near to the socket's own that they may be those of another
    /// part of the same stream? Who draws one number anew draws one of these once in 128 times.
    fn are_small(self) -> bool {
        let small = |shift: u32, most: u32| distance(shift, 0) <= most;
        [self.own, self.peer].into_iter().all(|shift| small(shift, NEAR_NUMBER))
            && [self.own_stamps, self.peer_stamps].into_iter().all(|shift| small(shift, NEAR_STAMP))
    }

    fn stamps_are_own(self) -> bool {
        (self.own_stamps, self.peer_stamps) == (0, 0)
    }

    fn stamps(self, is_out: bool) -> u32 {
        if is_out { self.own_stamps } else { self.peer_stamps }
    }
}

/// A flow as a capture shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Position of the flow.
    pub(crate) flow: u32,
    /// Its own address as the capture has it, and its peer's.
    pub(crate) addresses: (SocketAddr, SocketAddr),
    pub(crate) shifts: Shifts,
    /// Its packets under these addresses, in the order of the capture.
    pub(crate) packets: Vec<FlowPacket>,
}

impl Found {
    /// `packets`: how many of its packets are counted.
    pub(crate) fn row(&self, flow: &FlowRow, packets: u64) -> Translation {
        Translation {
            flow_id: flow.id,
            local: self.addresses.0,
            remote: self.addresses.1,
            seq_shift: self.shifts.own,
            peer_seq_shift: self.shifts.peer,
            packets,
        }
    }
}

/// How a capture has a flow by its own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Not at all.
    Not,
    /// There are packets, but none of a direction fits a sample.
    Misfit,
    /// There are packets, and they fit.
    Fits,
}

/// Connections of a capture, ready to be compared with flows.
pub(crate) struct Search<'a> {
    all: &'a [Packet],
    connections: &'a [Connection],
    index: Index<'a>,
}

/// The connections that may be of a flow that is not known by its addresses, and those that are too many to be looked
/// at. `owners` are the flows by address that a packet's sender and receiver are.
pub(crate) fn unknown(all: &[Packet], owners: impl Fn(u32) -> Owners) -> (Vec<Connection>, Vec<Connection>) {
    let mut found = connections(all, owners);
    found.retain(|c| c.packets.len() >= FEWEST);
    found.sort_by_key(|c| std::cmp::Reverse(c.packets.len()));
    let beyond = found.split_off(found.len().min(MOST_CONNECTIONS));
    (found, beyond)
}

impl<'a> Search<'a> {
    pub(crate) fn new(all: &'a [Packet], connections: &'a [Connection]) -> Search<'a> {
        Search { all, connections, index: Index::new(connections, all) }
    }

    /// The connections that agree with a flow; `shown` says how the capture has it by its own addresses.
    pub(crate) fn fits(&self, flow: u32, row: &FlowRow, samples: &[SampleRow], shown: Shown) -> Vec<Fit> {
        let fit = |mut candidate: index::Candidate| {
            let connection = &self.connections[candidate.connection as usize];
            let compare = |shifts: Shifts| {
                let (mut back, mut packets) = (Vec::new(), Vec::new());
                for (packet, index) in some_of(&connection.packets).zip(0u32..) {
                    let is_out = packet.is_out == (candidate.local == 0);
                    back.push(shifts.back(&self.all[packet.index as usize], is_out));
                    packets.push(FlowPacket { index, is_out });
                }
                agreement(row, samples, &back, &packets)
            };
            let mut agreement = compare(candidate.shifts);
            if let Some(shifts) = agreement.with_stamps(candidate.shifts) {
                candidate.shifts = shifts;
                agreement = compare(shifts);
            }
            let proof = agreement.proof(candidate.shifts, row.sampled, samples)?;
            let addresses = connection.addresses(candidate.local);
            // what is sent at a steady pace is like itself, somewhat earlier: only the same stamps tell
            let is_steady = candidate.shifts != Shifts::default() && candidate.shifts.are_small();
            let is_stamped = agreement.is_stamped() && candidate.shifts.stamps_are_own();
            if is_steady && !is_stamped && addresses == (row.local, row.remote) {
                return None;
            }
            let untranslated = match shown {
                Shown::Not => false,
                Shown::Misfit => addresses != (row.local, row.remote),
                Shown::Fits => true,
            };
            Some(Fit { flow, candidate, proof, segments: agreement.segments, untranslated })
        };
        self.index.candidates(flow, samples).into_iter().filter_map(fit).collect()
    }

    /// May some connection be the flow with this signature?
    fn knows(&self, signature: &[u32]) -> bool {
        self.index.has_some(signature)
    }

    /// The flows that were found, by position, and the positions of connections that are one of several.
    pub(crate) fn decide(&self, fits: Vec<Fit>) -> (Vec<Found>, Vec<u32>) {
        let Choice { chosen, undecided } = choose(fits, self.connections);
        let mut found: Vec<Found> = Vec::new();
        let mut at: HashMap<_, usize> = HashMap::new();
        for fit in chosen {
            let connection = &self.connections[fit.candidate.connection as usize];
            let local = fit.candidate.local;
            let addresses = connection.addresses(local);
            let shifts = fit.candidate.shifts;
            let place = *at.entry((fit.flow, addresses, shifts)).or_insert_with(|| {
                found.push(Found { flow: fit.flow, addresses, shifts, packets: Vec::new() });
                found.len() - 1
            });
            let packets = connection.packets.iter();
            found[place]
                .packets
                .extend(packets.map(|p| FlowPacket { index: p.index, is_out: p.is_out == (local == 0) }));
        }
        for f in &mut found {
            f.packets.sort_unstable_by_key(|p| p.index);
        }
        found.sort_unstable_by_key(|f| (f.flow, f.packets.first().map(|p| p.index)));
        (found, undecided)
    }
}

/// Parts of a long connection, all of a shorter one.
fn some_of(packets: &[FlowPacket]) -> impl Iterator<Item = &FlowPacket> {
    let whole = packets.len() <= PARTS * OF_EACH_PART;
    let (step, part) = if whole { (packets.len(), packets.len()) } else { (packets.len() / PARTS, OF_EACH_PART) };
    packets.chunks(step.max(1)).flat_map(move |chunk| chunk.iter().take(part))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
