//! Reads the samples of a flow run by run: the columns as they are stored, put together here, not in SQL.

use std::collections::BTreeMap;
use std::ops::Range;

use rusqlite::{OptionalExtension as _, Row};

use super::rows::{Of, READ_ALONG, Rows};
use super::{RECOVERY, Sacked, SampleRow, TraceReader};
use crate::Result;
use crate::clock::TIMES_NS;
use crate::layout::{BASES, Bases, SAMPLE_COLUMNS, Stored};
use crate::sample::Kind;
use crate::store::failed;

/// Samples of a flow that follow each other.
#[derive(Default)]
pub(super) struct Chunk {
    /// Without what other tables have, and `rcv_position` without rounds.
    pub(super) samples: Vec<SampleRow>,
    /// How often `rcv_nxt` went round unseen before each.
    pub(super) rcv_laps: Vec<i64>,
    named: Vec<Named>,
}

impl Chunk {
    /// The sample that comes next names a row of `ack_rows`, as a rule the same as the one before.
    fn name(&mut self, ack_id: i64, seldom_id: i64) {
        let next = self.samples.len();
        match self.named.last_mut() {
            Some(n) if (n.ack_id, n.seldom_id, n.samples.end) == (ack_id, seldom_id, next) => n.samples.end += 1,
            _ => self.named.push(Named { samples: next..next + 1, ack_id, seldom_id }),
        }
    }
}

/// The row of `ack_rows` that samples name, one after the other.
struct Named {
    /// Positions of the samples.
    samples: Range<usize>,
    ack_id: i64,
    /// What the run counts ids of `seldom_rows` from; the row has the distance.
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
    pub(super) windows: bool,
    /// `sacked_out`, and `mss` along with it.
    pub(super) sacked: Sacked,
}

/// What next to no sample has.
#[derive(Clone, Copy, Default)]
struct Rare {
    error: i32,
    rcv_laps: i64,
}

/// So many columns of `ack_rows` and of `seldom_rows` are read: those up to the last one that is needed.
const OF_ACKS: usize = 12;
const OF_SELDOM: usize = 14;

/// Columns of a [`Run`].
pub(super) fn run_columns() -> String {
    format!("first_id, last_id, first_serial, {}", BASES.join(", "))
}

/// Which samples of a flow are read.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) flow_id: i64,
    pub(super) session_id: i64,
    /// Ids, both included.
    pub(super) ids: (i64, i64),
    pub(super) with: With,
}

impl Wanted {
    fn is_whole(&self) -> bool {
        self.ids == (i64::MIN, i64::MAX)
    }

    fn follows(&self, before: &Wanted) -> bool {
        before.flow_id.checked_add(1) == Some(self.flow_id)
    }
}

/// A run, or the part of it that is wanted.
struct Stretch {
    run: Run,
    ids: (i64, i64),
    clocks: Clocks,
    with: With,
    /// Position of the chunk.
    of: usize,
}

impl TraceReader {
    /// The samples of some flows, of each as they were written, which is by serial. Flows that were recorded at the
    /// same time share pages, which are read once.
    pub(super) fn chunks(&self, wanted: &[Wanted]) -> Result<Vec<Chunk>> {
        let err = failed(&self.path, "cannot read the samples");
        // all as of one moment, and from where it is then
        let transaction = self.db.unchecked_transaction().map_err(&err)?;
        let mut stretches = Vec::new();
        let mut of = 0;
        for neighbours in wanted.chunk_by(|a, b| a.is_whole() && b.is_whole() && b.follows(a)) {
            match neighbours {
                [one] => self.stretches(one, of, &mut stretches)?,
                several => self.stretches_of_neighbours(several, of, &mut stretches)?,
            }
            of += neighbours.len();
        }
        stretches.sort_by_key(|s| s.ids);
        let mut chunks: Vec<Chunk> = wanted.iter().map(|_| Chunk::default()).collect();
        if !stretches.is_empty() {
            self.read(&mut self.rows(Of::Samples)?, &stretches, &mut chunks)?;
            self.state(wanted, &mut chunks)?;
        }
        transaction.commit().map_err(&err)?;
        Ok(chunks)
    }

    /// The runs of a flow, from the one on that the first id is in, or the next one. `of`: position of the flow.
    fn stretches(&self, wanted: &Wanted, of: usize, into: &mut Vec<Stretch>) -> Result<()> {
        let err = failed(&self.path, "cannot read the samples");
        let sql = format!(
            "SELECT flow_id, {} FROM sample_runs
             WHERE flow_id = ?1 AND first_id >= coalesce((SELECT max(first_id) FROM sample_runs
               WHERE flow_id = ?1 AND first_id <= ?2), ?2) AND first_id <= ?3 ORDER BY first_id",
            run_columns()
        );
        let mut runs = self.db.prepare_cached(&sql).map_err(&err)?;
        let (first_id, last_id) = wanted.ids;
        let rows = runs.query([wanted.flow_id, first_id, last_id]).map_err(&err)?;
        self.take_stretches(rows, std::slice::from_ref(wanted), of, into)
    }

