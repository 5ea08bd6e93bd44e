//! The schema: tables, views, and how a sample's state is spread over three tables.
//!
//! A row of 40 integers costs 146 bytes; most of them repeat the row before. So the state is stored by how often it
//! moves ([`crate::fields::Moves`]): `sample_rows` has what moves with every segment, `ack_rows` what moves when an
//! ACK is processed, `seldom_rows` the rest, each row naming the next by its id. Sequence numbers are stored as
//! distances that are small, or 0, which SQLite stores in no bytes at all. The view `samples` puts them together.
//! The only module that knows the layout of the tables; SQL for state columns is made from the field list.

mod effects;
mod internals;

use std::fmt::Write as _;

use crate::fields::{DERIVED, FIELDS, KINDS, Moves, PHASES, STATE_COLUMNS};
use crate::join::{Match, Outcome, Reason};

/// `PRAGMA application_id` of a trace: "TPRB".
pub const APPLICATION_ID: i64 = 0x5450_5242;
/// `PRAGMA user_version` of a trace that this crate writes and reads.
pub const SCHEMA_VERSION: i64 = 3;

/// Fields that `sample_rows` does not store by themselves but as distances; of `bytes_received` what `rcv_nxt` does not
/// tell: how often it went round since the flow's sample before.
pub(crate) const AS_DISTANCE: [&str; 5] = ["snd_nxt", "snd_una", "write_seq", "rcv_nxt", "bytes_received"];

/// The fields of a table, in the order of their columns.
pub(crate) fn stored(moves: Moves) -> impl Iterator<Item = (usize, &'static str)> {
    FIELDS
        .iter()
        .enumerate()
        .filter(move |(_, f)| f.moves == moves && !AS_DISTANCE.contains(&f.name))
        .map(|(i, f)| (i, f.name))
}

/// The tables that a recording and a join fill. Nothing newer than SQLite 3.8 (STRICT, iif): the file is for any client.
const TABLES: &str = "
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY,
  started_ns INTEGER NOT NULL,      -- Unix epoch
  ended_ns INTEGER,
  complete INTEGER NOT NULL,        -- 1: ended in order; 0: still running, or broken off
  host TEXT NOT NULL,
  kernel TEXT NOT NULL,
  tool_version TEXT NOT NULL,
  command TEXT NOT NULL,
  backend TEXT NOT NULL,
  filter TEXT NOT NULL,
  sample_mode TEXT NOT NULL,        -- all; cwnd: only where cwnd, ssthresh or ca_state changed; received: no sent segments
  samples INTEGER NOT NULL,
  lost INTEGER NOT NULL,            -- samples lost, all causes of samples
  capture_path TEXT,
  capture_packets INTEGER,
  capture_dropped INTEGER,          -- by the kernel or the interface
  mono_base_ns INTEGER NOT NULL,    -- what sample_rows.mono_off counts from
  real_base_ns INTEGER NOT NULL     -- what clock_off is added to
);
CREATE TABLE flows (
  id INTEGER PRIMARY KEY,
  session_id INTEGER NOT NULL REFERENCES sessions(id),
  local_addr TEXT NOT NULL,
  local_port INTEGER NOT NULL,
  remote_addr TEXT NOT NULL,
  remote_port INTEGER NOT NULL,
  family TEXT NOT NULL,             -- inet, inet6: of the socket; an inet6 socket may speak IPv4
  netns INTEGER NOT NULL,           -- inode number, as ls -L /run/netns and lsns show it
  cookie INTEGER,
  congestion TEXT,
  snd_wscale INTEGER,
  rcv_wscale INTEGER,
  first_ns INTEGER NOT NULL,        -- Unix epoch, of the first and the last sample
  last_ns INTEGER NOT NULL,
  closed INTEGER NOT NULL           -- 1: its end was seen
);
CREATE INDEX flows_by_address ON flows (local_addr, local_port, remote_addr, remote_port);
CREATE TABLE losses (
  session_id INTEGER NOT NULL REFERENCES sessions(id),
  flow_id INTEGER REFERENCES flows(id),  -- NULL: not known of which
  after_serial INTEGER,             -- the last sample before the hole
  count INTEGER NOT NULL,
  cause TEXT NOT NULL
);
CREATE TABLE clocks (
  session_id INTEGER NOT NULL REFERENCES sessions(id),
  mono_before_ns INTEGER NOT NULL,
  real_ns INTEGER NOT NULL,
  mono_after_ns INTEGER NOT NULL
);
CREATE TABLE probe_costs (
  session_id INTEGER NOT NULL REFERENCES sessions(id),
  program TEXT NOT NULL,            -- how and where it was attached
  runs INTEGER NOT NULL,
  total_ns INTEGER NOT NULL
);
CREATE TABLE captures (
  id INTEGER PRIMARY KEY,
  session_id INTEGER REFERENCES sessions(id),  -- of most of its packets; NULL: of no recorded flow
  path TEXT NOT NULL UNIQUE,
  link_type INTEGER NOT NULL,
  snaplen INTEGER NOT NULL,
  packets INTEGER NOT NULL,         -- frames in the file
  tcp_packets INTEGER NOT NULL,
  joined INTEGER NOT NULL,          -- TCP packets with a state: exact, within or carried
  clock_offset_ns INTEGER,          -- capture's clock minus recording's, at the capture's first packet
  truncated INTEGER NOT NULL,       -- 1: the file ends within a record
  clock_offset_error_ns INTEGER,    -- the true one is no farther off; NULL: delays in one direction only, no bound
  clock_drift_ppb INTEGER,          -- ns that the capture's clock gains in a second
  clock_drift_error_ppb INTEGER,
  clock_steps INTEGER               -- how often one of the two was set meanwhile
);
CREATE TABLE unjoined (
  capture_id INTEGER NOT NULL REFERENCES captures(id),
  reason TEXT NOT NULL,             -- why frames of the file have no row in packets
  count INTEGER NOT NULL
);
CREATE TABLE packet_rows (
  id INTEGER PRIMARY KEY,
  capture_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  ts_ns INTEGER,
  flow_id INTEGER NOT NULL,
  is_out INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  ack INTEGER NOT NULL,
  len INTEGER NOT NULL,
  flags INTEGER NOT NULL,
  window INTEGER NOT NULL,
  sample_id INTEGER,
  match_code INTEGER NOT NULL,
  reason_code INTEGER,
  delay_ns INTEGER,
  carried_nxt INTEGER,              -- snd_nxt and snd_una advanced by the packets since the sample
  carried_una INTEGER,
  copy INTEGER,                     -- 0: the first sighting of this packet, 1 the second, …
  interface INTEGER,                -- where the capture names it
  tunnel TEXT,                      -- what the packet was wrapped in
  sacked_bytes INTEGER,             -- of snd_una to snd_nxt, selectively acknowledged by the packets before this one
  delay_variation_ns INTEGER        -- delay, less the clocks' difference and the flow's smallest one
);
CREATE INDEX packet_rows_by_capture ON packet_rows (capture_id, number);
CREATE INDEX packet_rows_by_flow ON packet_rows (flow_id, number);
";

