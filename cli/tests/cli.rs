//! What the command prints, as sessions that a person can read: `cmd/*.trycmd`.
//!
//! After a change that is meant, `TRYCMD=overwrite cargo test -p tcpprobe --test cli` writes them anew; read the diff.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::Path;

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
