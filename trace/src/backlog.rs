//! What a trace knows of the backlog of a recording into it: whose it is, and how much of it is written already.
//!
//! Owns the look at the trace; the file itself, and what its records mean, are the business of others.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::Result;
use crate::store::{failed, open_read};

/// The session that a backlog belongs to. The times tell it from one of the same number in another trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `sessions.id`.
    pub session_id: i64,
    /// Unix epoch, ns.
    pub started_ns: i64,
    /// `sessions.mono_base_ns`.
    pub mono_base_ns: i64,
    /// `sessions.real_base_ns`.
    pub real_base_ns: i64,
}

/// What the trace says of a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The session was not ended, and has the samples of the first so many batches.
    Open {
        /// Batches.
        taken: u64,
    },
    /// The session was ended, whether it broke off or not: it has everything.
    Written,
    /// There is no such session, or nothing says how far it got.
    Unknown,
}

/// What the trace says of the backlog of this session.
pub fn standing(path: &Path, owner: &Owner) -> Result<Standing> {
    standing_in(&open_read(path)?, path, owner)
}

pub(crate) fn standing_in(db: &Connection, path: &Path, owner: &Owner) -> Result<Standing> {
    let err = failed(path, "cannot read how far the backlog was written");
    let ended: Option<bool> = db
        .query_row(
            "SELECT ended_ns IS NOT NULL FROM sessions WHERE id = ?1 AND started_ns = ?2 AND mono_base_ns = ?3
               AND real_base_ns = ?4",
            params![owner.session_id, owner.started_ns, owner.mono_base_ns, owner.real_base_ns],
            |r| r.get(0),
        )
        .optional()
        .map_err(&err)?;
    match ended {
        None => return Ok(Standing::Unknown),
        Some(true) => return Ok(Standing::Written),
        Some(false) => {}
    }
    let tables: i64 = db
        .query_row(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('backlog_progress', 'backlog_flows')",
            [],
            |r| r.get(0),
        )
        .map_err(&err)?;
    if tables < 2 {
        return Ok(Standing::Unknown);
    }
    let taken: Option<i64> = db
        .query_row("SELECT taken FROM backlog_progress WHERE session_id = ?1", [owner.session_id], |r| r.get(0))
        .optional()
        .map_err(&err)?;
    Ok(taken.and_then(|t| u64::try_from(t).ok()).map_or(Standing::Unknown, |taken| Standing::Open { taken }))
}
