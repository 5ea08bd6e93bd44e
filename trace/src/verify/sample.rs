//! A sample as the checks see it, read from the tables themselves: a view may be anyone's, and hides what fits nowhere.

use rusqlite::Row;

use super::columns::{number, read};
use crate::fields::{FIELDS, Moves};
use crate::layout::{ACK_COLUMNS, BASES, Bases, SAMPLE_COLUMNS, Stored};
use crate::sample::{Kind, Phase};
use crate::schema::stored;

/// The segment that a sample was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) seq: u32,
    pub(super) len: u32,
    pub(super) ack: u32,
    pub(super) flags: u16,
}

pub(super) const FIN: u16 = 1;
pub(super) const SYN: u16 = 2;
pub(super) const RST: u16 = 4;
pub(super) const ACK: u16 = 16;

impl Segment {
    /// The sequence space that it takes.
    pub(super) fn space(&self) -> u32 {
        self.len.wrapping_add(u32::from(self.flags & FIN != 0)).wrapping_add(u32::from(self.flags & SYN != 0))
    }

    /// The number after its last one.
    pub(super) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.space())
    }

    /// Is it the SYN-ACK of a Fast Open? A socket that is made by data in a SYN (RFC 7413) takes it for acknowledged
    /// from the start (`tcp_create_openreq_child`).
    pub(super) fn answers_fast_open(&self, snd_una: u32) -> bool {
        self.flags & (SYN | ACK) == SYN | ACK && self.len == 0 && self.end() == snd_una
    }

    /// From columns; `None` where one is NULL or no such number.
    pub(super) fn from(seq: Option<i64>, len: Option<i64>, ack: Option<i64>, flags: Option<i64>) -> Option<Segment> {
        let flags = u16::try_from(flags?).ok().filter(|&f| f < 512)?;
        Some(Segment { seq: number(seq)?, len: number(len)?, ack: number(ack)?, flags })
    }
}

impl std::fmt::Display for Segment {
    /// As tcpdump writes it: `seq 1:1449`, or `seq 1`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.space() {
            0 => write!(f, "seq {}", self.seq),
            _ => write!(f, "seq {}:{}", self.seq, self.end()),
        }
    }
}

/// A sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) id: i64,
    pub(super) serial: i64,
    pub(super) mono_off_ns: i64,
    pub(super) clock_off_ns: i64,
    /// `None`: a code that there is not.
    pub(super) what: Option<(Kind, Phase)>,
    pub(super) segment: Option<Segment>,
    pub(super) snd_nxt: Option<u32>,
    pub(super) snd_una: Option<u32>,
    pub(super) rcv_nxt: Option<u32>,
    pub(super) in_flight: Option<i64>,
    pub(super) notsent: Option<i64>,
    state: [Option<i64>; FIELDS.len()],
}

/// Where the columns of [`sql`] begin: the sample's own, its run's bases, its columns, those of other rows, its ACK
/// state's, the state fields.
const AT_BASES: usize = 3;
const AT_SAMPLE: usize = AT_BASES + BASES.len();
const AT_ROWS: usize = AT_SAMPLE + SAMPLE_COLUMNS.len();
const AT_ACK: usize = AT_ROWS + 3;
const AT_FIELDS: usize = AT_ACK + ACK_COLUMNS.len();
const MOST_COLUMNS: usize = AT_FIELDS + FIELDS.len();

/// Fields in the order of the statement's last columns: position in [`FIELDS`], table, name.
fn fields() -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    [(Moves::Segment, "r"), (Moves::Ack, "a"), (Moves::Seldom, "d")]
        .into_iter()
        .flat_map(|(moves, table)| stored(moves).map(move |(i, name)| (i, table, name)))
}

fn names() -> impl Iterator<Item = String> {
    let own = ["r.id", "u.first_id", "u.first_serial"].map(String::from).into_iter();
    own.chain(BASES.map(|name| format!("u.{name}")))
        .chain(SAMPLE_COLUMNS.map(|name| format!("r.{name}")))
        .chain(["o.error", "a.id", "d.id"].map(String::from))
        .chain(ACK_COLUMNS.map(|name| format!("a.{name}")))
        .chain(fields().map(|(_, table, name)| format!("{table}.{name}")))
}

