//! NFLOG: what `tcpdump -i nflog:N` writes; a fixed header, then netlink attributes, of which one is the packet.

use super::{Network, Version};
use crate::packet::skip::Stop;
use crate::packet::{SkipReason, be32};

// Attributes: `enum nfulnl_attr_type` of linux/netfilter/nfnetlink_log.h.
const IFINDEX_IN: u8 = 4;
const IFINDEX_OUT: u8 = 5;
const PAYLOAD: u8 = 9;

/// Address family, version and resource in bytes.
const HEADER_LEN: usize = 4;
/// Length and type of an attribute in bytes.
const ATTRIBUTE_LEN: usize = 4;

/// Finds the packet among the attributes. The interface is the one that it leaves by, or else the one that it came by.
pub(super) fn strip(data: &[u8]) -> Result<Network, Stop> {
    let version = match data.first().ok_or(SkipReason::CutLinkHeader)? {
        // AF_INET and AF_INET6; for bridges and ARP it is a frame's payload of unknown kind.
        2 => Version::V4,
        10 => Version::V6,
        _ => return Err(Stop::NotTcp),
    };
    let (mut at, mut came_by, mut leaves_by) = (HEADER_LEN, None, None);
    loop {
        let (kind, len) = attribute(data, at)?;
        let value = at + ATTRIBUTE_LEN;
        match kind {
            PAYLOAD => {
                let interface = leaves_by.or(came_by);
                return Ok(Network { interface, ..Network::new(version, value) });
            }
            IFINDEX_IN => came_by = be32(data, value),
            IFINDEX_OUT => leaves_by = be32(data, value),
            _ => {}
        }
        at += len.next_multiple_of(ATTRIBUTE_LEN);
    }
}

/// Type and length, in either byte order: types stay below 256 beside their two flag bits, so one order only fits.
fn attribute(data: &[u8], at: usize) -> Result<(u8, usize), Stop> {
    const FLAGS: u8 = 0xc0;
    let head = data.get(at..).and_then(|attribute| attribute.first_chunk());
    let &[l0, l1, t0, t1]: &[u8; ATTRIBUTE_LEN] = head.ok_or(SkipReason::CutLinkHeader)?;
    let (kind, len) = match (t0, t1) {
        (kind, flags) if kind != 0 && flags & !FLAGS == 0 => (kind, u16::from_le_bytes([l0, l1])),
        (flags, kind) if kind != 0 && flags & !FLAGS == 0 => (kind, u16::from_be_bytes([l0, l1])),
        _ => return Err(Stop::NotTcp),
    };
    // A length that does not even cover itself would never advance.
    if usize::from(len) < ATTRIBUTE_LEN { Err(Stop::NotTcp) } else { Ok((kind, len.into())) }
}
