use super::*;
use std::path::PathBuf;

use rusqlite::Connection;
use tcpprobe_probes::synthetic::{self, push_flow, push_sample};
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::fields::index;
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, Segment, State};
use tcpprobe_trace::writer::{SessionEnd, SessionStart};

use crate::record::backlog_file::BacklogFile;

const START_NS: i64 = 1_000_000_000;

fn anchor(mono_ns: i64) -> Anchor {
    Anchor { mono_before_ns: mono_ns, real_ns: 1_700_000_000_000_000_000 + mono_ns, mono_after_ns: mono_ns + 40 }
}

fn flow(key: u64) -> Flow {
    Flow {
        key,
        mono_ns: START_NS,
        local: ([10, 0, 0, key as u8], 443).into(),
        remote: "192.0.2.1:5000".parse().unwrap(),
        family: Family::Inet,
        netns: 1,
        cookie: Some(key),
        congestion: Some("cubic".into()),
        snd_wscale: Some(7),
        rcv_wscale: Some(7),
    }
}

fn sample(flow: u64, serial: u64) -> Sample {
    let mut state = State::default();
    state.set(const { index("snd_cwnd") }, Some(10 + serial as i64 % 64));
    Sample {
        flow,
        serial,
        mono_ns: START_NS.saturating_add_unsigned(serial * 1_000),
        kind: Kind::Send,
        phase: Phase::Transmit,
        segment: Some(Segment { seq: serial as u32, len: 1, ack: 1, flags: 0x10, tsval: None, ip_id: None }),
        unseen_before: false,
        refused_before: 0,
        error: 0,
        state,
    }
}

/// A recorder that is killed when it is dropped.
struct Recorder {
    sink: Sink,
    file: BacklogFile,
    decoder: Decoder,
    now_ns: i64,
}

impl Recorder {
    fn begin(trace: &Path) -> Recorder {
        let writer = SessionWriter::begin(trace, &SessionStart::default(), anchor(START_NS)).unwrap();
        let mut file = BacklogFile::create(&beside(trace)).unwrap();
        file.begin(&writer.owner()).unwrap();
        let sink = Sink::new(Some(writer), None);
        Recorder { sink, file, decoder: Decoder::of_synthetic(), now_ns: START_NS }
    }

    fn batch(&mut self, flows: &[u64], samples: &[Sample]) -> (Records, Anchor) {
        let mut records = Records::default();
        flows.iter().for_each(|&key| push_flow(&mut records, &flow(key)));
        samples.iter().for_each(|s| push_sample(&mut records, s));
        self.now_ns += 10_000_000;
        (records, anchor(self.now_ns))
    }

    /// Records that wait.
    fn waits(&mut self, flows: &[u64], samples: &[Sample]) {
        let (records, after) = self.batch(flows, samples);
        self.file.append(&synthetic::context(), records.as_bytes(), after).unwrap();
    }

    /// Records that are written, the first so many batches of the file with them.
    fn writes(&mut self, flows: &[u64], samples: &[Sample], taken: u64) {
        let (records, after) = self.batch(flows, samples);
        self.sink.take(self.decoder.events(&records), after).unwrap();
        self.sink.taken(taken);
        self.sink.batch_end(after, true).unwrap();
    }
}

fn trace_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("trace.db")
}

fn numbers(trace: &Path, sql: &str) -> Vec<i64> {
    let db = Connection::open(trace).unwrap();
    let mut statement = db.prepare(sql).unwrap();
    let rows = statement.query_map([], |r| r.get::<_, Option<i64>>(0)).unwrap();
    rows.map(|n| n.unwrap().unwrap_or(-1)).collect()
}

const SERIALS: &str = "SELECT serial FROM samples ORDER BY flow_id, id";

fn range(from: u64, to: u64) -> Vec<Sample> {
    (from..to).map(|serial| sample(1, serial)).collect()
}

