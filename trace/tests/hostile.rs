//! Traces that someone made to do harm: refused with the name of what is foreign, or harmless.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like tests")]

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::join::JoinWriter;
use tcpprobe_trace::query::{Query, Value};
use tcpprobe_trace::reader::TraceReader;
use tcpprobe_trace::verify::verify;
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};
use tcpprobe_trace::{Error, upgrade};

const VERSION_4: &str = include_str!("version_4.sql");

/// A trace with one empty session, after these statements.
fn trace_after(sql: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("theirs.db");
    let anchor = |at| Anchor { mono_before_ns: at, real_ns: at, mono_after_ns: at };
    let writer = SessionWriter::begin(&path, &SessionStart::default(), anchor(1)).unwrap();
    writer.finish(&SessionEnd::default(), anchor(2)).unwrap();
    Connection::open(&path).unwrap().execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    (dir, path)
}

/// What each way to open a trace says.
fn openings(path: &Path) -> Vec<Result<(), Error>> {
    let anchor = Anchor { mono_before_ns: 1, real_ns: 1, mono_after_ns: 1 };
    vec![
        TraceReader::open(path).map(drop),
        Query::open(path).map(drop),
        verify(path, &mut |_| Ok(())).map(drop),
        SessionWriter::begin(path, &SessionStart::default(), anchor).map(drop),
        JoinWriter::begin(path, false).map(drop),
        JoinWriter::begin(path, true).and_then(|join| join.readers(1)).map(drop),
        upgrade(path),
    ]
}

#[test]
fn what_would_run_by_itself_is_refused_by_its_name_and_nothing_is_changed() {
    let endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c";
    for (object, sql) in [
        ("trigger `t`", "CREATE TRIGGER t AFTER INSERT ON sessions BEGIN DELETE FROM flows; END".to_owned()),
        ("trigger `t`", "CREATE TABLE own (n); CREATE TRIGGER t AFTER INSERT ON own BEGIN SELECT 1; END".to_owned()),
        ("view `samples`", format!("DROP VIEW samples; CREATE VIEW samples AS {endless}")),
        ("view `packets`", "DROP VIEW packets; CREATE VIEW Packets AS SELECT zeroblob(1000000000)".to_owned()),
        ("table `packet_state`", "DROP VIEW packet_state; CREATE TABLE packet_state (id)".to_owned()),
        ("view `probe_costs`", "ALTER TABLE probe_costs RENAME TO f; CREATE VIEW probe_costs AS SELECT * FROM f".to_owned()),
        ("table `unjoined`", "DROP TABLE unjoined; CREATE TABLE unjoined (capture_id, reason, count CHECK (count > length(zeroblob(count))))".to_owned()),
        ("table `unjoined`", "DROP TABLE unjoined; CREATE TABLE unjoined (capture_id, reason AS (hex(zeroblob(1000000))), count)".to_owned()),
        ("table `unjoined`", "DROP TABLE unjoined; CREATE TABLE unjoined (capture_id, \"reason\" DEFAULT (hex(zeroblob(1000000))), count)".to_owned()),
        ("table `unjoined`", "DROP TABLE unjoined; CREATE VIRTUAL TABLE unjoined USING fts5 (capture_id, reason, count)".to_owned()),
        ("index `i`", "CREATE INDEX i ON flows (hex(zeroblob(local_port * 10000)))".to_owned()),
        ("index `i`", "CREATE INDEX i ON flows (local_port) WHERE length(hex(zeroblob(1000000))) > 3".to_owned()),
        ("view `sample_rows`", "DROP TABLE sample_rows; CREATE VIEW sample_rows AS SELECT 1 AS id".to_owned()),
    ] {
        let (_dir, path) = trace_after(&sql);
        let before = std::fs::read(&path).unwrap();
        for (way, opened) in openings(&path).into_iter().enumerate() {
            let Err(e @ Error::ForeignSchema { .. }) = opened else { panic!("{way}: {sql}") };
            let said = e.to_string();
            assert!(said.contains("theirs.db: ") && said.contains(object) && said.contains("drop it"), "{said}");
        }
        assert!(std::fs::read(&path).unwrap() == before, "changed: {sql}");
    }
}

