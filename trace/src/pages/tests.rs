use proptest::prelude::*;
use rusqlite::Connection;

use super::*;

type Row = (i64, [Option<i64>; 3]);

const NAMES: [&str; 3] = ["a", "b", "c"];

fn table(db: &Connection) -> Table {
    Table::find(db, "t", NAMES.into_iter()).unwrap().expect("a table of integers")
}

fn create(db: &Connection, page_size: u32) {
    db.pragma_update(None, "page_size", page_size).unwrap();
    db.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER)").unwrap();
}

fn fill(db: &Connection, rows: &[Row]) {
    let tx = db.unchecked_transaction().unwrap();
    let mut insert = db.prepare("INSERT OR REPLACE INTO t VALUES (?1, ?2, ?3, ?4)").unwrap();
    for (id, [a, b, c]) in rows {
        insert.execute((id, a, b, c)).unwrap();
    }
    tx.commit().unwrap();
}

fn read(db: &Connection, ids: (i64, i64)) -> Result<Vec<Row>> {
    let mut found = Vec::new();
    Pages::new(db)?.rows(table(db), ids, |id, columns| {
        found.push((id, *columns));
        Ok(())
    })?;
    Ok(found)
}

fn by_sql(db: &Connection, (first, last): (i64, i64)) -> Vec<Row> {
    let mut statement = db.prepare("SELECT id, a, b, c FROM t WHERE id BETWEEN ?1 AND ?2 ORDER BY id").unwrap();
    let rows = statement.query_map([first, last], |r| Ok((r.get(0)?, [r.get(1)?, r.get(2)?, r.get(3)?]))).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// Integers of every width, and NULL.
fn integer() -> impl Strategy<Value = Option<i64>> {
    prop::option::weighted(0.9, (any::<i64>(), 0..64u32).prop_map(|(value, narrower)| value >> narrower))
}

fn row(ids: std::ops::Range<i64>) -> impl Strategy<Value = Row> {
    (ids, [integer(), integer(), integer()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_are_what_sql_says(
        rows in prop::collection::vec(row(-2000..2000), 0..3000),
        far in prop::collection::vec((any::<i64>(), [integer(), integer(), integer()]), 0..20),
        ranges in prop::collection::vec((-2100..2100i64, -2100..2100i64), 8),
        page_size in prop::sample::select(vec![512u32, 1024, 4096, 65536]),
    ) {
        let db = Connection::open_in_memory().unwrap();
        create(&db, page_size);
        fill(&db, &rows);
        fill(&db, &far);
        db.execute_batch("DELETE FROM t WHERE id % 7 = 3").unwrap();
        for ids in ranges.into_iter().chain([(i64::MIN, i64::MAX), (i64::MAX, i64::MAX), (i64::MIN, -1)]) {
            prop_assert_eq!(read(&db, ids).unwrap(), by_sql(&db, ids));
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_or_other_rows(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let db = Connection::open(&path).unwrap();
        create(&db, 512);
        fill(&db, &(0..600).map(|i| (i, [Some(i << 20), None, Some(-i)])).collect::<Vec<_>>());
        drop(db);
        let mut bytes = std::fs::read(&path).unwrap();
        // behind the schema, which SQLite itself reads
        for (at, value) in damage {
            let at = 512 + at.index(bytes.len() - 512);
            bytes[at] = value;
        }
        std::fs::write(&path, bytes).unwrap();
        let db = Connection::open(&path).unwrap();
        let found = read(&db, (i64::MIN, i64::MAX));
        // no more rows than the file has room for, and each once
        if let Ok(found) = found {
            prop_assert!(found.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
}

#[test]
fn rows_of_a_log_and_of_the_transaction_at_hand_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let writer = Connection::open(&path).unwrap();
    create(&writer, 4096);
    writer.pragma_update(None, "journal_mode", "WAL").unwrap();
    let rows = |to: i64| (0..to).map(|i| (i, [Some(i), Some(0), None])).collect::<Vec<_>>();
    fill(&writer, &rows(1000));
    let reader = Connection::open(&path).unwrap();
    assert_eq!(read(&reader, (i64::MIN, i64::MAX)).unwrap(), rows(1000));
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(read(&reader, (5, 5)).unwrap().len(), 1);
    fill(&writer, &rows(2000));
    assert_eq!(read(&reader, (i64::MIN, i64::MAX)).unwrap(), rows(1000));
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(read(&reader, (i64::MIN, i64::MAX)).unwrap(), rows(2000));
}

#[test]
fn a_table_that_went_elsewhere_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE first (x); INSERT INTO first VALUES (zeroblob(9000))").unwrap();
    create(&db, 4096);
    fill(&db, &[(1, [None; 3])]);
    let found = table(&db);
    assert!(found.is_here(&db).unwrap());
    db.execute_batch("DROP TABLE first; VACUUM").unwrap();
    assert!(!found.is_here(&db).unwrap());
    assert_eq!(read(&db, (0, 9)).unwrap().len(), 1);
}

#[test]
fn what_is_no_plain_table_of_these_columns_is_left_to_sql() {
    let db = Connection::open_in_memory().unwrap();
    for other in [
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, c INTEGER, b INTEGER)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER) WITHOUT ROWID",
        "CREATE TABLE t (id TEXT PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER)",
        "CREATE VIEW t AS SELECT 1 AS id, 2 AS a, 3 AS b, 4 AS c",
    ] {
        db.execute_batch(other).unwrap();
        assert_eq!(Table::find(&db, "t", NAMES.into_iter()).unwrap(), None, "{other}");
        let kind = if other.contains("VIEW") { "VIEW" } else { "TABLE" };
        db.execute_batch(&format!("DROP {kind} t")).unwrap();
    }
}

#[test]
fn text_where_integers_belong_is_an_error() {
    let db = Connection::open_in_memory().unwrap();
    create(&db, 4096);
    db.execute_batch("INSERT INTO t VALUES (1, 2, 'three', 4)").unwrap();
    assert!(matches!(read(&db, (0, 9)), Err(Error::Damaged(what)) if what.contains("row 1")));
    db.execute_batch("DELETE FROM t; INSERT INTO t VALUES (1, 2, zeroblob(100000), 4)").unwrap();
    assert!(matches!(read(&db, (0, 9)), Err(Error::Damaged(_))));
}

#[test]
fn pages_that_name_themselves_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let db = Connection::open(&path).unwrap();
    create(&db, 512);
    fill(&db, &(0..2000).map(|i| (i, [Some(i); 3])).collect::<Vec<_>>());
    let root = table(&db).root as usize;
    drop(db);
    let sound = std::fs::read(&path).unwrap();
    let page = &sound[512 * (root - 1)..][..512];
    assert_eq!(page[0], INTERIOR);
    let cells = usize::from(u16::from_be_bytes([page[3], page[4]]));
    let mut children = vec![8];
    children.extend((0..cells).map(|i| usize::from(u16::from_be_bytes([page[12 + 2 * i], page[13 + 2 * i]]))));
    for at in children {
        let mut bytes = sound.clone();
        bytes[512 * (root - 1) + at..][..4].copy_from_slice(&(root as u32).to_be_bytes());
        std::fs::write(&path, bytes).unwrap();
        let db = Connection::open(&path).unwrap();
        assert!(read(&db, (i64::MIN, i64::MAX)).is_err(), "child at {at}");
    }
}
