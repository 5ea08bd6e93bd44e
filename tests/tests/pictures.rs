//! `tcpprobe plot` on recordings that are made up: what a reader of the picture would miss.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tcpprobe_fixtures::bulk::{Bulk, write};
use tcpprobe_tests::tools;

const LIMIT: Duration = Duration::from_secs(120);
const BULK: Bulk = Bulk { packets: 8_000, flows: 2, packets_a_flow: None, loss_every: 500, window: 40 };
/// What is red.
const AGAIN: &str = "#D6271E";

fn tcpprobe(folder: &Path, arguments: &[&str]) -> tools::Finished {
    tools::run(Command::new(tools::tcpprobe().unwrap()).args(arguments).current_dir(folder), LIMIT).unwrap()
}

fn recorded(joined: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&BULK, folder.path()).unwrap();
    if joined {
        tcpprobe(folder.path(), &["join", "trace.db", "trace.pcap"]).expect_code(0).unwrap();
    }
    folder
}

fn svg(folder: &Path, arguments: &[&str]) -> String {
    let all = [&["plot", "trace.db", "-o", "-", "--format", "svg"], arguments].concat();
    tcpprobe(folder, &all).expect_code(0).unwrap().stdout
}

fn number(folder: &Path, statement: &str) -> usize {
    let out = tcpprobe(folder, &["sql", "trace.db", statement, "--format", "csv"]).expect_code(0).unwrap().stdout;
    out.lines().nth(1).unwrap().parse().unwrap()
}

/// Upright red lines: the bars of what was sent again.
fn red_bars(svg: &str) -> usize {
    let bars = svg.lines().filter(|l| l.contains("<polyline") && l.contains(AGAIN));
    bars.filter(|l| {
        let points = l.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let xs: Vec<&str> = points.split_whitespace().map(|p| p.split(',').next().unwrap()).collect();
        xs.len() == 2 && xs[0] == xs[1]
    })
    .count()
}

#[test]
fn every_retransmission_is_red_with_packets_and_without() {
    for joined in [true, false] {
        let folder = recorded(joined);
        let folder = folder.path();
        let expected = number(
            folder,
            "SELECT count(*) FROM samples WHERE flow_id = 1 AND kind = 'retransmit' AND phase = 'transmit'",
        );
        assert!(expected >= 3, "the recording has losses");
        let picture = svg(folder, &["--flow", "1"]);
        assert_eq!(red_bars(&picture), expected, "joined: {joined}");
        assert_eq!(picture.contains("no capture joined"), !joined, "the picture says what it is made of");
        for word in
            ["sequence number (MB)", "retransmission", "receive window", "cwnd", "RTT (ms)", "rate (", "Recovery"]
        {
            assert!(picture.contains(word), "{word}, joined: {joined}");
        }
    }
}

#[test]
fn a_range_is_all_that_is_shown() {
    let folder = recorded(true);
    let whole = svg(folder.path(), &["--flow", "1"]);
    let part = svg(folder.path(), &["--flow", "1", "--x", "0.001..0.002"]);
    assert!(red_bars(&part) < red_bars(&whole));
    let none = ["plot", "trace.db", "-o", "x.svg", "--flow", "1", "--x", "1000.."];
    let said = tcpprobe(folder.path(), &none).expect_code(1).unwrap().stderr;
    assert!(said.contains("--x"), "{said}");
    assert!(!folder.path().join("x.svg").exists(), "no half a picture");
}

#[test]
fn flows_stand_beside_each_other_and_a_png_is_one() {
    let folder = recorded(true);
    let both = svg(folder.path(), &["--flow", "1", "--flow", "2"]);
    assert!(both.contains("Flow 1: ") && both.contains("Flow 2: "));
    tcpprobe(folder.path(), &["plot", "trace.db", "--flow", "1", "-o", "flow.png"]).expect_code(0).unwrap();
    let png = std::fs::read(folder.path().join("flow.png")).unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let again = tcpprobe(folder.path(), &["plot", "trace.db", "--flow", "1", "-o", "flow.png"]).expect_code(1).unwrap();
    assert!(again.stderr.contains("never overwritten"), "{}", again.stderr);
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let folder = recorded(false);
    for (arguments, word) in [
        (&["--flow", "99", "-o", "a.svg"][..], "no flow 99"),
        (&["--flow", "1", "-o", "a.gif"], ".svg, .png or .html"),
        (&["--flow", "1", "-o", "-"], "--format"),
    ] {
        let said = tcpprobe(folder.path(), &[&["plot", "trace.db"], arguments].concat()).expect_code(1).unwrap().stderr;
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn text_of_a_trace_is_text_in_the_picture() {
    let folder = recorded(false);
    let trace = rusqlite::Connection::open(folder.path().join("trace.db")).unwrap();
    trace.execute("UPDATE flows SET congestion = '<script>alert(1)</script>' || char(7)", []).unwrap();
    drop(trace);
    let picture = svg(folder.path(), &["--flow", "1"]);
    assert!(!picture.contains("<script") && picture.contains("&lt;script&gt;") && !picture.contains('\u{7}'));
}
