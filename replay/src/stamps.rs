//! The stamps of what a socket sent, for samples that were taken before its header was made (`__tcp_transmit_skb`): TSval
//! is the monotonic clock in ms or µs, plus a constant of the connection (`tcp_time_stamp_ms`). The pairs that are
//! beyond doubt give the constant; what a packet's stamp says of the time of its sample is then known to a tick.
//!
//! Owns that line; must not know how it is used.

use crate::matching::Sighting;
use crate::seq::{Position, nearest};

/// From a stamp to the time of a sample.
pub(crate) struct StampLine {
    tick_ns: i64,
    /// A stamp, as a position, and the time of its sample.
    origin: (Position, i64),
}

/// Ticks of TSval: 1 ms, and 1 µs where the route has `tcp_usec_ts` (since ≈6.7).
pub(crate) const TICKS_NS: [i64; 2] = [1_000_000, 1_000];
/// So many pairs have to agree.
const FEWEST: usize = 3;
/// What is paced is stamped with the time at which it is to leave (`tcp_sock.tcp_wstamp_ns`), and sampled before.
const PACED_NS: i64 = 500_000_000;
/// A burst is stamped once, and sampled segment by segment.
const BURST_NS: i64 = 3_000_000;

impl StampLine {
    /// From pairs of packets and samples; `None` where the samples have stamps of their own, or nothing agrees.
    pub(crate) fn of<'a>(pairs: impl Iterator<Item = (&'a Sighting, &'a Sighting)>) -> Option<StampLine> {
        let mut points = Vec::new();
        for (p, s) in pairs {
            if s.tsval.is_some() {
                return None;
            }
            points.extend(p.tsval.filter(|&v| v != 0).zip(s.ts_ns));
        }
        let first = Position::first(points.first()?.0);
        let of_tick = |tick_ns: i64| {
            let mut begins: Vec<i64> =
                points.iter().map(|&(v, at)| at - (nearest(v, first) - first) * tick_ns).collect();
            begins.sort_unstable();
            let begin = begins[begins.len() * 3 / 4];
            let agree = begins.iter().filter(|b| (-PACED_NS..=tick_ns + BURST_NS).contains(&(*b - begin))).count();
            (agree >= FEWEST && agree * 8 > begins.len() * 7).then_some((tick_ns, begin))
        };
        // a short time fits both: the coarser one then allows more
        let (tick_ns, begin) = TICKS_NS.into_iter().find_map(of_tick)?;
        Some(StampLine { tick_ns, origin: (first, begin) })
    }

    /// Can a packet with this stamp be of a sample of this time?
    pub(crate) fn allows(&self, packet: &Sighting, sample: &Sighting) -> bool {
        let (Some(tsval), Some(at)) = (packet.tsval.filter(|&v| v != 0), sample.ts_ns) else { return true };
        let ticks = nearest(tsval, self.origin.0) - self.origin.0;
        let expected = self.origin.1.saturating_add(ticks.saturating_mul(self.tick_ns));
        let reach = 2 * self.tick_ns + 2 * BURST_NS;
        // data alone is paced
        let early = if packet.end > packet.start { PACED_NS } else { reach };
        (-early..=reach).contains(&(at - expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tsval: Option<u32>, ts_ns: i64) -> Sighting {
        Sighting {
            start: 0.into(),
            end: 1.into(),
            ack: 1,
            flags: 16,
            tsval,
            ts_ns: Some(ts_ns),
            ip_id: None,
            place: None,
        }
    }

    #[test]
    fn the_stamp_says_which_transmission_it_was() {
        for tick_ns in TICKS_NS {
            let pairs: Vec<_> = (0..8i64)
                .map(|i| {
                    let ns = i * 20_000_000;
                    (at(Some((u32::MAX - 20).wrapping_add((ns / tick_ns) as u32)), ns + 900), at(None, ns))
                })
                .collect();
            let line = StampLine::of(pairs.iter().map(|(p, s)| (p, s))).unwrap();
            let first = at(Some((u32::MAX - 20).wrapping_add((90_000_000 / tick_ns) as u32)), 0);
            assert!(line.allows(&first, &at(None, 90_500_000)), "{tick_ns}");
            assert!(line.allows(&first, &at(None, 60_000_000)), "paced");
            assert!(!line.allows(&first, &at(None, 120_000_000)), "sent again, {tick_ns}");
        }
    }

    #[test]
    fn pairs_that_do_not_agree_make_no_line() {
        let pairs: Vec<_> =
            (0..8i64).map(|i| (at(Some(7 + (i * i) as u32 * 40_000), 0), at(None, i * 20_000_000))).collect();
        assert!(StampLine::of(pairs.iter().map(|(p, s)| (p, s))).is_none());
        let known = [(at(Some(7), 0), at(Some(7), 0))];
        assert!(StampLine::of(known.iter().map(|(p, s)| (p, s))).is_none(), "samples have stamps of their own");
    }
}
