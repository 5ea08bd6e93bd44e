//! Each format with its units, its clock and its holes.

use tcpprobe_replay::import::{Clock, Error, Format, Options, Refused};

use crate::{import_into, log, options, rows, temp};

const STATE: &str =
    "SELECT flow_id, serial, ts_ns, kind, phase, snd_nxt, snd_una, snd_cwnd, snd_ssthresh, srtt_us, rcv_wnd,
    bytes_in_flight FROM samples ORDER BY mono_ns, id";

#[test]
fn the_module_s_ten_columns() {
    let (_dir, path) = temp();
    let report = import_into(&path, log("tcpprobe-10-columns.log"), &options(None)).unwrap();
    assert_eq!((report.format, report.samples, report.flows), (Format::Tcpprobe, 5, 2));
    assert_eq!((report.clock, report.anchored), (Clock::Log, false));
    let expected = [
        "1 1 0 ack before 268435456 268435256 2 2147483647 - - 200",
        "1 2 24000250 ack before 268436904 268435456 4 2147483647 - - 1448",
        "1 3 24100500 ack before 268439800 268436904 5 2147483647 - - 2896",
        // 30 is three quarters of 40: the threshold itself may be anything below
        "2 1 50000000 ack before 20480 20480 40 - - - 0",
        // of 5 they would be 3: likewise
        "1 4 75000000 ack before 268443648 268439800 5 - - - 3848",
    ];
    assert_eq!(rows(&path, STATE), expected);
    assert_eq!(rows(&path, "SELECT count(*) FROM clocks"), ["0"]);

    let (_dir, path) = temp();
    let start = Options { start_ns: Some(1_400_000_000_000_000_000), hz: Some(250), ..options(None) };
    assert!(import_into(&path, log("tcpprobe-10-columns.log"), &start).unwrap().anchored);
    let sql = "SELECT ts_ns, mono_ns, srtt_us FROM samples WHERE flow_id = 2";
    assert_eq!(rows(&path, sql), ["1400000000050000000 50000000 100000"], "25 ticks of 4 ms");
    assert_eq!(rows(&path, "SELECT started_ns, ended_ns FROM sessions"), ["1400000000000000000 1400000000075000000"]);
}

#[test]
fn the_module_s_eleven_columns() {
    let (_dir, path) = temp();
    import_into(&path, log("tcpprobe-11-columns.log"), &options(None)).unwrap();
    let expected = [
        "1 1 1500 ack before 4294965848 4294965848 10 2147483647 10120 28800 0",
        "1 2 10250000 ack before 1448 4294965848 10 2147483647 10120 28800 2896",
        "1 3 20500000 ack before 2896 0 12 2147483647 10244 28800 2896",
        // 17 is more than three quarters of 23, rounded as the kernel does
        "2 1 20750000 ack before 4096 4096 23 17 10244 29056 0",
        "1 4 31000000 ack before 2896 1448 8 8 10250 28800 1448",
    ];
    assert_eq!(rows(&path, STATE), expected);
    let flows = "SELECT local_addr, local_port, remote_addr, remote_port, family FROM flows ORDER BY id";
    let expected = ["2001:db8::1 443 2001:db8::2 51000 inet6", "192.0.2.1 443 192.0.2.2 51000 inet6"];
    assert_eq!(rows(&path, flows), expected);
}

/// The values of a name in a log of events, read by other means than the importer's.
fn values<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let rest = line.split(&format!(" {name}=")).nth(1)?;
        Some(rest.split(' ').next().unwrap_or(rest))
    })
}

