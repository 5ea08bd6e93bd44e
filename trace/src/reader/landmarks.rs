//! Samples here and there in a trace: they say where in it a flow was when, without reading all of it.

use super::{SAMPLE_COLUMNS, SampleRow, TraceReader};
use crate::Result;
use crate::store::failed;

/// Of so many samples of a trace one is a landmark.
const STEP: i64 = 64;

impl TraceReader {
    /// One of about 64 samples of the trace, in the order of their ids, each with its flow's id. Which ones has no
    /// pattern: of flows that take turns each has its share.
    ///
    /// # Errors
    /// The trace cannot be read, or `take` says so.
    pub fn landmarks<E: From<crate::Error>>(
        &self,
        mut take: impl FnMut(i64, SampleRow) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let err = failed(&self.path, "cannot read the samples");
        let span: Result<(Option<i64>, Option<i64>)> = self
            .db
            .query_row("SELECT min(id), max(id) FROM sample_rows", [], |r| Ok((r.get(0)?, r.get(1)?)))
            .map_err(&err);
        let (Some(first), Some(last)) = span? else { return Ok(()) };
        let sql = format!(
            "SELECT {SAMPLE_COLUMNS} FROM sample_rows r JOIN flows f ON f.id = r.flow_id
               JOIN sessions z ON z.id = f.session_id WHERE r.id = ?1"
        );
        let mut statement = self.db.prepare_cached(&sql).map_err(&err)?;
        let mut begin = first;
        while begin <= last {
            let mut rows = statement.query([begin.saturating_add(jitter(begin))]).map_err(&err)?;
            if let Some(row) = rows.next().map_err(&err)? {
                take(row.get(18).map_err(&err)?, self.sample(row)?)?;
            }
            begin = begin.saturating_add(STEP);
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
        let found: std::collections::BTreeSet<i64> = (0..10_000).map(|k| jitter(k * STEP)).collect();
        assert_eq!(found, (0..STEP).collect());
    }
}
