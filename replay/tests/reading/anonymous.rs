//! Copies of captures that can be shared: what a join reads of them is what it reads of the capture, but for addresses.

use std::ops::ControlFlow;

use tcpprobe_replay::anonymize::{Anonymizer, Key};
use tcpprobe_replay::capture::{Capture, CaptureSummary, Format, read_tcp};
use tcpprobe_replay::export::anonymous::{Error, Written, export};
use tcpprobe_replay::packet::{LinkType, Packet};

use crate::build::*;

fn anonymizer() -> Anonymizer {
    Anonymizer::new(Key::new(std::array::from_fn(|i| i as u8)).unwrap())
}

/// The copy's bytes.
fn copy(bytes: &[u8]) -> (Written, Vec<u8>) {
    let mut out = Vec::new();
    let mut capture = Capture::open(&written(bytes).path).unwrap();
    let done = export(&mut capture, &mut anonymizer(), &mut out, &mut || ControlFlow::Continue(())).unwrap();
    (done, out)
}

fn read(bytes: &[u8]) -> (Vec<Packet>, CaptureSummary) {
    let (packets, summary) = read_tcp(&written(bytes).path).unwrap();
    (packets, summary.capture)
}

/// Packets as they are to be in the copy, numbered anew.
fn rewritten(packets: Vec<Packet>) -> Vec<Packet> {
    let mut anonymizer = anonymizer();
    let rewrite = |(at, packet): (usize, Packet)| {
        let (src, dst) = (anonymizer.address(packet.src), anonymizer.address(packet.dst));
        Packet { number: at as u64 + 1, src, dst, ..packet }
    };
    packets.into_iter().enumerate().map(rewrite).collect()
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|w| w == what)
}

/// Addresses of the frames, and what their payload says.
const TELLING: [&[u8]; 4] = [&[192, 0, 2, 1], &[198, 51, 100, 7], &[0x20, 0x01, 0x0d, 0xb8], PAYLOAD];

/// ARP.
fn arp() -> Vec<u8> {
    ethernet(&[0x08, 0x06], &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 9])
}

#[test]
fn a_classic_capture_becomes_a_classic_one() {
    let (v4, v6) = (ethernet(&[0x08, 0x00], &ipv4(&usual_tcp())), ethernet(&[0x86, 0xdd], &ipv6(&usual_tcp())));
    for (magic, unit_ns) in [(MICROSECONDS, 1_000), (NANOSECONDS, 1)] {
        for order in Order::BOTH {
            let records = [
                pcap(order, magic, 1),
                record(order, 1_700_000_000, 999_999, &v4, 1500),
                record(order, 1_700_000_001, 0, &arp(), 42),
                record(order, u32::MAX, 7, &v6, 97),
            ];
            let original = records.concat();
            let (done, bytes) = copy(&original);
            assert_eq!(done, Written { packets: 2, left_out: 1, ..Written::default() });
            let (packets, summary) = read(&bytes);
            assert_eq!(packets, rewritten(read(&original).0), "{magic:#x} {order:?}");
            assert_eq!(packets[0].ts_ns, Some(1_700_000_000 * 1_000_000_000 + 999_999 * unit_ns));
            let header = (summary.format, summary.link_type, summary.snaplen);
            assert_eq!(header, (Format::Pcap, Some(LinkType::EN10MB), Some(262_144)));
            assert!(TELLING.iter().all(|what| !holds(&bytes, what)));
        }
    }
}

