//! What a join leaves in the trace: captures, packets, and how each packet's state is known.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rusqlite::{Connection, Statement, ToSql, params};

use crate::reader::TraceReader;
use crate::schema::PACKET_INDEXES;
use crate::store::{failed, has_log, hold, log_ahead, one_file, open_held, open_write};
use crate::{Error, Result};

/// How a packet's state is known. The order is that of the codes in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Match {
    /// A sample taken for this very segment.
    Exact = 0,
    /// Part of a sampled larger segment, or made of several.
    Within = 1,
    /// The latest sample before it, advanced by the packets since.
    Carried = 2,
    /// No state can be said.
    None = 3,
}

impl Match {
    /// All, by code.
    pub const ALL: [Match; 4] = [Match::Exact, Match::Within, Match::Carried, Match::None];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Match::Exact => "exact",
            Match::Within => "within",
            Match::Carried => "carried",
            Match::None => "none",
        }
    }

    /// Has the packet a sample of its own?
    pub fn is_own(self) -> bool {
        matches!(self, Match::Exact | Match::Within)
    }
}

/// Why a packet has no sample of its own. The order is that of the codes in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// No sample covers it, and none was lost near it: the probes do not see such a segment.
    NotSampled = 0,
    /// Several samples would fit, and nothing tells them apart.
    Ambiguous = 1,
    /// Samples were lost where its own would be.
    Hole = 2,
    /// The flow's first sample is later.
    BeforeFirstSample = 3,
    /// Sent by a request socket (SYN-ACK) or answered before the socket was there.
    RequestSocket = 4,
    /// After the socket was closed: time-wait, or no socket at all.
    AfterClose = 5,
    /// A reset, which no socket of its own sends.
    Reset = 6,
    /// The trace holds only samples at which cwnd, ssthresh or ca_state changed.
    SparseTrace = 7,
    /// The connection is in TIME_WAIT, whose small socket has no sender's state.
    TimeWait = 8,
    /// Where the samples come from, none are taken for segments that are sent.
    NotInSource = 9,
}

impl Reason {
    /// All, by code.
    pub const ALL: [Reason; 10] = [
        Reason::NotSampled,
        Reason::Ambiguous,
        Reason::Hole,
        Reason::BeforeFirstSample,
        Reason::RequestSocket,
        Reason::AfterClose,
        Reason::Reset,
        Reason::SparseTrace,
        Reason::TimeWait,
        Reason::NotInSource,
    ];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NotSampled => "not sampled",
            Reason::Ambiguous => "ambiguous",
            Reason::Hole => "hole in the samples",
            Reason::BeforeFirstSample => "before the first sample",
            Reason::RequestSocket => "request socket",
            Reason::AfterClose => "after the close",
            Reason::Reset => "reset",
            Reason::SparseTrace => "sparse trace",
            Reason::TimeWait => "time wait",
            Reason::NotInSource => "not in the source",
        }
    }
}

/// What became of a sample of a segment in a join. The order is that of the codes in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// A packet is `exact` or `within` it.
    Joined = 0,
    /// The capture has packets of its range, and nothing tells which of them is its own.
    Ambiguous = 1,
    /// The segment could not be sent: the kernel says so.
    FailedLocally = 2,
    /// It was handed to the device's queue and did not come out of it: the capture was taken behind that queue,
    /// on this host, and lost nothing.
    DroppedInQdisc = 3,
    /// The capture may have missed it, or it was lost before it came to where the capture was taken.
    NotCaptured = 4,
    /// It was taken before the capture began, or after it ended.
    OutsideCapture = 5,
    /// The capture has no packet of the flow at all.
    FlowNotCaptured = 6,
}

impl Outcome {
    /// All, by code.
    pub const ALL: [Outcome; 7] = [
        Outcome::Joined,
        Outcome::Ambiguous,
        Outcome::FailedLocally,
        Outcome::DroppedInQdisc,
        Outcome::NotCaptured,
        Outcome::OutsideCapture,
        Outcome::FlowNotCaptured,
    ];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Joined => "joined",
            Outcome::Ambiguous => "ambiguous",
            Outcome::FailedLocally => "failed locally",
            Outcome::DroppedInQdisc => "dropped in the qdisc",
            Outcome::NotCaptured => "not captured",
            Outcome::OutsideCapture => "outside the capture",
            Outcome::FlowNotCaptured => "flow not in the capture",
        }
    }
}

