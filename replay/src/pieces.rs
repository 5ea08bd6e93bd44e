//! What is one transmission although the capture shows several packets: a segment that was cut on its way out, and
//! what was seen more than once.
//!
//! Owns which packets these are where no sample covers them; must not know the sender's state.

use crate::order::Evidence;
use crate::packet::{Packet, TcpFlags};
use crate::rebuild::Edges;
use crate::seq::nearest;

/// Farther apart, pieces are not told from transmissions of their own by time.
const APART_NS: i64 = 10_000;
/// No segment is longer (`GSO_MAX_SIZE`, BIG TCP).
const LONGEST: u32 = 8 * 65_536;
/// TCP does not send twice within this.
const AT_ONCE_NS: i64 = 100;

/// Of each packet the first one of its transmission.
pub(crate) fn begins(evidence: Evidence<'_>) -> Vec<usize> {
    let mut begins = evidence.firsts.to_vec();
    let sent: Vec<usize> =
        (0..begins.len()).filter(|&i| evidence.packets[i].is_out && evidence.firsts[i] == i).collect();
    let gaps = Gaps::new(evidence, &sent);
    let mut rooms = Rooms::new(evidence);
    // the packets up to the first one that is none of these
    let mut from = 0;
    while from < sent.len() {
        let first = evidence.packet(sent[from]);
        let room = rooms.at(evidence, sent[from]).unwrap_or(LONGEST);
        let goes_on = |w: &[usize], gap_ns: Option<i64>| {
            evidence.found[w[1]].sample().is_none()
                && room.min(LONGEST) >= end_from(first, evidence.packet(w[1]))
                && gap_ns.is_some_and(|gap| goes_on(evidence.packet(w[0]), evidence.packet(w[1]), first.len, gap))
        };
        let up_to = |gap_ns| from + 1 + sent[from..].windows(2).take_while(|w| goes_on(w, gap_ns)).count();
        let mut to = up_to(gaps.pushed_ns);
        if !is_pushed(evidence.packet(sent[to - 1])) {
            to = up_to(gaps.close_ns);
        }
        for &i in &sent[from..to] {
            begins[i] = sent[from];
        }
        from = to;
    }
    // what is seen again is where its first sighting is
    for i in 0..begins.len() {
        begins[i] = begins[begins[i]];
    }
    begins
}

/// How far a packet ends behind the beginning of another one.
fn end_from(first: &Packet, p: &Packet) -> u32 {
    p.seq.wrapping_sub(first.seq).wrapping_add(p.len)
}

/// How much cwnd allows to send at once, by what had been received before in the capture.
struct Rooms {
    edges: Edges,
    /// Which packets and samples came before.
    packets: usize,
    samples: usize,
}

impl Rooms {
    fn new(evidence: Evidence<'_>) -> Rooms {
        let begin = evidence.edges.first().copied().unwrap_or(Edges::default());
        Rooms { edges: begin, packets: 0, samples: 0 }
    }

    /// From the beginning of a packet that was sent, no earlier than those of the calls before; `None`: not known.
    fn at(&mut self, evidence: Evidence<'_>, i: usize) -> Option<u32> {
        for packet in self.packets..i {
            let p = evidence.packet(packet);
            if !evidence.packets[packet].is_out && p.flags.ack() && !p.flags.rst() {
                self.edges.una = self.edges.una.max(nearest(p.ack, self.edges.una));
            }
            if p.sack.iter().next().is_some() {
                // what is selectively acknowledged makes room as well
                self.edges.una = self.edges.una.max(self.edges.nxt);
            }
        }
        self.packets = i;
        let start = nearest(evidence.packet(i).seq, self.edges.nxt);
        self.edges.nxt = self.edges.nxt.max(start);
        while evidence.edges.get(self.samples).is_some_and(|at| at.nxt <= start) {
            self.samples += 1;
        }
        let cwnd = evidence.samples[self.samples.checked_sub(1)?].cwnd_bytes?;
        u32::try_from((self.edges.una + i64::from(cwnd) - start).max(0)).ok()
    }
}

/// How far apart pieces of one segment are.
struct Gaps {
    /// At most, where nothing else tells; `None`: times do not.
    close_ns: Option<i64>,
    /// At most, where PSH ends a segment; `None`: it does not end each that was cut.
    pushed_ns: Option<i64>,
}

