//! Nothing that a file holds makes the reader panic, hang or lose count.

use std::io::Read;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use tcpprobe_replay::capture::{Capture, TcpPackets};
use tcpprobe_replay::packet::{Decoded, LinkType, MAX_TUNNELS, SkipReason, decode};

use crate::build::*;

/// Reads to the end, checks the counts, and returns how many segments there were.
fn read(bytes: Vec<u8>) -> u64 {
    let len = bytes.len() as u64;
    let reader: Box<dyn Read + Send> = Box::new(std::io::Cursor::new(bytes));
    let Ok(capture) = Capture::from_reader(reader, Path::new("mutated")) else { return 0 };
    let mut packets = TcpPackets::new(capture);
    let (mut count, mut number) = (0, 0);
    for packet in packets.by_ref().map_while(Result::ok) {
        assert!(packet.number > number, "numbers rise");
        number = packet.number;
        count += 1;
    }
    assert!(packets.next().is_none(), "nothing after the end or an error");
    let summary = packets.summary();
    assert_eq!(summary.tcp_packets, count);
    assert_eq!(summary.capture.packets, count + summary.not_tcp + summary.skipped.values().sum::<u64>());
    assert!(summary.capture.packets <= len / 12, "no frame without bytes in the file");
    assert!(summary.capture.truncated.is_none_or(|truncated| truncated.offset < len));
    count
}

/// A packet in four tunnels: VXLAN, GRE with all fields, Geneve with an option, IP in IP.
fn nested() -> Vec<u8> {
    let udp = |port: u16, payload: Vec<u8>| {
        let len = u16::try_from(8 + payload.len()).unwrap();
        [&[0xc0, 0x01][..], &port.to_be_bytes(), &len.to_be_bytes(), &[0, 0], &payload].concat()
    };
    let ip_in_ip = ipv6_with(4, None, &ipv4(&usual_tcp()));
    let geneve = [&[1, 0, 0x86, 0xdd, 0, 0, 42, 0, 1, 2, 3, 0][..], &ip_in_ip].concat();
    let geneve = ethernet(&[0x81, 0x00, 0x00, 0x64, 0x08, 0x00], &ipv4_with(17, &[], 0, None, &udp(6081, geneve)));
    let gre = [&[0xb0, 0, 0x65, 0x58][..], &[7; 12], &geneve].concat();
    let gre = ethernet(&[0x08, 0x00], &ipv4_with(47, &[], 0, None, &gre));
    let vxlan = [&[0x08, 0, 0, 0, 0, 0, 42, 0][..], &gre].concat();
    ipv4_with(17, &[], 0, None, &udp(4789, vxlan))
}

fn frames() -> Vec<Vec<u8>> {
    vec![
        ethernet(&[0x08, 0x00], &ipv4(&usual_tcp())),
        ethernet(&[0x81, 0x00, 0x00, 0x64, 0x86, 0xdd], &ipv6(&usual_tcp())),
        ethernet(
            &[0x86, 0xdd],
            &ipv6_with(0, None, &[&[60, 0, 5, 2, 0, 0, 1, 0, 6, 0, 1, 4, 0, 0, 0, 0], &usual_tcp()[..]].concat()),
        ),
        ethernet(&[0x08, 0x06], &[0; 28]),
        ethernet(&[0x08, 0x00], &nested()),
        ethernet(&[0x88, 0x64], &[&[0x11, 0, 0, 7, 0, 67, 0, 0x21], &ipv4(&usual_tcp())[..]].concat()),
    ]
}

fn classic(order: Order) -> Vec<u8> {
    let mut bytes = pcap(order, NANOSECONDS, 1);
    for (s, frame) in (0..).zip(frames()) {
        bytes.extend(record(order, s, 0, &frame, u32::try_from(frame.len()).unwrap()));
    }
    bytes
}

fn ng(order: Order) -> Vec<u8> {
    let mut bytes = [section(order), interface(order, 1, 0, &option(order, 9, &[9]))].concat();
    for (s, frame) in (0..).zip(frames()) {
        bytes.extend(enhanced(order, 0, s, &frame, u32::try_from(frame.len()).unwrap()));
    }
    bytes.extend(block(order, 5, &[0; 12]));
    bytes
}

#[test]
fn the_files_to_mutate_are_valid() {
    for order in Order::BOTH {
        assert_eq!((read(classic(order)), read(ng(order))), (5, 5));
    }
}