/// Why a TCP packet has no row; other reasons in `unjoined` are of frames that are no TCP, or may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unjoined {
    /// It is of no recorded flow, as far as is known.
    NoRecordedFlow,
    /// Its addresses or numbers were changed on the way, and several recorded flows fit.
    SeveralFlows,
    /// Its connection was not compared with flows under other addresses: there are too many.
    NotCompared,
}

impl Unjoined {
    /// All.
    pub const ALL: [Unjoined; 3] = [Unjoined::NoRecordedFlow, Unjoined::SeveralFlows, Unjoined::NotCompared];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Unjoined::NoRecordedFlow => "no recorded flow",
            Unjoined::SeveralFlows => "one of several recorded flows",
            Unjoined::NotCompared => "not compared with the recorded flows",
        }
    }
}

/// How a capture's clock differs from the recording's, from the delays of its matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockEstimate {
    /// Capture's clock minus recording's at the capture's first packet, ns.
    pub offset_ns: i64,
    /// The true offset is no farther off; `None`: delays in one direction only, which bound nothing.
    pub offset_error_ns: Option<i64>,
    /// ns that the capture's clock gains in a second, and no farther off; `None`: too short to tell.
    pub drift_ppb: Option<(i64, i64)>,
    /// How often one of the clocks was set while the capture was taken.
    pub steps: u32,
}

/// A flow whose addresses or sequence numbers are others in a capture than at its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The flow.
    pub flow_id: i64,
    /// Its own address as the capture has it.
    pub local: SocketAddr,
    /// Its peer's.
    pub remote: SocketAddr,
    /// The capture's sequence numbers minus the socket's, for what it sends.
    pub seq_shift: u32,
    /// For what it receives.
    pub peer_seq_shift: u32,
    /// Packets of the flow in this capture.
    pub packets: u64,
}

/// A packet as one of its sockets sees it, with its match: a row of `packets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRow {
    /// Frame number in the capture, from 1.
    pub number: u64,
    /// Unix epoch, ns.
    pub ts_ns: Option<i64>,
    /// The recorded socket.
    pub flow_id: i64,
    /// Did it send this packet?
    pub is_out: bool,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Payload bytes.
    pub len: u32,
    /// The nine flag bits.
    pub flags: u16,
    /// Window field, unscaled.
    pub window: u16,
    /// The sample.
    pub sample_id: Option<i64>,
    /// How it is known.
    pub matched: Match,
    /// Why not better.
    pub reason: Option<Reason>,
    /// Packet time minus sample time, ns.
    pub delay_ns: Option<i64>,
    /// `snd_nxt` and `snd_una` at this packet, where they are carried.
    pub carried: Option<(u32, u32)>,
    /// 0 for the first sighting of this packet in the capture, 1 for the second, …
    pub copy: u32,
    /// The interface, where the capture names it: LINUX_SLL2's index, or pcapng's number of one of several.
    pub interface: Option<u32>,
    /// What the packet was wrapped in.
    pub tunnel: Option<&'static str>,
    /// Bytes from `snd_una` to `snd_nxt` that the packets before this one have selectively acknowledged; `None`:
    /// not known.
    pub sacked_bytes: Option<u32>,
    /// Delay less the difference of the clocks and the smallest delay of the flow's packets in this direction, ns
    /// (RFC 5481 §4.2, packet delay variation).
    pub delay_variation_ns: Option<i64>,
}

/// A capture file that was joined: a row of `captures`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRow {
    /// Absolute path.
    pub path: PathBuf,
    /// Session of most of its packets.
    pub session_id: Option<i64>,
    /// LINKTYPE_ number of the first interface.
    pub link_type: u32,
    /// Snap length in bytes.
    pub snaplen: u32,
    /// Frames in the file.
    pub packets: u64,
    /// TCP segments among them.
    pub tcp_packets: u64,
    /// TCP segments with a state.
    pub joined: u64,
    /// How its clock differs; `None`: no match to tell from.
    pub clock: Option<ClockEstimate>,
    /// Does the file end within a record?
    pub truncated: bool,
    /// Frames without a row, by reason.
    pub unjoined: BTreeMap<String, u64>,
    /// Flows that it shows under other addresses or numbers.
    pub translations: Vec<Translation>,
    /// What became of the flows' samples of segments: by flow and outcome.
    pub samples: BTreeMap<(i64, Outcome), u64>,
    /// Samples without a packet of flows that the capture has, but for those outside its time; by sample.
    pub packetless: Vec<(i64, Outcome)>,
}

