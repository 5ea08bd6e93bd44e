//! A view as CSV: a header, fields as RFC 4180 quotes them, lines that end in LF.

use std::io::Write;

use tcpprobe_trace::columns::View;
use tcpprobe_trace::rows::Cell;

use super::columns::{Error, Source, Watch};

/// Writes the rows of a view; returns how many. NULL is an empty field.
///
/// # Errors
/// The trace or the output fails, or the caller wants no more.
pub fn export(source: &Source, view: View, out: &mut dyn Write, watch: Watch<'_>) -> Result<u64, Error> {
    // a field of its own for each number, without an allocation
    let mut number = Vec::with_capacity(20);
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(view.columns().iter().map(|c| c.name)).map_err(said)?;
    let mut done = 0;
    source.each(view, &mut done, watch, |_, row| {
        for cell in row.cells() {
            let written = match cell? {
                Cell::Null => writer.write_field(""),
                Cell::Integer(n) => {
                    number.clear();
                    write!(number, "{n}")?;
                    writer.write_field(&number)
                }
                Cell::Text(text) => writer.write_field(text.as_bytes()),
            };
            written.map_err(said)?;
        }
        writer.write_record(None::<&[u8]>).map_err(said)?;
        Ok(())
    })?;
    writer.flush()?;
    Ok(done)
}

/// The output's own error, by which a reader that went away is told from others.
fn said(error: csv::Error) -> std::io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => e,
        other => std::io::Error::other(format!("{other:?}")),
    }
}
