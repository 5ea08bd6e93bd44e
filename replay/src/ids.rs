//! What IPv4 identifications say of a packet and a sample: a sender counts them up with every packet that it sends,
//! retransmissions too (`ip_select_ident_segs`), so two transmissions of one range differ in them.
//!
//! Owns how the identification of a piece follows from that of the segment it was cut from. Must not know time.

use crate::matching::Sighting;

/// What the identifications of a packet and of a sample's first packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinship {
    /// The packet is the sampled one, or a piece of it.
    Same,
    /// It may be a part of it: one of several that were merged on the way to the socket.
    Unknown,
    /// It is another transmission.
    Other,
}

/// A segment of a flow's peer is merged of no more packets than this, and seldom of small ones.
pub(crate) const MOST_MERGED: u16 = 256;
/// So many pairs that agree are no coincidence.
const ENOUGH: u64 = 3;
/// Bytes of a merged packet, at the least, on average.
const LEAST_BYTES: i64 = 64;

/// Does a sender count its identifications up? Then one of 0 is of a socket that does not.
pub(crate) fn are_counted(packets: &[Sighting]) -> bool {
    let ids = distinct(packets.iter().filter_map(|p| p.ip_id.filter(|&i| i != 0)).collect());
    let zeros = packets.iter().filter(|p| p.ip_id == Some(0)).count();
    ids > 2 && ids > zeros
}

fn distinct(mut ids: Vec<u16>) -> usize {
    ids.sort_unstable();
    ids.dedup();
    ids.len()
}

/// For each transmission of a sender how many identifications there are up to its next one's: so many packets it was cut
/// into at the most, or fewer. `None`: the next one is not known, or has the same, as after a failure.
pub(crate) fn taken(samples: &[Sighting]) -> Vec<Option<u16>> {
    let mut next = None;
    let mut taken: Vec<Option<u16>> = samples
        .iter()
        .rev()
        .map(|s| {
            let count = next.zip(s.ip_id).map(|(next, own): (u16, u16)| next.wrapping_sub(own));
            next = s.ip_id.filter(|&i| i != 0);
            count.filter(|&c| c > 0)
        })
        .collect();
    taken.reverse();
    taken
}

/// Are the identifications of one direction of a flow worth anything? Not where something on the way rewrites them,
/// nor where the sender leaves them alike.
/// Those that say nothing, and those that other causes explain, do not count.
pub(crate) fn are_telling<'a>(
    pairs: impl Iterator<Item = (&'a Sighting, &'a Sighting)>,
    samples: &[Sighting],
    is_out: bool,
) -> bool {
    let ids: Vec<u16> = samples.iter().filter_map(|s| s.ip_id.filter(|&i| i != 0)).collect();
    let count = ids.len();
    if ids.is_empty() || distinct(ids) * 2 < count.min(1 << 15) {
        return false;
    }
    let (mut same, mut other) = (0u64, 0u64);
    for (p, s) in pairs {
        match kinship(p, s, is_out) {
            Kinship::Same => same += 1,
            // the last of several ACKs that were merged, or the answer of a socket that counts nothing
            Kinship::Other if (!is_out && is_merged(p, s)) || p.ip_id == Some(0) => {}
            Kinship::Other => other += 1,
            Kinship::Unknown => {}
        }
    }
    // one in 65,536 pairs agrees by chance; those that do not may well be no pairs
    same >= ENOUGH || (same > 0 && other == 0)
}

/// Can this pure ACK be one of those that were merged into the sampled one?
fn is_merged(p: &Sighting, s: &Sighting) -> bool {
    let count = p.ip_id.zip(s.ip_id).map(|(p, s)| p.wrapping_sub(s));
    s.start == s.end && count.is_some_and(|c| (1..=MOST_MERGED).contains(&c))
}

