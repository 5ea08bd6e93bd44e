use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::packet::{Decoded, Segment, decode};

/// The key of the specification's vectors.
const KEY: &str = "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301";

fn anonymizer() -> Anonymizer {
    Anonymizer::new(Key::from_hex(KEY).unwrap())
}

#[test]
fn addresses_are_those_of_the_specification() {
    let vectors = [
        ("0.0.0.0", "151.82.155.134"),
        ("255.255.255.255", "94.185.169.89"),
        ("192.0.2.1", "100.115.72.131"),
        ("2001:db8::1", "c180:5dd4:2587:3524:30ab:fa65:6ab6:f88"),
        // IPv4 in IPv6 is the same host
        ("::ffff:192.0.2.1", "::ffff:100.115.72.131"),
    ];
    let mut anonymizer = anonymizer();
    for (address, rewritten) in vectors {
        assert_eq!(anonymizer.address(address.parse().unwrap()).to_string(), rewritten, "{address}");
    }
}

#[test]
fn a_key_is_64_digits_whose_halves_differ() {
    assert!(Key::from_hex(&format!(" {KEY}\n")).is_ok());
    for bad in ["", "0123", &KEY[1..], &KEY.replace('0', "x"), &"5".repeat(64), &"é".repeat(32)] {
        assert!(Key::from_hex(bad).is_err(), "{bad}");
    }
}

/// A segment over IPv6 behind a header of hop-by-hop options.
fn behind_hop_by_hop(options: &[u8]) -> Vec<u8> {
    let (ipv6, tcp, hop_by_hop) = (6 << 4, 6, 0);
    let payload = u16::try_from(2 + options.len() + 20).unwrap().to_be_bytes();
    let mut frame = vec![ipv6, 0, 0, 0, payload[0], payload[1], hop_by_hop, 64];
    frame.extend([0x20; 32]);
    frame.extend([tcp, u8::try_from((2 + options.len()) / 8 - 1).unwrap()]);
    frame.extend(options);
    let mut header = [0; 20];
    (header[12], header[13]) = (5 << 4, 16);
    frame.extend(header);
    frame
}

#[test]
fn options_of_ipv6_that_may_hold_an_address_leave_a_packet_out() {
    // padding; the length of a jumbogram, as the kernel's own super-packets have it (RFC 2675); a home address (RFC 6275)
    let home = [&[1, 2, 0, 0, 0xc9, 16][..], &[0x20; 16]].concat();
    let cases: [(&[u8], bool); 5] = [
        (&[1, 4, 0, 0, 0, 0], true),
        (&[0xc2, 4, 0, 1, 0, 0], true),
        (&[0, 0, 0, 0, 0, 0], true),
        (&home, false),
        // padding that is none
        (&[1, 4, 0x20, 1, 0xd, 0xb8], false),
    ];
    for (options, is_kept) in cases {
        let mut into = Vec::new();
        let kept = anonymizer().frame(LinkType::RAW, &behind_hop_by_hop(options), &mut into);
        assert_eq!(kept, is_kept, "{options:?}");
    }
    assert!(!anonymizer().frame(LinkType::RAW, &behind_hop_by_hop(&[0xc2, 40, 0, 1, 0, 0]), &mut Vec::new()));
}

proptest! {
    #[test]
    fn so_many_first_bits_stay_common_and_no_more_v4(a: u32, bit in 0_u32..32, noise: u32) {
        // the same before the bit, another bit there, anything behind
        let b = a ^ (1 << (31 - bit)) ^ (noise & ((1_u32 << (31 - bit)) - 1));
        let mut anonymizer = anonymizer();
        let mut rewrite = |n: u32| match anonymizer.address(Ipv4Addr::from(n).into()) {
            IpAddr::V4(v4) => u32::from(v4),
            IpAddr::V6(v6) => panic!("{v6}"),
        };
        prop_assert_eq!((rewrite(a) ^ rewrite(b)).leading_zeros(), bit);
    }

    #[test]
    fn so_many_first_bits_stay_common_and_no_more_v6(a: u128, bit in 0_u32..128, noise: u128) {
        let b = a ^ (1 << (127 - bit)) ^ (noise & ((1_u128 << (127 - bit)) - 1));
        let mut anonymizer = anonymizer();
        let mut rewrite = |n: u128| match anonymizer.address(Ipv6Addr::from(n).into()) {
            IpAddr::V6(v6) => u128::from(v6),
            IpAddr::V4(v4) => panic!("{v4}"),
        };
        prop_assert_eq!((rewrite(a) ^ rewrite(b)).leading_zeros(), bit);
    }

    #[test]
    fn any_bytes_are_rewritten_or_left_out(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), link in 0..LinkType::SUPPORTED.len(), version in 4_u8..7,
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | 5;
        }
        let mut into = Vec::new();
        anonymizer().frame(LinkType::SUPPORTED[link], &bytes, &mut into);
    }
}

