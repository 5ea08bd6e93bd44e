//! Tunnels: the innermost segment counts, with its own addresses and lengths; what is no tunnel stays "not TCP".

use std::net::{IpAddr, Ipv4Addr};

use tcpprobe_replay::packet::{Decoded, LinkType, MAX_TUNNELS, Segment, SkipReason, Tunnel, decode};

use crate::build::*;

/// Between two tunnel ends, so that no address of it is the inner packet's.
fn outer(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv4_with(protocol, &[], 0, None, payload);
    packet[4..6].copy_from_slice(&[0xbb, 0xbb]);
    packet[8] = 9;
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    [&[0xc0, 0x01][..], &port.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

const IPV4: u8 = 4;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const GRE: u8 = 47;
/// Network 42.
const VXLAN: [u8; 8] = [0x08, 0, 0, 0, 0, 0, 42, 0];

fn inner_frame() -> Vec<u8> {
    ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()))
}

fn vxlan(frame: &[u8]) -> Vec<u8> {
    outer(UDP, &udp(4789, &[&VXLAN, frame].concat()))
}

fn geneve(head: [u8; 4], options: &[u8], payload: &[u8]) -> Vec<u8> {
    outer(UDP, &udp(6081, &[&head, &[0, 0, 42, 0], options, payload].concat()))
}

fn gre(head: &[u8], payload: &[u8]) -> Vec<u8> {
    outer(GRE, &[head, payload].concat())
}

fn v4(tunnel: Tunnel) -> Decoded {
    Decoded::Tcp(Segment { tunnel: Some(tunnel), ..usual() })
}

fn v6(tunnel: Tunnel) -> Decoded {
    Decoded::Tcp(Segment { tunnel: Some(tunnel), ..usual_v6() })
}

#[test]
fn vxlan_on_its_two_ports() {
    let expected = v4(Tunnel::Vxlan);
    assert_eq!(whole(LinkType::RAW, &vxlan(&inner_frame())), expected);
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&[0x08, 0x00], &vxlan(&inner_frame()))), expected);
    let linux = outer(UDP, &udp(8472, &[&VXLAN[..], &inner_frame()].concat()));
    assert_eq!(whole(LinkType::RAW, &linux), expected);
    let policy = outer(UDP, &udp(4789, &[&[0x88, 0, 0, 5, 0, 0, 42, 0][..], &inner_frame()].concat()));
    assert_eq!(whole(LinkType::RAW, &policy), expected, "with a group policy");
    let tagged = ethernet(&[0x81, 0x00, 0x00, 0x64, 0x86, 0xdd], &ipv6(&usual_tcp()));
    assert_eq!(whole(LinkType::RAW, &vxlan(&tagged)), v6(Tunnel::Vxlan), "a VLAN in it");
    let over_v6 = ipv6_with(UDP, None, &udp(4789, &[&VXLAN[..], &inner_frame()].concat()));
    assert_eq!(whole(LinkType::RAW, &over_v6), expected, "over IPv6");
}

#[test]
fn udp_that_is_no_tunnel() {
    let without_flag = [&[0, 0, 0, 0, 0, 0, 42, 0][..], &inner_frame()].concat();
    assert_eq!(whole(LinkType::RAW, &outer(UDP, &udp(4789, &without_flag))), Decoded::NotTcp, "the I flag is 0");
    let vxlan = [&VXLAN[..], &inner_frame()].concat();
    for port in [53, 443, 4788, 4790, 6080, 8471] {
        assert_eq!(whole(LinkType::RAW, &outer(UDP, &udp(port, &vxlan))), Decoded::NotTcp, "port {port}");
    }
    // A reply to a client that has such a port of its own: only the destination port counts.
    let mut reply = udp(50_000, &vxlan);
    reply[..2].copy_from_slice(&4789_u16.to_be_bytes());
    assert_eq!(whole(LinkType::RAW, &outer(UDP, &reply)), Decoded::NotTcp);
    for len in 0..30 {
        let short = udp(4789, &vxlan)[..len].to_vec();
        assert_eq!(whole(LinkType::RAW, &outer(UDP, &short)), Decoded::NotTcp, "a datagram of {len} bytes");
    }
    let arp = ethernet(&[0x08, 0x06], &[0; 28]);
    assert_eq!(whole(LinkType::RAW, &self::vxlan(&arp)), Decoded::NotTcp);
    let inner_udp = ethernet(&[0x08, 0x00], &outer(UDP, &udp(53, b"query")));
    assert_eq!(whole(LinkType::RAW, &self::vxlan(&inner_udp)), Decoded::NotTcp);
}

