//! Opening a trace: what it must be, and how the connection behaves.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::schema::{APPLICATION_ID, SCHEMA_VERSION, create};
use crate::{Error, Result, guard};

/// Wraps SQLite's errors with the file and what was being done.
pub(crate) fn failed<'a>(path: &'a Path, context: &'static str) -> impl Fn(rusqlite::Error) -> Error + 'a {
    move |cause| match cause {
        rusqlite::Error::SqliteFailure(e, _) if e.code == rusqlite::ErrorCode::NotADatabase => {
            Error::NotATrace { path: path.to_owned(), found: "no SQLite database".into() }
        }
        cause if cause.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            Error::Busy { path: path.to_owned(), context }
        }
        cause => Error::Sqlite { path: path.to_owned(), context, cause },
    }
}

/// Brings a trace of an older schema up to the present one; does nothing to others.
pub fn upgrade(path: &Path) -> Result<()> {
    match open_read(path) {
        Err(Error::OldVersion { .. }) => open_write(path).map(drop),
        other => other.map(drop),
    }
}

/// Opens an existing trace for reading. What a join or an import that was killed has left half-written is taken back
/// first, which a connection that only reads cannot do.
pub(crate) fn open_read(path: &Path) -> Result<Connection> {
    exists(path)?;
    let read = || connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let opened = match read() {
        Err(e) if is_half_written(&e) => {
            connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            read()
        }
        other => other,
    };
    match opened? {
        (db, SCHEMA_VERSION) => Ok(db),
        (_, older) => Err(Error::OldVersion { path: path.to_owned(), found: older, known: SCHEMA_VERSION }),
    }
}

fn is_half_written(error: &Error) -> bool {
    let Error::Sqlite { cause: rusqlite::Error::SqliteFailure(e, _), .. } = error else { return false };
    e.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK
}

/// Opens for reading a trace that a connection of this process holds ([`hold`]). That one must not have written yet: the
/// schema is read now, and no lock keeps it as it is. What it writes later must be nothing that is read.
pub(crate) fn open_held(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    // without locks, and without a look at whether someone else has changed it
    let name = uri(path).map_err(|cause| Error::Io { path: path.to_owned(), cause })? + "?immutable=1";
    connect_to(Path::new(&name), path, flags).map(|(db, _)| db)
}

/// A path as SQLite's names have it (<https://sqlite.org/uri.html>).
fn uri(path: &Path) -> std::io::Result<String> {
    let mut name = "file://".to_owned();
    for &byte in std::path::absolute(path)?.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => name.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            _ => _ = write!(name, "%{byte:02x}"),
        }
    }
    Ok(name)
}

/// Opens a file that must be a trace; with its version.
fn connect(path: &Path, mode: OpenFlags) -> Result<(Connection, i64)> {
    connect_to(path, path, mode)
}

/// The same of a file that SQLite knows by another name.
fn connect_to(name: &Path, path: &Path, mode: OpenFlags) -> Result<(Connection, i64)> {
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(name, flags).map_err(failed(path, "cannot open"))?;
    prepare(&db, path)?;
    let version = guard::within_steps(&mut db, path, |db| version(db, path))?;
    Ok((db, version))
}

/// Opens an existing trace for writing, and brings an older one up to the present schema.
pub(crate) fn open_write(path: &Path) -> Result<Connection> {
    exists(path)?;
    let (db, found) = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    if found < SCHEMA_VERSION {
        migrate(&db, path)?;
    }
    Ok(db)
}

/// All or nothing: interrupted, the trace is of the old version still.
fn migrate(db: &Connection, path: &Path) -> Result<()> {
    let err = failed(path, "cannot bring this older trace up to date");
    let tx = rusqlite::Transaction::new_unchecked(db, rusqlite::TransactionBehavior::Immediate).map_err(&err)?;
    // someone else may have done it meanwhile
    let found = version(db, path)?;
    if found < SCHEMA_VERSION {
        crate::writer::upgrade(db, path, found)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(&err)?;
    }
    tx.commit().map_err(&err)
}

