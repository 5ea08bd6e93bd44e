//! Rows of a table of integers, straight from SQLite's pages.
//!
//! SQLite gives out rows column by column, each through several calls: of a join that was a third. The virtual table
//! `sqlite_dbpage` gives out whole pages, with what is in the log and as the transaction sees them; what is on a page
//! is documented (<https://sqlite.org/fileformat2.html>, 1.5 to 2.1) and does not change. Owns that format; must not
//! know what the tables are for. Takes nothing for granted: a damaged file is an error, and no file makes it look at a
//! page more often than the rows asked for need.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _};

/// Why rows cannot be read.
#[derive(Debug)]
pub(crate) enum Error {
    Sqlite(rusqlite::Error),
    /// What is wrong with the file.
    Damaged(String),
    /// Who takes the rows does not want any more.
    Stopped,
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Error {
        Error::Sqlite(e)
    }
}

type Result<T> = std::result::Result<T, Error>;

/// `BTCURSOR_MAX_DEPTH` in SQLite's source.
const MAX_DEPTH: usize = 20;
/// First byte of a page of a table: of one with rows, and of one with other pages.
const LEAF: u8 = 0x0d;
const INTERIOR: u8 = 0x05;
/// The header of the file stands before the first page's, which is never of a table of ours.
const FIRST_PAGE: u32 = 1;

/// Where a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    root: u32,
    /// Changes when a table may have gone elsewhere.
    schema_version: i64,
}

impl Table {
    /// Finds a table whose columns are an `id INTEGER PRIMARY KEY` and these; `None`: it is another kind of table, or
    /// this SQLite does not give out pages.
    pub(crate) fn find<'n>(
        db: &Connection,
        name: &str,
        columns: impl Iterator<Item = &'n str>,
    ) -> rusqlite::Result<Option<Table>> {
        let known = "SELECT count(*) > 0 FROM pragma_module_list WHERE name = 'sqlite_dbpage'";
        if !db.query_row(known, [], |r| r.get::<_, bool>(0))? {
            return Ok(None);
        }
        let sql = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ?1 AND sql LIKE
                     'CREATE TABLE%(id INTEGER PRIMARY KEY,%' AND sql NOT LIKE '%WITHOUT%'";
        let root: Option<i64> = db.query_row(sql, [name], |r| r.get(0)).optional()?;
        let Some(root) = root.and_then(|r| u32::try_from(r).ok()).filter(|&r| r > FIRST_PAGE) else { return Ok(None) };
        let mut statement = db.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
        let found: Vec<String> = statement.query_map([name], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
        let is_ours = ["id"].into_iter().chain(columns).eq(found.iter().map(String::as_str));
        let schema_version = schema_version(db)?;
        Ok(is_ours.then_some(Table { root, schema_version }))
    }

    /// Is it still where it was? To be asked within the transaction that reads its rows.
    pub(crate) fn is_here(&self, db: &Connection) -> rusqlite::Result<bool> {
        Ok(schema_version(db)? == self.schema_version)
    }
}

fn schema_version(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("PRAGMA schema_version")?.query_row([], |r| r.get(0))
}

/// Reads pages; as long as a statement of the same connection is open, all as of one moment.
pub(crate) struct Pages<'db> {
    statement: CachedStatement<'db>,
}

/// Where the keys of a page must be: above the first, up to the second.
type Keys = (i128, i128);

