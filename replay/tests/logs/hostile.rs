//! Whatever the bytes are: no panic, every line accounted for, and nothing in the trace that a log did not say.

use proptest::prelude::*;
use tcpprobe_replay::import::{Error, Format, Refused};

use crate::{import_into, log, options, rows, temp};

fn formats() -> impl Strategy<Value = Option<Format>> {
    prop::sample::select(vec![None, Some(Format::Tcpprobe), Some(Format::Event), Some(Format::Siftr)])
}

/// Real lines, with pieces of others put into them.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let logs =
        ["ftrace.txt", "tcpprobe-10-columns.log", "tcpprobe-11-columns.log", "siftr-1.2.4.log", "siftr-1.3.0.log"];
    let lines: Vec<String> =
        logs.iter().flat_map(|n| log(n).lines().take(20).map(str::to_owned).collect::<Vec<_>>()).collect();
    let pieces = [
        "",
        "0",
        "-1",
        "4294967296",
        "99999999999999999999",
        "0x",
        "=",
        ",",
        ":",
        " ",
        "\t",
        "::",
        "]",
        "\u{0}",
        "é",
        "\n",
        "18446744073709551615.999999999",
        "4200000000.999999999",
        "src=",
        "tcp_probe:",
        "1.1: tcp_probe:",
        "LOST 9 EVENTS",
    ];
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::sample::select(pieces.to_vec()));
    let line = (prop::sample::select(lines), prop::collection::vec(change, 0..4)).prop_map(|(line, changes)| {
        let mut bytes = line.into_bytes();
        for (from, to, piece) in changes {
            let (from, to) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
            let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 12));
            bytes.splice(from..to, piece.bytes());
        }
        bytes.push(b'\n');
        bytes
    });
    prop::collection::vec(line, 0..30).prop_map(|lines| lines.concat())
}

fn check(bytes: &[u8], format: Option<Format>) {
    let (_dir, path) = temp();
    match import_into(&path, bytes, &options(format)) {
        Ok(report) => {
            let refused: u64 = report.refused.values().map(|(n, _)| n).sum();
            assert!(report.samples + refused <= report.lines, "{report:?}");
            assert!(report.refused.values().all(|(_, line)| (1..=report.lines).contains(line)));
            let bad: u64 =
                report.refused.iter().filter(|(why, _)| **why != Refused::OtherEvent).map(|(_, (n, _))| n).sum();
            let sql =
                "SELECT samples, lost, (SELECT count(*) FROM samples), (SELECT count(*) FROM flows) FROM sessions";
            let expected = format!(
                "{0} {1} {0} {2}",
                report.samples,
                bad.saturating_add(report.lost).min(i64::MAX as u64),
                report.flows
            );
            assert_eq!(rows(&path, sql), [expected]);
            let gaps = "SELECT count(*) FROM (SELECT flow_id FROM samples GROUP BY 1 HAVING max(serial) <> count(*))";
            assert_eq!(rows(&path, gaps), ["0"]);
        }
        Err(Error::NoSample { .. }) => assert!(!path.exists()),
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000), format in formats()) {
        check(&bytes, format);
    }

    #[test]
    fn mangled_lines(bytes in mangled(), format in formats()) {
        check(&bytes, format);
    }
}

#[test]
fn a_line_without_an_end_takes_no_memory() {
    let mut bytes = log("tcpprobe-11-columns.log").into_bytes();
    bytes.extend(std::iter::repeat_n(b'1', 4 << 20));
    let (_dir, path) = temp();
    let report = import_into(&path, bytes, &options(None)).unwrap();
    assert_eq!(report.samples, 5);
    assert_eq!(report.refused.into_iter().collect::<Vec<_>>(), [(Refused::TooLong, (1, 6))]);
}