/// What version 2 added, also to a trace of version 1.
const SINCE_VERSION_2: &str = "
CREATE TABLE translations (
  capture_id INTEGER NOT NULL REFERENCES captures(id),
  flow_id INTEGER NOT NULL REFERENCES flows(id),
  local_addr TEXT NOT NULL,         -- the flow's addresses as this capture has them
  local_port INTEGER NOT NULL,
  remote_addr TEXT NOT NULL,
  remote_port INTEGER NOT NULL,
  seq_shift INTEGER NOT NULL,       -- the capture's numbers minus the socket's, modulo 2^32: what it sends
  peer_seq_shift INTEGER NOT NULL,  -- what it receives
  packets INTEGER NOT NULL
);
CREATE TABLE sample_counts (
  capture_id INTEGER NOT NULL REFERENCES captures(id),
  flow_id INTEGER NOT NULL REFERENCES flows(id),
  outcome TEXT NOT NULL,            -- joined, or why a sample of a segment has no packet
  samples INTEGER NOT NULL
);
CREATE TABLE packetless_rows (
  capture_id INTEGER NOT NULL,
  sample_id INTEGER NOT NULL,
  outcome_code INTEGER NOT NULL,
  PRIMARY KEY (capture_id, sample_id)
) WITHOUT ROWID;
";

/// Everything that makes an empty database a trace, but for the two pragmas.
pub(crate) fn create() -> String {
    let mut sql = String::from(TABLES);
    for (table, moves, next) in [("seldom_rows", Moves::Seldom, None), ("ack_rows", Moves::Ack, Some("seldom_id"))] {
        let _ = write!(sql, "CREATE TABLE {table} (id INTEGER PRIMARY KEY");
        if let Some(next) = next {
            let _ = write!(sql, ", {next} INTEGER NOT NULL");
        }
        for (_, name) in stored(moves) {
            let _ = write!(sql, ", {name} INTEGER");
        }
        sql.push_str(");\n");
    }
    sql.push_str(
        "CREATE TABLE sample_rows (
  id INTEGER PRIMARY KEY,
  flow_id INTEGER NOT NULL,
  serial INTEGER NOT NULL,
  mono_off INTEGER NOT NULL,        -- ns since sessions.mono_base_ns
  clock_off INTEGER NOT NULL,       -- how far the wall clock has moved against the monotonic one, ns
  what INTEGER NOT NULL,            -- 4 * kind + phase
  seq INTEGER, len INTEGER, ack INTEGER, flags INTEGER, tsval INTEGER,
  error INTEGER,                    -- errno of a transmission that failed locally
  ack_id INTEGER NOT NULL,
  nxt_off INTEGER,                  -- snd_nxt minus the segment's number in the sender's own sequence space
  in_flight INTEGER,                -- snd_nxt - snd_una
  notsent INTEGER,                  -- write_seq - snd_nxt
  -- rcv_nxt minus the segment's number in the peer's sequence space
  rcv_off INTEGER",
    );
    for (_, name) in stored(Moves::Segment) {
        let _ = write!(sql, ",\n  {name} INTEGER");
    }
    sql.push_str(
        ",\n  ip_id INTEGER,\n  rcv_laps INTEGER\n);\nCREATE INDEX sample_rows_by_flow ON sample_rows (flow_id);\n",
    );
    sql.push_str(SINCE_VERSION_2);
    sql.push_str(&views());
    sql.push_str(&since_version_3());
    sql
}

