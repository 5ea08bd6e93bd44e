//! What a join leaves in the trace: captures, packets, and how each packet's state is known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use crate::store::{failed, open_write};
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
}

impl Reason {
    /// All, by code.
    pub const ALL: [Reason; 8] = [
        Reason::NotSampled,
        Reason::Ambiguous,
        Reason::Hole,
        Reason::BeforeFirstSample,
        Reason::RequestSocket,
        Reason::AfterClose,
        Reason::Reset,
        Reason::SparseTrace,
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
        }
    }
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
    /// Median of packet time minus sample time.
    pub clock_offset_ns: Option<i64>,
    /// Does the file end within a record?
    pub truncated: bool,
    /// Frames without a row, by reason.
    pub unjoined: BTreeMap<String, u64>,
}

/// Writes what joins found: all captures of a call, or none.
pub struct JoinWriter {
    db: Connection,
    path: PathBuf,
}

impl JoinWriter {
    /// Opens a trace and begins the one transaction; no one else can write until [`JoinWriter::commit`].
    pub fn begin(path: &Path) -> Result<JoinWriter> {
        let db = open_write(path)?;
        db.execute_batch("BEGIN IMMEDIATE").map_err(failed(path, "cannot begin the join"))?;
        Ok(JoinWriter { db, path: path.to_owned() })
    }

    /// Replaces a capture's row and packets; returns the capture's id.
    pub fn write(&mut self, capture: &CaptureRow, packets: impl Iterator<Item = PacketRow>) -> Result<i64> {
        let err = failed(&self.path, "cannot write the join");
        let path = capture.path.to_string_lossy();
        for sql in [
            "DELETE FROM packet_rows WHERE capture_id IN (SELECT id FROM captures WHERE path = ?1)",
            "DELETE FROM unjoined WHERE capture_id IN (SELECT id FROM captures WHERE path = ?1)",
            "DELETE FROM captures WHERE path = ?1",
        ] {
            self.db.execute(sql, [&path]).map_err(&err)?;
        }
        self.db
            .execute(
                "INSERT INTO captures (session_id, path, link_type, snaplen, packets, tcp_packets, joined,
                   clock_offset_ns, truncated) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    capture.session_id,
                    path,
                    capture.link_type,
                    capture.snaplen,
                    signed(capture.packets),
                    signed(capture.tcp_packets),
                    signed(capture.joined),
                    capture.clock_offset_ns,
                    capture.truncated,
                ],
            )
            .map_err(&err)?;
        let capture_id = self.db.last_insert_rowid();
        for (reason, &count) in &capture.unjoined {
            self.db
                .execute("INSERT INTO unjoined VALUES (?1, ?2, ?3)", params![capture_id, reason, signed(count)])
                .map_err(&err)?;
        }
        let mut insert = self
            .db
            .prepare(
                "INSERT INTO packet_rows (capture_id, number, ts_ns, flow_id, is_out, seq, ack, len, flags, window,
                   sample_id, match_code, reason_code, delay_ns, carried_nxt, carried_una)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            )
            .map_err(&err)?;
        for p in packets {
            insert
                .execute(params![
                    capture_id,
                    signed(p.number),
                    p.ts_ns,
                    p.flow_id,
                    p.is_out,
                    p.seq,
                    p.ack,
                    p.len,
                    p.flags,
                    p.window,
                    p.sample_id,
                    p.matched as u8,
                    p.reason.map(|r| r as u8),
                    p.delay_ns,
                    p.carried.map(|c| c.0),
                    p.carried.map(|c| c.1),
                ])
                .map_err(&err)?;
        }
        Ok(capture_id)
    }

    /// Makes everything that was written visible at once.
    pub fn commit(self) -> Result<()> {
        self.db.execute_batch("COMMIT").map_err(|cause| Error::Sqlite {
            path: self.path.clone(),
            context: "cannot commit the join; the trace is as before",
            cause,
        })
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
    }
}
