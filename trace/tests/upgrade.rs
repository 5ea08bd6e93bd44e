//! Traces of older versions are brought up to date with all that is in them, or stay as they are.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::reader::TraceReader;
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};
use tcpprobe_trace::{Error, SCHEMA_VERSION, upgrade};

/// A recording of two sockets with its capture joined, as version 1 of the schema kept it.
const VERSION_1: &str = include_str!("version_1.sql");
/// The same with what versions 2 and 3 added: identifications, internal values, samples without a packet.
const VERSION_3: &str = include_str!("version_3.sql");
/// The same as version 4 kept it: samples flow by flow, in runs.
const VERSION_4: &str = include_str!("version_4.sql");
/// The same as version 5 kept it: each sample says how far it is from its run's first one.
const VERSION_5: &str = include_str!("version_5.sql");
/// What version 2 did not have of version 3.
const NOT_IN_VERSION_2: &str = "DROP VIEW ack_effects; DROP VIEW congestion_internals; DROP VIEW packet_internals;
    DROP TABLE internal_rows; PRAGMA user_version = 2;";

fn older(sql: &[&str]) -> (tempfile::TempDir, PathBuf) {
    // in memory where that is possible: a disk's delays would be most of the time
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let path = dir.path().join("old.db");
    let db = Connection::open(&path).unwrap();
    sql.iter().for_each(|sql| db.execute_batch(sql).unwrap());
    (dir, path)
}

/// Views, what their rows are ordered by, and columns with ids of samples, which are given anew.
const VIEWS: [(&str, &str, &[&str]); 7] = [
    ("samples", "flow_id, serial", &["id"]),
    ("packets", "id", &["sample_id"]),
    ("packet_state", "id", &["sample_id"]),
    ("samples_without_packet", "capture_id, flow_id, reason", &["sample_id"]),
    ("ack_effects", "flow_id, ts_ns", &["before_id", "after_id"]),
    ("congestion_internals", "flow_id, serial", &["sample_id"]),
    ("packet_internals", "packet_id", &["sample_id"]),
];

type Rows = Vec<Vec<rusqlite::types::Value>>;

fn rows(db: &Connection, sql: &str) -> Rows {
    let mut statement = db.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |r| (0..columns).map(|i| r.get(i)).collect()).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// A statement for each of the views that a trace has; samples are named by flow and serial.
fn statements(db: &Connection) -> Vec<String> {
    let mut statements = Vec::new();
    for (view, order, ids) in VIEWS {
        let Ok(statement) = db.prepare(&format!("SELECT * FROM {view}")) else { continue };
        let columns = statement.column_names().map(|column| match ids.contains(&column) {
            true if view == "samples" => "flow_id, serial".to_owned(),
            true => format!("(SELECT flow_id || '#' || serial FROM samples s WHERE s.id = v.{column})"),
            false => format!("v.{column}"),
        });
        statements.push(format!("SELECT {} FROM {view} v ORDER BY {order}", columns.collect::<Vec<_>>().join(", ")));
    }
    statements
}

fn fresh(path: &Path) -> Connection {
    let anchor = |at| Anchor { mono_before_ns: at, real_ns: at, mono_after_ns: at };
    let writer = SessionWriter::begin(path, &SessionStart::default(), anchor(1)).unwrap();
    writer.finish(&SessionEnd::default(), anchor(2)).unwrap();
    Connection::open(path).unwrap()
}

