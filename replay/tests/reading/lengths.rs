//! Lengths: IP's against the frame's, extension headers, fragments, and frames that a snaplen cut.

use std::net::Ipv6Addr;

use tcpprobe_replay::packet::{Decoded, LinkType, SackBlocks, Segment, SkipReason, TcpFlags, decode};

use crate::build::*;

fn len_of(decoded: Decoded) -> u32 {
    let Decoded::Tcp(segment) = decoded else { panic!("{decoded:?}") };
    segment.len
}

#[test]
fn ethernet_padding_is_no_payload() {
    let mut frame = ethernet(&[0x08, 0x00], &ipv4(&tcp(&[], &[])));
    assert_eq!(frame.len(), 54);
    frame.resize(60, 0);
    assert_eq!(len_of(whole(LinkType::EN10MB, &frame)), 0);
    let mut frame = ethernet(&[0x86, 0xdd], &ipv6(&usual_tcp()));
    frame.extend([0; 9]);
    assert_eq!(whole(LinkType::EN10MB, &frame), Decoded::Tcp(usual_v6()));
}

#[test]
fn padding_is_not_read_as_options() {
    // A header that claims 32 bytes in a packet of 40 leaves 20 for TCP: timestamps in the padding are none.
    let mut segment = tcp(&TIMESTAMPS, &[]);
    segment.truncate(20);
    let frame = ethernet(&[0x08, 0x00], &[&ipv4(&segment)[..], &TIMESTAMPS].concat());
    assert_eq!(whole(LinkType::EN10MB, &frame), skipped(SkipReason::MalformedTcpHeader));
}

#[test]
fn ipv4_length_0_takes_the_original_length() {
    let packet = ipv4_with(6, &[], 0x4000, Some(0), &usual_tcp());
    let frame = ethernet(&[0x08, 0x00], &packet);
    assert_eq!(whole(LinkType::EN10MB, &frame), Decoded::Tcp(usual()));
    // 14 Ethernet + 20 IP + 32 TCP + 130,000: BIG TCP, cut by a snaplen.
    assert_eq!(len_of(decode(LinkType::EN10MB, &frame, 130_066)), 130_000);
    let tagged = ethernet(&[0x81, 0x00, 0x00, 0x64, 0x08, 0x00], &packet);
    assert_eq!(len_of(decode(LinkType::EN10MB, &tagged, 130_070)), 130_000);
}

#[test]
fn ipv6_length_0_takes_the_original_length() {
    let packet = ipv6_with(6, Some(0), &usual_tcp());
    assert_eq!(whole(LinkType::RAW, &packet), Decoded::Tcp(usual_v6()));
    assert_eq!(len_of(decode(LinkType::RAW, &packet, 40 + 32 + 180_000)), 180_000);
}

#[test]
fn ipv6_jumbo_payload_option() {
    // Hop-by-hop: next header TCP, 8 bytes, jumbo payload option: 8 of this header + 32 of TCP + 180,000.
    let [a, b, c, d] = 180_040_u32.to_be_bytes();
    let packet = ipv6_with(0, Some(0), &[&[6, 0, 0xc2, 4, a, b, c, d], &usual_tcp()[..]].concat());
    assert_eq!(len_of(decode(LinkType::RAW, &packet, 40 + 180_040)), 180_000);
    assert_eq!(len_of(whole(LinkType::RAW, &packet)), 180_000, "even where the file lost the original length");
}

#[test]
fn big_tcp_as_linux_6_18_sends_it() {
    // Captured on loopback with gso_max_size 190000 and a snaplen of 100; tcpdump gives the expected numbers.
    let packet = [
        0x60, 0x0a, 0xde, 0xdc, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x01, 0x06, 0x00, 0xc2, 0x04, 0x00, 0x01, 0x74, 0x28, 0xe3, 0xa6, 0xe4, 0x53, 0x7e, 0x80,
        0xdf, 0xc5, 0xed, 0xab, 0x51, 0x9a, 0x80, 0x18, 0x00, 0x40, 0x74, 0x29, 0x00, 0x00, 0x01, 0x01, 0x08, 0x0a,
        0xc3, 0x4c, 0x21, 0xa6, 0xd8, 0x62, 0x22, 0x41, 0x78, 0x78, 0x78, 0x78, 0x78, 0x78,
    ];
    let expected = Segment {
        src: Ipv6Addr::LOCALHOST.into(),
        dst: Ipv6Addr::LOCALHOST.into(),
        src_port: 58_278,
        dst_port: 58_451,
        seq: 2_122_375_109,
        ack: 3_987_427_738,
        len: 95_232,
        flags: TcpFlags::PSH | TcpFlags::ACK,
        window: 64,
        tsval: Some(3_276_546_470),
        tsecr: Some(3_630_309_953),
        ip_id: None,
        ..usual()
    };
    assert_eq!(decode(LinkType::RAW, &packet, 95_312), Decoded::Tcp(expected));
}

