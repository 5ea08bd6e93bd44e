//! What a recording keeps of its backlog in the trace, and how a session that was broken off is gone on with.
//!
//! How far the backlog is written is stored in the transaction that stores its samples: none is lost, none is there
//! twice. What comes out of a backlog may come from anyone: a sample that cannot be is refused.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{OptionalExtension as _, params};

use super::{FlowState, SessionWriter, runs};
use crate::backlog::{Owner, Standing, standing_in};
use crate::clock::{Anchor, Timeline};
use crate::sample::Sample;
use crate::schema::backlog::{DROP, MAKE};
use crate::store::{failed, log_ahead, one_file, open_write};
use crate::{Error, Result};

/// No flow has so many samples.
const SERIAL_END: u64 = 1 << 62;

/// How much of the backlog is written.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Batches of its file, up to now and as stored.
    taken: u64,
    stored: u64,
    /// Is this a session that was broken off?
    resumed: bool,
}

impl SessionWriter {
    /// Makes the trace ready for a recording with a backlog.
    pub(super) fn begin_backlog(&mut self) -> Result<()> {
        let err = failed(&self.path, "cannot begin a session");
        self.db.execute_batch(MAKE).map_err(&err)?;
        self.db.execute("INSERT INTO backlog_progress VALUES (?1, 0)", [self.session_id]).map_err(&err)?;
        self.backlog = Some(Progress::default());
        Ok(())
    }

    /// What tells this session's backlog from another one's.
    pub fn owner(&self) -> Owner {
        Owner {
            session_id: self.session_id,
            started_ns: self.started_ns,
            mono_base_ns: self.mono_base_ns,
            real_base_ns: self.real_base_ns,
        }
    }

    /// Says that the samples of the first so many batches of the backlog's file have been handed over: the next commit
    /// stores it with them.
    pub fn taken(&mut self, batches: u64) {
        if let Some(progress) = &mut self.backlog {
            progress.taken = batches;
        }
    }

    pub(super) fn progress_row(&mut self) -> Result<()> {
        let Some(progress) = self.backlog.as_mut().filter(|p| p.taken != p.stored) else { return Ok(()) };
        let taken = i64::try_from(progress.taken).unwrap_or(i64::MAX);
        self.db
            .prepare_cached("UPDATE backlog_progress SET taken = ?2 WHERE session_id = ?1")
            .and_then(|mut s| s.execute([self.session_id, taken]))
            .map_err(failed(&self.path, "cannot write how far the backlog is written"))?;
        progress.stored = progress.taken;
        Ok(())
    }

    /// Keeps what records call a flow.
    pub(super) fn key_row(&self, key: u64, flow_id: i64) -> Result<()> {
        if self.backlog.is_none() {
            return Ok(());
        }
        self.db
            .prepare_cached("INSERT OR REPLACE INTO backlog_flows VALUES (?1, ?2)")
            .and_then(|mut s| s.execute([key as i64, flow_id]))
            .map_err(failed(&self.path, "cannot write a flow"))?;
        Ok(())
    }

    /// Forgets it.
    pub(super) fn drop_key_row(&self, key: u64) -> Result<()> {
        if self.backlog.is_none() {
            return Ok(());
        }
        self.db
            .prepare_cached("DELETE FROM backlog_flows WHERE key = ?1")
            .and_then(|mut s| s.execute([key as i64]))
            .map_err(failed(&self.path, "cannot write a flow"))?;
        Ok(())
    }

    /// Takes away what the trace keeps of the backlog, in the transaction that is under way.
    pub(super) fn end_backlog(&mut self) -> Result<()> {
        if self.backlog.take().is_none() {
            return Ok(());
        }
        self.db.execute_batch(DROP).map_err(failed(&self.path, "cannot end the session"))
    }

