//! A trace and a capture with rewritten addresses say of each packet what those with the true ones say.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use tcpprobe_fixtures::pcap::{Frame, PcapWriter};
use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_replay::anonymize::{Anonymizer, Key};
use tcpprobe_replay::capture::Capture;
use tcpprobe_replay::export::anonymous::{Written, export};
use tcpprobe_replay::join::{Batching, Joined, join};
use tcpprobe_tests::tools::{self, Finished};
use tcpprobe_trace::anonymous::Original;
use tcpprobe_trace::join::{JoinWriter, Outcome, Translation};
use tcpprobe_trace::verify::{RECORDING, verify};
use tempfile::TempDir;

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

fn key() -> Key {
    Key::new(std::array::from_fn(|i| i as u8)).unwrap()
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/scenarios")
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
        let scenario = Scenario::load(&scenarios().join(format!("{name}.toml"))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        let (trace, capture) = (file("trace.db"), file("trace.pcap"));
        scenario.write_trace(&trace).unwrap();
        scenario.write_capture(&capture).unwrap();
        let mut anonymizer = Anonymizer::new(key());
        rewrite_trace(&trace, &file("other.db"), &mut anonymizer);
        rewrite_capture(&capture, &file("other.pcap"), &mut anonymizer);
        let with_true = join(&trace, &capture, Batching::default()).unwrap();
        let rewritten = join(&file("other.db"), &file("other.pcap"), Batching::default()).unwrap();
        assert!(!with_true.packets.is_empty(), "{name}");
        assert_eq!(rewritten.packets, with_true.packets, "{name}");
    }
}

/// A trace and its capture copied as `export --to trace --anonymize` does.
fn export_both(from: (&Path, &Path), to: (&Path, &Path)) -> Written {
    let mut anonymizer = Anonymizer::new(key());
    let original = Original::open(from.0).unwrap();
    original.copy(to.0, &mut |a| anonymizer.address(a), &mut |_| tcpprobe_trace::Result::Ok(())).unwrap();
    let mut capture = Capture::open(from.1).unwrap();
    let mut out = File::create_new(to.1).unwrap();
    export(&mut capture, &mut anonymizer, &mut out, &mut || ControlFlow::Continue(())).unwrap()
}

fn violations(trace: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut keep = |v: &tcpprobe_trace::verify::Violation| {
        found.extend(RECORDING.iter().any(|c| c.name == v.check).then(|| format!("{v:?}")));
        Ok(())
    };
    verify(trace, &mut keep).unwrap();
    found
}

