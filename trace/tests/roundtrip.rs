//! What is written into a trace is what its views, its reader and any SQLite client read.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rusqlite::Connection;
use tcpprobe_trace::Error;
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::fields::{FIELDS, STATE_COLUMNS, index};
use tcpprobe_trace::query::{Query, Value};
use tcpprobe_trace::reader::TraceReader;
use tcpprobe_trace::sample::{Family, Flow, Kind, LossCause, Phase, Sample, Segment, State};
use tcpprobe_trace::verify;
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

const START: i64 = 5_000_000_000;
const EPOCH: i64 = 1_700_000_000_000_000_000;

fn anchor(mono_ns: i64) -> Anchor {
    Anchor { mono_before_ns: mono_ns - 10, real_ns: mono_ns + EPOCH, mono_after_ns: mono_ns + 10 }
}

fn flow(key: u64) -> Flow {
    Flow {
        key,
        mono_ns: START,
        local: "192.0.2.1:40000".parse().unwrap(),
        remote: "[2001:db8::2]:443".parse().unwrap(),
        family: Family::Inet6,
        netns: 4_026_531_840,
        cookie: Some(77),
        congestion: Some("cubic".into()),
        snd_wscale: None,
        rcv_wscale: None,
    }
}

fn state(values: &[(&str, i64)]) -> State {
    let mut state = State::default();
    for (name, value) in values {
        state.set(FIELDS.iter().position(|f| f.name == *name).unwrap(), Some(*value));
    }
    state
}

fn sample(serial: u64, state: State) -> Sample {
    Sample {
        flow: 1,
        serial,
        mono_ns: START + serial as i64 * 1000,
        kind: Kind::Send,
        phase: Phase::Transmit,
        segment: Some(Segment { seq: 1000, len: 1448, ack: 2000, flags: 0x10, tsval: Some(9), ip_id: Some(0xfffe) }),
        unseen_before: false,
        refused_before: 0,
        error: 0,
        state,
    }
}

fn write(path: &Path, samples: &[Sample], end: &SessionEnd) -> u64 {
    let mut writer = SessionWriter::begin(path, &SessionStart::default(), anchor(START)).unwrap();
    writer.flow(&flow(1), anchor(START + 1)).unwrap();
    let after = anchor(START + 1_000_000);
    for s in samples {
        assert!(writer.sample(s, after).unwrap());
    }
    writer.batch_end(after, true).unwrap();
    writer.finish(end, anchor(START + 2_000_000)).unwrap()
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    (dir, path)
}

fn one(path: &Path, sql: &str) -> Vec<Value> {
    Query::open(path).unwrap().all(sql).unwrap().remove(0)
}

/// The public columns of a state as the contract defines them, computed here by other means than the views do.
fn expected(state: &State) -> Vec<Value> {
    let get = |name: &str| FIELDS.iter().position(|f| f.name == name).and_then(|i| state.get(i));
    STATE_COLUMNS
        .iter()
        .map(|&column| {
            let circle = |a: &str, b: &str| Some(i64::from((get(a)? as u32).wrapping_sub(get(b)? as u32)));
            let value = match column {
                "bytes_in_flight" => circle("snd_nxt", "snd_una"),
                // behind snd_nxt nothing can wait to be sent: a negative distance stays one
                "notsent_bytes" => circle("write_seq", "snd_nxt").map(|d| i64::from(d as u32 as i32)),
                "delivery_rate" => match (get("rate_delivered"), get("mss"), get("rate_interval_us")) {
                    (Some(d), Some(m), Some(i)) if i > 0 => Some(d * m * 1_000_000 / i),
                    _ => None,
                },
                name => get(name),
            };
            value.map_or(Value::Null, Value::Integer)
        })
        .collect()
}

