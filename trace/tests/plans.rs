//! Views find a flow's samples, and one sample, without looking at the others; parts of a flow are the whole.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::fields::index;
use tcpprobe_trace::reader::{FlowRow, Part, Sacked, SampleRow, TraceReader};
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, Segment, State};
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

const START: i64 = 5_000_000_000;

fn anchor(mono_ns: i64) -> Anchor {
    Anchor { mono_before_ns: mono_ns, real_ns: mono_ns + 1_700_000_000_000_000_000, mono_after_ns: mono_ns }
}

fn flow(key: u64) -> Flow {
    Flow {
        key,
        mono_ns: START,
        local: "192.0.2.1:40000".parse().unwrap(),
        remote: "192.0.2.2:443".parse().unwrap(),
        family: Family::Inet,
        netns: 1,
        cookie: None,
        congestion: None,
        snd_wscale: None,
        rcv_wscale: None,
    }
}

/// Two flows taking turns, with a hole in the serials now and then, and a commit.
fn sample(flow: u64, n: u64) -> Sample {
    let serial = n + n / 100;
    let at = (n as u32).wrapping_mul(100_000_000);
    let mut state = State::default();
    for (field, value) in [
        (const { index("snd_nxt") }, i64::from(at)),
        (const { index("snd_una") }, i64::from(at.wrapping_sub(1448))),
        (const { index("rcv_nxt") }, i64::from(at)),
        (const { index("bytes_received") }, n as i64 * 100_000_000),
    ] {
        state.set(field, Some(value));
    }
    Sample {
        flow,
        serial,
        mono_ns: START + n as i64 * 40_000,
        kind: if n.is_multiple_of(2) { Kind::Send } else { Kind::Ack },
        phase: if n.is_multiple_of(2) { Phase::Transmit } else { Phase::Before },
        segment: Some(Segment { seq: at, len: 1448, ack: at, flags: 0x18, tsval: Some(9), ip_id: Some(n as u16) }),
        unseen_before: false,
        refused_before: 0,
        error: if n == 77 { 11 } else { 0 },
        state,
    }
}

fn trace() -> (tempfile::TempDir, PathBuf, u64) {
    const SAMPLES: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let mut writer = SessionWriter::begin(&path, &SessionStart::default(), anchor(START)).unwrap();
    for key in 1..=2 {
        writer.flow(&flow(key), anchor(START)).unwrap();
    }
    let now = anchor(START + 1_000_000_000);
    for n in 1..=SAMPLES {
        for key in 1..=2 {
            writer.sample(&sample(key, n), now).unwrap();
        }
        if n % 700 == 0 {
            writer.batch_end(now, true).unwrap();
        }
    }
    writer.finish(&SessionEnd::default(), now).unwrap();
    (dir, path, SAMPLES)
}

fn plan(path: &Path, sql: &str) -> String {
    let db = Connection::open(path).unwrap();
    let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let steps = statement.query_map([], |r| r.get::<_, String>(3)).unwrap();
    steps.collect::<Result<Vec<_>, _>>().unwrap().join("\n")
}

#[test]
fn no_table_is_read_through_for_one_flow_or_one_sample() {
    let (_dir, path, _) = trace();
    for sql in [
        "SELECT * FROM samples WHERE flow_id = 1",
        "SELECT ts_ns, snd_cwnd, snd_nxt FROM samples WHERE flow_id = 1 ORDER BY serial",
        "SELECT snd_cwnd FROM samples WHERE flow_id = 1 AND id <= 70 ORDER BY id DESC LIMIT 40",
        "SELECT * FROM samples WHERE id = 70",
        "SELECT * FROM packet_state WHERE flow_id = 1",
        "SELECT * FROM packet_state WHERE number = 1",
        "SELECT * FROM packets WHERE capture_id = 1 AND number BETWEEN 1 AND 9 ORDER BY number",
        "SELECT * FROM ack_effects WHERE flow_id = 1",
        "SELECT * FROM ack_effects WHERE before_id = 70",
        "SELECT * FROM congestion_internals WHERE flow_id = 1",
        "SELECT s.snd_cwnd FROM packets p JOIN samples s ON s.id = p.sample_id WHERE p.flow_id = 1",
    ] {
        let plan = plan(&path, sql);
        assert!(!plan.contains("SCAN"), "{sql}\n{plan}");
    }
}

fn between(reader: &TraceReader, flow: &FlowRow, first_id: i64, last_id: i64) -> Vec<SampleRow> {
    reader.samples_of(&[Part { flow, ids: (first_id, last_id), sacked: Sacked::No }]).unwrap().concat()
}

