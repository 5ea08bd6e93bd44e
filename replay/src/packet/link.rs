//! Link layer: from a frame to the start of its IP header.

mod ethertype;
mod nflog;
mod ppp;

use std::fmt;

use super::skip::Stop;
use super::{SkipReason, be16, be32};

pub(super) use ethertype::{ethernet, ethertype};

/// A capture's link type, as files number them (<https://www.tcpdump.org/linktypes.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkType(pub u32);

impl LinkType {
    /// BSD loopback: a 4-byte address family in the byte order of the capturing machine.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const EN10MB: Self = Self(1);
    /// PPP, with or without the address and control bytes of HDLC-like framing.
    pub const PPP: Self = Self(9);
    /// IP without a link header, as some BSDs number it.
    pub const RAW_BSD: Self = Self(12);
    /// IP without a link header, as OpenBSD numbers it.
    pub const RAW_OPENBSD: Self = Self(14);
    /// PPP in HDLC-like framing, or Cisco HDLC.
    pub const PPP_HDLC: Self = Self(50);
    /// PPPoE without the Ethernet header.
    pub const PPP_ETHER: Self = Self(51);
    /// IP without a link header.
    pub const RAW: Self = Self(101);
    /// OpenBSD loopback: a 4-byte address family, big-endian.
    pub const LOOP: Self = Self(108);
    /// Linux "cooked" capture, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// IPv4 without a link header.
    pub const IPV4: Self = Self(228);
    /// IPv6 without a link header.
    pub const IPV6: Self = Self(229);
    /// Linux netfilter's log messages.
    pub const NFLOG: Self = Self(239);
    /// Linux "cooked" capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);

    /// All link types that [`decode`](super::decode) reads.
    pub const SUPPORTED: [Self; 14] = [
        Self::NULL,
        Self::EN10MB,
        Self::PPP,
        Self::RAW_BSD,
        Self::RAW_OPENBSD,
        Self::PPP_HDLC,
        Self::PPP_ETHER,
        Self::RAW,
        Self::LOOP,
        Self::LINUX_SLL,
        Self::IPV4,
        Self::IPV6,
        Self::NFLOG,
        Self::LINUX_SLL2,
    ];

    /// The name that libpcap and tcpdump give to it, if it is a supported one.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::NULL => "NULL",
            Self::EN10MB => "EN10MB",
            Self::PPP => "PPP",
            Self::RAW | Self::RAW_BSD | Self::RAW_OPENBSD => "RAW",
            Self::PPP_HDLC => "PPP_SERIAL",
            Self::PPP_ETHER => "PPP_ETHER",
            Self::LOOP => "LOOP",
            Self::LINUX_SLL => "LINUX_SLL",
            Self::IPV4 => "IPV4",
            Self::IPV6 => "IPV6",
            Self::NFLOG => "NFLOG",
            Self::LINUX_SLL2 => "LINUX_SLL2",
            _ => return None,
        })
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => self.0.fmt(f),
        }
    }
}

/// The IP version that the link layer announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
    /// The link layer does not say: the IP header's first four bits do.
    InHeader,
}

/// What the link layer says of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) version: Version,
    /// Where the IP header starts, in bytes.
    pub(super) offset: usize,
    /// Index of the interface, in LINUX_SLL2 and NFLOG.
    pub(super) interface: Option<u32>,
    /// Packet type, in LINUX_SLL and LINUX_SLL2.
    pub(super) sll_type: Option<u8>,
}

impl Network {
    pub(super) fn new(version: Version, offset: usize) -> Self {
        Self { version, offset, interface: None, sll_type: None }
    }
}

/// `ARPHRD_NETLINK`: what a cooked header's protocol field holds is then a netlink family, not an EtherType.
const ARPHRD_NETLINK: u16 = 824;

/// Finds the IP header of a frame.
pub(super) fn strip(link: LinkType, data: &[u8]) -> Result<Network, Stop> {
    match link {
        LinkType::EN10MB => ethernet(0, data),
        LinkType::LINUX_SLL => {
            let sll_type = be16(data, 0).and_then(|kind| u8::try_from(kind).ok());
            Ok(Network { sll_type, ..cooked(data, 16, 14, 2)? })
        }
        LinkType::LINUX_SLL2 => {
            Ok(Network { interface: be32(data, 4), sll_type: data.get(10).copied(), ..cooked(data, 20, 0, 8)? })
        }
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => Ok(Network::new(Version::InHeader, 0)),
        LinkType::NULL | LinkType::LOOP => family(be32(data, 0).ok_or(SkipReason::CutLinkHeader)?),
        LinkType::IPV4 => Ok(Network::new(Version::V4, 0)),
        LinkType::IPV6 => Ok(Network::new(Version::V6, 0)),
        LinkType::PPP => ppp::framed(0, data),
        LinkType::PPP_HDLC => ppp::hdlc(data),
        LinkType::PPP_ETHER => ppp::over_ethernet(0, data),
        LinkType::NFLOG => nflog::strip(data),
        _ => Err(SkipReason::UnsupportedLinkType.into()),
    }
}

/// A Linux cooked header of `header_len` bytes, with its protocol and ARPHRD fields at these offsets.
fn cooked(data: &[u8], header_len: usize, protocol_at: usize, arphrd_at: usize) -> Result<Network, Stop> {
    let header = data.get(..header_len).ok_or(SkipReason::CutLinkHeader)?;
    if be16(header, arphrd_at) == Some(ARPHRD_NETLINK) {
        return Err(Stop::NotTcp);
    }
    ethertype(be16(header, protocol_at).ok_or(SkipReason::CutLinkHeader)?, header_len, data)
}

/// The address family of BSD loopback headers, in either byte order: values stay below 256, so one order only fits.
fn family(family: u32) -> Result<Network, Stop> {
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    let version = match family {
        2 => Version::V4,
        // AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, Darwin.
        10 | 24 | 28 | 30 => Version::V6,
        _ => return Err(Stop::NotTcp),
    };
    Ok(Network::new(version, 4))
}