#[test]
fn what_a_killed_recorder_left_is_added_to_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_in(&folder);
    let mut recorder = Recorder::begin(&trace);
    recorder.writes(&[1], &range(1, 5), 0);
    recorder.waits(&[], &range(5, 8));
    recorder.waits(&[2], &[sample(1, 8), sample(2, 1)]);
    assert!(before_reading(&trace) > 0, "it is alive");
    assert!(before_writing(&trace).is_err());
    assert_eq!(numbers(&trace, SERIALS).len(), 4);
    drop(recorder);
    assert_eq!(before_reading(&trace), 0);
    assert_eq!(numbers(&trace, SERIALS), [1, 2, 3, 4, 5, 6, 7, 8, 1]);
    assert_eq!(numbers(&trace, "SELECT complete FROM sessions"), [0]);
    assert_eq!(numbers(&trace, "SELECT samples FROM sessions"), [9]);
    assert_eq!(numbers(&trace, "SELECT ended_ns FROM sessions"), [-1], "nobody knows");
    assert_eq!(numbers(&trace, "SELECT mono_ns FROM samples WHERE serial = 8"), [START_NS + 8_000]);
    assert_eq!(numbers(&trace, "SELECT count(*) FROM losses"), [0]);
    assert_eq!(numbers(&trace, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'backlog%'"), [0]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["trace.db"], "neither backlog nor log");
    let report = tcpprobe_trace::verify::verify(&trace, &mut |v| panic!("{v:?}")).unwrap();
    assert_eq!(report.violated(), 0);
    drop(before_writing(&trace).unwrap());
}

#[test]
fn what_was_committed_before_its_room_was_given_back_is_not_there_twice() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_in(&folder);
    let mut recorder = Recorder::begin(&trace);
    recorder.waits(&[1], &range(1, 4));
    recorder.waits(&[], &range(4, 6));
    recorder.waits(&[], &range(6, 9));
    // the first two are taken and committed, and the recorder is killed before anything else
    recorder.writes(&[1], &range(1, 6), 2);
    drop(recorder);
    before_reading(&trace);
    assert_eq!(numbers(&trace, SERIALS), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn samples_that_a_copy_has_twice_are_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_in(&folder);
    let mut recorder = Recorder::begin(&trace);
    recorder.waits(&[1], &range(1, 6));
    // written, but the trace does not say that they were taken
    recorder.writes(&[1], &range(1, 4), 0);
    drop(recorder);
    before_reading(&trace);
    assert_eq!(numbers(&trace, SERIALS), [1, 2, 3, 4, 5]);
}

#[test]
fn what_a_session_left_that_has_ended_is_taken_away() {
    for broke_off in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let trace = trace_in(&folder);
        let mut recorder = Recorder::begin(&trace);
        recorder.waits(&[1], &range(1, 4));
        recorder.writes(&[1], &range(1, 4), 1);
        let Recorder { sink, file, now_ns, .. } = recorder;
        sink.finish(&SessionEnd { broke_off, ..SessionEnd::default() }, anchor(now_ns)).unwrap();
        drop(file);
        before_reading(&trace);
        assert_eq!(numbers(&trace, SERIALS), [1, 2, 3]);
        assert_eq!(numbers(&trace, "SELECT complete FROM sessions"), [i64::from(!broke_off)]);
        assert!(!beside(&trace).exists());
    }
}

#[test]
fn a_last_batch_that_was_not_written_to_its_end_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_in(&folder);
    let mut recorder = Recorder::begin(&trace);
    recorder.waits(&[1], &range(1, 4));
    recorder.waits(&[], &range(4, 6));
    drop(recorder);
    let file = std::fs::OpenOptions::new().write(true).open(beside(&trace)).unwrap();
    file.set_len(file.metadata().unwrap().len() - 10).unwrap();
    drop(file);
    drop(before_writing(&trace).unwrap());
    assert_eq!(numbers(&trace, SERIALS), [1, 2, 3]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_batch_costs_its_own_samples_and_the_file_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_in(&folder);
    let mut recorder = Recorder::begin(&trace);
    recorder.waits(&[1], &range(1, 4));
    recorder.waits(&[], &range(4, 6));
    recorder.waits(&[], &range(6, 8));
    drop(recorder);
    let mut bytes = std::fs::read(beside(&trace)).unwrap();
    bytes[2 * 4096 + 300] ^= 1;
    std::fs::write(beside(&trace), &bytes).unwrap();
    drop(before_writing(&trace).unwrap());
    assert_eq!(numbers(&trace, SERIALS), [1, 2, 3, 6, 7]);
    assert_eq!(numbers(&trace, "SELECT sum(count) FROM losses WHERE after_serial = 3"), [2]);
    assert!(!beside(&trace).exists());
    assert_eq!(std::fs::read(folder.path().join("trace.db-backlog-damaged")).unwrap(), bytes);
}

