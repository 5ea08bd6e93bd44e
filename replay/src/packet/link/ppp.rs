//! PPP (RFC 1661): bare, in HDLC-like framing (RFC 1662), over Ethernet (RFC 2516); and Cisco's HDLC.

use super::{Network, Version, ethertype};
use crate::packet::skip::Stop;
use crate::packet::{SkipReason, be16};

/// PPP at byte `at`, perhaps behind the address and control bytes of HDLC-like framing.
pub(super) fn framed(at: usize, data: &[u8]) -> Result<Network, Stop> {
    const ADDRESS: u8 = 0xff;
    const CONTROL: u8 = 0x03;
    match (data.get(at), data.get(at + 1)) {
        (Some(&ADDRESS), None) => Err(SkipReason::CutLinkHeader.into()),
        (Some(&ADDRESS), Some(&CONTROL)) => protocol(at + 2, data),
        _ => protocol(at, data),
    }
}

/// A serial line: PPP, or by its address byte (unicast, broadcast) Cisco HDLC with an EtherType.
pub(super) fn hdlc(data: &[u8]) -> Result<Network, Stop> {
    match data.first() {
        Some(0x0f | 0x8f) => ethertype(be16(data, 2).ok_or(SkipReason::CutLinkHeader)?, 4, data),
        _ => framed(0, data),
    }
}

/// The session stage of PPPoE at byte `at`: version and type, code, session, length.
pub(super) fn over_ethernet(at: usize, data: &[u8]) -> Result<Network, Stop> {
    const SESSION: u16 = 0x1100;
    const HEADER_LEN: usize = 6;
    match be16(data, at).ok_or(SkipReason::CutLinkHeader)? {
        SESSION => protocol(at + HEADER_LEN, data),
        _ => Err(Stop::NotTcp),
    }
}

/// The protocol field: 2 bytes, or 1 where the peers agreed to leave out a first one of 0 (RFC 1661 section 6.5).
fn protocol(at: usize, data: &[u8]) -> Result<Network, Stop> {
    const IPV4: u16 = 0x0021;
    const IPV6: u16 = 0x0057;
    const MPLS: u16 = 0x0281;
    let first = *data.get(at).ok_or(SkipReason::CutLinkHeader)?;
    let (protocol, offset) = match first & 1 {
        0 => (be16(data, at).ok_or(SkipReason::CutLinkHeader)?, at + 2),
        _ => (first.into(), at + 1),
    };
    match protocol {
        IPV4 => Ok(Network::new(Version::V4, offset)),
        IPV6 => Ok(Network::new(Version::V6, offset)),
        MPLS => ethertype(0x8847, offset, data),
        _ => Err(Stop::NotTcp),
    }
}
