//! PPP and its framings, IEEE 802.3 with SNAP, and netfilter's log.

use tcpprobe_replay::packet::{Decoded, LinkType, Segment, SkipReason, decode};

use crate::build::*;

fn v4() -> Decoded {
    Decoded::Tcp(usual())
}

fn v6() -> Decoded {
    Decoded::Tcp(usual_v6())
}

fn behind(head: &[u8], packet: &[u8]) -> Vec<u8> {
    [head, packet].concat()
}

/// Fails unless the header, cut after each of its bytes, is one in which the snaplen cut.
#[track_caller]
fn cut_in(link: LinkType, frame: &[u8], header_len: usize) {
    for captured in 0..header_len {
        let decoded = decode(link, &frame[..captured], u32::try_from(frame.len()).unwrap());
        assert_eq!(decoded, skipped(SkipReason::CutLinkHeader), "{captured} of {header_len} bytes");
    }
    let decoded = decode(link, &frame[..header_len], u32::try_from(frame.len()).unwrap());
    assert_eq!(decoded, skipped(SkipReason::CutIpHeader));
}

#[test]
fn ppp_with_and_without_framing() {
    let (v4_packet, v6_packet) = (ipv4(&usual_tcp()), ipv6(&usual_tcp()));
    for link in [LinkType::PPP, LinkType::PPP_HDLC] {
        assert_eq!(whole(link, &behind(&[0xff, 0x03, 0x00, 0x21], &v4_packet)), v4());
        assert_eq!(whole(link, &behind(&[0xff, 0x03, 0x00, 0x57], &v6_packet)), v6());
        assert_eq!(whole(link, &behind(&[0xff, 0x03, 0x21], &v4_packet)), v4(), "a compressed protocol field");
        assert_eq!(whole(link, &behind(&[0xff, 0x03, 0xc0, 0x21], &v4_packet)), Decoded::NotTcp, "LCP");
    }
    assert_eq!(whole(LinkType::PPP, &behind(&[0x00, 0x21], &v4_packet)), v4());
    assert_eq!(whole(LinkType::PPP, &behind(&[0x57], &v6_packet)), v6());
    let label = [0xff, 0x03, 0x02, 0x81, 0x00, 0x01, 0x11, 0x40];
    assert_eq!(whole(LinkType::PPP, &behind(&label, &v6_packet)), v6(), "MPLS");
    cut_in(LinkType::PPP, &behind(&[0xff, 0x03, 0x00, 0x21], &v4_packet), 4);
}

#[test]
fn cisco_hdlc() {
    for address in [0x0f, 0x8f] {
        assert_eq!(whole(LinkType::PPP_HDLC, &behind(&[address, 0, 0x08, 0x00], &ipv4(&usual_tcp()))), v4());
    }
    assert_eq!(whole(LinkType::PPP_HDLC, &behind(&[0x8f, 0, 0x80, 0x35], &[0; 18])), Decoded::NotTcp, "keepalive");
    cut_in(LinkType::PPP_HDLC, &behind(&[0x0f, 0, 0x08, 0x00], &ipv4(&usual_tcp())), 4);
}

#[test]
fn pppoe_sessions() {
    // Version and type, code, session 7, the length of what follows: protocol and packet.
    let session = behind(&[0x11, 0x00, 0x00, 0x07, 0x00, 0x41, 0x00, 0x21], &ipv4(&usual_tcp()));
    assert_eq!(whole(LinkType::PPP_ETHER, &session), v4());
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&[0x88, 0x64], &session)), v4());
    let tagged = [0x81, 0x00, 0x00, 0x64, 0x88, 0x64];
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&tagged, &session)), v4(), "in a VLAN");
    let v6_session = behind(&[0x11, 0x00, 0x00, 0x07, 0x00, 0x55, 0x00, 0x57], &ipv6(&usual_tcp()));
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&[0x88, 0x64], &v6_session)), v6());

    let padded = [&ethernet(&[0x88, 0x64], &session)[..], &[0; 20]].concat();
    assert_eq!(whole(LinkType::EN10MB, &padded), v4(), "the IP length wins");
    let discovery = ethernet(&[0x88, 0x63], &[0x11, 0x09, 0, 0, 0, 4, 1, 1, 0, 0]);
    assert_eq!(whole(LinkType::EN10MB, &discovery), Decoded::NotTcp);
    cut_in(LinkType::EN10MB, &ethernet(&[0x88, 0x64], &session), 22);
}