#[test]
fn an_older_trace_is_brought_up_to_date_without_what_would_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("theirs.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(VERSION_4).unwrap();
    db.execute_batch("CREATE TRIGGER t AFTER UPDATE ON sample_rows BEGIN DELETE FROM flows; END").unwrap();
    drop(db);
    let said = upgrade(&path).unwrap_err().to_string();
    assert!(said.contains("trigger `t`"), "{said}");
}

#[test]
fn what_a_user_added_under_names_of_its_own_stays_and_can_be_asked() {
    let (_dir, path) = trace_after(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT DEFAULT ('none' || 1) CHECK (length(note) < 100));
         INSERT INTO notes VALUES (1, 'slow'); CREATE INDEX notes_by_text ON notes (lower(note));
         CREATE VIEW noted AS SELECT note FROM notes; CREATE INDEX by_port ON flows (remote_port DESC, id)",
    );
    for opened in openings(&path) {
        opened.unwrap();
    }
    let rows = Query::open(&path).unwrap().all("SELECT * FROM noted").unwrap();
    assert_eq!(rows, [[Value::Text("slow".into())]]);
}

#[test]
fn a_statement_reads_this_trace_within_bounds_and_nothing_else() {
    let (dir, path) = trace_after("");
    let other = dir.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE secret (n)").unwrap();
    let query = Query::open(&path).unwrap();
    for (sql, word) in [
        (format!("ATTACH '{}' AS other", other.display()), "only be read"),
        ("SELECT load_extension('evil')".to_owned(), "not authorized"),
        ("SELECT writefile('x', 'y')".to_owned(), "no such function"),
        ("SELECT length(readfile('/etc/passwd'))".to_owned(), "no such function"),
        ("PRAGMA writable_schema = 1".to_owned(), "only be read"),
        ("PRAGMA hard_heap_limit = 0".to_owned(), "only be read"),
        ("PRAGMA trusted_schema = 1".to_owned(), "only be read"),
        ("DELETE FROM sessions".to_owned(), "only be read"),
        ("UPDATE sqlite_dbpage SET data = zeroblob(4096)".to_owned(), "only be read"),
        ("CREATE TEMP TABLE t (n)".to_owned(), "only be read"),
        ("VACUUM INTO 'copy.db'".to_owned(), "gives no rows"),
        ("SELECT zeroblob(1000000000)".to_owned(), "too big"),
        ("SELECT 'x' LIKE hex(zeroblob(1000))".to_owned(), "too complex"),
    ] {
        let said = query.all(&sql).unwrap_err().to_string();
        assert!(said.contains(word), "{sql}: {said}");
    }
    assert!(query.all(&vec!["SELECT 1"; 101].join(" UNION ALL ")).is_err());
}

#[test]
fn a_trace_without_one_of_its_tables_is_damaged_and_says_which() {
    for (object, sql) in [
        ("table `sessions`", "PRAGMA foreign_keys = OFF; DROP TABLE sessions"),
        ("view `samples`", "DROP VIEW samples"),
    ] {
        let (_dir, path) = trace_after(sql);
        for opened in openings(&path) {
            let said = opened.unwrap_err().to_string();
            assert!(said.contains("theirs.db: damaged trace") && said.contains(object), "{said}");
        }
    }
    let (_dir, path) = trace_after("DROP VIEW flow_summary");
    for opened in openings(&path) {
        opened.unwrap();
    }
}

#[test]
fn damage_is_the_file_s_fault_and_not_the_statement_s() {
    let (_dir, path) = trace_after("");
    let root: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'sessions'", [], |r| r.get(0))
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let page = (usize::try_from(root).unwrap() - 1) * 4096;
    bytes[page..page + 4096].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let said = Query::open(&path).unwrap().all("SELECT * FROM sessions").unwrap_err().to_string();
    assert!(said.contains("theirs.db: cannot read: ") && said.contains("malformed"), "{said}");
}

#[test]
fn a_schema_without_end_is_given_up() {
    let (_dir, path) = trace_after(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA writable_schema = 1; BEGIN;
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 20000)
         INSERT INTO sqlite_schema SELECT 'view', 'v' || n, 'v' || n, 0, 'CREATE VIEW v' || n || ' AS SELECT 1' FROM c;
         COMMIT",
    );
    let said = TraceReader::open(&path).err().unwrap().to_string();
    assert!(said.contains("theirs.db: damaged trace: its schema"), "{said}");
}
