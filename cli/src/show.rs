//! `tcpprobe show`: what a trace holds, for a first look.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use tcpprobe_trace::query::{Query, Value};

use crate::Outcome;
use crate::args::ShowArgs;
use crate::output::standard;
use crate::record::recover::before_reading;
use crate::sql::{add_row, new_table, print_table};

/// Flows beyond these are counted, not listed.
const MAX_FLOWS: usize = 50;

const SESSIONS: &str = "SELECT id, CASE WHEN EXISTS (SELECT 1 FROM clocks c WHERE c.session_id = s.id)
    THEN strftime('%Y-%m-%d %H:%M:%S', started_ns / 1000000000, 'unixepoch') || ' UTC' ELSE 'not known' END AS started,
  printf('%.1f s', (coalesce(ended_ns, (SELECT max(last_ns) FROM flows f WHERE f.session_id = s.id), started_ns) - started_ns) / 1e9) AS length,
  iif(complete, 'yes', 'no') AS complete, host, kernel, backend, filter, samples, lost,
  capture_packets, capture_dropped FROM sessions s ORDER BY id";
const FLOWS: &str = "SELECT f.id, f.session_id AS session, local_addr || ' ' || local_port AS local,
  remote_addr || ' ' || remote_port AS remote, congestion,
  printf('%.3f s', (last_ns - first_ns) / 1e9) AS length, iif(closed, 'yes', 'no') AS closed,
  (SELECT coalesce(sum(last_id - first_id + 1), 0) FROM sample_runs u WHERE u.flow_id = f.id) AS samples,
  (SELECT bytes_acked FROM samples s WHERE s.id = (SELECT max(last_id) FROM sample_runs u WHERE u.flow_id = f.id)) AS bytes_acked,
  (SELECT bytes_retrans FROM samples s WHERE s.id = (SELECT max(last_id) FROM sample_runs u WHERE u.flow_id = f.id)) AS bytes_retrans
  FROM flows f ORDER BY f.id LIMIT 50";
const INTERNALS: &str =
    "SELECT f.session_id AS session, count(*) AS rows, group_concat(DISTINCT c.congestion) AS congestion
  FROM congestion_internals c JOIN flows f ON f.id = c.flow_id GROUP BY 1 ORDER BY 1";
const LOSSES: &str = "SELECT session_id AS session, cause, sum(count) AS lost, count(*) AS holes FROM losses
  GROUP BY session_id, cause ORDER BY session_id, cause";
const CAPTURES: &str = "SELECT id, session_id AS session, path, packets, tcp_packets, joined,
  clock_offset_ns, clock_offset_error_ns AS error_ns, clock_drift_ppb AS drift_ppb, iif(truncated, 'yes', 'no') AS truncated FROM captures ORDER BY id";
const MATCHES: &str = "SELECT capture_id AS capture, match, coalesce(reason, '') AS reason, count(*) AS packets
  FROM packets GROUP BY capture_id, match, reason ORDER BY capture_id, min(iif(match = 'none', 9, length(match))), match, reason";
const FLOW_MATCHES: &str = "WITH counted AS (
    SELECT capture_id, flow_id, match, reason, count(*) AS n FROM packets GROUP BY 1, 2, 3, 4)
  SELECT capture_id AS capture, flow_id AS flow, sum(n) AS packets,
  sum(iif(match = 'exact', n, 0)) AS exact, sum(iif(match = 'within', n, 0)) AS within,
  sum(iif(match = 'carried', n, 0)) AS carried, sum(iif(match = 'none', n, 0)) AS none,
  coalesce(group_concat(n || ' ' || reason, ', '), '') AS reasons
  FROM counted GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 50";
const SAMPLES: &str = "SELECT capture_id AS capture, flow_id AS flow, sum(samples) AS samples,
  sum(iif(outcome = 'joined', samples, 0)) AS joined,
  coalesce(group_concat(iif(outcome = 'joined', NULL, samples || ' ' || outcome), ', '), '') AS others
  FROM sample_counts GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 50";
const TRANSLATIONS: &str = "SELECT capture_id AS capture, flow_id AS flow, local_addr || ' ' || local_port AS local,
  remote_addr || ' ' || remote_port AS remote, seq_shift, peer_seq_shift, packets
  FROM translations ORDER BY capture_id, flow_id LIMIT 50";
const UNJOINED: &str =
    "SELECT capture_id AS capture, reason, count AS packets FROM unjoined ORDER BY capture_id, reason";

pub(crate) fn run(args: &ShowArgs) -> Outcome {
    let waiting_bytes = before_reading(&args.trace);
    let query = Query::open(&args.trace)?;
    let mut out = BufWriter::new(standard());
    let size_bytes = std::fs::metadata(&args.trace).map(|m| m.len()).unwrap_or(0);
    writeln!(out, "{}  {:.1} MB", Path::new(&args.trace).display(), size_bytes as f64 / 1e6)?;
    if waiting_bytes > 0 {
        writeln!(out, "recording: {:.1} MB of records wait to be written", waiting_bytes as f64 / 1e6)?;
    }
    section(&query, &mut out, "Sessions", SESSIONS)?;
    let flows = section(&query, &mut out, "Flows", FLOWS)?;
    if flows == MAX_FLOWS {
        let all = query.all("SELECT count(*) FROM flows")?;
        if let Some([Value::Integer(n)]) = all.first().map(Vec::as_slice) {
            writeln!(out, "the first {MAX_FLOWS} of {n}; all: tcpprobe sql … \"SELECT * FROM flows\"")?;
        }
    }
    section(&query, &mut out, "Inside the congestion controls", INTERNALS)?;
    section(&query, &mut out, "Samples lost", LOSSES)?;
    section(&query, &mut out, "Captures joined", CAPTURES)?;
    section(&query, &mut out, "Packets by match", MATCHES)?;
    for (title, sql, all) in [
        (
            "Packets by flow",
            FLOW_MATCHES,
            "SELECT capture_id, flow_id, match, reason, count(*) FROM packets GROUP BY 1, 2, 3, 4",
        ),
        ("Samples by flow", SAMPLES, "SELECT * FROM sample_counts"),
        ("Flows under other addresses or numbers", TRANSLATIONS, "SELECT * FROM translations"),
    ] {
        if section(&query, &mut out, title, sql)? == MAX_FLOWS {
            writeln!(out, "the first {MAX_FLOWS} rows; all: tcpprobe sql … \"{all}\"")?;
        }
    }
    section(&query, &mut out, "Frames not joined", UNJOINED)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a query's result under a title, nothing where it is empty; returns the number of rows.
fn section(query: &Query, out: &mut dyn Write, title: &str, sql: &str) -> anyhow::Result<usize> {
    let mut table = new_table(&query.columns(sql)?);
    query.rows(sql, |row| {
        add_row(&mut table, row);
        Ok(())
    })?;
    if !table.is_empty() {
        writeln!(out, "\n{title}")?;
        print_table(&table, " ", out)?;
    }
    Ok(table.row_count())
}
