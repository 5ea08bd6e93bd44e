//! A trace and a capture with rewritten addresses say of each packet what those with the true ones say.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use rusqlite::Connection;
use tcpprobe_fixtures::pcap::{Frame, PcapWriter};
use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_replay::anonymize::{Anonymizer, Key};
use tcpprobe_replay::capture::Capture;
use tcpprobe_replay::join::{Batching, join};

/// Rewrites a capture as `record --anonymize` does; all of its frames are TCP segments.
fn rewrite_capture(from: &Path, to: &Path, anonymizer: &mut Anonymizer) {
    let mut capture = Capture::open(from).unwrap();
    let mut writer = None;
    let mut data = Vec::new();
    while let Some(frame) = capture.next_frame().unwrap() {
        let writer = writer
            .get_or_insert_with(|| PcapWriter::new(File::create_new(to).unwrap(), frame.link.0, 262_144).unwrap());
        assert!(anonymizer.frame(frame.link, frame.data, &mut data), "frame {}", frame.number);
        writer.write(frame.ts_ns.unwrap(), &Frame { data: data.clone(), orig_len: frame.orig_len }).unwrap();
    }
    writer.unwrap().finish().unwrap();
}

/// The same for the flows of a trace.
fn rewrite_trace(from: &Path, to: &Path, anonymizer: &mut Anonymizer) {
    std::fs::copy(from, to).unwrap();
    let db = Connection::open(to).unwrap();
    for column in ["local_addr", "remote_addr"] {
        let mut addresses = db.prepare(&format!("SELECT DISTINCT {column} FROM flows")).unwrap();
        let addresses: BTreeSet<String> = addresses.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
        let rewritten: Vec<(String, String)> = addresses
            .into_iter()
            .map(|a| (a.clone(), anonymizer.address(a.parse::<IpAddr>().unwrap()).to_string()))
            .collect();
        for (address, other) in &rewritten {
            assert_ne!(address, other);
            db.execute(&format!("UPDATE flows SET {column} = '#' || ?2 WHERE {column} = ?1"), [address, other])
                .unwrap();
        }
        db.execute(&format!("UPDATE flows SET {column} = substr({column}, 2)"), []).unwrap();
    }
}

#[test]
fn a_join_finds_the_same() {
    // IPv4, IPv6, both in one; `any` on loopback; losses without timestamps; options; an address in use twice
    for name in [
        "plain_transfer",
        "ipv6",
        "ipv4_mapped_socket",
        "loopback_on_any",
        "both_ends_recorded",
        "lost_before_tap_timestamps",
        "retransmission_without_timestamps",
        "sacked_segments_and_bytes",
        "mptcp_subflows",
        "port_reuse",
        "tso_super_packet",
        "gro_merged_packets",
        "two_namespaces",
        "window_scale",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/scenarios/{name}.toml"));
        let scenario = Scenario::load(&path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        let (trace, capture) = (file("trace.db"), file("trace.pcap"));
        scenario.write_trace(&trace).unwrap();
        scenario.write_capture(&capture).unwrap();
        let mut anonymizer = Anonymizer::new(Key::new(std::array::from_fn(|i| i as u8)).unwrap());
        rewrite_trace(&trace, &file("other.db"), &mut anonymizer);
        rewrite_capture(&capture, &file("other.pcap"), &mut anonymizer);
        let with_true = join(&trace, &capture, Batching::default()).unwrap();
        let rewritten = join(&file("other.db"), &file("other.pcap"), Batching::default()).unwrap();
        assert!(!with_true.packets.is_empty(), "{name}");
        assert_eq!(rewritten.packets, with_true.packets, "{name}");
    }
}
