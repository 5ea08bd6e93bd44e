//! Reads the samples of a flow run by run: the columns as they are stored, put together here, not in SQL.

use std::collections::BTreeMap;

use rusqlite::Row;

use super::rows::{Of, Rows};
use super::{RECOVERY, Sacked, SampleRow, TraceReader};
use crate::Result;
use crate::clock::TIMES_NS;
use crate::layout::{BASES, Bases, SAMPLE_COLUMNS, Stored};
use crate::sample::Kind;
use crate::store::failed;

/// Samples of a flow that follow each other.
pub(super) struct Chunk {
    /// Without what other tables have, and `rcv_position` without rounds.
    pub(super) samples: Vec<SampleRow>,
    /// How often `rcv_nxt` went round unseen before each.
    pub(super) rcv_laps: Vec<i64>,
    named: Vec<Named>,
}

impl Chunk {
    pub(super) fn new() -> Chunk {
        Chunk { samples: Vec::new(), rcv_laps: Vec::new(), named: Vec::new() }
    }
}

/// The row of `ack_rows` that a sample names.
struct Named {
    /// Position of the sample.
    sample: usize,
    ack_id: i64,
    /// What the row names is this far behind its own distance.
    seldom_id: i64,
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

/// What is read of the rows that a sample names, besides the state that it enters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct With {
    /// `cwnd_bytes`.
    windows: bool,
    /// `sacked_out`, and `mss` along with it.
    sacked: Sacked,
}

/// What next to no sample has.
#[derive(Clone, Copy, Default)]
struct Rare {
    error: i32,
    rcv_laps: i64,
}

/// The tables that samples are read from, within one transaction.
pub(super) struct Tables<'r> {
    samples: Rows<'r>,
    acks: Rows<'r>,
    seldom: Rows<'r>,
    /// Positions of columns.
    snd_cwnd: usize,
    sacked_out: usize,
    mss: usize,
    ca_state: usize,
    sk_state: usize,
}

/// So many columns of `ack_rows` and of `seldom_rows` are read: those up to the last one that is needed.
const OF_ACKS: usize = 12;
const OF_SELDOM: usize = 14;

/// Columns of a [`Run`].
pub(super) fn run_columns() -> String {
    format!("first_id, last_id, first_serial, {}", BASES.join(", "))
}

impl TraceReader {
    /// The samples of a flow from an id to another, as they were written, which is by serial.
    pub(super) fn chunk(&self, flow_id: i64, first_id: i64, last_id: i64, sacked: Sacked) -> Result<Chunk> {
        let err = failed(&self.path, "cannot read the samples");
        let mut chunk = Chunk::new();
        let mut statement = self
            .db
            .prepare_cached(
                "SELECT z.mono_base_ns, z.real_base_ns, z.sample_mode = 'cwnd' FROM flows f JOIN sessions z ON z.id = f.session_id
                 WHERE f.id = ?1",
            )
            .map_err(&err)?;
        let mut rows = statement.query([flow_id]).map_err(&err)?;
        let Some(row) = rows.next().map_err(&err)? else { return Ok(chunk) };
        let clocks = Clocks { mono_base_ns: row.get(0).map_err(&err)?, real_base_ns: row.get(1).map_err(&err)? };
        let with = With { windows: row.get(2).map_err(&err)?, sacked };
        // from the run on that the first id is in, or the next one
        let sql = format!(
            "SELECT {} FROM sample_runs
             WHERE flow_id = ?1 AND first_id >= coalesce((SELECT max(first_id) FROM sample_runs
               WHERE flow_id = ?1 AND first_id <= ?2), ?2) AND first_id <= ?3 ORDER BY first_id",
            run_columns()
        );
        let mut runs = self.db.prepare_cached(&sql).map_err(&err)?;
        let mut rows = runs.query([flow_id, first_id, last_id]).map_err(&err)?;
        let (mut tables, mut done): (Option<Tables<'_>>, Option<i64>) = (None, None);
        while let Some(row) = rows.next().map_err(&err)? {
            let run = Run::read(row).map_err(&err)?;
            if run.last_id < run.first_id || done.is_some_and(|done| run.first_id <= done) {
                return Err(self.damaged(format!("a run of samples from {} to {}", run.first_id, run.last_id)));
            }
            let tables = match &mut tables {
                Some(known) => known,
                // the open statement holds the transaction within which these stay where they are
                none => none.insert(self.tables()?),
            };
            self.run(tables, &run, clocks, (first_id, last_id), with, &mut chunk)?;
            done = Some(run.last_id);
        }
        if let Some(tables) = &mut tables {
            tables.state(std::mem::take(&mut chunk.named), with, &mut chunk.samples)?;
        }
        Ok(chunk)
    }

    /// To be called within the transaction that reads them.
    pub(super) fn tables(&self) -> Result<Tables<'_>> {
        Ok(Tables {
            samples: self.rows(Of::Samples)?,
            acks: self.rows(Of::Acks)?,
            seldom: self.rows(Of::Seldom)?,
            snd_cwnd: Of::Acks.position("snd_cwnd"),
            sacked_out: Of::Acks.position("sacked_out"),
            mss: Of::Seldom.position("mss"),
            ca_state: Of::Seldom.position("ca_state"),
            sk_state: Of::Seldom.position("sk_state"),
        })
    }

