//! Captures of real transfers, and what tshark 4.0 says of each segment in them.
//!
//! `fixtures/captures` has beside each capture the output of `tshark -T fields` with, for each field, its last
//! occurrence in a frame: that of the inner header. Made on Linux 6.18 with iperf3, and nftables dropping some packets:
//! - `vxlan`: between two network namespaces, captured with `tcpdump -i any`: on the tunnel's device and below it;
//! - `nflog`: on loopback, `tcpdump -i nflog:5`;
//! - `tunnels`: packets of the former, wrapped by scapy in every kind of tunnel, in VLANs and in each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tcpprobe_replay::capture::read_tcp;
use tcpprobe_replay::packet::{LinkType, Packet, Tunnel};

fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/captures").join(name)
}

fn read(name: &str) -> Vec<Packet> {
    read_tcp(&capture(&format!("{name}.pcap"))).unwrap().0
}

/// The packet in the columns of the tables.
fn row(p: &Packet) -> String {
    let text = |value: Option<u32>| value.map_or(String::new(), |value| value.to_string());
    let (left, right): (Vec<_>, Vec<_>) = p.sack.iter().map(|(l, r)| (l.to_string(), r.to_string())).unzip();
    let columns = [
        p.number.to_string(),
        p.src.to_string(),
        p.dst.to_string(),
        p.src_port.to_string(),
        p.dst_port.to_string(),
        p.seq.to_string(),
        p.ack.to_string(),
        p.len.to_string(),
        p.flags.0.to_string(),
        p.window.to_string(),
        text(p.tsval),
        text(p.tsecr),
        left.join(","),
        right.join(","),
        text(p.ip_id.map(u32::from)),
        p.ttl.to_string(),
    ];
    columns.join("\t")
}

#[test]
fn every_segment_is_what_tshark_says() {
    for name in ["vxlan", "nflog", "tunnels"] {
        let table = std::fs::read_to_string(capture(&format!("{name}.tsv"))).unwrap();
        let expected: Vec<_> = table.lines().skip(1).collect();
        let read: Vec<_> = read(name).iter().map(row).collect();
        assert!(!expected.is_empty());
        assert_eq!(read, expected, "{name}");
    }
}

#[test]
fn each_packet_is_seen_on_the_tunnel_s_device_and_below_it() {
    let packets = read("vxlan");
    let (sightings, rest) = packets.as_chunks::<2>();
    assert!(rest.is_empty());
    for [one, other] in sightings {
        assert_eq!(row(one).split_once('\t').unwrap().1, row(other).split_once('\t').unwrap().1);
        let (bare, wrapped) = if one.tunnel.is_none() { (one, other) } else { (other, one) };
        assert_eq!((bare.tunnel, wrapped.tunnel), (None, Some(Tunnel::Vxlan)));
        // What this host sends is seen first on the tunnel's device, 3, and what it receives first on 2 below it.
        let (first, sll_type) = if bare.src_port == 7311 { (wrapped, 0) } else { (bare, 4) };
        assert_eq!(first.number, one.number);
        assert_eq!((bare.interface, bare.sll_type), (Some(3), Some(sll_type)));
        assert_eq!((wrapped.interface, wrapped.sll_type), (Some(2), Some(sll_type)));
    }
}

#[test]
fn the_log_names_the_interface() {
    let (packets, summary) = read_tcp(&capture("nflog.pcap")).unwrap();
    assert_eq!(summary.capture.link_type, Some(LinkType::NFLOG));
    assert!(packets.iter().all(|p| p.interface == Some(1)), "loopback is the first");
}

#[test]
fn every_kind_of_tunnel_is_named() {
    let kinds: BTreeSet<_> = read("tunnels").iter().filter_map(|p| p.tunnel).collect();
    assert_eq!(kinds, BTreeSet::from(Tunnel::ALL));
}
