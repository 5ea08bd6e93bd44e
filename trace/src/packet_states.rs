//! The rows of `packet_state` of one capture, in the order of its frames, for whoever reads the capture along with them.
//!
//! Owns the SQL; must not know capture files.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params_from_iter};

use crate::query::{Value, values};
use crate::store::{failed, open_read};
use crate::{Error, Result};

/// A capture that was joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedCapture {
    /// Its row of `captures`.
    pub id: i64,
    /// The file as it was named then.
    pub path: PathBuf,
    /// Frames in the file then.
    pub packets: i64,
}

/// Reads packets with their states from a trace.
pub struct PacketStates {
    db: Connection,
    path: PathBuf,
}

impl PacketStates {
    /// Opens a trace; nothing in it can be changed through this.
    ///
    /// # Errors
    /// It is no trace, or cannot be read.
    pub fn open(path: &Path) -> Result<PacketStates> {
        Ok(PacketStates { db: open_read(path)?, path: path.to_owned() })
    }

    /// The joined captures, by id.
    ///
    /// # Errors
    /// Those of the trace.
    pub fn captures(&self) -> Result<Vec<JoinedCapture>> {
        let err = failed(&self.path, "cannot read the captures");
        let mut statement = self.db.prepare("SELECT id, path, packets FROM captures ORDER BY id").map_err(&err)?;
        let rows = statement
            .query_map([], |r| {
                Ok(JoinedCapture { id: r.get(0)?, path: r.get::<_, String>(1)?.into(), packets: r.get(2)? })
            })
            .map_err(&err)?;
        rows.collect::<rusqlite::Result<_>>().map_err(&err)
    }

    /// Hands over these columns of each packet of a capture, ordered by frame number; of one session where one is given.
    /// An index gives the order, so that memory does not grow with the capture.
    ///
    /// # Errors
    /// Those of the trace, and what `each` fails with.
    pub fn each<E: From<Error>>(
        &self,
        capture_id: i64,
        session_id: Option<i64>,
        columns: &[&str],
        mut each: impl FnMut(&[Value]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let err = |e| E::from(failed(&self.path, "cannot read the packets")(e));
        // a name may be a keyword, as `match` is
        let names = columns.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", ");
        let of_session = session_id.map_or("", |_| " AND flow_id IN (SELECT id FROM flows WHERE session_id = ?2)");
        let sql = format!("SELECT {names} FROM packet_state WHERE capture_id = ?1{of_session} ORDER BY number");
        let mut statement = self.db.prepare(&sql).map_err(err)?;
        let mut rows = statement.query(params_from_iter(std::iter::once(capture_id).chain(session_id))).map_err(err)?;
        let mut of_row = Vec::with_capacity(columns.len());
        while let Some(row) = rows.next().map_err(err)? {
            values(row, columns.len(), &mut of_row).map_err(err)?;
            each(&of_row)?;
        }
        Ok(())
    }
}
