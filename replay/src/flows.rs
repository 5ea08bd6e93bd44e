//! Which recorded sockets a packet belongs to.
//!
//! The addresses and ports say which sockets it may be; where several had the same ones (a port used again, the same
//! addresses in two namespaces), the sequence numbers do: those of two connections are a random distance apart.

use tcpprobe_trace::reader::{FlowRow, SampleRow};
use tcpprobe_trace::sample::Phase;

use crate::ends::Ends;
use crate::hash::{HashMap, HashMapExt as _};
use crate::packet::{Packet, TcpFlags};
use crate::seq::distance;

/// Farther than this from what a connection was doing, a packet is not of it (RFC 9293: windows are below 1 GiB).
const FAR: u32 = 1 << 30;

/// Two connections whose numbers are a random distance apart are hardly ever as near as this to each other, in both
/// directions, while most packets are to the one before.
const NEAR: u32 = 1 << 20;

/// A packet is captured no longer than this before its flow's first sample or after the last, queues left aside.
const NEAR_NS: i64 = 1_000_000;

/// The flows, by position, whose sockets a packet's sender and receiver are.
pub(crate) type Owners = [Option<u32>; 2];

/// Where a connection is in both directions' sequence spaces, as far as is known.
#[derive(Clone, Copy, Debug)]
struct Whereabouts {
    own: Option<u32>,
    peer: Option<u32>,
    /// The numbers of the two SYNs.
    began: (Option<u32>, Option<u32>),
    /// Has one of these come by?
    seen_to_begin: bool,
}

/// Deals out packets to flows.
pub(crate) struct Dealer<'a> {
    flows: &'a [FlowRow],
    /// By local and remote address.
    by_address: HashMap<Ends, Vec<u32>>,
    whereabouts: Vec<Option<Whereabouts>>,
    /// How far the capture's clock is ahead, as the latest SYN tells, ns.
    ahead_ns: i64,
}