#[test]
fn a_backlog_of_another_trace_stays_and_keeps_nobody_from_reading() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, other) = (trace_in(&folder), folder.path().join("other.db"));
    let mut recorder = Recorder::begin(&other);
    recorder.waits(&[1], &range(1, 4));
    drop(recorder);
    let writer = SessionWriter::begin(&trace, &SessionStart::default(), anchor(START_NS + 1)).unwrap();
    drop(writer);
    std::fs::rename(beside(&other), beside(&trace)).unwrap();
    assert_eq!(before_reading(&trace), 0);
    let error = format!("{:#}", before_writing(&trace).err().unwrap());
    assert!(error.contains("trace.db-backlog") && error.contains("move it"), "{error}");
    assert!(beside(&trace).exists());
    assert_eq!(numbers(&trace, SERIALS), [0; 0]);
}

#[test]
fn records_that_no_sampler_wrote_are_refused_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_in(&folder);
    let mut recorder = Recorder::begin(&trace);
    recorder.writes(&[1], &range(1, 3), 0);
    let impossible = [
        Sample { serial: 0, ..sample(1, 3) },
        Sample { serial: u64::MAX, ..sample(1, 3) },
        Sample { mono_ns: i64::MAX, ..sample(1, 3) },
        Sample { mono_ns: START_NS + (1 << 40), ..sample(1, 3) },
        sample(99, 1),
        sample(1, 3),
    ];
    recorder.waits(&[], &impossible);
    let mut file = Records::default();
    file.push(b"no record");
    file.push(&[0xff; 400]);
    recorder.now_ns += 1;
    recorder.file.append(&synthetic::context(), file.as_bytes(), anchor(recorder.now_ns)).unwrap();
    recorder.file.append(b"no context", file.as_bytes(), anchor(recorder.now_ns)).unwrap();
    // a length that leads out of the batch
    recorder.file.append(&synthetic::context(), &[0xff; 64], anchor(recorder.now_ns)).unwrap();
    drop(recorder);
    before_reading(&trace);
    assert_eq!(numbers(&trace, SERIALS), [1, 2, 3]);
    assert_eq!(numbers(&trace, "SELECT sum(count) FROM losses WHERE cause = 'bad_record'"), [7]);
    assert!(folder.path().join("trace.db-backlog-damaged").exists(), "one batch has no context");
}

#[test]
fn a_trace_has_one_recorder_at_a_time_and_the_second_hears_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_in(&folder);
    let claim = before_writing(&trace).unwrap();
    let error = format!("{:#}", before_writing(&trace).err().unwrap());
    assert!(error.contains(&format!("process {} writes samples into this trace", std::process::id())), "{error}");
    before_writing(&folder.path().join("other.db")).unwrap();
    let writer = SessionWriter::begin(&trace, &SessionStart::default(), anchor(START_NS)).unwrap();
    let file = claim.begin(&writer.owner()).unwrap();
    assert_eq!(before_reading(&trace), 0, "and nothing waits");
    assert!(before_writing(&trace).is_err());
    drop((writer, file));
    before_writing(&trace).unwrap();
    assert!(!beside(&trace).exists(), "a claim of which nothing came leaves nothing");
}

#[test]
fn what_is_in_the_way_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_in(&folder);
    drop(SessionWriter::begin(&trace, &SessionStart::default(), anchor(START_NS)).unwrap());
    std::fs::write(beside(&trace), "notes of mine").unwrap();
    assert_eq!(before_reading(&trace), 0);
    let error = format!("{:#}", before_writing(&trace).err().unwrap());
    assert!(error.contains("trace.db-backlog: not a backlog of tcpprobe") && error.contains("move"), "{error}");
    assert_eq!(std::fs::read(beside(&trace)).unwrap(), b"notes of mine");
}
