//! `tcpprobe verify` must be able to fail: a trace that is right, damaged in one place, and the check that has to see it.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rusqlite::Connection;
use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_replay::join::{Batching, join};
use tcpprobe_trace::join::JoinWriter;
use tcpprobe_trace::verify::{JOIN, RECORDING, Report, Violation, verify};
use tempfile::TempDir;

/// A client from SYN to close with a super-packet, a lost sample, a retransmission, ACKs and a FIN; its peer as far as
/// it matters for frames that both have. All counters are what the kernel would have counted.
const WORLD: &str = r#"
title = "A connection with a bit of everything"
why = "The ground for damage."
link = "LINUX_SLL2"
flows = """
a  10.0.0.1:40000 > 10.0.0.2:80  isn=1000/90000
b  10.0.0.2:80 > 10.0.0.1:40000  isn=90000/1000
"""
samples = """
a1    0.00  send             0  S            ts=100  sk_state=2 packets_out=1 segs_out=1 write_seq=1001 bytes_sent=0 bytes_acked=0 bytes_retrans=0 sacked_out=0 lost_out=0 retrans_out=0 delivered=0 lost=0
a2    1.00  state            0  S. ack=1             sk_state=1 packets_out=0 bytes_acked=1 delivered=1
a3    1.01  send             1  .  ack=1     ts=101  segs_out=2
a4    2.00  send        1:2897  P. ack=1     ts=102  segs_out=4 bytes_sent=2896 write_seq=5345
a5    2.10  send     2897:4345  P. ack=1     ts=102  segs_out=5 bytes_sent=4344 packets_out=2
a7   12.00  ack              1  .  ack=1449  ts=200  packets_out=3
a8   12.10  retransmit 1449:2897 . ack=1     ts=112  segs_out=6 bytes_sent=5792 bytes_retrans=1448 bytes_acked=1449 packets_out=2 sacked_out=1 lost_out=1 lost=1 ca_state=3 cwnd=5
a9   22.00  ack              1  .  ack=4345  ts=210  retrans_out=1
a10  30.00  send          4345  F. ack=1     ts=130  segs_out=7 bytes_acked=4345 packets_out=0 sacked_out=0 lost_out=0 retrans_out=0 ca_state=0 write_seq=5346 sk_state=4
a11  40.00  state                                    sk_state=7 bytes_acked=4346 una=4346
b1    1.50  state                                    sk_state=1
b2    7.00  ack         1:2897  P. ack=1     ts=102
b3    7.01  send             1  .  ack=2897  ts=150
"""
packets = """
1    0.04  a>       0  S            ts=100  if=2  => exact a1
2    0.98  a<       0  S.  ack=1    ts=190  if=2  => exact a2
3    1.04  a>       1  .   ack=1    ts=101  if=2  => exact a3
4    2.04  a>  1:1449  .   ack=1    ts=102  if=2  => within a4 ; b< within b2
5    2.05  a>  1449:2897 P. ack=1   ts=102  if=2  => within a4 ; b< within b2
6    2.15  a>  2897:4345 P. ack=1   ts=102  if=2  => exact a5 ; b< carried
7    2.155 a>  2897:4345 P. ack=1   ts=102  if=3  => exact a5 ; b< carried
8   11.98  a<       1  .   ack=1449 ts=200  if=2  => exact a7
9   11.99  a<       1  .   ack=1449 ts=199  if=2  => carried
10  12.14  a>  1449:2897 . ack=1    ts=112  if=2  => exact a8
11  21.98  a<       1  .   ack=4345 ts=210  if=2  => exact a9
12  30.04  a>    4345  F.  ack=1    ts=130  if=2  => exact a10
13  50.00  a<       1  R            if=2  => none
"""
"#;

struct World {
    _folder: TempDir,
    trace: PathBuf,
}