fn from_version_1() -> String {
    let mut sql = String::from(
        "DROP VIEW samples; DROP VIEW packets; DROP VIEW packet_state;
ALTER TABLE captures ADD COLUMN clock_offset_error_ns INTEGER;
ALTER TABLE captures ADD COLUMN clock_drift_ppb INTEGER;
ALTER TABLE captures ADD COLUMN clock_drift_error_ppb INTEGER;
ALTER TABLE captures ADD COLUMN clock_steps INTEGER;
ALTER TABLE sample_rows ADD COLUMN ip_id INTEGER;
ALTER TABLE sample_rows ADD COLUMN rcv_laps INTEGER;
ALTER TABLE packet_rows ADD COLUMN copy INTEGER;
ALTER TABLE packet_rows ADD COLUMN interface INTEGER;
ALTER TABLE packet_rows ADD COLUMN tunnel TEXT;
ALTER TABLE packet_rows ADD COLUMN sacked_bytes INTEGER;
ALTER TABLE packet_rows ADD COLUMN delay_variation_ns INTEGER;
",
    );
    sql.push_str(SINCE_VERSION_2);
    sql.push_str(&views());
    sql.push_str(&since_version_3());
    sql
}

/// From an older version to the present one; what was recorded and joined stays.
pub(crate) fn migration(from: i64) -> String {
    match from {
        1 => from_version_1(),
        _ => since_version_3(),
    }
}

/// What version 3 added, also to a trace of version 2.
fn since_version_3() -> String {
    internals::table() + &internals::views() + &effects::view()
}

fn views() -> String {
    samples_view() + &packets_view() + &packet_state_view() + &packetless_view()
}

/// Samples of segments that a capture does not have, each with its reason.
fn packetless_view() -> String {
    format!(
        "CREATE VIEW samples_without_packet AS SELECT n.capture_id AS capture_id, r.flow_id AS flow_id,
  n.sample_id AS sample_id, {} AS reason FROM packetless_rows n JOIN sample_rows r ON r.id = n.sample_id;\n",
        name_of("n.outcome_code", Outcome::ALL.iter().map(|o| o.name())),
    )
}

/// `CASE` that turns a code into its name.
fn name_of<'a>(code: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut sql = format!("CASE {code}");
    for (i, name) in names.enumerate() {
        let _ = write!(sql, " WHEN {i} THEN '{name}'");
    }
    sql.push_str(" END");
    sql
}

/// What a statement calls the rows of a sample.
#[derive(Clone, Copy)]
struct Rows {
    /// Of `sample_rows`.
    sample: &'static str,
    /// Of `ack_rows`.
    ack: &'static str,
    /// Of `seldom_rows`.
    seldom: &'static str,
}

/// As the views of one sample call them.
const ROWS: Rows = Rows { sample: "r", ack: "a", seldom: "d" };

/// SQL of a state column over a sample's rows.
fn state_expression(column: &str, rows: Rows) -> String {
    let Rows { sample: r, ack: a, seldom: d } = rows;
    const MASK: &str = "4294967295";
    // in the sender's own sequence space: what it sent, or what was acknowledged to it; the peer's the other way round
    let sent = format!("{r}.what >= {send} AND {r}.what < {state}", send = 4, state = 12);
    let nxt = format!("(coalesce(CASE WHEN {sent} THEN {r}.seq ELSE {r}.ack END, 0) + {r}.nxt_off)");
    match column {
        "snd_nxt" => format!("{nxt} & {MASK}"),
        "snd_una" => format!("({nxt} - {r}.in_flight) & {MASK}"),
        "write_seq" => format!("({nxt} + {r}.notsent) & {MASK}"),
        "rcv_nxt" => format!("(coalesce(CASE WHEN {sent} THEN {r}.ack ELSE {r}.seq END, 0) + {r}.rcv_off) & {MASK}"),
        "bytes_in_flight" => format!("{r}.in_flight"),
        "notsent_bytes" => format!("{r}.notsent"),
        "delivery_rate" => {
            format!(
                "CASE WHEN {a}.rate_interval_us > 0 THEN {a}.rate_delivered * {d}.mss * 1000000 / {a}.rate_interval_us END"
            )
        }
        stored => {
            let table = match FIELDS.iter().find(|f| f.name == stored).map(|f| f.moves) {
                Some(Moves::Segment) => r,
                Some(Moves::Ack) => a,
                _ => d,
            };
            format!("{table}.{stored}")
        }
    }
}

