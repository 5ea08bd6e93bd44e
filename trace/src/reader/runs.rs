//! Reads the samples of a flow run by run: the columns as they are stored, put together here, not in SQL.

use rusqlite::{Row, Statement};

use super::{SampleRow, TraceReader};
use crate::Result;
use crate::clock::TIMES_NS;
use crate::layout::{BASES, Bases, SAMPLE_COLUMNS, Stored};
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

/// SQL of the samples from one id to another of a run whose first `seldom_rows` and `ack_rows` have the ids that follow.
pub(super) fn samples_of_run() -> String {
    format!(
        "SELECT r.id, {}, o.error, o.rcv_laps,
           CASE WHEN r.what % 12 >= 9 THEN (SELECT d.sk_state FROM ack_rows a JOIN seldom_rows d
             ON d.id = ?3 + a.seldom_off WHERE a.id = ?4 + r.ack_off) END
         FROM sample_rows r LEFT JOIN rare_rows o ON o.sample_id = r.id
         WHERE r.id >= ?1 AND r.id <= ?2 ORDER BY r.id",
        SAMPLE_COLUMNS.map(|name| format!("r.{name}")).join(", ")
    )
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
        let mut samples = self.db.prepare_cached(&samples_of_run()).map_err(&err)?;
        let mut rows = runs.query([flow_id, first_id, last_id]).map_err(&err)?;
        let mut done: Option<i64> = None;
        while let Some(row) = rows.next().map_err(&err)? {
            let run = Run::read(row).map_err(&err)?;
            if run.last_id < run.first_id || done.is_some_and(|done| run.first_id <= done) {
                return Err(self.damaged(format!("a run of samples from {} to {}", run.first_id, run.last_id)));
            }
            self.run(&mut samples, &run, clocks, (first_id, last_id), &mut chunk)?;
            done = Some(run.last_id);
        }
        Ok(chunk)
    }

    pub(super) fn run(
        &self,
        statement: &mut Statement<'_>,
        run: &Run,
        clocks: Clocks,
        (first_id, last_id): (i64, i64),
        into: &mut Chunk,
    ) -> Result<()> {
        let err = failed(&self.path, "cannot read a sample");
        let (first, last) = (run.first_id.max(first_id), run.last_id.min(last_id));
        let ids = [first, last, run.bases.seldom_id, run.bases.ack_id];
        let mut rows = statement.query(ids).map_err(&err)?;
        while let Some(row) = rows.next().map_err(&err)? {
            let (sample, laps) = self.sample(row, run, clocks)?;
            into.samples.push(sample);
            into.rcv_laps.push(laps);
        }
        Ok(())
    }

    fn sample(&self, row: &Row<'_>, run: &Run, clocks: Clocks) -> Result<(SampleRow, i64)> {
        let err = failed(&self.path, "cannot read a sample");
        let mut columns = [None; SAMPLE_COLUMNS.len()];
        for (i, column) in columns.iter_mut().enumerate() {
            *column = row.get(1 + i).map_err(&err)?;
        }
        let rest = |at: usize| row.get::<_, Option<i64>>(1 + SAMPLE_COLUMNS.len() + at).map_err(&err);
        let id: i64 = row.get(0).map_err(&err)?;
        let stored = Stored::new(&run.bases, &columns);
        let Some((kind, phase)) = stored.what else {
            return Err(self.damaged(format!("kind and phase of sample {id} are none that there are")));
        };
        let time = |ns: i64| {
            if TIMES_NS.contains(&ns) { Ok(ns) } else { Err(self.damaged(format!("a sample's time is {ns} ns"))) }
        };
        let mono_off = stored.mono_off.unwrap_or(0);
        let since = mono_off.wrapping_add(stored.clock_off.unwrap_or(0));
        let (seq, ack) = stored.seq_ack();
        let sample = SampleRow {
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
            error: rest(0)?.unwrap_or(0) as i32,
            snd_nxt: stored.snd_nxt,
            snd_una: stored.snd_una(),
            bytes_sent: stored.bytes_sent,
            sk_state: rest(2)?.and_then(|s| u8::try_from(s).ok()),
            cwnd_bytes: None,
            sacked_out: None,
            mss: None,
        };
        Ok((sample, rest(1)?.unwrap_or(0)))
    }
}

impl Run {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Run> {
        let mut bases = [0; BASES.len()];
        for (i, base) in bases.iter_mut().enumerate() {
            *base = row.get(3 + i)?;
        }
        Ok(Run { first_id: row.get(0)?, last_id: row.get(1)?, first_serial: row.get(2)?, bases: Bases::from(bases) })
    }
}
