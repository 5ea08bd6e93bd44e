//! The tables of samples, and a sample's columns in SQL.
//!
//! A plain row of 40 integers costs 146 bytes; most of them repeat the row before, or follow from other columns. So the
//! state is stored by how often it moves ([`crate::fields::Moves`]): `sample_rows` has what moves with every segment,
//! `ack_rows` what moves when an ACK is processed, `seldom_rows` the rest; `sample_runs` has what samples of a flow that
//! follow each other have in common, and `rare_rows` what next to no sample has. [`crate::layout`] says how values
//! become columns; the expressions here turn them round.

use std::fmt::Write as _;

use super::{name_of, stored};
use crate::fields::{FIELDS, KINDS, Moves, PHASES, STATE_COLUMNS};
use crate::layout::{ACK_COLUMNS, ACK_FLAG, BASES, PER_FLAGS, PER_KIND, SAMPLE_COLUMNS, TSVAL_TICK_NS};

/// What a statement calls the rows of a sample.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// Of `sample_runs`.
    pub(crate) run: &'static str,
    /// Of `sample_rows`.
    pub(crate) sample: &'static str,
    /// Of `ack_rows`.
    pub(crate) ack: &'static str,
    /// Of `seldom_rows`.
    pub(crate) seldom: &'static str,
}

/// As the views of one sample call them.
pub(crate) const ROWS: Rows = Rows { run: "u", sample: "r", ack: "a", seldom: "d" };

/// Last column of `sample_rows`: how far a sample is from the first one of its run. The run could be looked for by the
/// sample's id as well, which was half of the time of a query that asks for one flow.
pub(crate) const RUN_OFF: &str = "run_off";

/// Condition for the run (u) of a sample (r).
pub(crate) const RUN_OF_SAMPLE: &str = "u.first_id = r.id - r.run_off";

pub(super) fn tables() -> String {
    let mut sql = String::from(
        "CREATE TABLE sample_runs (
  first_id INTEGER PRIMARY KEY,     -- samples of one flow, with ids and serials one by one
  last_id INTEGER NOT NULL,
  flow_id INTEGER NOT NULL,
  first_serial INTEGER NOT NULL,
  -- what the columns of its samples are distances from",
    );
    for name in BASES {
        let _ = write!(sql, ",\n  {name} INTEGER NOT NULL");
    }
    sql.push_str("\n);\nCREATE INDEX sample_runs_by_flow ON sample_runs (flow_id, first_id);\n");
    let mut table = |name: &str, columns: &[&str], moves, last: Option<&str>| {
        let _ = write!(sql, "CREATE TABLE {name} (id INTEGER PRIMARY KEY");
        for column in columns.iter().copied().chain(stored(moves).map(|(_, column)| column)).chain(last) {
            let _ = write!(sql, ", {column} INTEGER");
        }
        sql.push_str(");\n");
    };
    table("seldom_rows", &[], Moves::Seldom, None);
    table("ack_rows", &ACK_COLUMNS, Moves::Ack, None);
    table("sample_rows", &SAMPLE_COLUMNS, Moves::Segment, Some(RUN_OFF));
    sql.push_str(
        "CREATE TABLE rare_rows (
  sample_id INTEGER PRIMARY KEY,
  error INTEGER,                    -- errno of a transmission that failed locally
  rcv_laps INTEGER                  -- how often rcv_nxt went round unseen since the flow's sample before
);
",
    );
    sql
}

const MASK: &str = "4294967295";

/// Was the segment sent by the socket? Kinds 1 and 2.
fn is_out(rows: Rows) -> String {
    format!("{} IN (1, 2)", kind_code(rows))
}

pub(super) fn kind_code(rows: Rows) -> String {
    format!("{r}.what % {PER_FLAGS} / {PER_KIND}", r = rows.sample)
}

pub(super) fn kind(rows: Rows) -> String {
    name_of(&kind_code(rows), KINDS.iter().map(|k| k.0))
}

pub(super) fn phase(rows: Rows) -> String {
    name_of(&format!("{}.what % {PER_KIND}", rows.sample), PHASES.iter().map(|p| p.0))
}

/// Position in the flow.
pub(crate) fn serial(rows: Rows) -> String {
    let Rows { run: u, sample: r, .. } = rows;
    format!("{u}.first_serial + {r}.id - {u}.first_id")
}

/// CLOCK_MONOTONIC, from the session (z).
pub(crate) fn mono_ns(rows: Rows) -> String {
    format!("z.mono_base_ns + {}.mono_off + {}.mono_off", rows.run, rows.sample)
}

/// Unix epoch, from the session (z).
pub(crate) fn time_ns(rows: Rows) -> String {
    let Rows { run: u, sample: r, .. } = rows;
    format!("z.real_base_ns + {u}.mono_off + {r}.mono_off + {u}.clock_off + {r}.clock_off")
}

