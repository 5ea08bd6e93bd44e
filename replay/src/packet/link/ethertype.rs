//! What an EtherType announces: IP, or a tag, label or session header in front of it.

use super::{Network, Version, ppp};
use crate::packet::skip::Stop;
use crate::packet::{SkipReason, be16, be32};

/// Up to here the field is a length (IEEE 802.3), and a header of logical link control follows.
const MAX_LENGTH: u16 = 1500;

/// An Ethernet header at byte `at`.
pub(in crate::packet) fn ethernet(at: usize, data: &[u8]) -> Result<Network, Stop> {
    ethertype(be16(data, at + 12).ok_or(SkipReason::CutLinkHeader)?, at + 14, data)
}

/// Follows VLAN tags and MPLS labels, any number of them, from an EtherType whose payload starts at `offset`.
pub(in crate::packet) fn ethertype(mut ethertype: u16, mut offset: usize, data: &[u8]) -> Result<Network, Stop> {
    loop {
        match ethertype {
            0x0800 => return Ok(Network::new(Version::V4, offset)),
            0x86dd => return Ok(Network::new(Version::V6, offset)),
            // 802.1Q, 802.1ad, and the type that came before 802.1ad: 2 bytes of tag, then the next EtherType.
            0x8100 | 0x88a8 | 0x9100 => {
                ethertype = be16(data, offset + 2).ok_or(SkipReason::CutLinkHeader)?;
                offset += 4;
            }
            0x8847 | 0x8848 => return mpls(offset, data),
            0x8864 => return ppp::over_ethernet(offset, data),
            ..=MAX_LENGTH => {
                ethertype = snap(offset, data)?;
                offset += SNAP_LEN;
            }
            _ => return Err(Stop::NotTcp),
        }
    }
}

/// Logical link control and SNAP in bytes.
const SNAP_LEN: usize = 8;

/// The EtherType in a SNAP header (RFC 1042); other logical link control carries no IP.
fn snap(offset: usize, data: &[u8]) -> Result<u16, Stop> {
    const RFC_1042: [u8; 6] = [0xaa, 0xaa, 0x03, 0, 0, 0];
    let captured = data.get(offset..).unwrap_or_default();
    if RFC_1042.iter().zip(captured).any(|(expected, byte)| expected != byte) {
        return Err(Stop::NotTcp);
    }
    be16(captured, RFC_1042.len()).ok_or(SkipReason::CutLinkHeader.into())
}

/// MPLS (RFC 3032): labels of 4 bytes, up to the one that is marked as the bottom. What follows is not announced; as
/// routers do, take it for IP where its first four bits are an IP version.
fn mpls(mut offset: usize, data: &[u8]) -> Result<Network, Stop> {
    const BOTTOM_OF_STACK: u32 = 0x100;
    loop {
        let label = be32(data, offset).ok_or(SkipReason::CutLinkHeader)?;
        offset += 4;
        if label & BOTTOM_OF_STACK != 0 {
            break;
        }
    }
    match data.get(offset).ok_or(SkipReason::CutIpHeader)? >> 4 {
        4 => Ok(Network::new(Version::V4, offset)),
        6 => Ok(Network::new(Version::V6, offset)),
        _ => Err(Stop::NotTcp),
    }
}
