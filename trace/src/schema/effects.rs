//! The view `ack_effects`: what TCP did on a received segment, from the samples before and after its processing.
//!
//! Correlated subqueries, not window functions, which SQLite has since 3.25 only: the file is for any client.

use std::fmt::Write as _;

use super::samples::{ROWS, Rows, named_rows, segment, serial, state, time_ns, with_session};

const AFTER: Rows = Rows { run: "xu", sample: "x", ack: "xa", seldom: "xd" };

/// Columns that show both values: whether the segment raised or lowered them is seen by comparing.
const BOTH: [&str; 8] =
    ["packets_out", "retrans_out", "lost_out", "sacked_out", "bytes_in_flight", "snd_cwnd", "snd_ssthresh", "ca_state"];

pub(super) fn view() -> String {
    let difference = |column| format!("(({}) - ({}))", state(column, AFTER), state(column, ROWS));
    // `what` without the flags is three times the kind plus the phase: 0 and 1 are ack before and after, 5 and 8 what
    // was sent
    let sent = |what| {
        format!(
            "CASE WHEN x.id = r.id + 1 THEN 0 ELSE
    (SELECT count(*) FROM sample_runs v CROSS JOIN sample_rows n
     WHERE v.flow_id = u.flow_id AND v.first_id >= u.first_id AND v.first_id <= xu.first_id
       AND n.id >= max(v.first_id, r.id + 1) AND n.id <= min(v.last_id, x.id - 1) AND n.what % 12 IN ({what})
       AND NOT EXISTS (SELECT 1 FROM rare_rows o WHERE o.sample_id = n.id AND o.error IS NOT NULL)) END"
        )
    };
    let mut sql = format!(
        "CREATE VIEW ack_effects AS SELECT u.flow_id AS flow_id, r.id AS before_id, x.id AS after_id,
  {} AS ts_ns, xu.mono_off + x.mono_off - (u.mono_off + r.mono_off) AS duration_ns",
        time_ns(ROWS),
    );
    for column in ["seq", "len", "ack", "flags"] {
        let _ = write!(sql, ",\n  {} AS {column}", segment(column, ROWS));
    }
    let _ = write!(
        sql,
        ",\n  {} & 4294967295 AS acked_bytes,
  (({} + 2147483648) & 4294967295) - 2147483648 AS delivered,
  {} & 4294967295 AS lost,
  {} AS segments_sent,
  {} AS retransmitted",
        difference("snd_una"),
        difference("delivered"),
        difference("lost"),
        sent("5, 8"),
        sent("8"),
    );
    for column in BOTH {
        let _ =
            write!(sql, ",\n  {} AS {column}_before, {} AS {column}_after", state(column, ROWS), state(column, AFTER));
    }
    // the flow's next sample of a received segment is this segment's only where no serial is missing in between
    let same = |column: &str| format!("{} = {}", segment(column, AFTER), segment(column, ROWS));
    let _ = writeln!(
        sql,
        "\nFROM {samples}
  JOIN sample_rows x ON x.id = {next}
  JOIN sample_runs xu ON xu.first_id = x.id - x.run_off
  {before}
  {after}
WHERE r.what % 12 = 0 AND x.what % 12 = 1 AND x.what / 12 = r.what / 12 AND {seq} AND x.len = r.len AND {ack}
  AND {whole};",
        samples = with_session(),
        next = next_of_flow("n.what % 12 < 3"),
        whole = is_without_hole(),
        before = named_rows(ROWS, "JOIN"),
        after = named_rows(AFTER, "JOIN"),
        seq = same("seq"),
        ack = same("ack"),
    );
    sql
}

/// The id of the flow's next sample (n) for which a condition holds, after one (r) with its run (u).
pub(super) fn next_of_flow(condition: &str) -> String {
    format!(
        "coalesce(
    (SELECT n.id FROM sample_rows n WHERE n.id > r.id AND n.id <= u.last_id AND {condition} ORDER BY n.id LIMIT 1),
    (SELECT n.id FROM sample_runs v CROSS JOIN sample_rows n WHERE v.flow_id = u.flow_id AND v.first_id > u.last_id
       AND n.id >= v.first_id AND n.id <= v.last_id AND {condition} ORDER BY v.first_id, n.id LIMIT 1))"
    )
}

/// Is no serial missing between a sample (r) with its run (u) and a later one of the flow (x, xu)? Within a run none is,
/// beyond it the runs in between account for all.
pub(super) fn is_without_hole() -> String {
    format!(
        "(x.id <= u.last_id OR {after_serial} - ({before_serial}) = u.last_id - r.id + x.id - xu.first_id + 1
    + (SELECT coalesce(sum(v.last_id - v.first_id + 1), 0) FROM sample_runs v
       WHERE v.flow_id = u.flow_id AND v.first_id > u.first_id AND v.first_id < xu.first_id))",
        after_serial = serial(AFTER),
        before_serial = serial(ROWS),
    )
}