fn world() -> World {
    // in memory where that is possible: a disk's delays would be most of the time
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let (trace, capture) = (folder.path().join("trace.db"), folder.path().join("trace.pcap"));
    let scenario = Scenario::parse(WORLD).unwrap();
    scenario.write_trace(&trace).unwrap();
    scenario.write_capture(&capture).unwrap();
    let joined = join(&trace, &capture, Batching::default()).unwrap();
    let mut writer = JoinWriter::begin(&trace, false).unwrap();
    writer.write(&joined.capture, joined.packets.iter().cloned()).unwrap();
    writer.commit().unwrap();
    World { _folder: folder, trace }
}

/// Without the keys that keep tables together: a file from someone else need not have any.
fn open(trace: &Path) -> Connection {
    let db = Connection::open(trace).unwrap();
    db.pragma_update(None, "foreign_keys", false).unwrap();
    db
}

fn damage(trace: &Path, sql: &str) {
    open(trace).execute_batch(sql).unwrap();
}

fn found(trace: &Path) -> (Report, Vec<Violation>) {
    let mut violations = Vec::new();
    let report = verify(trace, &mut |v| {
        violations.push(v.clone());
        Ok(())
    });
    (report.unwrap(), violations)
}

/// Where a violation has to be: a frame number, a serial of flow 1 or 2, a session, or the trace or capture as such.
#[derive(Clone, Copy, Debug)]
enum At {
    Packet(i64),
    Sample(i64, i64),
    Flow(i64),
    Session(i64),
    Whole,
}

impl At {
    fn is(self, v: &Violation) -> bool {
        let p = &v.place;
        match self {
            At::Packet(number) => p.number == Some(number) && p.capture.is_some(),
            At::Sample(flow, serial) => p.flow_id == Some(flow) && p.serial == Some(serial) && p.capture.is_none(),
            At::Flow(flow) => p.flow_id == Some(flow) && p.number.is_none(),
            At::Session(session) => p.session_id == Some(session) && p.flow_id.is_none(),
            At::Whole => p.number.is_none() && p.flow_id.is_none(),
        }
    }
}