/// Opens a trace for writing, making one where there is no file, or an empty one.
pub(crate) fn open_or_create(path: &Path) -> Result<Connection> {
    let has_bytes = |path: &Path| std::fs::metadata(path).map(|m| m.len() > 0);
    match has_bytes(path) {
        Ok(true) => match open_write(path) {
            // its making was interrupted, and SQLite has just taken back what there was of it
            Err(Error::NotATrace { .. }) if has_bytes(path).is_ok_and(|has| !has) => {}
            opened => return opened,
        },
        Ok(false) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => make(path)?,
        Err(cause) => return Err(Error::Io { path: path.to_owned(), cause }),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(failed(path, "cannot create"))?;
    let err = failed(path, "cannot create");
    prepare(&db, path)?;
    let tx = db.transaction().map_err(&err)?;
    tx.execute_batch(&create()).map_err(&err)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(&err)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(&err)?;
    tx.commit().map_err(&err)?;
    Ok(db)
}

/// An empty file, for its owner alone: who talks to whom is not everyone's business. SQLite gives its log the same mode.
fn make(path: &Path) -> Result<()> {
    // with O_EXCL a symbolic link, which leads nowhere here, is something that is there
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|cause| Error::Io { path: path.to_owned(), cause })
}

/// Readers go on reading, and a crash loses at most the last transaction.
pub(crate) fn log_ahead(db: &Connection, path: &Path) -> Result<()> {
    let err = failed(path, "cannot begin a session");
    db.pragma_update(None, "journal_mode", "WAL").map_err(&err)?;
    db.pragma_update(None, "synchronous", "NORMAL").map_err(&err)
}

/// Begins a transaction that keeps all others away from the trace until it ends. `false`: that is not to be had, and
/// nothing has begun. With a log, as a recorder has it, others go on reading; and where pages move when some become free,
/// who reads without locks would not find them.
pub(crate) fn hold(db: &Connection, path: &Path) -> Result<bool> {
    let err = failed(path, "cannot begin the join");
    let moves_pages: i64 = db.pragma_query_value(None, "auto_vacuum", |r| r.get(0)).map_err(&err)?;
    if moves_pages != 0 || has_log(db) {
        return Ok(false);
    }
    db.execute_batch("BEGIN EXCLUSIVE").map_err(&err)?;
    // a recorder may have begun just before
    let held = !has_log(db);
    if !held {
        db.execute_batch("ROLLBACK").map_err(&err)?;
    }
    Ok(held)
}

/// No files but those beside the trace: a recorder may open no others.
pub(crate) fn no_temporary_files(db: &Connection, path: &Path) -> Result<()> {
    db.pragma_update(None, "temp_store", "MEMORY").map_err(failed(path, "cannot begin a session"))
}

/// Is there a log beside the file, or may there be one?
pub(crate) fn has_log(db: &Connection) -> bool {
    db.pragma_query_value(None, "journal_mode", |r| r.get(0)).is_ok_and(|mode: String| mode == "wal")
}

/// One file, without its log beside it, so that it can be copied as it stands; a reader may prevent that.
pub(crate) fn one_file(db: &Connection) {
    let _ = db.pragma_update(None, "journal_mode", "DELETE");
}

fn exists(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(m) if m.is_dir() => Err(Error::NotATrace { path: path.to_owned(), found: "a directory".into() }),
        Ok(m) if m.len() == 0 => Err(Error::NotATrace { path: path.to_owned(), found: "an empty file".into() }),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::Missing { path: path.to_owned() }),
        Err(cause) => Err(Error::Io { path: path.to_owned(), cause }),
    }
}

fn prepare(db: &Connection, path: &Path) -> Result<()> {
    let err = failed(path, "cannot open");
    // another process may be committing its second's worth of samples
    db.busy_timeout(Duration::from_secs(5)).map_err(&err)?;
    guard::restrain(db).map_err(&err)?;
    // plans must not follow from bound values: with each new one SQLite would prepare the statement again
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(&err)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// The version of a trace; only those that this crate reads, or can bring up to date, and whose schema is as it was made.
fn version(db: &Connection, path: &Path) -> Result<i64> {
    let err = failed(path, "cannot read");
    let application: i64 = db.pragma_query_value(None, "application_id", |r| r.get(0)).map_err(&err)?;
    if application != APPLICATION_ID {
        return Err(Error::NotATrace { path: path.to_owned(), found: "a SQLite database of something else".into() });
    }
    let found: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(&err)?;
    if !(1..=SCHEMA_VERSION).contains(&found) {
        return Err(Error::UnknownVersion { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    guard::check(db, path, found)?;
    Ok(found)
}
