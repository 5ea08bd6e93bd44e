//! Samples of received segments with their sockets, in the order of time: what the kernel module `tcp_probe` logged.
//!
//! Owns the SQL; must not know the module's format.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row};

use crate::fields::{FIELDS, STATE_COLUMNS};
use crate::sample::{Family, State};
use crate::store::{failed, open_read};
use crate::{Error, Result};

/// A received segment: the state of its socket before TCP processed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Since the session's start, in ns.
    pub since_ns: i64,
    /// The socket's own address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The socket's address family.
    pub family: Family,
    /// Payload bytes, where known.
    pub len: Option<u32>,
    /// Did the segment carry timestamps?
    pub has_timestamps: bool,
    /// The sender's state: its public fields.
    pub state: State,
}

/// Reads received segments of a trace.
pub struct ReceivedReader {
    db: Connection,
    path: PathBuf,
}

impl ReceivedReader {
    /// Opens a trace; nothing in it can be changed through this.
    pub fn open(path: &Path) -> Result<ReceivedReader> {
        Ok(ReceivedReader { db: open_read(path)?, path: path.to_owned() })
    }

    /// The session of each flow, by flow id.
    pub fn flows(&self) -> Result<Vec<(i64, i64)>> {
        let err = failed(&self.path, "cannot read the flows");
        let mut statement = self.db.prepare("SELECT id, session_id FROM flows ORDER BY id").map_err(&err)?;
        let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).map_err(&err)?;
        rows.collect::<rusqlite::Result<_>>().map_err(&err)
    }

    /// Hands over each received segment of a session in the order of time; `keep` says of which flows.
    ///
    /// # Errors
    /// Those of the trace, and what `each` fails with.
    pub fn each<E: From<Error>>(
        &self,
        session_id: i64,
        keep: impl Fn(i64) -> bool,
        mut each: impl FnMut(&Received) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let err = |e| E::from(failed(&self.path, "cannot read the samples")(e));
        let columns: String = STATE_COLUMNS.iter().map(|c| format!(", s.{c}")).collect();
        // the first sample may be older than the session's first clock reading
        let sql = format!(
            "SELECT f.id, f.local_addr, f.local_port, f.remote_addr, f.remote_port, f.family,
               s.mono_ns - min(z.mono_base_ns, coalesce((SELECT min(u.mono_off + r.mono_off) FROM sample_runs u CROSS JOIN sample_rows r
                 ON r.id >= u.first_id AND r.id <= u.last_id WHERE u.flow_id IN (SELECT g.id FROM flows g
                 WHERE g.session_id = ?1)), 0) + z.mono_base_ns), s.len, s.tsval IS NOT NULL{columns}
             FROM samples s JOIN flows f ON f.id = s.flow_id JOIN sessions z ON z.id = f.session_id
             WHERE f.session_id = ?1 AND s.kind = 'ack' AND s.phase = 'before' ORDER BY s.mono_ns, s.id"
        );
        let mut statement = self.db.prepare(&sql).map_err(err)?;
        let mut rows = statement.query([session_id]).map_err(err)?;
        while let Some(row) = rows.next().map_err(err)? {
            if keep(row.get(0).map_err(err)?) {
                each(&self.received(row)?)?;
            }
        }
        Ok(())
    }

    fn received(&self, row: &Row<'_>) -> Result<Received> {
        let err = failed(&self.path, "cannot read a sample");
        let address = |at: usize| -> Result<SocketAddr> {
            let (text, port): (String, u16) = (row.get(at).map_err(&err)?, row.get(at + 1).map_err(&err)?);
            let ip: IpAddr = text
                .parse()
                .map_err(|_| Error::Damaged { path: self.path.clone(), what: format!("address `{text}` in flows") })?;
            Ok(SocketAddr::new(ip, port))
        };
        let family: String = row.get(5).map_err(&err)?;
        let mut state = State::default();
        for (i, column) in STATE_COLUMNS.iter().enumerate() {
            if let Some(field) = FIELDS.iter().position(|f| f.name == *column) {
                state.set(field, row.get(FIRST_STATE_COLUMN + i).map_err(&err)?);
            }
        }
        Ok(Received {
            since_ns: row.get(6).map_err(&err)?,
            local: address(1)?,
            remote: address(3)?,
            family: if family == Family::Inet6.name() { Family::Inet6 } else { Family::Inet },
            len: row.get(7).map_err(&err)?,
            has_timestamps: row.get(8).map_err(&err)?,
            state,
        })
    }
}

/// The state columns of the query stand behind those that say whose and which sample it is.
const FIRST_STATE_COLUMN: usize = 9;
