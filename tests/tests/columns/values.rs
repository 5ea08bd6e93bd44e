//! What the exports say, compared with the trace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tcpprobe_fixtures::bulk::Bulk;
use tcpprobe_tests::tools;

use super::{DUCKDB, LIMIT, TABLES, Traced, export, tcpprobe};

/// Rows, values, NULLs and columns with text that were compared.
fn compare(python: &Path, traced: &Traced, format: &str, table: &str, path: &str) -> Result<[u64; 4]> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/columns/compare.py");
    let mut command = Command::new(python);
    command.args([script, &traced.trace, format, table, path]);
    let said = tools::run(&mut command, LIMIT)?.expect_code(0).with_context(|| format!("{format} of {table}"))?.stdout;
    let numbers: Vec<u64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    numbers.try_into().map_err(|_| anyhow::anyhow!("{said}"))
}

/// With NULLs and text; one of them has both sockets of its connection.
const SCENARIOS: [&str; 3] = ["both_ends_recorded", "hole", "tunnel_vxlan"];

fn each_table(python: &Path, prefix: &str) -> Result<()> {
    for scenario in SCENARIOS {
        let traced = Traced::joined(scenario)?;
        for table in TABLES {
            for format in ["csv", "json"] {
                let path = traced.path(&format!("{table}.{format}"))?;
                export(&traced.trace, &["--to", format, "--table", table, "-o", &path])?;
                let compared = compare(python, &traced, &format!("{prefix}{format}"), table, &path)?;
                ensure!(compared.iter().all(|&n| n > 0), "{scenario} {table} {format}: {compared:?}");
            }
        }
    }
    Ok(())
}

pub(super) fn python_reads_the_rows_of_csv_and_json() -> Result<()> {
    each_table(Path::new("python3"), "")
}

pub(super) fn duckdb_reads_the_rows_of_each_format() -> Result<()> {
    let python = DUCKDB.as_ref().context("no DuckDB")?;
    each_table(python, "duckdb-")?;
    for scenario in SCENARIOS {
        let traced = Traced::joined(scenario)?;
        let folder = traced.path("columns")?;
        export(&traced.trace, &["--to", "parquet", "-o", &folder])?;
        for table in TABLES {
            let compared = compare(python, &traced, "duckdb-parquet", table, &format!("{folder}/{table}"))?;
            ensure!(compared.iter().all(|&n| n > 0), "{scenario} {table}: {compared:?}");
        }
    }
    Ok(())
}

pub(super) fn duckdb_reads_folders_of_sessions_and_a_thousand_flows() -> Result<()> {
    let python = DUCKDB.as_ref().context("no DuckDB")?;
    let bulk = Bulk { packets: 15_000, flows: 20, packets_a_flow: Some(10), loss_every: 50, window: 4 };
    let traced = Traced::bulk(&bulk)?;
    let flows: i64 = traced.db()?.query_row("SELECT max(id) FROM flows", [], |r| r.get(0))?;
    ensure!((1001..=2000).contains(&flows), "{flows} flows");
    let log = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/logs/siftr-1.3.0.log");
    tcpprobe(&["import", &traced.trace, log])?.expect_code(0)?;
    let sessions = traced.path("sessions")?;
    export(&traced.trace, &["--to", "parquet", "-o", &sessions, "--table", "samples"])?;
    ensure!(Path::new(&sessions).join("samples/session_id=2/flows_from=1001").exists(), "no folder of its own");
    compare(python, &traced, "duckdb-parquet", "samples", &format!("{sessions}/samples"))?;
    let folder = traced.path("columns")?;
    let said = export(&traced.trace, &["--to", "parquet", "-o", &folder, "--table", "packet_state"])?.stderr;
    ensure!(said.contains("columns/packet_state: 15,0"), "{said}");
    for from in [1, 1001] {
        let file = format!("{folder}/packet_state/session_id=1/flows_from={from}/part-0.parquet");
        ensure!(Path::new(&file).exists(), "no {file}");
    }
    ensure!(!Path::new(&folder).join("samples").exists(), "a table that was not asked for");
    compare(python, &traced, "duckdb-parquet", "packet_state", &format!("{folder}/packet_state"))?;
    Ok(())
}

