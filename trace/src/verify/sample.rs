//! A sample as the checks see it, read from the tables themselves: a view may be anyone's, and hides what fits nowhere.

use std::fmt::Write as _;

use rusqlite::Row;

use super::columns::{number, read};
use crate::fields::{FIELDS, Moves};
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

/// Columns of `sample_rows` that are not fields, and the ids of the rows that it names.
const HEAD: [&str; 17] = [
    "r.id",
    "r.serial",
    "r.mono_off",
    "r.clock_off",
    "r.what",
    "r.seq",
    "r.len",
    "r.ack",
    "r.flags",
    "r.nxt_off",
    "r.in_flight",
    "r.notsent",
    "r.rcv_off",
    "r.tsval",
    "r.error",
    "a.id",
    "d.id",
];
const COLUMNS: usize = HEAD.len() + FIELDS.len();

/// Fields in the order of the statement's columns after [`HEAD`]: position in [`FIELDS`], name.
fn fields() -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    [(Moves::Segment, "r"), (Moves::Ack, "a"), (Moves::Seldom, "d")]
        .into_iter()
        .flat_map(|(moves, table)| stored(moves).map(move |(i, name)| (i, table, name)))
}

/// The statement that gives a flow's samples as they were written, which must be the order of their serials.
pub(super) fn sql() -> String {
    let mut sql = format!("SELECT {}", HEAD.join(", "));
    for (_, table, name) in fields() {
        let _ = write!(sql, ", {table}.{name}");
    }
    sql + " FROM sample_rows r LEFT JOIN ack_rows a ON a.id = r.ack_id
            LEFT JOIN seldom_rows d ON d.id = a.seldom_id WHERE r.flow_id = ?1 ORDER BY r.id"
}

/// Reads a row of [`sql`]; and what is wrong with its values, if something is.
pub(super) fn sample(row: &Row<'_>) -> rusqlite::Result<(Sample, Option<String>)> {
    let mut values = [None; COLUMNS];
    let count = HEAD.len() + fields().count();
    let fault = read(row, &mut values[..count])?;
    let mut fault = fault.map(|(column, what)| format!("{} is {what}", name(column)));
    let [id, serial, mono_off, clock_off, what, seq, len, ack, flags, nxt_off, in_flight, notsent, rcv_off, ..] =
        values;
    let (ack_row, seldom_row) = (values[HEAD.len() - 2], values[HEAD.len() - 1]);
    let mut state = [None; FIELDS.len()];
    for (column, (field, _, name)) in fields().enumerate() {
        let value = values[HEAD.len() + column];
        state[field] = value;
        if value.is_some_and(|v| v < 0) {
            fault = fault.or_else(|| Some(format!("{name} is {}", value.unwrap_or(0))));
        }
    }
    for (value, column) in [(serial, "serial"), (mono_off, "mono_off"), (clock_off, "clock_off"), (what, "what")] {
        if value.is_none() {
            fault = fault.or_else(|| Some(format!("{column} is NULL")));
        }
    }
    if ack_row.is_none() || seldom_row.is_none() {
        let table = if ack_row.is_none() { "ack_rows" } else { "seldom_rows" };
        fault = fault.or_else(|| Some(format!("its row of {table} is not there")));
    }
    let what = decoded(what);
    let segment = Segment::from(seq, len, ack, flags);
    // a log of another program may tell a segment's length and nothing else of it
    let mangled = segment.is_none() && [seq, ack, flags].iter().any(Option::is_some);
    if mangled {
        fault = fault.or_else(|| Some("seq, len, ack and flags are not those of a segment".into()));
    }
    let (own, peer) = numbers(what, segment);
    // without the segment's numbers nothing is known of what is stored as a distance from them
    let (nxt_off, rcv_off) = if mangled { (None, None) } else { (nxt_off, rcv_off) };
    let snd_nxt = nxt_off.map(|off| own.wrapping_add(off as u32));
    let sample = Sample {
        id: id.unwrap_or(0),
        serial: serial.unwrap_or(0),
        mono_off_ns: mono_off.unwrap_or(0),
        clock_off_ns: clock_off.unwrap_or(0),
        what,
        segment,
        snd_nxt,
        snd_una: snd_nxt.zip(in_flight).map(|(nxt, flight)| nxt.wrapping_sub(flight as u32)),
        rcv_nxt: rcv_off.map(|off| peer.wrapping_add(off as u32)),
        in_flight,
        notsent,
        state,
    };
    Ok((sample, fault))
}

/// Kind and phase of a code.
pub(super) fn decoded(what: Option<i64>) -> Option<(Kind, Phase)> {
    let code = u8::try_from(what?).ok()?;
    Some((Kind::from_code(code / 4)?, Phase::from_code(code % 4)?))
}

/// A segment's numbers in the socket's own sequence space and in its peer's; distances are stored from these.
pub(super) fn numbers(what: Option<(Kind, Phase)>, segment: Option<Segment>) -> (u32, u32) {
    match segment {
        None => (0, 0),
        Some(s) if what.is_some_and(|(kind, _)| kind.is_out()) => (s.seq, s.ack),
        Some(s) => (s.ack, s.seq),
    }
}

fn name(column: usize) -> &'static str {
    let head = HEAD.get(column).map(|name| &name[2..]);
    head.or_else(|| fields().nth(column - HEAD.len()).map(|f| f.2)).unwrap_or("a column")
}

impl Sample {
    /// The value of a field by its position in [`FIELDS`].
    pub(super) fn get(&self, field: usize) -> Option<i64> {
        self.state[field]
    }
}
