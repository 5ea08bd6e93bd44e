//! Sequence numbers: 32 bits on the wire, 64 in here.
//!
//! Owns the arithmetic of RFC 9293 §3.4 and the unwrapping; must not know packets or samples.

use std::ops::{Add, Sub};

/// The largest window, bytes (RFC 7323 §2.3): no more is outstanding at once.
pub(crate) const MOST_WINDOW: i64 = 1 << 30;

/// Position in a direction's byte stream: a sequence number with the wraps counted. Unlike the 32 bits of the wire two
/// positions can be compared, and their difference is a number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(i64);

impl Position {
    /// Before all others.
    pub const MIN: Position = Position(i64::MIN);
    /// Behind all others.
    pub const MAX: Position = Position(i64::MAX);

    /// Where a stream whose first number is 0 begins.
    pub const BEGIN: Position = Position(1 << 40);

    /// Of the first number that is seen of a direction; it leaves room for numbers before it.
    pub fn first(seq: u32) -> Position {
        Position(Position::BEGIN.0 + i64::from(seq))
    }

    /// The number on the wire.
    pub fn seq(self) -> u32 {
        self.0 as u32
    }
}

/// For tests, whose positions are plain numbers.
#[cfg(test)]
impl From<i64> for Position {
    fn from(number: i64) -> Position {
        Position(number)
    }
}

/// So many numbers on.
impl Add<i64> for Position {
    type Output = Position;

    fn add(self, numbers: i64) -> Position {
        Position(self.0.saturating_add(numbers))
    }
}

/// So many numbers back.
impl Sub<i64> for Position {
    type Output = Position;

    fn sub(self, numbers: i64) -> Position {
        Position(self.0.saturating_sub(numbers))
    }
}

/// How many numbers lie between.
impl Sub for Position {
    type Output = i64;

    fn sub(self, other: Position) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

/// Unwraps numbers of one direction: each is taken for the position nearest to the one before it.
#[derive(Clone, Copy, Debug)]
pub struct Unwrapper {
    last: Position,
}

impl Unwrapper {
    /// Begins at a number. The first position leaves room for numbers before it.
    pub fn begin(seq: u32) -> Unwrapper {
        Unwrapper { last: Position::first(seq) }
    }

    /// Begins near a position.
    pub fn near(position: Position) -> Unwrapper {
        Unwrapper { last: position }
    }

    /// The last position.
    pub fn position(&self) -> Position {
        self.last
    }

    /// The position of a number, without going there.
    pub fn nearest(&self, seq: u32) -> Position {
        nearest(seq, self.last)
    }

    /// Goes to a position.
    pub fn advance(&mut self, to: Position) {
        self.last = to;
    }

    /// The position of a number, at most 2³¹ away from the last one; it becomes the last one.
    pub fn unwrap(&mut self, seq: u32) -> Position {
        self.last = nearest(seq, self.last);
        self.last
    }
}

/// The position with this number that is nearest to another.
pub fn nearest(seq: u32, to: Position) -> Position {
    to + i64::from(seq.wrapping_sub(to.seq()) as i32)
}

/// Distance of two numbers on the circle.
pub fn distance(a: u32, b: u32) -> u32 {
    (a.wrapping_sub(b) as i32).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_go_on_across_the_wrap() {
        let mut u = Unwrapper::begin(0xffff_fff0);
        let a = u.unwrap(0xffff_fff0);
        assert_eq!(u.unwrap(0x10) - a, 0x20);
        assert_eq!(u.unwrap(0xffff_fff8) - a, 8, "a retransmission from before the wrap");
    }

    proptest! {
        #[test]
        fn a_stream_of_any_length_unwraps_to_itself(start: u32, steps in prop::collection::vec(-1_000_000_000i64..1_000_000_000, 0..200)) {
            let mut u = Unwrapper::begin(start);
            let mut at = u.unwrap(start);
            for step in steps {
                at = at + step;
                prop_assert_eq!(u.unwrap(at.seq()), at);
            }
        }

        #[test]
        fn distance_is_symmetric(a: u32, b: u32) {
            prop_assert_eq!(distance(a, b), distance(b, a));
            prop_assert_eq!(distance(a, a), 0);
        }
    }
}
