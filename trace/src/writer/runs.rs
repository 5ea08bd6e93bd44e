//! Writes samples flow by flow, in runs: what a flow's samples have in common is stored once for each run.
//!
//! Samples are held back until a commit, or until there are many of them, so that those of one flow get ids one by one.

use std::path::Path;

use rusqlite::{CachedStatement, Connection, params_from_iter};

use super::insert;
use crate::fields::{FIELDS, Moves};
use crate::layout::{ACK_COLUMNS, BASES, Bases, Plain, SAMPLE_COLUMNS, picked};
use crate::schema::stored;
use crate::store::failed;
use crate::{Error, Result};

/// Samples of all flows that are held back at most; 0.5 KB each.
pub(super) const MAX_HELD: usize = 65_536;

/// A run of this many samples ends where its distances would take another byte: a run costs about as much as these save.
const LONG_RUN: usize = 128;
/// No run is longer: a sample says how far it is from its run's first one, mostly in one byte, and near it distances are
/// short. Both together pay for the runs that this makes.
const LONGEST_RUN: usize = 256;
/// What fits in three bytes, below and above a base.
const THREE_BYTES: i64 = (1 << 24) - 1;

/// State columns with the id of their row, as it was stored last.
type LastRow = Option<(i64, [Option<i64>; FIELDS.len() + ACK_COLUMNS.len()])>;

/// What is kept of a flow, so that unchanged state is stored once.
#[derive(Default)]
pub(super) struct LastRows {
    ack: LastRow,
    seldom: LastRow,
}

/// The ids of the rows that come next.
pub(super) struct NextIds {
    pub(super) sample: i64,
    ack: i64,
    seldom: i64,
}

impl NextIds {
    pub(super) fn of(db: &Connection, path: &Path) -> Result<NextIds> {
        let next = |table: &str| -> Result<i64> {
            let sql = format!("SELECT coalesce(max(id), 0) FROM {table}");
            let last: i64 = db.query_row(&sql, [], |r| r.get(0)).map_err(failed(path, "cannot begin a session"))?;
            // room for more than any recording has, or a trace of someone else
            (0..i64::MAX / 2)
                .contains(&last)
                .then_some(last + 1)
                .ok_or_else(|| Error::Damaged { path: path.to_owned(), what: format!("{table} has a row {last}") })
        };
        Ok(NextIds { sample: next("sample_rows")?, ack: next("ack_rows")?, seldom: next("seldom_rows")? })
    }
}

/// Writes samples of a flow, which come in the order of their serials. Returns the id of each.
pub(crate) struct RunWriter<'a> {
    pub(super) db: &'a Connection,
    pub(super) path: &'a Path,
    pub(super) next: &'a mut NextIds,
    run_rows: CachedStatement<'a>,
    sample_rows: CachedStatement<'a>,
    ack_rows: CachedStatement<'a>,
    seldom_rows: CachedStatement<'a>,
}

