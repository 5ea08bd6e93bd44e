//! An import adds all of its sessions or leaves the trace as it was, to the byte.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::{Path, PathBuf};

use tcpprobe_trace::Error;
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::fields::index;
use tcpprobe_trace::import::ImportWriter;
use tcpprobe_trace::query::{Query, Value};
use tcpprobe_trace::sample::{Family, Flow, Kind, LossCause, Phase, Sample, Sampled, State, Unplaced};
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

const AT: Anchor = Anchor { mono_before_ns: 1000, real_ns: 1_700_000_000_000_001_000, mono_after_ns: 1000 };

fn flow(key: u64) -> Flow {
    Flow {
        key,
        mono_ns: 1000,
        local: "192.0.2.1:40000".parse().unwrap(),
        remote: "192.0.2.2:443".parse().unwrap(),
        family: Family::Inet,
        netns: 0,
        cookie: None,
        congestion: None,
        snd_wscale: None,
        rcv_wscale: None,
    }
}

/// A sample without a segment, as logs have them.
fn sample(serial: u64, snd_cwnd: i64) -> Sample {
    let mut state = State::default();
    state.set(const { index("snd_cwnd") }, Some(snd_cwnd));
    Sample {
        flow: 1,
        serial,
        mono_ns: 1000 + serial as i64,
        kind: Kind::Ack,
        phase: Phase::Before,
        segment: None,
        unseen_before: false,
        refused_before: 0,
        error: 0,
        state,
    }
}

fn add_session(import: &mut ImportWriter, anchored: bool, end: &SessionEnd) {
    let mut session = import.begin_session(&SessionStart::default(), AT, anchored).unwrap();
    session.flow(&flow(1), AT).unwrap();
    for serial in 1..=3 {
        let lengths = Unplaced { len: Some(100), bytes_in_flight: Some(serial as u32 * 10) };
        assert!(session.unplaced_sample(&sample(serial, 10), lengths, AT).unwrap());
    }
    import.end_session(session, end, AT).unwrap();
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    (dir, path)
}

fn files(dir: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn all(path: &Path, sql: &str) -> Vec<Vec<Value>> {
    Query::open(path).unwrap().all(sql).unwrap()
}

#[test]
fn a_new_trace_appears_when_it_is_whole() {
    let (dir, path) = temp();
    let mut import = ImportWriter::begin(&path).unwrap();
    add_session(&mut import, true, &SessionEnd::default());
    assert!(!path.exists(), "a trace with half of an import");
    add_session(&mut import, true, &SessionEnd::default());
    import.commit().unwrap();
    assert_eq!(files(&dir), ["t.db"]);
    let sessions = all(&path, "SELECT id, complete, samples FROM sessions");
    let row = |id| vec![Value::Integer(id), Value::Integer(1), Value::Integer(3)];
    assert_eq!(sessions, [row(1), row(2)]);
}

#[test]
fn dropped_before_its_end_it_leaves_nothing() {
    let (dir, path) = temp();
    let mut import = ImportWriter::begin(&path).unwrap();
    add_session(&mut import, true, &SessionEnd::default());
    drop(import);
    assert!(files(&dir).is_empty(), "{:?}", files(&dir));

    let mut import = ImportWriter::begin(&path).unwrap();
    let session = import.begin_session(&SessionStart::default(), AT, true).unwrap();
    drop((session, import));
    assert!(files(&dir).is_empty(), "{:?}", files(&dir));
}

#[test]
fn dropped_before_its_end_it_leaves_a_trace_as_it_was() {
    let (dir, path) = temp();
    let recorded = SessionWriter::begin(&path, &SessionStart::default(), AT).unwrap();
    recorded.finish(&SessionEnd::default(), AT).unwrap();
    let before = std::fs::read(&path).unwrap();

    let mut import = ImportWriter::begin(&path).unwrap();
    add_session(&mut import, true, &SessionEnd::default());
    assert_eq!(all(&path, "SELECT count(*) FROM sessions"), [[Value::Integer(1)]], "seen before it is whole");
    let session = import.begin_session(&SessionStart::default(), AT, true).unwrap();
    drop((session, import));
    assert_eq!(files(&dir), ["t.db"]);
    assert_eq!(all(&path, "SELECT count(*) FROM sessions"), [[Value::Integer(1)]]);
    // SQLite counts changes of the journal mode in the first page's head (file format, 1.3)
    let after = std::fs::read(&path).unwrap();
    assert_eq!((after.len(), &after[100..], &after[16..24]), (before.len(), &before[100..], &before[16..24]));
}

#[test]
fn a_trace_that_appeared_meanwhile_stays() {
    let (_dir, path) = temp();
    let mut import = ImportWriter::begin(&path).unwrap();
    add_session(&mut import, true, &SessionEnd::default());
    std::fs::write(&path, "someone else's").unwrap();
    assert!(matches!(import.commit(), Err(Error::Io { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"someone else's");
}

#[test]
fn lengths_without_a_place_are_kept_and_numbers_are_not_made_up() {
    let (_dir, path) = temp();
    let mut import = ImportWriter::begin(&path).unwrap();
    let end = SessionEnd {
        losses: vec![(LossCause::NotLogged, 5)],
        sampled: Some(Sampled::Changes),
        ..SessionEnd::default()
    };
    add_session(&mut import, false, &end);
    import.commit().unwrap();
    let rows = all(&path, "SELECT len, bytes_in_flight, seq, ack, snd_nxt, snd_una, rcv_nxt FROM samples");
    let expected = |n| [vec![Value::Integer(100), Value::Integer(n)], vec![Value::Null; 5]].concat();
    assert_eq!(rows, [expected(10), expected(20), expected(30)]);
    assert_eq!(all(&path, "SELECT sample_mode, lost FROM sessions"), [[Value::Text("cwnd".into()), Value::Integer(5)]]);
    assert_eq!(all(&path, "SELECT cause, count FROM losses"), [[Value::Text("not_logged".into()), Value::Integer(5)]]);
    assert!(all(&path, "SELECT * FROM clocks").is_empty(), "no anchor is known");
}

/// As a process leaves it that was killed in the middle of a large join: pages written, and the journal to take them back.
#[test]
fn what_was_killed_in_a_transaction_is_taken_back_by_whoever_reads() {
    let (_dir, path) = temp();
    let mut import = ImportWriter::begin(&path).unwrap();
    add_session(&mut import, true, &SessionEnd::default());
    import.commit().unwrap();
    let killed = path.with_file_name("killed.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA cache_size = 10; BEGIN IMMEDIATE").unwrap();
    for _ in 0..20_000 {
        db.execute("INSERT INTO unjoined VALUES (1, 'not TCP', 1)", []).unwrap();
    }
    std::fs::copy(&path, &killed).unwrap();
    std::fs::copy(path.with_extension("db-journal"), killed.with_extension("db-journal")).unwrap();
    let rows = Query::open(&killed).unwrap().all("SELECT count(*) FROM unjoined").unwrap();
    assert_eq!(rows, [[Value::Integer(0)]]);
}
