//! Captures that are joined in several batches, through the real command: nothing missing, nothing twice, and killed in
//! the middle the trace is as before.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tcpprobe_fixtures::bulk::{Bulk, Written, write};
use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_replay::capture::Capture;
use tcpprobe_replay::join::{Batching, Readers, join, join_capture_in_parts, join_in_parts};
use tcpprobe_tests::tools;
use tcpprobe_trace::join::{JoinWriter, Match, PacketRow};

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
    for beside in ["trace.db-wal", "trace.db-journal"] {
        assert!(!folder.join(beside).exists(), "the trace is one file again");
    }
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

/// Around each stretch of a connection samples are read along: of many connections at a time each waits for one that is
/// worth that, and what comes of it at once stays small.
#[test]
fn of_many_connections_no_few_packets_are_joined_by_themselves() {
    let (folder, written) = recorded(&Bulk { packets: 40_000, flows: 200, ..BULK });
    let (trace, capture) = (folder.path().join("trace.db"), folder.path().join("trace.pcap"));
    let batching = Batching { packets: 1_000, margin: 10 };
    let (mut rows, mut stretches, mut numbers) = (0, 0, BTreeSet::new());
    join_in_parts(&trace, &capture, batching, |part| {
        let flows: BTreeSet<i64> = part.packets.iter().map(|row| row.flow_id).collect();
        assert!(part.packets.len() < 2 * batching.packets, "{} rows at once", part.packets.len());
        assert!(part.packets.iter().all(|row| row.matched == Match::Exact));
        (rows, stretches) = (rows + part.packets.len(), stretches + flows.len());
        numbers.extend(part.packets.iter().map(|row| row.number));
        Ok(())
    })
    .unwrap();
    assert_eq!((rows as u64, numbers.len() as u64), (written.packets, written.packets));
    assert!(rows >= batching.margin * stretches, "{rows} packets in {stretches} stretches");
}

