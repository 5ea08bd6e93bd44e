//! IP layer: from an IP header to the payload, with the length that IP gives to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::err::ipv6_exts::HeaderSliceError;
use etherparse::{IpNumber, LaxIpSlice, LaxIpv4Slice, LaxIpv6Slice, LenSource, ip_number};

use super::link::Version;
use super::skip::Stop;
use super::{SkipReason, be16, be32};

/// An IP packet that holds TCP, or that may be a tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagram<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// What the payload is: TCP, or what [`super::tunnel`] opens.
    pub(super) protocol: IpNumber,
    /// What was captured of the payload, never more than `len`.
    pub(super) payload: &'a [u8],
    /// The payload in bytes, as IP says.
    pub(super) len: u32,
    /// The first of several fragments: `len` is this fragment's share.
    pub(super) fragment: bool,
    /// Identification of an IPv4 header.
    pub(super) id: Option<u16>,
    /// Time to live or hop limit.
    pub(super) ttl: u8,
}

/// Reads IP and extension headers. `wire_len` is the packet's length on the wire, from the IP header on, in bytes.
pub(super) fn datagram(version: Version, packet: &[u8], wire_len: u32) -> Result<Datagram<'_>, Stop> {
    let nibble = packet.first().ok_or(SkipReason::CutIpHeader)? >> 4;
    let announced = match version {
        Version::V4 => nibble == 4,
        Version::V6 => nibble == 6,
        Version::InHeader => true,
    };
    if !announced {
        return Err(SkipReason::MalformedIpHeader.into());
    }
    use etherparse::err::ip::LaxHeaderSliceError::{Content, Len};
    let (ip, extension_error) = LaxIpSlice::from_slice(packet).map_err(|error| match error {
        Len(_) => SkipReason::CutIpHeader,
        Content(_) => SkipReason::MalformedIpHeader,
    })?;
    let extensions = match extension_error {
        None => Ok(()),
        // The IP length, not the captured bytes, ends the extension header too early: no snaplen does that.
        Some((HeaderSliceError::Len(error), _)) if error.len_source == LenSource::Slice => {
            Err(SkipReason::CutIpExtension)
        }
        Some(_) => Err(SkipReason::MalformedIpHeader),
    };
    match ip {
        LaxIpSlice::Ipv4(ip) => ipv4(&ip, extensions, wire_len),
        LaxIpSlice::Ipv6(ip) => ipv6(&ip, extensions, wire_len),
    }
}

fn ipv4<'a>(ip: &LaxIpv4Slice<'a>, extensions: Result<(), SkipReason>, wire_len: u32) -> Result<Datagram<'a>, Stop> {
    let header = ip.header();
    if header.fragments_offset().value() != 0 {
        return Err(later_fragment(header.protocol()));
    }
    extensions?;
    let payload = ip.payload();
    readable(payload.ip_number)?;
    let auth_len = ip.extensions().auth.map_or(0, |auth| auth.slice().len());
    let total_len = match header.total_len() {
        0 => wire_len,
        total_len => total_len.into(),
    };
    Ok(Datagram {
        src: Ipv4Addr::from(header.source()).into(),
        dst: Ipv4Addr::from(header.destination()).into(),
        protocol: payload.ip_number,
        payload: payload.payload,
        len: minus(total_len, header.slice().len() + auth_len)?,
        fragment: payload.fragmented,
        id: Some(header.identification()),
        ttl: header.ttl(),
    })
}