impl<'a> RunWriter<'a> {
    pub(super) fn new(db: &'a Connection, path: &'a Path, next: &'a mut NextIds) -> Result<RunWriter<'a>> {
        let prepared = |table: &str, columns: usize| {
            db.prepare_cached(&insert(table, columns)).map_err(failed(path, "cannot write a sample"))
        };
        Ok(RunWriter {
            db,
            path,
            next,
            run_rows: prepared("sample_runs", 4 + BASES.len())?,
            sample_rows: prepared("sample_rows", 1 + SAMPLE_COLUMNS.len() + stored(Moves::Segment).count() + 1)?,
            ack_rows: prepared("ack_rows", 1 + ACK_COLUMNS.len() + stored(Moves::Ack).count())?,
            seldom_rows: prepared("seldom_rows", 1 + stored(Moves::Seldom).count())?,
        })
    }

    /// Writes them; the first gets the next id, and so on.
    pub(super) fn write(&mut self, flow_id: i64, last: &mut LastRows, samples: &[Plain]) -> Result<()> {
        let mut rest = samples;
        while !rest.is_empty() {
            let (run, others) = rest.split_at(run_length(rest));
            self.run(flow_id, last, run)?;
            rest = others;
        }
        Ok(())
    }

    fn run(&mut self, flow_id: i64, last: &mut LastRows, samples: &[Plain]) -> Result<()> {
        let Some(first) = samples.first() else { return Ok(()) };
        let mut bases = Bases::of(samples);
        let first_id = self.next.sample;
        for (i, sample) in samples.iter().enumerate() {
            let (ack_id, seldom_id) = self.state_rows(last, &mut bases, sample, i == 0)?;
            if i == 0 {
                (bases.ack_id, bases.seldom_id) = (ack_id, seldom_id);
            }
            self.sample(&bases, sample, ack_id, first_id)?;
        }
        let run = [first_id, self.next.sample - 1, flow_id, first.serial].into_iter().chain(bases.columns());
        execute(&mut self.run_rows, self.path, run.map(Some))
    }

    fn sample(&mut self, bases: &Bases, sample: &Plain, ack_id: i64, first_id: i64) -> Result<()> {
        let id = self.next.sample;
        let mut columns = bases.sample(sample);
        columns[ACK_OFF] = Some(ack_id - bases.ack_id);
        let state = picked(&sample.state, Moves::Segment);
        let row = std::iter::once(Some(id)).chain(columns).chain(state).chain([Some(id - first_id)]);
        execute(&mut self.sample_rows, self.path, row)?;
        if sample.error != 0 || sample.rcv_laps != 0 {
            let or_null = |value: i64| (value != 0).then_some(value);
            let row = [Some(id), or_null(i64::from(sample.error)), or_null(sample.rcv_laps)];
            let mut rare_rows = self
                .db
                .prepare_cached(&insert("rare_rows", row.len()))
                .map_err(failed(self.path, "cannot write a sample"))?;
            execute(&mut rare_rows, self.path, row.into_iter())?;
        }
        self.next.sample += 1;
        Ok(())
    }

    /// The ids of rows that hold this state; new rows only for what has changed since the flow's last sample. The first
    /// sample of a run gives it its base of `seldom_id`.
    fn state_rows(&mut self, last: &mut LastRows, bases: &mut Bases, s: &Plain, is_first: bool) -> Result<(i64, i64)> {
        let mut values = [None; FIELDS.len() + ACK_COLUMNS.len()];
        let seldom_count = stored(Moves::Seldom).count();
        for (value, field) in values.iter_mut().zip(picked(&s.state, Moves::Seldom)) {
            *value = field;
        }
        let seldom_id = match last.seldom {
            Some((id, row)) if row == values => id,
            _ => {
                let id = self.next.seldom;
                self.next.seldom += 1;
                let row = std::iter::once(Some(id)).chain(values.into_iter().take(seldom_count));
                execute(&mut self.seldom_rows, self.path, row)?;
                last.seldom = Some((id, values));
                id
            }
        };
        if is_first {
            bases.seldom_id = seldom_id;
        }
        let mut columns = bases.ack(s);
        columns[SELDOM_OFF] = Some(seldom_id - bases.seldom_id);
        let count = ACK_COLUMNS.len() + stored(Moves::Ack).count();
        let mut values = [None; FIELDS.len() + ACK_COLUMNS.len()];
        for (value, column) in values.iter_mut().zip(columns.into_iter().chain(picked(&s.state, Moves::Ack))) {
            *value = column;
        }
        let ack_id = match last.ack {
            Some((id, row)) if row == values => id,
            _ => {
                let id = self.next.ack;
                self.next.ack += 1;
                let row = std::iter::once(Some(id)).chain(values.into_iter().take(count));
                execute(&mut self.ack_rows, self.path, row)?;
                last.ack = Some((id, values));
                id
            }
        };
        Ok((ack_id, seldom_id))
    }
}

fn execute(statement: &mut CachedStatement<'_>, path: &Path, row: impl Iterator<Item = Option<i64>>) -> Result<()> {
    statement.execute(params_from_iter(row)).map_err(failed(path, "cannot write a sample"))?;
    Ok(())
}

/// Where [`SAMPLE_COLUMNS`] has the id of the row of `ack_rows`.
const ACK_OFF: usize = 7;
/// Where [`ACK_COLUMNS`] has the id of the row of `seldom_rows`.
const SELDOM_OFF: usize = 0;

/// How many of these samples make the first run.
fn run_length(samples: &[Plain]) -> usize {
    let Some(first) = samples.first() else { return 0 };
    let mut serial = first.serial;
    let mut spans = [Span::default(); 3];
    for (i, s) in samples.iter().enumerate() {
        if i > 0 && (serial.checked_add(1) != Some(s.serial) || i == LONGEST_RUN) {
            return i;
        }
        serial = s.serial;
        let moved = s.moved_from(first);
        if !spans.iter_mut().zip(moved).all(|(span, to)| span.takes(to)) && i >= LONG_RUN {
            return i;
        }
    }
    samples.len()
}

/// The least and the largest of some distances.
#[derive(Clone, Copy, Default)]
struct Span {
    low: i64,
    high: i64,
}

impl Span {
    /// Takes one more in; do all of them still fit in three bytes?
    fn takes(&mut self, to: i64) -> bool {
        self.low = self.low.min(to);
        self.high = self.high.max(to);
        self.high.saturating_sub(self.low) <= THREE_BYTES
    }
}