#[test]
fn pcapng_keeps_its_interfaces_and_nothing_that_they_are_called() {
    let raw = ipv4(&usual_tcp());
    let frame = ethernet(&[0x86, 0xdd], &ipv6(&usual_tcp()));
    let (little, big) = (Order::Little, Order::Big);
    let names = |order| [option(order, 2, b"blue0"), option(order, 4, &[192, 0, 2, 1, 255, 255, 255, 0])].concat();
    let resolution = |order, digits| [names(order), option(order, 9, &[digits])].concat();
    // name resolution, decryption secrets, a journal's entry
    let others = |order| {
        [block(order, 4, b"192.0.2.1 blue-host"), block(order, 10, b"blue secrets"), block(order, 9, b"blue journal")]
    };
    let dropped =
        [&big.u32(0)[..], &[0; 8], &option(big, 5, &big.u64(3)), &option(big, 7, &big.u64(4)), &[0; 4]].concat();
    let original = [
        section(little),
        interface(little, 101, 96, &names(little)),
        enhanced(little, 0, 1_700_000_000_000_001, &raw, 63),
        interface(little, 1, 0, &resolution(little, 9)),
        enhanced(little, 1, 1_700_000_000_000_000_002, &frame, 97),
        others(little).concat(),
        section(big),
        interface(big, 228, 0, &resolution(big, 3)),
        enhanced(big, 0, 1_700_000_000_003, &raw, 63),
        block(big, 5, &dropped),
    ]
    .concat();
    let (done, bytes) = copy(&original);
    assert_eq!(done, Written { packets: 3, other_records: 1, ..Written::default() });
    let ((packets, summary), (of_original, first)) = (read(&bytes), read(&original));
    assert_eq!(packets, rewritten(of_original));
    assert_eq!(packets.iter().map(|p| p.interface).collect::<Vec<_>>(), [None, Some(1), Some(2)]);
    assert_eq!(summary, CaptureSummary { other_records: 0, ..first });
    assert_eq!((summary.if_dropped, summary.os_dropped), (Some(3), Some(4)));
    assert!(TELLING.iter().chain(&[&b"blue"[..]]).all(|what| !holds(&bytes, what)));
}

#[test]
fn what_was_left_out_is_not_said_to_have_been_captured() {
    let order = Order::Little;
    let dropped =
        [&order.u32(0)[..], &[0; 8], &option(order, 5, &[0; 8]), &option(order, 7, &[0; 8]), &[0; 4]].concat();
    let original = [
        section(order),
        interface(order, 1, 0, &[]),
        enhanced(order, 0, 1, &arp(), 42),
        enhanced(order, 0, 2, &ethernet(&[0x08, 0x00], &ipv4(&usual_tcp())), 77),
        block(order, 5, &dropped),
    ];
    let (done, bytes) = copy(&original.concat());
    assert_eq!((done.packets, done.left_out), (1, 1));
    let summary = read(&bytes).1;
    assert_eq!((summary.if_dropped, summary.os_dropped), (None, None));
}

#[test]
fn a_packet_without_a_time_is_left_out_and_counted_and_so_is_a_torn_end() {
    let order = Order::Little;
    let frame = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
    let simple = [&order.u32(77)[..], &frame].concat();
    let before_1970 = option(order, 14, &order.u64((-10_i64).cast_unsigned()));
    let mut original = [
        section(order),
        interface(order, 1, 0, &before_1970),
        block(order, 3, &simple),
        enhanced(order, 0, 1, &frame, 77),
        enhanced(order, 0, 11_000_000, &frame, 77),
    ]
    .concat();
    let whole = original.len() as u64;
    original.extend(&enhanced(order, 0, 12_000_000, &frame, 77)[..40]);
    let (done, bytes) = copy(&original);
    assert_eq!((done.packets, done.without_time, done.left_out), (1, 2, 0));
    assert_eq!(done.truncated.map(|t| (t.offset, t.after_frame)), Some((whole, 3)));
    let (packets, summary) = read(&bytes);
    assert_eq!((packets.len(), packets[0].ts_ns, summary.truncated), (1, Some(1_000_000_000), None));
}

#[test]
fn an_error_of_the_capture_is_one_of_the_copy_and_whoever_watches_can_end_it() {
    let order = Order::Little;
    let frame = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
    let packets = [pcap(order, NANOSECONDS, 1), record(order, 1, 0, &frame, 77).repeat(5000)].concat();
    let file = written(&packets);
    let mut capture = Capture::open(&file.path).unwrap();
    let over = export(&mut capture, &mut anonymizer(), &mut Vec::new(), &mut || ControlFlow::Break(()));
    assert!(matches!(over, Err(Error::Interrupted)), "{over:?}");
    let damaged = [packets, record(order, 1, 0, &frame, 77)[..8].to_vec(), vec![0xff; 100]].concat();
    let file = written(&damaged);
    let mut capture = Capture::open(&file.path).unwrap();
    let failed = export(&mut capture, &mut anonymizer(), &mut Vec::new(), &mut || ControlFlow::Continue(()));
    assert!(matches!(failed, Err(Error::Capture(_))), "{failed:?}");
}