#[test]
fn all_that_is_in_an_older_trace_stays() {
    let versions = [
        (1, vec![VERSION_1]),
        (2, vec![VERSION_3, NOT_IN_VERSION_2]),
        (3, vec![VERSION_3]),
        (4, vec![VERSION_4]),
        (5, vec![VERSION_5]),
    ];
    for (version, sql) in versions {
        let (dir, path) = older(&sql);
        let refused = TraceReader::open(&path).err().unwrap();
        assert!(matches!(refused, Error::OldVersion { found, .. } if found == version));
        assert!(refused.to_string().contains("tcpprobe join"), "{refused}");

        let db = Connection::open(&path).unwrap();
        let statements = statements(&db);
        assert_eq!(statements.len(), [3, 4, 7, 7, 7][version as usize - 1]);
        let before: Vec<Rows> = statements.iter().map(|sql| rows(&db, sql)).collect();
        assert!(before.iter().filter(|rows| !rows.is_empty()).count() >= 3);
        drop(db);

        upgrade(&path).unwrap();
        let db = Connection::open(&path).unwrap();
        for (sql, before) in statements.iter().zip(&before) {
            assert_eq!(&rows(&db, sql), before, "version {version}: {sql}");
        }
        // the order of serials is that of ids
        let unordered = "SELECT count(*) FROM samples a JOIN samples b USING (flow_id)
                         WHERE a.serial < b.serial AND a.id >= b.id";
        assert_eq!(rows(&db, unordered), rows(&db, "SELECT 0"));
        let made = fresh(&dir.path().join("fresh.db"));
        let columns = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c ORDER BY 1, 2";
        assert_eq!(rows(&db, columns), rows(&made, columns), "as if it had been made today");
        let views = "SELECT name, sql FROM sqlite_schema WHERE type IN ('view', 'index') AND sql IS NOT NULL
                       OR name LIKE '%_rows' AND name <> 'packet_rows' ORDER BY 1";
        assert_eq!(rows(&db, views), rows(&made, views));
    }
}

#[test]
fn what_only_the_reader_sees_stays_too() {
    let (_dir, path) = older(&[VERSION_3]);
    upgrade(&path).unwrap();
    let reader = TraceReader::open(&path).unwrap();
    let samples: Vec<_> = reader.flows().unwrap().iter().flat_map(|f| reader.samples(f.id).unwrap()).collect();
    assert_eq!(samples.len(), 18);
    assert_eq!(samples.iter().filter(|s| s.error == 11).count(), 1);
    let last = samples.last().and_then(|s| s.rcv_position).unwrap();
    assert!(last > 1 << 32, "a round was counted: {last}");
}

#[test]
fn a_trace_that_cannot_be_brought_up_to_date_is_left_as_it_is() {
    for (version, damage) in [
        (VERSION_3, "UPDATE sample_rows SET tsval = 'soon' WHERE id = 3"),
        (VERSION_3, "UPDATE sample_rows SET what = 15 WHERE id = 3"),
        (VERSION_3, "UPDATE sample_rows SET what = -1 WHERE id = 3"),
        (VERSION_3, "DROP TABLE ack_rows"),
        (VERSION_4, "DROP TABLE sample_runs"),
        (VERSION_5, "DROP TABLE packet_rows"),
        // the user's own, of a name that a ready query took later
        (VERSION_4, "CREATE VIEW rtt AS SELECT 1 AS mine"),
    ] {
        let (_dir, path) = older(&[version, damage]);
        let bytes = std::fs::read(&path).unwrap();
        assert!(upgrade(&path).is_err(), "{damage}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{damage}");
    }
    // rows that name what is not there
    let (_dir, path) = older(&[VERSION_3, "UPDATE sample_rows SET ack_id = 999, flow_id = 77 WHERE id = 3"]);
    upgrade(&path).unwrap();
    let version: i64 = Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |r| r.get(0)).unwrap();
    assert_eq!(version, SCHEMA_VERSION);
}

#[test]
fn numbers_of_any_size_are_no_panic() {
    for table in ["sample_rows", "ack_rows", "seldom_rows", "packet_rows", "internal_rows"] {
        let (_dir, path) = older(&[VERSION_3]);
        let columns: Vec<String> = {
            let db = Connection::open(&path).unwrap();
            let statement = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
            statement.column_names().filter(|c| *c != "id" && *c != "sample_id").map(str::to_owned).collect()
        };
        let original = std::fs::read(&path).unwrap();
        for column in columns {
            for value in ["9223372036854775807", "-9223372036854775808"] {
                std::fs::write(&path, &original).unwrap();
                let damage =
                    format!("PRAGMA foreign_keys = OFF; UPDATE {table} SET {column} = {value} WHERE rowid % 3 = 1");
                Connection::open(&path).unwrap().execute_batch(&damage).unwrap();
                if upgrade(&path).is_err() {
                    continue;
                }
                let reader = TraceReader::open(&path).unwrap();
                for flow in reader.flows().unwrap() {
                    let _ = reader.samples(flow.id);
                }
                let db = Connection::open(&path).unwrap();
                for sql in statements(&db) {
                    let mut statement = db.prepare(&sql).unwrap();
                    let mut rows = statement.query([]).unwrap();
                    while let Ok(Some(_)) = rows.next() {}
                }
            }
        }
    }
}
