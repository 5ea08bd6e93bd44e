//! A trace is an ordinary SQLite file: the `sqlite3` command and Python's module read from every table and view what
//! `tcpprobe sql` reads. And joins that fail, are repeated, or meet a truncated capture, through the real command.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_tests::tools;

const LIMIT: Duration = Duration::from_secs(30);
const CONTRACT: [&str; 8] = ["sessions", "flows", "samples", "losses", "clocks", "captures", "packets", "packet_state"];

/// A trace and its capture, not yet joined.
fn recorded() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (trace, capture) = (folder.path().join("trace.db"), folder.path().join("trace.pcap"));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/scenarios/hole.toml");
    let scenario = Scenario::load(Path::new(file)).unwrap();
    scenario.write_trace(&trace).unwrap();
    scenario.write_capture(&capture).unwrap();
    (folder, trace, capture)
}

fn stdout(command: &mut Command) -> String {
    tools::run(command, LIMIT).unwrap().expect_code(0).unwrap().stdout
}

fn tcpprobe(arguments: &[&str]) -> tools::Finished {
    tools::run(Command::new(tools::tcpprobe().unwrap()).args(arguments), LIMIT).unwrap()
}

fn sql(trace: &Path, statement: &str) -> String {
    tcpprobe(&["sql", trace.to_str().unwrap(), statement, "--format", "csv"]).expect_code(0).unwrap().stdout
}

#[test]
fn every_table_reads_the_same_in_sqlite3_and_python() {
    let (_folder, trace, capture) = recorded();
    tcpprobe(&["join", trace.to_str().unwrap(), capture.to_str().unwrap()]).expect_code(0).unwrap();
    let python = "import csv, sqlite3, sys
out = csv.writer(sys.stdout, lineterminator='\\n')
cursor = sqlite3.connect(sys.argv[1]).execute(sys.argv[2])
out.writerow(c[0] for c in cursor.description)
out.writerows(cursor)";
    for table in CONTRACT {
        let statement = format!("SELECT * FROM {table}");
        let ours = sql(&trace, &statement);
        assert!(ours.lines().count() > 1, "{table} is empty");
        let cli = stdout(Command::new("sqlite3").args(["-csv", "-header"]).arg(&trace).arg(&statement));
        assert_eq!(cli.replace(['\r', '"'], ""), ours.replace('"', ""), "sqlite3: {table}");
        let module = stdout(Command::new("python3").args(["-c", python]).arg(&trace).arg(&statement));
        assert_eq!(module, ours, "python: {table}");
    }
}

#[test]
fn joining_again_replaces_and_changes_nothing() {
    let (_folder, trace, capture) = recorded();
    let join = || tcpprobe(&["join", trace.to_str().unwrap(), capture.to_str().unwrap()]).expect_code(0).unwrap();
    join();
    let columns = "SELECT number, flow_id, dir, match, sample_id, delay_ns FROM packets ORDER BY number, flow_id, dir";
    let before = sql(&trace, columns);
    join();
    assert_eq!(sql(&trace, columns), before);
    assert_eq!(sql(&trace, "SELECT count(*) FROM captures"), "count(*)\n1\n");
}

#[test]
fn a_compressed_capture_is_joined_like_the_plain_one() {
    let (folder, trace, capture) = recorded();
    let rows = "SELECT number, ts_ns, flow_id, dir, match, sample_id, delay_ns FROM packets
                WHERE capture_id = (SELECT max(id) FROM captures) ORDER BY number, flow_id, dir";
    let join = |capture: &Path| {
        tcpprobe(&["join", trace.to_str().unwrap(), capture.to_str().unwrap()]).expect_code(0).unwrap();
        sql(&trace, rows)
    };
    let plain = join(&capture);
    assert!(plain.lines().count() > 3, "{plain}");
    let bytes = std::fs::read(&capture).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&bytes).unwrap();
    // what a file is its first bytes say, not its name
    for (name, packed) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd::encode_all(&bytes[..], 3).unwrap())] {
        let file = folder.path().join(name);
        std::fs::write(&file, &packed).unwrap();
        assert_eq!(join(&file), plain, "{name}");
        std::fs::write(&file, &packed[..packed.len() - 9]).unwrap();
        let finished = tcpprobe(&["join", trace.to_str().unwrap(), file.to_str().unwrap()]);
        match name {
            "gzip" => {
                let said = finished.expect_code(0).unwrap().stderr;
                assert!(said.contains("the file ends within a record, after packet"), "{said}");
            }
            // so small a file is one block, of which a part is nothing
            _ => {
                let said = finished.expect_code(1).unwrap().stderr;
                assert!(said.contains("the compressed file ends before its first frame"), "{said}");
            }
        }
    }
}

#[test]
fn a_truncated_capture_is_joined_as_far_as_it_goes() {
    let (_folder, trace, capture) = recorded();
    let bytes = std::fs::read(&capture).unwrap();
    std::fs::write(&capture, &bytes[..bytes.len() - 3]).unwrap();
    let finished = tcpprobe(&["join", trace.to_str().unwrap(), capture.to_str().unwrap()]).expect_code(0).unwrap();
    assert!(finished.stderr.contains("the file ends within a record, after packet"), "{}", finished.stderr);
    let whole: u64 = sql(&trace, "SELECT packets FROM captures").lines().nth(1).unwrap().parse().unwrap();
    assert!(whole > 0);
    assert_eq!(
        sql(&trace, "SELECT truncated, max(number) FROM captures, packets"),
        format!("truncated,max(number)\n1,{whole}\n")
    );
}

#[test]
fn a_join_that_fails_leaves_the_trace_as_it_was() {
    let (folder, trace, capture) = recorded();
    let before = std::fs::read(&trace).unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "no capture, but long enough to have a magic number").unwrap();
    // the first capture is good: it must not be kept either
    let arguments = ["join", trace.to_str().unwrap(), capture.to_str().unwrap(), text.to_str().unwrap()];
    let finished = tcpprobe(&arguments).expect_code(1).unwrap();
    assert!(finished.stderr.contains("notes.txt: not a pcap or pcapng capture"), "{}", finished.stderr);
    assert_eq!(std::fs::read(&trace).unwrap(), before);
}
