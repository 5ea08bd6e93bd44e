//! pcapng: interfaces, resolutions, sections, and all the kinds of blocks.

use tcpprobe_replay::capture::{Capture, Format, read_tcp};
use tcpprobe_replay::packet::{LinkType, Packet, Segment};

use crate::build::*;

fn packets(blocks: &[Vec<u8>]) -> Vec<Packet> {
    read_tcp(&written(&blocks.concat()).path).unwrap().0
}

/// The segment as captured on an interface of several.
fn on(interface: u32, segment: Segment) -> Segment {
    Segment { interface: Some(interface), ..segment }
}

const TSRESOL: u16 = 9;
const TSOFFSET: u16 = 14;
const NS: i64 = 1_700_000_000_125_000_000;

#[test]
fn interfaces_of_different_link_type_and_resolution() {
    let ethernet = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
    let raw = ipv6(&usual_tcp());
    for order in Order::BOTH {
        let file = written(
            &[
                section(order),
                interface(order, 1, 96, &[]),
                interface(order, 101, 0, &option(order, TSRESOL, &[9])),
                interface(order, 1, 0, &option(order, TSRESOL, &[0x80 | 3])),
                enhanced(order, 1, 1_700_000_000_125_000_000, &raw, 83),
                enhanced(order, 0, 1_700_000_000_125_000, &ethernet, 77),
                enhanced(order, 2, 1_700_000_000 * 8 + 1, &ethernet, 77),
            ]
            .concat(),
        );
        let (packets, summary) = read_tcp(&file.path).unwrap();
        let expected =
            [on(1, usual_v6()).at(1, Some(NS)), on(0, usual()).at(2, Some(NS)), on(2, usual()).at(3, Some(NS))];
        assert_eq!(packets, expected, "{order:?}");
        assert_eq!(summary.capture.format, Format::Pcapng);
        assert_eq!((summary.capture.link_type, summary.capture.snaplen), (Some(LinkType::EN10MB), Some(96)));
    }
}

#[test]
fn time_offsets_in_both_byte_orders() {
    for order in Order::BOTH {
        let offset = order.u64(1_700_000_000);
        let options = [option(order, 2, b"eth0"), option(order, TSOFFSET, &offset)].concat();
        let frame = enhanced(order, 0, 125_000, &ipv4(&usual_tcp()), 63);
        let read = packets(&[section(order), interface(order, 101, 0, &options), frame]);
        assert_eq!(read, [usual().at(1, Some(NS))], "{order:?}");
    }
}

#[test]
fn a_time_that_no_clock_has_is_none() {
    let order = Order::Little;
    let section = [section(order), interface(order, 101, 0, &option(order, TSRESOL, &[0]))].concat();
    for seconds in [4_600_000_000, 9_200_000_000] {
        let read = packets(&[section.clone(), enhanced(order, 0, seconds, &ipv4(&usual_tcp()), 63)]);
        assert_eq!(read, [usual().at(1, None)], "{seconds} s since 1970");
    }
}

#[test]
fn time_offsets_are_each_interface_s_own() {
    let order = Order::Big;
    let options = |resolution: u8, offset_s: i64| {
        let offset = option(order, TSOFFSET, &order.u64(offset_s.cast_unsigned()));
        [option(order, TSRESOL, &[resolution]), offset].concat()
    };
    let raw = ipv4(&usual_tcp());
    let read = packets(&[
        section(order),
        interface(order, 101, 0, &options(3, 1_700_000_000)),
        interface(order, 101, 0, &options(9, -37)),
        interface(order, 101, 0, &[]),
        enhanced(order, 0, 125, &raw, 63),
        enhanced(order, 1, 1_700_000_037_125_000_000, &raw, 63),
        enhanced(order, 2, 1_700_000_000_125_000, &raw, 63),
    ]);
    assert_eq!(read.iter().map(|packet| packet.ts_ns).collect::<Vec<_>>(), [Some(NS); 3]);
}

#[test]
fn an_interface_may_be_described_after_the_first_packets() {
    let order = Order::Little;
    let frame = |interface| enhanced(order, interface, 0, &ipv4(&usual_tcp()), 63);
    let read = packets(&[
        section(order),
        interface(order, 101, 0, &[]),
        frame(0),
        interface(order, 228, 0, &[]),
        frame(1),
        frame(0),
    ]);
    let interfaces: Vec<_> = read.iter().map(|packet| packet.interface).collect();
    assert_eq!(interfaces, [None, Some(1), Some(0)], "of one only, nothing is to be told");
}

#[test]
fn sections_of_different_byte_order() {
    let raw = ipv4(&usual_tcp());
    let (little, big) = (Order::Little, Order::Big);
    let read = packets(&[
        section(little),
        interface(little, 229, 0, &[]),
        interface(little, 101, 0, &[]),
        enhanced(little, 1, 1_000_000, &raw, 63),
        section(big),
        interface(big, 228, 0, &option(big, TSRESOL, &[3])),
        enhanced(big, 0, 2_000, &raw, 63),
        section(little),
        interface(little, 0, 0, &[]),
        enhanced(little, 0, 3_000_000, &[&[2, 0, 0, 0], &raw[..]].concat(), 67),
    ]);
    let times = [1_000_000_000, 2_000_000_000, 3_000_000_000];
    let expected: Vec<_> =
        (1..).zip(times).map(|(number, ts)| on(number, usual()).at(number.into(), Some(ts))).collect();
    assert_eq!(read, expected, "blocks count interfaces from 0 in each section, packets over the file");
}

