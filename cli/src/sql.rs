//! `tcpprobe sql`: one query, its result as a table, CSV or JSON on standard output.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use tcpprobe_trace::query::{Query, Value};
use tcpprobe_trace::{READY, Ready};

use crate::Outcome;
use crate::args::{Format, SqlArgs};
use crate::output::standard;
use crate::record::recover::before_reading;

pub(crate) fn run(args: &SqlArgs) -> Outcome {
    let mut out = BufWriter::new(standard());
    let Some(trace) = args.trace.as_deref().filter(|_| !args.list) else {
        print(&Listed, args.format, &mut out)?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    };
    before_reading(trace);
    let query = Query::open(trace)?;
    print(&Asked { query, sql: statement(args) }, args.format, &mut out)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The user's statement, or that of the query that was asked for by name.
fn statement(args: &SqlArgs) -> String {
    let ready = args.query.as_ref().and_then(|name| READY.iter().find(|ready| ready.name == name));
    let Some(Ready { view, .. }) = ready else { return args.statement.clone().unwrap_or_default() };
    let flows: Vec<String> = args.flows.iter().map(i64::to_string).collect();
    if flows.is_empty() {
        format!("SELECT * FROM {view}")
    } else {
        format!("SELECT * FROM {view} WHERE flow_id IN ({})", flows.join(", "))
    }
}

/// Where rows come from.
trait Source {
    fn columns(&self) -> anyhow::Result<Vec<String>>;
    fn rows(&self, row: &mut dyn FnMut(&[Value]) -> std::io::Result<()>) -> anyhow::Result<()>;
}

/// A statement on a trace.
struct Asked {
    query: Query,
    sql: String,
}

impl Source for Asked {
    fn columns(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.query.columns(&self.sql)?)
    }

    fn rows(&self, row: &mut dyn FnMut(&[Value]) -> std::io::Result<()>) -> anyhow::Result<()> {
        self.query.rows(&self.sql, row)?;
        Ok(())
    }
}

/// The queries that are ready.
struct Listed;

impl Source for Listed {
    fn columns(&self) -> anyhow::Result<Vec<String>> {
        Ok(["query", "view", "row"].map(str::to_owned).to_vec())
    }

    fn rows(&self, row: &mut dyn FnMut(&[Value]) -> std::io::Result<()>) -> anyhow::Result<()> {
        for Ready { name, view, doc, .. } in READY {
            row(&[name, view, doc].map(|text| Value::Text(text.to_owned())))?;
        }
        Ok(())
    }
}

fn print(source: &dyn Source, format: Format, out: &mut dyn Write) -> anyhow::Result<()> {
    match format {
        Format::Table => table(source, out),
        Format::Csv => csv(source, out),
        Format::Json => json(source, out),
    }
}

/// Rows whose widths decide those of a table's columns; a longer result is printed as several tables, each under its
/// own head, so that memory does not grow with the result.
const TABLE_ROWS: usize = 10_000;

fn table(source: &dyn Source, out: &mut dyn Write) -> anyhow::Result<()> {
    let names = source.columns()?;
    let mut table = new_table(&names);
    let mut printed = false;
    source.rows(&mut |row| {
        add_row(&mut table, row);
        if table.row_count() == TABLE_ROWS {
            print_table(&table, "", out)?;
            table = new_table(&names);
            printed = true;
        }
        Ok(())
    })?;
    if !printed || !table.is_empty() {
        print_table(&table, "", out)?;
    }
    Ok(())
}

/// A table without lines, as the tools of iproute2 and procps print theirs.
pub(crate) fn new_table(names: &[String]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(names.iter().map(Cell::new));
    table
}

/// Numbers to the right, so that they can be compared by eye.
pub(crate) fn add_row(table: &mut Table, row: &[Value]) {
    table.add_row(row.iter().map(|v| {
        let right = matches!(v, Value::Integer(_) | Value::Real(_));
        let alignment = if right { CellAlignment::Right } else { CellAlignment::Left };
        Cell::new(printable(&text(v))).set_alignment(alignment)
    }));
}

pub(crate) fn print_table(table: &Table, indent: &str, out: &mut dyn Write) -> std::io::Result<()> {
    for line in table.lines() {
        writeln!(out, "{indent}{}", line.trim_end())?;
    }
    Ok(())
}

/// Text of a trace may come from someone else: what would steer the terminal is shown, not sent.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => x.to_string(),
        Value::Text(t) => t.clone(),
        Value::Blob(b) => b.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn csv(source: &dyn Source, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(source.columns()?)?;
    // results may be long
    let mut number = itoa::Buffer::new();
    source.rows(&mut |row| {
        for value in row {
            match value {
                Value::Integer(n) => writer.write_field(number.format(*n))?,
                Value::Text(text) => writer.write_field(text)?,
                other => writer.write_field(text(other))?,
            }
        }
        Ok(writer.write_record(None::<&[u8]>)?)
    })?;
    writer.flush()?;
    Ok(())
}

/// An array of objects, one a line: `jq` and line-wise tools both read it.
fn json(source: &dyn Source, out: &mut dyn Write) -> anyhow::Result<()> {
    let names = source.columns()?;
    let mut separator = "";
    write!(out, "[")?;
    source.rows(&mut |row| {
        writeln!(out, "{separator}")?;
        separator = ",";
        serde_json::to_writer(&mut *out, &Object { names: &names, values: row })?;
        Ok(())
    })?;
    writeln!(out, "{}]", if separator.is_empty() { "" } else { "\n" })?;
    Ok(())
}

/// A row as an object: columns in the query's order, and two of one name both there, as `sqlite3 -json` prints them.
struct Object<'a> {
    names: &'a [String],
    values: &'a [Value],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.names.len()))?;
        for (name, value) in self.names.iter().zip(self.values) {
            match value {
                Value::Null => map.serialize_entry(name, &())?,
                Value::Integer(n) => map.serialize_entry(name, n)?,
                Value::Real(x) => map.serialize_entry(name, x)?,
                Value::Text(_) | Value::Blob(_) => map.serialize_entry(name, &text(value))?,
            }
        }
        map.end()
    }
}
