//! What congestion controls hold inside, from the writer to the views.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::internals::{INTERNALS, Internals, Value as Held, internal};
use tcpprobe_trace::query::{Query, Value};
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, Segment, State};
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

const EPOCH: i64 = 1_700_000_000_000_000_000;
const START: i64 = 5_000_000_000;

fn anchor(mono_ns: i64) -> Anchor {
    Anchor { mono_before_ns: mono_ns - 10, real_ns: mono_ns + EPOCH, mono_after_ns: mono_ns + 10 }
}

/// A trace being written, with the flows 1 and 2.
struct Recording {
    _dir: tempfile::TempDir,
    path: PathBuf,
    writer: SessionWriter,
}

impl Recording {
    fn begin() -> Recording {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let mut writer = SessionWriter::begin(&path, &SessionStart::default(), anchor(START)).unwrap();
        for key in [1, 2] {
            let flow = Flow {
                key,
                mono_ns: START,
                local: format!("192.0.2.1:{key}").parse().unwrap(),
                remote: "192.0.2.2:443".parse().unwrap(),
                family: Family::Inet,
                netns: 1,
                cookie: None,
                congestion: Some("cubic".into()),
                snd_wscale: None,
                rcv_wscale: None,
            };
            writer.flow(&flow, anchor(START)).unwrap();
        }
        Recording { _dir: dir, path, writer }
    }

    fn sample(&mut self, flow: u64, serial: u64) {
        let sample = Sample {
            flow,
            serial,
            mono_ns: START + serial as i64 * 1000,
            kind: Kind::Ack,
            phase: Phase::After,
            segment: Some(Segment { seq: 1, len: 0, ack: 1, flags: 0x10, tsval: None, ip_id: None }),
            unseen_before: false,
            refused_before: 0,
            error: 0,
            state: State::default(),
        };
        assert!(self.writer.sample(&sample, anchor(START + 1_000_000)).unwrap());
    }

    fn internals(&mut self, flow: u64, serial: u64, values: &[(&str, Held)]) {
        self.internals_at(flow, serial, values, anchor(START + 1_000_000));
    }

    fn internals_at(&mut self, flow: u64, serial: u64, values: &[(&str, Held)], now: Anchor) {
        let mut internals = Internals { flow, serial, values: [None; INTERNALS.len()] };
        for (name, value) in values {
            internals.values[internal(name)] = Some(*value);
        }
        assert!(self.writer.internals(&internals, now).unwrap());
    }

