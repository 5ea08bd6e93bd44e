//! Writes frames and capture files, field by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use tcpprobe_replay::packet::{Decoded, LinkType, SackBlocks, Segment, SkipReason, TcpFlags, decode};
use tempfile::TempDir;

pub(crate) const PAYLOAD: &[u8] = b"hello, peer";

/// NOP, NOP, timestamps: what Linux puts into every segment of an established connection.
pub(crate) const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0x11, 0x12, 0x13, 0x14, 0x21, 0x22, 0x23, 0x24];

/// A TCP segment with these options (a multiple of 4 bytes) and this payload.
pub(crate) fn tcp(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x9c, 0x40, 0x01, 0xbb]; // ports 40000 and 443
    bytes.extend([0xff, 0xff, 0xff, 0xf0]); // sequence number
    bytes.extend([0x01, 0x02, 0x03, 0x04]); // acknowledgment number
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    bytes.extend([words << 4, 0x18]); // data offset; PSH, ACK
    bytes.extend([0x01, 0xf6]); // window 502
    bytes.extend([0, 0, 0, 0]); // checksum, urgent pointer
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

/// The usual segment: timestamps and [`PAYLOAD`].
pub(crate) fn usual_tcp() -> Vec<u8> {
    tcp(&TIMESTAMPS, PAYLOAD)
}

/// What [`usual_tcp`] says, over IPv4.
pub(crate) fn usual() -> Segment {
    Segment {
        src: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        dst: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
        src_port: 40_000,
        dst_port: 443,
        seq: 0xffff_fff0,
        ack: 0x0102_0304,
        len: 11,
        flags: TcpFlags(0x018),
        window: 502,
        tsval: Some(0x1112_1314),
        tsecr: Some(0x2122_2324),
        sack: SackBlocks::NONE,
        varying_options_bytes: 0,
        ip_id: Some(0x1234),
        ttl: 64,
        interface: None,
        sll_type: None,
        tunnel: None,
    }
}

/// What [`usual_tcp`] says, over IPv6.
pub(crate) fn usual_v6() -> Segment {
    Segment {
        src: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        dst: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
        ip_id: None,
        ttl: 63,
        ..usual()
    }
}

/// An IPv4 packet; `total_len` overrides the true length, `fragment` is the field with flags and offset.
pub(crate) fn ipv4_with(
    protocol: u8,
    options: &[u8],
    fragment: u16,
    total_len: Option<u16>,
    payload: &[u8],
) -> Vec<u8> {
    let header_len = 20 + options.len();
    let total_len = total_len.unwrap_or_else(|| u16::try_from(header_len + payload.len()).unwrap());
    let mut bytes = vec![0x40 | u8::try_from(header_len / 4).unwrap(), 0];
    bytes.extend(total_len.to_be_bytes());
    bytes.extend([0x12, 0x34]); // identification
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]); // time to live, protocol, checksum
    bytes.extend([192, 0, 2, 1, 198, 51, 100, 7]);
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

pub(crate) fn ipv4(payload: &[u8]) -> Vec<u8> {
    ipv4_with(6, &[], 0x4000, None, payload)
}

/// An IPv6 packet; `payload_len` overrides the true length.
pub(crate) fn ipv6_with(next: u8, payload_len: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let payload_len = payload_len.unwrap_or_else(|| u16::try_from(payload.len()).unwrap());
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(payload_len.to_be_bytes());
    bytes.extend([next, 63]);
    for last in [1, 2] {
        bytes.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    bytes.extend(payload);
    bytes
}

pub(crate) fn ipv6(payload: &[u8]) -> Vec<u8> {
    ipv6_with(6, None, payload)
}

/// An Ethernet frame; `types` are the EtherType and, in front of the payload, what tags need.
pub(crate) fn ethernet(types: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2], types, payload].concat()
}

/// Decodes a frame that was captured whole.
pub(crate) fn whole(link: LinkType, frame: &[u8]) -> Decoded {
    decode(link, frame, u32::try_from(frame.len()).unwrap())
}

pub(crate) fn skipped(reason: SkipReason) -> Decoded {
    Decoded::Skipped(reason)
}

/// A byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Little,
    Big,
}

impl Order {
    pub(crate) const BOTH: [Self; 2] = [Self::Little, Self::Big];

    pub(crate) fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    pub(crate) fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    pub(crate) fn u64(self, value: u64) -> [u8; 8] {
        if self == Self::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }
}

pub(crate) const MICROSECONDS: u32 = 0xa1b2_c3d4;
pub(crate) const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// The file header of a classic capture.
pub(crate) fn pcap(order: Order, magic: u32, link: u32) -> Vec<u8> {
    let mut bytes = order.u32(magic).to_vec();
    bytes.extend([order.u16(2), order.u16(4)].concat());
    for field in [0, 0, 262_144, link] {
        bytes.extend(order.u32(field));
    }
    bytes
}

/// A record of a classic capture.
pub(crate) fn record(order: Order, s: u32, fraction: u32, frame: &[u8], orig_len: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [s, fraction, u32::try_from(frame.len()).unwrap(), orig_len] {
        bytes.extend(order.u32(field));
    }
    bytes.extend(frame);
    bytes
}

/// A pcapng block with its body padded.
pub(crate) fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = body.len().next_multiple_of(4) - body.len();
    let len = u32::try_from(12 + body.len() + padding).unwrap();
    [&order.u32(kind)[..], &order.u32(len), body, &vec![0; padding], &order.u32(len)].concat()
}

pub(crate) fn section(order: Order) -> Vec<u8> {
    let body = [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &order.u64(u64::MAX)].concat();
    block(order, 0x0a0d_0d0a, &body)
}

/// An option with its value padded.
pub(crate) fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [order.u16(code), order.u16(u16::try_from(value.len()).unwrap())].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(crate) fn interface(order: Order, link: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
    let mut body = [&order.u16(link)[..], &order.u16(0), &order.u32(snaplen), options].concat();
    if !options.is_empty() {
        body.extend([0; 4]);
    }
    block(order, 1, &body)
}

/// An enhanced packet block.
pub(crate) fn enhanced(order: Order, interface: u32, ts: u64, frame: &[u8], orig_len: u32) -> Vec<u8> {
    let ts = [u32::try_from(ts >> 32).unwrap(), u32::try_from(ts & 0xffff_ffff).unwrap()];
    let mut body = Vec::new();
    for field in [interface, ts[0], ts[1], u32::try_from(frame.len()).unwrap(), orig_len] {
        body.extend(order.u32(field));
    }
    body.extend(frame);
    block(order, 6, &body)
}

/// A capture file that lives as long as the test.
pub(crate) struct Written {
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

pub(crate) fn written(bytes: &[u8]) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cap.pcap");
    std::fs::write(&path, bytes).unwrap();
    Written { path, _folder: folder }
}
