//! What delays between sample and packet are usual around a packet, from the packets whose sample is beyond doubt.

/// So many neighbours on each side say what is usual.
const NEIGHBOURS: usize = 16;
/// Sampling and tapping alone take as long, one time more, one time less.
const JITTER_NS: i64 = 20_000;
/// What is farther than this from anything usual is surely something else.
pub(crate) const MARGIN_NS: i64 = 50_000;
/// A processor that is busy with other packets comes back within this.
const BUSY_NS: i64 = 1_000_000;

/// Packets whose sample is beyond doubt.
pub(crate) struct UsualDelays {
    /// Packet, sample, delay; by packet.
    pub(crate) pairs: Vec<(u32, u32, i64)>,
    /// The smallest delay of all.
    pub(crate) least_ns: Option<i64>,
}

/// The delays that are usual around a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    low: i64,
    high: i64,
    margin: i64,
}

impl UsualDelays {
    pub(crate) fn new(pairs: Vec<(u32, u32, i64)>) -> UsualDelays {
        let least_ns = pairs.iter().map(|p| p.2).min();
        UsualDelays { pairs, least_ns }
    }

    /// Does this sample stand in the same order as those of the packets around? Without any other nothing can be said.
    pub(crate) fn in_order(&self, packet: u32, sample: u32) -> bool {
        let at = self.pairs.partition_point(|&(p, _, _)| p < packet);
        let (before, after) = self.pairs.split_at(at);
        let order = before.iter().rev().take(NEIGHBOURS).rev().map(|p| p.1).chain([sample]);
        // pieces and copies are of one sample: they are no evidence for each other
        let alone = self.pairs.iter().all(|&(_, s, _)| s == sample);
        !alone && order.chain(after.iter().take(NEIGHBOURS).map(|p| p.1)).is_sorted()
    }

    /// Do most of the packets around stand in another order to this one than their samples do to this sample?
    pub(crate) fn contradict(&self, packet: u32, sample: u32) -> bool {
        let at = self.pairs.partition_point(|&(p, _, _)| p < packet);
        let (before, rest) = self.pairs.split_at(at);
        let after = rest.iter().skip_while(|&&(p, _, _)| p == packet);
        let before = before.iter().rev().take(NEIGHBOURS).map(|p| p.1 > sample);
        let (against, of) = before
            .chain(after.take(NEIGHBOURS).map(|p| p.1 < sample))
            .fold((0, 0), |(n, of), is| (n + usize::from(is), of + 1));
        against * 2 > of
    }

    /// Is this delay longer than that of any packet with another sample?
    pub(crate) fn is_slowest(&self, sample: u32, delay: Option<i64>) -> bool {
        let others = self.pairs.iter().filter(|&&(_, s, _)| s != sample).map(|p| p.2).max();
        others.zip(delay).is_none_or(|(others, delay)| delay > others)
    }

    /// What is usual around a packet, itself left out and all that has the samples in question: if one of these is not
    /// its own, its copies and the other pieces are no evidence either. `samples`: ascending. `None`: there is nothing to
    /// compare with.
    pub(crate) fn around(&self, packet: u32, samples: &[u32]) -> Option<Window> {
        let at = self.pairs.partition_point(|&(p, _, _)| p < packet);
        let (before, rest) = self.pairs.split_at(at);
        let is_evidence = |pair: &&(u32, u32, i64)| pair.0 != packet && samples.binary_search(&pair.1).is_err();
        let near = before.iter().rev().filter(is_evidence).take(NEIGHBOURS);
        let near = near.chain(rest.iter().filter(is_evidence).take(NEIGHBOURS));
        let mut delays: Vec<i64> = near.map(|&(_, _, delay)| delay).collect();
        if delays.is_empty() {
            return None;
        }
        delays.sort_unstable();
        // Tukey's fences: a few wrong delays, or a few slow packets, do not widen what is usual
        let (q1, q3) = (delays[delays.len() / 4], delays[delays.len() * 3 / 4]);
        let reach = (q3 - q1) / 2 * 3;
        Some(Window { low: q1 - reach - JITTER_NS, high: q3 + reach + JITTER_NS, margin: MARGIN_NS + (q3 - q1) })
    }
}

impl Window {
    /// Is this delay usual?
    pub(crate) fn has(&self, delay: i64) -> bool {
        (self.low..=self.high).contains(&delay)
    }

    /// How much delays vary.
    pub(crate) fn width(&self) -> i64 {
        self.high - self.low
    }

    /// How far this delay is from what is usual.
    pub(crate) fn distance(&self, delay: i64) -> i64 {
        (self.low - delay).max(delay - self.high).max(0)
    }

    /// Is this delay surely another transmission's, if `own` is this one's? A busy processor alone may hold a packet
    /// back for half a millisecond; a network, by several times what it usually varies.
    pub(crate) fn excludes(&self, delay: i64, own: i64, is_near: bool) -> bool {
        let network = if is_near { 0 } else { 4 * self.width() };
        !self.loosely_has(delay) && (delay - own).abs() > BUSY_NS + network
    }

    /// Is it usual, or nearly so?
    pub(crate) fn loosely_has(&self, delay: i64) -> bool {
        (self.low - self.margin..=self.high + self.margin).contains(&delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_wrong_delays_do_not_make_it_wider() {
        let mut pairs: Vec<(u32, u32, i64)> = (0..20).map(|p| (p, p, 1_000 + i64::from(p))).collect();
        pairs[3].2 = 200_000_000;
        let window = UsualDelays::new(pairs).around(10, &[10]).unwrap();
        assert!(window.has(1_010) && !window.loosely_has(1_000_000));
    }

    #[test]
    fn a_packet_is_no_evidence_for_itself() {
        assert!(UsualDelays::new(vec![(7, 0, 5)]).around(7, &[0]).is_none());
        // nor is a copy, or another piece of the same sample
        let window = UsualDelays::new(vec![(6, 0, 5), (7, 1, 900_000), (8, 1, 900_000)]).around(7, &[1]).unwrap();
        assert!(window.has(5) && !window.loosely_has(900_000));
    }
}
