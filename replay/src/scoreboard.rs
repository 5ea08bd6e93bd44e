//! Which bytes beyond `snd_una` the peer has selectively acknowledged (RFC 2018), as captured ACKs say.
//!
//! Owns the intervals; must not know packets or flows.

use crate::packet::SackBlocks;
use crate::seq::{Position, nearest};

/// Selectively acknowledged ranges, disjoint and ascending, none below `una`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scoreboard {
    ranges: Vec<(Position, Position)>,
    /// A cut option may have said more of what was outstanding then: nothing is known before all of it is acknowledged.
    unknown_up_to: Option<Position>,
}

impl Scoreboard {
    /// Takes up a block; a part below `una` (RFC 2883, a duplicate) or beyond `nxt` (never sent) says nothing.
    pub(crate) fn add(&mut self, start: Position, end: Position, una: Position, nxt: Position) {
        if start < una || end > nxt || start >= end {
            return;
        }
        // those that touch the new one, to be merged with it
        let from = self.ranges.partition_point(|r| r.1 < start);
        let to = self.ranges.partition_point(|r| r.0 <= end);
        let touched = &self.ranges[from..to];
        let start = touched.first().map_or(start, |r| r.0.min(start));
        let end = touched.last().map_or(end, |r| r.1.max(end));
        self.ranges.splice(from..to, [(start, end)]);
    }

    /// Takes up an ACK's blocks.
    pub(crate) fn take_up(&mut self, sack: &SackBlocks, una: Position, nxt: Position) {
        for (left, right) in sack.iter() {
            let start = nearest(left, una);
            self.add(start, start + i64::from(right.wrapping_sub(left)), una, nxt);
        }
        if !sack.complete() {
            self.forget(nxt);
        }
    }

    /// An option was cut that may have told more, with `nxt` the end of what was outstanding.
    pub(crate) fn forget(&mut self, nxt: Position) {
        self.unknown_up_to = Some(nxt);
    }

    /// Everything below is acknowledged.
    pub(crate) fn acknowledge(&mut self, una: Position) {
        self.ranges.retain(|r| r.1 > una);
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(una);
        }
        self.unknown_up_to = self.unknown_up_to.filter(|&end| end > una);
    }

    /// How far a stream goes on without a gap from here.
    pub(crate) fn reach(&self, from: Position) -> Position {
        self.ranges.first().filter(|r| r.0 <= from).map_or(from, |r| r.1.max(from))
    }

    /// The ranges, ascending.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Position, Position)> {
        self.ranges.iter().copied()
    }

    /// How many bytes of a window; `None` where a cut option hides it.
    pub(crate) fn bytes(&self, una: Position, nxt: Position) -> Option<u32> {
        let sum: i64 = self.ranges.iter().map(|r| (r.1.min(nxt) - r.0.max(una)).max(0)).sum();
        if self.unknown_up_to.is_some_and(|end| end > una) { None } else { u32::try_from(sum).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_what_a_set_of_bytes_counts(
            steps in prop::collection::vec((0i64..200, 0i64..60, 0i64..200), 0..40),
        ) {
            let (mut board, mut bytes, mut una) = (Scoreboard::default(), std::collections::BTreeSet::new(), 0i64);
            for (start, len, ack) in steps {
                board.add(start.into(), (start + len).into(), una.into(), 230.into());
                if start >= una && start + len <= 230 {
                    bytes.extend(start..start + len);
                }
                prop_assert_eq!(board.bytes(una.into(), 230.into()), Some(bytes.len() as u32));
                let within = (una + 10, 200);
                let some = bytes.range(within.0.min(within.1)..within.1).count();
                prop_assert_eq!(board.bytes(within.0.into(), within.1.into()), Some(some as u32));
                una = una.max(ack.min(una + 20));
                board.acknowledge(una.into());
                bytes.retain(|&b| b >= una);
                prop_assert_eq!(board.bytes(una.into(), 230.into()), Some(bytes.len() as u32));
            }
        }
    }

    #[test]
    fn a_stream_goes_on_to_its_next_gap() {
        let mut board = Scoreboard::default();
        board.add(10.into(), 20.into(), 0.into(), 100.into());
        board.add(30.into(), 40.into(), 0.into(), 100.into());
        assert_eq!([0, 10, 15, 20].map(|from| board.reach(from.into())), [0, 20, 20, 20].map(Position::from));
    }

    #[test]
    fn a_cut_option_is_not_nothing() {
        let mut board = Scoreboard::default();
        board.add(10.into(), 20.into(), 0.into(), 100.into());
        board.forget(100.into());
        assert_eq!(board.bytes(0.into(), 100.into()), None);
        board.acknowledge(50.into());
        assert_eq!(board.bytes(50.into(), 100.into()), None);
        board.acknowledge(100.into());
        assert_eq!(board.bytes(100.into(), 100.into()), Some(0));
    }
}
