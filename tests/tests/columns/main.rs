//! Whole tables as Parquet, CSV and JSON: DuckDB and Python's own modules read from them what SQLite reads from the trace.
//! And graphs for xplot.
//!
//! What needs DuckDB is shown as ignored where there is none.

mod bars;
mod endings;
mod graphs;
mod values;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Completion, Trial};
use tcpprobe_fixtures::bulk::{self, Bulk};
use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_tests::tools::{self, Finished};

const LIMIT: Duration = Duration::from_secs(120);
const TABLES: [&str; 3] = ["samples", "packets", "packet_state"];

type Test = (&'static str, fn() -> Result<()>);

const TESTS: &[Test] = &[
    ("python_reads_the_rows_of_csv_and_json", values::python_reads_the_rows_of_csv_and_json),
    ("hostile_text_comes_through", values::hostile_text_comes_through),
    ("columns_have_units_and_meanings", values::columns_have_units_and_meanings),
    ("a_flow_or_a_session_alone", values::a_flow_or_a_session_alone),
    ("samples_come_by_flow_and_id", values::samples_come_by_flow_and_id),
    ("a_value_of_another_type_is_refused", values::a_value_of_another_type_is_refused),
    ("unknown_flows_and_sessions_are_named", endings::unknown_flows_and_sessions_are_named),
    ("what_exists_is_left_alone", endings::what_exists_is_left_alone),
    ("interrupted_nothing_is_left", endings::interrupted_nothing_is_left),
    ("killed_there_is_no_folder", endings::killed_there_is_no_folder),
    ("a_reader_that_goes_away_is_no_error", endings::a_reader_that_goes_away_is_no_error),
    ("without_packets_their_tables_are_left_out", endings::without_packets_their_tables_are_left_out),
    ("a_graph_has_what_the_samples_have", graphs::a_graph_has_what_the_samples_have),
    ("numbers_that_wrap_go_on_upwards", graphs::numbers_that_wrap_go_on_upwards),
    ("a_folder_has_a_graph_of_each_flow_that_sent", graphs::a_folder_has_a_graph_of_each_flow_that_sent),
    ("a_terminal_shows_a_bar_and_nothing_else_does", bars::a_terminal_shows_a_bar_and_nothing_else_does),
];

const WITH_DUCKDB: &[Test] = &[
    ("duckdb_reads_the_rows_of_each_format", values::duckdb_reads_the_rows_of_each_format),
    (
        "duckdb_reads_folders_of_sessions_and_a_thousand_flows",
        values::duckdb_reads_folders_of_sessions_and_a_thousand_flows,
    ),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let run = |test: fn() -> Result<()>| test().map_err(|e| format!("{e:#}").into());
    let plain = TESTS.iter().map(|&(name, test)| Trial::test(name, move || run(test)));
    let with_duckdb = WITH_DUCKDB.iter().map(|&(name, test)| {
        Trial::ignorable_test(name, move || match &*DUCKDB {
            Some(_) => run(test).map(|()| Completion::Completed),
            None => Ok(Completion::ignored_with("no Python with duckdb: scripts/setup.sh installs it")),
        })
    });
    libtest_mimic::run(&arguments, plain.chain(with_duckdb).collect()).exit_code()
}

/// A Python that has DuckDB: the one that `scripts/setup.sh` makes, or the system's.
static DUCKDB: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python");
    let has_it = |python: &PathBuf| {
        let probe = tools::run(Command::new(python).args(["-c", "import duckdb"]), LIMIT);
        probe.is_ok_and(|f| f.status.success())
    };
    [own, PathBuf::from("python3")].into_iter().find(has_it)
});

fn tcpprobe(arguments: &[&str]) -> Result<Finished> {
    tools::run(Command::new(tools::tcpprobe()?).args(arguments), LIMIT)
}

fn export(trace: &str, arguments: &[&str]) -> Result<Finished> {
    tcpprobe(&[&["export", trace], arguments].concat())?.expect_code(0)
}

/// A folder with a trace.
struct Traced {
    folder: tempfile::TempDir,
    trace: String,
}

impl Traced {
    /// A scenario, joined to its capture.
    fn joined(scenario: &str) -> Result<Traced> {
        let traced = Traced::recorded(scenario)?;
        tcpprobe(&["join", &traced.trace, &traced.path("trace.pcap")?])?.expect_code(0)?;
        Ok(traced)
    }

    /// The same without a join.
    fn recorded(scenario: &str) -> Result<Traced> {
        let traced = Traced::new()?;
        let file = format!("{}/../fixtures/scenarios/{scenario}.toml", env!("CARGO_MANIFEST_DIR"));
        let scenario = Scenario::load(Path::new(&file))?;
        scenario.write_trace(Path::new(&traced.trace))?;
        scenario.write_capture(Path::new(&traced.path("trace.pcap")?))?;
        Ok(traced)
    }

    /// A long recording, joined.
    fn bulk(bulk: &Bulk) -> Result<Traced> {
        let traced = Traced::new()?;
        bulk::write(bulk, traced.folder.path()).map_err(|e| anyhow::anyhow!("{e}"))?;
        tcpprobe(&["join", &traced.trace, &traced.path("trace.pcap")?])?.expect_code(0)?;
        Ok(traced)
    }

    fn new() -> Result<Traced> {
        let folder = tempfile::tempdir()?;
        let trace = folder.path().join("trace.db").to_str().context("path")?.to_owned();
        Ok(Traced { folder, trace })
    }

    fn path(&self, name: &str) -> Result<String> {
        Ok(self.folder.path().join(name).to_str().context("path")?.to_owned())
    }

    /// Names of what is in the folder.
    fn names(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(self.folder.path())?;
        let mut names =
            entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn db(&self) -> Result<rusqlite::Connection> {
        Ok(rusqlite::Connection::open(&self.trace)?)
    }
}
