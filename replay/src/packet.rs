//! One captured TCP segment: what its headers say, from the link layer up to the TCP options.
//!
//! Pure functions from bytes to numbers; knows nothing of capture files, of samples or of flows. Tunnels are opened:
//! a packet is the innermost segment, with the addresses of the IP header around it.

pub(crate) mod anonymous;
mod flags;
mod ip;
mod link;
mod sack;
mod skip;
mod tcp;
mod tunnel;

use std::net::IpAddr;

use etherparse::ip_number;

pub use flags::TcpFlags;
pub use link::LinkType;
pub use sack::SackBlocks;
pub use skip::SkipReason;
pub use tunnel::Tunnel;

use skip::Stop;

/// A TCP segment as captured: [`Segment`] with its place in the capture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Frame number over the whole file, from 1, as Wireshark shows it.
    pub number: u64,
    /// Capture time in ns since the Unix epoch. `None`: the file has no time for this frame (simple packet block), or
    /// one that does not fit (before 1677, after 2262).
    pub ts_ns: Option<i64>,
    /// Source address, of the inner header in a tunnel; an IPv4-mapped IPv6 address (::ffff:a.b.c.d) is given as IPv4.
    pub src: IpAddr,
    /// Destination address, in the same form as `src`.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number as on the wire, modulo 2³².
    pub seq: u32,
    /// Acknowledgment number as on the wire; meaningful only with the ACK flag.
    pub ack: u32,
    /// TCP payload in bytes, without SYN and FIN. From the headers, not from the captured bytes; above 65,535 for
    /// super-packets.
    pub len: u32,
    /// The nine flag bits.
    pub flags: TcpFlags,
    /// Window field as on the wire, not scaled.
    pub window: u16,
    /// TSval of the timestamps option (RFC 7323). `None`: no such option, or not wholly captured.
    pub tsval: Option<u32>,
    /// TSecr of the timestamps option; `None` as for `tsval`.
    pub tsecr: Option<u32>,
    /// The blocks of the SACK option.
    pub sack: SackBlocks,
    /// Bytes of the header that options take which come and go from segment to segment (SACK, MPTCP's DSS, AccECN),
    /// padding included: timestamps and signatures, which every segment has, left aside. 0 as well where the snaplen cut
    /// the options.
    pub varying_options_bytes: u8,
    /// Identification of the IPv4 header, of the inner one in a tunnel. `None`: IPv6 has none.
    pub ip_id: Option<u16>,
    /// Time to live or hop limit of that header.
    pub ttl: u8,
    /// Where it was captured: the interface's index by the LINUX_SLL2 or NFLOG header, or else its number in a pcapng file
    /// that has described several, counted over all sections. `None`: the capture does not say.
    pub interface: Option<u32>,
    /// Packet type of the LINUX_SLL or LINUX_SLL2 header: 0 for this host, 1 broadcast, 2 multicast, 3 for another
    /// host, 4 sent by this host. `None`: no such header.
    pub sll_type: Option<u8>,
    /// The tunnel that was opened to find it, of several the outermost.
    pub tunnel: Option<Tunnel>,
}

/// The headers of one TCP segment: a [`Packet`] that does not yet know its number and its time. Fields as there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is documented at Packet")]
pub struct Segment {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub src_port: u16,
    pub dst_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub len: u32,
    pub flags: TcpFlags,
    pub window: u16,
    pub tsval: Option<u32>,
    pub tsecr: Option<u32>,
    pub sack: SackBlocks,
    pub varying_options_bytes: u8,
    pub ip_id: Option<u16>,
    pub ttl: u8,
    pub interface: Option<u32>,
    pub sll_type: Option<u8>,
    pub tunnel: Option<Tunnel>,
}

impl Segment {
    /// The segment as frame `number` of a capture, seen at `ts_ns`.
    pub fn at(self, number: u64, ts_ns: Option<i64>) -> Packet {
        let Self { src, dst, src_port, dst_port, seq, ack, len, flags, window, tsval, tsecr, .. } = self;
        let Self { sack, varying_options_bytes, ip_id, ttl, interface, sll_type, tunnel, .. } = self;
        Packet {
            number,
            ts_ns,
            src,
            dst,
            src_port,
            dst_port,
            seq,
            ack,
            len,
            flags,
            window,
            tsval,
            tsecr,
            sack,
            varying_options_bytes,
            ip_id,
            ttl,
            interface,
            sll_type,
            tunnel,
        }
    }
}

/// How many tunnels within each other are opened. Real networks have two, of a virtual machine's host and of its own.
pub const MAX_TUNNELS: usize = 4;

/// What a frame turned out to be. Every frame is exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// A TCP segment.
    Tcp(Segment),
    /// No TCP segment that could be read: ARP, UDP, a tunnel of another kind, …
    NotTcp,
    /// It may have been one, but the bytes do not say enough.
    Skipped(SkipReason),
}

