//! The table and the views of what congestion controls keep for themselves; made from the list of these values.

use std::fmt::Write as _;

use super::name_of;
use super::samples::{ROWS, RUN_OF_SAMPLE, serial, time_ns};
use crate::internals::INTERNALS;

/// `bbr.mode`, by code (`enum bbr_mode` of `net/ipv4/tcp_bbr.c`).
const BBR_MODES: [&str; 4] = ["STARTUP", "DRAIN", "PROBE_BW", "PROBE_RTT"];

/// A row where a value differs from the flow's row before. Found by flow and sample: the index holds its row's key.
pub(super) fn table() -> String {
    let mut sql = String::from(
        "CREATE TABLE internal_rows (
  sample_id INTEGER PRIMARY KEY,
  flow_id INTEGER NOT NULL REFERENCES flows(id)",
    );
    for value in INTERNALS {
        let _ = write!(sql, ",\n  {} {}", value.name, if value.real { "REAL" } else { "INTEGER" });
    }
    sql.push_str("\n);\nCREATE INDEX internal_rows_by_flow ON internal_rows (flow_id);\n");
    sql
}

/// The congestion control of a row of i (`internal_rows`): whose values it has. A flow may change it.
fn congestion() -> String {
    let mut sql = String::from("CASE");
    let mut values = INTERNALS;
    while let Some(first) = values.first() {
        let (own, others) = values.split_at(values.iter().take_while(|v| v.congestion == first.congestion).count());
        let columns: Vec<String> = own.iter().map(|v| format!("i.{}", v.name)).collect();
        let _ = write!(sql, "\n    WHEN coalesce({}) IS NOT NULL THEN '{}'", columns.join(", "), first.congestion);
        values = others;
    }
    sql.push_str(" END AS congestion");
    sql
}

/// The values of a row of i as the views show them.
fn columns() -> String {
    let mut sql = congestion();
    for value in INTERNALS {
        let name = value.name;
        let _ = match name {
            "bbr_mode" => write!(sql, ",\n  {} AS {name}", name_of("i.bbr_mode", BBR_MODES.into_iter())),
            _ => write!(sql, ",\n  i.{name} AS {name}"),
        };
    }
    sql
}

pub(super) fn views() -> String {
    let columns = columns();
    format!(
        "CREATE VIEW congestion_internals AS SELECT i.flow_id AS flow_id, i.sample_id AS sample_id,
  {serial} AS serial, {ts_ns} AS ts_ns,
  {columns}
FROM internal_rows i JOIN sample_rows r ON r.id = i.sample_id JOIN sample_runs u ON {RUN_OF_SAMPLE}
  JOIN flows f ON f.id = u.flow_id JOIN sessions z ON z.id = f.session_id;
CREATE VIEW packet_internals AS SELECT p.id AS packet_id, i.sample_id AS sample_id,
  {columns}
FROM packet_rows p JOIN internal_rows i ON i.sample_id = (
  SELECT l.sample_id FROM internal_rows l WHERE l.flow_id = p.flow_id AND l.sample_id <= p.sample_id
  ORDER BY l.sample_id DESC LIMIT 1);
",
        serial = serial(ROWS),
        ts_ns = time_ns(ROWS),
    )
}