impl<'a> Dealer<'a> {
    pub(crate) fn new(flows: &'a [FlowRow]) -> Dealer<'a> {
        let mut by_address: HashMap<Ends, Vec<u32>> = HashMap::new();
        for (flow, i) in flows.iter().zip(0u32..) {
            by_address.entry(Ends::new(flow.local, flow.remote)).or_default().push(i);
        }
        Dealer { flows, by_address, whereabouts: vec![None; flows.len()], ahead_ns: 0 }
    }

    /// Flows whose addresses others have too: their samples are needed to tell them apart.
    pub(crate) fn shared(&self) -> impl Iterator<Item = u32> {
        self.by_address.values().filter(|f| f.len() > 1).flatten().copied()
    }

    /// The sockets that a packet belongs to. `samples` has those of [`Self::shared`].
    pub(crate) fn deal(&mut self, packet: &Packet, samples: &HashMap<u32, Vec<SampleRow>>) -> Owners {
        let ends = Ends::of(packet);
        let by_address = std::mem::take(&mut self.by_address);
        let owners = [(ends, true), (ends.reversed(), false)].map(|(key, is_out)| {
            match by_address.get(&key).map(Vec::as_slice) {
                None => None,
                Some([only]) => Some(*only),
                Some(several) => self.nearest(several, packet, is_out, samples),
            }
        });
        self.by_address = by_address;
        owners
    }

    /// Of several flows with the same addresses the one that was at these sequence numbers.
    fn nearest(
        &mut self,
        several: &[u32],
        packet: &Packet,
        is_out: bool,
        samples: &HashMap<u32, Vec<SampleRow>>,
    ) -> Option<u32> {
        // a SYN has no acknowledgment number: only its sender's space can be compared
        let (seq, ack) = (Some(packet.seq), packet.flags.ack().then_some(packet.ack));
        let (own, peer) = if is_out { (seq, ack) } else { (ack, seq) };
        let at_ns = packet.ts_ns.map(|t| t.saturating_sub(self.ahead_ns));
        let begun = || several.iter().filter(|f| self.whereabouts[**f as usize].is_some_and(|at| at.seen_to_begin));
        let soonest_end_ns = begun().map(|f| self.flows[*f as usize].last_ns).min();
        let latest_begin_ns = begun().map(|f| self.flows[*f as usize].first_ns).max();
        let mut best: Option<(u32, ([bool; 4], u32))> = None;
        for &flow in several {
            let place = &mut self.whereabouts[flow as usize];
            let at = match place {
                Some(at) => *at,
                None => {
                    let Some(start) = samples.get(&flow).and_then(|s| start(s, at_ns)) else { continue };
                    *place = Some(start);
                    start
                }
            };
            let both = [own.zip(at.own), peer.zip(at.peer)];
            let far = both.into_iter().flatten().map(|(a, b)| distance(a, b)).max().unwrap_or(u32::MAX);
            if far >= FAR {
                continue;
            }
            // of several that fit, none that took the ports later and whose SYN has not come by, nor one that had ended
            // before another one's that has
            let row = &self.flows[flow as usize];
            let is_to_come = !at.seen_to_begin && soonest_end_ns.is_some_and(|end| end < row.first_ns);
            let is_past = latest_begin_ns.is_some_and(|begin| row.last_ns < begin);
            // and the one that lived at the time, as far as a clock tells that may be wrong by seconds; where none did,
            // clocks cannot be compared
            let lived = at_ns
                .is_some_and(|t| row.first_ns.saturating_sub(NEAR_NS) <= t && t <= row.last_ns.saturating_add(NEAR_NS));
            // the first packets of a connection have its very numbers
            let first = if is_out { at.began.0 } else { at.began.1 };
            let begins = packet.flags.syn() && first == Some(packet.seq);
            let rank = ([!begins, far >= NEAR, is_to_come || is_past, !lived], far);
            if best.is_none_or(|(_, r)| rank < r) {
                best = Some((flow, rank));
            }
        }
        let (flow, ([goes_on, ..], _)) = best?;
        if let Some(at) = &mut self.whereabouts[flow as usize] {
            at.own = own.or(at.own);
            at.peer = peer.or(at.peer);
            at.seen_to_begin |= !goes_on;
            if let (true, Some(ahead)) = (!goes_on && is_out, samples.get(&flow).and_then(|s| ahead_ns(s, packet))) {
                self.ahead_ns = ahead;
            }
        }
        Some(flow)
    }
}

/// Where a connection was at a time, by its nearest sample that names a segment; one with both numbers, if there is any.
fn start(samples: &[SampleRow], ts_ns: Option<i64>) -> Option<Whereabouts> {
    let has_ack = |s: &&SampleRow| s.flags & TcpFlags::ACK.0 != 0;
    let named = || samples.iter().filter(|s| s.has_segment);
    let nearest = |of: &mut dyn Iterator<Item = &'_ SampleRow>| match ts_ns {
        Some(t) => of.min_by_key(|s| s.ts_ns.abs_diff(t)).copied(),
        None => of.min_by_key(|s| s.serial).copied(),
    };
    let nearest = nearest(&mut named().filter(has_ack)).or_else(|| nearest(&mut named()))?;
    let (seq, ack) = (Some(nearest.seq), has_ack(&&nearest).then_some(nearest.ack));
    let (own, peer) = if nearest.kind.is_out() { (seq, ack) } else { (ack, seq) };
    Some(Whereabouts { own, peer, began: began(samples), seen_to_begin: false })
}

/// How far the capture's clock is ahead, by a SYN: if it was sent several times, its timestamps say which one this is.
fn ahead_ns(samples: &[SampleRow], syn: &Packet) -> Option<i64> {
    let is_it = |s: &&SampleRow| {
        let sent = s.has_segment && s.kind.is_out() && s.phase == Phase::Transmit;
        sent && (s.seq, s.flags & TcpFlags::SYN.0) == (syn.seq, TcpFlags::SYN.0)
            && s.tsval.zip(syn.tsval).is_none_or(|(a, b)| a == b)
    };
    let mut of = samples.iter().filter(is_it);
    let only = of.next().filter(|_| of.next().is_none())?;
    syn.ts_ns?.checked_sub(only.ts_ns)
}

/// The numbers of a connection's own SYN and of its peer's, as far as its first samples tell.
fn began(samples: &[SampleRow]) -> (Option<u32>, Option<u32>) {
    let syn = |is_out: bool| {
        let is_syn = |s: &&SampleRow| s.has_segment && s.flags & TcpFlags::SYN.0 != 0 && s.kind.is_out() == is_out;
        samples.iter().find(is_syn).map(|s| s.seq)
    };
    // what a socket that listens has made shows when the handshake is over: what has begun earlier is at no SYN's numbers
    let made = samples.first().filter(|s| s.serial == 1);
    let own = made.and_then(|s| s.snd_una).map(|una| una.wrapping_sub(1));
    let received = samples.iter().find(|s| made.is_some() && s.has_segment && !s.kind.is_out());
    (syn(true).or(own), syn(false).or(received.map(|s| s.seq.wrapping_sub(1))))
}
