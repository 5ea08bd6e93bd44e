//! Adds sessions from elsewhere to a trace: all of them or none, whatever interrupts it.
//!
//! Owns the one transaction, and the file beside the trace in which a new trace is made. Must not know the logs.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::clock::Anchor;
use crate::store::{failed, log_ahead, one_file, open_or_create, open_write};
use crate::writer::{SessionEnd, SessionStart, SessionWriter};
use crate::{Error, Result};

/// An import under way. Dropped without [`ImportWriter::commit`], the trace is as it was before.
pub struct ImportWriter {
    path: PathBuf,
    /// Where a trace is made that does not exist yet: nothing but a whole one ever has its name.
    beside: Option<PathBuf>,
    /// Here, or with a session.
    db: Option<Connection>,
    is_open: bool,
}

impl ImportWriter {
    /// Opens a trace, or begins one beside `path` where there is none.
    pub fn begin(path: &Path) -> Result<ImportWriter> {
        let is_new = std::fs::metadata(path).map_or_else(|e| e.kind() == std::io::ErrorKind::NotFound, |_| false);
        let beside = is_new.then(|| beside(path));
        let db = open_or_create(beside.as_deref().unwrap_or(path))?;
        let import = ImportWriter { path: path.to_owned(), beside, db: Some(db), is_open: true };
        if let Some(db) = &import.db {
            log_ahead(db, path)?;
        }
        Ok(import)
    }

    /// Begins a session, which [`ImportWriter::end_session`] takes back. `anchored`: is the anchor's wall clock known?
    ///
    /// # Errors
    /// Besides those of SQLite: a session is under way.
    pub fn begin_session(&mut self, start: &SessionStart, anchor: Anchor, anchored: bool) -> Result<SessionWriter> {
        SessionWriter::begin_on(self.take()?, &self.path, start, anchor, anchored)
    }

    /// Ends a session. Returns the samples that its log lost.
    pub fn end_session(&mut self, session: SessionWriter, end: &SessionEnd, now: Anchor) -> Result<u64> {
        let (db, lost) = session.end(end, now)?;
        self.db = Some(db);
        Ok(lost)
    }

    /// Makes all sessions visible at once. A new trace takes its name; one that has appeared there meanwhile stays.
    pub fn commit(mut self) -> Result<()> {
        let db = self.take()?;
        if !db.is_autocommit() {
            db.execute_batch("COMMIT")
                .map_err(failed(&self.path, "cannot commit the import; the trace is as before"))?;
        }
        one_file(&db);
        drop(db);
        self.is_open = false;
        let Some(made) = &self.beside else { return Ok(()) };
        // a link never replaces what is there; where the file system has none, the name is free as far as can be known
        std::fs::hard_link(made, &self.path)
            .or_else(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => Err(e),
                _ if self.path.exists() => Err(std::io::ErrorKind::AlreadyExists.into()),
                _ => std::fs::rename(made, &self.path),
            })
            .map_err(|cause| Error::Io { path: self.path.clone(), cause })
    }

    fn take(&mut self) -> Result<Connection> {
        self.db.take().ok_or_else(|| Error::Sqlite {
            path: self.path.clone(),
            context: "cannot begin a session",
            cause: rusqlite::Error::InvalidQuery,
        })
    }
}

impl Drop for ImportWriter {
    fn drop(&mut self) {
        // closed without a commit: SQLite rolls back
        self.db = None;
        if self.is_open {
            let _ = open_write(self.beside.as_deref().unwrap_or(&self.path)).map(|db| one_file(&db));
        }
        if let Some(made) = &self.beside {
            for end in ["", "-wal", "-shm", "-journal"] {
                let mut name = made.clone().into_os_string();
                name.push(end);
                // it may be gone: that is what is wanted
                let _ = std::fs::remove_file(name);
            }
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".import-{}", std::process::id()));
    path.with_file_name(name)
}
