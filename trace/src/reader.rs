//! Reads what a join needs from a trace: flows, and the samples of each.

mod landmarks;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row};

use crate::clock::TIMES_NS;
use crate::sample::{Kind, Phase, Sampled};
use crate::store::{failed, open_read};
use crate::{Error, Result};

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
    /// Segments that the peer has selectively acknowledged. Read by [`TraceReader::read_sacked`] alone.
    pub sacked_out: Option<u32>,
    /// Bytes of a full segment. As above.
    pub mss: Option<u32>,
}

/// What [`TraceReader::sample`] reads, of `sample_rows r` and `sessions z`.
const SAMPLE_COLUMNS: &str = "r.id, r.serial, z.real_base_ns + r.mono_off + r.clock_off, r.what, r.seq, r.len, r.ack,
  r.flags, r.tsval, r.error, r.nxt_off, r.in_flight, r.bytes_sent,
  CASE WHEN r.what / 4 = 3 THEN (SELECT d.sk_state FROM ack_rows a JOIN seldom_rows d
    ON d.id = a.seldom_id WHERE a.id = r.ack_id) END,
  z.mono_base_ns + r.mono_off, r.ip_id, r.rcv_off, r.rcv_laps, r.flow_id";

/// `ca_state` from which on the kernel holds segments for lost (`TCP_CA_Recovery`).
const RECOVERY: i64 = 3;

/// A trace opened for reading.
pub struct TraceReader {
    db: Connection,
    path: PathBuf,
}