#[test]
fn samples_are_the_same_where_pages_cannot_be_read() {
    let (_dir, path, _) = trace();
    let samples = || {
        let reader = TraceReader::open(&path).unwrap();
        let flows = reader.flows().unwrap();
        let parts = flows.iter().map(|flow| Part { flow, ids: (i64::MIN, i64::MAX), sacked: Sacked::Segments });
        reader.samples_of(&parts.collect::<Vec<_>>()).unwrap()
    };
    let from_pages = samples();
    // tables that are not quite what the schema makes them are left to SQL
    let db = Connection::open(&path).unwrap();
    for table in ["sample_rows", "ack_rows", "seldom_rows"] {
        db.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN something")).unwrap();
    }
    assert_eq!(samples(), from_pages);
}

#[test]
fn flows_that_are_read_together_are_those_that_are_read_alone() {
    let (_dir, path, _) = trace();
    let reader = TraceReader::open(&path).unwrap();
    let flows = reader.flows().unwrap();
    let whole = |flow| Part { flow, ids: (i64::MIN, i64::MAX), sacked: Sacked::Segments };
    let together = reader.samples_of(&flows.iter().map(whole).collect::<Vec<_>>()).unwrap();
    assert_eq!(together.len(), flows.len());
    for (flow, samples) in flows.iter().zip(together) {
        assert_eq!(reader.samples_of(&[whole(flow)]).unwrap(), [samples]);
    }
}

#[test]
fn parts_of_a_flow_are_the_whole() {
    let (_dir, path, count) = trace();
    let reader = TraceReader::open(&path).unwrap();
    for flow in reader.flows().unwrap() {
        let whole = reader.samples(flow.id).unwrap();
        assert_eq!(whole.len() as u64, count);
        for (row, n) in whole.iter().zip(1..) {
            let was = sample(1, n);
            let segment = was.segment.unwrap();
            assert_eq!((row.serial, row.mono_ns, row.kind, row.error), (was.serial, was.mono_ns, was.kind, was.error));
            assert_eq!((row.seq, row.ack, row.flags), (segment.seq, segment.ack, segment.flags));
            assert_eq!((row.tsval, row.ip_id), (segment.tsval, segment.ip_id));
            assert_eq!(row.rcv_position, Some(n as i64 * 100_000_000));
        }
        let ids: Vec<i64> = whole.iter().map(|s| s.id).collect();
        for of in [1, 500, ids.len()] {
            for (part, rows) in ids.chunks(of).zip(whole.chunks(of)) {
                let read = between(&reader, &flow, part[0], part[part.len() - 1]);
                // rounds of the peer's numbers are counted from the first sample that was read
                let alike = |s: &SampleRow| SampleRow { rcv_position: s.rcv_position.map(|p| p % (1 << 32)), ..*s };
                assert!(read.iter().map(alike).eq(rows.iter().map(alike)));
            }
        }
        assert_eq!(between(&reader, &flow, i64::MIN, ids[0] - 1), []);
        assert_eq!(between(&reader, &flow, ids[ids.len() - 1] + 1, i64::MAX), []);
    }
}

#[test]
fn landmarks_are_samples_of_their_flows_in_order() {
    let (_dir, path, count) = trace();
    let reader = TraceReader::open(&path).unwrap();
    let flows = reader.flows().unwrap();
    let session_of = |id| flows.iter().find(|f| f.id == id).map(|f| f.session_id);
    let mut found = Vec::new();
    let all = i64::MIN..=i64::MAX;
    reader.landmarks(&all, session_of, |flow, sample| found.push((flow, *sample))).unwrap();
    // the same piece by piece
    for (samples, most_pieces) in [(1, u64::MAX), (200, count * flows.len() as u64 / 200 + 1), (u64::MAX, 1)] {
        let pieces = reader.pieces(samples).unwrap();
        assert!(pieces.len() as u64 <= most_pieces, "{} pieces of {samples}", pieces.len());
        assert!(samples > 200 || pieces.len() > 3, "{} pieces of {samples}", pieces.len());
        let mut by_piece = Vec::new();
        for begins in pieces {
            reader.landmarks(&begins, session_of, |flow, sample| by_piece.push((flow, *sample))).unwrap();
        }
        assert_eq!(by_piece, found, "by {samples}");
    }
    let expected = count * flows.len() as u64 / 64;
    assert!((expected / 2..=expected * 2).contains(&(found.len() as u64)), "{} of {expected}", found.len());
    assert!(found.is_sorted_by_key(|(_, s)| s.id));
    for (flow, mark) in found {
        let own = between(&reader, flows.iter().find(|f| f.id == flow).unwrap(), mark.id, mark.id);
        assert_eq!(own, [mark]);
    }
}

#[test]
fn a_run_that_claims_more_samples_than_any_has_is_damage() {
    let (_dir, path, _) = trace();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE sample_runs SET last_id = 9223372036854775807 WHERE first_id = 1", []).unwrap();
    drop(db);
    let error =
        TraceReader::open(&path).unwrap().landmarks(&(i64::MIN..=i64::MAX), |_| Some(1), |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("a run of samples from 1 to"), "{error}");
}
