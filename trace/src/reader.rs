//! Reads what a join needs from a trace: flows, and the samples of each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};

use crate::sample::{Kind, Phase, Sampled};
use crate::store::{failed, open_read};
use crate::{Error, Result};

mod landmarks;
mod rows;
mod runs;
pub(crate) mod steps;

pub use steps::ClockStep;

use runs::{Chunk, Clocks, Wanted, With};

/// A flow as the join sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRow {
    /// Its id.
    pub id: i64,
    /// Its session.
    pub session_id: i64,
    /// The socket's own address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// First sample, Unix epoch in ns.
    pub first_ns: i64,
    /// Last sample.
    pub last_ns: i64,
    /// Was its end seen?
    pub closed: bool,
    /// Which segments were sampled at all.
    pub sampled: Sampled,
    /// Shift of the windows that the peer sends.
    pub snd_wscale: Option<u8>,
}

/// What a session tells of the capture that was taken along with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Its id.
    pub id: i64,
    /// The capture's absolute path.
    pub capture_path: Option<PathBuf>,
    /// Packets that the kernel or the interface dropped before the capture; `None`: not known.
    pub capture_dropped: Option<u64>,
}

/// A sample as the join sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRow {
    /// Its id.
    pub id: i64,
    /// Position in the flow.
    pub serial: u64,
    /// Unix epoch, ns.
    pub ts_ns: i64,
    /// CLOCK_MONOTONIC, ns.
    pub mono_ns: i64,
    /// What it was taken for.
    pub kind: Kind,
    /// When.
    pub phase: Phase,
    /// Does it name a segment? Without, the next five are 0.
    pub has_segment: bool,
    /// Sequence number.
    pub seq: u32,
    /// Payload bytes.
    pub len: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// The nine flag bits.
    pub flags: u16,
    /// Timestamp value.
    pub tsval: Option<u32>,
    /// Identification of its IPv4 packet, or of the first of them.
    pub ip_id: Option<u16>,
    /// The next number expected from the peer, with the rounds counted since the flow's first sample.
    pub rcv_position: Option<i64>,
    /// Why it failed locally; 0 where it did not.
    pub error: i32,
    /// The sender's next sequence number.
    pub snd_nxt: Option<u32>,
    /// The sender's oldest unacknowledged one.
    pub snd_una: Option<u32>,
    /// The TCP state that is entered, in a sample of kind `state`.
    pub sk_state: Option<u8>,
    /// Payload bytes sent so far, 64 bits: they tell how far the sequence numbers went where samples are missing.
    pub bytes_sent: Option<i64>,
    /// How many bytes cwnd allows in flight (`snd_cwnd` full segments of `mss`), in Open, Disorder and CWR. Read only of
    /// flows of which changes alone were sampled: up to the next sample it is known to stay.
    pub cwnd_bytes: Option<u32>,
    /// Segments that the peer has selectively acknowledged. Read where it is asked for ([`Sacked`]).
    pub sacked_out: Option<u32>,
    /// Bytes of a full segment. As above.
    pub mss: Option<u32>,
}

/// `ca_state` from which on the kernel holds segments for lost (`TCP_CA_Recovery`).
const RECOVERY: i64 = 3;

/// What is read of what the peer has selectively acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sacked {
    /// Nothing: it costs time.
    #[default]
    No,
    /// How many segments; [`SampleRow::mss`] only if there are any.
    Count,
    /// How many segments, and how long these are.
    Segments,
}

/// Samples of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Part<'f> {
    /// Whose.
    pub flow: &'f FlowRow,
    /// The first id, and the last one.
    pub ids: (i64, i64),
    /// What is read along with them.
    pub sacked: Sacked,
}

/// A trace opened for reading.
pub struct TraceReader {
    db: Connection,
    path: PathBuf,
    places: rows::Places,
    /// Clocks of the sessions that were asked for.
    sessions: RefCell<HashMap<i64, Clocks>>,
}

impl TraceReader {
    /// Opens a trace; nothing in it can be changed through this.
    pub fn open(path: &Path) -> Result<TraceReader> {
        Ok(TraceReader::new(open_read(path)?, path))
    }

    pub(crate) fn new(db: Connection, path: &Path) -> TraceReader {
        TraceReader { db, path: path.to_owned(), places: rows::Places::default(), sessions: RefCell::default() }
    }

    /// Every flow of every session, by id.
    pub fn flows(&self) -> Result<Vec<FlowRow>> {
        let err = failed(&self.path, "cannot read the flows");
        let mut statement = self
            .db
            .prepare(
                "SELECT f.id, f.session_id, f.local_addr, f.local_port, f.remote_addr, f.remote_port, f.netns,
                   f.first_ns, f.last_ns, f.closed, z.sample_mode, f.snd_wscale
                 FROM flows f JOIN sessions z ON z.id = f.session_id ORDER BY f.id",
            )
            .map_err(&err)?;
        let mut rows = statement.query([]).map_err(&err)?;
        let mut flows = Vec::new();
        while let Some(row) = rows.next().map_err(&err)? {
            let address = |at: usize| -> Result<SocketAddr> {
                let (text, port): (String, u16) = (row.get(at).map_err(&err)?, row.get(at + 1).map_err(&err)?);
                let ip = text.parse().map_err(|_| self.damaged(format!("address `{text}` in flows")))?;
                Ok(SocketAddr::new(ip, port))
            };
            flows.push(FlowRow {
                id: row.get(0).map_err(&err)?,
                session_id: row.get(1).map_err(&err)?,
                local: address(2)?,
                remote: address(4)?,
                netns: row.get(6).map_err(&err)?,
                first_ns: row.get(7).map_err(&err)?,
                last_ns: row.get(8).map_err(&err)?,
                closed: row.get(9).map_err(&err)?,
                sampled: match row.get::<_, String>(10).map_err(&err)?.as_str() {
                    "cwnd" => Sampled::Changes,
                    "received" => Sampled::Received,
                    "all" => Sampled::All,
                    mode => return Err(self.damaged(format!("sample_mode `{mode}` in sessions"))),
                },
                snd_wscale: row.get::<_, Option<i64>>(11).map_err(&err)?.and_then(|shift| u8::try_from(shift).ok()),
            });
        }
        Ok(flows)
    }

