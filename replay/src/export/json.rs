//! A view as JSON, an object a line (JSON Lines): a reader needs no more than a line in memory.

use std::io::Write;

use tcpprobe_trace::columns::View;
use tcpprobe_trace::rows::Cell;

use super::columns::{Error, Source, Watch};

/// Writes the rows of a view; returns how many. Each object has all columns; integers are written in full.
///
/// # Errors
/// The trace or the output fails, or the caller wants no more.
pub fn export(source: &Source, view: View, out: &mut dyn Write, watch: Watch<'_>) -> Result<u64, Error> {
    let columns = view.columns();
    let mut done = 0;
    source.each(view, &mut done, watch, |_, row| {
        for ((at, column), cell) in columns.iter().enumerate().zip(row.cells()) {
            write!(out, "{}\"{}\":", if at == 0 { '{' } else { ',' }, column.name)?;
            match cell? {
                Cell::Null => out.write_all(b"null")?,
                Cell::Integer(n) => write!(out, "{n}")?,
                Cell::Text(text) => serde_json::to_writer(&mut *out, &text).map_err(std::io::Error::from)?,
            }
        }
        Ok(out.write_all(b"}\n")?)
    })?;
    out.flush()?;
    Ok(done)
}
