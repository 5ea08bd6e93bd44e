//! What the command prints, as sessions that a person can read: `cmd/*.trycmd`.
//!
//! After a change that is meant, `TRYCMD=overwrite cargo test -p tcpprobe --test cli` writes them anew; read the diff.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::Path;
use std::process::Command;

use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

/// An empty recording of a fixed moment.
fn make_trace(path: &Path) {
    let _ = std::fs::remove_file(path);
    let at = |mono_ns: i64| Anchor {
        mono_before_ns: mono_ns,
        real_ns: 1_700_000_000_000_000_000 + mono_ns,
        mono_after_ns: mono_ns,
    };
    let start = SessionStart {
        host: "sender".into(),
        kernel: "6.1.0".into(),
        tool_version: "0.1.0".into(),
        command: "tcpprobe record -w trace.db".into(),
        backend: "kprobe".into(),
        filter: "port 443".into(),
        ..SessionStart::default()
    };
    let writer = SessionWriter::begin(path, &start, at(0)).unwrap();
    writer.finish(&SessionEnd::default(), at(2_500_000_000)).unwrap();
}

#[test]
fn sessions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd");
    make_trace(&folder.join("queries.in/trace.db"));
    make_trace(&folder.join("errors.in/trace.db"));
    // nothing but its number tells this trace from one that can be read
    let future = folder.join("errors.in/future.db");
    make_trace(&future);
    rusqlite::Connection::open(&future).unwrap().pragma_update(None, "user_version", 999).unwrap();
    make_trace(&folder.join("verify.in/trace.db"));
    let damaged = folder.join("verify.in/damaged.db");
    make_trace(&damaged);
    rusqlite::Connection::open(&damaged)
        .unwrap()
        .execute_batch(
            "UPDATE sessions SET samples = 7, lost = 3, complete = 0;
             UPDATE clocks SET mono_before_ns = 5 WHERE rowid = 1",
        )
        .unwrap();
    let other = folder.join("errors.in/other.db");
    let _ = std::fs::remove_file(&other);
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    std::fs::write(folder.join("errors.in/empty.pcap"), "").unwrap();
    // made by the session itself
    let _ = std::fs::remove_file(folder.join("logs.in/logs.db"));

    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}

/// A classic pcap file of Ethernet frames, with none.
const EMPTY_CAPTURE: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];

#[test]
fn a_join_that_writes_nothing_leaves_an_older_trace_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, capture) = (folder.path().join("old.db"), folder.path().join("empty.pcap"));
    let sql = include_str!("../../trace/tests/version_5.sql");
    rusqlite::Connection::open(&trace).unwrap().execute_batch(sql).unwrap();
    std::fs::write(&capture, EMPTY_CAPTURE.map(u32::to_le_bytes).concat()).unwrap();
    let before = std::fs::read(&trace).unwrap();
    let join = |arguments: &[&str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_tcpprobe"))
            .args(["join", "old.db"])
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        String::from_utf8(command.stderr).unwrap()
    };
    let said = join(&["empty.pcap", "--dry-run"]);
    assert!(said.contains("brings it up to date"), "{said}");
    assert!(join(&["nowhere.pcap"]).contains("nowhere.pcap"));
    assert_eq!(std::fs::read(&trace).unwrap(), before);
    join(&["empty.pcap"]);
    assert_ne!(std::fs::read(&trace).unwrap(), before);
    let said = join(&["empty.pcap", "--dry-run"]);
    assert!(!said.contains("brings it up to date"), "{said}");
}
