//! Errors of the trace file: each names the file, the cause and, where there is one, the way out.

use std::path::PathBuf;

/// What can go wrong with a trace file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not exist.
    #[error("{path}: no such trace; record one with `tcpprobe record -w {path}`", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or a database of another program.
    #[error("{path}: not a trace of tcpprobe ({found}); name a file that `tcpprobe record -w` wrote", path = path.display())]
    NotATrace {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// A trace of a schema that this version does not know.
    #[error(
        "{path}: a trace of schema version {found}, this tcpprobe reads version {known}; use the tcpprobe that wrote it, or a newer one",
        path = path.display()
    )]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The version of this crate.
        known: i64,
    },
    /// A trace of an older schema, opened only for reading.
    #[error(
        "{path}: a trace of schema version {found}, this tcpprobe reads version {known}; `tcpprobe join {path} CAPTURE` brings it up to date",
        path = path.display()
    )]
    OldVersion {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The version of this crate.
        known: i64,
    },
    /// Something in the schema is not what tcpprobe makes, and would run when the trace is read or written.
    #[error(
        "{path}: {object} is not of tcpprobe: {why}; if you know what it is, drop it with sqlite3, else do not trust this trace",
        path = path.display()
    )]
    ForeignSchema {
        /// The file.
        path: PathBuf,
        /// Its kind and name.
        object: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file cannot be read or written.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// SQLite refused something.
    #[error("{path}: {context}: {cause}", path = path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was being done.
        context: &'static str,
        /// SQLite's word.
        #[source]
        cause: rusqlite::Error,
    },
    /// Someone else has the lock that is needed, for longer than was waited.
    #[error(
        "{path}: {context}: the database is locked: another process is writing it, or reading it; try again when it is done",
        path = path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
        /// What was being done.
        context: &'static str,
    },
    /// The user's own SQL is wrong, or asks for more than reading.
    #[error("SQL: {0}")]
    Sql(String),
    /// Who was handed a row cannot take it.
    #[error("{cause}")]
    Output {
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The trace contradicts itself.
    #[error("{path}: damaged trace: {what}; `PRAGMA integrity_check` in sqlite3 says more", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        what: String,
    },
}