impl TraceReader {
    /// Opens a trace; nothing in it can be changed through this.
    pub fn open(path: &Path) -> Result<TraceReader> {
        Ok(TraceReader { db: open_read(path)?, path: path.to_owned() })
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

    /// How many samples of segments each flow has.
    pub fn samples_by_flow(&self) -> Result<Vec<(i64, u64)>> {
        let err = failed(&self.path, "cannot count the samples");
        let sql = "SELECT flow_id, count(seq) FROM sample_rows GROUP BY flow_id";
        let mut statement = self.db.prepare(sql).map_err(&err)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())));
        rows.and_then(Iterator::collect).map_err(&err)
    }

    /// The samples of a flow by serial.
    pub fn samples(&self, flow_id: i64) -> Result<Vec<SampleRow>> {
        self.samples_between(flow_id, i64::MIN, i64::MAX)
    }

    /// The samples of a flow whose ids are in a range, both ends included, by serial.
    pub fn samples_between(&self, flow_id: i64, first_id: i64, last_id: i64) -> Result<Vec<SampleRow>> {
        let err = failed(&self.path, "cannot read the samples");
        let sql = format!(
            "SELECT {SAMPLE_COLUMNS} FROM sample_rows r JOIN flows f ON f.id = r.flow_id
               JOIN sessions z ON z.id = f.session_id
             WHERE r.flow_id = ?1 AND r.id BETWEEN ?2 AND ?3 ORDER BY r.id"
        );
        let mut statement = self.db.prepare_cached(&sql).map_err(&err)?;
        let mut rows = statement.query([flow_id, first_id, last_id]).map_err(&err)?;
        let (mut samples, mut laps) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next().map_err(&err)? {
            laps.push((row.get(1).map_err(&err)?, row.get::<_, Option<i64>>(17).map_err(&err)?.unwrap_or(0)));
            samples.push(self.sample(row)?);
        }
        self.read_windows(flow_id, &mut samples)?;
        // the writer keeps this order; a trace of someone else may not
        if !samples.is_sorted_by_key(|s: &SampleRow| s.serial) {
            samples.sort_by_key(|s| s.serial);
            laps.sort_by_key(|l: &(Option<i64>, i64)| l.0);
        }
        count_rounds(&mut samples, &laps);
        Ok(samples)
    }

    /// Adds `cwnd_bytes` to the samples of a flow, in the order of their ids, where changes alone were sampled.
    fn read_windows(&self, flow_id: i64, samples: &mut [SampleRow]) -> Result<()> {
        // of other flows it finds nothing, and looks at no sample
        let sql = format!(
            "SELECT r.id, a.snd_cwnd, d.mss
             FROM flows f JOIN sessions z ON z.id = f.session_id JOIN sample_rows r ON r.flow_id = f.id
               JOIN ack_rows a ON a.id = r.ack_id JOIN seldom_rows d ON d.id = a.seldom_id
             WHERE f.id = ?1 AND r.id BETWEEN ?2 AND ?3 AND z.sample_mode = 'cwnd' AND d.ca_state < {RECOVERY}
             ORDER BY r.id"
        );
        self.complete(&sql, flow_id, samples, |sample, cwnd, mss| {
            let bytes = cwnd.zip(mss).and_then(|(cwnd, mss)| cwnd.checked_mul(mss));
            sample.cwnd_bytes = bytes.and_then(|b| u32::try_from(b).ok()).filter(|&b| b > 0);
        })
    }

    /// Adds what is selectively acknowledged to the samples of a flow: worth its time only where the peer does so.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn read_sacked(&self, flow_id: i64, samples: &mut [SampleRow]) -> Result<()> {
        let sql = "SELECT r.id, a.sacked_out, d.mss
                   FROM sample_rows r JOIN ack_rows a ON a.id = r.ack_id JOIN seldom_rows d ON d.id = a.seldom_id
                   WHERE r.flow_id = ?1 AND r.id BETWEEN ?2 AND ?3 ORDER BY r.id";
        self.complete(sql, flow_id, samples, |sample, sacked, mss| {
            sample.sacked_out = sacked.and_then(|n| u32::try_from(n).ok());
            sample.mss = mss.and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
        })
    }

    /// Gives each of a flow's samples the two columns that `sql` has behind its id, of the ids from the least to the
    /// largest. In a trace of someone else whose ids do
    /// not rise with the serials, some get none.
    fn complete(
        &self,
        sql: &str,
        flow_id: i64,
        samples: &mut [SampleRow],
        set: impl Fn(&mut SampleRow, Option<i64>, Option<i64>),
    ) -> Result<()> {
        let err = failed(&self.path, "cannot read the samples' state");
        let mut statement = self.db.prepare_cached(sql).map_err(&err)?;
        let ids = || samples.iter().map(|s| s.id);
        let Some((first, last)) = ids().min().zip(ids().max()) else { return Ok(()) };
        let mut rows = statement.query([flow_id, first, last]).map_err(&err)?;
        let mut rest = samples.iter_mut();
        while let Some(row) = rows.next().map_err(&err)? {
            let id: i64 = row.get(0).map_err(&err)?;
            let values = (row.get(1).map_err(&err)?, row.get(2).map_err(&err)?);
            if let Some(sample) = rest.find(|s| s.id == id) {
                set(sample, values.0, values.1);
            }
        }
        Ok(())
    }

    fn sample(&self, row: &Row<'_>) -> Result<SampleRow> {
        let err = failed(&self.path, "cannot read a sample");
        let get = |at: usize| -> Result<Option<i64>> { row.get(at).map_err(&err) };
        let what = get(3)?.unwrap_or(-1);
        let (kind, phase) = u8::try_from(what)
            .ok()
            .and_then(|w| Some((Kind::from_code(w / 4)?, Phase::from_code(w % 4)?)))
            .ok_or_else(|| self.damaged(format!("a sample's kind and phase are {what}")))?;
        let number = |at: usize| -> Result<u32> { Ok(get(at)?.unwrap_or(0) as u32) };
        let (seq, ack) = (number(4)?, number(6)?);
        let (own, peer) = if kind.is_out() { (seq, ack) } else { (ack, seq) };
        let snd_nxt = get(10)?.map(|off| own.wrapping_add(off as u32));
        let in_flight = get(11)?.map(|bytes| bytes as u32);
        let time = |at: usize| {
            let ns = get(at)?.unwrap_or(0);
            if TIMES_NS.contains(&ns) { Ok(ns) } else { Err(self.damaged(format!("a sample's time is {ns} ns"))) }
        };
        Ok(SampleRow {
            id: row.get(0).map_err(&err)?,
            serial: get(1)?.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
            ts_ns: time(2)?,
            mono_ns: time(14)?,
            kind,
            phase,
            has_segment: get(4)?.is_some(),
            seq,
            len: number(5)?,
            ack,
            flags: get(7)?.unwrap_or(0) as u16,
            tsval: get(8)?.map(|t| t as u32),
            rcv_position: get(16)?.map(|off| i64::from(peer.wrapping_add(off as u32))),
            ip_id: get(15)?.and_then(|i| u16::try_from(i).ok()),
            error: get(9)?.unwrap_or(0) as i32,
            snd_nxt,
            snd_una: snd_nxt.zip(in_flight).map(|(nxt, bytes)| nxt.wrapping_sub(bytes)),
            bytes_sent: get(12)?,
            sk_state: get(13)?.and_then(|s| u8::try_from(s).ok()),
            cwnd_bytes: None,
            sacked_out: None,
            mss: None,
        })
    }

    fn damaged(&self, what: String) -> Error {
        Error::Damaged { path: self.path.clone(), what }
    }
}

/// Makes positions of 32-bit numbers: each the nearer way from the one before, and the rounds that were written down.
fn count_rounds(samples: &mut [SampleRow], laps: &[(Option<i64>, i64)]) {
    let mut last: Option<i64> = None;
    for (sample, (_, laps)) in samples.iter_mut().zip(laps) {
        let Some(number) = sample.rcv_position else { continue };
        let position = last.map_or(number, |at| {
            let nearer = i64::from((number as u32).wrapping_sub(at as u32) as i32);
            at.saturating_add(nearer).saturating_add(laps.saturating_mul(1 << 32))
        });
        sample.rcv_position = Some(position);
        last = Some(position);
    }
}