/// What a packet is to a sample that covers its first byte, or is of its very numbers.
pub(crate) fn kinship(p: &Sighting, s: &Sighting, is_out: bool) -> Kinship {
    // a peer that counts nothing sends 0; a socket of this host comes by it once in 65,536
    let (Some(packet), Some(sample)) = (p.ip_id, s.ip_id.filter(|&i| is_out || i != 0)) else {
        return Kinship::Unknown;
    };
    let count = packet.wrapping_sub(sample);
    let offset = p.start - s.start;
    let size = if count > 0 && offset % i64::from(count) == 0 { offset / i64::from(count) } else { 0 };
    // all pieces are alike but for the last; the network may have merged some of them again
    let divides = size > 0 && p.end > p.start && (p.end - p.start) % size == 0;
    if (offset == 0 && count == 0) || (is_out && divides) {
        return Kinship::Same;
    }
    // merged on the way in: pieces of any length, so that a count proves nothing; an acknowledgment before the data
    let can_be_part = match offset {
        0 => s.end > s.start && (1..=8).contains(&count),
        _ => (1..=MOST_MERGED).contains(&count) && i64::from(count) * LEAST_BYTES <= offset,
    };
    // the last piece, whose length proves nothing
    let is_last = size > 0 && p.end == s.end;
    if (!is_out && can_be_part) || is_last { Kinship::Unknown } else { Kinship::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: i64, end: i64, ip_id: u16) -> Sighting {
        Sighting {
            start: start.into(),
            end: end.into(),
            ack: 1,
            flags: 16,
            tsval: None,
            ts_ns: None,
            ip_id: Some(ip_id),
            place: None,
        }
    }

    #[test]
    fn pieces_count_on_from_the_segment() {
        let sample = at(1_000, 15_480, 65_534);
        assert_eq!(kinship(&at(1_000, 2_448, 65_534), &sample, true), Kinship::Same);
        assert_eq!(kinship(&at(1_000 + 3 * 1_448, 6_792, 1), &sample, true), Kinship::Same, "around the end");
        assert_eq!(kinship(&at(1_000, 2_448, 9), &sample, true), Kinship::Other, "sent again");
        assert_eq!(kinship(&at(2_448, 3_896, 65_500), &sample, true), Kinship::Other, "sent before");
    }

    #[test]
    fn what_arrives_may_have_been_merged_of_unequal_pieces() {
        let sample = at(1_000, 2_000, 7);
        assert_eq!(kinship(&at(1_301, 2_000, 9), &sample, false), Kinship::Unknown);
        assert_eq!(kinship(&at(1_301, 2_000, 9), &sample, true), Kinship::Other);
        assert_eq!(kinship(&at(1_000, 2_000, 8), &sample, false), Kinship::Unknown, "behind an acknowledgment");
        let ack = at(1_000, 1_000, 7);
        assert_eq!(kinship(&at(1_000, 1_000, 8), &ack, false), Kinship::Other, "a duplicate has its own sample");
    }

    #[test]
    fn a_transmission_has_the_identifications_up_to_the_next_one() {
        let samples = [at(0, 5_792, 65_534), at(5_792, 7_240, 2), at(7_240, 8_688, 2), at(8_688, 9_000, 9)];
        assert_eq!(taken(&samples), [Some(4), None, Some(7), None]);
    }

    #[test]
    fn alike_or_rewritten_ones_tell_nothing() {
        let samples: Vec<Sighting> = (0..20).map(|i| at(i * 100, i * 100 + 100, 5)).collect();
        assert!(!are_telling(samples.iter().zip(&samples), &samples, true), "always the same");
        let samples: Vec<Sighting> = (0..20).map(|i| at(i * 100, i * 100 + 100, 5 + i as u16)).collect();
        assert!(are_telling(samples.iter().zip(&samples), &samples, true));
        let rewritten: Vec<Sighting> = (0..20).map(|i| at(i * 100, i * 100 + 100, 900 - 7 * i as u16)).collect();
        assert!(!are_telling(rewritten.iter().zip(&samples), &samples, true));
        let zero: Vec<Sighting> = (0..20).map(|i| at(i * 100, i * 100 + 100, 0)).collect();
        assert!(!are_telling(zero.iter().zip(&zero), &zero, true));
    }
}
