//! Samples here and there in a trace: they say where in it a flow was when, without reading all of it.

use std::ops::RangeInclusive;

use super::rows::Of;
use super::runs::{Run, run_columns};
use super::{SampleRow, TraceReader};
use crate::store::failed;

/// Of so many samples of a trace one is a landmark.
const STEP: i64 = 64;
/// No run has more samples.
const MOST_OF_A_RUN: i64 = 1 << 20;

impl TraceReader {
    /// All ids, in ranges within which the runs that begin there have so many samples, or a few more.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn pieces(&self, samples: u64) -> crate::Result<Vec<RangeInclusive<i64>>> {
        let err = failed(&self.path, "cannot read the samples");
        let mut statement =
            self.db.prepare("SELECT first_id, last_id FROM sample_runs ORDER BY first_id").map_err(&err)?;
        let mut rows = statement.query([]).map_err(&err)?;
        let (mut pieces, mut from, mut held) = (Vec::new(), i64::MIN, 0_u64);
        while let Some(row) = rows.next().map_err(&err)? {
            let (first, last): (i64, i64) = (row.get(0).map_err(&err)?, row.get(1).map_err(&err)?);
            if held >= samples && from < first {
                pieces.push(from..=first - 1);
                (from, held) = (first, 0);
            }
            held = held.saturating_add(last.abs_diff(first)).saturating_add(1);
        }
        pieces.push(from..=i64::MAX);
        Ok(pieces)
    }

    /// One of about 64 samples of the runs that begin within a range of ids, in the order of their ids, each with its
    /// flow's id. Which ones has no pattern: of flows that take turns each has its share. Those of flows without a session
    /// are left out.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn landmarks(
        &self,
        begins: &RangeInclusive<i64>,
        session_of: impl Fn(i64) -> Option<i64>,
        mut take: impl FnMut(i64, &SampleRow),
    ) -> crate::Result<()> {
        let err = failed(&self.path, "cannot read the samples");
        let sql = format!(
            "SELECT {}, flow_id FROM sample_runs WHERE first_id BETWEEN ?1 AND ?2 ORDER BY first_id",
            run_columns()
        );
        let mut runs = self.db.prepare_cached(&sql).map_err(&err)?;
        let flow_at = runs.column_count() - 1;
        let mut rows = runs.query([begins.start(), begins.end()]).map_err(&err)?;
        let mut samples = None;
        while let Some(row) = rows.next().map_err(&err)? {
            let run = Run::read(row, 0).map_err(&err)?;
            let flow_id: i64 = row.get(flow_at).map_err(&err)?;
            // the writer's are shorter; what follows takes time by what a run claims to have
            if run.last_id.saturating_sub(run.first_id) > MOST_OF_A_RUN {
                return Err(self.damaged(format!("a run of samples from {} to {}", run.first_id, run.last_id)));
            }
            let Some(session_id) = session_of(flow_id) else { continue };
            let Some(clocks) = self.clocks(session_id)? else { continue };
            let samples = match &mut samples {
                Some(known) => known,
                // the open statement holds the transaction within which tables stay where they are
                none => none.insert(self.rows(Of::Samples)?),
            };
            let mut step = run.first_id.div_euclid(STEP);
            while step <= run.last_id.div_euclid(STEP) {
                let id = step.saturating_mul(STEP).saturating_add(jitter(step));
                if (run.first_id..=run.last_id).contains(&id)
                    && let Some(sample) = self.one_of_run(samples, &run, clocks, id)?
                {
                    take(flow_id, &sample);
                }
                step += 1;
            }
        }
        Ok(())
    }
}

/// A number below [`STEP`] that follows from another one and looks like none (Fibonacci hashing).
fn jitter(of: i64) -> i64 {
    (of.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) as u64 >> 58) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remainder_occurs() {
        let found: std::collections::BTreeSet<i64> = (0..10_000).map(jitter).collect();
        assert_eq!(found, (0..STEP).collect());
    }
}