#[test]
fn the_interface_of_a_cooked_header_wins() {
    let order = Order::Little;
    let cooked =
        [&[0x08, 0x00, 0, 0, 0, 0, 0, 9, 0, 1, 4, 6, 2, 0, 0, 0, 0, 1, 0, 0], &ipv4(&usual_tcp())[..]].concat();
    let read = packets(&[
        section(order),
        interface(order, 276, 0, &[]),
        enhanced(order, 0, 0, &cooked, 83),
        interface(order, 101, 0, &[]),
        enhanced(order, 0, 0, &cooked, 83),
        enhanced(order, 1, 0, &ipv4(&usual_tcp()), 63),
    ]);
    let interfaces: Vec<_> = read.iter().map(|packet| (packet.interface, packet.sll_type)).collect();
    assert_eq!(interfaces, [(Some(9), Some(4)), (Some(9), Some(4)), (Some(1), None)]);
}

#[test]
fn simple_packets_have_no_time() {
    let order = Order::Big;
    let frame = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
    let simple = |orig_len: u32, data: &[u8]| block(order, 3, &[&order.u32(orig_len), data].concat());
    let read = packets(&[section(order), interface(order, 1, 0, &[]), simple(77, &frame)]);
    assert_eq!(read, [usual().at(1, None)]);

    // The snaplen alone says that the last byte is padding, not the 67th of the frame.
    let file = written(&[section(order), interface(order, 1, 67, &[]), simple(77, &frame[..67])].concat());
    let mut capture = Capture::open(&file.path).unwrap();
    let read = capture.next_frame().unwrap().unwrap();
    assert_eq!((read.data, read.orig_len, read.ts_ns), (&frame[..67], 77, None));
}

#[test]
fn obsolete_packet_blocks() {
    let order = Order::Big;
    let raw = ipv4(&usual_tcp());
    // Interface 1, 5 drops, time, captured and original length.
    let mut body = [order.u16(1), order.u16(5)].concat();
    for field in [0, 42, u32::try_from(raw.len()).unwrap(), 63] {
        body.extend(order.u32(field));
    }
    body.extend(&raw);
    let read = packets(&[
        section(order),
        interface(order, 1, 0, &[]),
        interface(order, 101, 0, &option(order, TSRESOL, &[0])),
        block(order, 2, &body),
    ]);
    assert_eq!(read, [on(1, usual()).at(1, Some(42_000_000_000))]);
}

#[test]
fn other_blocks_are_passed_over() {
    let order = Order::Little;
    let frame = enhanced(order, 0, 0, &ipv4(&usual_tcp()), 63);
    let file = written(
        &[
            section(order),
            block(order, 0x7777_7777, &[1, 2, 3, 4]),
            interface(order, 101, 0, &[]),
            frame.clone(),
            block(order, 4, &[0; 40]),         // names
            block(order, 10, &[0xff; 3]),      // secrets
            block(order, 0x8000_0001, &[]),    // local use, nothing in it
            block(order, 11, &[0; 2_000_000]), // larger than the buffer
            frame.clone(),
            block(order, 0x0bad, &[0, 0, 0, 1]),      // custom: Wireshark numbers it
            block(order, 0x4000_0bad, &[0, 0, 0, 1]), // custom, not to be copied: likewise
            block(order, 9, b"__CURSOR=s\n"),         // journal: likewise
            frame,
        ]
        .concat(),
    );
    let (packets, summary) = read_tcp(&file.path).unwrap();
    assert_eq!(packets, [1, 2, 6].map(|number| usual().at(number, Some(0))));
    assert_eq!((summary.capture.packets, summary.capture.other_records), (3, 3));
}

#[test]
fn packet_options_are_not_data() {
    let order = Order::Little;
    let mut body = Vec::new();
    for field in [0, 0, 9, 63, 63] {
        body.extend(order.u32(field));
    }
    body.extend(ipv4(&usual_tcp()));
    body.push(0);
    body.extend(option(order, 1, b"a comment"));
    body.extend([0; 4]);
    let file = written(&[section(order), interface(order, 101, 0, &[]), block(order, 6, &body)].concat());
    let mut capture = Capture::open(&file.path).unwrap();
    assert_eq!(capture.next_frame().unwrap().unwrap().data, ipv4(&usual_tcp()));
}

#[test]
fn drops_are_the_last_of_each_interface() {
    for order in Order::BOTH {
        let statistics = |interface: u32, interface_drops: u64, system_drops: u64| {
            let mut body = [order.u32(interface), order.u32(0), order.u32(0)].concat();
            body.extend(option(order, 4, &order.u64(1_000)));
            body.extend(option(order, 5, &order.u64(interface_drops)));
            body.extend(option(order, 7, &order.u64(system_drops)));
            body.extend([0; 4]);
            block(order, 5, &body)
        };
        let file = written(
            &[
                section(order),
                interface(order, 1, 0, &[]),
                interface(order, 1, 0, &[]),
                statistics(0, 1, 2),
                statistics(0, 3, 5),
                statistics(1, 10, 20),
                statistics(7, 999, 999),
                section(order),
                interface(order, 1, 0, &[]),
                statistics(0, 100, 200),
            ]
            .concat(),
        );
        let mut capture = Capture::open(&file.path).unwrap();
        assert_eq!(capture.next_frame().unwrap(), None);
        assert_eq!((capture.summary().if_dropped, capture.summary().os_dropped), (Some(113), Some(225)), "{order:?}");
    }
}

#[test]
fn a_capture_without_interfaces() {
    let mut capture = Capture::open(&written(&section(Order::Big)).path).unwrap();
    assert_eq!(capture.next_frame().unwrap(), None);
    let summary = capture.summary();
    assert_eq!((summary.link_type, summary.snaplen, summary.if_dropped), (None, None, None));
}