pub(super) fn hostile_text_comes_through() -> Result<()> {
    let traced = Traced::bulk(&Bulk { packets: 100, flows: 2, packets_a_flow: None, loss_every: 0, window: 4 })?;
    let hostile = [
        "a,b;c\td",
        "\"quoted\" and \"\"",
        "two\nlines\r\nand more\r",
        "=cmd|' /C calc'!A0",
        "\u{1b}[31m\u{7}\u{85}\u{2028}",
        "back\\slash \\n",
        "NULL",
        " spaces ",
        "{\"a\":1}",
    ];
    for (text, id) in hostile.iter().zip(1..) {
        let changed = traced.db()?.execute("UPDATE packet_rows SET tunnel = ?1 WHERE id = ?2", (text, id))?;
        ensure!(changed == 1, "too few packets");
    }
    let mut readers = vec![(PathBuf::from("python3"), "")];
    readers.extend(DUCKDB.clone().map(|p| (p, "duckdb-")));
    for format in ["csv", "json"] {
        let path = traced.path(&format!("packets.{format}"))?;
        export(&traced.trace, &["--to", format, "--table", "packets", "-o", &path])?;
        for (python, prefix) in &readers {
            compare(python, &traced, &format!("{prefix}{format}"), "packets", &path)?;
        }
    }
    let folder = traced.path("columns")?;
    export(&traced.trace, &["--to", "parquet", "--table", "packets", "-o", &folder])?;
    if let Some(python) = &*DUCKDB {
        compare(python, &traced, "duckdb-parquet", "packets", &format!("{folder}/packets"))?;
    }
    Ok(())
}

pub(super) fn columns_have_units_and_meanings() -> Result<()> {
    let traced = Traced::joined("both_ends_recorded")?;
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fields.md"))?;
    for table in TABLES {
        let path = traced.path(&format!("{table}.parquet"))?;
        export(&traced.trace, &["--to", "parquet", "--table", table, "-o", &path])?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path)?)?;
        ensure!(reader.schema().fields().len() >= 20, "{table}: too few columns");
        for field in reader.schema().fields() {
            let about = field.metadata();
            let meaning = about.get("meaning").context("no meaning")?;
            let unit = about.get("unit").map_or("", |u| u.as_str());
            let row = format!("| `{}` | {unit} | {meaning} |", field.name());
            ensure!(documented.contains(&row), "docs/fields.md has no row {row}");
            let wanted = match field.name().as_str() {
                "kind" | "phase" | "dir" | "tunnel" | "match" | "reason" | "sample_kind" | "sample_phase" => {
                    "Dictionary(Int32, Utf8)"
                }
                _ => "Int64",
            };
            ensure!(field.data_type().to_string() == wanted, "{}: {}", field.name(), field.data_type());
        }
    }
    Ok(())
}

fn lines(traced: &Traced, arguments: &[&str]) -> Result<u32> {
    let rows = export(&traced.trace, &[&["--to", "csv"], arguments].concat())?.stdout.lines().skip(1).count();
    Ok(u32::try_from(rows)?)
}

pub(super) fn a_flow_or_a_session_alone() -> Result<()> {
    let traced = Traced::joined("both_ends_recorded")?;
    for (table, column) in [("samples", "flow_id"), ("packet_state", "flow_id")] {
        for flow in [1, 2] {
            let sql = format!("SELECT count(*) FROM {table} WHERE {column} = {flow}");
            let wanted: u32 = traced.db()?.query_row(&sql, [], |r| r.get(0))?;
            let found = lines(&traced, &["--table", table, "--flow", &flow.to_string()])?;
            ensure!(wanted > 0 && found == wanted, "{table}: {found} rows of flow {flow}, not {wanted}");
        }
    }
    let all: u32 = traced.db()?.query_row("SELECT count(*) FROM samples", [], |r| r.get(0))?;
    ensure!(lines(&traced, &["--flow", "1", "--flow", "2", "--session", "1"])? == all, "not all samples");
    ensure!(lines(&traced, &[])? == all, "not all samples by default");
    Ok(())
}

pub(super) fn samples_come_by_flow_and_id() -> Result<()> {
    let bulk = Bulk { packets: 20_000, flows: 3, packets_a_flow: None, loss_every: 50, window: 40 };
    let traced = Traced::bulk(&bulk)?;
    let csv = export(&traced.trace, &["--to", "csv"])?.stdout;
    let mut keys = Vec::new();
    for line in csv.lines().skip(1) {
        let mut fields = line.split(',');
        let id: i64 = fields.next().context("no id")?.parse()?;
        keys.push((fields.next().context("no flow")?.parse::<i64>()?, id));
    }
    ensure!(keys.len() == 20_000 && keys.is_sorted(), "{} rows, or not in order", keys.len());
    Ok(())
}

pub(super) fn a_value_of_another_type_is_refused() -> Result<()> {
    let traced = Traced::joined("both_ends_recorded")?;
    traced.db()?.execute("UPDATE packet_rows SET window = 'wide' WHERE id = 2", [])?;
    for arguments in [["--to", "csv"], ["--to", "json"], ["--to", "parquet"]] {
        let out = traced.path("out")?;
        let rest = ["--table", "packets", "-o", &out];
        let said = tcpprobe(&[&["export", &traced.trace][..], &arguments, &rest].concat())?.expect_code(1)?.stderr;
        ensure!(said.contains("damaged trace: a value of `window` is Text, not an integer"), "{said}");
        ensure!(!Path::new(&out).exists(), "{arguments:?} left something");
    }
    Ok(())
}