/// Writes what joins found, while they find it: all captures of a call, or none.
pub struct JoinWriter {
    db: Connection,
    path: PathBuf,
    sharing: Sharing,
    /// Are the rows without their indexes, which are made when all are there?
    unindexed: bool,
}

/// How the trace is read while it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// It is not: everything has been read by then. Or there is a log beside it already, a recorder's.
    AsFound,
    /// By this process alone, without locks. What is written goes to its place at once.
    Held,
    /// By everyone. What is written goes to a log first, which this writer has put there.
    Logged,
}

/// Pages that are kept before they are written: indexes are sorted in as much memory. KiB, as SQLite has it.
const CACHE: i32 = -65_536;

/// Rows that one statement inserts. To step a statement and to reset it costs a fifth of what one row takes.
const ROWS_A_STATEMENT: usize = 16;

static INSERT_ONE: LazyLock<String> = LazyLock::new(|| insert_statement(1));
static INSERT_MANY: LazyLock<String> = LazyLock::new(|| insert_statement(ROWS_A_STATEMENT));

fn insert_statement(rows: usize) -> String {
    let row = format!("({})", vec!["?"; COLUMNS.len()].join(", "));
    format!("INSERT INTO packet_rows ({}) VALUES {}", COLUMNS.join(", "), vec![row.as_str(); rows].join(", "))
}

const COLUMNS: [&str; 21] = [
    "capture_id",
    "number",
    "ts_ns",
    "flow_id",
    "is_out",
    "seq",
    "ack",
    "len",
    "flags",
    "window",
    "sample_id",
    "match_code",
    "reason_code",
    "delay_ns",
    "carried_nxt",
    "carried_una",
    "copy",
    "interface",
    "tunnel",
    "sacked_bytes",
    "delay_variation_ns",
];

/// Inserts as many rows as the statement has room for.
fn insert(statement: &mut Statement<'_>, capture_id: i64, rows: &[PacketRow]) -> rusqlite::Result<()> {
    let mut place = 0;
    for row in rows {
        bind(statement, &mut place, capture_id, row)?;
    }
    statement.raw_execute().map(drop)
}

/// Binds a row's values, in the order of [`COLUMNS`], to the places behind `place`.
fn bind(statement: &mut Statement<'_>, place: &mut usize, capture_id: i64, p: &PacketRow) -> rusqlite::Result<()> {
    let mut next = |value: &dyn ToSql| {
        *place += 1;
        statement.raw_bind_parameter(*place, value)
    };
    next(&capture_id)?;
    next(&signed(p.number))?;
    next(&p.ts_ns)?;
    next(&p.flow_id)?;
    next(&p.is_out)?;
    next(&p.seq)?;
    next(&p.ack)?;
    next(&p.len)?;
    next(&p.flags)?;
    next(&p.window)?;
    next(&p.sample_id)?;
    next(&(p.matched as u8))?;
    next(&p.reason.map(|r| r as u8))?;
    next(&p.delay_ns)?;
    next(&p.carried.map(|c| c.0))?;
    next(&p.carried.map(|c| c.1))?;
    next(&p.copy)?;
    next(&p.interface)?;
    next(&p.tunnel)?;
    next(&p.sacked_bytes)?;
    next(&p.delay_variation_ns)
}

impl JoinWriter {
    /// Opens a trace; nothing in it changes before [`JoinWriter::commit`]. No one else can write from the first call of
    /// [`JoinWriter::start`] on.
    ///
    /// `while_read`: the join reads it until then, through [`JoinWriter::readers`]. No one else can read it meanwhile, but
    /// for a trace that is being recorded: rows go to their places at once, where a log would have them written twice.
    pub fn begin(path: &Path, while_read: bool) -> Result<JoinWriter> {
        let db = open_write(path)?;
        let mut sharing = Sharing::AsFound;
        if while_read {
            if hold(&db, path)? {
                sharing = Sharing::Held;
            } else if !has_log(&db) {
                // one that is there is not this one's to take away
                log_ahead(&db, path)?;
                sharing = Sharing::Logged;
            }
            db.pragma_update(None, "cache_size", CACHE).map_err(failed(path, "cannot open"))?;
        }
        Ok(JoinWriter { db, path: path.to_owned(), sharing, unindexed: false })
    }

