//! The user's own SQL on a trace: read-only, whatever it says.

use std::path::{Path, PathBuf};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement};

use crate::store::{failed, open_read};
use crate::{Error, Result};

/// A value of a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text; bytes that are no UTF-8 are replaced.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// A trace opened for queries.
pub struct Query {
    db: Connection,
    path: PathBuf,
}

impl Query {
    /// Opens a trace. The connection can read it, and nothing else: no other file, no writing.
    pub fn open(path: &Path) -> Result<Query> {
        let mut db = open_read(path)?;
        db.authorizer(Some(read_only)).map_err(|e| Error::Sql(e.to_string()))?;
        Ok(Query { db, path: path.to_owned() })
    }

    /// The trace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of a statement's columns.
    pub fn columns(&self, sql: &str) -> Result<Vec<String>> {
        let statement = self.prepare(sql)?;
        Ok(statement.column_names().map(str::to_owned).collect())
    }

    /// Runs one statement and hands over each row; returns how many there were.
    pub fn rows(&self, sql: &str, mut row: impl FnMut(&[Value]) -> std::io::Result<()>) -> Result<u64> {
        let err = |e: rusqlite::Error| self.error(e);
        let mut statement = self.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([]).map_err(err)?;
        let (mut count, mut of_row) = (0, Vec::with_capacity(columns));
        while let Some(r) = rows.next().map_err(err)? {
            values(r, columns, &mut of_row).map_err(err)?;
            row(&of_row).map_err(|cause| Error::Output { cause })?;
            count += 1;
        }
        Ok(count)
    }

    fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        let statement = self.db.prepare(sql).map_err(|e| self.error(e))?;
        if statement.column_count() == 0 {
            return Err(Error::Sql("this statement gives no rows".into()));
        }
        Ok(statement)
    }

    /// The statement's fault, or the file's.
    fn error(&self, cause: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseCorrupt, NotADatabase, SystemIoFailure};
        match cause.sqlite_error_code() {
            Some(CannotOpen | DatabaseBusy | DatabaseCorrupt | NotADatabase | SystemIoFailure) => {
                failed(&self.path, "cannot read")(cause)
            }
            _ => Error::Sql(said(&cause)),
        }
    }

    /// Runs one statement and keeps all of its rows: for results that are known to be small.
    pub fn all(&self, sql: &str) -> Result<Vec<Vec<Value>>> {
        let mut rows = Vec::new();
        self.rows(sql, |r| {
            rows.push(r.to_vec());
            Ok(())
        })?;
        Ok(rows)
    }
}

/// A row's values, in the place of those of the row before.
pub(crate) fn values(row: &Row<'_>, columns: usize, values: &mut Vec<Value>) -> rusqlite::Result<()> {
    values.clear();
    for i in 0..columns {
        values.push(match row.get_ref(i)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(n) => Value::Integer(n),
            ValueRef::Real(x) => Value::Real(x),
            ValueRef::Text(t) => Value::Text(String::from_utf8_lossy(t).into_owned()),
            ValueRef::Blob(b) => Value::Blob(b.to_vec()),
        });
    }
    Ok(())
}

/// SQLite's message without rusqlite's additions.
fn said(error: &rusqlite::Error) -> String {
    const READ_ONLY: &str = "a trace can only be read here: one SELECT, no changes, no other files";
    match error {
        e if e.sqlite_error_code() == Some(rusqlite::ErrorCode::AuthorizationForStatementDenied) => READ_ONLY.into(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, sql, offset, .. } => {
            let near: String = usize::try_from(*offset)
                .ok()
                .and_then(|at| sql.get(at..))
                .map(|rest| rest.chars().take(20).collect())
                .unwrap_or_default();
            if near.is_empty() { msg.clone() } else { format!("{msg} (at `{near}`)") }
        }
        rusqlite::Error::MultipleStatement => "more than one statement; give one at a time".into(),
        other => other.to_string(),
    }
}

fn read_only(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive | AuthAction::Function { .. } => {
            Authorization::Allow
        }
        AuthAction::Pragma { pragma_value: None, .. } => Authorization::Allow,
        // table_info and the like take the name of a table
        AuthAction::Pragma {
            pragma_name: "table_info" | "table_xinfo" | "table_list" | "index_list" | "index_info",
            ..
        } => Authorization::Allow,
        _ => Authorization::Deny,
    }
}