fn any_state() -> impl Strategy<Value = State> {
    prop::collection::vec((any::<bool>(), any::<u32>()), FIELDS.len()).prop_map(|values| {
        let mut state = State::default();
        for (i, (present, value)) in values.into_iter().enumerate() {
            // rates: not larger than what a product of three of them can hold
            let value =
                if FIELDS[i].name.starts_with("rate_") || FIELDS[i].name == "mss" { value >> 16 } else { value };
            let sequence = ["snd_nxt", "snd_una", "write_seq", "rcv_nxt"].contains(&FIELDS[i].name);
            state.set(i, (present || sequence).then_some(i64::from(value)));
        }
        state
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_state_comes_back_through_the_view(
        states in prop::collection::vec(any_state(), 1..6),
        seq: u32, ack: u32, kind in 0u8..4, repeat in 1usize..4,
    ) {
        let (_dir, path) = temp();
        let mut samples = Vec::new();
        // repeated states exercise the rows that are stored once
        for (i, s) in states.iter().flat_map(|s| std::iter::repeat_n(s, repeat)).enumerate() {
            let mut sample = sample(i as u64 + 1, *s);
            sample.kind = Kind::from_code(kind).unwrap();
            sample.segment = (kind != 3).then_some(Segment { seq, len: 7, ack, flags: 0x1ff, tsval: None, ip_id: None });
            samples.push(sample);
        }
        write(&path, &samples, &SessionEnd::default());
        let sql = format!("SELECT {} FROM samples ORDER BY serial", STATE_COLUMNS.join(", "));
        let rows = Query::open(&path).unwrap().all(&sql).unwrap();
        prop_assert_eq!(rows.len(), samples.len());
        for (row, sample) in rows.iter().zip(&samples) {
            prop_assert_eq!(row, &expected(&sample.state));
        }
        // the join's reader agrees with the views
        let read = TraceReader::open(&path).unwrap();
        let id = read.flows().unwrap()[0].id;
        for (row, sample) in read.samples(id).unwrap().iter().zip(&samples) {
            prop_assert_eq!(row.snd_nxt.map(i64::from), sample.state.get(index("snd_nxt")));
            prop_assert_eq!(row.snd_una.map(i64::from), sample.state.get(index("snd_una")));
            prop_assert_eq!(row.has_segment, sample.segment.is_some());
        }
    }
}

fn any_segment() -> impl Strategy<Value = Option<Segment>> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), 0u16..512, any::<Option<u32>>(), any::<Option<u16>>());
    let segment =
        numbers.prop_map(|(seq, len, ack, flags, tsval, ip_id)| Segment { seq, len, ack, flags, tsval, ip_id });
    prop::option::weighted(0.8, segment)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_segment_comes_back_through_view_and_reader(
        taken in prop::collection::vec((any_segment(), 0u8..12, any_state(), any::<i32>(), 0u32..1 << 30, 0u8..3), 1..12),
    ) {
        let (_dir, path) = temp();
        let (mut samples, mut serial, mut mono_ns) = (Vec::new(), 0, START);
        for (segment, code, state, error, later_ns, missing) in taken {
            serial += 1 + u64::from(missing);
            mono_ns += i64::from(later_ns);
            let (kind, phase) = (Kind::from_code(code / 3).unwrap(), Phase::from_code(code % 3).unwrap());
            samples.push(Sample { serial, mono_ns, kind, phase, segment, error, ..sample(serial, state) });
        }
        write(&path, &samples, &SessionEnd::default());
        let number = |n: Option<i64>| n.map_or(Value::Null, Value::Integer);
        let columns = "serial, mono_ns, kind, phase, seq, len, ack, flags, tsval, ip_id, error";
        let rows = Query::open(&path).unwrap().all(&format!("SELECT {columns} FROM samples ORDER BY serial")).unwrap();
        let read = TraceReader::open(&path).unwrap();
        let of_reader = read.samples(read.flows().unwrap()[0].id).unwrap();
        prop_assert_eq!((rows.len(), of_reader.len()), (samples.len(), samples.len()));
        for ((row, read), s) in rows.iter().zip(&of_reader).zip(&samples) {
            let g = s.segment;
            let expected = [
                Value::Integer(s.serial as i64),
                Value::Integer(s.mono_ns),
                Value::Text(s.kind.name().into()),
                Value::Text(s.phase.name().into()),
                number(g.map(|g| g.seq.into())),
                number(g.map(|g| g.len.into())),
                number(g.map(|g| g.ack.into())),
                number(g.map(|g| g.flags.into())),
                number(g.and_then(|g| g.tsval).map(i64::from)),
                number(g.and_then(|g| g.ip_id).map(i64::from)),
                number((s.error != 0).then_some(s.error.into())),
            ];
            prop_assert_eq!(row.as_slice(), expected);
            prop_assert_eq!((read.serial, read.mono_ns, read.kind, read.phase), (s.serial, s.mono_ns, s.kind, s.phase));
            let said = read.has_segment.then_some(Segment {
                seq: read.seq, len: read.len, ack: read.ack, flags: read.flags, tsval: read.tsval, ip_id: read.ip_id,
            });
            prop_assert_eq!((said, read.error), (g, s.error));
            prop_assert_eq!(read.bytes_sent, s.state.get(index("bytes_sent")));
        }
    }
}