    /// So many connections that read the trace as it is, while this one writes; before its first call of
    /// [`JoinWriter::start`]. None: it can be read by whoever opens it.
    ///
    /// # Errors
    /// The trace cannot be opened.
    pub fn readers(&self, count: usize) -> Result<Vec<TraceReader>> {
        let count = if self.sharing == Sharing::Held { count } else { 0 };
        (0..count).map(|_| Ok(TraceReader::new(open_held(&self.path)?, &self.path))).collect()
    }

    /// Replaces a capture's row and packets; returns the capture's id.
    pub fn write(&mut self, capture: &CaptureRow, packets: impl Iterator<Item = PacketRow>) -> Result<i64> {
        let id = self.start(&capture.path)?;
        self.add(id, packets, &capture.packetless)?;
        self.finish(id, &CaptureRow { packetless: Vec::new(), ..capture.clone() })?;
        Ok(id)
    }

    /// Takes away what an earlier join has left of a capture, and makes room for its rows; returns the capture's id.
    pub fn start(&mut self, capture: &Path) -> Result<i64> {
        let trace = self.path.clone();
        let err = failed(&trace, "cannot write the join");
        if self.db.is_autocommit() {
            self.db.execute_batch("BEGIN IMMEDIATE").map_err(failed(&self.path, "cannot begin the join"))?;
        }
        let path = capture.to_string_lossy();
        let known = "SELECT EXISTS (SELECT 1 FROM captures WHERE path = ?1)";
        if self.db.query_row(known, [&path], |r| r.get(0)).map_err(&err)? {
            self.index()?;
            for table in ["packet_rows", "unjoined", "translations", "sample_counts", "packetless_rows"] {
                let sql = format!("DELETE FROM {table} WHERE capture_id IN (SELECT id FROM captures WHERE path = ?1)");
                self.db.execute(&sql, [&path]).map_err(&err)?;
            }
            self.db.execute("DELETE FROM captures WHERE path = ?1", [&path]).map_err(&err)?;
        }
        self.unindex()?;
        self.db
            .execute(
                "INSERT INTO captures (path, link_type, snaplen, packets, tcp_packets, joined, truncated)
                 VALUES (?1, 0, 0, 0, 0, 0, 0)",
                [&path],
            )
            .map_err(&err)?;
        Ok(self.db.last_insert_rowid())
    }

    /// Takes the indexes away where there are no rows yet, and many will come: sorted once they cost less than kept.
    fn unindex(&mut self) -> Result<()> {
        let err = failed(&self.path, "cannot write the join");
        let is_empty = "SELECT NOT EXISTS (SELECT 1 FROM packet_rows)";
        if self.sharing != Sharing::AsFound
            && !self.unindexed
            && self.db.query_row(is_empty, [], |r| r.get(0)).map_err(&err)?
        {
            for (name, _) in PACKET_INDEXES {
                self.db.execute_batch(&format!("DROP INDEX IF EXISTS {name}")).map_err(&err)?;
            }
            self.unindexed = true;
        }
        Ok(())
    }

    /// Makes the indexes that were taken away.
    fn index(&mut self) -> Result<()> {
        if std::mem::take(&mut self.unindexed) {
            for (_, statement) in PACKET_INDEXES {
                self.db.execute_batch(statement).map_err(failed(&self.path, "cannot write the join"))?;
            }
        }
        Ok(())
    }

    /// Adds rows of a capture, and samples without a packet.
    pub fn add(
        &mut self,
        capture_id: i64,
        packets: impl Iterator<Item = PacketRow>,
        packetless: &[(i64, Outcome)],
    ) -> Result<()> {
        let err = failed(&self.path, "cannot write the join");
        let mut one = self.db.prepare_cached(&INSERT_ONE).map_err(&err)?;
        let mut many = self.db.prepare_cached(&INSERT_MANY).map_err(&err)?;
        let mut packets = packets.fuse();
        let mut rows = Vec::with_capacity(ROWS_A_STATEMENT);
        loop {
            rows.clear();
            rows.extend(packets.by_ref().take(ROWS_A_STATEMENT));
            match rows.len() {
                0 => break,
                ROWS_A_STATEMENT => insert(&mut many, capture_id, &rows).map_err(&err)?,
                _ => rows.chunks(1).try_for_each(|row| insert(&mut one, capture_id, row)).map_err(&err)?,
            }
        }
        for &(sample_id, outcome) in packetless {
            self.db
                .prepare_cached("INSERT INTO packetless_rows VALUES (?1, ?2, ?3)")
                .and_then(|mut s| s.execute(params![capture_id, sample_id, outcome as u8]))
                .map_err(&err)?;
        }
        Ok(())
    }

