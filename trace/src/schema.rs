//! The schema: tables and views, and how a sample's state is spread over them.
//!
//! The only module, with those below it, that knows the layout of the tables; SQL for state columns is made from the
//! field list.

pub(crate) mod backlog;
mod effects;
mod internals;
pub(crate) mod older;
mod packets;
mod ready;
mod samples;
mod waiting;

use std::fmt::Write as _;

use crate::fields::{DERIVED, FIELDS, Moves, STATE_COLUMNS};

pub use ready::{READY, Ready};
pub use waiting::WAITS;

pub(crate) use samples::{ROWS, RUN_OF_SAMPLE, RUN_OFF, serial};

/// `PRAGMA application_id` of a trace: "TPRB".
pub const APPLICATION_ID: i64 = 0x5450_5242;
/// `PRAGMA user_version` of a trace that this crate writes and reads.
pub const SCHEMA_VERSION: i64 = 6;

/// Fields that are not stored by themselves but as distances from what they follow from ([`crate::layout`]); of
/// `bytes_received` what `rcv_nxt` does not tell: how often it went round since the flow's sample before.
pub(crate) const AS_DISTANCE: [&str; 10] = [
    "snd_nxt",
    "snd_una",
    "write_seq",
    "rcv_nxt",
    "bytes_received",
    "bytes_sent",
    "segs_out",
    "bytes_acked",
    "delivered",
    "rto_us",
];

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
";

/// What finds the packets of a flow, and a packet by its number, of a capture or of any: names, and the statements that make
/// them. A long join makes them when all rows are there; entries that differ in the first column are sorted soonest.
pub(crate) const PACKET_INDEXES: [(&str, &str); 2] = [
    ("packet_rows_by_flow", "CREATE INDEX packet_rows_by_flow ON packet_rows (flow_id, number);\n"),
    ("packet_rows_by_number", BY_NUMBER),
];
const BY_NUMBER: &str = "CREATE INDEX packet_rows_by_number ON packet_rows (number, capture_id);\n";

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
    format!(
        "{TABLES}{}{SINCE_VERSION_2}{}{}{}",
        PACKET_INDEXES.map(|(_, statement)| statement).concat(),
        internals::table(),
        samples::tables(),
        views()
    )
}

/// Every view.
pub(crate) fn views() -> String {
    samples::view() + &packets::views() + &internals::views() + &effects::view() + &ready::views()
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
