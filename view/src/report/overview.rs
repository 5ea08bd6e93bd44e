//! Tables of a page, each a query over the trace's views.

use serde::Serialize;
use serde_json::Value as Json;
use tcpprobe_trace::query::{Query, Value};

use crate::Error;
use crate::flows::plain;

/// Rows of a table; more are counted.
const MOST_ROWS: usize = 500;
/// Rows of the table of flows.
const MOST_FLOWS: usize = 2_000;

/// A table; units are the ends of its columns' names.
#[derive(Serialize)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Json>>,
}

/// Reads a table; rows beyond [`MOST_ROWS`] are counted in `left_out`.
pub(super) fn table(query: &Query, title: &str, sql: &str, left_out: &mut Vec<String>) -> Result<Table, Error> {
    bounded(query, title, sql, MOST_ROWS, left_out)
}

fn bounded(query: &Query, title: &str, sql: &str, most: usize, left_out: &mut Vec<String>) -> Result<Table, Error> {
    let mut rows = Vec::new();
    let all = query.rows(sql, |row| {
        if rows.len() < most {
            rows.push(row.iter().map(json).collect());
        }
        Ok(())
    })?;
    let others = all - rows.len() as u64;
    if others > 0 {
        left_out.push(format!("{others} of {all} rows of the table \"{title}\""));
    }
    Ok(Table { title: title.to_owned(), columns: query.columns(sql)?, rows })
}

fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(n) => Json::from(*n),
        Value::Real(x) => Json::from(*x),
        Value::Text(t) => Json::from(plain(t)),
        Value::Blob(b) => Json::from(format!("{} bytes", b.len())),
    }
}

/// Those that sent most come first, and are those with graphs.
const FLOWS: &str = "WITH quality AS (
  SELECT flow_id, sum(packets) AS packets, sum(iif(match IN ('exact', 'within'), packets, 0)) AS own,
    sum(iif(match = 'carried', packets, 0)) AS carried, sum(iif(match = 'none', packets, 0)) AS none
  FROM match_quality GROUP BY flow_id)
SELECT f.flow_id AS flow, session_id AS session, local_addr || ' ' || local_port AS local,
  remote_addr || ' ' || remote_port AS remote, congestion, duration_ns, bytes_acked, bytes_retrans, retransmissions,
  min_rtt_us, CAST(mean_srtt_us AS INTEGER) AS mean_srtt_us, max_snd_cwnd, samples, packets,
  own AS exact_or_within, carried, none
FROM flow_summary f LEFT JOIN quality q ON q.flow_id = f.flow_id ORDER BY bytes_acked DESC, samples DESC, f.flow_id";

pub(super) fn flows(query: &Query, left_out: &mut Vec<String>) -> Result<Table, Error> {
    bounded(query, "Flows", FLOWS, MOST_FLOWS, left_out)
}

const TABLES: [(&str, &str); 4] = [
    (
        "Sessions",
        "SELECT id AS session, CASE WHEN EXISTS (SELECT 1 FROM clocks c WHERE c.session_id = s.id)
    THEN strftime('%Y-%m-%d %H:%M:%S', started_ns / 1000000000, 'unixepoch') || ' UTC' ELSE 'not known' END AS started,
  ended_ns - started_ns AS length_ns, iif(complete, 'yes', 'no') AS complete, host, kernel, tool_version, command,
  backend, filter, sample_mode, samples, lost, capture_path, capture_packets, capture_dropped
FROM sessions s ORDER BY id",
    ),
    (
        "Captures joined",
        "SELECT id AS capture, session_id AS session, path, packets, tcp_packets, joined, clock_offset_ns,
  clock_offset_error_ns, clock_drift_ppb, iif(truncated, 'yes', 'no') AS truncated FROM captures ORDER BY id",
    ),
    (
        "Packets by match",
        "SELECT capture_id AS capture, dir, match, coalesce(reason, '') AS reason, sum(packets) AS packets
FROM match_quality GROUP BY capture_id, dir, match, reason ORDER BY capture_id, dir, sum(packets) DESC",
    ),
    (
        "Samples lost",
        "SELECT session_id AS session, cause, sum(count) AS lost, count(*) AS holes FROM losses
GROUP BY session_id, cause ORDER BY session_id, cause",
    ),
];

pub(super) fn tables(query: &Query, left_out: &mut Vec<String>) -> Result<Vec<Table>, Error> {
    TABLES.iter().map(|(title, sql)| table(query, title, sql, left_out)).collect()
}