/// Reads a frame's headers as far as its captured bytes go.
///
/// `orig_len` is the frame's length on the wire in bytes. It stands in for the IP length where that is 0, as in
/// super-packets that the network card has yet to cut (TSO) or that exceed 64 KiB (BIG TCP). Otherwise the IP length
/// wins, as short Ethernet frames are padded; in a tunnel, that of the inner header.
pub fn decode(link: LinkType, data: &[u8], orig_len: u32) -> Decoded {
    match segment(link, data, orig_len) {
        Ok(segment) => Decoded::Tcp(segment),
        Err(Stop::NotTcp) => Decoded::NotTcp,
        Err(Stop::Skip(reason)) => Decoded::Skipped(reason),
    }
}

fn segment(link: LinkType, data: &[u8], orig_len: u32) -> Result<Segment, Stop> {
    let Innermost { network, tunnel, datagram } = innermost(link, data, orig_len)?;
    let segment = tcp::segment(&datagram)?;
    Ok(Segment { interface: network.interface, sll_type: network.sll_type, tunnel, ..segment })
}

/// How many of a frame's captured bytes are headers, up to those of TCP. `None`: it is no TCP segment, or its headers are
/// not captured as a whole.
pub(crate) fn headers_bytes(link: LinkType, data: &[u8], orig_len: u32) -> Option<usize> {
    let tcp = innermost(link, data, orig_len).ok()?.datagram.payload;
    // where it stands in the frame, of which it is a part
    let tcp_at = tcp.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
    let end = tcp_at + usize::from(tcp.get(12)? >> 4) * 4;
    (end <= data.len()).then_some(end)
}

/// A TCP segment's datagram, and what is around it.
struct Innermost<'a> {
    network: link::Network,
    tunnel: Option<Tunnel>,
    datagram: ip::Datagram<'a>,
}

fn innermost(link: LinkType, data: &[u8], orig_len: u32) -> Result<Innermost<'_>, Stop> {
    let network = link::strip(link, data)?;
    // A frame cannot have been shorter than what was captured of it, whatever the file says.
    let wire_len = (orig_len as usize).max(data.len()).saturating_sub(network.offset);
    let mut packet = data.get(network.offset..).ok_or(SkipReason::CutLinkHeader)?;
    let mut wire_len = u32::try_from(wire_len).unwrap_or(u32::MAX);
    let (mut version, mut tunnel) = (network.version, None);
    for _ in 0..=MAX_TUNNELS {
        let datagram = ip::datagram(version, packet, wire_len)?;
        if datagram.protocol == ip_number::TCP {
            return Ok(Innermost { network, tunnel, datagram });
        }
        let inner = tunnel::open(&datagram)?;
        (version, packet, wire_len) = (inner.version, inner.packet, inner.wire_len);
        tunnel.get_or_insert(inner.tunnel);
    }
    Err(SkipReason::TooManyTunnels.into())
}

/// The big-endian u16 at byte `at`, if it was captured.
fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// The big-endian u32 at byte `at`, if it was captured.
fn be32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Capture;

    /// Of tunnels, with and without options, over everything that is around them.
    #[test]
    fn headers_alone_say_what_the_whole_frame_says() {
        let captures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/captures");
        let (mut cut, mut segments) = (0, 0);
        for name in ["tunnels.pcap", "vxlan.pcap", "nflog.pcap"] {
            let mut capture = Capture::open(&captures.join(name)).unwrap();
            while let Some(frame) = capture.next_frame().unwrap() {
                let Decoded::Tcp(segment) = decode(frame.link, frame.data, frame.orig_len) else {
                    assert_eq!(headers_bytes(frame.link, frame.data, frame.orig_len), None, "{name} {}", frame.number);
                    continue;
                };
                // of a header that the snaplen cut, nothing is cut away
                let Some(bytes) = headers_bytes(frame.link, frame.data, frame.orig_len) else { continue };
                let headers = decode(frame.link, &frame.data[..bytes], frame.orig_len);
                assert_eq!(headers, Decoded::Tcp(segment), "{name} {}", frame.number);
                let payload = (segment.len as usize).min(frame.data.len());
                assert!(bytes + payload <= frame.orig_len as usize, "{name} {}: payload is left", frame.number);
                segments += 1;
                cut += u32::from(bytes < frame.data.len());
            }
        }
        assert!(segments > 50 && cut > 10, "{cut} of {segments} frames have something behind their headers");
    }

    #[test]
    fn packets_stay_compact() {
        // 96 for what every segment has; 33 for SACK blocks, without a heap allocation for each of those segments that
        // have some; 15 for what tells sightings of one segment apart.
        assert!(size_of::<Packet>() <= 144, "{} bytes: captures have tens of millions of these", size_of::<Packet>());
    }
}
