//! Finding the spans of a byte stream that cover a position, among many that overlap.

use crate::seq::Position;

/// Half-open spans `[start, end)`, each with the index of what it belongs to.
pub(crate) struct Spans {
    // by start; of equal starts in the order given
    by_start: Vec<(Position, Position, u32)>,
    // largest end among this span and all before it: where it is not beyond a position, nothing before covers it
    max_end: Vec<Position>,
}

impl Spans {
    pub(crate) fn new(spans: impl Iterator<Item = (Position, Position, u32)>) -> Spans {
        let mut by_start: Vec<_> = spans.filter(|(start, end, _)| end > start).collect();
        by_start.sort_by_key(|&(start, _, index)| (start, index));
        let mut largest = Position::MIN;
        let max_end = by_start
            .iter()
            .map(|&(_, end, _)| {
                largest = largest.max(end);
                largest
            })
            .collect();
        Spans { by_start, max_end }
    }

    /// The indexes of all spans that cover a position, ascending.
    pub(crate) fn covering(&self, at: Position, found: &mut Vec<u32>) {
        found.clear();
        let mut i = self.by_start.partition_point(|&(start, _, _)| start <= at);
        while i > 0 && self.max_end[i - 1] > at {
            i -= 1;
            let (_, end, index) = self.by_start[i];
            if end > at {
                found.push(index);
            }
        }
        found.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_linear_search_finds(
            spans in prop::collection::vec((0i64..300, 0i64..60), 0..80),
            at in -5i64..400,
        ) {
            let at = Position::from(at);
            let list = || spans.iter().enumerate().map(|(i, &(s, l))| (s.into(), (s + l).into(), i as u32));
            let mut found = Vec::new();
            Spans::new(list()).covering(at, &mut found);
            let expected: Vec<u32> = list().filter(|&(s, e, _): &(Position, Position, u32)| s <= at && at < e).map(|s| s.2).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
