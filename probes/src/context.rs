//! What it takes to decode records elsewhere: on another day, in another process, perhaps on another kernel.
//!
//! Owns its bytes, which may come from anyone when they are read again.

use tcpprobe_trace::internals::INTERNALS as COLUMNS;

use crate::bytes::Bytes;
use crate::fields::FIELDS;
use crate::internals::{Layouts, column_order};
use crate::layout::{FLOW, INTERNALS, SAMPLE};
use crate::records::Decoder;

/// A number for how records are laid out and understood: another one where this version writes them otherwise.
pub fn records_id() -> u64 {
    let mut hash = Fnv::default();
    for list in [SAMPLE, FLOW, INTERNALS] {
        for member in list {
            hash.add(member.name.as_bytes());
            hash.add(&(member.size_bytes as u64).to_le_bytes());
            hash.add(&(member.count as u64).to_le_bytes());
        }
        hash.add(b"|");
    }
    for field in FIELDS {
        hash.add(format!("{} {:?} {:?}", field.name, field.wire, field.convert).as_bytes());
    }
    for column in COLUMNS {
        hash.add(column.name.as_bytes());
    }
    for column in column_order() {
        hash.add(&(column as u64).to_le_bytes());
    }
    // records have the byte order of their machine
    hash.add(&1_u16.to_ne_bytes());
    hash.0
}

/// FNV-1a: the same in every version and on every machine.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// What a decoder must know.
pub(crate) fn keep(layouts: &Layouts, tick_ns: u64) -> Vec<u8> {
    let mut bytes = tick_ns.to_le_bytes().to_vec();
    layouts.keep(&mut bytes);
    bytes
}

impl Decoder {
    /// A decoder for records that were taken elsewhere, from what [`crate::Sampler::context`] gave there. `None`: these
    /// bytes are no such thing. Of congestion controls that were loaded later nothing is known.
    pub fn from_context(context: &[u8]) -> Option<Decoder> {
        let mut bytes = Bytes::new(context);
        let tick_ns = bytes.u64()?;
        let layouts = Layouts::kept(&mut bytes, tick_ns)?;
        bytes.is_empty().then(|| Decoder::new(layouts, tick_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn a_context_is_read_as_it_was_kept_and_a_cut_one_is_refused() {
        let layouts = Layouts::find(synthetic::TICK_NS);
        let context = keep(&layouts, synthetic::TICK_NS);
        let read = Layouts::kept(&mut Bytes::new(&context[8..]), synthetic::TICK_NS).unwrap();
        assert_eq!(keep(&read, synthetic::TICK_NS), context);
        assert!(read.masks().eq(layouts.masks()));
        assert!(Decoder::from_context(&context).is_some());
        for end in 0..context.len() {
            assert!(Decoder::from_context(&context[..end]).is_none(), "cut after {end}");
        }
        let longer = [&context[..], &[0]].concat();
        assert!(Decoder::from_context(&longer).is_none());
    }

    #[test]
    fn bytes_of_someone_else_make_no_layout_that_reads_beyond_a_word() {
        let layouts = Layouts::find(synthetic::TICK_NS);
        let context = keep(&layouts, u64::MAX);
        for at in 0..context.len() {
            for bit in 0..8 {
                let mut changed = context.clone();
                changed[at] ^= 1 << bit;
                // whatever it says, it can be decoded with
                let _ = Decoder::from_context(&changed);
            }
        }
    }
}