#[test]
fn geneve_with_options_and_of_each_protocol() {
    let options = [&[0x01, 0x02, 0x80, 0x01, 1, 2, 3, 4], &[0x01, 0x03, 0x00, 0x00][..]].concat();
    let (frame, v4_packet, v6_packet) = (inner_frame(), ipv4(&usual_tcp()), ipv6(&usual_tcp()));
    for (words, options) in [(0, &[][..]), (3, &options)] {
        let of = |protocol: [u8; 2], payload: &[u8]| {
            whole(LinkType::RAW, &geneve([words, 0, protocol[0], protocol[1]], options, payload))
        };
        assert_eq!(of([0x65, 0x58], &frame), v4(Tunnel::Geneve));
        assert_eq!(of([0x08, 0x00], &v4_packet), v4(Tunnel::Geneve));
        assert_eq!(of([0x86, 0xdd], &v6_packet), v6(Tunnel::Geneve));
        assert_eq!(of([0x08, 0x06], &[0; 28]), Decoded::NotTcp, "ARP");
    }
    let version_1 = geneve([0x40, 0, 0x65, 0x58], &[], &frame);
    assert_eq!(whole(LinkType::RAW, &version_1), Decoded::NotTcp);
    let beyond = geneve([0x3f, 0, 0x65, 0x58], &[], &frame);
    assert_eq!(whole(LinkType::RAW, &beyond), Decoded::NotTcp, "options beyond the datagram");
}

#[test]
fn gre_with_each_field() {
    let packet = ipv4(&usual_tcp());
    for flags in 0..16_u8 {
        // Checksum, routing, key, sequence number.
        let fields = (flags & 0b1011).count_ones() as usize;
        let head = [&[flags << 4, 0, 0x08, 0x00][..], &vec![0x77; fields * 4]].concat();
        let expected = if flags & 0b0100 == 0 { v4(Tunnel::Gre) } else { Decoded::NotTcp };
        assert_eq!(whole(LinkType::RAW, &gre(&head, &packet)), expected, "flags {flags:04b}");
    }
    assert_eq!(whole(LinkType::RAW, &gre(&[0, 0, 0x86, 0xdd], &ipv6(&usual_tcp()))), v6(Tunnel::Gre));
    let nvgre = gre(&[0x20, 0, 0x65, 0x58, 0, 0, 42, 1], &inner_frame());
    assert_eq!(whole(LinkType::RAW, &nvgre), v4(Tunnel::Gre), "frames, as NVGRE");
    let mpls = gre(&[0, 0, 0x88, 0x47, 0x00, 0x01, 0x11, 0x40], &packet);
    assert_eq!(whole(LinkType::RAW, &mpls), v4(Tunnel::Gre), "MPLS");
    let pptp = gre(&[0x20, 0x01, 0x88, 0x0b, 0, 67, 0, 1, 0x00, 0x21], &packet);
    assert_eq!(whole(LinkType::RAW, &pptp), Decoded::NotTcp, "version 1");
    let keepalive = gre(&[0, 0, 0, 0], &[]);
    assert_eq!(whole(LinkType::RAW, &keepalive), Decoded::NotTcp);
}

#[test]
fn erspan_of_each_type() {
    let frame = inner_frame();
    let expected = v4(Tunnel::Erspan);
    assert_eq!(whole(LinkType::RAW, &gre(&[0, 0, 0x88, 0xbe], &frame)), expected, "I");
    let two = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0x64, 0, 5, 0, 0, 0, 0];
    assert_eq!(whole(LinkType::RAW, &gre(&two, &frame)), expected, "II");
    let mut three = [0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0x64, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    assert_eq!(whole(LinkType::RAW, &gre(&three, &frame)), expected, "III");
    three[19] = 1;
    three.extend([0x33; 8]);
    assert_eq!(whole(LinkType::RAW, &gre(&three, &frame)), expected, "III with a subheader");
}

