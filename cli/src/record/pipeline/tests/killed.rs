//! A recorder that is killed at any moment loses what came in its last second at most, and nothing is there twice.
//!
//! The recorder is this test program in a process of its own: a part of it that does nothing unless it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::record::recover::before_reading;

/// Says which trace the recorder writes, or has recovered.
const RECORD: &str = "TCPPROBE_TEST_RECORD";
const RECOVER: &str = "TCPPROBE_TEST_RECOVER";
/// What the process says when it has begun.
const BEGUN: &str = "-- begun --";

/// Samples a second in bursts, which are too many to be written at once, and between them.
const MANY: u64 = 60_000;
const FEW: u64 = 2_000;
const BURST: Duration = Duration::from_millis(1_200);
const PAUSE: Duration = Duration::from_millis(800);

/// Bursts and pauses in turns, so that the backlog is filled and emptied; samples have the time at which they came.
struct Bursts {
    flood: Flood,
}

impl Bursts {
    fn came(&self) -> u64 {
        let elapsed = self.flood.began.elapsed();
        let both = BURST + PAUSE;
        let turns = (elapsed.as_nanos() / both.as_nanos()) as u32;
        let rest = elapsed - both * turns;
        let many = (BURST * turns + rest.min(BURST)).as_secs_f64() * MANY as f64;
        let few = (PAUSE * turns + rest.saturating_sub(BURST)).as_secs_f64() * FEW as f64;
        (many + few) as u64
    }
}

impl Source for Bursts {
    fn wait(&self, timeout: Duration) -> anyhow::Result<()> {
        std::thread::park_timeout(timeout);
        Ok(())
    }

    fn drain(&mut self, max_bytes: usize, records: &mut Records) -> bool {
        if self.flood.taken == 0 {
            (1..=FLOWS).for_each(|key| push_flow(records, &Flood::flow(key)));
        }
        while records.as_bytes().len() < max_bytes {
            let waiting = self.came() - self.flood.taken;
            if waiting == 0 {
                return false;
            }
            let mono_ns = clock::anchor().mono_before_ns;
            for _ in 0..waiting.min(64) {
                let mut sample = self.flood.sample(self.flood.taken);
                sample.mono_ns = mono_ns;
                push_sample(records, &sample);
                self.flood.taken += 1;
            }
        }
        true
    }

    fn context(&self) -> Vec<u8> {
        synthetic::context()
    }

    fn end_measuring(&mut self) {}

    fn stop(&mut self) -> Vec<Cost> {
        Vec::new()
    }

    fn losses(&self) -> Losses {
        Losses::default()
    }
}

fn say_begun() {
    // not through the test harness, which may keep it
    writeln!(std::io::stderr(), "{BEGUN}").unwrap();
}

#[test]
#[ignore = "the process that another test kills"]
fn process_to_kill() {
    if let Some(trace) = std::env::var_os(RECOVER) {
        say_begun();
        before_reading(Path::new(&trace));
    }
    let Some(trace) = std::env::var_os(RECORD) else { return };
    let trace = Path::new(&trace);
    let claim = before_writing(trace).unwrap();
    let writer = SessionWriter::begin(trace, &SessionStart::default(), clock::anchor()).unwrap();
    let file = claim.begin(&writer.owner()).unwrap();
    let sink = Sink::new(Some(writer), None);
    let (to_writer, from_drain) = backlog(Some(file));
    let source = Bursts { flood: Flood::new(0, None, 0) };
    std::thread::spawn(move || drain(source, to_writer, Pace::new(true), &AtomicBool::new(false)));
    say_begun();
    // no end in order
    Writer::new(sink, Decoder::of_synthetic(), Arc::default()).run(&from_drain).map(drop).unwrap();
}

/// Starts the process, and waits until it has begun.
fn started(what: &str, trace: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "record::pipeline::tests::killed::process_to_kill"]);
    command.env_remove(RECORD).env_remove(RECOVER).env(what, trace);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == BEGUN));
    // what else it says has no reader, and must have room
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// Kills it, with its last moment by CLOCK_MONOTONIC, ns.
fn killed(mut child: Child, after: Duration) -> i64 {
    std::thread::park_timeout(after);
    let at_ns = clock::anchor().mono_before_ns;
    child.kill().unwrap();
    child.wait().unwrap();
    at_ns
}

/// Serials and times of a session's samples, flow by flow.
fn samples(trace: &Path, session_id: i64) -> Vec<Vec<(i64, i64)>> {
    let db = Connection::open(trace).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(check, "ok");
    let complete: i64 =
        db.query_row("SELECT complete FROM sessions WHERE id = ?1", [session_id], |r| r.get(0)).unwrap();
    assert_eq!(complete, 0);
    let mut flows = Vec::new();
    let mut statement = db.prepare("SELECT id FROM flows WHERE session_id = ?1 ORDER BY id").unwrap();
    for flow_id in statement.query_map([session_id], |r| r.get::<_, i64>(0)).unwrap() {
        let mut statement =
            db.prepare_cached("SELECT serial, mono_ns FROM samples WHERE flow_id = ?1 ORDER BY id").unwrap();
        let rows = statement.query_map([flow_id.unwrap()], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        flows.push(rows.map(Result::unwrap).collect());
    }
    let count: i64 = db.query_row("SELECT samples FROM sessions WHERE id = ?1", [session_id], |r| r.get(0)).unwrap();
    assert_eq!(count as usize, flows.iter().map(Vec::len).sum::<usize>());
    flows
}

/// `TCPPROBE_TEST_KILLS` says how often.
#[test]
fn a_killed_recorder_loses_one_second_at_most_and_nothing_is_there_twice() {
    const SECOND_NS: i64 = 1_000_000_000;
    let kills: i64 = std::env::var("TCPPROBE_TEST_KILLS").map_or(4, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.db");
    let mut seed = clock::anchor().real_ns as u64;
    let mut random = |below_ms: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((seed >> 33) % below_ms)
    };
    for session_id in 1..=kills {
        let after = Duration::from_millis(50) + random(3_000);
        let at_ns = killed(started(RECORD, &trace), after);
        // whoever recovers may be killed, too
        let recovered_for = random(300);
        killed(started(RECOVER, &trace), recovered_for);
        before_reading(&trace);
        assert!(!beside(&trace).exists());
        let flows = samples(&trace, session_id);
        if flows.is_empty() && after < Duration::from_millis(900) {
            continue;
        }
        assert_eq!(flows.len(), FLOWS as usize);
        let mut newest_ns = 0;
        for flow in flows {
            // the first one that is missing: the one before it is as old as nothing that is lost
            let missing = flow.iter().zip(1..).position(|((serial, _), expected)| *serial != expected);
            let whole = &flow[..missing.unwrap_or(flow.len())];
            let (_, last_ns) = whole.last().unwrap();
            assert!(
                at_ns - last_ns < SECOND_NS,
                "killed after {after:?}: {} ms of samples are missing",
                (at_ns - last_ns) / 1_000_000
            );
            assert!(flow.windows(2).all(|two| two[0].0 < two[1].0), "twice");
            newest_ns = newest_ns.max(*last_ns);
        }
        eprintln!("killed after {after:?}: all but the last {} ms are there", (at_ns - newest_ns) / 1_000_000);
    }
}
