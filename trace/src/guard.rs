//! A trace may come from someone else: what its schema may hold, and what SQLite may do for it.
//!
//! SQLite runs what the schema says: triggers when rows are written, views when they are read, and the expressions in
//! tables and indexes. So what has a name of ours is what we make, nothing has a trigger, and all else stays untouched
//! unless the user asks for it by name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;

use crate::schema::{READY, SCHEMA_VERSION, backlog, create};
use crate::store::failed;
use crate::{Error, Result};

/// What SQLite may allocate at once, in bytes, in all of the process. What it sorts goes to files before.
const HEAP_BYTES: i64 = 512 << 20;

/// Bounds to a statement, and to what it makes; ours stay far below.
const LIMITS: [(Limit, i32); 7] = [
    // bytes of a value or a row
    (Limit::SQLITE_LIMIT_LENGTH, 64 << 20),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1 << 20),
    (Limit::SQLITE_LIMIT_COLUMN, 1_000),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
    // instructions of a compiled statement
    (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    // matching takes the product of its two lengths
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
];

/// Steps of SQLite's machine in which a schema must be read, ten or so for an entry: ours takes less than two thousand.
const SCHEMA_STEPS: u32 = 100_000;

/// Words that bring an expression, or a function to be called, into a table or an index.
const WORDS_OF_EXPRESSIONS: [&str; 8] = ["as", "check", "collate", "default", "generated", "using", "virtual", "where"];

/// Bounds what SQLite does for a file, before anything of it is read.
pub(crate) fn restrain(db: &Connection) -> rusqlite::Result<()> {
    for (limit, most) in LIMITS {
        db.set_limit(limit, most)?;
    }
    db.pragma_update(None, "hard_heap_limit", HEAP_BYTES)?;
    // no statement can damage the file's own structure
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // views and triggers may use built-in functions only that do nothing but compute
    db.pragma_update(None, "trusted_schema", false)?;
    // a damaged page is found when it is read, and not by what it leads to
    db.pragma_update(None, "cell_size_check", true)
}

/// Reads the schema, which SQLite does in quadratic time: one that is thousands of times ours is given up.
pub(crate) fn within_steps<T>(
    db: &mut Connection,
    path: &Path,
    read: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    let mut thousands = 0;
    let is_over = move || {
        thousands += 1;
        thousands > SCHEMA_STEPS / 1_000
    };
    let err = failed(path, "cannot bound the schema");
    db.progress_handler(1_000, Some(is_over)).map_err(&err)?;
    let read = read(db);
    db.progress_handler(0, None::<fn() -> bool>).map_err(&err)?;
    match read {
        Err(Error::Sqlite { cause, .. })
            if cause.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) =>
        {
            Err(Error::Damaged { path: path.to_owned(), what: "its schema has far too many entries".into() })
        }
        read => read,
    }
}

/// An entry of `sqlite_schema`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: String,
    name: String,
    table: String,
    sql: Option<String>,
}

/// All entries; names in small letters, as SQLite does not tell them apart.
fn entries(db: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = db.prepare("SELECT type, lower(name), lower(tbl_name), sql FROM sqlite_schema")?;
    let rows = statement
        .query_map([], |r| Ok(Entry { kind: r.get(0)?, name: r.get(1)?, table: r.get(2)?, sql: r.get(3)? }))?;
    rows.collect()
}

/// Tables and views that are ours, by name, as an empty trace has them: to have SQLite make one would take longer than all
/// else that opening a trace takes.
fn ours() -> &'static BTreeMap<String, Entry> {
    static OURS: OnceLock<BTreeMap<String, Entry>> = OnceLock::new();
    OURS.get_or_init(|| {
        let statements = create() + backlog::MAKE;
        statements.split(";\n").filter_map(defined_by).map(|entry| (entry.name.clone(), entry)).collect()
    })
}