/// A column of the sample's segment.
pub(super) fn segment(column: &str, rows: Rows) -> String {
    let Rows { run: u, sample: r, .. } = rows;
    let by_direction =
        |out: String, received: String| format!("CASE WHEN {} THEN {out} ELSE {received} END", is_out(rows));
    let (own, peer) = (format!("{u}.own + {r}.own"), format!("{u}.peer + {r}.peer"));
    match column {
        "seq" => format!("({}) & {MASK}", by_direction(own, peer)),
        "ack" => format!("({}) & {MASK}", by_direction(peer, own)),
        "flags" => format!(
            "CASE WHEN {r}.own IS NOT NULL
    THEN {r}.what / {PER_FLAGS} + {ACK_FLAG} - 2 * ({r}.what / {PER_FLAGS} & {ACK_FLAG}) END"
        ),
        "tsval" => format!(
            "({} + {r}.mono_off / {TSVAL_TICK_NS} + {r}.tsval_off) & {MASK}",
            by_direction(format!("{u}.tsval_out"), format!("{u}.tsval_in"))
        ),
        "ip_id" => format!(
            "({} + {r}.ip_id_off) & 65535",
            by_direction(format!("{u}.ip_id_out + coalesce({u}.segs_out + {r}.segs_off, 0)"), format!("{u}.ip_id_in"))
        ),
        "error" => format!("(SELECT o.error FROM rare_rows o WHERE o.sample_id = {r}.id)"),
        other => format!("{r}.{other}"),
    }
}

/// SQL of a state column over a sample's rows.
pub(super) fn state(column: &str, rows: Rows) -> String {
    let Rows { run: u, sample: r, ack: a, seldom: d } = rows;
    let own = format!("{u}.own + coalesce({r}.own, 0)");
    let in_flight = format!("(coalesce({r}.nxt_off, 0) + {r}.una_off) & {MASK}");
    match column {
        "snd_nxt" => format!("({own} + {r}.nxt_off) & {MASK}"),
        // NULL where snd_nxt is
        "snd_una" => format!("({own} + {r}.nxt_off - ({r}.nxt_off + {r}.una_off)) & {MASK}"),
        "write_seq" => format!("({own} + {r}.nxt_off + {r}.notsent) & {MASK}"),
        "rcv_nxt" => format!("({u}.peer + coalesce({r}.peer, 0) + {r}.rcv_off) & {MASK}"),
        "bytes_in_flight" => in_flight,
        "notsent_bytes" => format!("{r}.notsent"),
        "bytes_sent" => format!(
            "{u}.bytes_sent + coalesce({r}.own, 0) + coalesce({r}.nxt_off, 0) + CASE WHEN {} THEN coalesce({r}.len, 0) ELSE 0 END + {r}.sent_off",
            is_out(rows)
        ),
        "bytes_acked" => {
            format!("{u}.bytes_acked + coalesce({r}.own, 0) - coalesce({r}.una_off, 0) + {a}.acked_off")
        }
        "segs_out" => format!("{u}.segs_out + {r}.segs_off"),
        "delivered" => format!("{u}.delivered + {a}.delivered_off"),
        "rto_us" => format!("coalesce({a}.srtt_us, 0) + coalesce({d}.rttvar_us, 0) + {a}.rto_off"),
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

/// Joins the rows that a sample names.
pub(super) fn named_rows(rows: Rows, join: &str) -> String {
    let Rows { run: u, sample: r, ack: a, seldom: d } = rows;
    format!(
        "{join} ack_rows {a} ON {a}.id = {u}.ack_id + {r}.ack_off {join} seldom_rows {d} ON {d}.id = {u}.seldom_id + {a}.seldom_off"
    )
}

/// The samples (r) with their runs (u), flows (f) and sessions (z). A sample's run is said twice: by the run's ids, for
/// statements that say which flow, and by the sample's distance, for those that say which sample.
pub(super) fn with_session() -> String {
    format!(
        "sample_runs u JOIN sample_rows r ON r.id >= u.first_id AND r.id <= u.last_id AND {RUN_OF_SAMPLE}
  JOIN flows f ON f.id = u.flow_id JOIN sessions z ON z.id = f.session_id"
    )
}

/// Of what a LEFT JOIN adds no row depends: SQLite leaves it out of a series that asks for none of its columns.
pub(super) fn view() -> String {
    let mut sql = format!(
        "CREATE VIEW samples AS SELECT r.id AS id, u.flow_id AS flow_id, {} AS serial,
  {} AS ts_ns, {} AS mono_ns,
  {} AS kind, {} AS phase",
        serial(ROWS),
        time_ns(ROWS),
        mono_ns(ROWS),
        kind(ROWS),
        phase(ROWS),
    );
    for column in ["seq", "len", "ack", "flags", "tsval", "ip_id", "error"] {
        let _ = write!(sql, ",\n  {} AS {column}", segment(column, ROWS));
    }
    for column in STATE_COLUMNS {
        let _ = write!(sql, ",\n  {} AS {column}", state(column, ROWS));
    }
    let _ = writeln!(sql, "\nFROM {}\n  {};", with_session(), named_rows(ROWS, "LEFT JOIN"));
    sql
}
