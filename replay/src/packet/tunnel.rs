//! Tunnels: from the payload of an IP packet to the packet that travels in it.
//!
//! Whatever is no tunnel that is known here is not TCP. etherparse knows none of these headers but UDP's.

use std::fmt;

use etherparse::ip_number;

use super::ip::Datagram;
use super::link::{self, Network, Version};
use super::skip::Stop;
use super::{SkipReason, be16};

/// What a segment travelled in. Of tunnels in tunnels, the outermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tunnel {
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
    /// GRE (RFC 2784, RFC 2890), NVGRE (RFC 7637) included.
    Gre,
    /// ERSPAN, which mirrors a port's frames in GRE.
    Erspan,
    /// IP in IP, of either version in either version (RFC 2003, RFC 2473, RFC 4213).
    IpInIp,
}

impl Tunnel {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Vxlan, Self::Geneve, Self::Gre, Self::Erspan, Self::IpInIp];

    /// The name as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Erspan => "erspan",
            Self::IpInIp => "ipip",
        }
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A packet in a tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inner<'a> {
    pub(super) tunnel: Tunnel,
    pub(super) version: Version,
    /// What was captured of it, from its IP header on.
    pub(super) packet: &'a [u8],
    /// Its length in bytes, if the outer packet's is right.
    pub(super) wire_len: u32,
}

/// Opens the tunnel that a datagram which is not TCP may be.
pub(super) fn open<'a>(outer: &Datagram<'a>) -> Result<Inner<'a>, Stop> {
    let payload = outer.payload;
    let opened = match outer.protocol {
        ip_number::IPV4 => Ok((Tunnel::IpInIp, Network::new(Version::V4, 0))),
        ip_number::IPV6 => Ok((Tunnel::IpInIp, Network::new(Version::V6, 0))),
        ip_number::GRE => gre(payload),
        ip_number::UDP => udp(payload),
        _ => return Err(Stop::NotTcp),
    };
    let (tunnel, network) = opened.map_err(|stop| match stop {
        // Bytes that the outer packet itself does not have were cut by no snaplen.
        Stop::Skip(_) if payload.len() >= outer.len as usize && !outer.fragment => Stop::NotTcp,
        Stop::Skip(SkipReason::CutLinkHeader | SkipReason::CutIpHeader) => SkipReason::CutTunnelHeader.into(),
        stop => stop,
    })?;
    let packet = payload.get(network.offset..).ok_or(SkipReason::CutTunnelHeader)?;
    let header_len = u32::try_from(network.offset).unwrap_or(u32::MAX);
    Ok(Inner { tunnel, version: network.version, packet, wire_len: outer.len.saturating_sub(header_len) })
}

/// Transparent Ethernet bridging: what GRE and Geneve call frames.
const ETHERNET: u16 = 0x6558;

fn udp(datagram: &[u8]) -> Result<(Tunnel, Network), Stop> {
    const HEADER_LEN: usize = 8;
    match be16(datagram, 2).ok_or(SkipReason::CutTunnelHeader)? {
        // The port that IANA gave to VXLAN, and the one that Linux took before that and still takes by default.
        4789 | 8472 => vxlan(datagram, HEADER_LEN),
        6081 => geneve(datagram, HEADER_LEN),
        _ => Err(Stop::NotTcp),
    }
}

fn vxlan(datagram: &[u8], at: usize) -> Result<(Tunnel, Network), Stop> {
    const HEADER_LEN: usize = 8;
    /// The network identifier counts, as it has to.
    const I: u8 = 0x08;
    match datagram.get(at).ok_or(SkipReason::CutTunnelHeader)? & I {
        0 => Err(Stop::NotTcp),
        _ => Ok((Tunnel::Vxlan, link::ethernet(at + HEADER_LEN, datagram)?)),
    }
}

fn geneve(datagram: &[u8], at: usize) -> Result<(Tunnel, Network), Stop> {
    const HEADER_LEN: usize = 8;
    let start = *datagram.get(at).ok_or(SkipReason::CutTunnelHeader)?;
    let (version, option_words) = (start >> 6, usize::from(start & 0x3f));
    if version != 0 {
        return Err(Stop::NotTcp);
    }
    let protocol = be16(datagram, at + 2).ok_or(SkipReason::CutTunnelHeader)?;
    Ok((Tunnel::Geneve, carried(protocol, at + HEADER_LEN + option_words * 4, datagram)?))
}

fn gre(packet: &[u8]) -> Result<(Tunnel, Network), Stop> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const VERSION: u16 = 7;
    /// ERSPAN of type I or II, and of type III.
    const ERSPAN: u16 = 0x88be;
    const ERSPAN_III: u16 = 0x22eb;
    let flags = be16(packet, 0).ok_or(SkipReason::CutTunnelHeader)?;
    // As Linux does: no routes, which RFC 2784 removed, and not the PPTP of version 1.
    if flags & (ROUTING | VERSION) != 0 {
        return Err(Stop::NotTcp);
    }
    let protocol = be16(packet, 2).ok_or(SkipReason::CutTunnelHeader)?;
    let fields = [CHECKSUM, KEY, SEQUENCE].into_iter().filter(|field| flags & field != 0).count();
    let at = 4 + fields * 4;
    match protocol {
        // Type I has neither sequence numbers nor a header of its own.
        ERSPAN if flags & SEQUENCE == 0 => Ok((Tunnel::Erspan, link::ethernet(at, packet)?)),
        ERSPAN => Ok((Tunnel::Erspan, link::ethernet(at + 8, packet)?)),
        ERSPAN_III => {
            /// A subheader of 8 bytes follows.
            const O: u8 = 1;
            let end = *packet.get(at + 11).ok_or(SkipReason::CutTunnelHeader)?;
            let subheader = if end & O == 0 { 0 } else { 8 };
            Ok((Tunnel::Erspan, link::ethernet(at + 12 + subheader, packet)?))
        }
        _ => Ok((Tunnel::Gre, carried(protocol, at, packet)?)),
    }
}

/// What an EtherType announces at `at`: a frame, or what may follow in one.
fn carried(protocol: u16, at: usize, data: &[u8]) -> Result<Network, Stop> {
    if protocol == ETHERNET { link::ethernet(at, data) } else { link::ethertype(protocol, at, data) }
}
