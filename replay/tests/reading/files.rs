//! Classic captures: magic numbers, byte orders, resolutions, and what a file's summary says.

use std::collections::BTreeMap;

use tcpprobe_replay::capture::{Capture, Format, TcpPackets, read_tcp};
use tcpprobe_replay::packet::{LinkType, SkipReason};

use crate::build::*;

#[test]
fn microseconds_and_nanoseconds_in_both_byte_orders() {
    let frame = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
    for order in Order::BOTH {
        for (magic, ts_ns) in [(MICROSECONDS, 1_700_000_000_123_456_000), (NANOSECONDS, 1_700_000_000_000_123_456)] {
            let bytes = [pcap(order, magic, 1), record(order, 1_700_000_000, 123_456, &frame, 77)].concat();
            let file = written(&bytes);
            let (packets, summary) = read_tcp(&file.path).unwrap();
            assert_eq!(packets, [usual().at(1, Some(ts_ns))], "{order:?} {magic:#x}");
            assert_eq!(summary.capture.format, Format::Pcap);
            assert_eq!(summary.capture.link_type, Some(LinkType::EN10MB));
            assert_eq!(summary.capture.snaplen, Some(262_144));
            assert_eq!(summary.capture.truncated, None);
        }
    }
}

#[test]
fn modified_format_of_old_linux_kernels() {
    let frame = ipv4(&usual_tcp());
    let mut bytes = pcap(Order::Little, 0xa1b2_cd34, 101);
    for time in [1, 2] {
        // Interface number, protocol, packet type and padding: 8 bytes between record header and frame.
        let head = record(Order::Little, time, 500_000, &[], 63);
        bytes.extend(&head[..8]);
        bytes.extend(Order::Little.u32(u32::try_from(frame.len()).unwrap()));
        bytes.extend(&head[12..]);
        bytes.extend([3, 0, 0, 0, 0, 8, 4, 0]);
        bytes.extend(&frame);
    }
    let (packets, _) = read_tcp(&written(&bytes).path).unwrap();
    assert_eq!(packets, [usual().at(1, Some(1_500_000_000)), usual().at(2, Some(2_500_000_000))]);
}

#[test]
fn link_type_without_the_bits_above_it() {
    // The upper bits say that frames end with a frame check sequence of 4 bytes.
    let bytes = [pcap(Order::Big, MICROSECONDS, 0x2400_0001)].concat();
    let summary = Capture::open(&written(&bytes).path).unwrap().summary();
    assert_eq!(summary.link_type, Some(LinkType::EN10MB));
}

#[test]
fn a_capture_without_frames() {
    let (packets, summary) = read_tcp(&written(&pcap(Order::Little, MICROSECONDS, 276)).path).unwrap();
    assert_eq!(packets, []);
    assert_eq!((summary.capture.packets, summary.capture.truncated), (0, None));
    assert_eq!((summary.first_ts_ns, summary.last_ts_ns), (None, None));
    assert_eq!(summary.capture.link_type, Some(LinkType::LINUX_SLL2));
}

#[test]
fn frames_carry_what_the_file_says() {
    let frame = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
    let bytes = [pcap(Order::Little, NANOSECONDS, 1), record(Order::Little, 7, 8, &frame[..60], 1_514)].concat();
    let mut capture = Capture::open(&written(&bytes).path).unwrap();
    let read = capture.next_frame().unwrap().unwrap();
    assert_eq!((read.number, read.ts_ns, read.link), (1, Some(7_000_000_008), LinkType::EN10MB));
    assert_eq!((read.orig_len, read.data), (1_514, &frame[..60]));
    assert_eq!(capture.next_frame().unwrap(), None);
    assert_eq!(capture.next_frame().unwrap(), None, "and so it stays");
}

#[test]
fn every_frame_is_counted_and_numbered() {
    let tcp = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
    let arp = ethernet(&[0x08, 0x06], &[0; 28]);
    let fragment = ethernet(&[0x08, 0x00], &ipv4_with(6, &[], 3, None, &usual_tcp()));
    let frames =
        [(5, &arp[..]), (3, &tcp), (4, &tcp[..40]), (6, &fragment), (9, &tcp), (8, &tcp[..10]), (7, &tcp[..34])];
    let mut bytes = pcap(Order::Big, MICROSECONDS, 1);
    for (s, frame) in frames {
        bytes.extend(record(Order::Big, s, 0, frame, 77));
    }
    let (packets, summary) = read_tcp(&written(&bytes).path).unwrap();
    assert_eq!(packets, [usual().at(2, Some(3_000_000_000)), usual().at(5, Some(9_000_000_000))]);
    assert_eq!((summary.capture.packets, summary.tcp_packets, summary.not_tcp), (7, 2, 1));
    let skipped = [(SkipReason::CutLinkHeader, 1), (SkipReason::CutTcpHeader, 2), (SkipReason::LaterFragment, 1)];
    assert_eq!(summary.skipped, BTreeMap::from(skipped));
    assert_eq!((summary.first_ts_ns, summary.last_ts_ns), (Some(3_000_000_000), Some(9_000_000_000)));
}

#[test]
fn frames_larger_than_the_buffer() {
    let packet = ipv4_with(6, &[], 0x4000, Some(0), &tcp(&TIMESTAMPS, &vec![0x55; 5_000_000]));
    let orig_len = u32::try_from(packet.len()).unwrap();
    let mut bytes = pcap(Order::Little, MICROSECONDS, 101);
    for s in 0..3 {
        bytes.extend(record(Order::Little, s, 0, &packet, orig_len));
        bytes.extend(record(Order::Little, s, 0, &ipv4(&usual_tcp()), 63));
    }
    let (packets, _) = read_tcp(&written(&bytes).path).unwrap();
    let lens: Vec<_> = packets.iter().map(|packet| (packet.number, packet.len)).collect();
    assert_eq!(lens, [(1, 5_000_000), (2, 11), (3, 5_000_000), (4, 11), (5, 5_000_000), (6, 11)]);
}

#[test]
fn many_frames_across_many_buffers() {
    let frame = ipv4(&tcp(&TIMESTAMPS, &[0; 1_001]));
    let mut bytes = pcap(Order::Little, MICROSECONDS, 101);
    for s in 0..5_000 {
        bytes.extend(record(Order::Little, s, 0, &frame, u32::try_from(frame.len()).unwrap()));
    }
    let file = written(&bytes);
    let packets: Vec<_> = TcpPackets::open(&file.path).unwrap().map(Result::unwrap).collect();
    assert_eq!(packets.len(), 5_000);
    for (packet, s) in packets.iter().zip(0_i64..) {
        assert_eq!((packet.ts_ns, packet.len), (Some(s * 1_000_000_000), 1_001));
        assert_eq!(packet.number, u64::try_from(s).unwrap() + 1);
    }
}