#[test]
fn ieee_802_3_with_snap() {
    let snap = [0x00, 0x47, 0xaa, 0xaa, 0x03, 0x00, 0x00, 0x00, 0x08, 0x00];
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&snap, &ipv4(&usual_tcp()))), v4());
    cut_in(LinkType::EN10MB, &ethernet(&snap, &ipv4(&usual_tcp())), 22);
    let tagged = [&[0x81, 0x00, 0x00, 0x64][..], &snap].concat();
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&tagged, &ipv4(&usual_tcp()))), v4());
    let cdp = [0x00, 0x47, 0xaa, 0xaa, 0x03, 0x00, 0x00, 0x0c, 0x20, 0x00];
    assert_eq!(whole(LinkType::EN10MB, &ethernet(&cdp, &ipv4(&usual_tcp()))), Decoded::NotTcp, "another organisation");
    // In a cooked header, logical link control has protocol 4.
    let cooked = [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0, 4], &snap[2..], &ipv4(&usual_tcp())].concat();
    let expected = Segment { sll_type: Some(0), ..usual() };
    assert_eq!(whole(LinkType::LINUX_SLL, &cooked), Decoded::Tcp(expected));
}

/// A netlink attribute; netfilter gives its own values in network byte order.
fn attribute(order: Order, kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [&order.u16(len)[..], &order.u16(kind), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn nflog_in_both_byte_orders() {
    for order in Order::BOTH {
        let head = attribute(order, 1, &[0x08, 0x00, 3, 0]);
        let prefix = attribute(order, 10, b"log\0\0");
        let nested = attribute(order, 0x8000 | 19, &attribute(order, 1, &[0x81, 0x00]));
        let came_by = attribute(order, 4, &[0, 0, 0, 2]);
        let leaves_by = attribute(order, 5, &[0, 0, 0, 3]);
        let v4_packet = attribute(order, 9, &ipv4(&usual_tcp()));
        let v6_packet = attribute(order, 9, &ipv6(&usual_tcp()));

        let out = [&[2, 0, 0, 5][..], &head, &prefix, &nested, &leaves_by, &v4_packet].concat();
        let expected = Decoded::Tcp(Segment { interface: Some(3), ..usual() });
        assert_eq!(whole(LinkType::NFLOG, &out), expected, "{order:?}");
        let forwarded = [&[2, 0, 0, 5][..], &came_by, &leaves_by, &v4_packet].concat();
        assert_eq!(whole(LinkType::NFLOG, &forwarded), expected, "{order:?}");
        let input = [&[10, 0, 0, 5][..], &head, &came_by, &v6_packet].concat();
        let expected = Decoded::Tcp(Segment { interface: Some(2), ..usual_v6() });
        assert_eq!(whole(LinkType::NFLOG, &input), expected, "{order:?}");
        assert_eq!(whole(LinkType::NFLOG, &[&[2, 0, 0, 5][..], &v4_packet].concat()), v4(), "{order:?}");

        assert_eq!(whole(LinkType::NFLOG, &[&[7, 0, 0, 5][..], &v4_packet].concat()), Decoded::NotTcp, "of a bridge");
        cut_in(LinkType::NFLOG, &[&[2, 0, 0, 5][..], &v4_packet].concat(), 8);
        let endless = [&[2, 0, 0, 5][..], &order.u16(0), &order.u16(1), &[0; 40]].concat();
        assert_eq!(whole(LinkType::NFLOG, &endless), Decoded::NotTcp, "an attribute that never advances");
    }
}