/// The table or view that a statement of ours defines, with its text as SQLite keeps it.
fn defined_by(statement: &str) -> Option<Entry> {
    let (_, definition) = statement.split_once("CREATE ")?;
    let (kind, definition) = definition.split_once(' ').filter(|(kind, _)| ["TABLE", "VIEW"].contains(kind))?;
    let definition = definition.strip_prefix("IF NOT EXISTS ").unwrap_or(definition).trim_end();
    let name = definition.split([' ', '(']).next()?.to_lowercase();
    let sql = Some(format!("CREATE {kind} {definition}"));
    Some(Entry { kind: kind.to_lowercase(), table: name.clone(), name, sql })
}

/// How many tables and views have names of their own.
pub(crate) fn others(db: &Connection) -> rusqlite::Result<u64> {
    let ours = ours();
    let is_other = |e: &Entry| e.kind != "index" && !ours.contains_key(&e.name) && !e.name.starts_with("sqlite_");
    Ok(entries(db)?.iter().filter(|e| is_other(e)).count() as u64)
}

/// Refuses a trace in whose schema something of ours is missing, was replaced, or would run by itself.
pub(crate) fn check(db: &Connection, path: &Path, version: i64) -> Result<()> {
    let ours = ours();
    let found = entries(db).map_err(failed(path, "cannot read the schema"))?;
    let is_there = |name: &str| found.iter().any(|entry| entry.name == name);
    // those of older versions are fewer
    let missing = ours.values().find(|own| version == SCHEMA_VERSION && is_needed(own) && !is_there(&own.name));
    if let Some(Entry { kind, name, .. }) = missing {
        return Err(Error::Damaged { path: path.to_owned(), what: format!("there is no {kind} `{name}`") });
    }
    for entry in found {
        if let Some(why) = fault(&entry, ours, version) {
            let Entry { kind, name, .. } = entry;
            return Err(Error::ForeignSchema { path: path.to_owned(), object: format!("{kind} `{name}`"), why });
        }
    }
    Ok(())
}

/// Is it in every trace of this version? A backlog's tables come and go, and nothing but the user's own statement asks
/// the ready queries.
fn is_needed(own: &Entry) -> bool {
    !own.name.starts_with("backlog_") && READY.iter().all(|ready| ready.view != own.name)
}

/// Why an entry of the schema is refused.
fn fault(entry: &Entry, ours: &BTreeMap<String, Entry>, version: i64) -> Option<&'static str> {
    let has_expression = || entry.sql.as_deref().is_some_and(has_expression);
    if entry.kind == "trigger" {
        return Some("a trace has no triggers");
    }
    if entry.kind == "index" {
        let is_on_ours = ours.get(&entry.table).is_some_and(|own| own.kind == "table");
        return (is_on_ours && has_expression()).then_some("it has more than columns of its table");
    }
    let own = ours.get(&entry.name)?;
    if own.kind != entry.kind {
        return Some("tcpprobe has something else of this name");
    }
    match own.kind.as_str() {
        // those of older versions are made anew before they are asked
        "view" if version == SCHEMA_VERSION && own.sql != entry.sql => Some("its statement is not that of tcpprobe"),
        // columns that were added have other places, so that the texts differ
        "table" if has_expression() => Some("it has more than columns and their types"),
        _ => None,
    }
}

/// Is there more in the definition of a table or an index than names, types and keys? Quotes, in which words could hide,
/// and numbers other than in names count as more.
fn has_expression(sql: &str) -> bool {
    let lines: Vec<&str> = sql.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code)).collect();
    let code = lines.join("\n");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.chars().any(|c| !(is_word(c) || c.is_ascii_whitespace() || "(),".contains(c)))
        || code.split(|c| !is_word(c)).any(|word| {
            WORDS_OF_EXPRESSIONS.iter().any(|w| w.eq_ignore_ascii_case(word))
                || word.starts_with(|c: char| c.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_what_sqlite_makes_of_our_statements() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(&create()).unwrap();
        db.execute_batch(backlog::MAKE).unwrap();
        let made: BTreeMap<String, Entry> =
            entries(&db).unwrap().into_iter().filter(|e| e.kind != "index").map(|e| (e.name.clone(), e)).collect();
        assert!(made.len() > 20);
        assert_eq!(*ours(), made);
    }
}
