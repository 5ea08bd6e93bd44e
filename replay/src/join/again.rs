//! What is seen again in a later batch, farther behind than that batch looks back.
//!
//! Owns the sightings of samples in the batches before; must not know how samples were found.

use std::collections::VecDeque;

use tcpprobe_trace::join::PacketRow;

use crate::copies::Segment;
use crate::hash::{HashMap, HashMapExt as _};
use crate::sightings::space;

/// So many sightings of earlier batches are remembered: a batch or two, and more than a router's queue has packets.
const MOST: usize = 1 << 18;

/// The latest sightings, of captures that show packets more than once.
#[derive(Default)]
pub(super) struct Again {
    /// Does the capture?
    does: bool,
    sightings: VecDeque<Sighting>,
    /// So many came before those that are remembered.
    forgotten: u64,
    /// Which one was the latest of a sample.
    latest: HashMap<i64, u64>,
}

struct Sighting {
    sample_id: i64,
    segment: Segment,
    /// So many sightings of it came before.
    seen: u32,
    /// So many of this sample came before, and the latest of them.
    rank: u32,
    before: Option<u64>,
}

impl Again {
    /// Numbers the copies in a batch's rows, which come after those of all batches before.
    pub(super) fn number(&mut self, rows: &mut [PacketRow]) {
        self.does |= rows.iter().any(|row| row.copy > 0);
        if !self.does {
            return;
        }
        let mut changed: HashMap<u64, u32> = HashMap::new();
        for row in rows.iter_mut() {
            let Some(sample_id) = row.sample_id.filter(|_| row.matched.is_own()) else { continue };
            let segment = Segment { seq: row.seq, space: space(row.len, row.flags) as u32, ack: row.ack };
            let (seen, rank) = self.add(sample_id, segment);
            // what the batch took for an earlier sighting may have got no sample in its own
            let copy = row.copy.max(seen).min(rank);
            if copy != row.copy {
                row.copy = copy;
                changed.insert(row.number, copy);
            }
        }
        self.forget();
        // the other socket's row of the same frame, where samples do not say more
        if !changed.is_empty() {
            for row in rows.iter_mut().filter(|row| !row.matched.is_own()) {
                row.copy = changed.get(&row.number).copied().unwrap_or(row.copy);
            }
        }
    }

    /// How many sightings of it came before, and how many of its sample.
    fn add(&mut self, sample_id: i64, segment: Segment) -> (u32, u32) {
        let this = self.forgotten + self.sightings.len() as u64;
        let before = self.latest.insert(sample_id, this);
        let of = |at: u64| self.sightings.get(usize::try_from(at.checked_sub(self.forgotten)?).ok()?);
        let earlier = std::iter::successors(before.and_then(of), |s| s.before.and_then(of));
        let seen = segment.seen(earlier.map(|s| (s.segment, s.seen)));
        let rank = before.and_then(of).map_or(0, |s| s.rank + 1);
        self.sightings.push_back(Sighting { sample_id, segment, seen, rank, before });
        (seen, rank)
    }

    /// Forgets the oldest.
    fn forget(&mut self) {
        while self.sightings.len() > MOST
            && let Some(oldest) = self.sightings.pop_front()
        {
            if self.latest.get(&oldest.sample_id) == Some(&self.forgotten) {
                self.latest.remove(&oldest.sample_id);
            }
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_any_number_of_sightings_the_latest_are_remembered() {
        const TOO_MANY: i64 = 10;
        let mut again = Again::default();
        let segment = Segment { seq: 1, space: 100, ack: 5 };
        for sample_id in 0..MOST as i64 + TOO_MANY {
            assert_eq!(again.add(sample_id, segment), (0, 0));
        }
        again.forget();
        assert_eq!((again.sightings.len(), again.latest.len()), (MOST, MOST));
        assert_eq!(again.add(TOO_MANY - 1, segment), (0, 0), "forgotten");
        assert_eq!(again.add(TOO_MANY, segment), (1, 1), "the oldest that is remembered");
    }
}