/// An Ethernet frame: addresses, an IPv4 header with a recorded route, TCP with MPTCP's ADD_ADDR, timestamps, payload.
fn frame() -> Vec<u8> {
    let mut frame = vec![0xaa; 12];
    frame.extend([8, 0]);
    frame.extend([0x47, 0, 0, 64 + 8, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
    frame.extend([7, 7, 4, 192, 0, 2, 99, 0]);
    frame.extend([0x14, 0x51, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 2, 0xa0, 0x18, 1, 0, 0xbe, 0xef, 0, 0]);
    frame.extend([8, 10, 0, 0, 0, 5, 0, 0, 0, 6]);
    frame.extend([30, 8, 0x30, 1, 192, 0, 2, 77, 1, 1]);
    frame.extend(b"secret payload");
    frame
}

#[test]
fn of_a_frame_headers_are_left_and_no_address() {
    let frame = frame();
    let mut into = Vec::new();
    assert!(anonymizer().frame(LinkType::EN10MB, &frame, &mut into));
    assert_eq!(into.len(), frame.len() - 14, "the payload is cut away");
    assert_eq!(into[..12], [0; 12], "hardware addresses");
    let holds = |octets: &[u8]| into.windows(octets.len()).any(|w| w == octets);
    for octets in [[192, 0, 2, 1], [198, 51, 100, 7], [192, 0, 2, 99], [192, 0, 2, 77]] {
        assert!(!holds(&octets), "{octets:?}");
    }
    assert!(!holds(&[0xbe, 0xef]), "the checksum, which is over them");
    let segment = |bytes: &[u8]| -> Segment {
        match decode(LinkType::EN10MB, bytes, frame.len() as u32) {
            Decoded::Tcp(segment) => segment,
            other => panic!("{other:?}"),
        }
    };
    let (before, after) = (segment(&frame), segment(&into));
    assert_eq!(after.src.to_string(), "100.115.72.131");
    assert_eq!((after.seq, after.ack, after.len, after.flags), (before.seq, before.ack, before.len, before.flags));
    assert_eq!((after.src_port, after.dst_port), (before.src_port, before.dst_port));
    assert_eq!((after.tsval, after.tsecr, after.ip_id), (Some(5), Some(6), Some(0x1234)));
    let sum: u32 = into[14..42].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the checksum of the IP header holds");
}

#[test]
fn what_is_no_tcp_segment_or_not_whole_is_left_out() {
    let mut anonymizer = anonymizer();
    let mut into = Vec::new();
    let mut left_out = |at: usize, byte: u8, why: &str| {
        let mut frame = frame();
        frame[at] = byte;
        assert!(!anonymizer.frame(LinkType::EN10MB, &frame, &mut into), "{why}");
    };
    left_out(23, 17, "UDP, and what tunnels are in it");
    left_out(23, 4, "IP in IP");
    left_out(23, 1, "ICMP, which quotes packets");
    left_out(21, 1, "a later fragment");
    left_out(13, 6, "ARP");
    let whole = frame();
    assert!(!anonymizer.frame(LinkType::EN10MB, &whole[..whole.len() - 20], &mut into), "a header that is cut");
    assert!(!anonymizer.frame(LinkType::NFLOG, &whole, &mut into), "a link header of unknown contents");
}
