//! Views as Parquet: one file of one view, or a folder of several, cut by session and flow as DuckDB, polars and Arrow
//! expect it of a Hive dataset.
//!
//! Owns types, metadata and the folder's layout. A folder is there whole or not at all.

mod batch;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use tcpprobe_trace::columns::{Type, View};
use tcpprobe_trace::rows::Row;

use super::columns::{Error, Source, Watch};
use batch::Batch;

/// Rows of a row group, which is what a writer holds in memory, compressed by and by: as many as DuckDB's own have.
const GROUP_ROWS: usize = 122_880;
/// Flows whose ids share a folder.
const FLOWS_A_FOLDER: i64 = 1_000;
/// Key of a file's metadata whose value is a JSON object: of each column its unit and meaning, for readers that do not
/// look at Arrow's.
pub const COLUMNS_KEY: &str = "tcpprobe.columns";

/// Rows of a table.
pub type Rows = (View, u64);

/// Writes one view as one file; returns how many rows it has.
///
/// # Errors
/// The trace or the output fails, or the caller wants no more.
pub fn export_file(source: &Source, view: View, out: impl Write + Send, watch: Watch<'_>) -> Result<u64, Error> {
    let mut part = Part::new(view, out)?;
    let mut done = 0;
    source.each(view, &mut done, watch, |_, row| part.add(row))?;
    part.close()?;
    Ok(done)
}

/// Writes views into a folder that exists and is empty: `VIEW/session_id=N/flows_from=N/part-0.parquet`. A view without
/// rows has no folder. Returns how many rows each has.
///
/// # Errors
/// As [`export_file`]; and where no view has a row.
pub fn export_folder(source: &Source, views: &[View], folder: &Path, watch: Watch<'_>) -> Result<Vec<Rows>, Error> {
    let mut written = Vec::new();
    let mut done = 0;
    for &view in views {
        let before = done;
        let mut open: Option<((i64, i64), Part<File>)> = None;
        source.each(view, &mut done, watch, |flow, row| {
            let key = (flow.session_id, first_of(flow.id));
            match &mut open {
                Some((of, part)) if *of == key => part.add(row),
                _ => {
                    if let Some((_, part)) = open.take() {
                        part.close()?;
                    }
                    let (session, from) = key;
                    let folder = folder.join(format!("{}/session_id={session}/flows_from={from}", view.name()));
                    std::fs::create_dir_all(&folder)?;
                    let file = File::create_new(folder.join("part-0.parquet"))?;
                    open.insert((key, Part::new(view, file)?)).1.add(row)
                }
            }
        })?;
        if let Some((_, part)) = open {
            part.close()?;
        }
        written.push((view, done - before));
    }
    if done == 0 {
        let tables = views.iter().map(|v| v.name()).collect::<Vec<_>>().join(", ");
        return Err(Error::NoRows { trace: source.trace().to_owned(), tables });
    }
    Ok(written)
}

/// The first flow id of a flow's folder.
fn first_of(flow: i64) -> i64 {
    // ids count from 1; in somebody else's trace they may be anything
    flow.saturating_sub(1).div_euclid(FLOWS_A_FOLDER).saturating_mul(FLOWS_A_FOLDER).saturating_add(1)
}

/// A file that is being written.
struct Part<W: Write + Send> {
    writer: ArrowWriter<W>,
    batch: Batch,
}

impl<W: Write + Send> Part<W> {
    fn new(view: View, out: W) -> Result<Part<W>, Error> {
        let batch = Batch::new(view);
        let writer = ArrowWriter::try_new(out, Arc::clone(batch.schema()), Some(properties(view)))?;
        Ok(Part { writer, batch })
    }

    fn add(&mut self, row: &Row<'_>) -> Result<(), Error> {
        self.batch.add(row)?;
        if self.batch.is_full() {
            self.writer.write(&self.batch.take()?)?;
        }
        Ok(())
    }

    fn close(mut self) -> Result<(), Error> {
        self.writer.write(&self.batch.take()?)?;
        self.writer.close()?;
        Ok(())
    }
}

fn properties(view: View) -> WriterProperties {
    let columns = view.columns();
    let docs: serde_json::Map<_, _> =
        columns.iter().map(|c| (c.name.to_owned(), serde_json::json!({ "unit": c.unit, "meaning": c.doc }))).collect();
    let about = [
        KeyValue::new("tcpprobe.table".into(), view.name().to_owned()),
        KeyValue::new(COLUMNS_KEY.into(), serde_json::Value::Object(docs).to_string()),
    ];
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("tcpprobe ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_key_value_metadata(Some(about.into()));
    for column in columns.iter().filter(|c| c.values == Type::Integer && is_counted_up(c.name, c.unit)) {
        let path = ColumnPath::from(column.name);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}

/// Does each row have a value of its own, near that of the row before? A dictionary would be as long as the column.
fn is_counted_up(name: &str, unit: &str) -> bool {
    matches!(unit, "ns" | "sequence number")
        || matches!(name, "id" | "serial" | "number" | "sample_id" | "tsval" | "ip_id" | "bytes_sent" | "bytes_acked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_share_folders_by_their_ids() {
        assert_eq!([1, 1000, 1001, 2000].map(first_of), [1, 1, 1001, 1001]);
        assert_eq!([0, -999, -1000].map(first_of), [-999, -999, -1999]);
        assert!(first_of(i64::MIN) <= first_of(i64::MIN + 1));
        assert!(first_of(i64::MAX) > 0);
    }
}