/// Joins a scenario, and a copy of it. Returns whether each frame is in the copy.
fn compare(path: &Path) -> bool {
    let name = path.display();
    let scenario = Scenario::load(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name| folder.path().join(name);
    let (trace, capture) = (file("trace.db"), file("trace.pcap"));
    scenario.write_trace(&trace).unwrap();
    scenario.write_capture(&capture).unwrap();
    let (other, other_capture) = (file("other.db"), file("other.pcap"));
    let written = export_both((&trace, &capture), (&other, &other_capture));
    assert_eq!(violations(&other), violations(&trace), "{name}");
    if written.left_out > 0 {
        return false;
    }
    let with_true = join(&trace, &capture, Batching::default()).unwrap();
    let anonymous = join(&other, &other_capture, Batching::default()).unwrap();
    assert_eq!(anonymous.packets, with_true.packets, "{name}");
    let mut anonymizer = Anonymizer::new(key());
    let mut address = |a: SocketAddr| SocketAddr::new(anonymizer.address(a.ip()), a.port());
    let rewritten = |t: &Translation| Translation { local: address(t.local), remote: address(t.remote), ..*t };
    let translations: Vec<Translation> = with_true.capture.translations.iter().map(rewritten).collect();
    assert_eq!(anonymous.capture.translations, translations, "{name}");
    let rest = |j: &Joined| {
        let mut samples = BTreeMap::new();
        for ((flow, outcome), n) in &j.capture.samples {
            // as the session does not name its capture, it is not known that this one lacks nothing
            let outcome = if *outcome == Outcome::DroppedInQdisc { Outcome::NotCaptured } else { *outcome };
            *samples.entry((*flow, outcome)).or_insert(0) += n;
        }
        (samples, j.capture.clock, j.capture.tcp_packets, j.capture.unjoined.clone())
    };
    assert_eq!(rest(&anonymous), rest(&with_true), "{name}");
    true
}

#[test]
fn a_join_of_an_export_finds_the_same() {
    let paths: Vec<PathBuf> = std::fs::read_dir(scenarios()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(paths.len() > 100);
    let incomplete_of = |paths: &[PathBuf]| -> BTreeSet<String> {
        let incomplete = paths.iter().filter(|path| !compare(path));
        incomplete.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    // threads, and not rayon's: joins have those to themselves
    let (one, other) = paths.split_at(paths.len() / 2);
    let incomplete = std::thread::scope(|scope| {
        let one = scope.spawn(|| incomplete_of(one));
        let other = incomplete_of(other);
        &one.join().unwrap() | &other
    });
    // cut within their headers, or in a tunnel
    let wanted = [
        "sack_option_cut",
        "snaplen_cut",
        "tunnel_and_its_device",
        "tunnel_geneve",
        "tunnel_gre",
        "tunnel_ipip",
        "tunnel_vxlan",
    ];
    assert_eq!(incomplete, wanted.map(str::to_owned).into());
}

/// A recording that says whose it is wherever it can, with two captures; one is joined, and was seen behind a NAT.
struct Recording {
    folder: TempDir,
    trace: PathBuf,
}

/// A scenario with addresses that are found: a timestamps option with a small number in it reads like 10.0.0.1.
fn elsewhere(name: &str) -> Scenario {
    let text = std::fs::read_to_string(scenarios().join(format!("{name}.toml"))).unwrap();
    Scenario::parse(&text.replace("10.0.0.", "172.23.45.")).unwrap()
}

/// What must be nowhere in the new files.
const WORDS: [&str; 6] = ["blue-host", "secret-command", "trace.pcap", "behind.pcap", "blue-netns", "10.0.0.0/8"];

impl Recording {
    fn new() -> Recording {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace.db");
        let scenario = elsewhere("nat_both");
        scenario.write_trace(&trace).unwrap();
        let behind = folder.path().join("behind.pcap");
        scenario.write_capture(&behind).unwrap();
        let joined = join(&trace, &behind, Batching::default()).unwrap();
        assert!(!joined.capture.translations.is_empty() && !joined.packets.is_empty());
        let mut writer = JoinWriter::begin(&trace, false).unwrap();
        writer.write(&joined.capture, joined.packets.iter().copied()).unwrap();
        writer.commit().unwrap();
        // the capture that was recorded along, with a frame that cannot be made anonymous
        let own = folder.path().join("trace.pcap");
        elsewhere("plain_transfer").write_capture(&own).unwrap();
        let mut bytes = std::fs::read(&own).unwrap();
        let (arp, len) = ([[0xff; 12].as_slice(), &[8, 6], &[0; 14]].concat(), 28_u32.to_le_bytes());
        bytes.extend([&[0; 8][..], &len, &len, &arp].concat());
        std::fs::write(&own, bytes).unwrap();
        let mut capture = Capture::open(&own).unwrap();
        while capture.next_frame().unwrap().is_some() {}
        Connection::open(&trace)
            .unwrap()
            .execute(
                "UPDATE sessions SET host = 'blue-host', command = 'secret-command --host 10.0.0.0/8',
                   filter = 'port 80, host 10.0.0.0/8, netns blue-netns', capture_path = ?1, capture_packets = ?2",
                (own.to_str().unwrap(), capture.summary().packets as i64),
            )
            .unwrap();
        Recording { folder, trace }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `tcpprobe export --to trace --anonymize`, with more arguments.
    fn export(&self, to: &str, more: &[&str]) -> Finished {
        let mut command = Command::new(tools::tcpprobe().unwrap());
        command.current_dir(self.folder.path());
        command.args(["export", "trace.db", "--to", "trace", "--anonymize", "-o", to]).args(more);
        tools::run(&mut command, Duration::from_secs(60)).unwrap()
    }

    /// Addresses of the flows, of the captures, and of the flows behind the NAT.
    fn addresses(&self) -> BTreeSet<IpAddr> {
        let db = Connection::open(&self.trace).unwrap();
        let sql = "SELECT local_addr FROM flows UNION SELECT remote_addr FROM flows
                   UNION SELECT local_addr FROM translations UNION SELECT remote_addr FROM translations";
        let mut statement = db.prepare(sql).unwrap();
        let texts = statement.query_map([], |r| r.get::<_, String>(0)).unwrap();
        texts.map(|text| text.unwrap().parse().unwrap()).collect()
    }

    /// Names of what is in the folder, hidden files too.
    fn names(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn flows(trace: &Path) -> Vec<(String, String)> {
    let db = Connection::open(trace).unwrap();
    let mut statement = db.prepare("SELECT local_addr, remote_addr FROM flows ORDER BY id").unwrap();
    let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn an_export_has_trace_and_captures_and_nothing_that_says_whose_they_are() {
    let recording = Recording::new();
    let finished = recording.export("shared", &[]).expect_code(0).unwrap();
    let shared = recording.file("shared");
    let names: BTreeSet<_> = std::fs::read_dir(&shared).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["trace.db", "trace.pcap", "trace-2.pcap"].map(Into::into).into());
    // what was left out is told: the join, and the frame that is no segment
    for told in ["left out  1 join with", "left out  1 packet, of which what is left would not be anonymous"] {
        assert!(finished.stderr.contains(told), "{}", finished.stderr);
    }
    let folder = recording.folder.path().to_str().unwrap();
    let addresses = recording.addresses();
    assert!(addresses.len() >= 4, "{addresses:?}");
    for name in names {
        let bytes = std::fs::read(shared.join(&name)).unwrap();
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
        for address in &addresses {
            let octets = match address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            assert!(!holds(&octets) && !holds(address.to_string().as_bytes()), "{name:?}: {address}");
        }
        for word in WORDS.iter().chain(&[folder]) {
            assert!(!holds(word.as_bytes()), "{name:?}: {word}");
        }
    }
    let mut command = Command::new(tools::tcpprobe().unwrap());
    command.arg("verify").arg(shared.join("trace.db"));
    tools::run(&mut command, Duration::from_secs(60)).unwrap().expect_code(0).unwrap();
    // trace and captures agree: the join that was left out is made anew
    let with_true = join(&recording.trace, &recording.file("behind.pcap"), Batching::default()).unwrap();
    let anonymous = join(&shared.join("trace.db"), &shared.join("trace.pcap"), Batching::default()).unwrap();
    assert_eq!(anonymous.packets, with_true.packets);
}

#[test]
fn a_file_is_the_trace_alone() {
    let recording = Recording::new();
    let finished = recording.export("shared.db", &[]).expect_code(0).unwrap();
    assert!(finished.stderr.contains("left out  2 captures"), "{}", finished.stderr);
    assert_eq!(flows(&recording.file("shared.db")).len(), flows(&recording.trace).len());
    assert_eq!(recording.names(), ["behind.pcap", "shared.db", "trace.db", "trace.pcap"].map(str::to_owned).into());
}

#[test]
fn a_key_makes_exports_agree_and_without_one_they_differ() {
    let recording = Recording::new();
    std::fs::write(recording.file("key"), "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301").unwrap();
    for (name, more) in
        [("a", &["--anonymize-key", "key"][..]), ("b", &["--anonymize-key", "key"]), ("c", &[]), ("d", &[])]
    {
        recording.export(name, more).expect_code(0).unwrap();
    }
    let of = |name: &str| flows(&recording.file(name).join("trace.db"));
    let capture = |name: &str| std::fs::read(recording.file(name).join("trace.pcap")).unwrap();
    assert_eq!((of("a"), capture("a")), (of("b"), capture("b")));
    let others: BTreeSet<_> = ["a", "c", "d"].iter().map(|name| of(name)).collect();
    assert_eq!(others.len(), 3, "{others:?}");
    let refused = recording.export("e", &["--anonymize-key", "trace.db"]).expect_code(1).unwrap();
    assert!(refused.stderr.contains("trace.db"), "{}", refused.stderr);
}

#[test]
fn what_is_there_is_not_touched_and_what_fails_leaves_nothing() {
    let recording = Recording::new();
    let before = recording.names();
    // a file, a folder
    let bytes = std::fs::read(&recording.trace).unwrap();
    for name in ["trace.db", "behind.pcap"] {
        let refused = recording.export(name, &[]).expect_code(1).unwrap();
        assert!(refused.stderr.contains("never overwritten"), "{}", refused.stderr);
    }
    assert_eq!(std::fs::read(&recording.trace).unwrap(), bytes);
    // the second capture is not what it was: the trace and the first one are written by then
    let own = recording.file("trace.pcap");
    let whole = std::fs::read(&own).unwrap();
    std::fs::write(&own, &whole[..whole.len() - 44]).unwrap();
    let refused = recording.export("shared", &[]).expect_code(1).unwrap();
    assert!(refused.stderr.contains("not the capture that the trace names"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--pcap"), "no way out: {}", refused.stderr);
    assert_eq!(recording.names(), before);
    // damaged
    std::fs::write(&own, [&whole[..], &[0xff; 100]].concat()).unwrap();
    recording.export("shared", &[]).expect_code(1).unwrap();
    assert_eq!(recording.names(), before);
    // gone
    std::fs::remove_file(&own).unwrap();
    let refused = recording.export("shared", &[]).expect_code(1).unwrap();
    assert!(refused.stderr.contains("trace.pcap") && refused.stderr.contains("--pcap"), "{}", refused.stderr);
    assert!(!recording.file("shared").exists());
    // the way out: the captures that there are
    recording.export("shared", &["--pcap", "behind.pcap"]).expect_code(0).unwrap();
    assert!(recording.file("shared/trace.pcap").exists() && !recording.file("shared/trace-2.pcap").exists());
}

#[test]
fn a_trace_of_someone_else_names_no_file_to_be_shared() {
    let recording = Recording::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let private = elsewhere.path().join("private.pcap");
    std::fs::copy(recording.file("trace.pcap"), &private).unwrap();
    let set = |sql: &str, path: &Path| {
        let db = Connection::open(&recording.trace).unwrap();
        db.execute(sql, [path.to_str().unwrap()]).unwrap();
    };
    // a recording that broke off knows of no packets
    set("UPDATE sessions SET capture_path = ?1, capture_packets = NULL, complete = 0", &private);
    let refused = recording.export("shared", &[]).expect_code(1).unwrap();
    assert!(refused.stderr.contains("does not say how many packets"), "{}", refused.stderr);
    set("UPDATE sessions SET capture_path = ?1", Path::new("/dev/zero"));
    let refused = recording.export("shared", &[]).expect_code(1).unwrap();
    assert!(refused.stderr.contains("it is no file"), "{}", refused.stderr);
    assert!(!recording.file("shared").exists());
    // one beside the trace is that of a recording that broke off
    set("UPDATE sessions SET capture_path = ?1", &recording.file("trace.pcap"));
    recording.export("shared", &[]).expect_code(0).unwrap();
    let db = Connection::open(recording.file("shared/trace.db")).unwrap();
    let complete: i64 = db.query_row("SELECT complete FROM sessions", [], |r| r.get(0)).unwrap();
    assert_eq!(complete, 0);
}