/// The statement that gives a flow's samples as they were written, which must be the order of their serials.
pub(super) fn sql() -> String {
    format!(
        "SELECT {} FROM sample_runs u CROSS JOIN sample_rows r ON r.id >= u.first_id AND r.id <= u.last_id
           LEFT JOIN rare_rows o ON o.sample_id = r.id LEFT JOIN ack_rows a ON a.id = u.ack_id + r.ack_off
           LEFT JOIN seldom_rows d ON d.id = u.seldom_id + a.seldom_off
         WHERE u.flow_id = ?1 ORDER BY u.first_id, r.id",
        names().collect::<Vec<_>>().join(", ")
    )
}

/// Reads a row of [`sql`]; and what is wrong with its values, if something is.
pub(super) fn sample(row: &Row<'_>) -> rusqlite::Result<(Sample, Option<String>)> {
    let mut values = [None; MOST_COLUMNS];
    let count = AT_FIELDS + fields().count();
    let fault = read(row, &mut values[..count])?;
    let mut fault = fault.map(|(column, what)| format!("{} is {what}", name(column)));
    let [id, first_id, first_serial, ..] = values;
    let mut bases = [0; BASES.len()];
    for (i, base) in bases.iter_mut().enumerate() {
        match values[AT_BASES + i] {
            Some(value) => *base = value,
            None => fault = fault.or_else(|| Some(format!("{} of its run is NULL", name(AT_BASES + i)))),
        }
    }
    let bases = Bases::from(bases);
    let mut columns = [None; SAMPLE_COLUMNS.len()];
    columns.copy_from_slice(&values[AT_SAMPLE..AT_ROWS]);
    let mut ack_columns = [None; ACK_COLUMNS.len()];
    ack_columns.copy_from_slice(&values[AT_ACK..AT_FIELDS]);
    let stored = Stored::new(&bases, &columns);
    let serial = first_serial.zip(id).zip(first_id).map(|((s, id), first)| s.wrapping_add(id.wrapping_sub(first)));

    let mut state = [None; FIELDS.len()];
    for (column, (field, _, _)) in fields().enumerate() {
        state[field] = values[AT_FIELDS + column];
    }
    stored.fields(&bases, &ack_columns, &mut state);
    for (field, value) in FIELDS.iter().zip(state) {
        if value.is_some_and(|v| v < 0) {
            fault = fault.or_else(|| Some(format!("{} is {}", field.name, value.unwrap_or(0))));
        }
    }
    let off =
        [(serial, "serial"), (stored.mono_off, "mono_off"), (stored.clock_off, "clock_off"), (columns[2], "what")];
    for (value, column) in off {
        if value.is_none() {
            fault = fault.or_else(|| Some(format!("{column} is NULL")));
        }
    }
    let [_, ack_row, seldom_row] = [values[AT_ROWS], values[AT_ROWS + 1], values[AT_ROWS + 2]];
    if ack_row.is_none() || seldom_row.is_none() {
        let table = if ack_row.is_none() { "ack_rows" } else { "seldom_rows" };
        fault = fault.or_else(|| Some(format!("its row of {table} is not there")));
    }
    let segment = segment(&stored);
    // a log of another program may tell a segment's length and nothing else of it
    if segment.is_none() && (stored.own.is_some() || stored.peer.is_some() || stored.flags != i64::from(ACK)) {
        fault = fault.or_else(|| Some("own, peer, len and flags are not those of a segment".into()));
    }
    let sample = Sample {
        id: id.unwrap_or(0),
        serial: serial.unwrap_or(0),
        mono_off_ns: stored.mono_off.unwrap_or(0),
        clock_off_ns: stored.clock_off.unwrap_or(0),
        what: stored.what,
        segment,
        snd_nxt: stored.snd_nxt,
        snd_una: stored.snd_una(),
        rcv_nxt: stored.rcv_nxt,
        in_flight: stored.in_flight.map(i64::from),
        notsent: stored.notsent,
        state,
    };
    Ok((sample, fault))
}

/// The segment that a sample names, if that is one.
pub(super) fn segment(stored: &Stored) -> Option<Segment> {
    let (seq, ack) = stored.seq_ack();
    let flags = u16::try_from(stored.flags).ok().filter(|&f| f < 512)?;
    Some(Segment { seq: seq?, len: number(stored.len)?, ack: ack?, flags })
}

fn name(column: usize) -> String {
    names().nth(column).map_or_else(|| "a column".into(), |name| name[2..].to_owned())
}

impl Sample {
    /// The value of a field by its position in [`FIELDS`].
    pub(super) fn get(&self, field: usize) -> Option<i64> {
        self.state[field]
    }
}