#[test]
fn times_are_unix_and_raw_monotonic() {
    let (_dir, path) = temp();
    write(&path, &[sample(1, state(&[("snd_nxt", 1), ("snd_una", 1)]))], &SessionEnd::default());
    assert_eq!(
        one(&path, "SELECT ts_ns, mono_ns FROM samples"),
        [Value::Integer(EPOCH + START + 1000), Value::Integer(START + 1000)]
    );
    assert_eq!(one(&path, "SELECT count(*) FROM clocks"), [Value::Integer(3)]);
}

#[test]
fn a_missing_serial_is_a_loss_of_its_flow() {
    let (_dir, path) = temp();
    let samples = [sample(1, State::default()), sample(5, State::default())];
    let losses = vec![(LossCause::RingFull, 4)];
    let lost = write(&path, &samples, &SessionEnd { losses, ..SessionEnd::default() });
    assert_eq!(lost, 4);
    let rows = Query::open(&path)
        .unwrap()
        .all("SELECT flow_id, after_serial, count, cause FROM losses ORDER BY flow_id IS NULL")
        .unwrap();
    let cause = Value::Text("ring_full".into());
    assert_eq!(
        rows,
        [
            vec![Value::Integer(1), Value::Integer(1), Value::Integer(3), cause.clone()],
            // the kernel counted one more than the holes explain
            vec![Value::Null, Value::Null, Value::Integer(1), cause],
        ]
    );
    assert_eq!(one(&path, "SELECT lost, complete FROM sessions"), [Value::Integer(4), Value::Integer(1)]);
}

#[test]
fn a_session_of_losses_alone_violates_nothing() {
    let (_dir, path) = temp();
    let writer = SessionWriter::begin(&path, &SessionStart::default(), anchor(START)).unwrap();
    let losses = vec![(LossCause::BadRecord, 3)];
    writer.finish(&SessionEnd { losses, ..SessionEnd::default() }, anchor(START + 1_000)).unwrap();
    let mut violations = Vec::new();
    let mut keep = |violation: &verify::Violation| {
        violations.push(violation.text.clone());
        Ok(())
    };
    verify::verify(&path, &mut keep).unwrap();
    assert_eq!(violations, <[String; 0]>::default());
    assert_eq!(one(&path, "SELECT count FROM losses WHERE flow_id IS NULL"), [Value::Integer(3)]);
}

#[test]
fn what_the_kernel_did_not_show_is_a_loss_of_its_own() {
    let (_dir, path) = temp();
    let unseen = |serial| Sample { unseen_before: true, ..sample(serial, State::default()) };
    // 2 was not shown; 4 and 5 found no room, 6 was not shown
    let samples = [sample(1, State::default()), unseen(3), unseen(7)];
    let losses = vec![(LossCause::RingFull, 2), (LossCause::NotShown, 2)];
    assert_eq!(write(&path, &samples, &SessionEnd { losses, ..SessionEnd::default() }), 4);
    let rows = Query::open(&path).unwrap().all("SELECT after_serial, count, cause FROM losses ORDER BY 1").unwrap();
    let text = |t: &str| Value::Text(t.into());
    assert_eq!(
        rows,
        [
            vec![Value::Integer(1), Value::Integer(1), text("not_shown")],
            vec![Value::Integer(3), Value::Integer(2), text("ring_full")],
            vec![Value::Integer(5), Value::Integer(1), text("not_shown")],
        ]
    );
}

