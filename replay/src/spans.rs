//! Finding the spans of a byte stream that cover a position, among many that overlap; and searches in sorted lists that
//! go on from where the last one ended.

use std::cell::Cell;

use crate::seq::Position;

/// Half-open spans `[start, end)`, each with the index of what it belongs to.
pub(crate) struct Spans {
    // by start; of equal starts in the order given
    by_start: Vec<(Position, Position, u32)>,
    // largest end among this span and all before it: where it is not beyond a position, nothing before covers it
    max_end: Vec<Position>,
    // how many spans began at or before the position that was asked for last
    begun: Near,
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
        Spans { by_start, max_end, begun: Near::default() }
    }

    /// The indexes of all spans that cover a position, ascending.
    pub(crate) fn covering(&self, at: Position, found: &mut Vec<u32>) {
        found.clear();
        let mut i = self.begun.partition_point(&self.by_start, |span| span.0 <= at);
        while i > 0 && self.max_end[i - 1] > at {
            i -= 1;
            let (_, end, index) = self.by_start[i];
            if end > at {
                found.push(index);
            }
        }
        if found.len() > 1 {
            found.sort_unstable();
        }
    }
}

/// Where a search in a sorted list ended last: the next one ends near, as a rule.
#[derive(Default)]
pub(crate) struct Near(Cell<usize>);

/// So many elements before and behind the last answer are tried before all.
const NEAR: usize = 8;

impl Near {
    /// What `slice::partition_point` says.
    pub(crate) fn partition_point<T>(&self, sorted: &[T], is_before: impl Fn(&T) -> bool) -> usize {
        let near = self.0.get();
        let is_before_at = |i: usize| sorted.get(i).is_some_and(&is_before);
        let found = match near.checked_sub(1).is_none_or(is_before_at) {
            true => (near..near + NEAR).find(|&i| !is_before_at(i)),
            false => (near.saturating_sub(NEAR)..near).rev().find(|&i| i.checked_sub(1).is_none_or(is_before_at)),
        };
        let found = found.unwrap_or_else(|| sorted.partition_point(&is_before));
        self.0.set(found);
        found
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
            asked in prop::collection::vec(-5i64..400, 1..20),
        ) {
            let list = || spans.iter().enumerate().map(|(i, &(s, l))| (s.into(), (s + l).into(), i as u32));
            let of_all = Spans::new(list());
            for at in asked.into_iter().map(Position::from) {
                let mut found = Vec::new();
                of_all.covering(at, &mut found);
                let covers = |&(s, e, _): &(Position, Position, u32)| s <= at && at < e;
                let expected: Vec<u32> = list().filter(covers).map(|s| s.2).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
