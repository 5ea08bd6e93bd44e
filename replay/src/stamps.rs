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
    /// A stamp, as a position, and the time of its sample, CLOCK_MONOTONIC in ns.
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
    /// From pairs of packets and the monotonic times of their samples; `None` where nothing agrees.
    pub(crate) fn of<'a>(pairs: impl Iterator<Item = (&'a Sighting, i64)>) -> Option<StampLine> {
        let points: Vec<(u32, i64)> =
            pairs.filter_map(|(p, mono_ns)| Some((p.tsval.filter(|&v| v != 0)?, mono_ns))).collect();
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

    /// Can a packet with this stamp be of a sample of this monotonic time?
    pub(crate) fn allows(&self, packet: &Sighting, mono_ns: i64) -> bool {
        let Some(tsval) = packet.tsval.filter(|&v| v != 0) else { return true };
        let ticks = nearest(tsval, self.origin.0) - self.origin.0;
        let expected = self.origin.1.saturating_add(ticks.saturating_mul(self.tick_ns));
        let reach = 2 * self.tick_ns + 2 * BURST_NS;
        // data alone is paced
        let early = if packet.end > packet.start { PACED_NS } else { reach };
        (-early..=reach).contains(&mono_ns.saturating_sub(expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(tsval: u32) -> Sighting {
        Sighting {
            start: 0.into(),
            end: 1.into(),
            ack: 1,
            flags: 16,
            tsval: Some(tsval),
            ts_ns: None,
            ip_id: None,
            place: None,
        }
    }

    #[test]
    fn the_stamp_says_which_transmission_it_was() {
        for tick_ns in TICKS_NS {
            let at = |ns: i64| stamped((u32::MAX - 20).wrapping_add((ns / tick_ns) as u32));
            let pairs: Vec<_> = (0..8i64).map(|i| (at(i * 20_000_000), i * 20_000_000)).collect();
            let line = StampLine::of(pairs.iter().map(|(p, ns)| (p, *ns))).unwrap();
            let first = at(90_000_000);
            assert!(line.allows(&first, 90_500_000), "{tick_ns}");
            assert!(line.allows(&first, 60_000_000), "paced");
            assert!(!line.allows(&first, 120_000_000), "sent again, {tick_ns}");
        }
    }

    #[test]
    fn pairs_that_do_not_agree_make_no_line() {
        let pairs: Vec<_> = (0..8i64).map(|i| (stamped(7 + (i * i) as u32 * 40_000), i * 20_000_000)).collect();
        assert!(StampLine::of(pairs.iter().map(|(p, ns)| (p, *ns))).is_none());
    }
}