/// The check, where it must see it, and what was done. Samples are named by flow and serial, packets by number.
const DAMAGE: &[(&str, At, &str)] = &[
    ("values", At::Sample(1, 4), "UPDATE sample_rows SET tsval_off = 'soon' WHERE #a4"),
    ("values", At::Sample(2, 3), "UPDATE sample_rows SET ack_off = 999 WHERE #b3"),
    ("values", At::Sample(2, 3), "UPDATE ack_rows SET seldom_off = 999 WHERE ack of #b3"),
    ("values", At::Whole, "INSERT INTO probe_costs VALUES (9, 'kprobe', 1, 1)"),
    ("values", At::Whole, "INSERT INTO unjoined VALUES (9, 'not TCP', 1)"),
    ("values", At::Packet(13), "UPDATE packet_rows SET window = 65536 WHERE number = 13 AND flow_id = 1"),
    ("values", At::Session(1), "UPDATE sessions SET ended_ns = NULL"),
    ("values", At::Sample(1, 4), "INSERT INTO internal_rows (sample_id, flow_id, bbr_mode) SELECT id, 1, 'DRAIN' FROM sample_rows WHERE #a4"),
    ("internals", At::Sample(1, 3), "INSERT INTO internal_rows (sample_id, flow_id, bbr_mode) SELECT id, 1, 2 FROM sample_rows WHERE #b3"),
    ("internals", At::Sample(1, 4), "INSERT INTO internal_rows (sample_id, flow_id, bbr_mode, dctcp_alpha) SELECT id, 1, 2, 0.5 FROM sample_rows WHERE #a4"),
    ("internals", At::Flow(1), "INSERT INTO internal_rows (sample_id, flow_id) VALUES (999, 1)"),
    ("internals_range", At::Sample(1, 4), "INSERT INTO internal_rows (sample_id, flow_id, dctcp_alpha) SELECT id, 1, 1.01 FROM sample_rows WHERE #a4"),
    ("internals_range", At::Sample(1, 4), "INSERT INTO internal_rows (sample_id, flow_id, bbr_pacing_gain) SELECT id, 1, -0.25 FROM sample_rows WHERE #a4"),
    ("internals_range", At::Sample(1, 4), "INSERT INTO internal_rows (sample_id, flow_id, bbr_mode) SELECT id, 1, 4 FROM sample_rows WHERE #a4"),
    ("values", At::Whole, "UPDATE sample_runs SET last_id = last_id - 1 WHERE flow_id = 2; UPDATE sessions SET samples = samples - 1"),
    ("values", At::Whole, "UPDATE sample_rows SET run_off = run_off + 1 WHERE id = (SELECT max(r.id) FROM sample_rows r WHERE r.id NOT IN (SELECT sample_id FROM packet_rows WHERE sample_id IS NOT NULL))"),
    ("values", At::Sample(1, 4), "UPDATE sample_runs SET clock_off = 'late' WHERE flow_id = 1"),
    ("serials", At::Sample(2, 0), "UPDATE sample_runs SET first_serial = 0 WHERE flow_id = 2"),
    ("gaps", At::Sample(1, 7), "UPDATE losses SET count = 2; UPDATE sessions SET lost = 2"),
    ("gaps", At::Sample(1, 8), "UPDATE losses SET after_serial = 7"),
    ("gaps", At::Flow(2), "INSERT INTO losses VALUES (1, 2, 3, 4, 'ring_full'); UPDATE sessions SET lost = lost + 4"),
    ("gaps", At::Sample(2, 2), "UPDATE sample_runs SET first_serial = 2 WHERE flow_id = 2"),
    ("session_counts", At::Session(1), "UPDATE sessions SET samples = samples - 1"),
    ("session_counts", At::Session(1), "UPDATE sessions SET lost = 0"),
    ("anchors", At::Session(1), "UPDATE clocks SET mono_before_ns = mono_after_ns + 1 WHERE rowid = 1"),
    ("anchors", At::Session(1), "INSERT INTO clocks SELECT session_id, mono_before_ns - 1, real_ns - 1, mono_after_ns - 1 FROM clocks WHERE rowid = 1"),
    ("sample_time", At::Sample(1, 9), "UPDATE sample_rows SET mono_off = mono_off + 10000000, clock_off = clock_off - 10000000 WHERE #a8;
       UPDATE sample_rows SET mono_off = mono_off - 20000, clock_off = clock_off + 20000 WHERE #a9"),
    ("sample_time", At::Sample(1, 11), "UPDATE sample_rows SET clock_off = clock_off + 3600000000000 WHERE #a11;
       UPDATE flows SET last_ns = last_ns + 3600000000000 WHERE id = 1"),
    ("sample_time", At::Sample(1, 11), "DELETE FROM clocks WHERE rowid > 1"),
    ("flow_span", At::Flow(1), "UPDATE flows SET last_ns = last_ns - 1 WHERE id = 1"),
    ("flow_span", At::Flow(1), "UPDATE flows SET first_ns = first_ns + 1 WHERE id = 1"),
    ("flow_span", At::Flow(1), "UPDATE flows SET closed = 0 WHERE id = 1"),
    ("flow_span", At::Flow(2), "UPDATE flows SET closed = 1 WHERE id = 2"),
    ("kind_phase", At::Sample(1, 11), "UPDATE sample_rows SET what = 9 WHERE #a11"),
    ("kind_phase", At::Sample(1, 11), "UPDATE sample_rows SET what = -1 WHERE #a11"),
    ("kind_phase", At::Sample(1, 11), "UPDATE sample_rows SET what = 1 WHERE #a11"),
    ("counters", At::Sample(1, 10), "UPDATE sample_rows SET segs_off = segs_off - 2 WHERE #a10"),
    ("counters", At::Sample(1, 11), "UPDATE ack_rows SET delivered_off = -(SELECT delivered FROM sample_runs WHERE first_serial = 7) WHERE ack of #a11"),
    ("counters", At::Sample(1, 11), "UPDATE seldom_rows SET bytes_retrans = 1447 WHERE seldom of #a11"),
    ("snd_una_rises", At::Sample(1, 9), "UPDATE sample_rows SET una_off = 4344 - nxt_off WHERE #a9;
       UPDATE ack_rows SET acked_off = acked_off + 1448 WHERE ack of #a9"),
    ("snd_nxt_rises", At::Sample(1, 9), "UPDATE sample_rows SET nxt_off = nxt_off - 1448, sent_off = sent_off + 1448 WHERE #a9"),
    ("rcv_nxt_rises", At::Sample(1, 9), "UPDATE sample_rows SET rcv_off = rcv_off - 1 WHERE #a9"),
    ("window_edges", At::Sample(1, 9), "UPDATE sample_rows SET notsent = -1 WHERE #a9"),
    ("window_edges", At::Sample(1, 11), "UPDATE sample_rows SET una_off = -1 - nxt_off WHERE #a11"),
    ("in_flight", At::Sample(1, 11), "UPDATE ack_rows SET acked_off = acked_off + 1449 WHERE ack of #a11"),
    ("scoreboard", At::Sample(1, 8), "UPDATE seldom_rows SET lost_out = 2 WHERE seldom of #a8"),
    ("scoreboard", At::Sample(1, 9), "UPDATE ack_rows SET retrans_out = 3 WHERE ack of #a9"),
    ("scoreboard", At::Sample(1, 10), "UPDATE sample_rows SET packets_out = 1 WHERE #a10"),
    ("scoreboard", At::Sample(1, 7), "UPDATE sample_rows SET packets_out = 0 WHERE #a7"),
    ("state_range", At::Sample(1, 8), "UPDATE seldom_rows SET ca_state = 5 WHERE ca_state = 3"),
    ("state_range", At::Sample(1, 8), "UPDATE ack_rows SET snd_cwnd = 0 WHERE snd_cwnd = 5"),
    ("state_range", At::Sample(1, 10), "UPDATE seldom_rows SET sk_state = 12 WHERE sk_state = 4"),
    ("new_data", At::Sample(1, 5), "UPDATE sample_rows SET nxt_off = 1, sent_off = sent_off - 1 WHERE #a5"),
    ("retransmitted", At::Sample(1, 8), "UPDATE seldom_rows SET bytes_retrans = 1447 WHERE seldom of #a8"),
    ("no_data", At::Sample(2, 3), "UPDATE sample_rows SET own = own + 500, nxt_off = -500, una_off = una_off + 500 WHERE #b3"),
    ("no_data", At::Sample(2, 3), "UPDATE sample_rows SET own = own - 2, nxt_off = 2, una_off = una_off - 2 WHERE #b3"),
    ("acknowledges", At::Sample(2, 3), "UPDATE sample_rows SET peer = peer + 1, rcv_off = -1 WHERE #b3"),
    ("references", At::Packet(9), "UPDATE packet_rows SET sample_id = 999 WHERE number = 9 AND flow_id = 1"),
    ("references", At::Packet(9), "UPDATE packet_rows SET sample_id = 13 WHERE number = 9 AND flow_id = 1"),
    ("references", At::Packet(13), "UPDATE packet_rows SET flow_id = 9 WHERE number = 13 AND flow_id = 1"),
    ("match_reason", At::Packet(13), "UPDATE packet_rows SET reason_code = NULL WHERE number = 13 AND flow_id = 1"),
    ("match_reason", At::Packet(13), "UPDATE packet_rows SET reason_code = 99 WHERE number = 13 AND flow_id = 1"),
    ("match_reason", At::Packet(12), "UPDATE packet_rows SET reason_code = 0 WHERE number = 12 AND flow_id = 1"),
    ("match_reason", At::Packet(13), "UPDATE packet_rows SET sample_id = 1 WHERE number = 13 AND flow_id = 1"),
    ("match_reason", At::Packet(9), "UPDATE packet_rows SET delay_ns = 1 WHERE number = 9 AND flow_id = 1"),
    ("direction", At::Packet(11), "UPDATE packet_rows SET is_out = 1 WHERE number = 11 AND flow_id = 1;
       UPDATE packet_rows SET is_out = 0 WHERE number = 11 AND flow_id = 2"),
    ("direction", At::Packet(12), "INSERT INTO rare_rows SELECT id, 11, NULL FROM samples WHERE #a10"),
    ("exact", At::Packet(6), "UPDATE packet_rows SET ack = ack + 1 WHERE number = 6 AND flow_id = 1"),
    ("exact", At::Packet(8), "UPDATE packet_rows SET flags = flags | 1 WHERE number = 8 AND flow_id = 1"),
    ("exact", At::Packet(12), "INSERT INTO translations VALUES (1, 1, '10.0.0.1', 40000, '10.0.0.2', 80, 0, 7, 13);
       UPDATE packet_rows SET ack = ack + 7 WHERE flow_id = 1 AND is_out AND number != 12;
       UPDATE packet_rows SET seq = seq + 7 WHERE flow_id = 1 AND NOT is_out"),
    ("within", At::Packet(5), "UPDATE packet_rows SET len = 5000 WHERE number = 5 AND flow_id = 1"),
    ("carried", At::Packet(9), "UPDATE packet_rows SET carried_nxt = carried_nxt + 1 WHERE number = 9 AND flow_id = 1"),
    ("carried", At::Packet(9), "UPDATE packet_rows SET carried_una = carried_una - 1449 WHERE number = 9 AND flow_id = 1"),
    ("carried", At::Packet(9), "UPDATE packet_rows SET carried_una = carried_nxt + 1 WHERE number = 9 AND flow_id = 1"),
    ("carried", At::Packet(9), "UPDATE packet_rows SET carried_una = 4294967296 WHERE number = 9 AND flow_id = 1"),
    ("sacked", At::Packet(10), "UPDATE packet_rows SET sacked_bytes = 2897 WHERE number = 10 AND flow_id = 1"),
    ("sacked", At::Packet(9), "UPDATE packet_rows SET sacked_bytes = 2897 WHERE number = 9 AND flow_id = 1"),
    ("delay", At::Packet(12), "UPDATE packet_rows SET delay_ns = delay_ns + 1 WHERE number = 12 AND flow_id = 1"),
    ("delay", At::Packet(12), "UPDATE packet_rows SET delay_ns = NULL WHERE number = 12 AND flow_id = 1"),
    ("delay", At::Packet(12), "UPDATE packet_rows SET delay_variation_ns = -1 WHERE number = 12 AND flow_id = 1"),
    ("sightings", At::Packet(7), "UPDATE packet_rows SET copy = 0 WHERE number = 7"),
    ("sightings", At::Packet(7), "UPDATE packet_rows SET copy = 2 WHERE number = 7"),
    ("frames", At::Packet(7), "UPDATE packet_rows SET copy = 0 WHERE number = 7 AND flow_id = 2"),
    ("frames", At::Packet(13), "UPDATE packet_rows SET flow_id = 1, is_out = 0, sample_id = 10 WHERE number = 13 AND flow_id = 2"),
    ("frames", At::Packet(13), "INSERT INTO packet_rows (capture_id, number, ts_ns, flow_id, is_out, seq, ack, len, flags, window, match_code, reason_code)
       SELECT capture_id, number, ts_ns, flow_id, is_out, seq, ack, len, flags, window, match_code, reason_code FROM packet_rows WHERE number = 13 AND flow_id = 1"),
    ("capture_counts", At::Whole, "UPDATE captures SET joined = joined - 1"),
    ("capture_counts", At::Whole, "UPDATE captures SET packets = packets + 1"),
    ("capture_counts", At::Whole, "UPDATE captures SET tcp_packets = tcp_packets + 1"),
    ("capture_counts", At::Whole, "DELETE FROM packet_rows WHERE number = 13"),
    ("sample_counts", At::Flow(2), "UPDATE sample_counts SET samples = 2 WHERE outcome = 'not captured'"),
    ("sample_counts", At::Flow(1), "UPDATE sample_counts SET samples = 8 WHERE outcome = 'joined' AND flow_id = 1"),
    ("sample_counts", At::Flow(2), "UPDATE sample_counts SET outcome = 'vanished' WHERE outcome = 'not captured'; DELETE FROM packetless_rows"),
    ("sample_counts", At::Packet(12), "UPDATE packetless_rows SET sample_id = 9 WHERE sample_id = 13;
       UPDATE sample_counts SET flow_id = 1 WHERE outcome = 'not captured'"),
];

/// Puts a condition for a sample where `#a4` stands, and one for its row of another table where it is `ack of #a4` or
/// `seldom of #a4`.
fn named(sql: &str) -> String {
    const ROWS: &str = "sample_runs u JOIN sample_rows r ON r.id BETWEEN u.first_id AND u.last_id";
    let mut sql = sql.to_owned();
    let ack = format!("id = (SELECT u.ack_id + r.ack_off FROM {ROWS} WHERE r.");
    let seldom = format!(
        "id = (SELECT u.seldom_id + a.seldom_off FROM {ROWS} JOIN ack_rows a ON a.id = u.ack_id + r.ack_off WHERE r."
    );
    for (words, condition) in [("ack of #", ack), ("seldom of #", seldom)] {
        while let Some(at) = sql.find(words) {
            let name = at + words.len();
            let end = sql[name..].find(|c: char| !c.is_alphanumeric()).map_or(sql.len(), |n| name + n);
            sql = format!("{}{condition}#{}){}", &sql[..at], &sql[name..end], &sql[end..]);
        }
    }
    for (flow, name) in [(1, 'a'), (2, 'b')] {
        for serial in (1..=11).rev() {
            sql = sql.replace(
                &format!("#{name}{serial}"),
                &format!("id = (SELECT id FROM samples WHERE flow_id = {flow} AND serial = {serial})"),
            );
        }
    }
    sql
}

#[test]
fn what_is_right_is_clean() {
    let world = world();
    damage(
        &world.trace,
        &named(
            "INSERT INTO internal_rows (sample_id, flow_id, bbr_mode, bbr_pacing_gain) SELECT id, 1, 3, 1.0 FROM sample_rows WHERE #a4",
        ),
    );
    let (report, violations) = found(&world.trace);
    assert_eq!(violations, []);
    assert_eq!((report.sessions, report.flows, report.samples, report.captures), (1, 2, 13, 1));
    assert_eq!(report.packets, 26, "each frame is seen by both sockets");
}

#[test]
fn each_damage_is_found_by_its_check_and_no_other() {
    let world = world();
    let mut wrong = Vec::new();
    for (check, at, sql) in DAMAGE {
        let copy = world.trace.with_file_name("damaged.db");
        std::fs::copy(&world.trace, &copy).unwrap();
        damage(&copy, &named(sql));
        let (report, violations) = found(&copy);
        assert_eq!(report.violated(), violations.len() as u64);
        if violations.iter().any(|v| v.check != *check) || !violations.iter().any(|v| at.is(v)) {
            let told: Vec<String> = violations.iter().map(|v| format!("  {v:?}")).collect();
            wrong.push(format!("{check} at {at:?}: {sql}\n{}", told.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a packet left as follows from its sample, so that its own check cannot be alone; but it can see it.
#[test]
fn a_packet_outside_of_the_window_is_found() {
    let world = world();
    damage(&world.trace, &named("UPDATE sample_rows SET una_off = 1896 - nxt_off WHERE #a8"));
    let (_, violations) = found(&world.trace);
    assert!(violations.iter().any(|v| v.check == "as_sent" && v.place.number == Some(10)), "{violations:?}");
}

/// What the kernel does in rare cases, each seen on a live socket.
#[test]
fn the_rare_is_no_violation() {
    const RARE: [(&str, &str); 4] = [
        (
            "a SYN waits for its neighbour's address, and is seen after snd_nxt has moved",
            "a1 0.00 send 0 S ts=100 sk_state=2 nxt=1 write_seq=1001 packets_out=1 segs_out=1 bytes_retrans=0",
        ),
        (
            "the client of a Fast Open counts the data in its SYN twice, for a moment",
            "a1 0.00 send   0:4 S        sk_state=2 delivered=0 bytes_sent=4
             a2 1.00 state  0   S. ack=5 sk_state=1 delivered=2 bytes_acked=5
             a3 1.01 send   5   .  ack=1 delivered=1",
        ),
        (
            "the server of a Fast Open takes its SYN-ACK for acknowledged",
            "a1 0.00 send 0 S. ack=1 sk_state=3 nxt=1 una=1 write_seq=1001 segs_out=1
             a2 1.00 send 1 .  ack=1 sk_state=1 segs_out=2",
        ),
        (
            "a socket that is reset forgets its queue, and not the segments that were lost",
            "a1 0.00 send 1:1449 . ack=1 packets_out=0 lost_out=0 sacked_out=0
             a2 1.00 state sk_state=7 packets_out=0 lost_out=1 sacked_out=0",
        ),
    ];
    for (what, samples) in RARE {
        let flows = "a  10.0.0.1:40000 > 10.0.0.2:80  isn=1000/90000";
        let text =
            format!("title = ''\nwhy = ''\nflows = '{flows}'\nsamples = \"\"\"\n{samples}\n\"\"\"\npackets = ''");
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace.db");
        Scenario::parse(&text).unwrap().write_trace(&trace).unwrap();
        assert_eq!(found(&trace).1, [], "{what}");
    }
}

#[test]
fn every_check_can_fail() {
    let tested: Vec<&str> = DAMAGE.iter().map(|(check, ..)| *check).chain(["as_sent"]).collect();
    for check in RECORDING.iter().chain(JOIN) {
        assert!(tested.contains(&check.name), "{} is not tested", check.name);
    }
    assert!(tested.iter().all(|t| RECORDING.iter().chain(JOIN).any(|c| c.name == *t)), "a check that is not listed");
}

#[test]
fn without_a_capture_the_recording_is_checked() {
    let world = world();
    damage(
        &world.trace,
        "DELETE FROM captures; DELETE FROM packet_rows; DELETE FROM sample_counts; DELETE FROM packetless_rows",
    );
    let (report, violations) = found(&world.trace);
    assert_eq!((report.captures, report.checks().count()), (0, RECORDING.len()));
    assert_eq!(violations, []);
    damage(&world.trace, "UPDATE sessions SET complete = 0, ended_ns = NULL");
    let (report, violations) = found(&world.trace);
    assert_eq!((report.incomplete, violations), (vec![1], vec![]));
}

const TABLES: [&str; 15] = [
    "sessions",
    "flows",
    "losses",
    "clocks",
    "probe_costs",
    "captures",
    "unjoined",
    "packet_rows",
    "translations",
    "sample_counts",
    "packetless_rows",
    "sample_runs",
    "sample_rows",
    "ack_rows",
    "rare_rows",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]
    /// Whatever stands in a file, verify comes to an end with violations or an error.
    #[test]
    fn hostile_values_are_no_panic(
        changes in prop::collection::vec((0..TABLES.len(), any::<prop::sample::Index>(), prop::sample::select(vec![
            "NULL", "'text'", "-1", "9223372036854775807", "-9223372036854775808", "1.5e300", "x'00ff'", "4294967296", "0",
        ]), 0..3u8), 1..4),
    ) {
        let world = world();
        let db = open(&world.trace);
        for (table, column, value, rest) in changes {
            let table = TABLES[table];
            // nor the constraints of their columns
            db.execute_batch(&format!("CREATE TABLE free AS SELECT * FROM {table}")).unwrap();
            let columns: Vec<String> = {
                let statement = db.prepare("SELECT * FROM free").unwrap();
                statement.column_names().map(str::to_owned).collect()
            };
            let column = column.get(&columns);
            db.execute_batch(&format!("UPDATE free SET {column} = {value} WHERE rowid % 3 >= {rest}")).unwrap();
            db.pragma_update(None, "legacy_alter_table", true).unwrap();
            db.execute_batch(&format!("DROP TABLE {table}; ALTER TABLE free RENAME TO {table}")).unwrap();
        }
        drop(db);
        let _ = verify(&world.trace, &mut |_| Ok(()));
    }
}