#[test]
fn ip_in_ip_of_both_versions() {
    let (v4_packet, v6_packet) = (ipv4(&usual_tcp()), ipv6(&usual_tcp()));
    assert_eq!(whole(LinkType::RAW, &outer(IPV4, &v4_packet)), v4(Tunnel::IpInIp));
    assert_eq!(whole(LinkType::RAW, &outer(IPV6, &v6_packet)), v6(Tunnel::IpInIp), "6in4");
    assert_eq!(whole(LinkType::RAW, &ipv6_with(IPV4, None, &v4_packet)), v4(Tunnel::IpInIp), "4in6");
    assert_eq!(whole(LinkType::RAW, &ipv6_with(IPV6, None, &v6_packet)), v6(Tunnel::IpInIp));
    // As Linux sends it: destination options with the limit of encapsulations (RFC 2473 section 4.1.1).
    let limited = [&[IPV6, 0, 4, 1, 4, 1, 1, 0], &v6_packet[..]].concat();
    assert_eq!(whole(LinkType::RAW, &ipv6_with(60, None, &limited)), v6(Tunnel::IpInIp));
    let wrong = outer(IPV6, &v4_packet);
    assert_eq!(whole(LinkType::RAW, &wrong), skipped(SkipReason::MalformedIpHeader), "announced as IPv6");
}

#[test]
fn tunnels_within_tunnels_up_to_a_depth() {
    let mut packet = ipv4(&usual_tcp());
    for depth in 1..=MAX_TUNNELS {
        packet = outer(IPV4, &packet);
        assert_eq!(whole(LinkType::RAW, &packet), v4(Tunnel::IpInIp), "{depth} tunnels");
    }
    packet = outer(IPV4, &packet);
    assert_eq!(whole(LinkType::RAW, &packet), skipped(SkipReason::TooManyTunnels));

    let inner = gre(&[0, 0, 0x08, 0x00], &outer(IPV4, &ipv4(&usual_tcp())));
    let nested = vxlan(&ethernet(&[0x08, 0x00], &inner));
    assert_eq!(whole(LinkType::RAW, &nested), v4(Tunnel::Vxlan), "the outermost is named");
}

#[test]
fn the_inner_ip_length_wins() {
    let padded = [inner_frame(), vec![0; 20]].concat();
    assert_eq!(whole(LinkType::RAW, &vxlan(&padded)), v4(Tunnel::Vxlan), "the inner frame is padded");
    let padded = [ethernet(&[0x08, 0x00], &outer(IPV4, &ipv4(&usual_tcp()))), vec![0; 20]].concat();
    assert_eq!(whole(LinkType::EN10MB, &padded), v4(Tunnel::IpInIp), "the outer frame is padded");
}

/// The payload's length of a segment in VXLAN, where IP lengths are as given and the frame's length is `orig_len`.
fn len_in_vxlan(outer_len: Option<u16>, inner_len: Option<u16>, orig_len: u32) -> u32 {
    let inner = ipv4_with(6, &[], 0x4000, inner_len, &usual_tcp());
    let frame = [&VXLAN[..], &ethernet(&[0x08, 0x00], &inner)].concat();
    let packet = ipv4_with(UDP, &[], 0x4000, outer_len, &udp(4789, &frame));
    let Decoded::Tcp(segment) = decode(LinkType::RAW, &packet, orig_len) else { panic!("not decoded") };
    segment.len
}

#[test]
fn super_packets_in_a_tunnel() {
    // 20 IP, 8 UDP, 8 VXLAN, 14 Ethernet, 20 IP, 32 TCP.
    assert_eq!(len_in_vxlan(Some(60_000), Some(59_950), 60_000), 59_898);
    assert_eq!(len_in_vxlan(Some(0), Some(65_052), 65_102), 65_000, "the outer one alone is above 64 KiB");
    assert_eq!(len_in_vxlan(Some(0), Some(0), 130_102), 130_000, "from the frame");
    assert_eq!(len_in_vxlan(Some(60_000), Some(0), 1_000), 59_898, "from the outer IP");
    assert_eq!(len_in_vxlan(None, Some(0), 113), 11);
}

