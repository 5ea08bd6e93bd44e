//! Rows gathered into Arrow columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, StringDictionaryBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tcpprobe_trace::columns::{Column, Type, View};
use tcpprobe_trace::rows::{Cell, Row};

use crate::export::columns::Error;

/// Rows that are handed to the writer at once.
const ROWS: usize = 8_192;
/// Text that is: a damaged trace may have any amount, and a column of Arrow's holds 2 GiB.
const TEXT_BYTES: usize = 16 << 20;

/// A column that grows.
enum Builder {
    Integers(Int64Builder),
    /// All text is of few different words.
    Words(StringDictionaryBuilder<Int32Type>),
}

pub(super) struct Batch {
    schema: SchemaRef,
    columns: Vec<Builder>,
    rows: usize,
    text_bytes: usize,
}

impl Batch {
    pub(super) fn new(view: View) -> Batch {
        let columns = view.columns();
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        let columns = columns.iter().map(|c| match c.values {
            Type::Integer => Builder::Integers(Int64Builder::with_capacity(ROWS)),
            Type::Text => Builder::Words(StringDictionaryBuilder::new()),
        });
        Batch { schema: Arc::new(schema), columns: columns.collect(), rows: 0, text_bytes: 0 }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= ROWS || self.text_bytes >= TEXT_BYTES
    }

    pub(super) fn add(&mut self, row: &Row<'_>) -> Result<(), Error> {
        for (column, cell) in self.columns.iter_mut().zip(row.cells()) {
            match (column, cell?) {
                (Builder::Integers(b), Cell::Integer(n)) => b.append_value(n),
                (Builder::Words(b), Cell::Text(text)) => {
                    self.text_bytes += text.len();
                    b.append(text)?;
                }
                (Builder::Integers(b), _) => b.append_null(),
                (Builder::Words(b), _) => b.append_null(),
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// What was gathered; then it is empty.
    pub(super) fn take(&mut self) -> Result<RecordBatch, Error> {
        let arrays = self.columns.iter_mut().map(|c| -> ArrayRef {
            match c {
                Builder::Integers(b) => Arc::new(b.finish()),
                Builder::Words(b) => Arc::new(b.finish()),
            }
        });
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays.collect())?;
        (self.rows, self.text_bytes) = (0, 0);
        Ok(batch)
    }
}

/// A column's type, with its unit and meaning.
fn field(column: &Column) -> Field {
    let data_type = match column.values {
        Type::Integer => DataType::Int64,
        Type::Text => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    };
    let mut about = HashMap::from([("meaning".to_owned(), column.doc.to_owned())]);
    if !column.unit.is_empty() {
        about.insert("unit".to_owned(), column.unit.to_owned());
    }
    Field::new(column.name, data_type, true).with_metadata(about)
}