fn samples_view() -> String {
    let mut sql = format!(
        "CREATE VIEW samples AS SELECT r.id AS id, r.flow_id AS flow_id, r.serial AS serial,
  z.real_base_ns + r.mono_off + r.clock_off AS ts_ns, z.mono_base_ns + r.mono_off AS mono_ns,
  {kind} AS kind, {phase} AS phase,
  r.seq AS seq, r.len AS len, r.ack AS ack, r.flags AS flags, r.tsval AS tsval, r.ip_id AS ip_id,
  r.error AS error",
        kind = name_of("r.what / 4", KINDS.iter().map(|k| k.0)),
        phase = name_of("r.what % 4", PHASES.iter().map(|p| p.0)),
    );
    for column in STATE_COLUMNS {
        let _ = write!(sql, ",\n  {} AS {column}", state_expression(column, ROWS));
    }
    sql.push_str(
        "\nFROM sample_rows r JOIN flows f ON f.id = r.flow_id JOIN sessions z ON z.id = f.session_id
  JOIN ack_rows a ON a.id = r.ack_id JOIN seldom_rows d ON d.id = a.seldom_id;\n",
    );
    sql
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
  CASE WHEN p.is_out AND p.match_code < 2 THEN r.what / 4 = 2 END AS retransmission,
  z.real_base_ns + r.mono_off + r.clock_off AS sample_ts_ns, {} AS sample_kind, {} AS sample_phase",
        match_columns(),
        name_of("r.what / 4", KINDS.iter().map(|k| k.0)),
        name_of("r.what % 4", PHASES.iter().map(|p| p.0)),
    );
    for column in STATE_COLUMNS {
        let sampled = state_expression(column, ROWS);
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
    let (nxt, una) = (state_expression("snd_nxt", ROWS), state_expression("snd_una", ROWS));
    let _ = write!(
        sql,
        ",\n  CASE WHEN p.is_out AND p.match_code < 2 THEN max((({nxt}) - ({una})) & 4294967295,
    ((p.seq + p.len + (p.flags >> 1 & 1) + (p.flags & 1) - ({una}) + 2147483648) & 4294967295) - 2147483648) END AS bytes_in_flight_with_packet
FROM packet_rows p LEFT JOIN sample_rows r ON r.id = p.sample_id LEFT JOIN flows f ON f.id = r.flow_id
  LEFT JOIN sessions z ON z.id = f.session_id
  LEFT JOIN ack_rows a ON a.id = r.ack_id LEFT JOIN seldom_rows d ON d.id = a.seldom_id;\n"
    );
    sql
}

/// Every public state column with its unit and meaning, in the order of the views.
pub fn column_docs() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    STATE_COLUMNS.iter().filter_map(|column| {
        let field = FIELDS.iter().find(|f| f.name == *column && f.public).map(|f| (f.name, f.unit, f.doc));
        field.or_else(|| DERIVED.iter().find(|d| d.name == *column).map(|d| (d.name, d.unit, d.doc)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_public_field_is_a_column_and_every_column_has_a_field() {
        assert_eq!(column_docs().count(), STATE_COLUMNS.len(), "a column without a field");
        for name in FIELDS.iter().filter(|f| f.public).map(|f| f.name).chain(DERIVED.iter().map(|d| d.name)) {
            assert!(STATE_COLUMNS.contains(&name), "{name} is not shown");
        }
    }

    #[test]
    fn the_contract_s_state_columns_are_there() {
        let contract = "snd_nxt, snd_una, write_seq, snd_cwnd, snd_ssthresh, snd_wnd, rcv_nxt, rcv_wnd, srtt_us, mdev_us, \
            rttvar_us, min_rtt_us, rto_us, mss, packets_out, retrans_out, lost_out, sacked_out, bytes_in_flight, ca_state, \
            retransmits, reordering, delivered, lost, bytes_sent, bytes_acked, bytes_retrans, segs_out, delivery_rate, \
            rate_app_limited, pacing_rate, cwnd_limited, notsent_bytes, sk_mark";
        for column in contract.split(", ") {
            assert!(STATE_COLUMNS.contains(&column), "{column}");
        }
    }
}
