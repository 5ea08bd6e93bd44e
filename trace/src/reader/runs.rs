//! Reads the samples of a flow run by run: the columns as they are stored, put together here, not in SQL.

use std::collections::BTreeMap;

use rusqlite::{CachedStatement, Row};

use super::{SampleRow, TraceReader};
use crate::Result;
use crate::clock::TIMES_NS;
use crate::fields::Moves;
use crate::layout::{BASES, Bases, SAMPLE_COLUMNS, Stored};
use crate::pages::{self, Pages, Table};
use crate::sample::Kind;
use crate::schema::stored;
use crate::store::failed;

/// Samples of a flow that follow each other.
pub(super) struct Chunk {
    /// Without what other tables have, and `rcv_position` without rounds.
    pub(super) samples: Vec<SampleRow>,
    /// How often `rcv_nxt` went round unseen before each.
    pub(super) rcv_laps: Vec<i64>,
}

/// A row of `sample_runs`.
pub(super) struct Run {
    pub(super) first_id: i64,
    pub(super) last_id: i64,
    first_serial: i64,
    bases: Bases,
}

/// What the session's clocks begin with, ns.
#[derive(Clone, Copy)]
pub(super) struct Clocks {
    pub(super) mono_base_ns: i64,
    pub(super) real_base_ns: i64,
}

/// Columns of `sample_rows` that are read.
type Columns = [Option<i64>; SAMPLE_COLUMNS.len()];

/// What next to no sample has.
#[derive(Clone, Copy, Default)]
struct Rare {
    error: i32,
    rcv_laps: i64,
    sk_state: Option<u8>,
}