    /// All runs of flows whose ids follow each other: for short flows a statement for each would take as long as their
    /// samples.
    fn stretches_of_neighbours(&self, wanted: &[Wanted], of: usize, into: &mut Vec<Stretch>) -> Result<()> {
        let err = failed(&self.path, "cannot read the samples");
        let sql = format!(
            "SELECT flow_id, {} FROM sample_runs WHERE flow_id >= ?1 AND flow_id <= ?2 ORDER BY flow_id, first_id",
            run_columns()
        );
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(()) };
        let mut runs = self.db.prepare_cached(&sql).map_err(&err)?;
        let rows = runs.query([first.flow_id, last.flow_id]).map_err(&err)?;
        self.take_stretches(rows, wanted, of, into)
    }

    /// Rows of `sample_runs`, by flow and first id.
    fn take_stretches(
        &self,
        mut rows: rusqlite::Rows<'_>,
        wanted: &[Wanted],
        of: usize,
        into: &mut Vec<Stretch>,
    ) -> Result<()> {
        let err = failed(&self.path, "cannot read the samples");
        let mut done: Option<(i64, i64)> = None;
        let mut of_flow = wanted.iter().zip(of..).peekable();
        while let Some(row) = rows.next().map_err(&err)? {
            let flow_id: i64 = row.get(0).map_err(&err)?;
            let run = Run::read(row, 1).map_err(&err)?;
            while of_flow.next_if(|(w, _)| w.flow_id < flow_id).is_some() {}
            let Some((wanted, of)) = of_flow.peek().copied().filter(|(w, _)| w.flow_id == flow_id) else { continue };
            let Some(clocks) = self.clocks(wanted.session_id)? else { continue };
            if run.last_id < run.first_id || done.is_some_and(|done| (flow_id, run.first_id) <= done) {
                return Err(self.damaged(format!("a run of samples from {} to {}", run.first_id, run.last_id)));
            }
            done = Some((flow_id, run.last_id));
            let ids = (run.first_id.max(wanted.ids.0), run.last_id.min(wanted.ids.1));
            if ids.0 <= ids.1 {
                into.push(Stretch { run, ids, clocks, with: wanted.with, of });
            }
        }
        Ok(())
    }

    /// `None`: there is no such session.
    pub(super) fn clocks(&self, session_id: i64) -> Result<Option<Clocks>> {
        if let Some(known) = self.sessions.borrow().get(&session_id) {
            return Ok(Some(*known));
        }
        let err = failed(&self.path, "cannot read the samples");
        let sql = "SELECT mono_base_ns, real_base_ns FROM sessions WHERE id = ?1";
        let mut statement = self.db.prepare_cached(sql).map_err(&err)?;
        let clocks = |row: &Row<'_>| Ok(Clocks { mono_base_ns: row.get(0)?, real_base_ns: row.get(1)? });
        let found = statement.query_row([session_id], clocks).optional().map_err(&err)?;
        self.sessions.borrow_mut().extend(found.map(|clocks| (session_id, clocks)));
        Ok(found)
    }

    /// Reads stretches, which are sorted.
    fn read(&self, from: &mut Rows<'_>, stretches: &[Stretch], chunks: &mut [Chunk]) -> Result<()> {
        let is_near = |a: &Stretch, b: &Stretch| b.ids.0 > a.ids.1 && b.ids.0 - a.ids.1 <= READ_ALONG;
        for near in stretches.chunk_by(is_near) {
            let ids = (near[0].ids.0, near[near.len() - 1].ids.1);
            let mut rare = self.rare(ids)?;
            let mut rest = near;
            from.between(ids, |id, columns: &[Option<i64>; SAMPLE_COLUMNS.len()]| {
                while let [first, others @ ..] = rest
                    && first.ids.1 < id
                {
                    rest = others;
                }
                let Some(Stretch { run, clocks, with, of, .. }) = rest.first().filter(|s| s.ids.0 <= id) else {
                    return Ok(());
                };
                let into = &mut chunks[*of];
                let stored = Stored::new(&run.bases, columns);
                let rare = rare.remove(&id).unwrap_or_default();
                if with.windows || with.sacked != Sacked::No || matches!(stored.what, Some((Kind::State, _))) {
                    let ack_id = run.bases.ack_id.wrapping_add(columns[ACK_OFF].unwrap_or(0));
                    into.name(ack_id, run.bases.seldom_id);
                }
                into.samples.push(self.sample(id, &stored, rare, run, *clocks)?);
                into.rcv_laps.push(rare.rcv_laps);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Adds what the rows say that samples name.
    fn state(&self, wanted: &[Wanted], chunks: &mut [Chunk]) -> Result<()> {
        let named: Vec<(usize, Named)> =
            chunks.iter_mut().zip(0..).flat_map(|(c, at)| c.named.drain(..).map(move |n| (at, n))).collect();
        if named.is_empty() {
            return Ok(());
        }
        let position = |of: Of, column| of.position(column);
        let (snd_cwnd, sacked_out) = (position(Of::Acks, "snd_cwnd"), position(Of::Acks, "sacked_out"));
        let mut seldom = Vec::with_capacity(named.len());
        let mut cwnds = BTreeMap::new();
        // is `mss` worth reading?
        let mut segments: Vec<bool> = wanted.iter().map(|w| w.with.sacked == Sacked::Segments).collect();
        let ids = named.iter().map(|(_, n)| n.ack_id).zip(0..).collect();
        self.rows(Of::Acks)?.with_ids(ids, |i, columns: &[Option<i64>; OF_ACKS]| {
            let (of, Named { samples, seldom_id, .. }) = &named[i];
            let (of, with) = (*of, wanted[*of].with);
            seldom.push((seldom_id.wrapping_add(columns[SELDOM_OFF].unwrap_or(0)), i));
            if with.windows {
                cwnds.extend(columns[snd_cwnd].map(|cwnd| (i, cwnd)));
            }
            if with.sacked != Sacked::No {
                let sacked = columns[sacked_out].and_then(|n| u32::try_from(n).ok());
                segments[of] |= sacked.is_some_and(|n| n > 0);
                chunks[of].samples[samples.clone()].iter_mut().for_each(|s| s.sacked_out = sacked);
            }
        })?;
        seldom.retain(|&(_, i)| {
            let (of, Named { samples, .. }) = &named[i];
            let mut of_state = chunks[*of].samples[samples.clone()].iter().filter(|s| s.kind == Kind::State);
            segments[*of] || wanted[*of].with.windows || of_state.next().is_some()
        });
        if seldom.is_empty() {
            return Ok(());
        }
        let [mss, ca_state, sk_state] = ["mss", "ca_state", "sk_state"].map(|c| position(Of::Seldom, c));
        self.rows(Of::Seldom)?.with_ids(seldom, |i, columns: &[Option<i64>; OF_SELDOM]| {
            let (of, Named { samples, .. }) = &named[i];
            let mss = columns[mss];
            let state = columns[sk_state].and_then(|s| u8::try_from(s).ok());
            let is_open = wanted[*of].with.windows && columns[ca_state].is_some_and(|state| state < RECOVERY);
            let bytes = cwnds.get(&i).zip(mss).and_then(|(cwnd, mss)| cwnd.checked_mul(mss));
            let cwnd_bytes = bytes.and_then(|b| u32::try_from(b).ok()).filter(|&b| is_open && b > 0);
            let mss = mss.and_then(|n| u32::try_from(n).ok()).filter(|&n| segments[*of] && n > 0);
            for sample in &mut chunks[*of].samples[samples.clone()] {
                if sample.kind == Kind::State {
                    sample.sk_state = state;
                }
                (sample.cwnd_bytes, sample.mss) = (cwnd_bytes, mss);
            }
        })
    }

    /// Single samples of a run, without what other tables have.
    pub(super) fn one_of_run(
        &self,
        from: &mut Rows<'_>,
        run: &Run,
        clocks: Clocks,
        id: i64,
    ) -> Result<Option<SampleRow>> {
        let mut found = None;
        from.between((id, id), |id, columns: &[Option<i64>; SAMPLE_COLUMNS.len()]| {
            found = Some(self.sample(id, &Stored::new(&run.bases, columns), Rare::default(), run, clocks)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// What the samples from an id to another have of `rare_rows`, by id.
    fn rare(&self, (first, last): (i64, i64)) -> Result<BTreeMap<i64, Rare>> {
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

/// Positions of `ack_off` among the columns of `sample_rows`, and of `seldom_off` among those of `ack_rows`.
const ACK_OFF: usize = 7;
const SELDOM_OFF: usize = 0;

impl Run {
    /// From [`run_columns`], the first of which is this one.
    pub(super) fn read(row: &Row<'_>, from: usize) -> rusqlite::Result<Run> {
        let mut bases = [0; BASES.len()];
        for (base, at) in bases.iter_mut().zip(from + 3..) {
            *base = row.get(at)?;
        }
        let [first_id, last_id, first_serial] = [row.get(from)?, row.get(from + 1)?, row.get(from + 2)?];
        Ok(Run { first_id, last_id, first_serial, bases: Bases::from(bases) })
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
