//! The views of packets, alone and with the state of their samples.

use std::fmt::Write as _;

use super::name_of;
use super::samples::{ROWS, RUN_OF_SAMPLE, kind, kind_code, named_rows, phase, state, time_ns};
use crate::fields::STATE_COLUMNS;
use crate::join::{Match, Outcome, Reason};

pub(super) fn views() -> String {
    packets_view() + &packet_state_view() + &packetless_view()
}

const PACKET_COLUMNS: &str = "p.id AS id, p.capture_id AS capture_id, p.number AS number, p.ts_ns AS ts_ns,
  p.flow_id AS flow_id, CASE WHEN p.is_out THEN 'out' ELSE 'in' END AS dir, p.seq AS seq, p.ack AS ack, p.len AS len,
  p.flags AS flags, p.window AS window, p.sample_id AS sample_id, coalesce(p.copy, 0) AS copy, p.interface AS interface,
  p.tunnel AS tunnel";

fn match_columns() -> String {
    format!(
        "{} AS match, {} AS reason, p.delay_ns AS delay_ns, p.delay_variation_ns AS delay_variation_ns,
  p.sacked_bytes AS sacked_bytes",
        name_of("p.match_code", Match::ALL.iter().map(|m| m.name())),
        name_of("p.reason_code", Reason::ALL.iter().map(|r| r.name())),
    )
}

fn packets_view() -> String {
    format!("CREATE VIEW packets AS SELECT {PACKET_COLUMNS},\n  {}\nFROM packet_rows p;\n", match_columns())
}

fn packet_state_view() -> String {
    let mut sql = format!(
        "CREATE VIEW packet_state AS SELECT {PACKET_COLUMNS},\n  {},
  CASE WHEN p.is_out AND p.match_code < 2 THEN {} = 2 END AS retransmission,
  {} AS sample_ts_ns, {} AS sample_kind, {} AS sample_phase",
        match_columns(),
        kind_code(ROWS),
        time_ns(ROWS),
        kind(ROWS),
        phase(ROWS),
    );
    for column in STATE_COLUMNS {
        let sampled = state(column, ROWS);
        let expression = match *column {
            "snd_nxt" => format!("coalesce(p.carried_nxt, {sampled})"),
            "snd_una" => format!("coalesce(p.carried_una, {sampled})"),
            "bytes_in_flight" => format!("coalesce((p.carried_nxt - p.carried_una) & 4294967295, {sampled})"),
            _ => sampled,
        };
        let _ = write!(sql, ",\n  {expression} AS {column}");
    }
    // a transmit sample is without its own segment; this is with it. What begins before snd_una (keepalives, window
    // probes) adds nothing: a signed difference
    let (nxt, una) = (state("snd_nxt", ROWS), state("snd_una", ROWS));
    let _ = write!(
        sql,
        ",\n  CASE WHEN p.is_out AND p.match_code < 2 THEN max((({nxt}) - ({una})) & 4294967295,
    ((p.seq + p.len + (p.flags >> 1 & 1) + (p.flags & 1) - ({una}) + 2147483648) & 4294967295) - 2147483648) END AS bytes_in_flight_with_packet
FROM packet_rows p LEFT JOIN sample_rows r ON r.id = p.sample_id LEFT JOIN sample_runs u ON {RUN_OF_SAMPLE}
  LEFT JOIN flows f ON f.id = u.flow_id LEFT JOIN sessions z ON z.id = f.session_id
  {};\n",
        named_rows(ROWS, "LEFT JOIN"),
    );
    sql
}

/// Samples of segments that a capture does not have, each with its reason.
fn packetless_view() -> String {
    format!(
        "CREATE VIEW samples_without_packet AS SELECT n.capture_id AS capture_id, u.flow_id AS flow_id,
  n.sample_id AS sample_id, {} AS reason
FROM packetless_rows n JOIN sample_rows r ON r.id = n.sample_id JOIN sample_runs u ON {RUN_OF_SAMPLE};\n",
        name_of("n.outcome_code", Outcome::ALL.iter().map(|o| o.name())),
    )
}
