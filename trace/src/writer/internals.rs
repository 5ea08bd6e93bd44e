//! Writes what congestion controls keep for themselves: a row where something has changed, with the sample of then.

use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension as _, params, params_from_iter};

use super::{FlowState, SessionWriter, insert};
use crate::Result;
use crate::clock::Anchor;
use crate::internals::{INTERNALS, Internals, Value};
use crate::layout::Plain;
use crate::store::failed;

type Values = [Option<Value>; INTERNALS.len()];

/// A row to be written with its sample.
pub(super) struct Held {
    serial: u64,
    stored: Values,
}

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
        self.recall(internals.flow)?;
        let Some(mut flow) = self.flows.remove(&internals.flow) else { return Ok(false) };
        if internals.serial > flow.last_serial {
            flow.early_internals = Some(Box::new(*internals));
        } else {
            self.internals_of(&mut flow, internals, now);
        }
        if flow.held.is_empty() && !flow.held_internals.is_empty() {
            self.holding.push(internals.flow);
        }
        self.flows.insert(internals.flow, flow);
        Ok(true)
    }

    /// Takes what came before a sample that is there now.
    pub(super) fn early_internals(&self, flow: &mut FlowState, now: Anchor) {
        if let Some(internals) = flow.early_internals.take_if(|i| i.serial <= flow.last_serial) {
            self.internals_of(flow, &internals, now);
        }
    }

    fn internals_of(&self, flow: &mut FlowState, internals: &Internals, now: Anchor) {
        let values = internals.values;
        if flow.internals.as_ref().is_some_and(|last| last.values == values) {
            return;
        }
        let mut stored = values;
        for (i, value) in stored.iter_mut().enumerate() {
            let unchanged = flow.internals.as_ref().filter(|last| last.values[i] == *value).map(|last| last.stored[i]);
            *value = match *value {
                Some(Value::MonoNs(mono_ns)) => unchanged
                    .unwrap_or(Some(Value::Integer(mono_ns.saturating_add(self.clock.offset_ns(mono_ns, now))))),
                other => other,
            };
        }
        flow.held_internals.push(Held { serial: internals.serial, stored });
        flow.internals = Some(Box::new(Last { values, stored }));
    }

    /// Writes the rows of a flow whose samples have just been written, from the id `first_id` on.
    pub(super) fn write_internals(&self, flow: &mut FlowState, samples: &[Plain], first_id: i64) -> Result<()> {
        for held in std::mem::take(&mut flow.held_internals) {
            let serial = i64::try_from(held.serial).unwrap_or(i64::MAX);
            let at = samples.partition_point(|s| s.serial < serial);
            let is_earlier = samples.first().is_none_or(|s| s.serial > serial);
            let earlier = if is_earlier { self.sample_id(flow.id, serial)? } else { None };
            let here = (at < samples.len()).then_some(first_id + at as i64);
            let Some(sample_id) = earlier.or(here) else { continue };
            let columns = held.stored.iter().map(|value| match *value {
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
        }
        Ok(())
    }

    /// The flow's sample of a serial, or the next one where that is missing.
    fn sample_id(&self, flow_id: i64, serial: i64) -> Result<Option<i64>> {
        self.db
            .prepare_cached(
                "SELECT first_id + max(?2 - first_serial, 0) FROM sample_runs
                 WHERE flow_id = ?1 AND first_serial + last_id - first_id >= ?2 ORDER BY first_id LIMIT 1",
            )
            .and_then(|mut s| s.query_row(params![flow_id, serial], |r| r.get(0)).optional())
            .map_err(failed(&self.path, "cannot find a sample"))
    }
}
