//! The losses, by flow and serial, to be compared with the gaps in samples as these go by.

use std::collections::BTreeMap;

use rusqlite::{Rows, Statement};

use super::columns::read;
use super::session::Sessions;
use super::{Place, Run};
use crate::Result;

struct Loss {
    flow_id: Option<i64>,
    after_serial: i64,
    count: i64,
}

/// A walk over all losses.
pub(super) struct Losses<'s> {
    rows: Rows<'s>,
    next: Option<Loss>,
    /// Samples lost, by session.
    sums: BTreeMap<i64, i64>,
}

impl<'s> Losses<'s> {
    /// Of no known flow first, then flow by flow.
    pub(super) const SQL: &'static str = "SELECT session_id, flow_id, after_serial, count,
  cause IN ('probe_missed', 'recursion') AS of_runs FROM losses ORDER BY flow_id, after_serial";

    pub(super) fn begin(statement: &'s mut Statement<'_>, run: &mut Run<'_>) -> Result<Losses<'s>> {
        let rows = statement.query([]).map_err(run.failed())?;
        let mut losses = Losses { rows, next: None, sums: BTreeMap::new() };
        losses.advance(run)?;
        Ok(losses)
    }

    fn advance(&mut self, run: &mut Run<'_>) -> Result<()> {
        const NAMES: [&str; 5] = ["session_id", "flow_id", "after_serial", "count", "cause"];
        let err = run.failed();
        self.next = None;
        while let Some(row) = self.rows.next().map_err(&err)? {
            let mut values = [None; NAMES.len()];
            let fault = read(row, &mut values).map_err(&err)?;
            let [session_id, flow_id, after_serial, count, of_runs] = values;
            let what = match (fault, count) {
                (Some((column, what)), _) => Some(format!("{} is {what}", NAMES[column])),
                (None, None) => Some("count is NULL".into()),
                (None, Some(n)) if n <= 0 => Some(format!("count is {n}")),
                _ if flow_id.is_some() && after_serial.is_none() => Some("after_serial is NULL".into()),
                _ => None,
            };
            if let Some(what) = what {
                let at = Place { session_id, flow_id, ..Place::default() };
                run.violated("values", at, format!("a row of losses: {what}"))?;
            }
            let count = count.unwrap_or(0);
            // runs that did not take place are no samples
            let samples = if of_runs == Some(1) { 0 } else { count };
            let sum = self.sums.entry(session_id.unwrap_or(0)).or_insert(0);
            *sum = sum.saturating_add(samples);
            if flow_id.is_some() {
                self.next = Some(Loss { flow_id, after_serial: after_serial.unwrap_or(0), count });
                return Ok(());
            }
        }
        Ok(())
    }

    /// Samples lost of a flow after serials below this one, since the last call.
    pub(super) fn take(&mut self, run: &mut Run<'_>, flow_id: Option<i64>, before_serial: i64) -> Result<i64> {
        let mut sum = 0i64;
        while let Some(loss) = &self.next {
            if loss.flow_id > flow_id || (loss.flow_id == flow_id && loss.after_serial >= before_serial) {
                break;
            }
            // those of a flow that is not there are another check's
            if loss.flow_id == flow_id {
                sum = sum.saturating_add(loss.count);
            }
            self.advance(run)?;
        }
        Ok(sum)
    }

    /// Reads the rest, and tells the sessions their sums.
    pub(super) fn finish(mut self, run: &mut Run<'_>, sessions: &mut Sessions) -> Result<()> {
        while self.next.is_some() {
            self.advance(run)?;
        }
        for (session, sum) in self.sums {
            if let Some(session) = sessions.get_mut(&session) {
                session.lost_found = sum;
            }
        }
        Ok(())
    }
}
