//! The rows of the listed views, flow by flow, for exports: whatever a trace holds, a value is of its column's type.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::columns::{Column, Type, View};
use crate::store::{failed, open_read};
use crate::{Error, Result};

/// A flow and its session, by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowOf {
    /// Row of `sessions`.
    pub session_id: i64,
    /// Row of `flows`.
    pub id: i64,
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// NULL.
    Null,
    /// Of a column of integers.
    Integer(i64),
    /// Of a column of text; bytes that are no UTF-8 are replaced.
    Text(Cow<'a, str>),
}

/// A row of a view.
pub struct Row<'a> {
    row: &'a rusqlite::Row<'a>,
    columns: &'a [Column],
    path: &'a Path,
}

impl Row<'_> {
    /// The values, in the order of [`View::columns`].
    ///
    /// # Errors
    /// [`Error::Damaged`] where a value is not of its column's type: SQLite keeps any value in any column.
    pub fn cells(&self) -> impl Iterator<Item = Result<Cell<'_>>> {
        self.columns.iter().enumerate().map(|(at, column)| self.cell(at, column))
    }

    fn cell(&self, at: usize, column: &Column) -> Result<Cell<'_>> {
        let value = self.row.get_ref(at).map_err(failed(self.path, "cannot read a row"))?;
        match (value, column.values) {
            (ValueRef::Null, _) => Ok(Cell::Null),
            (ValueRef::Integer(n), Type::Integer) => Ok(Cell::Integer(n)),
            (ValueRef::Text(t), Type::Text) => Ok(Cell::Text(String::from_utf8_lossy(t))),
            (other, wanted) => {
                let wanted = if wanted == Type::Integer { "an integer" } else { "text" };
                let what = format!("a value of `{}` is {}, not {wanted}", column.name, other.data_type());
                Err(Error::Damaged { path: self.path.to_owned(), what })
            }
        }
    }
}

/// Reads the rows of a trace as it was when it was opened, whoever writes to it meanwhile.
pub struct RowReader {
    db: Connection,
    path: PathBuf,
}

impl RowReader {
    /// Opens a trace; nothing in it can be changed through this.
    ///
    /// # Errors
    /// It is no trace, of another version, or cannot be read.
    pub fn open(path: &Path) -> Result<RowReader> {
        let db = open_read(path)?;
        db.execute_batch("BEGIN").map_err(failed(path, "cannot begin to read"))?;
        Ok(RowReader { db, path: path.to_owned() })
    }

    /// All flows, by session and id.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn flows(&self) -> Result<Vec<FlowOf>> {
        let err = failed(&self.path, "cannot read the flows");
        let sql = "SELECT session_id, id FROM flows ORDER BY session_id, id";
        let mut statement = self.db.prepare(sql).map_err(&err)?;
        let rows = statement.query_map([], |r| Ok(FlowOf { session_id: r.get(0)?, id: r.get(1)? })).map_err(&err)?;
        rows.collect::<rusqlite::Result<_>>().map_err(&err)
    }

    /// A flow's own address and its peer's with their ports, as the trace has them, which need not be addresses.
    ///
    /// # Errors
    /// The trace cannot be read, or has no such flow.
    pub fn endpoints(&self, flow_id: i64) -> Result<(String, String)> {
        let err = failed(&self.path, "cannot read a flow");
        let sql = "SELECT local_addr, local_port, remote_addr, remote_port FROM flows WHERE id = ?1";
        let mut statement = self.db.prepare_cached(sql).map_err(&err)?;
        let end = |r: &rusqlite::Row<'_>, at: usize| -> rusqlite::Result<String> {
            let (address, port): (String, i64) = (r.get(at)?, r.get(at + 1)?);
            Ok(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
        };
        statement.query_row([flow_id], |r| Ok((end(r, 0)?, end(r, 2)?))).map_err(&err)
    }

    /// How many rows of a view a flow has; in a damaged trace not exact.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn count(&self, view: View, flow_id: i64) -> Result<u64> {
        let err = failed(&self.path, "cannot count rows");
        // no row is looked at
        let sql = match view {
            View::Samples => {
                "SELECT CAST(total(last_id - first_id + 1) AS INTEGER) FROM sample_runs WHERE flow_id = ?1"
            }
            View::Packets | View::PacketState => "SELECT count(*) FROM packet_rows WHERE flow_id = ?1",
        };
        let mut statement = self.db.prepare_cached(sql).map_err(&err)?;
        let rows: i64 = statement.query_row([flow_id], |r| r.get(0)).map_err(&err)?;
        Ok(u64::try_from(rows).unwrap_or(0))
    }

    /// Hands over a flow's rows of a view: samples by `id`, packets by `number`, then `id`.
    ///
    /// # Errors
    /// Those of the trace, and what `each` fails with.
    pub fn each<E: From<Error>>(
        &self,
        view: View,
        flow_id: i64,
        mut each: impl FnMut(&Row<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let err = |e| E::from(failed(&self.path, "cannot read rows")(e));
        let columns = view.columns();
        let names: Vec<String> = columns.iter().map(|c| format!("\"{}\"", c.name)).collect();
        let order = match view {
            // runs come by their first id, samples of a run by theirs; asked for it, SQLite would sort the whole flow
            View::Samples => "",
            View::Packets | View::PacketState => " ORDER BY number, id",
        };
        let sql = format!("SELECT {} FROM {} WHERE flow_id = ?1{order}", names.join(", "), view.name());
        let mut statement = self.db.prepare_cached(&sql).map_err(err)?;
        let mut rows = statement.query([flow_id]).map_err(err)?;
        while let Some(row) = rows.next().map_err(err)? {
            each(&Row { row, columns: &columns, path: &self.path })?;
        }
        Ok(())
    }
}
