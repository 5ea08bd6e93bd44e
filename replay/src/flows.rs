//! Which recorded sockets a packet belongs to.
//!
//! The addresses and ports say which sockets it may be; where several had the same ones (a port used again, the same
//! addresses in two namespaces), the sequence numbers do: those of two connections are a random distance apart.

use std::collections::HashMap;
use std::net::SocketAddr;

use tcpprobe_trace::reader::{FlowRow, SampleRow};

use crate::packet::Packet;
use crate::seq::distance;
use crate::sightings::FlowPacket;

/// Farther than this from what a connection was doing, a packet is not of it (RFC 9293: windows are below 1 GiB).
const FAR: u32 = 1 << 30;

/// A packet is captured no longer than this before its flow's first sample or after the last, queues left aside.
const NEAR_NS: i64 = 1_000_000;

/// Local and remote address of a socket.
type Key = (SocketAddr, SocketAddr);

/// Where a connection is in both directions' sequence spaces.
#[derive(Clone, Copy, Debug)]
struct Whereabouts {
    own: u32,
    peer: u32,
}

/// Deals out packets to flows.
pub(crate) struct Dealer<'a> {
    flows: &'a [FlowRow],
    by_address: HashMap<Key, Vec<u32>>,
    whereabouts: Vec<Option<Whereabouts>>,
    /// Each flow's packets in the order of the capture.
    pub(crate) dealt: Vec<Vec<FlowPacket>>,
}

impl<'a> Dealer<'a> {
    pub(crate) fn new(flows: &'a [FlowRow]) -> Dealer<'a> {
        let mut by_address: HashMap<Key, Vec<u32>> = HashMap::new();
        for (flow, i) in flows.iter().zip(0u32..) {
            by_address.entry((flow.local, flow.remote)).or_default().push(i);
        }
        let dealt = vec![Vec::new(); flows.len()];
        Dealer { flows, by_address, whereabouts: vec![None; flows.len()], dealt }
    }

    /// Flows whose addresses others have too: their samples are needed to tell them apart.
    pub(crate) fn shared(&self) -> impl Iterator<Item = u32> {
        self.by_address.values().filter(|f| f.len() > 1).flatten().copied()
    }

    /// Gives a packet to the sockets that it belongs to. `samples` has those of [`Self::shared`].
    pub(crate) fn deal(&mut self, index: u32, packet: &Packet, samples: &HashMap<u32, Vec<SampleRow>>) {
        let source = SocketAddr::new(packet.src, packet.src_port);
        let destination = SocketAddr::new(packet.dst, packet.dst_port);
        for (key, is_out) in [((source, destination), true), ((destination, source), false)] {
            let flow = match self.by_address.get(&key).map(Vec::as_slice) {
                None => None,
                Some([only]) => Some(*only),
                Some(several) => nearest(several, packet, is_out, &mut self.whereabouts, self.flows, samples),
            };
            if let Some(flow) = flow {
                self.dealt[flow as usize].push(FlowPacket { index, is_out });
            }
        }
    }
}

/// Of several flows with the same addresses the one that was at these sequence numbers.
fn nearest(
    several: &[u32],
    packet: &Packet,
    is_out: bool,
    whereabouts: &mut [Option<Whereabouts>],
    flows: &[FlowRow],
    samples: &HashMap<u32, Vec<SampleRow>>,
) -> Option<u32> {
    let (own, peer) = if is_out { (packet.seq, packet.ack) } else { (packet.ack, packet.seq) };
    // a SYN has no acknowledgment number: only its sender's space can be compared
    let (has_own, has_peer) = if is_out { (true, packet.flags.ack()) } else { (packet.flags.ack(), true) };
    let mut best: Option<(u32, (bool, bool, u32))> = None;
    for &flow in several {
        let place = &mut whereabouts[flow as usize];
        let at = match place {
            Some(at) => *at,
            None => {
                let Some(start) = samples.get(&flow).and_then(|s| start(s, packet.ts_ns)) else { continue };
                *place = Some(start);
                start
            }
        };
        let off = [(has_own, own, at.own), (has_peer, peer, at.peer)];
        let far = off.iter().filter(|o| o.0).map(|o| distance(o.1, o.2)).max().unwrap_or(u32::MAX);
        if far >= FAR {
            continue;
        }
        // of several that fit, the one that lived at the time; where none did, clocks cannot be compared
        let row = &flows[flow as usize];
        let lived = packet.ts_ns.is_some_and(|t| row.first_ns - NEAR_NS <= t && t <= row.last_ns + NEAR_NS);
        // the first packet of a connection has its very number
        let rank = (far > 0 || !packet.flags.syn(), !lived, far);
        if best.is_none_or(|(_, r)| rank < r) {
            best = Some((flow, rank));
        }
    }
    let flow = best?.0;
    if let Some(at) = &mut whereabouts[flow as usize] {
        if has_own {
            at.own = own;
        }
        if has_peer {
            at.peer = peer;
        }
    }
    Some(flow)
}

/// Where a connection was at a time, by its nearest sample that names a segment.
fn start(samples: &[SampleRow], ts_ns: Option<i64>) -> Option<Whereabouts> {
    let named = samples.iter().filter(|s| s.has_segment && s.flags & 0x10 != 0);
    let nearest = match ts_ns {
        Some(t) => named.min_by_key(|s| s.ts_ns.abs_diff(t)),
        None => named.min_by_key(|s| s.serial),
    }?;
    let (own, peer) = if nearest.kind.is_out() { (nearest.seq, nearest.ack) } else { (nearest.ack, nearest.seq) };
    Some(Whereabouts { own, peer })
}
