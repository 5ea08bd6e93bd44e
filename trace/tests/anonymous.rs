//! A copy of a trace that says nothing of whose it is: it reads like the trace and holds no name, not even in a free page.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tcpprobe_trace::Error;
use tcpprobe_trace::anonymous::{Copied, NamedCapture, Original};
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::join::{CaptureRow, JoinWriter, Translation};
use tcpprobe_trace::sample::{Family, Flow, Kind, LossCause, Phase, Sample, Sampled, State};
use tcpprobe_trace::verify::{RECORDING, Violation, verify};
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

const AT: Anchor = Anchor { mono_before_ns: 1000, real_ns: 1_700_000_000_000_001_000, mono_after_ns: 1000 };
const END: Anchor = Anchor { mono_before_ns: 9000, real_ns: 1_700_000_000_000_009_000, mono_after_ns: 9000 };

/// What must not be found.
const NAMES: [&str; 9] = [
    "192.0.2.",
    "2001:db8",
    "198.51.100",
    "blue-host",
    "someone",
    "secret-command",
    "trace.pcap",
    "blue-netns",
    "far.pcap",
];

fn start() -> SessionStart {
    SessionStart {
        host: "blue-host".into(),
        kernel: "6.1.0".into(),
        tool_version: "0.1.0".into(),
        command: "secret-command --host 192.0.2.0/24".into(),
        backend: "fentry".into(),
        filter: "port 443, host 192.0.2.0/24, netns blue-netns".into(),
        sampled: Sampled::All,
        capture_path: Some("/home/someone/trace.pcap".into()),
    }
}

fn flow(key: u64, local: &str, remote: &str) -> Flow {
    Flow {
        key,
        mono_ns: 1000,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        family: Family::Inet6,
        netns: 7,
        cookie: Some(1),
        congestion: Some("cubic".into()),
        snd_wscale: None,
        rcv_wscale: None,
    }
}

fn sample(flow: u64, serial: u64) -> Sample {
    Sample {
        flow,
        serial,
        mono_ns: 1000 + serial as i64,
        kind: Kind::Ack,
        phase: Phase::Before,
        segment: None,
        unseen_before: false,
        refused_before: 0,
        error: 0,
        state: State::default(),
    }
}

/// A session of two flows, of which one lost a sample; another that broke off; a joined capture with a translation.
fn trace() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.db");
    let mut writer = SessionWriter::begin(&path, &start(), AT).unwrap();
    writer.flow(&flow(1, "192.0.2.1:40000", "198.51.100.7:443"), AT).unwrap();
    writer.flow(&flow(2, "[::ffff:192.0.2.1]:40001", "[2001:db8::1]:443"), AT).unwrap();
    for (flow, serial) in [(1, 1), (1, 3), (2, 1)] {
        writer.sample(&sample(flow, serial), AT).unwrap();
    }
    let end = SessionEnd {
        capture_packets: Some(5),
        capture_dropped: Some(0),
        costs: vec![("tp_btf/tcp_probe".into(), 3, 900)],
        ..SessionEnd::default()
    };
    writer.finish(&end, END).unwrap();
    let mut broken = SessionWriter::begin(&path, &SessionStart { capture_path: None, ..start() }, AT).unwrap();
    broken.flow(&flow(1, "192.0.2.9:40000", "198.51.100.7:443"), AT).unwrap();
    broken.sample(&sample(1, 1), AT).unwrap();
    broken.batch_end(AT, true).unwrap();
    drop(broken);
    let mut join = JoinWriter::begin(&path, false).unwrap();
    let capture = CaptureRow {
        path: "/home/someone/far.pcap".into(),
        session_id: Some(1),
        link_type: 1,
        snaplen: 0,
        packets: 4,
        tcp_packets: 0,
        joined: 0,
        clock: None,
        truncated: false,
        unjoined: [("no recorded flow".to_owned(), 4)].into(),
        translations: vec![Translation {
            flow_id: 1,
            local: "198.51.100.99:4000".parse().unwrap(),
            remote: "198.51.100.7:443".parse().unwrap(),
            seq_shift: 0,
            peer_seq_shift: 0,
            packets: 0,
        }],
        samples: Default::default(),
        packetless: Vec::new(),
    };
    join.write(&capture, std::iter::empty()).unwrap();
    join.commit().unwrap();
    (folder, path)
}