impl Gaps {
    /// As those of sampled segments are.
    fn new(evidence: Evidence<'_>, sent: &[usize]) -> Gaps {
        let own = |i: usize| evidence.found[i].sample();
        let (mut close, mut widest, mut pushed) = (None, None, true);
        for pieces in sent.chunk_by(|&a, &b| own(a).is_some() && own(a) == own(b)).filter(|c| c.len() > 1) {
            for w in pieces.windows(2) {
                let (p, next) = (evidence.packet(w[0]), evidence.packet(w[1]));
                let gap = p.ts_ns.zip(next.ts_ns).and_then(|(p, next)| next.checked_sub(p));
                close = close.max(gap.filter(|&gap| gap <= APART_NS));
                widest = widest.max(gap);
            }
            // newer kernels set it on each segment that will be cut (`__tcp_transmit_skb`), older ones do not
            pushed &= pieces.last().is_some_and(|&last| is_pushed(evidence.packet(last)));
        }
        let fine = || sent.iter().any(|&i| evidence.packet(i).ts_ns.is_some_and(|t| t % 1_000 != 0));
        let twice = |gap: i64| gap.saturating_mul(2);
        Gaps {
            close_ns: close.map(twice).or_else(|| fine().then_some(AT_ONCE_NS)),
            pushed_ns: widest.map(twice).filter(|_| pushed),
        }
    }
}

/// Does a segment that was cut end with this piece?
fn is_pushed(p: &Packet) -> bool {
    p.flags.0 & (TcpFlags::FIN.0 | TcpFlags::PSH.0) != 0
}

/// Is a packet the next piece of what another one is a piece of? All but the last are as long as the first, and the
/// last alone has PSH or FIN (`tcp_gso_segment`).
fn goes_on(p: &Packet, next: &Packet, first_len: u32, gap_ns: i64) -> bool {
    let ids = p.ip_id.zip(next.ip_id);
    p.len == first_len
        && (1..=first_len).contains(&next.len)
        && !is_pushed(p)
        && next.seq == p.seq.wrapping_add(p.len)
        && (next.ack, next.tsval, next.tsecr) == (p.ack, p.tsval, p.tsecr)
        && ids.is_none_or(|(p, next)| next == p.wrapping_add(1))
        && p.ts_ns
            .zip(next.ts_ns)
            .and_then(|(p, next)| next.checked_sub(p))
            .is_some_and(|gap| (0..=gap_ns).contains(&gap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translation::testing::{ACK, PUSH, packet};

    fn at(seq: u32, len: u32, flags: u16, ts_ns: i64) -> Packet {
        Packet { ts_ns: Some(ts_ns), tsval: Some(7), ..packet("10.0.0.1:1", "10.0.0.2:2", seq, 5, len, flags) }
    }

    #[test]
    fn a_piece_follows_the_one_before_at_once_and_is_no_longer() {
        let first = at(1000, 100, ACK, 0);
        assert!(goes_on(&first, &at(1100, 100, ACK, 50), 100, 60));
        assert!(goes_on(&first, &at(1100, 30, PUSH, 50), 100, 60), "the last one is shorter");
        assert!(!goes_on(&first, &at(1100, 101, ACK, 50), 100, 60), "longer than the first");
        assert!(!goes_on(&first, &at(1100, 100, ACK, 61), 100, 60), "too late");
        assert!(!goes_on(&first, &at(1100, 100, ACK, -1), 100, 60), "before it");
        assert!(!goes_on(&first, &at(1101, 100, ACK, 50), 100, 60), "not where it ended");
    }

    #[test]
    fn a_segment_ends_with_its_push() {
        assert!(!goes_on(&at(1000, 100, PUSH, 0), &at(1100, 100, ACK, 50), 100, 60));
    }

    #[test]
    fn another_stamp_or_identification_is_another_segment() {
        let first = Packet { ip_id: Some(u16::MAX), ..at(1000, 100, ACK, 0) };
        let next = Packet { ip_id: Some(0), ..at(1100, 100, ACK, 50) };
        assert!(goes_on(&first, &next, 100, 60), "counted on around the end");
        assert!(!goes_on(&first, &Packet { ip_id: Some(1), ..next }, 100, 60));
        assert!(!goes_on(&first, &Packet { tsval: Some(8), ..next }, 100, 60));
        assert!(!goes_on(&first, &Packet { ack: 6, ..next }, 100, 60));
    }
}
