//! A frame without what tells whose it was: in place, at the offsets at which the decoder reads it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, ip_number};

use super::be16;
use super::link::{LinkType, strip};

/// TCP's own part of its header in bytes.
const TCP_BYTES: usize = 20;
/// Place of the checksum in it.
const TCP_CHECKSUM: Range<usize> = 16..18;
/// Options that hold numbers of the connection alone: maximum segment size, window scale, SACK permitted, SACK,
/// timestamps, AccECN 0 and 1.
const PLAIN_OPTIONS: [u8; 7] = [2, 3, 4, 5, 8, 172, 174];
/// Options of IPv6.
const PAD_1: u8 = 0;
const PAD_N: u8 = 1;
const JUMBO: u8 = 0xc2;
const END_OF_OPTIONS: u8 = 0;
const NO_OPTION: u8 = 1;

/// Rewrites a frame; returns how many of its bytes are left. `None`: it must be left out.
pub(crate) fn rewrite(link: LinkType, frame: &mut [u8], mut address: impl FnMut(IpAddr) -> IpAddr) -> Option<usize> {
    let ip_at = strip(link, frame).ok()?.offset;
    frame.get_mut(hardware_addresses(link)?)?.fill(0);
    let ip = frame.get_mut(ip_at..)?;
    let tcp_at = match ip.first()? >> 4 {
        4 => rewrite_v4(ip, &mut address)?,
        6 => rewrite_v6(ip, &mut address)?,
        _ => return None,
    };
    let tcp_bytes = rewrite_tcp(ip.get_mut(tcp_at..)?)?;
    Some(ip_at + tcp_at + tcp_bytes)
}

/// Where a link header has addresses; `None`: that is not known.
fn hardware_addresses(link: LinkType) -> Option<Range<usize>> {
    Some(match link {
        LinkType::EN10MB => 0..12,
        LinkType::LINUX_SLL => 6..14,
        LinkType::LINUX_SLL2 => 12..20,
        LinkType::NULL | LinkType::LOOP | LinkType::IPV4 | LinkType::IPV6 => 0..0,
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => 0..0,
        _ => return None,
    })
}

/// Returns where TCP begins.
fn rewrite_v4(ip: &mut [u8], address: &mut impl FnMut(IpAddr) -> IpAddr) -> Option<usize> {
    let header = Ipv4HeaderSlice::from_slice(ip).ok()?;
    let is_first = header.fragments_offset().value() == 0;
    if header.protocol() != ip_number::TCP || !is_first {
        return None;
    }
    let header_bytes = header.slice().len();
    for at in [12, 16] {
        let octets: &mut [u8; 4] = ip.get_mut(at..)?.first_chunk_mut()?;
        // the same family comes back
        let IpAddr::V4(rewritten) = address(Ipv4Addr::from(*octets).into()) else { return None };
        *octets = rewritten.octets();
    }
    // routes that were recorded, or are to be taken, are addresses too
    ip.get_mut(20..header_bytes)?.fill(NO_OPTION);
    let checksum = Ipv4HeaderSlice::from_slice(ip).ok()?.to_header().calc_header_checksum();
    ip.get_mut(10..12)?.copy_from_slice(&checksum.to_be_bytes());
    Some(header_bytes)
}

/// Returns where TCP begins.
fn rewrite_v6(ip: &mut [u8], address: &mut impl FnMut(IpAddr) -> IpAddr) -> Option<usize> {
    let mut next = Ipv6HeaderSlice::from_slice(ip).ok()?.next_header();
    let mut at = 40;
    while next != ip_number::TCP {
        let (following, bytes) = (*ip.get(at)?, *ip.get(at + 1)?);
        let extension = at..at
            + match next {
                ip_number::IPV6_HEADER_HOP_BY_HOP => {
                    let bytes = (usize::from(bytes) + 1) * 8;
                    ip.get(at + 2..at + bytes).filter(|options| are_plain(options))?;
                    bytes
                }
                // the first one alone has the segment's header
                ip_number::IPV6_FRAGMENTATION_HEADER if be16(ip, at + 2)? & !7 == 0 => 8,
                // routing and mobility are made of addresses
                _ => return None,
            };
        at = ip.get(extension.clone()).map(|_| extension.end)?;
        next = following.into();
    }
    for octets_at in [8, 24] {
        let octets: &mut [u8; 16] = ip.get_mut(octets_at..)?.first_chunk_mut()?;
        *octets = match address(Ipv6Addr::from(*octets).into()) {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
    }
    Some(at)
}

/// Do these options of IPv6 hold padding and the length of a jumbogram (RFC 2675) alone? Others have addresses, or may.
fn are_plain(mut options: &[u8]) -> bool {
    loop {
        options = match options {
            [] => return true,
            [PAD_1, rest @ ..] => rest,
            [kind, bytes, rest @ ..] => {
                let Some((value, rest)) = rest.split_at_checked((*bytes).into()) else { return false };
                match *kind {
                    PAD_N if value.iter().all(|&byte| byte == 0) => rest,
                    JUMBO if value.len() == 4 => rest,
                    _ => return false,
                }
            }
            [_] => return false,
        };
    }
}

/// Returns the length of the header, which must be there as a whole.
fn rewrite_tcp(tcp: &mut [u8]) -> Option<usize> {
    let header_bytes = usize::from(tcp.get(12)? >> 4) * 4;
    let header = tcp.get_mut(..header_bytes).filter(|h| h.len() >= TCP_BYTES)?;
    // a sum over the true addresses and the payload: of a segment that is yet to be summed up, over nothing else
    header.get_mut(TCP_CHECKSUM)?.fill(0);
    let mut options = header.get_mut(TCP_BYTES..)?;
    loop {
        let bytes = match &*options {
            [] | [END_OF_OPTIONS, ..] => break,
            [NO_OPTION, ..] => 1,
            [_, bytes, ..] if (2..=options.len()).contains(&usize::from(*bytes)) => usize::from(*bytes),
            _ => break,
        };
        let (option, rest) = std::mem::take(&mut options).split_at_mut_checked(bytes)?;
        // ADD_ADDR of MPTCP is an address; what is not known may be one
        if option.first().is_some_and(|kind| !PLAIN_OPTIONS.contains(kind)) {
            option.fill(NO_OPTION);
        }
        options = rest;
    }
    // behind the end, or what has no length
    options.fill(END_OF_OPTIONS);
    Some(header_bytes)
}
