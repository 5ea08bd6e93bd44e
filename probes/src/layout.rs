//! The layout of a ring record, once for both sides: `build.rs` writes the C structures from these lists, the
//! decoder computes its offsets from them. Depends on the field list and on nothing else; must not know aya.

use crate::fields::FIELDS;

/// A member of a ring record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Name in C.
    pub(crate) name: &'static str,
    /// Size in bytes of one element.
    pub(crate) size_bytes: usize,
    /// Number of elements; 1 for a scalar.
    pub(crate) count: usize,
}

const fn scalar(name: &'static str, size_bytes: usize) -> Member {
    Member { name, size_bytes, count: 1 }
}

const fn array(name: &'static str, size_bytes: usize, count: usize) -> Member {
    Member { name, size_bytes, count }
}

/// Value of a record's `type`: a sample.
pub(crate) const TYPE_SAMPLE: u32 = 1;
/// Value of a record's `type`: what a flow is (sent when it is first seen, established and closed).
pub(crate) const TYPE_FLOW: u32 = 2;

/// Value of a record's `type`: what a congestion control holds inside.
pub(crate) const TYPE_INTERNALS: u32 = 3;

/// What every sample has before its state. Its size is a multiple of eight, the state's widest member.
pub(crate) const SAMPLE: &[Member] = &[
    scalar("type", 4),
    scalar("error", 2),
    scalar("refused", 2),
    scalar("flow", 8),
    scalar("serial", 8),
    scalar("mono_ns", 8),
    scalar("present", 8),
    scalar("seq", 4),
    scalar("len", 4),
    scalar("ack", 4),
    scalar("tsval", 4),
    scalar("flags", 2),
    scalar("kind", 1),
    scalar("phase", 1),
    scalar("ip_id", 2),
    scalar("has", 2),
];

/// A flow record.
pub(crate) const FLOW: &[Member] = &[
    scalar("type", 4),
    scalar("netns", 4),
    scalar("flow", 8),
    scalar("mono_ns", 8),
    scalar("cookie", 8),
    array("local_addr", 1, 16),
    array("remote_addr", 1, 16),
    array("congestion", 1, 16),
    // module that brings the congestion control; empty where it is built in
    array("owner", 1, 56),
    scalar("family", 2),
    scalar("local_port", 2),
    scalar("remote_port", 2),
    scalar("state", 1),
    scalar("wscale_ok", 1),
    scalar("snd_wscale", 1),
    scalar("rcv_wscale", 1),
    array("pad", 1, 6),
];

/// Congestion controls whose private state can be told apart; see `cfg_congestions` of the sampler.
pub(crate) const CONGESTIONS: usize = 4;

/// Words of `icsk_ca_priv` that are read: the kernel's own array has 13 of them today.
pub(crate) const INTERNALS_WORDS: usize = 16;

/// What a congestion control holds inside, as it lies in `icsk_ca_priv`; bits without a known meaning are 0.
pub(crate) const INTERNALS: &[Member] = &[
    scalar("type", 4),
    scalar("jiffies", 4),
    scalar("flow", 8),
    scalar("serial", 8),
    scalar("mono_ns", 8),
    array("words", 8, INTERNALS_WORDS),
    scalar("mss", 4),
    // place in cfg_congestions
    scalar("congestion", 1),
    array("pad", 1, 3),
];

/// Bits of a sample's `has`: which of the segment's members were known where the sample was taken.
pub(crate) mod has {
    /// seq, len, ack, flags.
    pub(crate) const SEGMENT: u32 = 1;
    /// tsval.
    pub(crate) const TSVAL: u32 = 2;
    /// Transmissions before this sample were not shown to the probe; the serial number before its own stands for them.
    pub(crate) const UNSEEN: u32 = 4;
    /// ip_id.
    pub(crate) const IP_ID: u32 = 8;
}

/// Offset in bytes of a member in a list whose members lie without gaps.
#[expect(clippy::panic, reason = "only ever evaluated by the compiler, which has no other way to refuse")]
pub(crate) const fn offset(list: &[Member], name: &str) -> usize {
    let mut at = 0;
    let mut i = 0;
    while i < list.len() {
        if same(list[i].name.as_bytes(), name.as_bytes()) {
            return at;
        }
        at += list[i].size_bytes * list[i].count;
        i += 1;
    }
    panic!("no such member")
}

/// Size in bytes of a scalar member, or of one element of an array.
#[expect(clippy::panic, reason = "only ever evaluated by the compiler, which has no other way to refuse")]
pub(crate) const fn width(list: &[Member], name: &str) -> usize {
    let mut i = 0;
    while i < list.len() {
        if same(list[i].name.as_bytes(), name.as_bytes()) {
            return list[i].size_bytes;
        }
        i += 1;
    }
    panic!("no such member")
}

/// Size in bytes of a list's structure.
pub(crate) const fn size(list: &[Member]) -> usize {
    let mut at = 0;
    let mut i = 0;
    while i < list.len() {
        at += list[i].size_bytes * list[i].count;
        i += 1;
    }
    at
}

/// Offset in bytes of each state field behind a sample's head.
pub(crate) const STATE_OFFSETS: [usize; FIELDS.len()] = {
    let mut offsets = [0; FIELDS.len()];
    let mut at = size(SAMPLE);
    let mut i = 0;
    while i < FIELDS.len() {
        assert!(at.is_multiple_of(FIELDS[i].wire.size_bytes()), "fields must stand widest first");
        offsets[i] = at;
        at += FIELDS[i].wire.size_bytes();
        i += 1;
    }
    offsets
};

/// Size in bytes of a whole sample record, a multiple of eight.
pub(crate) const SAMPLE_BYTES: usize = {
    let last = FIELDS.len() - 1;
    (STATE_OFFSETS[last] + FIELDS[last].wire.size_bytes()).next_multiple_of(8)
};

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_32_bits_and_flags_more_than_eight() {
        // the tracepoint's data_len has 16: BIG TCP goes beyond
        assert_eq!(width(SAMPLE, "len"), 4);
        // AE is the ninth bit
        assert_eq!(width(SAMPLE, "flags"), 2);
    }

    #[test]
    fn records_stay_small() {
        // at a million samples a second each of them is a MB a second
        const { assert!(SAMPLE_BYTES <= 224) };
    }
}