#[test]
fn a_refused_lock_is_a_loss_of_its_own() {
    let (_dir, path) = temp();
    let after = |serial, refused_before, unseen_before| Sample {
        refused_before,
        unseen_before,
        ..sample(serial, State::default())
    };
    // 2 was refused; of 4 to 7 one found no room, two were refused, 7 was not shown; 9 was refused, 10 is no hole
    let samples = [sample(1, State::default()), after(3, 1, false), after(8, 2, true), after(10, 7, false)];
    let losses = vec![(LossCause::RingFull, 1), (LossCause::LockRefused, 6), (LossCause::NotShown, 1)];
    assert_eq!(write(&path, &samples, &SessionEnd { losses, ..SessionEnd::default() }), 8);
    let rows = Query::open(&path)
        .unwrap()
        .all("SELECT flow_id, after_serial, count, cause FROM losses ORDER BY flow_id IS NULL, after_serial")
        .unwrap();
    let row = |flow, after, count, cause: &str| {
        let number = |n: Option<i64>| n.map_or(Value::Null, Value::Integer);
        vec![number(flow), number(after), Value::Integer(count), Value::Text(cause.into())]
    };
    assert_eq!(
        rows,
        [
            row(Some(1), Some(1), 1, "lock_refused"),
            row(Some(1), Some(3), 1, "ring_full"),
            row(Some(1), Some(4), 2, "lock_refused"),
            row(Some(1), Some(6), 1, "not_shown"),
            row(Some(1), Some(8), 1, "lock_refused"),
            // what no later sample of the flow tells of
            row(None, None, 2, "lock_refused"),
        ]
    );
}

#[test]
fn a_later_flow_record_fills_in_what_was_not_known() {
    let (_dir, path) = temp();
    let mut writer = SessionWriter::begin(&path, &SessionStart::default(), anchor(START)).unwrap();
    let early = Flow { cookie: None, congestion: None, ..flow(1) };
    writer.flow(&early, anchor(START + 1)).unwrap();
    writer.flow(&Flow { snd_wscale: Some(7), rcv_wscale: Some(10), ..flow(1) }, anchor(START + 2)).unwrap();
    // a later record without a cookie does not take it away
    writer.flow(&early, anchor(START + 3)).unwrap();
    writer.finish(&SessionEnd::default(), anchor(START + 4)).unwrap();
    assert_eq!(
        one(&path, "SELECT local_addr, remote_addr, family, cookie, congestion, snd_wscale, rcv_wscale FROM flows"),
        [
            Value::Text("192.0.2.1".into()),
            Value::Text("2001:db8::2".into()),
            Value::Text("inet6".into()),
            Value::Integer(77),
            Value::Text("cubic".into()),
            Value::Integer(7),
            Value::Integer(10),
        ]
    );
}

#[test]
fn the_end_of_a_connection_is_recorded() {
    let (_dir, path) = temp();
    let mut closing = sample(2, state(&[("sk_state", 7), ("bytes_acked", 123)]));
    closing.kind = Kind::State;
    closing.phase = Phase::After;
    closing.segment = None;
    write(&path, &[sample(1, state(&[("sk_state", 1)])), closing], &SessionEnd::default());
    assert_eq!(
        one(&path, "SELECT closed, last_ns FROM flows"),
        [Value::Integer(1), Value::Integer(EPOCH + START + 2000)]
    );
    assert_eq!(one(&path, "SELECT bytes_acked FROM samples WHERE kind = 'state'"), [Value::Integer(123)]);
}

