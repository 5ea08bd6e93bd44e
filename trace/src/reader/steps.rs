//! Where a session's wall clock was set, by its clock anchors.

use std::path::Path;

use rusqlite::Connection;

use crate::Result;
use crate::clock::{Anchor, Segment};
use crate::store::failed;

/// The wall clock was set, between two readings of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// The session.
    pub session_id: i64,
    /// CLOCK_MONOTONIC at the reading before, ns. Samples from here on, up to the reading after, have Unix times as if the
    /// clock had not been set yet: when it was is not known.
    pub from_ns: i64,
    /// CLOCK_MONOTONIC at the reading after, ns.
    pub to_ns: i64,
    /// By how much, ns; negative: it was set back.
    pub jump_ns: i64,
}

pub(crate) fn steps(db: &Connection, path: &Path) -> Result<Vec<ClockStep>> {
    let err = failed(path, "cannot read the clock anchors");
    let sql =
        "SELECT session_id, mono_before_ns, real_ns, mono_after_ns FROM clocks ORDER BY session_id, mono_before_ns";
    let mut statement = db.prepare(sql).map_err(&err)?;
    let mut rows = statement.query([]).map_err(&err)?;
    let mut steps = Vec::new();
    let mut last: Option<(i64, Anchor)> = None;
    while let Some(row) = rows.next().map_err(&err)? {
        let read = || -> rusqlite::Result<(i64, Anchor)> {
            let (mono_before_ns, real_ns, mono_after_ns) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((row.get(0)?, Anchor { mono_before_ns, real_ns, mono_after_ns }))
        };
        let (session_id, now) = read().map_err(&err)?;
        if !now.is_possible() {
            continue;
        }
        if let Some((_, before)) = last.filter(|&(of, _)| of == session_id)
            && Segment::new(before, now).stepped()
        {
            let jump_ns = now.offset_ns() - before.offset_ns();
            steps.push(ClockStep { session_id, from_ns: before.mono_ns(), to_ns: now.mono_ns(), jump_ns });
        }
        last = Some((session_id, now));
    }
    Ok(steps)
}
