//! Layouts as bytes, for records that another process decodes, perhaps on another kernel.

use super::{Bits, Found, JiffyClock, KNOWN, Layout, Layouts, SOURCES, in_one_word};
use crate::bytes::Bytes;

impl Layouts {
    /// Adds what [`Layouts::kept`] reads.
    pub(crate) fn keep(&self, into: &mut Vec<u8>) {
        into.push(self.found.len() as u8);
        for found in &self.found {
            let owner = found.owner.as_bytes();
            // a module's name has at most 55 bytes
            let owner = &owner[..owner.len().min(usize::from(u8::MAX))];
            into.push(owner.len() as u8);
            into.extend_from_slice(owner);
            into.push(u8::from(found.layout.is_some()));
            for members in found.layout.iter().flat_map(|layout| &layout.members) {
                into.push(members.len() as u8);
                for bits in members {
                    into.extend_from_slice(&bits.offset_bits.to_le_bytes());
                    into.extend_from_slice(&bits.size_bits.to_le_bytes());
                }
            }
        }
    }

    /// Layouts that were kept; `None` where these bytes are none.
    pub(crate) fn kept(bytes: &mut Bytes<'_>, tick_ns: u64) -> Option<Layouts> {
        let count = usize::from(bytes.u8()?);
        if count > KNOWN.len() {
            return None;
        }
        let mut found = Vec::with_capacity(count);
        for _ in 0..count {
            let owner_bytes = usize::from(bytes.u8()?);
            let owner = String::from_utf8(bytes.take(owner_bytes)?.to_vec()).ok()?;
            let layout = match bytes.u8()? {
                0 => None,
                _ => Some(Layout {
                    members: SOURCES.iter().map(|s| members(bytes, s.members.len())).collect::<Option<_>>()?,
                }),
            };
            found.push(Found { owner, layout });
        }
        Some(Layouts { found, clock: JiffyClock::new(tick_ns), here: false })
    }
}

/// The members of one column: all of them, or none.
fn members(bytes: &mut Bytes<'_>, wanted: usize) -> Option<Vec<Bits>> {
    let count = usize::from(bytes.u8()?);
    if count != 0 && count != wanted {
        return None;
    }
    (0..count).map(|_| Some(Bits { offset_bits: bytes.u32()?, size_bits: bytes.u32()? }).filter(in_one_word)).collect()
}