fn ipv6<'a>(ip: &LaxIpv6Slice<'a>, extensions: Result<(), SkipReason>, wire_len: u32) -> Result<Datagram<'a>, Stop> {
    const HEADER_LEN: usize = 40;
    let header = ip.header();
    let chain = Chain { next: header.next_header(), rest: ip.extensions().slice() };
    let mut jumbo_len = None;
    for (kind, bytes) in chain {
        match kind {
            ip_number::IPV6_HOP_BY_HOP => jumbo_len = jumbo_payload_len(bytes),
            // What follows a later fragment's header is payload, even if etherparse read more headers there.
            ip_number::IPV6_FRAG if be16(bytes, 2).is_some_and(|field| field >> 3 != 0) => {
                return Err(later_fragment(IpNumber(bytes.first().copied().unwrap_or_default())));
            }
            _ => {}
        }
    }
    extensions?;
    let payload = ip.payload();
    readable(payload.ip_number)?;
    let payload_len = match header.payload_length() {
        0 => match jumbo_len {
            Some(jumbo_len) => jumbo_len,
            None => minus(wire_len, HEADER_LEN)?,
        },
        payload_len => payload_len.into(),
    };
    Ok(Datagram {
        src: canonical(header.source()),
        dst: canonical(header.destination()),
        protocol: payload.ip_number,
        payload: payload.payload,
        len: minus(payload_len, ip.extensions().slice().len())?,
        fragment: payload.fragmented,
        id: None,
        ttl: header.hop_limit(),
    })
}

/// The whole extension headers of an IPv6 packet, each with its kind and its bytes.
///
/// Not etherparse's iterator: in 0.21 that one trusts its input, and after a lax parse that stopped at a broken
/// header it reads past the end of the slice.
struct Chain<'a> {
    next: IpNumber,
    rest: &'a [u8],
}

impl<'a> Iterator for Chain<'a> {
    type Item = (IpNumber, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let words = usize::from(*self.rest.get(1)?);
        let len = match self.next {
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_ROUTE | ip_number::IPV6_DEST_OPTIONS => (words + 1) * 8,
            ip_number::IPV6_FRAG => 8,
            ip_number::AUTH => (words + 2) * 4,
            _ => return None,
        };
        let (header, rest) = self.rest.split_at_checked(len)?;
        let item = (self.next, header);
        self.next = IpNumber(*header.first()?);
        self.rest = rest;
        Some(item)
    }
}

/// The jumbo payload option of a hop-by-hop header (RFC 2675): the payload's length in bytes, always above 65,535.
fn jumbo_payload_len(hop_by_hop: &[u8]) -> Option<u32> {
    const PAD1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    let mut options = hop_by_hop.get(2..)?;
    loop {
        match *options {
            [PAD1, ref rest @ ..] => options = rest,
            [JUMBO, 4, ..] => return be32(options, 2).filter(|&len| len > u16::MAX.into()),
            [_, len, ref rest @ ..] => options = rest.get(len.into()..)?,
            _ => return None,
        }
    }
}

/// A fragment without ports: skipped if TCP may be in it, behind further headers, in a tunnel or not. Not so for UDP:
/// hardly any of its fragments are of a tunnel.
fn later_fragment(next: IpNumber) -> Stop {
    match next {
        ip_number::TCP | ip_number::AUTH | ip_number::IPV6_DEST_OPTIONS | ip_number::IPV6_ROUTE => {
            SkipReason::LaterFragment.into()
        }
        ip_number::IPV4 | ip_number::IPV6 | ip_number::GRE => SkipReason::LaterFragment.into(),
        _ => Stop::NotTcp,
    }
}

fn readable(protocol: IpNumber) -> Result<(), Stop> {
    match protocol {
        ip_number::TCP | ip_number::UDP | ip_number::IPV4 | ip_number::IPV6 | ip_number::GRE => Ok(()),
        _ => Err(Stop::NotTcp),
    }
}

/// What is left of an IP length without its headers; less than nothing is no valid packet.
fn minus(len: u32, headers: usize) -> Result<u32, Stop> {
    u32::try_from(headers)
        .ok()
        .and_then(|headers| len.checked_sub(headers))
        .ok_or(Stop::Skip(SkipReason::MalformedIpHeader))
}

fn canonical(address: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(address).to_canonical()
}
