//! Every link type, and what may stand between it and IP.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::PacketBuilder;
use tcpprobe_replay::packet::{Decoded, LinkType, Segment, SkipReason, TcpFlags};

use crate::build::*;

fn v4() -> Decoded {
    Decoded::Tcp(usual())
}

fn v6() -> Decoded {
    Decoded::Tcp(usual_v6())
}

#[test]
fn ethernet_ipv4_and_ipv6() {
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()))), v4());
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&[0x86, 0xdd], &ipv6(&usual_tcp()))), v6());
}

#[test]
fn vlan_tag() {
    let frame = ethernet(&[0x81, 0x00, 0x00, 0x64, 0x08, 0x00], &ipv4(&usual_tcp()));
    assert_eq!(whole(LinkType::EN10MB, &frame), v4());
}

#[test]
fn qinq_tags() {
    let types = [0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0x00, 0x65, 0x86, 0xdd];
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&types, &ipv6(&usual_tcp()))), v6());
}

#[test]
fn five_vlan_tags() {
    let types = [&[0x81, 0x00, 0x00, 0x01].repeat(5)[..], &[0x08, 0x00]].concat();
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&types, &ipv4(&usual_tcp()))), v4());
}

#[test]
fn mpls_labels() {
    let types = [0x88, 0x47, 0x00, 0x01, 0x00, 0x40, 0x00, 0x01, 0x11, 0x40];
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&types, &ipv4(&usual_tcp()))), v4());
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&types, &ipv6(&usual_tcp()))), v6());
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&types, &[0; 20])), Decoded::NotTcp, "a pseudowire");
}

#[test]
fn frames_that_are_not_tcp() {
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&[0x08, 0x06], &[0; 28])), Decoded::NotTcp, "ARP");
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&[0x00, 0x26], &[0x42; 38])), Decoded::NotTcp, "802.3 length");
    let udp = ipv4_with(17, &[], 0, None, &[0; 8]);
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&[0x08, 0x00], &udp)), Decoded::NotTcp, "UDP");
    let icmp = ipv6_with(58, None, &[0; 8]);
    assert_eq!(whole(LinkType::RAW, &icmp), Decoded::NotTcp, "ICMPv6");
    let encrypted = ipv4_with(50, &[], 0, None, &ipv4(&usual_tcp()));
    assert_eq!(whole(LinkType::RAW, &encrypted), Decoded::NotTcp, "ESP");
}

/// The usual segment from a cooked header.
fn cooked(segment: Segment, sll_type: u8, interface: Option<u32>) -> Decoded {
    Decoded::Tcp(Segment { sll_type: Some(sll_type), interface, ..segment })
}

fn sll(protocol: [u8; 2], arphrd: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = arphrd.to_be_bytes();
    [&[0, 4, high, low, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0], &protocol[..], payload].concat()
}

#[test]
fn linux_sll() {
    assert_eq!(whole(LinkType::LINUX_SLL, &sll([0x08, 0x00], 1, &ipv4(&usual_tcp()))), cooked(usual(), 4, None));
    let of_tun = sll([0x86, 0xdd], 0xfffe, &ipv6(&usual_tcp()));
    assert_eq!(whole(LinkType::LINUX_SLL, &of_tun), cooked(usual_v6(), 4, None), "a tun device");
    let tagged = [&[0x00, 0x64, 0x08, 0x00], &ipv4(&usual_tcp())[..]].concat();
    let tagged = sll([0x81, 0x00], 1, &tagged);
    assert_eq!(whole(LinkType::LINUX_SLL, &tagged), cooked(usual(), 4, None), "with a VLAN tag");
    assert_eq!(whole(LinkType::LINUX_SLL, &sll([0x08, 0x00], 824, &ipv4(&usual_tcp()))), Decoded::NotTcp, "netlink");
}

#[test]
fn linux_sll2() {
    let header = |protocol: [u8; 2], arphrd: [u8; 2]| {
        [&protocol[..], &[0, 0, 0, 1, 0, 3], &arphrd, &[0, 6, 2, 0, 0, 0, 0, 1, 0, 0]].concat()
    };
    let frame = [header([0x08, 0x00], [0x03, 0x04]), ipv4(&usual_tcp())].concat();
    assert_eq!(whole(LinkType::LINUX_SLL2, &frame), cooked(usual(), 0, Some(0x1_0003)), "loopback");
    let frame = [header([0x86, 0xdd], [0x00, 0x01]), ipv6(&usual_tcp())].concat();
    assert_eq!(whole(LinkType::LINUX_SLL2, &frame), cooked(usual_v6(), 0, Some(0x1_0003)));
    let tagged = [&header([0x81, 0x00], [0x00, 0x01])[..], &[0x00, 0x64, 0x08, 0x00], &ipv4(&usual_tcp())].concat();
    assert_eq!(whole(LinkType::LINUX_SLL2, &tagged), cooked(usual(), 0, Some(0x1_0003)), "with a VLAN tag");
    let frame = [header([0x08, 0x00], [0x03, 0x38]), ipv4(&usual_tcp())].concat();
    assert_eq!(whole(LinkType::LINUX_SLL2, &frame), Decoded::NotTcp, "netlink");
}