    fn rows(self, sql: &str) -> Vec<Vec<Value>> {
        self.writer.finish(&SessionEnd::default(), anchor(START + 2_000_000)).unwrap();
        Query::open(&self.path).unwrap().all(sql).unwrap()
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

use Held::{Integer, MonoNs, Real};

#[test]
fn the_view_shows_values_with_their_sample_and_congestion_control() {
    let mut recording = Recording::begin();
    recording.sample(1, 1);
    recording.sample(2, 1);
    let epoch = MonoNs(START + 700);
    recording.internals(1, 1, &[("cubic_last_max_cwnd", Integer(40)), ("cubic_epoch_start_ns", epoch)]);
    recording.internals(2, 1, &[("bbr_mode", Integer(2)), ("bbr_pacing_gain", Real(1.25))]);
    // the flow gives up its congestion control for another
    recording.sample(1, 2);
    recording.internals(1, 2, &[("dctcp_alpha", Real(0.5))]);
    let rows = recording.rows(
        "SELECT flow_id, serial, ts_ns, congestion, cubic_last_max_cwnd, cubic_epoch_start_ns, bbr_mode, bbr_pacing_gain,
           dctcp_alpha FROM congestion_internals ORDER BY flow_id, serial",
    );
    let int = Value::Integer;
    let (one, two) = (EPOCH + START + 1000, EPOCH + START + 2000);
    let null = || Value::Null;
    assert_eq!(
        rows,
        [
            vec![int(1), int(1), int(one), text("cubic"), int(40), int(EPOCH + START + 700), null(), null(), null()],
            vec![int(1), int(2), int(two), text("dctcp"), null(), null(), null(), null(), Value::Real(0.5)],
            vec![int(2), int(1), int(one), text("bbr"), null(), null(), text("PROBE_BW"), Value::Real(1.25), null()],
        ]
    );
}

const SERIALS: &str = "SELECT serial, cubic_tcp_cwnd FROM congestion_internals WHERE flow_id = 1 ORDER BY serial";

fn pairs(rows: Vec<Vec<Value>>) -> Vec<(i64, i64)> {
    rows.iter()
        .map(|row| match row.as_slice() {
            [Value::Integer(a), Value::Integer(b)] => (*a, *b),
            other => unreachable!("not two integers: {other:?}"),
        })
        .collect()
}

#[test]
fn what_has_not_changed_is_not_stored_again() {
    let mut recording = Recording::begin();
    for (serial, cwnd) in [(1, 10), (2, 10), (3, 11), (4, 10)] {
        recording.sample(1, serial);
        recording.sample(2, serial);
        recording.internals(1, serial, &[("cubic_tcp_cwnd", Integer(cwnd))]);
        recording.internals(2, serial, &[("cubic_tcp_cwnd", Integer(99))]);
    }
    assert_eq!(pairs(recording.rows(SERIALS)), [(1, 10), (3, 11), (4, 10)]);
}

#[test]
fn a_time_that_stays_has_one_unix_time_though_the_clocks_drift() {
    let mut recording = Recording::begin();
    for (serial, drift_ns) in [(1, 0), (2, 300)] {
        recording.sample(1, serial);
        let now = Anchor { real_ns: START + 1_000_000 + EPOCH + drift_ns, ..anchor(START + 1_000_000) };
        let values =
            [("cubic_epoch_start_ns", MonoNs(START + 500_000)), ("cubic_tcp_cwnd", Integer(10 + serial as i64))];
        recording.internals_at(1, serial, &values, now);
    }
    let rows = recording.rows("SELECT count(*), count(DISTINCT cubic_epoch_start_ns) FROM congestion_internals");
    assert_eq!(pairs(rows), [(2, 1)]);
}

#[test]
fn values_find_their_sample_late_and_early() {
    let mut recording = Recording::begin();
    for serial in [1, 2, 3] {
        recording.sample(1, serial);
        recording.sample(2, serial);
    }
    recording.internals(1, 2, &[("cubic_tcp_cwnd", Integer(12))]);
    // sample 5 was lost: 6 is the first of which the values of 5 can be said
    recording.internals(1, 5, &[("cubic_tcp_cwnd", Integer(15))]);
    recording.sample(1, 6);
    recording.sample(1, 8);
    recording.internals(1, 8, &[("cubic_tcp_cwnd", Integer(18))]);
    // held over for 9, and then read with it
    recording.internals(1, 9, &[("cubic_tcp_cwnd", Integer(19))]);
    recording.sample(1, 10);
    recording.internals(1, 10, &[("cubic_tcp_cwnd", Integer(20))]);
    assert_eq!(pairs(recording.rows(SERIALS)), [(2, 12), (6, 15), (8, 18), (10, 20)]);
}

#[test]
fn values_of_a_flow_that_was_never_announced_are_refused() {
    let mut recording = Recording::begin();
    let internals = Internals { flow: 3, serial: 1, values: [None; INTERNALS.len()] };
    assert!(!recording.writer.internals(&internals, anchor(START)).unwrap());
}

#[test]
fn a_packet_has_the_latest_values_of_its_flow() {
    let mut recording = Recording::begin();
    for serial in [1, 2, 3, 4] {
        recording.sample(1, serial);
        recording.sample(2, serial);
        if serial % 2 == 0 {
            recording.internals(1, serial, &[("cubic_tcp_cwnd", Integer(10 + serial as i64))]);
        }
    }
    let path = recording.path.clone();
    recording.writer.commit().unwrap();
    for serial in 1..=4 {
        packet(&path, serial);
    }
    let sql =
        "SELECT number, cubic_tcp_cwnd FROM packets p JOIN packet_internals i ON i.packet_id = p.id ORDER BY number";
    assert_eq!(pairs(recording.rows(sql)), [(2, 12), (3, 12), (4, 14)], "none before the first values");
}

/// A received packet of flow 1 that was joined to the sample of this serial.
fn packet(path: &Path, serial: i64) {
    let sql = "INSERT INTO packet_rows (capture_id, number, flow_id, is_out, seq, ack, len, flags, window, sample_id, match_code)
        SELECT 1, ?1, 1, 0, 1, 1, 0, 16, 0, id, 0 FROM samples WHERE flow_id = 1 AND serial = ?1";
    assert_eq!(Connection::open(path).unwrap().execute(sql, [serial]).unwrap(), 1);
}