    /// Goes on with a session that was broken off, to give it what its backlog holds. Returns the writer, and how many
    /// batches of the backlog's file the session has already.
    ///
    /// # Errors
    /// Besides those of SQLite: there is no such session, it was ended in order, or it cannot be one of a recording.
    pub fn resume(path: &Path, owner: &Owner) -> Result<(SessionWriter, u64)> {
        let damaged = |what: &str| Error::Damaged { path: path.to_owned(), what: what.into() };
        let db = open_write(path)?;
        log_ahead(&db, path)?;
        let err = failed(path, "cannot go on with the session");
        db.execute_batch("BEGIN IMMEDIATE").map_err(&err)?;
        let Standing::Open { taken } = standing_in(&db, path, owner)? else {
            return Err(damaged("the session of a backlog is not there, or has ended"));
        };
        let base = Anchor {
            mono_before_ns: owner.mono_base_ns,
            real_ns: owner.real_base_ns,
            mono_after_ns: owner.mono_base_ns,
        };
        if !base.is_possible() {
            return Err(damaged("a session's times cannot be"));
        }
        let anchor = db
            .query_row(
                "SELECT mono_before_ns, real_ns, mono_after_ns FROM clocks WHERE session_id = ?1
                 ORDER BY mono_after_ns DESC LIMIT 1",
                [owner.session_id],
                |r| Ok(Anchor { mono_before_ns: r.get(0)?, real_ns: r.get(1)?, mono_after_ns: r.get(2)? }),
            )
            .optional()
            .map_err(&err)?
            .filter(Anchor::is_possible)
            .ok_or_else(|| damaged("a session's clock anchors cannot be"))?;
        let count = |sql: &str| -> Result<u64> {
            let n: i64 = db.query_row(sql, [owner.session_id], |r| r.get(0)).map_err(&err)?;
            Ok(u64::try_from(n).unwrap_or(0))
        };
        let totals = super::Totals {
            samples: count("SELECT samples FROM sessions WHERE id = ?1")?,
            flows: count("SELECT count(*) FROM flows WHERE session_id = ?1")?,
            holes: count("SELECT lost FROM sessions WHERE id = ?1")?,
        };
        let next = runs::NextIds::of(&db, path)?;
        let writer = SessionWriter {
            db,
            path: path.to_owned(),
            session_id: owner.session_id,
            started_ns: owner.started_ns,
            mono_base_ns: owner.mono_base_ns,
            real_base_ns: owner.real_base_ns,
            clock: Timeline::new(anchor),
            anchor_is_kept: true,
            anchored: true,
            flows: HashMap::new(),
            next,
            holding: Vec::new(),
            held: 0,
            totals,
            holes: HashMap::new(),
            in_transaction: true,
            backlog: Some(Progress { taken, stored: taken, resumed: true }),
        };
        Ok((writer, taken))
    }

    /// Ends what [`SessionWriter::resume`] began; the session stays incomplete. `unreadable` records are written down as
    /// lost. `remove` takes the backlog's file away, at a moment when the session has everything and says so.
    pub fn finish_resumed(mut self, unreadable: u64, remove: impl FnOnce()) -> Result<()> {
        self.transaction()?;
        if unreadable > 0 {
            self.totals.holes = self.totals.holes.saturating_add(unreadable);
            self.loss(None, None, unreadable, crate::sample::LossCause::BadRecord)?;
        }
        self.taken(i64::MAX as u64);
        self.commit()?;
        remove();
        // what is left of the tables if this is not reached does no harm
        self.backlog = None;
        self.db.execute_batch(DROP).map_err(failed(&self.path, "cannot end the session"))?;
        one_file(&self.db);
        Ok(())
    }

    /// Has a session that was broken off been told of this flow before? Then it is known again. The rounds of `rcv_nxt`
    /// count from here on: an unseen one at the flow's first sample would take 2 GiB received in between.
    pub(super) fn recall(&mut self, key: u64) -> Result<()> {
        if !self.backlog.as_ref().is_some_and(|p| p.resumed) || self.flows.contains_key(&key) {
            return Ok(());
        }
        let err = failed(&self.path, "cannot read a flow");
        let found: Option<(i64, i64, i64, bool, Option<i64>)> = self
            .db
            .prepare_cached(
                "SELECT f.id, f.first_ns, f.last_ns, f.closed = 1,
                   (SELECT first_serial + last_id - first_id FROM sample_runs u WHERE u.flow_id = f.id
                    ORDER BY first_id DESC LIMIT 1)
                 FROM backlog_flows b JOIN flows f ON f.id = b.flow_id WHERE b.key = ?1 AND f.session_id = ?2",
            )
            .and_then(|mut s| {
                s.query_row(params![key as i64, self.session_id], |r| {
                    Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?))
                })
                .optional()
            })
            .map_err(&err)?;
        if let Some((id, first_ns, last_ns, closed, last_serial)) = found {
            let mut state = FlowState::new(id, first_ns);
            state.last_ns = last_ns;
            state.closed = closed;
            state.last_serial = last_serial.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
            self.flows.insert(key, Box::new(state));
        }
        Ok(())
    }

    /// Can something have been at this time, seen before `now`? What a sampler says is not asked.
    pub(super) fn believes(&self, mono_ns: i64, now: Anchor) -> bool {
        let resumed = self.backlog.as_ref().is_some_and(|p| p.resumed);
        !resumed || (now.is_possible() && (0..=now.mono_after_ns).contains(&mono_ns))
    }

    /// Is this sample of a session that was broken off there already? `None`: it cannot be one.
    pub(super) fn has_already(&self, flow: &FlowState, sample: &Sample) -> Option<bool> {
        match &self.backlog {
            Some(Progress { resumed: true, .. }) => {
                (1..SERIAL_END).contains(&sample.serial).then_some(sample.serial <= flow.last_serial)
            }
            _ => Some(false),
        }
    }
}
