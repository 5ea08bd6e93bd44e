//! What is one transmission although the capture shows several packets: a segment that was cut on its way out, and
//! what was seen more than once.
//!
//! Owns which packets these are where no sample covers them; must not know the sender's state.

use crate::order::Evidence;
use crate::packet::{Packet, TcpFlags};

/// Farther apart, pieces are not told from transmissions of their own.
const APART_NS: i64 = 10_000;
/// TCP does not send twice within this.
const AT_ONCE_NS: i64 = 100;

/// Of each packet the first one of its transmission.
pub(crate) fn begins(evidence: Evidence<'_>) -> Vec<usize> {
    let mut begins = evidence.firsts.to_vec();
    let Some(gap_ns) = widest_gap(evidence) else { return begins };
    let mut last: Option<usize> = None;
    for (i, packet) in evidence.packets.iter().enumerate() {
        if !packet.is_out || evidence.firsts[i] != i {
            continue;
        }
        if let Some(before) = last {
            let (p, first) = (evidence.packet(before), evidence.packet(begins[before]));
            if evidence.found[i].sample().is_none() && goes_on(p, evidence.packet(i), first.len, gap_ns) {
                begins[i] = begins[before];
            }
        }
        last = Some(i);
    }
    // what is seen again is where its first sighting is
    for i in 0..begins.len() {
        begins[i] = begins[begins[i]];
    }
    begins
}

/// The widest gap between two pieces of one sampled segment, doubled. Where the capture shows none: closer to each other
/// than TCP sends, if its times tell. `None`: they do not.
fn widest_gap(evidence: Evidence<'_>) -> Option<i64> {
    let sent = (0..evidence.packets.len()).filter(|&i| evidence.packets[i].is_out && evidence.firsts[i] == i);
    let sent: Vec<usize> = sent.collect();
    let pieces = sent.windows(2).filter(|w| {
        let own = evidence.found[w[0]].sample();
        own.is_some() && own == evidence.found[w[1]].sample()
    });
    let gaps = pieces.filter_map(|w| evidence.packet(w[1]).ts_ns?.checked_sub(evidence.packet(w[0]).ts_ns?));
    let widest = gaps.filter(|&gap| gap <= APART_NS).max().map(|gap| gap.saturating_mul(2));
    let fine = || sent.iter().any(|&i| evidence.packet(i).ts_ns.is_some_and(|t| t % 1_000 != 0));
    widest.or_else(|| fine().then_some(AT_ONCE_NS))
}

/// Is a packet the next piece of what another one is a piece of? All but the last are as long as the first, and the
/// last alone has PSH or FIN (`tcp_gso_segment`).
fn goes_on(p: &Packet, next: &Packet, first_len: u32, gap_ns: i64) -> bool {
    let is_last = p.flags.0 & (TcpFlags::FIN.0 | TcpFlags::PSH.0) != 0;
    let ids = p.ip_id.zip(next.ip_id);
    p.len == first_len
        && (1..=first_len).contains(&next.len)
        && !is_last
        && next.seq == p.seq.wrapping_add(p.len)
        && (next.ack, next.tsval, next.tsecr) == (p.ack, p.tsval, p.tsecr)
        && ids.is_none_or(|(p, next)| next == p.wrapping_add(1))
        && p.ts_ns
            .zip(next.ts_ns)
            .is_some_and(|(p, next)| next.checked_sub(p).is_some_and(|gap| (0..=gap_ns).contains(&gap)))
}
