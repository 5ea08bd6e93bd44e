//! Segments that take no space, by what tells them apart: a loss is followed by hundreds of ACKs that are alike but for
//! their stamps and identifications. Knows numbers; must not know which are packets and which are samples.

use super::Sighting;
use crate::packet::TcpFlags;
use crate::seq::Position;
use crate::spans::Near;

/// Flags that make segments without space different from each other.
const KEY_FLAGS: u16 = TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0 | TcpFlags::ACK.0;

pub(super) type EmptyKey = (Position, u32, u16);

pub(super) fn empty_key(s: &Sighting) -> EmptyKey {
    (s.start, s.ack, s.flags & KEY_FLAGS)
}

/// All of one side of a direction.
pub(super) struct Empties {
    sorted: Vec<Empty>,
    near: Near,
}

/// What tells it apart, its stamp, its identification, and its position.
type Empty = (EmptyKey, Option<u32>, Option<u16>, u32);

/// Among more than these, those of one identification are searched for.
const FEW: usize = 8;

impl Empties {
    pub(super) fn new(of: &[Sighting]) -> Empties {
        let empty = of.iter().zip(0u32..).filter(|(s, _)| s.end == s.start);
        let mut sorted: Vec<Empty> = empty.map(|(s, i)| (empty_key(s), s.tsval, s.ip_id, i)).collect();
        sorted.sort_unstable();
        Empties { sorted, near: Near::default() }
    }

    /// Those of a key and a stamp, and all behind them.
    fn from(&self, key: EmptyKey, tsval: Option<u32>) -> &[Empty] {
        &self.sorted[self.near.partition_point(&self.sorted, |e| (e.0, e.1) < (key, tsval))..]
    }

    /// Those with the key of this one; `stamped`: without those of another stamp; `ip_id`: without those of another
    /// identification. Ascending.
    pub(super) fn alike(&self, s: &Sighting, stamped: bool, ip_id: Option<u16>, into: &mut Vec<u32>) {
        let key = empty_key(s);
        let may_be = |e: &&Empty| ip_id.is_none() || e.2.is_none_or(|id| id == 0) || e.2 == ip_id;
        into.clear();
        let mut add = |of: &[Empty]| into.extend(of.iter().filter(may_be).map(|e| e.3));
        let Some(tsval) = s.tsval.filter(|_| stamped) else {
            add(begin(self.from(key, None), |e| e.0 == key));
            into.sort_unstable();
            return;
        };
        for stamp in [None, Some(tsval)] {
            let of_stamp = begin(self.from(key, stamp), |e| (e.0, e.1) == (key, stamp));
            if ip_id.is_none() || of_stamp.len() <= FEW {
                add(of_stamp);
                continue;
            }
            // those of none stand first
            let of_none = begin(of_stamp, |e| e.2.is_none_or(|id| id == 0));
            let rest = &of_stamp[of_none.len()..];
            add(of_none);
            add(begin(&rest[rest.partition_point(|e| e.2 < ip_id)..], |e| e.2 == ip_id));
        }
        if !into.is_sorted() {
            into.sort_unstable();
        }
    }

    /// Is there one with the key of this one that has no stamp?
    pub(super) fn has_unstamped(&self, s: &Sighting) -> bool {
        let key = empty_key(s);
        self.from(key, None).first().is_some_and(|e| (e.0, e.1) == (key, None))
    }

    /// Are there more than a few with the key and the stamp of this one?
    pub(super) fn has_many(&self, s: &Sighting) -> bool {
        let of = (empty_key(s), s.tsval);
        self.from(of.0, of.1).get(FEW).is_some_and(|e| (e.0, e.1) == of)
    }
}

/// The first ones of a sorted list, of which something is true.
fn begin<T>(sorted: &[T], is_true: impl Fn(&T) -> bool) -> &[T] {
    let few = sorted.iter().take(FEW + 1).take_while(|e| is_true(e)).count();
    &sorted[..if few > FEW { sorted.partition_point(is_true) } else { few }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ack((ack, tsval, ip_id): (u32, Option<u32>, Option<u16>)) -> Sighting {
        let start = Position::from(1);
        Sighting { start, end: start, ack, flags: TcpFlags::ACK.0, tsval, ts_ns: None, ip_id, place: None }
    }

    fn acks(most: usize) -> impl Strategy<Value = Vec<Sighting>> {
        // few values, so that there are many of each
        let one = (0u32..2, prop::option::of(0u32..2), prop::option::of(0u16..4)).prop_map(ack);
        prop::collection::vec(one, 1..most)
    }

    proptest! {
        #[test]
        fn finds_what_a_linear_search_finds(all in acks(120), asked in acks(20), stamped: bool, by_id: bool) {
            let empties = Empties::new(&all);
            for s in &asked {
                let ip_id = s.ip_id.filter(|_| by_id);
                let is_alike = |other: &Sighting| {
                    let stamps = !stamped || s.tsval.is_none() || other.tsval.is_none() || s.tsval == other.tsval;
                    let ids = ip_id.is_none() || matches!(other.ip_id, None | Some(0)) || other.ip_id == ip_id;
                    other.ack == s.ack && stamps && ids
                };
                let expected: Vec<u32> = (0u32..).zip(&all).filter(|(_, other)| is_alike(other)).map(|a| a.0).collect();
                let mut found = Vec::new();
                empties.alike(s, stamped, ip_id, &mut found);
                prop_assert_eq!(found, expected);
                let same = all.iter().filter(|other| (other.ack, other.tsval) == (s.ack, s.tsval)).count();
                prop_assert_eq!(empties.has_many(s), same > FEW);
            }
        }
    }
}
