//! What congestion controls held inside: whose it is, and whether the kernel has such values.

use rusqlite::types::ValueRef;

use super::{Place, Run};
use crate::Result;
use crate::internals::INTERNALS;
use crate::schema::{ROWS, RUN_OF_SAMPLE, serial};

/// Values that a column can have.
fn range(column: &str) -> (f64, f64) {
    match column {
        "bbr_mode" => (0.0, 3.0),
        "bbr_cycle_idx" => (0.0, 7.0),
        "bbr_lt_bw_used" | "bbr_full_bw_reached" | "dctcp_ce_state" | "dctcp_alpha" => (0.0, 1.0),
        // the wall clock may be set before 1970
        "cubic_epoch_start_ns" => (f64::NEG_INFINITY, f64::INFINITY),
        _ => (0.0, f64::INFINITY),
    }
}

/// Checks every row.
pub(super) fn check(run: &mut Run<'_>) -> Result<()> {
    let err = run.failed();
    let columns: Vec<String> = INTERNALS.iter().map(|v| format!("i.{}", v.name)).collect();
    let sql = format!(
        "SELECT {}, i.sample_id, i.flow_id, u.flow_id IS i.flow_id, {}
         FROM internal_rows i LEFT JOIN sample_rows r ON r.id = i.sample_id LEFT JOIN sample_runs u ON {RUN_OF_SAMPLE}
         ORDER BY i.sample_id",
        columns.join(", "),
        serial(ROWS),
    );
    let mut statement = run.db.prepare(&sql).map_err(&err)?;
    let mut rows = statement.query([]).map_err(&err)?;
    while let Some(row) = rows.next().map_err(&err)? {
        let integer = |column: usize| row.get_ref(INTERNALS.len() + column).map(|v| v.as_i64().ok());
        let (sample_id, flow_id) = (integer(0).map_err(&err)?, integer(1).map_err(&err)?);
        let at = Place { sample_id, flow_id, serial: integer(3).map_err(&err)?, ..Place::default() };
        if integer(2).map_err(&err)? != Some(1) {
            run.violated("internals", at.clone(), "the sample of its internal values is none of the flow".into())?;
        }
        let mut owner: Option<&str> = None;
        for (i, column) in INTERNALS.iter().enumerate() {
            let value = match row.get_ref(i).map_err(&err)? {
                ValueRef::Null => continue,
                ValueRef::Integer(n) => n as f64,
                ValueRef::Real(x) if column.real => x,
                _ => {
                    run.violated("values", at.clone(), format!("{} is no number of its kind", column.name))?;
                    continue;
                }
            };
            let (low, high) = range(column.name);
            if !(low..=high).contains(&value) {
                run.violated("internals_range", at.clone(), format!("{} is {value}", column.name))?;
            }
            if owner.is_some_and(|owner| owner != column.congestion) {
                let text = format!("{} beside values of another congestion control", column.name);
                run.violated("internals", at.clone(), text)?;
                break;
            }
            owner = Some(column.congestion);
        }
    }
    Ok(())
}