    pub(super) fn run(
        &self,
        tables: &mut Tables<'_>,
        run: &Run,
        clocks: Clocks,
        (first_id, last_id): (i64, i64),
        with: With,
        into: &mut Chunk,
    ) -> Result<()> {
        let (first, last) = (run.first_id.max(first_id), run.last_id.min(last_id));
        let mut rare = self.rare(first, last)?;
        tables.samples.between((first, last), |id, columns: &[Option<i64>; SAMPLE_COLUMNS.len()]| {
            let stored = Stored::new(&run.bases, columns);
            let rare = rare.remove(&id).unwrap_or_default();
            if with.windows || with.sacked != Sacked::No || matches!(stored.what, Some((Kind::State, _))) {
                let ack_id = run.bases.ack_id.wrapping_add(columns[ACK_OFF].unwrap_or(0));
                into.named.push(Named { sample: into.samples.len(), ack_id, seldom_id: run.bases.seldom_id });
            }
            into.samples.push(self.sample(id, &stored, rare, run, clocks)?);
            into.rcv_laps.push(rare.rcv_laps);
            Ok(())
        })
    }

    /// What the samples from an id to another have of `rare_rows`, by id.
    fn rare(&self, first: i64, last: i64) -> Result<BTreeMap<i64, Rare>> {
        let err = failed(&self.path, "cannot read a sample");
        let sql = "SELECT sample_id, error, rcv_laps FROM rare_rows WHERE sample_id >= ?1 AND sample_id <= ?2";
        let mut statement = self.db.prepare_cached(sql).map_err(&err)?;
        let rows = statement.query_map([first, last], |row| {
            let (error, laps): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
            Ok((row.get(0)?, Rare { error: error.unwrap_or(0) as i32, rcv_laps: laps.unwrap_or(0) }))
        });
        rows.and_then(Iterator::collect).map_err(&err)
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
            sk_state: None,
            cwnd_bytes: None,
            sacked_out: None,
            mss: None,
        })
    }
}

impl Tables<'_> {
    /// Adds what the rows say that samples name.
    fn state(&mut self, named: Vec<Named>, with: With, samples: &mut [SampleRow]) -> Result<()> {
        if named.is_empty() {
            return Ok(());
        }
        let mut seldom = Vec::with_capacity(named.len());
        let (mut cwnds, snd_cwnd, sacked_out) = (BTreeMap::new(), self.snd_cwnd, self.sacked_out);
        let mut any_sacked = with.sacked == Sacked::Segments;
        let ids = named.iter().map(|n| n.ack_id).zip(0..).collect();
        self.acks.with_ids(ids, |i, columns: &[Option<i64>; OF_ACKS]| {
            let Named { sample, seldom_id, .. } = named[i];
            seldom.push((seldom_id.wrapping_add(columns[SELDOM_OFF].unwrap_or(0)), sample));
            if with.windows {
                cwnds.extend(columns[snd_cwnd].map(|cwnd| (sample, cwnd)));
            }
            if with.sacked != Sacked::No {
                let sacked = columns[sacked_out].and_then(|n| u32::try_from(n).ok());
                any_sacked |= sacked.is_some_and(|n| n > 0);
                samples[sample].sacked_out = sacked;
            }
        })?;
        if !any_sacked && !with.windows {
            seldom.retain(|&(_, at)| samples[at].kind == Kind::State);
        }
        self.seldom.with_ids(seldom, |at, columns: &[Option<i64>; OF_SELDOM]| {
            let (sample, mss) = (&mut samples[at], columns[self.mss]);
            if sample.kind == Kind::State {
                sample.sk_state = columns[self.sk_state].and_then(|s| u8::try_from(s).ok());
            }
            if with.windows && columns[self.ca_state].is_some_and(|state| state < RECOVERY) {
                let bytes = cwnds.get(&at).zip(mss).and_then(|(cwnd, mss)| cwnd.checked_mul(mss));
                sample.cwnd_bytes = bytes.and_then(|b| u32::try_from(b).ok()).filter(|&b| b > 0);
            }
            if any_sacked {
                sample.mss = mss.and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
            }
        })
    }
}

/// Positions of `ack_off` among the columns of `sample_rows`, and of `seldom_off` among those of `ack_rows`.
const ACK_OFF: usize = 7;
const SELDOM_OFF: usize = 0;

impl Run {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Run> {
        let mut bases = [0; BASES.len()];
        for (i, base) in bases.iter_mut().enumerate() {
            *base = row.get(3 + i)?;
        }
        Ok(Run { first_id: row.get(0)?, last_id: row.get(1)?, first_serial: row.get(2)?, bases: Bases::from(bases) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_are_read_have_their_places() {
        assert_eq!((Of::Samples.position("ack_off"), Of::Acks.position("seldom_off")), (ACK_OFF, SELDOM_OFF));
        for column in ["snd_cwnd", "sacked_out"] {
            assert!(Of::Acks.position(column) < OF_ACKS, "{column}");
        }
        for column in ["mss", "ca_state", "sk_state"] {
            assert!(Of::Seldom.position(column) < OF_SELDOM, "{column}");
        }
    }
}