    /// Every session, by id.
    pub fn sessions(&self) -> Result<Vec<SessionRow>> {
        let err = failed(&self.path, "cannot read the sessions");
        let sql = "SELECT id, capture_path, capture_dropped FROM sessions ORDER BY id";
        let mut statement = self.db.prepare(sql).map_err(&err)?;
        let rows = statement.query_map([], |row| {
            Ok(SessionRow {
                id: row.get(0)?,
                capture_path: row.get::<_, Option<String>>(1)?.map(PathBuf::from),
                capture_dropped: row.get::<_, Option<i64>>(2)?.and_then(|d| u64::try_from(d).ok()),
            })
        });
        rows.and_then(Iterator::collect).map_err(&err)
    }

    /// Every setting of the wall clock that the anchors of the sessions show, by session and time. Anchors that cannot be
    /// are passed over.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn clock_steps(&self) -> Result<Vec<ClockStep>> {
        steps::steps(&self.db, &self.path)
    }

    /// How many samples each flow has, by its runs: what they say, and no look at the samples.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn most_samples_by_flow(&self) -> Result<Vec<(i64, u64)>> {
        let err = failed(&self.path, "cannot count the samples");
        let sql = "SELECT flow_id, total(last_id - first_id + 1) FROM sample_runs GROUP BY flow_id";
        let mut statement = self.db.prepare(sql).map_err(&err)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, f64>(1)? as u64)));
        rows.and_then(Iterator::collect).map_err(&err)
    }

    /// How many samples of segments each flow has.
    pub fn samples_by_flow(&self) -> Result<Vec<(i64, u64)>> {
        let err = failed(&self.path, "cannot count the samples");
        let sql = "SELECT u.flow_id, count(r.own) FROM sample_runs u CROSS JOIN sample_rows r
                     ON r.id >= u.first_id AND r.id <= u.last_id GROUP BY u.flow_id";
        let mut statement = self.db.prepare(sql).map_err(&err)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())));
        rows.and_then(Iterator::collect).map_err(&err)
    }

    /// The samples of a flow by serial.
    ///
    /// # Errors
    /// The trace cannot be read, or is damaged.
    pub fn samples(&self, flow_id: i64) -> Result<Vec<SampleRow>> {
        let err = failed(&self.path, "cannot read the samples");
        let sql = "SELECT f.session_id, z.sample_mode = 'cwnd' FROM flows f JOIN sessions z ON z.id = f.session_id
                   WHERE f.id = ?1";
        let of_flow = self.db.query_row(sql, [flow_id], |row| Ok((row.get(0)?, row.get(1)?))).optional();
        let Some((session_id, windows)) = of_flow.map_err(&err)? else { return Ok(Vec::new()) };
        let with = With { windows, sacked: Sacked::No };
        let chunks = self.chunks(&[Wanted { flow_id, session_id, ids: (i64::MIN, i64::MAX), with }])?;
        Ok(chunks.into_iter().flat_map(in_order).collect())
    }

    /// Samples of several flows, of each by serial. Those of flows that were recorded at the same time are read together.
    ///
    /// # Errors
    /// The trace cannot be read, or is damaged.
    pub fn samples_of(&self, parts: &[Part<'_>]) -> Result<Vec<Vec<SampleRow>>> {
        let wanted = parts.iter().map(|part| Wanted {
            flow_id: part.flow.id,
            session_id: part.flow.session_id,
            ids: part.ids,
            with: With { windows: part.flow.sampled == Sampled::Changes, sacked: part.sacked },
        });
        let chunks = self.chunks(&wanted.collect::<Vec<_>>())?;
        Ok(chunks.into_iter().map(in_order).collect())
    }

    fn damaged(&self, what: String) -> Error {
        Error::Damaged { path: self.path.clone(), what }
    }
}

/// By serial, with rounds counted.
fn in_order(chunk: Chunk) -> Vec<SampleRow> {
    let Chunk { mut samples, mut rcv_laps, .. } = chunk;
    // the writer keeps this order; a trace of someone else may not
    if !samples.is_sorted_by_key(|s: &SampleRow| s.serial) {
        let mut both: Vec<_> = samples.into_iter().zip(rcv_laps).collect();
        both.sort_by_key(|(s, _)| s.serial);
        (samples, rcv_laps) = both.into_iter().unzip();
    }
    count_rounds(&mut samples, &rcv_laps);
    samples
}

/// Makes positions of 32-bit numbers: each the nearer way from the one before, and the rounds that were written down.
fn count_rounds(samples: &mut [SampleRow], laps: &[i64]) {
    let mut last: Option<i64> = None;
    for (sample, laps) in samples.iter_mut().zip(laps) {
        let Some(number) = sample.rcv_position else { continue };
        let position = last.map_or(number, |at| {
            let nearer = i64::from((number as u32).wrapping_sub(at as u32) as i32);
            at.saturating_add(nearer).saturating_add(laps.saturating_mul(1 << 32))
        });
        sample.rcv_position = Some(position);
        last = Some(position);
    }
}