#[test]
fn a_trace_whose_making_was_interrupted_is_made() {
    let (folder, path) = temp();
    // killed, or on a disk that fails: some pages are there, and the journal that takes them back
    let unfinished = folder.path().join("unfinished.db");
    let db = Connection::open(&unfinished).unwrap();
    db.execute_batch("PRAGMA cache_size = 1; BEGIN; CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(100000))")
        .unwrap();
    std::fs::copy(&unfinished, &path).unwrap();
    let beside = |path: &Path| path.with_extension("db-journal");
    std::fs::copy(beside(&unfinished), beside(&path)).unwrap();
    drop(db);
    assert!(std::fs::metadata(&path).unwrap().len() > 0);
    write(&path, &[sample(1, State::default())], &SessionEnd::default());
    assert_eq!(one(&path, "SELECT count(*) FROM samples"), [Value::Integer(1)]);
}

#[test]
fn a_second_session_leaves_the_first_as_it_is() {
    let (_dir, path) = temp();
    write(&path, &[sample(1, state(&[("snd_cwnd", 10)]))], &SessionEnd::default());
    let everything = "SELECT s.*, f.* FROM samples s JOIN flows f ON f.id = s.flow_id WHERE f.session_id = 1";
    let before = Query::open(&path).unwrap().all(everything).unwrap();
    write(&path, &[sample(1, state(&[("snd_cwnd", 20)]))], &SessionEnd::default());
    assert_eq!(Query::open(&path).unwrap().all(everything).unwrap(), before);
    assert_eq!(one(&path, "SELECT group_concat(snd_cwnd) FROM samples"), [Value::Text("10,20".into())]);
    assert_eq!(one(&path, "SELECT count(*) FROM sessions WHERE complete"), [Value::Integer(2)]);
}

#[test]
fn a_session_that_breaks_off_keeps_what_was_committed() {
    let (_dir, path) = temp();
    let mut writer = SessionWriter::begin(&path, &SessionStart::default(), anchor(START)).unwrap();
    writer.flow(&flow(1), anchor(START)).unwrap();
    writer.sample(&sample(1, State::default()), anchor(START + 5000)).unwrap();
    writer.batch_end(anchor(START + 5000), true).unwrap();
    writer.sample(&sample(2, State::default()), anchor(START + 6000)).unwrap();
    drop(writer);
    assert_eq!(one(&path, "SELECT complete, samples FROM sessions"), [Value::Integer(0), Value::Integer(1)]);
    assert_eq!(one(&path, "SELECT count(*) FROM samples"), [Value::Integer(1)]);
}

/// The reader says up to which moment it has handed over everything, and a processor may be slower than it.
#[test]
fn a_late_sample_has_the_clock_of_its_own_time() {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let (_dir, path) = temp();
    let set = |mono_ns: i64, by_ns: i64| {
        let at = anchor(mono_ns);
        Anchor { real_ns: at.real_ns + by_ns, ..at }
    };
    let mut writer = SessionWriter::begin(&path, &SessionStart::default(), anchor(START)).unwrap();
    writer.flow(&flow(1), anchor(START)).unwrap();
    // that the clock was set forward is noticed at 3,500, that it was set back at 4,500
    let batches: [(Anchor, &[i64]); 4] = [
        (set(START + 1500, 0), &[1000]),
        (set(START + 3500, HOUR_NS), &[2000]),
        (set(START + 4500, 0), &[4000]),
        (set(START + 6000, 0), &[3000, 3600, 5000]),
    ];
    let mut serial = 0;
    for (noticed, samples) in batches {
        for after_ns in samples {
            serial += 1;
            let sample = Sample { mono_ns: START + after_ns, ..sample(serial, State::default()) };
            assert!(writer.sample(&sample, noticed).unwrap());
        }
        writer.batch_end(noticed, true).unwrap();
    }
    writer.finish(&SessionEnd::default(), set(START + 7000, 0)).unwrap();
    let times = Query::open(&path).unwrap().all("SELECT ts_ns FROM samples ORDER BY serial").unwrap();
    let at = |after_ns: i64, by_ns: i64| vec![Value::Integer(EPOCH + START + after_ns + by_ns)];
    assert_eq!(times, [at(1000, 0), at(2000, 0), at(4000, HOUR_NS), at(3000, 0), at(3600, HOUR_NS), at(5000, 0)]);
}