/// Another address of the same family, as far as the test needs it: bits turned round.
fn turn(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(!v4.to_bits()).into(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Ipv4Addr::from_bits(!v4.to_bits()).to_ipv6_mapped().into(),
            None => std::net::Ipv6Addr::from_bits(!v6.to_bits()).into(),
        },
    }
}

fn copy(from: &Path, to: &Path) -> Result<Copied, Error> {
    Original::open(from)?.copy(to, &mut turn, &mut |_| Ok(()))
}

/// A table as text.
fn rows(path: &Path, sql: &str) -> Vec<Vec<rusqlite::types::Value>> {
    let db = Connection::open(path).unwrap();
    let mut statement = db.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |r| (0..columns).map(|at| r.get(at)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_copy_has_the_rows_and_none_of_the_names() {
    let (folder, path) = trace();
    let to = folder.path().join("copy.db");
    let copied = copy(&path, &to).unwrap();
    let wanted = Copied { sessions: 2, flows: 3, samples: 4, captures: 1, ..Copied::default() };
    assert_eq!(copied, wanted);
    let bytes = std::fs::read(&to).unwrap();
    for name in NAMES {
        assert!(!bytes.windows(name.len()).any(|w| w == name.as_bytes()), "{name}");
    }
    // the same samples, with their flows; and the rest
    for sql in [
        "SELECT * FROM samples ORDER BY id",
        "SELECT id, session_id, local_port, remote_port, family, netns, cookie, congestion, last_ns FROM flows",
        "SELECT * FROM losses ORDER BY rowid",
        "SELECT * FROM clocks ORDER BY rowid",
        "SELECT * FROM probe_costs ORDER BY rowid",
        "SELECT id, started_ns, complete, kernel, tool_version, backend, samples, lost, capture_packets FROM sessions",
    ] {
        assert!(!rows(&path, sql).is_empty(), "{sql}");
        assert_eq!(rows(&to, sql), rows(&path, sql), "{sql}");
    }
    let text = |sql: &str| -> String { Connection::open(&to).unwrap().query_row(sql, [], |r| r.get(0)).unwrap() };
    assert_eq!(
        text("SELECT group_concat(local_addr, ' ') FROM (SELECT * FROM flows ORDER BY id)"),
        "63.255.253.254 ::ffff:63.255.253.254 63.255.253.246"
    );
    assert_eq!(text("SELECT filter FROM sessions WHERE id = 1"), "port 443, names left out");
    assert_eq!(
        rows(&to, "SELECT host, command, capture_path FROM sessions")[0],
        ["".to_owned().into(), "".to_owned().into(), rusqlite::types::Value::Null]
    );
    // samples that are made up break rules, in the trace as in its copy
    let found = |path: &Path| {
        let mut found = Vec::new();
        let of_recording = |v: &Violation| RECORDING.iter().any(|c| c.name == v.check);
        let report = verify(path, &mut |v| {
            found.extend(of_recording(v).then(|| v.clone()));
            Ok(())
        });
        assert_eq!(report.unwrap().incomplete, [2]);
        found
    };
    assert_eq!(found(&to), found(&path));
}

#[test]
fn it_says_which_captures_the_trace_has() {
    let (_folder, path) = trace();
    let captures = Original::open(&path).unwrap().captures().unwrap();
    let capture =
        |name: &str, packets| NamedCapture { path: Path::new("/home/someone").join(name), packets: vec![packets] };
    assert_eq!(captures, [capture("far.pcap", 4), capture("trace.pcap", 5)]);
}

#[test]
fn what_is_in_no_column_of_ours_is_left_out_and_counted() {
    let (folder, path) = trace();
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TABLE notes (text); INSERT INTO notes VALUES ('192.0.2.1 is blue-host');
             CREATE VIEW blue AS SELECT 'someone';
             ALTER TABLE flows ADD COLUMN owner TEXT; UPDATE flows SET owner = 'someone';
             UPDATE flows SET congestion = 'cubic of 192.0.2.1' WHERE id = 1;
             UPDATE sessions SET kernel = '6.1.0-blue-host' WHERE id = 1;
             PRAGMA wal_checkpoint(TRUNCATE);",
        )
        .unwrap();
    let to = folder.path().join("copy.db");
    let copied = copy(&path, &to).unwrap();
    assert_eq!((copied.objects, copied.words), (2, 2));
    let bytes = std::fs::read(&to).unwrap();
    for name in NAMES {
        assert!(!bytes.windows(name.len()).any(|w| w == name.as_bytes()), "{name}");
    }
}

#[test]
fn a_text_where_a_number_is_or_an_address_that_is_none_is_refused() {
    for (sql, what) in [
        ("UPDATE flows SET local_port = '192.0.2.1' WHERE id = 1", "a value of `local_port` in `flows` is Text"),
        ("UPDATE sample_rows SET len = x'c0000201'", "a value of `len` in `sample_rows` is Blob"),
        (
            "UPDATE flows SET remote_addr = 'blue-host'",
            "a value of `remote_addr` in `flows` is \"blue-host\", which is no address",
        ),
        ("UPDATE losses SET cause = x'07'", "a value of `cause` in `losses` is Blob"),
        (
            "DROP TABLE rare_rows; CREATE TABLE rare_rows (sample_id INTEGER, error INTEGER, rcv_laps INTEGER);
             INSERT INTO rare_rows VALUES (1, 0, 0), (1, 0, 0)",
            "a row of `rare_rows`: UNIQUE constraint failed: rare_rows.sample_id",
        ),
    ] {
        let (folder, path) = trace();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let refused = copy(&path, &folder.path().join("copy.db"));
        let Err(Error::Damaged { path: named, what: said }) = refused else { panic!("{sql}: {refused:?}") };
        assert_eq!((named.as_path(), said.as_str()), (path.as_path(), what));
    }
}

#[test]
fn an_imported_session_keeps_that_its_wall_clock_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.db");
    let mut import = tcpprobe_trace::import::ImportWriter::begin(&path).unwrap();
    let start = SessionStart {
        backend: "import: /proc/net/tcpprobe".into(),
        filter: "log /home/someone/probe.log".into(),
        command: "secret-command".into(),
        sampled: Sampled::Received,
        ..SessionStart::default()
    };
    let mut session = import.begin_session(&start, AT, false).unwrap();
    session.flow(&flow(1, "192.0.2.1:40000", "198.51.100.7:443"), AT).unwrap();
    session.sample(&sample(1, 1), AT).unwrap();
    let end = SessionEnd { losses: vec![(LossCause::NotLogged, 3)], ..SessionEnd::default() };
    import.end_session(session, &end, END).unwrap();
    import.commit().unwrap();
    let to = folder.path().join("copy.db");
    copy(&path, &to).unwrap();
    assert!(rows(&to, "SELECT * FROM clocks").is_empty());
    assert_eq!(rows(&to, "SELECT * FROM samples"), rows(&path, "SELECT * FROM samples"));
    let filter = rows(&to, "SELECT filter, backend, sample_mode FROM sessions");
    let words = ["log, names left out", "import: /proc/net/tcpprobe", "received"].map(|w| w.to_owned().into());
    assert_eq!(filter, [words]);
    assert_eq!(verify(&to, &mut |_: &Violation| Ok(())).unwrap().violated(), 0);
}

#[test]
fn whoever_watches_can_end_it() {
    let (folder, path) = trace();
    let over = || Error::Io { path: "over".into(), cause: std::io::ErrorKind::Interrupted.into() };
    let copied = Original::open(&path).unwrap().copy(&folder.path().join("copy.db"), &mut turn, &mut |_| Err(over()));
    assert!(matches!(copied, Err(Error::Io { path, .. }) if path == Path::new("over")));
}