/// One connection with nearly all packets, after one packet each of many that stay open: for these it does not wait.
#[test]
fn idle_connections_do_not_make_the_others_wait() {
    const IDLE: u16 = 300;
    const PCAP_HEADER: usize = 24;
    const RECORD_HEADER: usize = 16;
    const SOURCE_PORT: usize = RECORD_HEADER + 14 + 20;
    let (folder, written) = recorded(&Bulk { packets: 20_000, flows: 1, ..BULK });
    let (trace, capture) = (folder.path().join("trace.db"), folder.path().join("trace.pcap"));
    let bytes = std::fs::read(&capture).unwrap();
    let (header, records) = bytes.split_at(PCAP_HEADER);
    let length = u32::from_le_bytes(records[8..12].try_into().unwrap()) as usize;
    let mut with_idle = header.to_vec();
    for port in 1..=IDLE {
        let mut record = records[..RECORD_HEADER + length].to_vec();
        record[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
        with_idle.extend(record);
    }
    with_idle.extend(records);
    std::fs::write(&capture, with_idle).unwrap();

    let batching = Batching { packets: 1_000, margin: 10 };
    let mut rows = 0;
    let joined = join_in_parts(&trace, &capture, batching, |part| {
        assert!(part.packets.len() < 2 * batching.packets, "{} rows at once", part.packets.len());
        rows += part.packets.len() as u64;
        Ok(())
    })
    .unwrap();
    assert_eq!((rows, joined.capture.joined), (written.packets, written.packets));
    assert_eq!(joined.capture.packets, written.packets + u64::from(IDLE));
}

/// The rows of a scenario's packets, joined as a capture that is too large to be joined at once.
fn joined_in_batches(settings: &str, samples: &str, packets: &str) -> Vec<PacketRow> {
    let text = format!(
        "title = ''\nwhy = ''\n{settings}\nflows = 'a  10.0.0.1:40000 > 10.0.0.2:80  isn=1000/90000'\n\
         samples = '''\n{samples}'''\npackets = '''\n{packets}'''\n"
    );
    let scenario = Scenario::parse(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (trace, capture) = (folder.path().join("trace.db"), folder.path().join("trace.pcap"));
    scenario.write_trace(&trace).unwrap();
    scenario.write_capture(&capture).unwrap();
    join(&trace, &capture, Batching { packets: 1_000, margin: 10 }).unwrap().packets
}

/// A recording of who receives, and a capture of who sends: the ACKs there are a whole window behind the data, of which
/// the recording's own numbers say nothing.
#[test]
fn acks_a_window_behind_the_data_have_their_samples() {
    const SEGMENTS: u32 = 6_000;
    const PATH_US: u32 = 50_000;
    let ms = |us: u32| format!("{}.{:03}", us / 1000, us % 1000);
    let (mut samples, mut packets) = (String::new(), Vec::new());
    for k in 0..SEGMENTS {
        let (first, end, us) = (1 + k * 1448, 1 + (k + 1) * 1448, 200_000 + k * 100);
        let data = format!("{first}:{end}  .  ack=1  ts={}", 7_000 + us / 1000);
        let ack = format!("1  .  ack={end}  ts={}", 900 + us / 1000);
        let (a, b, sent_us) = (2 * k + 1, 2 * k + 2, us + 5);
        samples += &format!("a{a}  {}  ack  {data}\na{b}  {}  send  {ack}\n", ms(us), ms(sent_us));
        packets.push((us - PATH_US, format!("a<  {data}  => exact a{a}")));
        packets.push((us + PATH_US, format!("a>  {ack}  => exact a{b}")));
    }
    packets.sort();
    let packets: String =
        (1..).zip(&packets).map(|(number, (us, packet))| format!("{number}  {}  {packet}\n", ms(*us))).collect();
    let joined = joined_in_batches("", &samples, &packets);
    assert_eq!(joined.len(), 2 * SEGMENTS as usize);
    let without: Vec<u64> = joined.iter().filter(|p| p.matched != Match::Exact).map(|p| p.number).collect();
    assert!(without.is_empty(), "{} packets have no sample, the first is {:?}", without.len(), without.first());
}

/// A connection of 5 GB, more than a lap, captured whole or from some place on, by a clock that is an hour ahead or
/// behind: where in the recording a batch is follows from the numbers, and which lap from the stamps.
#[test]
fn a_clock_that_is_off_says_nothing_of_where_a_batch_is() {
    const SEGMENTS: u64 = 4_500;
    let ms = |us: u64| format!("{}.{:03}", us / 1000, us % 1000);
    let (mut samples, mut packets) = (String::new(), Vec::new());
    for k in 0..SEGMENTS {
        let (first, us) = (1 + k * 1_200_000, 200_000 + k * 100);
        let (end, a, b, acked_us) = (first + 1448, 2 * k + 1, 2 * k + 2, us + 60);
        let data = format!("{first}:{end}  .  ack=1  ts={}", 900 + us / 1000);
        let ack = format!("1  .  ack={end}  ts={}", 7_000 + us / 1000);
        samples += &format!("a{a}  {}  send  {data}  una={first} nxt={first}\n", ms(us));
        samples += &format!("a{b}  {}  ack  {ack}  una={first} nxt={end}\n", ms(acked_us));
        packets.push(format!("{}  a>  {data}  => exact a{a}", ms(us + 10)));
        packets.push(format!("{}  a<  {ack}  => exact a{b}", ms(acked_us - 10)));
    }
    for (clock, skipped) in [("1h", 0), ("-1h", SEGMENTS), ("1h", 100), ("-1h", 2 * SEGMENTS - 100)] {
        let packets = &packets[skipped as usize..];
        let lines: String = (1..).zip(packets).map(|(number, packet)| format!("{number}  {packet}\n")).collect();
        let joined = joined_in_batches(&format!("capture_clock = '{clock}'"), &samples, &lines);
        let without = joined.iter().filter(|p| p.matched != Match::Exact).count();
        assert_eq!((without, joined.len()), (0, packets.len()), "clock off by {clock}, without {skipped} packets");
    }
}

/// A connection under the same addresses that was not recorded, with numbers half a GB ahead of those of the one that was:
/// where in the recording the second one's batches are, its SYN says.
#[test]
fn what_came_before_under_the_same_addresses_says_nothing_of_where_a_batch_is() {
    const OLDER: u32 = 600;
    const SEGMENTS: u32 = 3_000;
    const AHEAD: u32 = 500_000_000;
    let ms = |us: u32| format!("{}.{:03}", us / 1000, us % 1000);
    let mut samples = String::from("a1  1000.000  send  0  S\na2  1000.500  ack  0  S. ack=1\n");
    let mut packets = Vec::new();
    for k in 0..OLDER {
        let (first, peer) = (AHEAD + k * 1448, AHEAD + 1);
        packets.push(format!("{}  a>  {first}:{}  .  ack={peer}  => no row", ms(k * 100), first + 1448));
    }
    packets.push("1000.010  a>  0  S  => exact a1".into());
    packets.push("1000.490  a<  0  S. ack=1  => exact a2".into());
    for k in 0..SEGMENTS {
        let (first, end, us) = (1 + k * 1448, 1 + (k + 1) * 1448, 1_001_000 + k * 100);
        let (a, b, acked_us) = (2 * k + 3, 2 * k + 4, us + 60);
        let (data, ack) = (format!("{first}:{end}  .  ack=1"), format!("1  .  ack={end}"));
        samples += &format!("a{a}  {}  send  {data}\na{b}  {}  ack  {ack}\n", ms(us), ms(acked_us));
        packets.push(format!("{}  a>  {data}  => exact a{a}", ms(us + 10)));
        packets.push(format!("{}  a<  {ack}  => exact a{b}", ms(acked_us - 10)));
    }
    let lines: String = (1..).zip(&packets).map(|(number, packet)| format!("{number}  {packet}\n")).collect();
    let joined = joined_in_batches("", &samples, &lines);
    let own = || joined.iter().filter(|p| p.number > u64::from(OLDER));
    let without: Vec<u64> = own().filter(|p| p.matched != Match::Exact).map(|p| p.number).collect();
    assert!(without.is_empty(), "{} packets have no sample, the first is {:?}", without.len(), without.first());
    assert_eq!(own().count(), 2 + 2 * SEGMENTS as usize);
}

/// A router's two interfaces, with 300 packets waiting between them: what is seen for the second time is so whichever
/// batch has its first sighting.
#[test]
fn what_is_seen_again_a_queue_later_is_a_copy_in_any_batch() {
    const SEGMENTS: u32 = 4_000;
    const QUEUE_US: u32 = 30_000;
    let ms = |us: u32| format!("{}.{:03}", us / 1000, us % 1000);
    let (mut samples, mut packets) = (String::new(), Vec::new());
    for k in 0..SEGMENTS {
        let (first, us) = (1 + k * 1448, 200_000 + k * 100);
        let data = format!("{first}:{}  .  ack=1  ts={}", first + 1448, 7_000 + us / 1000);
        samples += &format!("a{}  {}  send  {data}\n", k + 1, ms(us));
        for (interface, us) in [(2, us + 20), (3, us + 30 + QUEUE_US)] {
            packets.push((us, interface, format!("a>  {data}  if={interface}  => exact a{}", k + 1)));
        }
    }
    packets.sort();
    let lines: String =
        (1..).zip(&packets).map(|(number, (us, _, packet))| format!("{number}  {}  {packet}\n", ms(*us))).collect();
    let joined = joined_in_batches("link = 'LINUX_SLL2'", &samples, &lines);
    assert_eq!(joined.len(), packets.len());
    let is_wrong = |row: &&PacketRow| row.copy != packets[row.number as usize - 1].1 - 2;
    let wrong: Vec<u64> = joined.iter().filter(is_wrong).map(|row| row.number).collect();
    assert!(wrong.is_empty(), "{} packets have another one's number of sightings: {wrong:?}", wrong.len());
}

#[test]
fn many_short_connections_are_joined_whole() {
    is_joined_whole(&Bulk { flows: 300, packets_a_flow: Some(10), ..BULK });
}

/// Locks are a process's, and go when it closes the file, whichever of its connections does.
#[test]
fn a_trace_that_is_being_joined_is_kept_from_other_processes_until_that_is_done() {
    let (folder, written) = recorded(&Bulk { packets: 2_000, ..BULK });
    let trace = folder.path().join("trace.db");
    let mut writer = JoinWriter::begin(&trace, true).unwrap();
    let readers = Readers::beside(&writer, &trace).unwrap();
    let capture = Capture::open(&folder.path().join("trace.pcap")).unwrap();
    let id = writer.start(Path::new("trace.pcap")).unwrap();
    join_capture_in_parts(&readers, capture, Batching::default(), |part| {
        writer.add(id, part.packets.into_iter(), &part.packetless)
    })
    .unwrap();
    drop(readers);
    let counted = ["sql", "trace.db", "SELECT count(*) FROM packets"];
    let refused = tcpprobe(folder.path(), &counted).expect_code(1).unwrap().stderr;
    assert!(refused.contains("trace.db") && refused.contains("another process"), "{refused}");
    assert!(refused.trim_end().ends_with("try again when it is done"), "{refused}");
    writer.commit().unwrap();
    assert_eq!(number(folder.path(), counted[2]), written.packets);
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
    // its transaction has begun to change something when there is a journal
    let began = Instant::now();
    let journal = folder.join("trace.db-journal");
    while !std::fs::metadata(&journal).is_ok_and(|m| m.len() > 0) {
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
