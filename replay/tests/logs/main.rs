//! Logs of other programs: what is imported is what they say, and what is exported can be imported again.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail like tests")]

mod formats;
mod hostile;
mod round_trip;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tcpprobe_replay::import::{Error, Format, Options, Report, import};
use tcpprobe_trace::import::ImportWriter;
use tcpprobe_trace::query::{Query, Value};

fn log(name: &str) -> String {
    let path = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/logs/{}"), name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    (dir, path)
}

fn options(format: Option<Format>) -> Options {
    Options { format, name: "the log".into(), ..Options::default() }
}

fn import_into(path: &Path, text: impl AsRef<[u8]>, options: &Options) -> Result<Report, Error> {
    let mut writer = ImportWriter::begin(path)?;
    let report = import(text.as_ref(), options, &mut writer, &AtomicBool::new(false))?;
    writer.commit()?;
    Ok(report)
}

/// A query's rows as text: columns separated by a space, NULL as a dash.
fn rows(path: &Path, sql: &str) -> Vec<String> {
    let shown = |v: &Value| match v {
        Value::Null => "-".to_owned(),
        Value::Integer(n) => n.to_string(),
        Value::Text(t) => t.clone(),
        other => format!("{other:?}"),
    };
    let all = Query::open(path).and_then(|q| q.all(sql)).unwrap();
    all.iter().map(|row| row.iter().map(shown).collect::<Vec<_>>().join(" ")).collect()
}
