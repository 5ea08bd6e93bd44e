//! What may be missing where a packet's sample would be: samples that were lost, and packets from before the recording
//! or after it. Then count proves nothing.

use super::Matcher;
use crate::delays::UsualDelays;
use crate::reconstruct::SAME_HOST_NS;

impl Matcher<'_> {
    /// Is a sample missing between the neighbours of these, or may any be?
    pub(super) fn incomplete_around(&self, candidates: &[u32]) -> bool {
        let (Some(&first), Some(&last)) = (candidates.first(), candidates.last()) else { return false };
        let holes = self.completeness.holes_before;
        let before = (first as usize).checked_sub(1).map_or(0, |i| holes[i]);
        let after = holes[(last as usize + 1).min(holes.len() - 1)];
        self.completeness.sparse || before != after
    }

    /// May packets of the time before the recording, or after it, be among these? So it is where others of that time
    /// stand before them, or behind, and none that has a sample.
    pub(super) fn is_open(&self, packets: &[u32], candidates: &[u32], usual: &UsualDelays) -> bool {
        let ends = |list: &[u32]| list.first().copied().zip(list.last().copied());
        let (Some(packets), Some(candidates)) = (ends(packets), ends(candidates)) else { return false };
        let begun = usual.pairs.first().is_some_and(|&(p, s, _)| p < packets.0 && s < candidates.0);
        let ended = usual.pairs.last().is_some_and(|&(p, s, _)| p > packets.1 && s > candidates.1);
        let (first, last) = self.foreign;
        (!begun && !self.completeness.from_begin && first < packets.0)
            || (!ended && !self.completeness.to_end && last.is_some_and(|l| l > packets.1))
    }

    /// Is a sample missing within a moment of this one?
    pub(super) fn hole_is_near(&self, sample: u32) -> bool {
        let at = sample as usize;
        let near = |a: usize, b: usize| {
            let (Some(first), Some(second)) = (self.samples.get(a), self.samples.get(b)) else { return false };
            let missing = self.completeness.holes_before[a] != self.completeness.holes_before[b];
            missing && first.ts_ns.zip(second.ts_ns).is_none_or(|(a, b)| b - a < SAME_HOST_NS)
        };
        at.checked_sub(1).is_some_and(|before| near(before, at)) || near(at, at + 1)
    }

    pub(super) fn any_hole(&self) -> bool {
        self.completeness.holes_before.last().is_some_and(|&n| n > 0)
    }
}