#[test]
fn raw_ip_of_either_version() {
    for link in [101, 12, 14] {
        assert_eq!(whole(LinkType(link), &ipv4(&usual_tcp())), v4());
        assert_eq!(whole(LinkType(link), &ipv6(&usual_tcp())), v6());
        assert_eq!(whole(LinkType(link), &[0x50; 40]), skipped(SkipReason::MalformedIpHeader), "IP version 5");
    }
}

#[test]
fn ipv4_and_ipv6_links_hold_their_version_only() {
    assert_eq!(whole(LinkType::IPV4, &ipv4(&usual_tcp())), v4());
    assert_eq!(whole(LinkType::IPV6, &ipv6(&usual_tcp())), v6());
    assert_eq!(whole(LinkType::IPV4, &ipv6(&usual_tcp())), skipped(SkipReason::MalformedIpHeader));
    assert_eq!(whole(LinkType::IPV6, &ipv4(&usual_tcp())), skipped(SkipReason::MalformedIpHeader));
}

#[test]
fn null_in_both_byte_orders() {
    for family in [[2, 0, 0, 0], [0, 0, 0, 2]] {
        assert_eq!(whole(LinkType::NULL, &[&family[..], &ipv4(&usual_tcp())].concat()), v4());
    }
    for system in [10, 24, 28, 30] {
        for family in [[system, 0, 0, 0], [0, 0, 0, system]] {
            assert_eq!(whole(LinkType::NULL, &[&family[..], &ipv6(&usual_tcp())].concat()), v6());
        }
    }
    assert_eq!(whole(LinkType::NULL, &[0, 0, 0, 7, 1, 2, 3]), Decoded::NotTcp, "another address family");
}

#[test]
fn openbsd_loop() {
    assert_eq!(whole(LinkType::LOOP, &[&[0, 0, 0, 2], &ipv4(&usual_tcp())[..]].concat()), v4());
    assert_eq!(whole(LinkType::LOOP, &[&[0, 0, 0, 24], &ipv6(&usual_tcp())[..]].concat()), v6());
}

#[test]
fn unknown_link_types_are_skipped() {
    for link in [105, 127, 240, u32::MAX] {
        let frame = ethernet(&[0x08, 0x00], &ipv4(&usual_tcp()));
        assert_eq!(whole(LinkType(link), &frame), skipped(SkipReason::UnsupportedLinkType));
    }
    assert_eq!(LinkType(240).to_string(), "240");
    assert_eq!(LinkType::LINUX_SLL2.to_string(), "LINUX_SLL2");
}

#[test]
fn mapped_addresses_become_ipv4() {
    let mut packet = ipv6(&usual_tcp());
    packet[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    let Decoded::Tcp(segment) = whole(LinkType::RAW, &packet) else { panic!("not decoded") };
    assert_eq!(segment.src, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(segment.dst, usual_v6().dst);
}

#[test]
fn all_nine_flags() {
    let mut segment = tcp(&[], &[]);
    segment[12] |= 0x01;
    segment[13] = 0xd2;
    let Decoded::Tcp(segment) = whole(LinkType::RAW, &ipv4(&segment)) else { panic!("not decoded") };
    let expected = TcpFlags::AE | TcpFlags::CWR | TcpFlags::ECE | TcpFlags::ACK | TcpFlags::SYN;
    assert_eq!(segment.flags, expected);
    assert_eq!(segment.flags.to_string(), "S.EWe");
}

#[test]
fn a_frame_of_another_writer() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .single_vlan(etherparse::VlanId::try_new(7).unwrap())
        .ipv4([192, 0, 2, 1], [198, 51, 100, 7], 64)
        .tcp(40_000, 443, 0xffff_fff0, 502)
        .ack(0x0102_0304)
        .psh()
        .options_raw(&TIMESTAMPS)
        .unwrap()
        .write(&mut frame, PAYLOAD)
        .unwrap();
    assert_eq!(whole(LinkType::EN10MB, &frame), Decoded::Tcp(Segment { ip_id: Some(0), ..usual() }));
}
