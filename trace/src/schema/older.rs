//! What older versions of the schema had, and the statements that bring a trace of one up to date.

use std::fmt::Write as _;

use super::{BY_NUMBER, READY, RUN_OFF, SINCE_VERSION_2, internals, samples, views};
use crate::fields::FIELDS;

/// What version 2 added to tables that version 1 has.
const TO_VERSION_2: &str = "
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
";

/// The views of all versions but for the ready queries. All views are made anew.
const WITHOUT_VIEWS: &str = "
DROP VIEW IF EXISTS samples;
DROP VIEW IF EXISTS packets;
DROP VIEW IF EXISTS packet_state;
DROP VIEW IF EXISTS samples_without_packet;
DROP VIEW IF EXISTS ack_effects;
DROP VIEW IF EXISTS congestion_internals;
DROP VIEW IF EXISTS packet_internals;
";

/// Up to version 3 samples of all flows stood in one order, each with its flow and serial. Their tables step aside.
const TO_VERSION_4: &str = "
ALTER TABLE sample_rows RENAME TO older_sample_rows;
ALTER TABLE ack_rows RENAME TO older_ack_rows;
ALTER TABLE seldom_rows RENAME TO older_seldom_rows;
CREATE TEMP TABLE sample_ids (older INTEGER PRIMARY KEY, id INTEGER NOT NULL);
";

/// The samples have new ids. What names one that is not there goes: no view shows it.
const NEW_IDS: &str = "
UPDATE packet_rows SET sample_id = (SELECT id FROM sample_ids WHERE older = sample_id) WHERE sample_id IS NOT NULL;
DELETE FROM internal_rows WHERE sample_id NOT IN (SELECT older FROM sample_ids);
DELETE FROM packetless_rows WHERE sample_id NOT IN (SELECT older FROM sample_ids);
-- negative meanwhile: a new id may still be another one's older
UPDATE internal_rows SET sample_id = -(SELECT id FROM sample_ids WHERE older = sample_id);
UPDATE internal_rows SET sample_id = -sample_id;
UPDATE packetless_rows SET sample_id = -(SELECT id FROM sample_ids WHERE older = sample_id);
UPDATE packetless_rows SET sample_id = -sample_id;
DROP TABLE sample_ids;
DROP TABLE older_sample_rows;
DROP TABLE older_ack_rows;
DROP TABLE older_seldom_rows;
";

/// Up to version 5 an index of packets by capture and number, which another one takes the place of.
const WITHOUT_INDEX: &str = "DROP INDEX IF EXISTS packet_rows_by_capture;\n";

/// Before the samples of a version before 4 are written anew.
pub(crate) fn before_samples(from: i64) -> String {
    let mut sql = String::new();
    if from < 2 {
        sql.push_str(TO_VERSION_2);
        sql.push_str(SINCE_VERSION_2);
    }
    if from < 3 {
        sql.push_str(&internals::table());
    }
    sql.push_str(WITHOUT_VIEWS);
    sql.push_str(TO_VERSION_4);
    sql.push_str(&samples::tables());
    sql
}

/// From a version whose samples stay as they are; those of version 4 do not say how far they are from the first one of
/// their run.
pub(crate) fn with_samples(from: i64) -> String {
    let mut sql = WITHOUT_VIEWS.to_owned();
    // what has such a name before version 5 is the user's own
    for ready in READY.iter().filter(|_| from >= 5) {
        let _ = writeln!(sql, "DROP VIEW IF EXISTS {};", ready.view);
    }
    if from < 5 {
        let _ = write!(
            sql,
            "ALTER TABLE sample_rows ADD COLUMN {RUN_OFF} INTEGER;
UPDATE sample_rows SET {RUN_OFF} = id - (SELECT max(first_id) FROM sample_runs WHERE first_id <= sample_rows.id);
"
        );
    }
    sql + &index_and_views()
}

/// After the samples have been written anew, and `sample_ids` has been filled.
pub(crate) fn after_samples() -> String {
    NEW_IDS.to_owned() + &index_and_views()
}

fn index_and_views() -> String {
    format!("{WITHOUT_INDEX}{BY_NUMBER}{}", views())
}

/// Columns of [`samples_of_flow`] before the state fields.
pub(crate) const HEAD: usize = 17;

/// Fields that were stored as distances.
const AS_DISTANCE: [&str; 5] = ["snd_nxt", "snd_una", "write_seq", "rcv_nxt", "bytes_received"];
const WITH_SAMPLE: [&str; 4] = ["bytes_sent", "packets_out", "retrans_out", "segs_out"];
const SELDOM: [&str; 10] = [
    "snd_ssthresh",
    "min_rtt_us",
    "mss",
    "reordering",
    "sk_mark",
    "ca_state",
    "retransmits",
    "cwnd_limited",
    "rate_app_limited",
    "sk_state",
];

/// The state fields of [`samples_of_flow`] in the order of its columns: position in [`FIELDS`], name.
pub(crate) fn fields() -> impl Iterator<Item = (usize, &'static str)> {
    FIELDS.iter().enumerate().map(|(i, f)| (i, f.name)).filter(|(_, name)| !AS_DISTANCE.contains(name))
}

/// The samples of a flow as they were written.
pub(crate) fn samples_of_flow() -> String {
    let columns: String = fields()
        .map(|(_, name)| match name {
            name if WITH_SAMPLE.contains(&name) => format!(", r.{name}"),
            name if SELDOM.contains(&name) => format!(", d.{name}"),
            name => format!(", a.{name}"),
        })
        .collect();
    format!(
        "SELECT r.id, r.serial, r.mono_off, r.clock_off, r.what, r.seq, r.len, r.ack, r.flags, r.tsval, r.ip_id,
           r.error, r.rcv_laps, r.nxt_off, r.in_flight, r.notsent, r.rcv_off{columns}
         FROM older_sample_rows r LEFT JOIN older_ack_rows a ON a.id = r.ack_id
           LEFT JOIN older_seldom_rows d ON d.id = a.seldom_id WHERE r.flow_id = ?1 ORDER BY r.id"
    )
}