#[test]
fn an_ip_length_wins_over_the_original_length() {
    let frame = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
    assert_eq!(decode(LinkType::EN10MB, &frame, 9_000), Decoded::Tcp(usual()));
}

#[test]
fn an_original_length_below_the_captured_one_is_not_believed() {
    let packet = ipv4_with(6, &[], 0x4000, Some(0), &usual_tcp());
    assert_eq!(decode(LinkType::RAW, &packet, 0), Decoded::Tcp(usual()));
}

#[test]
fn ipv4_options_and_authentication_header() {
    let packet = ipv4_with(6, &[0x94, 0x04, 0, 0, 1, 1, 1, 0], 0, None, &usual_tcp());
    assert_eq!(whole(LinkType::RAW, &packet), Decoded::Tcp(usual()));
    let auth = [6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    let packet = ipv4_with(51, &[], 0, None, &[&auth, &usual_tcp()[..]].concat());
    assert_eq!(whole(LinkType::RAW, &packet), Decoded::Tcp(usual()));
}

/// Hop-by-hop options, destination options (16 bytes), routing and authentication, then TCP.
fn ipv6_chain() -> Vec<u8> {
    let hop_by_hop = [60, 0, 5, 2, 0, 0, 1, 0];
    let destination = [43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let routing = [51, 0, 4, 0, 0, 0, 0, 0];
    let auth = [6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    [&hop_by_hop[..], &destination, &routing, &auth, &usual_tcp()].concat()
}

#[test]
fn ipv6_extension_headers() {
    let frame = ethernet(&[0x86, 0xdd], &ipv6_with(0, None, &ipv6_chain()));
    assert_eq!(whole(LinkType::EN10MB, &frame), Decoded::Tcp(usual_v6()));
}

#[test]
fn ipv6_extension_headers_cut_anywhere() {
    let packet = ipv6_with(0, None, &ipv6_chain());
    let orig_len = u32::try_from(packet.len()).unwrap();
    for captured in 40..84 {
        let expected = skipped(SkipReason::CutIpExtension);
        assert_eq!(decode(LinkType::RAW, &packet[..captured], orig_len), expected, "{captured} bytes");
    }
    assert_eq!(decode(LinkType::RAW, &packet[..84], orig_len), skipped(SkipReason::CutTcpHeader));
}

#[test]
fn an_extension_header_beyond_the_payload_is_malformed() {
    let packet = ipv6_with(0, Some(12), &ipv6_chain());
    assert_eq!(whole(LinkType::RAW, &packet), skipped(SkipReason::MalformedIpHeader));
    let packet = ipv6_with(60, None, &[&[0, 0, 1, 4, 0, 0, 0, 0], &ipv6_chain()[..]].concat());
    assert_eq!(whole(LinkType::RAW, &packet), skipped(SkipReason::MalformedIpHeader), "hop-by-hop not at the start");
}

#[test]
fn ipv4_fragments() {
    let first = ipv4_with(6, &[], 0x2000, None, &usual_tcp());
    assert_eq!(whole(LinkType::RAW, &first), Decoded::Tcp(usual()), "this fragment's 11 bytes");
    let later = ipv4_with(6, &[], 0x2003, None, &usual_tcp());
    assert_eq!(whole(LinkType::RAW, &later), skipped(SkipReason::LaterFragment));
    let last = ipv4_with(6, &[], 0x0003, None, &usual_tcp());
    assert_eq!(whole(LinkType::RAW, &last), skipped(SkipReason::LaterFragment));
    let udp = ipv4_with(17, &[], 0x0003, None, &usual_tcp());
    assert_eq!(whole(LinkType::RAW, &udp), Decoded::NotTcp);
    let tiny = ipv4_with(6, &[], 0x2000, None, &usual_tcp()[..8]);
    assert_eq!(whole(LinkType::RAW, &tiny), skipped(SkipReason::CutTcpHeader));
    let tiny = ipv4_with(6, &[], 0x2000, None, &usual_tcp()[..24]);
    assert_eq!(whole(LinkType::RAW, &tiny), skipped(SkipReason::CutTcpHeader), "options in the next fragment");
}

#[test]
fn ipv6_fragments() {
    let fragment = |next: u8, field: u16, payload: &[u8]| {
        let [high, low] = field.to_be_bytes();
        ipv6_with(44, None, &[&[next, 0, high, low, 0, 0, 0, 1], payload].concat())
    };
    assert_eq!(whole(LinkType::RAW, &fragment(6, 1, &usual_tcp())), Decoded::Tcp(usual_v6()));
    assert_eq!(whole(LinkType::RAW, &fragment(6, 0, &usual_tcp())), Decoded::Tcp(usual_v6()), "an atomic fragment");
    assert_eq!(whole(LinkType::RAW, &fragment(6, 8 << 3, &usual_tcp())), skipped(SkipReason::LaterFragment));
    // Behind a later fragment's header is payload, whatever it looks like.
    assert_eq!(whole(LinkType::RAW, &fragment(60, 8 << 3 | 1, &[0xff; 16])), skipped(SkipReason::LaterFragment));
    assert_eq!(whole(LinkType::RAW, &fragment(17, 8 << 3, &[0; 16])), Decoded::NotTcp);
    let auth = [44, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let behind = ipv6_with(51, None, &[&auth[..], &[6, 0, 0, 8 << 3, 0, 0, 0, 1], &usual_tcp()[..]].concat());
    assert_eq!(whole(LinkType::RAW, &behind), skipped(SkipReason::LaterFragment), "behind another header");
}

#[test]
fn snaplen_cuts_every_byte() {
    let frame = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
    let orig_len = u32::try_from(frame.len()).unwrap();
    let without_timestamps = Segment { tsval: None, tsecr: None, sack: SackBlocks::NONE.cut(), ..usual() };
    for captured in 0..=frame.len() {
        let expected = match captured {
            0..14 => skipped(SkipReason::CutLinkHeader),
            14..34 => skipped(SkipReason::CutIpHeader),
            34..50 => skipped(SkipReason::CutTcpHeader),
            50..66 => Decoded::Tcp(without_timestamps),
            _ => Decoded::Tcp(usual()),
        };
        assert_eq!(decode(LinkType::EN10MB, &frame[..captured], orig_len), expected, "{captured} bytes");
    }
}

#[test]
fn snaplen_cuts_in_tags_and_cooked_headers() {
    let cut = skipped(SkipReason::CutLinkHeader);
    let tagged = ethernet(&[0x81, 0x00, 0x00, 0x64, 0x08, 0x00], &[]);
    assert_eq!(decode(LinkType::EN10MB, &tagged[..17], 100), cut);
    let label = ethernet(&[0x88, 0x47, 0, 0, 0], &[]);
    assert_eq!(decode(LinkType::EN10MB, &label, 100), cut);
    assert_eq!(decode(LinkType::LINUX_SLL, &[0; 15], 100), cut);
    assert_eq!(decode(LinkType::LINUX_SLL2, &[0; 19], 100), cut);
    assert_eq!(decode(LinkType::NULL, &[0; 3], 100), cut);
    assert_eq!(decode(LinkType::RAW, &[], 100), skipped(SkipReason::CutIpHeader));
}

#[test]
fn headers_that_contradict_themselves() {
    let ip = skipped(SkipReason::MalformedIpHeader);
    assert_eq!(whole(LinkType::RAW, &ipv4_with(6, &[], 0, Some(19), &usual_tcp())), ip, "shorter than its header");
    let mut packet = ipv4(&usual_tcp());
    packet[0] = 0x44;
    assert_eq!(whole(LinkType::RAW, &packet), ip, "a header of 16 bytes");
    let frame = ethernet(&[0x08, 0x00], &ipv6(&usual_tcp()));
    assert_eq!(whole(LinkType::EN10MB, &frame), ip, "announced as IPv4");

    let tcp_header = skipped(SkipReason::MalformedTcpHeader);
    let mut segment = usual_tcp();
    segment[12] = 0x40;
    assert_eq!(whole(LinkType::RAW, &ipv4(&segment)), tcp_header, "a header of 16 bytes");
    segment[12] = 0xf0;
    assert_eq!(whole(LinkType::RAW, &ipv4(&segment)), tcp_header, "a header beyond the packet");
    assert_eq!(whole(LinkType::RAW, &ipv4(&segment[..19])), tcp_header, "a packet below any header");
}

#[test]
fn options_of_other_protocols_are_passed_over() {
    // MPTCP's data sequence signal (RFC 8684 §3.3.1) before and behind the timestamps
    let dss = [&[30, 12, 0x20, 0x01][..], &[0xa5; 8]].concat();
    let tsval = |options: &[u8]| {
        let packet = ipv4(&tcp(options, PAYLOAD));
        match decode(LinkType::RAW, &packet, packet.len() as u32) {
            Decoded::Tcp(s) => (s.tsval, s.len),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(tsval(&[&dss[..], &TIMESTAMPS].concat()), (usual().tsval, 11));
    assert_eq!(tsval(&[&TIMESTAMPS[..], &dss].concat()), (usual().tsval, 11));
}