#[test]
fn the_tracepoint_s_text_of_a_real_kernel() {
    for name in ["perf-script-ns.txt", "ftrace.txt"] {
        let text = log(name);
        let (_dir, path) = temp();
        let report = import_into(&path, &text, &options(None)).unwrap();
        assert_eq!((report.format, report.clock), (Format::Event, Clock::Boot), "{name}");
        assert!(report.refused.is_empty() && report.lost == 0, "{name}: {:?}", report.refused);
        for (column, said) in [
            ("snd_cwnd", "snd_cwnd"),
            ("srtt_us", "srtt"),
            ("snd_wnd", "snd_wnd"),
            ("rcv_wnd", "rcv_wnd"),
            ("len", "data_len"),
        ] {
            let expected: Vec<&str> = values(&text, said).collect();
            assert!(expected.len() >= 40, "{name}: only {} lines", expected.len());
            assert_eq!(
                rows(&path, &format!("SELECT {column} FROM samples ORDER BY mono_ns, id")),
                expected,
                "{name}: {column}"
            );
        }
        for column in ["snd_nxt", "snd_una"] {
            let found = rows(&path, &format!("SELECT printf('0x%x', {column}) FROM samples ORDER BY mono_ns, id"));
            assert_eq!(found, values(&text, column).collect::<Vec<_>>(), "{name}: {column}");
        }
        let cookies: Vec<String> = rows(
            &path,
            "SELECT printf('%x', f.cookie) FROM samples s JOIN flows f ON f.id = flow_id ORDER BY mono_ns, s.id",
        );
        assert_eq!(cookies, values(&text, "sock_cookie").collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn perf_s_nanoseconds_are_kept() {
    let text = log("perf-script-ns.txt");
    let (_dir, path) = temp();
    import_into(&path, &text, &options(None)).unwrap();
    let times: Vec<String> = text
        .lines()
        .map(|l| {
            l.split_whitespace().find_map(|w| w.strip_suffix(':').filter(|w| w.contains('.'))).unwrap().replace('.', "")
        })
        .collect();
    assert_eq!(rows(&path, "SELECT mono_ns FROM samples ORDER BY mono_ns, id"), times);
}

const SIFTR: &str =
    "SELECT ts_ns, kind, phase, snd_nxt, snd_cwnd, snd_ssthresh, srtt_us, rto_us, mss, bytes_in_flight, sk_state
    FROM samples ORDER BY mono_ns, id";

#[test]
fn siftr_1_2() {
    let (_dir, path) = temp();
    let report = import_into(&path, log("siftr-1.2.4.log"), &options(None)).unwrap();
    assert_eq!((report.format, report.clock, report.anchored), (Format::Siftr, Clock::Wall, true));
    // srtt / (1000 × 32) s, rto / 1000 s; FreeBSD's infinity is Linux's; 16060 / 1460 = 11
    let expected = [
        "1700000000500000000 send transmit - 10 2147483647 0 1000000 1460 0 2",
        "1700000000600000000 ack before - 10 2147483647 100000 330000 1460 1460 1",
        "1700000000600010000 send transmit - 11 2147483647 100000 330000 1460 0 1",
        "1700000000700000000 ack before - 6 6 100500 330000 1460 16060 1",
    ];
    assert_eq!(rows(&path, SIFTR), expected);
    assert_eq!(rows(&path, "SELECT kernel, lost FROM sessions"), ["FreeBSD 1302001 1"]);
    // of the three that were skipped two had no socket
    assert_eq!(rows(&path, "SELECT cause, count FROM losses"), ["not_logged 1"]);
    assert_eq!(rows(&path, "SELECT snd_wscale, rcv_wscale FROM flows"), ["6 6"]);
}

#[test]
fn siftr_1_3() {
    let (_dir, path) = temp();
    import_into(&path, log("siftr-1.3.0.log"), &options(None)).unwrap();
    let expected = [
        "1700000000600000000 ack before - 10 2147483647 100000 330000 1440 1440 1",
        "1700000000600010000 send transmit - 11 2147483647 100000 330000 1440 0 1",
    ];
    assert_eq!(rows(&path, SIFTR), expected);
}

#[test]
fn what_is_not_understood_is_counted_and_becomes_a_loss() {
    let text = format!("prologue\n\n{}1.0 broken\ntail", log("tcpprobe-11-columns.log"));
    let (_dir, path) = temp();
    let report = import_into(&path, text, &options(None)).unwrap();
    assert_eq!((report.lines, report.samples), (9, 5));
    let refused: Vec<_> = report.refused.into_iter().collect();
    assert_eq!(refused, [(Refused::Foreign, (2, 1)), (Refused::Columns, (1, 8))]);
    assert_eq!(rows(&path, "SELECT cause, count FROM losses"), ["bad_record 3"]);
}

#[test]
fn other_events_are_counted_and_are_no_loss() {
    let other = "x-1 [000] ..... 10.5: sched_switch: prev_comm=a next_comm=b";
    let text = format!("{other}\n{}{other}\n", log("ftrace.txt"));
    let (_dir, path) = temp();
    let report = import_into(&path, text, &options(None)).unwrap();
    assert_eq!(report.refused.into_iter().collect::<Vec<_>>(), [(Refused::OtherEvent, (2, 1))]);
    assert_eq!(rows(&path, "SELECT lost FROM sessions"), ["0"]);
}

#[test]
fn nothing_understood_is_an_error_and_makes_no_trace() {
    for (format, text) in [
        (None, ""),
        (None, "root:x:0:0:root\nmore\n"),
        (Some(Format::Siftr), log("tcpprobe-11-columns.log").as_str()),
        (Some(Format::Tcpprobe), log("ftrace.txt").as_str()),
        (Some(Format::Event), log("siftr-1.2.4.log").as_str()),
    ] {
        let (_dir, path) = temp();
        let error = import_into(&path, text, &options(format)).unwrap_err();
        assert!(matches!(&error, Error::NoSample { lines, .. } if *lines == text.lines().count() as u64), "{error}");
        assert!(!path.exists());
    }
}

#[test]
fn a_second_import_is_a_second_session() {
    let (_dir, path) = temp();
    for expected in 1..=2 {
        let report = import_into(&path, log("siftr-1.3.0.log"), &options(None)).unwrap();
        assert_eq!(report.session_id, expected);
    }
    assert_eq!(rows(&path, "SELECT session_id, count(*) FROM flows GROUP BY 1"), ["1 1", "2 1"]);
    assert_eq!(rows(&path, "SELECT flow_id, count(*) FROM samples GROUP BY 1"), ["1 2", "2 2"]);
}