impl<'db> Pages<'db> {
    pub(crate) fn new(db: &'db Connection) -> rusqlite::Result<Pages<'db>> {
        Ok(Pages { statement: db.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")? })
    }

    /// Gives out the first `N` columns behind the id of each row from one id to another, in their order.
    pub(crate) fn rows<const N: usize>(
        &mut self,
        table: Table,
        (first, last): (i64, i64),
        mut each: impl FnMut(i64, &[Option<i64>; N]) -> Result<()>,
    ) -> Result<()> {
        if first > last {
            return Ok(());
        }
        let every = (i128::from(i64::MIN) - 1, i128::from(i64::MAX));
        // pages that are left to look at, the next one last
        let mut rest = vec![(table.root, every, 0)];
        while let Some((number, keys, depth)) = rest.pop() {
            let mut rows = self.statement.query([number])?;
            let row = rows.next()?.ok_or_else(|| damaged(number, "is not there"))?;
            let page = Page::new(number, row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
            if page.kind == INTERIOR {
                if depth == MAX_DEPTH {
                    return Err(damaged(number, "is too deep"));
                }
                let from = rest.len();
                page.children(keys, (first, last), |child, keys| rest.push((child, keys, depth + 1)))?;
                rest[from..].reverse();
            } else {
                page.rows(keys, (first, last), &mut each)?;
            }
        }
        Ok(())
    }
}

fn damaged(page: u32, what: &str) -> Error {
    Error::Damaged(format!("page {page} {what}"))
}

/// A page of a table.
struct Page<'a> {
    number: u32,
    kind: u8,
    bytes: &'a [u8],
    cells: usize,
}

impl<'a> Page<'a> {
    fn new(number: u32, bytes: &'a [u8]) -> Result<Page<'a>> {
        let kind = bytes.first().copied().unwrap_or(0);
        let page = Page { number, kind, bytes, cells: 0 };
        if ![LEAF, INTERIOR].contains(&kind) || number == FIRST_PAGE {
            return Err(page.damaged("is not one of its table"));
        }
        let cells = usize::from(page.u16_at(3)?);
        Ok(Page { cells, ..page })
    }

    fn damaged(&self, what: &str) -> Error {
        damaged(self.number, what)
    }

    fn from(&self, at: usize) -> Result<&'a [u8]> {
        self.bytes.get(at..).ok_or_else(|| self.damaged("ends too early"))
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        self.from(at)?.first_chunk().copied().ok_or_else(|| self.damaged("ends too early"))
    }

    fn u16_at(&self, at: usize) -> Result<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    fn u32_at(&self, at: usize) -> Result<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    /// Where a cell begins.
    fn cell(&self, index: usize) -> Result<usize> {
        let header = if self.kind == LEAF { 8 } else { 12 };
        Ok(usize::from(self.u16_at(header + 2 * index)?))
    }

    fn varint(&self, at: &mut usize) -> Result<i64> {
        let (value, length) = varint(self.from(*at)?).ok_or_else(|| self.damaged("has a number that is cut"))?;
        *at += length;
        Ok(value)
    }

    /// The key of a cell.
    fn key(&self, index: usize) -> Result<i64> {
        let mut at = self.cell(index)?;
        if self.kind == LEAF {
            self.varint(&mut at)?;
        } else {
            at += 4;
        }
        self.varint(&mut at)
    }

    /// The first cell whose key is not below this one.
    fn first_not_below(&self, key: i64) -> Result<usize> {
        let (mut low, mut high) = (0, self.cells);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle)? < key { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// The pages below that have keys of a range. Their own ranges do not overlap, so that no page is come to twice.
    fn children(&self, keys: Keys, (first, last): (i64, i64), mut take: impl FnMut(u32, Keys)) -> Result<()> {
        let from = self.first_not_below(first)?;
        let mut low = if from == 0 { keys.0 } else { i128::from(self.key(from - 1)?) };
        if low < keys.0 || low > keys.1 {
            return Err(self.damaged("has keys of another one"));
        }
        for index in from..self.cells {
            let key = self.key(index)?;
            if i128::from(key) <= low || i128::from(key) > keys.1 {
                return Err(self.damaged("has keys in no order"));
            }
            take(self.u32_at(self.cell(index)?)?, (low, i128::from(key)));
            low = i128::from(key);
            if key >= last {
                return Ok(());
            }
        }
        take(self.u32_at(8)?, (low, keys.1));
        Ok(())
    }

    fn rows<const N: usize>(
        &self,
        keys: Keys,
        (first, last): (i64, i64),
        each: &mut impl FnMut(i64, &[Option<i64>; N]) -> Result<()>,
    ) -> Result<()> {
        let mut below = keys.0;
        let mut columns = [None; N];
        for index in self.first_not_below(first)?..self.cells {
            let mut at = self.cell(index)?;
            let length = self.varint(&mut at)?;
            let id = self.varint(&mut at)?;
            if i128::from(id) <= below || i128::from(id) > keys.1 {
                return Err(self.damaged("has rows in no order"));
            }
            if id > last {
                break;
            }
            below = i128::from(id);
            let rest = self.from(at)?;
            let record = usize::try_from(length).ok().and_then(|length| rest.get(..length));
            // longer rows go on elsewhere: none of integers does
            let record = record.ok_or_else(|| self.damaged("has a row that is longer"))?;
            integers(record, &mut columns).ok_or_else(|| self.damaged(&format!("has no integers in row {id}")))?;
            each(id, &columns)?;
        }
        Ok(())
    }
}

/// The integers of a record behind its first column; what a shorter record does not have is NULL. `None`: it is damaged,
/// or one is no integer.
fn integers<const N: usize>(record: &[u8], columns: &mut [Option<i64>; N]) -> Option<()> {
    let (header, mut at) = varint(record)?;
    let header = usize::try_from(header).ok()?;
    let (types, mut values) = record.split_at_checked(header)?;
    let mut next = || -> Option<Option<i64>> {
        let (kind, length) = match types.get(at) {
            None => return Some(None),
            Some(&kind @ ..0x80) => (i64::from(kind), 1),
            Some(_) => varint(&types[at..])?,
        };
        at += length;
        let (value, length) = match kind {
            0 => (None, 0),
            8 => (Some(0), 0),
            9 => (Some(1), 0),
            1 => (Some(i64::from(i8::from_be_bytes(*values.first_chunk()?))), 1),
            2 => (Some(i64::from(i16::from_be_bytes(*values.first_chunk()?))), 2),
            3 => {
                let [a, b, c] = *values.first_chunk()?;
                (Some(i64::from(i32::from_be_bytes([a, b, c, 0]) >> 8)), 3)
            }
            4 => (Some(i64::from(i32::from_be_bytes(*values.first_chunk()?))), 4),
            5 => {
                let [a, b, c, d, e, f] = *values.first_chunk()?;
                (Some(i64::from_be_bytes([a, b, c, d, e, f, 0, 0]) >> 16), 6)
            }
            6 => (Some(i64::from_be_bytes(*values.first_chunk()?)), 8),
            _ => return None,
        };
        values = &values[length..];
        Some(value)
    };
    next()?;
    for column in columns {
        *column = next()?;
    }
    Some(())
}

/// A number of 1 to 9 bytes, 7 bits in each but the ninth, and how many bytes it took.
fn varint(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut value: u64 = 0;
    for (i, &byte) in bytes.iter().take(8).enumerate() {
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value as i64, i + 1));
        }
    }
    Some(((value << 8 | u64::from(*bytes.get(8)?)) as i64, 9))
}

#[cfg(test)]
mod tests;
