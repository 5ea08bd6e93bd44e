//! The view `ack_effects`: what TCP did on a received segment, from the samples before and after its processing.
//!
//! Correlated subqueries, not window functions, which SQLite has since 3.25 only: the file is for any client.

use std::fmt::Write as _;

use super::{Rows, state_expression};

const BEFORE: Rows = Rows { sample: "r", ack: "a", seldom: "d" };
const AFTER: Rows = Rows { sample: "x", ack: "xa", seldom: "xd" };

/// Columns that show both values: whether the segment raised or lowered them is seen by comparing.
const BOTH: [&str; 8] =
    ["packets_out", "retrans_out", "lost_out", "sacked_out", "bytes_in_flight", "snd_cwnd", "snd_ssthresh", "ca_state"];

pub(super) fn view() -> String {
    let difference = |column| {
        let (before, after) = (state_expression(column, BEFORE), state_expression(column, AFTER));
        format!("(({after}) - ({before}))")
    };
    // `what` is four times the kind plus the phase: 0 and 1 are ack before and after, 6 and 10 what was sent
    let between = "FROM sample_rows n WHERE n.flow_id = r.flow_id AND n.id > r.id AND n.id < x.id";
    let sent = |what| {
        format!(
            "CASE WHEN x.serial = r.serial + 1 THEN 0 ELSE
    (SELECT count(*) {between} AND n.what IN ({what}) AND n.error IS NULL) END"
        )
    };
    let mut sql = format!(
        "CREATE VIEW ack_effects AS SELECT r.flow_id AS flow_id, r.id AS before_id, x.id AS after_id,
  z.real_base_ns + r.mono_off + r.clock_off AS ts_ns, x.mono_off - r.mono_off AS duration_ns,
  r.seq AS seq, r.len AS len, r.ack AS ack, r.flags AS flags,
  {} & 4294967295 AS acked_bytes,
  (({} + 2147483648) & 4294967295) - 2147483648 AS delivered,
  {} & 4294967295 AS lost,
  {} AS segments_sent,
  {} AS retransmitted",
        difference("snd_una"),
        difference("delivered"),
        difference("lost"),
        sent("6, 10"),
        sent("10"),
    );
    for column in BOTH {
        let (before, after) = (state_expression(column, BEFORE), state_expression(column, AFTER));
        let _ = write!(sql, ",\n  {before} AS {column}_before, {after} AS {column}_after");
    }
    // the flow's next sample of a received segment is this segment's only where no serial is missing in between
    let _ = write!(
        sql,
        "\nFROM sample_rows r JOIN sample_rows x ON x.id = (
    SELECT n.id FROM sample_rows n WHERE n.flow_id = r.flow_id AND n.id > r.id AND n.what < 4 ORDER BY n.id LIMIT 1)
  JOIN flows f ON f.id = r.flow_id JOIN sessions z ON z.id = f.session_id
  JOIN ack_rows a ON a.id = r.ack_id JOIN seldom_rows d ON d.id = a.seldom_id
  JOIN ack_rows xa ON xa.id = x.ack_id JOIN seldom_rows xd ON xd.id = xa.seldom_id
WHERE r.what = 0 AND x.what = 1 AND x.seq = r.seq AND x.len = r.len AND x.ack = r.ack AND x.flags = r.flags
  AND (x.serial = r.serial + 1 OR x.serial - r.serial - 1 = (SELECT count(*) {between}));\n"
    );
    sql
}
