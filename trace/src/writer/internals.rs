//! Writes what congestion controls keep for themselves: a row where something has changed, with the sample of then.

use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension as _, params, params_from_iter};

use super::{FlowState, SessionWriter, insert};
use crate::Result;
use crate::clock::{Anchor, Segment as ClockSegment};
use crate::internals::{INTERNALS, Internals, Value};
use crate::store::failed;

type Values = [Option<Value>; INTERNALS.len()];

/// The last values of a flow.
pub(super) struct Last {
    /// As they came.
    values: Values,
    /// As they were stored: a time keeps its Unix time while the clocks drift.
    stored: Values,
}

impl SessionWriter {
    /// Adds what a flow's congestion control held at a sample; a row is written only where a value differs from the
    /// flow's last ones. They come in the order of their serials, normally right after their sample; where that was
    /// lost, they are those of the flow's next one. `now` is an anchor taken after the sample. Refused with `false` as
    /// [`SessionWriter::sample`] is: the flow was never announced.
    pub fn internals(&mut self, internals: &Internals, now: Anchor) -> Result<bool> {
        self.transaction()?;
        let Some(mut flow) = self.flows.remove(&internals.flow) else { return Ok(false) };
        let written = if internals.serial > flow.last_serial {
            flow.early_internals = Some(Box::new(*internals));
            Ok(())
        } else {
            self.internals_of(&mut flow, internals, now)
        };
        self.flows.insert(internals.flow, flow);
        written.map(|()| true)
    }

    /// Writes what came before a sample that is there now.
    pub(super) fn early_internals(&mut self, flow: &mut FlowState, now: Anchor) -> Result<()> {
        match flow.early_internals.take_if(|i| i.serial <= flow.last_serial) {
            Some(internals) => self.internals_of(flow, &internals, now),
            None => Ok(()),
        }
    }

    fn internals_of(&mut self, flow: &mut FlowState, internals: &Internals, now: Anchor) -> Result<()> {
        let values = internals.values;
        if flow.internals.as_ref().is_some_and(|last| last.values == values) {
            return Ok(());
        }
        let Some(sample_id) = self.sample_id(flow, internals.serial)? else { return Ok(()) };
        let clock = ClockSegment::new(self.anchor, now);
        let mut stored = values;
        for (i, value) in stored.iter_mut().enumerate() {
            let unchanged = flow.internals.as_ref().filter(|last| last.values[i] == *value).map(|last| last.stored[i]);
            *value = match *value {
                Some(Value::MonoNs(mono_ns)) => {
                    unchanged.unwrap_or(Some(Value::Integer(mono_ns.saturating_add(clock.offset_ns(mono_ns)))))
                }
                other => other,
            };
        }
        let columns = stored.iter().map(|value| match *value {
            None => Sql::Null,
            Some(Value::Integer(n) | Value::MonoNs(n)) => Sql::Integer(n),
            Some(Value::Real(x)) => Sql::Real(x),
        });
        let row = [Sql::Integer(sample_id), Sql::Integer(flow.id)].into_iter().chain(columns);
        let err = failed(&self.path, "cannot write what a congestion control held");
        // what was held over for a sample gives way to what was read with it
        self.db
            .prepare_cached(&insert("internal_rows", 2 + INTERNALS.len()).replace("INSERT", "INSERT OR REPLACE"))
            .and_then(|mut s| s.execute(params_from_iter(row)))
            .map_err(&err)?;
        flow.internals = Some(Box::new(Last { values, stored }));
        Ok(())
    }

    /// The flow's sample of a serial, or the next one where that is missing.
    fn sample_id(&self, flow: &FlowState, serial: u64) -> Result<Option<i64>> {
        if serial == flow.last_serial {
            return Ok(Some(flow.last_sample_id));
        }
        let err = failed(&self.path, "cannot find a sample");
        // from the flow's end: it is one of the last
        self.db
            .prepare_cached(
                "SELECT id FROM sample_rows WHERE flow_id = ?1 AND id > coalesce((SELECT id FROM sample_rows
                   WHERE flow_id = ?1 AND serial < ?2 ORDER BY id DESC LIMIT 1), 0) ORDER BY id LIMIT 1",
            )
            .and_then(|mut s| {
                s.query_row(params![flow.id, i64::try_from(serial).unwrap_or(i64::MAX)], |r| r.get(0)).optional()
            })
            .map_err(&err)
    }
}
