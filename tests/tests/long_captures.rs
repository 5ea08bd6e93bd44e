//! Captures that are joined in several batches, through the real command: nothing missing, nothing twice, and killed in
//! the middle the trace is as before.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tcpprobe_fixtures::bulk::{Bulk, Written, write};
use tcpprobe_tests::tools;

const LIMIT: Duration = Duration::from_secs(180);

/// More than a batch.
const BULK: Bulk = Bulk { packets: 150_000, flows: 20, packets_a_flow: None, loss_every: 2_000, window: 40 };

fn recorded(bulk: &Bulk) -> (tempfile::TempDir, Written) {
    let folder = tempfile::tempdir().unwrap();
    let written = write(bulk, folder.path()).unwrap();
    (folder, written)
}

fn tcpprobe(folder: &Path, arguments: &[&str]) -> tools::Finished {
    tools::run(Command::new(tools::tcpprobe().unwrap()).args(arguments).current_dir(folder), LIMIT).unwrap()
}

fn number(folder: &Path, statement: &str) -> u64 {
    let out = tcpprobe(folder, &["sql", "trace.db", statement, "--format", "csv"]).expect_code(0).unwrap().stdout;
    out.lines().nth(1).unwrap().parse().unwrap()
}

fn is_joined_whole(bulk: &Bulk) {
    let (folder, written) = recorded(bulk);
    let folder = folder.path();
    let said = tcpprobe(folder, &["join", "trace.db", "trace.pcap"]).expect_code(0).unwrap().stderr;
    assert!(said.contains("100.000 %"), "{said}");
    for (statement, expected) in [
        ("SELECT count(*) FROM packets WHERE match = 'exact'", written.packets),
        ("SELECT count(*) FROM packets", written.packets),
        ("SELECT count(DISTINCT number) FROM packets", written.packets),
        ("SELECT joined FROM captures", written.packets),
        ("SELECT sum(samples) FROM sample_counts WHERE outcome = 'joined'", written.packets),
        ("SELECT count(*) FROM sample_counts WHERE outcome != 'joined'", 0),
        ("SELECT count(*) FROM samples_without_packet", 0),
        ("SELECT count(*) FROM packets WHERE delay_variation_ns IS NULL OR delay_variation_ns < 0", 0),
    ] {
        assert_eq!(number(folder, statement), expected, "{statement}");
    }
    let verified = tcpprobe(folder, &["verify", "trace.db"]).expect_code(0).unwrap();
    assert!(verified.stdout.contains("no violation") || verified.stderr.contains("no violation"));
    assert!(!folder.join("trace.db-wal").exists(), "the trace is one file again");
    // a packet and a flow are found without a look at the others
    for by in ["capture_id = 1", "flow_id = 1"] {
        let plan = format!("EXPLAIN QUERY PLAN SELECT * FROM packets WHERE {by} AND number = 5");
        let plan = tcpprobe(folder, &["sql", "trace.db", &plan]).expect_code(0).unwrap().stdout;
        assert!(plan.contains("USING INDEX"), "{by}: {plan}");
    }
}

#[test]
fn long_connections_are_joined_whole() {
    is_joined_whole(&BULK);
}

#[test]
fn a_second_join_takes_the_place_of_the_first() {
    let (folder, written) = recorded(&BULK);
    let folder = folder.path();
    let rows =
        |folder| tcpprobe(folder, &["sql", "trace.db", "SELECT * FROM packets ORDER BY number", "--format", "csv"]);
    let without_ids = |rows: tools::Finished| -> Vec<String> {
        let lines = rows.expect_code(0).unwrap().stdout;
        lines.lines().map(|l| l.splitn(3, ',').last().unwrap().to_owned()).collect()
    };
    tcpprobe(folder, &["join", "trace.db", "trace.pcap"]).expect_code(0).unwrap();
    let first = without_ids(rows(folder));
    tcpprobe(folder, &["join", "trace.db", "trace.pcap"]).expect_code(0).unwrap();
    assert_eq!(number(folder, "SELECT count(*) FROM packets"), written.packets);
    assert!(first == without_ids(rows(folder)), "the rows differ");
    // another one beside it
    std::fs::copy(folder.join("trace.pcap"), folder.join("other.pcap")).unwrap();
    tcpprobe(folder, &["join", "trace.db", "other.pcap"]).expect_code(0).unwrap();
    assert_eq!(number(folder, "SELECT count(*) FROM packets"), 2 * written.packets);
}

#[test]
fn one_connection_is_joined_whole() {
    is_joined_whole(&Bulk { flows: 1, window: 500, ..BULK });
}

#[test]
fn many_short_connections_are_joined_whole() {
    is_joined_whole(&Bulk { flows: 300, packets_a_flow: Some(10), ..BULK });
}

#[test]
fn a_join_that_is_killed_leaves_the_trace_as_it_was() {
    let (folder, written) = recorded(&BULK);
    let folder = folder.path();
    let mut join = Command::new(tools::tcpprobe().unwrap())
        .args(["join", "trace.db", "trace.pcap"])
        .current_dir(folder)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // rows are being written when there is something in the log
    let began = Instant::now();
    let log = folder.join("trace.db-wal");
    while !std::fs::metadata(&log).is_ok_and(|m| m.len() > 0) {
        assert!(join.try_wait().unwrap().is_none() && began.elapsed() < LIMIT, "nothing was written");
        std::thread::yield_now();
    }
    join.kill().unwrap();
    join.wait().unwrap();
    assert_eq!(number(folder, "SELECT count(*) FROM captures"), 0);
    assert_eq!(number(folder, "SELECT count(*) FROM packets"), 0);
    assert_eq!(number(folder, "SELECT count(*) FROM samples"), written.samples);
    tcpprobe(folder, &["join", "trace.db", "trace.pcap"]).expect_code(0).unwrap();
    assert_eq!(number(folder, "SELECT count(*) FROM packets"), written.packets);
}
