//! A long join: who reads the trace meanwhile, and what is left of one that is killed.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::join::{JoinWriter, Match, PacketRow};
use tcpprobe_trace::query::{Query, Value};
use tcpprobe_trace::reader::TraceReader;
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, State};
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

const ANCHOR: Anchor = Anchor { mono_before_ns: 0, real_ns: 0, mono_after_ns: 0 };
const CAPTURE: &str = "/captures/long.pcap";

/// A session that goes on, of a flow with a sample.
fn recording() -> (tempfile::TempDir, PathBuf, SessionWriter) {
    let dir = tempfile::tempdir().unwrap();
    // a name in which nothing must be taken for an option
    let path = dir.path().join("a trace?mode=rw#%41é.db");
    let mut writer = SessionWriter::begin(&path, &SessionStart::default(), ANCHOR).unwrap();
    let flow = Flow {
        key: 1,
        mono_ns: 0,
        local: "192.0.2.1:40000".parse().unwrap(),
        remote: "192.0.2.2:443".parse().unwrap(),
        family: Family::Inet,
        netns: 1,
        cookie: None,
        congestion: None,
        snd_wscale: None,
        rcv_wscale: None,
    };
    writer.flow(&flow, ANCHOR).unwrap();
    let sample = Sample {
        flow: 1,
        serial: 1,
        mono_ns: 1000,
        kind: Kind::Ack,
        phase: Phase::Before,
        segment: None,
        unseen_before: false,
        refused_before: 0,
        error: 0,
        state: State::default(),
    };
    assert!(writer.sample(&sample, ANCHOR).unwrap());
    writer.batch_end(ANCHOR, true).unwrap();
    (dir, path, writer)
}

fn recorded() -> (tempfile::TempDir, PathBuf) {
    let (dir, path, writer) = recording();
    writer.finish(&SessionEnd::default(), ANCHOR).unwrap();
    (dir, path)
}

fn rows(count: u64) -> impl Iterator<Item = PacketRow> {
    (1..=count).map(|number| PacketRow {
        number,
        ts_ns: Some(number as i64),
        flow_id: 1,
        is_out: true,
        seq: number as u32,
        ack: 0,
        len: 0,
        flags: 0x10,
        window: 0,
        sample_id: None,
        matched: Match::None,
        reason: None,
        delay_ns: None,
        carried: None,
        copy: 0,
        interface: None,
        tunnel: None,
        sacked_bytes: None,
        delay_variation_ns: None,
    })
}

/// What someone else is told who does not wait.
fn asked_by_another(path: &Path) -> rusqlite::Result<i64> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::ZERO)?;
    db.query_row("SELECT count(*) FROM packets", [], |r| r.get(0))
}

fn is_kept_away(path: &Path) -> bool {
    asked_by_another(path).is_err_and(|e| e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

fn has_file(path: &Path, suffix: &str) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    Path::new(&name).exists()
}

#[test]
fn a_long_join_is_read_by_itself_alone_and_by_everyone_when_it_is_done() {
    let (_dir, path) = recorded();
    let mut join = JoinWriter::begin(&path, true).unwrap();
    let mut readers = join.readers(2).unwrap();
    assert_eq!(readers.len(), 2);
    let read = |reader: &TraceReader| {
        let flows = reader.flows().unwrap();
        assert_eq!(flows.len(), 1);
        reader.samples(flows[0].id).unwrap()
    };
    let samples = read(&readers[0]);
    assert_eq!(samples.len(), 1);
    let id = join.start(Path::new(CAPTURE)).unwrap();
    join.add(id, rows(1000), &[]).unwrap();
    assert_eq!([read(&readers[0]), read(&readers[1])], [samples.clone(), samples.clone()]);
    // files that are closed must not take the lock along
    readers.truncate(1);
    assert!(is_kept_away(&path));
    assert!(!has_file(&path, "-wal"));
    assert_eq!(read(&readers[0]), samples);
    join.commit().unwrap();
    assert_eq!(asked_by_another(&path).unwrap(), 1000);
    assert!(!has_file(&path, "-journal"), "the trace is one file again");
}

#[test]
fn a_long_join_that_is_given_up_leaves_the_trace_as_it_was() {
    let (_dir, path) = recorded();
    let before = std::fs::read(&path).unwrap();
    let mut join = JoinWriter::begin(&path, true).unwrap();
    let id = join.start(Path::new(CAPTURE)).unwrap();
    join.add(id, rows(1000), &[]).unwrap();
    drop(join);
    assert!(before == std::fs::read(&path).unwrap());
    assert_eq!(asked_by_another(&path).unwrap(), 0);
}

/// More rows than memory is given to: they are in the file when the process is killed, and a journal beside it.
#[test]
fn what_a_long_join_had_written_when_it_was_killed_is_taken_back() {
    let (_dir, path) = recorded();
    let killed = path.with_file_name("killed.db");
    let before = std::fs::metadata(&path).unwrap().len();
    let mut join = JoinWriter::begin(&path, true).unwrap();
    let id = join.start(Path::new(CAPTURE)).unwrap();
    let mut given = 0;
    while std::fs::metadata(&path).unwrap().len() == before {
        assert!(given < 10_000_000, "nothing goes into the file");
        join.add(id, rows(100_000), &[]).unwrap();
        given += 100_000;
    }
    std::fs::copy(&path, &killed).unwrap();
    let journal = format!("{}-journal", path.display());
    std::fs::copy(journal, killed.with_file_name("killed.db-journal")).unwrap();
    let found = Query::open(&killed).unwrap().all("SELECT count(*) FROM packets").unwrap();
    assert_eq!(found, [[Value::Integer(0)]]);
    let whole = Connection::open(&killed).unwrap().query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0));
    assert_eq!(whole.unwrap(), "ok");
    assert_eq!(std::fs::metadata(&killed).unwrap().len(), before);
}

/// Joins as a long capture is joined, and asks from aside meanwhile and afterwards.
fn is_read_by_everyone(path: &Path) {
    let mut join = JoinWriter::begin(path, true).unwrap();
    assert!(join.readers(2).unwrap().is_empty());
    let id = join.start(Path::new(CAPTURE)).unwrap();
    join.add(id, rows(1000), &[]).unwrap();
    assert_eq!(asked_by_another(path).unwrap(), 0);
    join.commit().unwrap();
    assert_eq!(asked_by_another(path).unwrap(), 1000);
}

/// Pages move there when others become free, and who goes by without locks would look for them where they were.
#[test]
fn a_trace_whose_pages_move_is_read_by_everyone() {
    let (_dir, path) = recorded();
    Connection::open(&path).unwrap().execute_batch("PRAGMA auto_vacuum = FULL; VACUUM").unwrap();
    is_read_by_everyone(&path);
    assert!(!has_file(&path, "-wal"), "the trace is one file again");
}

#[test]
fn a_trace_that_is_being_recorded_is_read_by_everyone() {
    let (_dir, path, writer) = recording();
    is_read_by_everyone(&path);
    assert!(has_file(&path, "-wal"), "the recorder's log is not the join's to take away");
    writer.finish(&SessionEnd::default(), ANCHOR).unwrap();
}