fn any_link() -> impl Strategy<Value = LinkType> {
    prop_oneof![9 => proptest::sample::select(&LinkType::SUPPORTED[..]), 1 => any::<u32>().prop_map(LinkType)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decode_takes_any_bytes(link in any_link(), data in proptest::collection::vec(any::<u8>(), 0..200), orig_len: u32) {
        decode(link, &data, orig_len);
    }

    #[test]
    fn decode_takes_any_ip_header(
        v6: bool,
        chain in proptest::sample::select(&[0_u8, 6, 17, 43, 44, 51, 60][..]),
        mut data in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&[0_u8, 1, 6, 43, 44, 51, 60][..])], 0..160),
        orig_len: u32,
    ) {
        for (at, byte) in [(0, if v6 { 0x60 } else { 0x45 }), (if v6 { 6 } else { 9 }, chain)] {
            if let Some(field) = data.get_mut(at) {
                *field = byte;
            }
        }
        if let Decoded::Tcp(segment) = decode(LinkType::RAW, &data, orig_len) {
            prop_assert_eq!(segment.tsval.is_some(), segment.tsecr.is_some());
        }
    }

    #[test]
    fn decode_takes_any_tunnel(
        protocol in proptest::sample::select(&[4_u8, 17, 41, 47][..]),
        port in proptest::sample::select(&[4789_u16, 8472, 6081][..]),
        mut data in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(&[0_u8, 4, 8, 41, 47, 0x45, 0x60, 0x65, 0x58, 0x86, 0x88, 0xbe, 0xdd][..])],
            0..200,
        ),
        cut: Index,
        orig_len: u32,
    ) {
        if let (17, Some(field)) = (protocol, data.get_mut(2..4)) {
            field.copy_from_slice(&port.to_be_bytes());
        }
        let packet = ipv4_with(protocol, &[], 0, None, &data);
        decode(LinkType::RAW, &packet[..cut.index(packet.len() + 1)], orig_len);
    }

    #[test]
    fn tunnels_end_at_any_depth(depth in 0_usize..300, kind in 0..3, cut: Index) {
        let mut packet = if kind == 1 { ipv6(&usual_tcp()) } else { ipv4(&usual_tcp()) };
        for _ in 0..depth {
            packet = match kind {
                0 => ipv4_with(4, &[], 0, Some(0), &packet),
                1 => ipv6_with(41, Some(0), &packet[..]),
                _ => ipv4_with(47, &[], 0, Some(0), &[&[0, 0, 0x08, 0x00], &packet[..]].concat()),
            };
        }
        let decoded = whole(LinkType::RAW, &packet);
        match depth {
            ..=MAX_TUNNELS => prop_assert!(matches!(decoded, Decoded::Tcp(segment) if segment.len == 11)),
            _ => prop_assert_eq!(decoded, skipped(SkipReason::TooManyTunnels)),
        }
        decode(LinkType::RAW, &packet[..cut.index(packet.len() + 1)], u32::MAX);
    }

    #[test]
    fn decode_takes_any_log_message(
        family in proptest::sample::select(&[2_u8, 10, 7][..]),
        attributes in proptest::collection::vec((0_u16..40, 0_u16..12, 0_u8..12), 0..12),
        big: bool,
        orig_len: u32,
    ) {
        let order = if big { Order::Big } else { Order::Little };
        let mut bytes = vec![family, 0, 0, 5];
        for (len, kind, value) in attributes {
            bytes.extend([order.u16(len), order.u16(kind)].concat());
            bytes.extend(vec![value; usize::from(len).saturating_sub(4).next_multiple_of(4)]);
        }
        decode(LinkType::NFLOG, &bytes, orig_len);
    }

    #[test]
    fn decode_takes_any_change_of_a_frame(at: Index, byte: u8, cut: Index, which: Index) {
        let mut frame = which.get(&frames()).clone();
        *at.get_mut(&mut frame) = byte;
        decode(LinkType::EN10MB, &frame[..cut.index(frame.len() + 1)], 1_514);
    }

    #[test]
    fn captures_take_any_change(
        kind in 0..4,
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        cut: Index,
        cuts: bool,
    ) {
        let mut bytes = match kind {
            0 => classic(Order::Little),
            1 => classic(Order::Big),
            2 => ng(Order::Little),
            _ => ng(Order::Big),
        };
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        read(bytes);
    }

    #[test]
    fn captures_take_any_bytes_after_a_magic(
        magic in proptest::sample::select(&[0xa1b2_c3d4_u32, 0xd4c3_b2a1, 0xa1b2_cd34, 0x0a0d_0d0a][..]),
        rest in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        read([&magic.to_le_bytes()[..], &rest].concat());
    }

    #[test]
    fn sections_take_any_blocks(
        blocks in proptest::collection::vec((0_u32..12, proptest::collection::vec(any::<u8>(), 0..60)), 0..12),
        big: bool,
    ) {
        let order = if big { Order::Big } else { Order::Little };
        let mut bytes = [section(order), interface(order, 1, 0, &[])].concat();
        for (kind, body) in blocks {
            bytes.extend(block(order, kind, &body));
        }
        read(bytes);
    }
}