    /// Writes what is known of a capture when all its rows have been added.
    pub fn finish(&mut self, capture_id: i64, capture: &CaptureRow) -> Result<()> {
        let clock = capture.clock;
        self.db
            .execute(
                "UPDATE captures SET session_id = ?2, link_type = ?3, snaplen = ?4, packets = ?5, tcp_packets = ?6,
                   joined = ?7, clock_offset_ns = ?8, truncated = ?9, clock_offset_error_ns = ?10,
                   clock_drift_ppb = ?11, clock_drift_error_ppb = ?12, clock_steps = ?13 WHERE id = ?1",
                params![
                    capture_id,
                    capture.session_id,
                    capture.link_type,
                    capture.snaplen,
                    signed(capture.packets),
                    signed(capture.tcp_packets),
                    signed(capture.joined),
                    clock.map(|c| c.offset_ns),
                    capture.truncated,
                    clock.and_then(|c| c.offset_error_ns),
                    clock.and_then(|c| c.drift_ppb).map(|d| d.0),
                    clock.and_then(|c| c.drift_ppb).map(|d| d.1),
                    clock.map(|c| c.steps),
                ],
            )
            .map_err(failed(&self.path, "cannot write the join"))?;
        self.add(capture_id, std::iter::empty(), &capture.packetless)?;
        self.write_account(capture_id, capture)
    }

    /// What a capture tells besides its packets: frames without a row, translated flows, what became of the samples.
    fn write_account(&self, capture_id: i64, capture: &CaptureRow) -> Result<()> {
        let err = failed(&self.path, "cannot write the join");
        for (reason, &count) in &capture.unjoined {
            self.db
                .prepare_cached("INSERT INTO unjoined VALUES (?1, ?2, ?3)")
                .and_then(|mut s| s.execute(params![capture_id, reason, signed(count)]))
                .map_err(&err)?;
        }
        for t in &capture.translations {
            self.db
                .prepare_cached("INSERT INTO translations VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")
                .and_then(|mut s| {
                    s.execute(params![
                        capture_id,
                        t.flow_id,
                        t.local.ip().to_string(),
                        t.local.port(),
                        t.remote.ip().to_string(),
                        t.remote.port(),
                        t.seq_shift,
                        t.peer_seq_shift,
                        signed(t.packets),
                    ])
                })
                .map_err(&err)?;
        }
        for (&(flow_id, outcome), &count) in &capture.samples {
            self.db
                .prepare_cached("INSERT INTO sample_counts VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut s| s.execute(params![capture_id, flow_id, outcome.name(), signed(count)]))
                .map_err(&err)?;
        }
        Ok(())
    }

    /// Makes everything that was written visible at once.
    pub fn commit(mut self) -> Result<()> {
        self.index()?;
        let committed = if self.db.is_autocommit() { Ok(()) } else { self.db.execute_batch("COMMIT") };
        committed.map_err(|cause| Error::Sqlite {
            path: self.path.clone(),
            context: "cannot commit the join; the trace is as before",
            cause,
        })
    }
}

impl Drop for JoinWriter {
    /// What was not committed is taken back; the trace is one file again.
    fn drop(&mut self) {
        if !self.db.is_autocommit() {
            let _ = self.db.execute_batch("ROLLBACK");
        }
        if self.sharing == Sharing::Logged {
            one_file(&self.db);
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_positions() {
        for (i, m) in Match::ALL.iter().enumerate() {
            assert_eq!(*m as usize, i);
        }
        for (i, r) in Reason::ALL.iter().enumerate() {
            assert_eq!(*r as usize, i);
        }
        for (i, o) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*o as usize, i);
        }
    }
}