#[test]
fn files_that_are_no_traces_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| Query::open(path).err().unwrap();
    let begin = |path: &Path| SessionWriter::begin(path, &SessionStart::default(), anchor(START)).err().unwrap();

    let text = dir.path().join("text.db");
    std::fs::write(&text, "not a database, but long enough to be taken for one at a glance").unwrap();
    assert!(matches!(open(&text), Error::NotATrace { .. }));
    assert!(matches!(begin(&text), Error::NotATrace { .. }));

    let other = dir.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1").unwrap();
    let bytes = std::fs::read(&other).unwrap();
    assert!(matches!(open(&other), Error::NotATrace { .. }));
    assert!(matches!(begin(&other), Error::NotATrace { .. }));
    assert_eq!(std::fs::read(&other).unwrap(), bytes, "someone else's database");

    let future = dir.path().join("future.db");
    write(&future, &[], &SessionEnd::default());
    Connection::open(&future).unwrap().pragma_update(None, "user_version", 999).unwrap();
    assert!(matches!(open(&future), Error::UnknownVersion { found: 999, .. }));
    assert!(matches!(begin(&future), Error::UnknownVersion { found: 999, .. }));

    assert!(matches!(open(&dir.path().join("none.db")), Error::Missing { .. }));
    assert!(matches!(open(dir.path()), Error::NotATrace { .. }));
    std::fs::write(dir.path().join("empty.db"), "").unwrap();
    assert!(matches!(open(&dir.path().join("empty.db")), Error::NotATrace { .. }));
}

#[test]
fn a_time_that_no_clock_has_is_damage() {
    let (_dir, path) = temp();
    write(&path, &[sample(1, State::default())], &SessionEnd::default());
    Connection::open(&path).unwrap().execute("UPDATE sample_runs SET mono_off = -(1 << 62)", []).unwrap();
    let reader = TraceReader::open(&path).unwrap();
    let id = reader.flows().unwrap()[0].id;
    let error = reader.samples(id).unwrap_err().to_string();
    assert!(error.contains("a sample's time is -"), "{error}");
}

#[test]
fn a_query_reads_and_does_nothing_else() {
    let (dir, path) = temp();
    write(&path, &[sample(1, State::default())], &SessionEnd::default());
    let query = Query::open(&path).unwrap();
    let target = dir.path().join("copy.db");
    for sql in [
        "DELETE FROM sessions",
        "DROP VIEW samples",
        "CREATE TABLE x (y)",
        "PRAGMA user_version = 3",
        "PRAGMA journal_mode = DELETE",
        &format!("ATTACH '{}' AS other", target.display()),
        &format!("VACUUM INTO '{}'", target.display()),
        "INSERT INTO sessions DEFAULT VALUES RETURNING id",
    ] {
        assert!(matches!(query.all(sql), Err(Error::Sql(_))), "{sql}");
    }
    assert!(!target.exists());
    for sql in
        ["PRAGMA user_version", "PRAGMA table_info(sessions)", "SELECT count(*) FROM samples", "EXPLAIN SELECT 1"]
    {
        assert!(query.all(sql).is_ok(), "{sql}");
    }
    let error = query.all("SELECT absent FROM samples").unwrap_err().to_string();
    assert!(error.contains("no such column: absent"), "{error}");
    assert!(query.all("SELECT 1; SELECT 2").is_err(), "one statement at a time");
}

#[test]
fn a_plain_sqlite_client_reads_the_views() {
    let (_dir, path) = temp();
    write(&path, &[sample(1, state(&[("snd_nxt", 1000), ("snd_una", 900)]))], &SessionEnd::default());
    let db = Connection::open(&path).unwrap();
    let row: (String, String, i64) = db
        .query_row("SELECT kind, phase, bytes_in_flight FROM samples", [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .unwrap();
    assert_eq!(row, ("send".into(), "transmit".into(), 100));
}