#[test]
fn snaplen_cuts_every_byte_of_a_tunnel() {
    let frame = ethernet(&[0x08, 0x00], &vxlan(&inner_frame()));
    let orig_len = u32::try_from(frame.len()).unwrap();
    for captured in 14..frame.len() {
        let decoded = decode(LinkType::EN10MB, &frame[..captured], orig_len);
        let expected = match captured {
            14..34 => SkipReason::CutIpHeader,
            34..64 => SkipReason::CutTunnelHeader,
            64..84 => SkipReason::CutIpHeader,
            84..100 => SkipReason::CutTcpHeader,
            _ => {
                let Decoded::Tcp(segment) = decoded else { panic!("{captured} bytes: {decoded:?}") };
                assert_eq!((segment.src, segment.len), (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 11));
                continue;
            }
        };
        // Without the port nothing tells a tunnel; with it, bytes that are missing may be a tunnel's.
        assert_eq!(decoded, skipped(expected), "{captured} bytes");
    }
    let other = ethernet(&[0x08, 0x00], &outer(UDP, &udp(53, b"query")));
    assert_eq!(decode(LinkType::EN10MB, &other[..38], 100), Decoded::NotTcp);
}

#[test]
fn snaplen_cuts_in_geneve_gre_and_erspan() {
    let three = [0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0x64, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1];
    let packets = [
        (geneve([3, 0, 0x65, 0x58], &[0; 12], &inner_frame()), 28 + 20 + 14),
        (geneve([3, 0, 0x08, 0x00], &[0; 12], &ipv4(&usual_tcp())), 28),
        (gre(&[0xb0, 0, 0x08, 0x00, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], &ipv4(&usual_tcp())), 24),
        (gre(&[0, 0, 0x88, 0x47, 0, 1, 0x11, 0x40], &ipv4(&usual_tcp())), 28),
        (gre(&three, &[&[0; 8], &inner_frame()[..]].concat()), 20 + 20 + 8 + 14),
    ];
    for (packet, until) in packets {
        let orig_len = u32::try_from(packet.len()).unwrap();
        for captured in 20..until {
            let decoded = decode(LinkType::RAW, &packet[..captured], orig_len);
            assert_eq!(decoded, skipped(SkipReason::CutTunnelHeader), "{captured} of {orig_len} bytes");
        }
    }
}

#[test]
fn fragments_of_outer_packets() {
    // The first has the whole inner headers, and these say how long the segment is that goes on in the others.
    let whole_packet = ipv4(&tcp(&TIMESTAMPS, &[0; 1_000]));
    let first = ipv4_with(IPV4, &[], 0x2000, None, &whole_packet[..400]);
    let Decoded::Tcp(segment) = whole(LinkType::RAW, &first) else { panic!("not decoded") };
    assert_eq!((segment.len, segment.tunnel), (1_000, Some(Tunnel::IpInIp)));
    for protocol in [IPV4, IPV6, GRE] {
        let later = ipv4_with(protocol, &[], 50, None, &whole_packet[400..]);
        assert_eq!(whole(LinkType::RAW, &later), skipped(SkipReason::LaterFragment));
    }
    let tiny = ipv4_with(GRE, &[], 0x2000, None, &[0x20, 0, 0x08, 0x00, 0, 0, 0, 1]);
    assert_eq!(whole(LinkType::RAW, &tiny), skipped(SkipReason::CutIpHeader));
    let tiny = ipv4_with(UDP, &[], 0x2000, None, &udp(4789, &VXLAN));
    assert_eq!(whole(LinkType::RAW, &tiny), skipped(SkipReason::CutTunnelHeader), "the rest is in the next fragment");
    let inner = ipv4_with(6, &[], 3, None, &usual_tcp());
    assert_eq!(whole(LinkType::RAW, &outer(IPV4, &inner)), skipped(SkipReason::LaterFragment), "an inner fragment");
}

#[test]
fn reasons_name_their_layer() {
    let layers: Vec<_> = SkipReason::ALL.map(|reason| (reason.as_str(), reason.layer())).into();
    let expected = [
        ("unsupported link type", "link"),
        ("cut in the link header", "link"),
        ("cut in a tunnel header", "tunnel"),
        ("cut in the IP header", "IP"),
        ("cut in an IP extension header", "IP"),
        ("cut in the TCP header", "TCP"),
        ("malformed IP header", "IP"),
        ("malformed TCP header", "TCP"),
        ("later IP fragment", "IP"),
        ("too many tunnels within each other", "tunnel"),
    ];
    assert_eq!(layers, expected);
}
