//! Rows of the tables of samples as they are stored: from pages where SQLite gives them out, otherwise by SQL.

use std::cell::Cell;

use rusqlite::CachedStatement;

use super::TraceReader;
use crate::fields::Moves;
use crate::layout::{ACK_COLUMNS, SAMPLE_COLUMNS};
use crate::pages::{self, Pages, Table};
use crate::schema::{RUN_OFF, stored};
use crate::store::failed;
use crate::{Error, Result};

/// So many rows that are not asked for are read along, before others are looked for from the root.
pub(super) const READ_ALONG: i64 = 64;

/// A table of integers by id.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Samples,
    Acks,
    Seldom,
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Of::Samples => "sample_rows",
            Of::Acks => "ack_rows",
            Of::Seldom => "seldom_rows",
        }
    }

    /// The columns behind the id.
    fn columns(self) -> impl Iterator<Item = &'static str> {
        let (first, moves, last): (&[_], _, _) = match self {
            Of::Samples => (&SAMPLE_COLUMNS, Moves::Segment, Some(RUN_OFF)),
            Of::Acks => (&ACK_COLUMNS, Moves::Ack, None),
            Of::Seldom => (&[], Moves::Seldom, None),
        };
        first.iter().copied().chain(stored(moves).map(|(_, name)| name)).chain(last)
    }

    /// Where a column is among them.
    pub(super) fn position(self, column: &str) -> usize {
        self.columns().position(|c| c == column).unwrap_or(usize::MAX)
    }
}

/// Where the tables were when they were read last.
#[derive(Default)]
pub(super) struct Places([Cell<Option<Table>>; 3]);

/// Gives out rows of one table.
pub(super) struct Rows<'r> {
    reader: &'r TraceReader,
    source: Source<'r>,
}

enum Source<'r> {
    Pages(Pages<'r>, Table),
    Sql(CachedStatement<'r>),
}

impl TraceReader {
    /// The rows of a table. To be called within the transaction that reads them: between two, tables may go elsewhere.
    pub(super) fn rows(&self, of: Of) -> Result<Rows<'_>> {
        let err = failed(&self.path, "cannot read the samples");
        let place = &self.places.0[of as usize];
        let table = match place.get() {
            Some(table) if table.is_here(&self.db).map_err(&err)? => Some(table),
            _ => Table::find(&self.db, of.name(), of.columns()).map_err(&err)?,
        };
        place.set(table);
        let source = match table {
            Some(table) => Source::Pages(Pages::new(&self.db).map_err(&err)?, table),
            None => {
                let columns: Vec<_> = of.columns().collect();
                let (name, columns) = (of.name(), columns.join(", "));
                let sql = format!("SELECT id, {columns} FROM {name} WHERE id >= ?1 AND id <= ?2 ORDER BY id");
                Source::Sql(self.db.prepare_cached(&sql).map_err(&err)?)
            }
        };
        Ok(Rows { reader: self, source })
    }
}

impl Rows<'_> {
    /// The first `N` columns of each row from one id to another.
    pub(super) fn between<const N: usize>(
        &mut self,
        (first, last): (i64, i64),
        mut take: impl FnMut(i64, &[Option<i64>; N]) -> Result<()>,
    ) -> Result<()> {
        let err = failed(&self.reader.path, "cannot read a sample");
        match &mut self.source {
            Source::Pages(pages, table) => {
                let mut refused = Ok(());
                let read = pages.rows(*table, (first, last), |id, columns| {
                    refused = take(id, columns);
                    if refused.is_ok() { Ok(()) } else { Err(pages::Error::Stopped) }
                });
                match read {
                    Ok(()) | Err(pages::Error::Stopped) => refused,
                    Err(pages::Error::Sqlite(e)) => Err(err(e)),
                    Err(pages::Error::Damaged(what)) => Err(Error::Damaged { path: self.reader.path.clone(), what }),
                }
            }
            Source::Sql(statement) => {
                let mut rows = statement.query([first, last]).map_err(&err)?;
                while let Some(row) = rows.next().map_err(&err)? {
                    let mut columns = [None; N];
                    for (i, column) in columns.iter_mut().enumerate() {
                        *column = row.get(1 + i).map_err(&err)?;
                    }
                    take(row.get(0).map_err(&err)?, &columns)?;
                }
                Ok(())
            }
        }
    }

    /// Some columns of the rows with these ids, each with what the id came with.
    pub(super) fn with_ids<const N: usize>(
        &mut self,
        mut ids: Vec<(i64, usize)>,
        mut take: impl FnMut(usize, &[Option<i64>; N]),
    ) -> Result<()> {
        ids.sort_unstable();
        for near in ids.chunk_by(|a, b| b.0.saturating_sub(a.0) <= READ_ALONG) {
            let mut rest = near.iter().copied().peekable();
            self.between((near[0].0, near[near.len() - 1].0), |id, columns| {
                while let Some((wanted, with)) = rest.next_if(|&(wanted, _)| wanted <= id) {
                    if wanted == id {
                        take(with, columns);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
