//! The blocks of a SACK option, kept small.

use std::fmt;

/// Selective acknowledgments of one segment (RFC 2018 section 3): up to four blocks in the order of the option, the
/// most recently received one first, or a duplicate's before it (RFC 2883).
///
/// Bytes instead of numbers have no alignment, which keeps [`Packet`](super::Packet) small.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SackBlocks {
    wire: [[u8; 8]; Self::MAX],
    /// Number of blocks, and [`Self::CUT`].
    state: u8,
}

impl SackBlocks {
    /// The most blocks that an option list of 40 bytes has room for.
    pub const MAX: usize = 4;
    /// No blocks, in a segment whose options are known.
    pub const NONE: Self = Self { wire: [[0; 8]; Self::MAX], state: 0 };

    const CUT: u8 = 0x80;

    /// Blocks as (left, right) edges, of which the first four are kept.
    pub fn new(blocks: &[(u32, u32)]) -> Self {
        let mut new = Self::NONE;
        for (place, &(left, right)) in new.wire.iter_mut().zip(blocks) {
            *place = (u64::from(left) << 32 | u64::from(right)).to_be_bytes();
            new.state += 1;
        }
        new
    }

    /// Blocks as they stand in the option, of which the first four are kept; what is no whole block is left out.
    pub(super) fn from_wire(option: &[u8]) -> Self {
        let mut new = Self::NONE;
        for (place, block) in new.wire.iter_mut().zip(option.as_chunks().0) {
            *place = *block;
            new.state += 1;
        }
        new
    }

    /// The same blocks in an option list that the snaplen cut.
    #[must_use]
    pub const fn cut(mut self) -> Self {
        self.state |= Self::CUT;
        self
    }

    /// Whether the option list was read to its end. If not, the snaplen cut it, and there may be more blocks.
    pub const fn complete(&self) -> bool {
        self.state & Self::CUT == 0
    }

    /// The blocks as (left, right): the first sequence number of each, and the one after its last, as on the wire.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.wire.iter().take(self.len()).map(|&block| {
            let edges = u64::from_be_bytes(block);
            ((edges >> 32) as u32, edges as u32)
        })
    }

    /// How many blocks there are: 0 to 4.
    pub const fn len(&self) -> usize {
        (self.state & !Self::CUT) as usize
    }

    /// Whether there are no blocks.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for SackBlocks {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()?;
        f.write_str(if self.complete() { "" } else { " cut" })
    }
}