/// Gives out rows of `sample_rows`.
pub(super) enum SampleRows<'db> {
    Pages(Pages<'db>, Table),
    /// Where SQLite does not give out its pages.
    Sql(CachedStatement<'db>),
}

/// Columns of a [`Run`].
pub(super) fn run_columns() -> String {
    format!("first_id, last_id, first_serial, {}", BASES.join(", "))
}

impl TraceReader {
    /// The samples of a flow from an id to another, as they were written, which is by serial.
    pub(super) fn chunk(&self, flow_id: i64, first_id: i64, last_id: i64) -> Result<Chunk> {
        let err = failed(&self.path, "cannot read the samples");
        let mut chunk = Chunk { samples: Vec::new(), rcv_laps: Vec::new() };
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT z.mono_base_ns, z.real_base_ns FROM flows f JOIN sessions z ON z.id = f.session_id
                 WHERE f.id = ?1",
            )
            .map_err(&err)?;
        let mut rows = statement.query([flow_id]).map_err(&err)?;
        let Some(row) = rows.next().map_err(&err)? else { return Ok(chunk) };
        let clocks = Clocks { mono_base_ns: row.get(0).map_err(&err)?, real_base_ns: row.get(1).map_err(&err)? };
        // from the run on that the first id is in, or the next one
        let sql = format!(
            "SELECT {} FROM sample_runs
             WHERE flow_id = ?1 AND first_id >= coalesce((SELECT max(first_id) FROM sample_runs
               WHERE flow_id = ?1 AND first_id <= ?2), ?2) AND first_id <= ?3 ORDER BY first_id",
            run_columns()
        );
        let mut runs = self.db.prepare_cached(&sql).map_err(&err)?;
        let mut rows = runs.query([flow_id, first_id, last_id]).map_err(&err)?;
        let (mut samples, mut done): (Option<SampleRows<'_>>, Option<i64>) = (None, None);
        while let Some(row) = rows.next().map_err(&err)? {
            let run = Run::read(row).map_err(&err)?;
            if run.last_id < run.first_id || done.is_some_and(|done| run.first_id <= done) {
                return Err(self.damaged(format!("a run of samples from {} to {}", run.first_id, run.last_id)));
            }
            let samples = match &mut samples {
                Some(known) => known,
                // the open statement holds the transaction within which these stay where they are
                none => none.insert(self.sample_rows()?),
            };
            self.run(samples, &run, clocks, (first_id, last_id), &mut chunk)?;
            done = Some(run.last_id);
        }
        Ok(chunk)
    }

    /// To be called within the transaction that reads them.
    pub(super) fn sample_rows(&self) -> Result<SampleRows<'_>> {
        let err = failed(&self.path, "cannot read the samples");
        let table = match self.samples_at.get() {
            Some(table) if table.is_here(&self.db).map_err(&err)? => Some(table),
            _ => {
                let columns = SAMPLE_COLUMNS.into_iter().chain(stored(Moves::Segment).map(|(_, name)| name));
                Table::find(&self.db, "sample_rows", columns).map_err(&err)?
            }
        };
        self.samples_at.set(table);
        Ok(match table {
            Some(table) => SampleRows::Pages(Pages::new(&self.db).map_err(&err)?, table),
            None => {
                let columns = SAMPLE_COLUMNS.join(", ");
                let sql = format!("SELECT id, {columns} FROM sample_rows WHERE id >= ?1 AND id <= ?2 ORDER BY id");
                SampleRows::Sql(self.db.prepare_cached(&sql).map_err(&err)?)
            }
        })
    }

    pub(super) fn run(
        &self,
        from: &mut SampleRows<'_>,
        run: &Run,
        clocks: Clocks,
        (first_id, last_id): (i64, i64),
        into: &mut Chunk,
    ) -> Result<()> {
        let err = failed(&self.path, "cannot read a sample");
        let (first, last) = (run.first_id.max(first_id), run.last_id.min(last_id));
        let mut rare = self.rare(first, last)?;
        let mut take = |id: i64, columns: &Columns| -> Result<()> {
            let stored = Stored::new(&run.bases, columns);
            let mut rare = rare.remove(&id).unwrap_or_default();
            if matches!(stored.what, Some((Kind::State, _))) {
                rare.sk_state = self.sk_state(run, columns)?;
            }
            into.samples.push(self.sample(id, &stored, rare, run, clocks)?);
            into.rcv_laps.push(rare.rcv_laps);
            Ok(())
        };
        match from {
            SampleRows::Pages(pages, table) => {
                let mut failed = None;
                let read = pages.rows(*table, (first, last), |id, columns| {
                    take(id, columns).map_err(|e| {
                        failed = Some(e);
                        pages::Error::Stopped
                    })
                });
                match read {
                    Ok(()) => Ok(()),
                    Err(pages::Error::Stopped) => failed.map_or(Ok(()), Err),
                    Err(pages::Error::Sqlite(e)) => Err(err(e)),
                    Err(pages::Error::Damaged(what)) => Err(self.damaged(what)),
                }
            }
            SampleRows::Sql(statement) => {
                let mut rows = statement.query([first, last]).map_err(&err)?;
                while let Some(row) = rows.next().map_err(&err)? {
                    let mut columns = [None; SAMPLE_COLUMNS.len()];
                    for (i, column) in columns.iter_mut().enumerate() {
                        *column = row.get(1 + i).map_err(&err)?;
                    }
                    take(row.get(0).map_err(&err)?, &columns)?;
                }
                Ok(())
            }
        }
    }

    /// What the samples from an id to another have of `rare_rows`, by id.
    fn rare(&self, first: i64, last: i64) -> Result<BTreeMap<i64, Rare>> {
        let err = failed(&self.path, "cannot read a sample");
        let sql = "SELECT sample_id, error, rcv_laps FROM rare_rows WHERE sample_id >= ?1 AND sample_id <= ?2";
        let mut statement = self.db.prepare_cached(sql).map_err(&err)?;
        let rows = statement.query_map([first, last], |row| {
            let (error, laps): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
            Ok((row.get(0)?, Rare { error: error.unwrap_or(0) as i32, rcv_laps: laps.unwrap_or(0), sk_state: None }))
        });
        rows.and_then(Iterator::collect).map_err(&err)
    }

    /// The state that a sample of kind `state` enters.
    fn sk_state(&self, run: &Run, columns: &Columns) -> Result<Option<u8>> {
        let err = failed(&self.path, "cannot read a sample");
        let sql = "SELECT d.sk_state FROM ack_rows a JOIN seldom_rows d ON d.id = ?1 + a.seldom_off WHERE a.id = ?2";
        let mut statement = self.db.prepare_cached(sql).map_err(&err)?;
        let ack_id = run.bases.ack_id.wrapping_add(columns[ACK_OFF].unwrap_or(0));
        let mut rows = statement.query([run.bases.seldom_id, ack_id]).map_err(&err)?;
        let Some(row) = rows.next().map_err(&err)? else { return Ok(None) };
        let state: Option<i64> = row.get(0).map_err(&err)?;
        Ok(state.and_then(|s| u8::try_from(s).ok()))
    }

    fn sample(&self, id: i64, stored: &Stored, rare: Rare, run: &Run, clocks: Clocks) -> Result<SampleRow> {
        let Some((kind, phase)) = stored.what else {
            return Err(self.damaged(format!("kind and phase of sample {id} are none that there are")));
        };
        let time = |ns: i64| {
            if TIMES_NS.contains(&ns) { Ok(ns) } else { Err(self.damaged(format!("a sample's time is {ns} ns"))) }
        };
        let mono_off = stored.mono_off.unwrap_or(0);
        let since = mono_off.wrapping_add(stored.clock_off.unwrap_or(0));
        let (seq, ack) = stored.seq_ack();
        Ok(SampleRow {
            id,
            serial: u64::try_from(run.first_serial.wrapping_add(id.wrapping_sub(run.first_id))).unwrap_or(0),
            ts_ns: time(clocks.real_base_ns.wrapping_add(since))?,
            mono_ns: time(clocks.mono_base_ns.wrapping_add(mono_off))?,
            kind,
            phase,
            has_segment: stored.own.is_some(),
            seq: seq.unwrap_or(0),
            len: stored.len.unwrap_or(0) as u32,
            ack: ack.unwrap_or(0),
            flags: if stored.own.is_some() { stored.flags as u16 } else { 0 },
            tsval: stored.tsval,
            rcv_position: stored.rcv_nxt.map(i64::from),
            ip_id: stored.ip_id,
            error: rare.error,
            snd_nxt: stored.snd_nxt,
            snd_una: stored.snd_una(),
            bytes_sent: stored.bytes_sent,
            sk_state: rare.sk_state,
            cwnd_bytes: None,
            sacked_out: None,
            mss: None,
        })
    }
}

/// Position of `ack_off` among the columns.
const ACK_OFF: usize = 7;

impl Run {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Run> {
        let mut bases = [0; BASES.len()];
        for (i, base) in bases.iter_mut().enumerate() {
            *base = row.get(3 + i)?;
        }
        Ok(Run { first_id: row.get(0)?, last_id: row.get(1)?, first_serial: row.get(2)?, bases: Bases::from(bases) })
    }
}
