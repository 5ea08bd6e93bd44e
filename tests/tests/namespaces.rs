//! Live tests: `tcpprobe record` and `join` on real traffic between network namespaces, checked by `check_join.py`.
//!
//! What cannot run here is shown as ignored, with the reason. A failed test leaves its folder and names it;
//! with TCPPROBE_TEST_KEEP=1 all do.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::sys::signal::Signal;

use tcpprobe_tests::lab::{LabOptions, Loss, Ns, remove_leftovers};
use tcpprobe_tests::preconditions;
use tcpprobe_tests::scene::{MissedSamples, STEP_LIMIT, Scene, Transfer};
use tcpprobe_tests::tools::{self, Running};

/// At most so many tests at once: each has a recorder, a capture and traffic to keep up with.
const THREADS: usize = 2;
/// How often a test that missed samples is tried.
const ATTEMPTS: u32 = 8;

/// A test's network, and its steps. Each has a port of its own: its place in this list.
type Test = (&'static str, LabOptions, fn(&Scene) -> Result<()>);

const PLAIN: LabOptions =
    LabOptions { rate_mbit: None, queue: Duration::from_millis(60), loss: Loss::None, router: false, offloads: false };
const LIMITED: LabOptions = LabOptions { rate_mbit: Some(200), ..PLAIN };
const LOSSY: LabOptions = LabOptions { loss: Loss::PerMille(10), ..LIMITED };
const LOSSY_ROUTED: LabOptions = LabOptions { router: true, ..LOSSY };

const TESTS: &[Test] = &[
    ("sender_capture_50mb_1pct_loss", LOSSY, sender_capture),
    ("receiver_capture_gro_off", LOSSY_ROUTED, receiver_capture),
    ("receiver_capture_gro_on", LOSSY_ROUTED, receiver_capture_gro_on),
    ("receiver_capture_before_loss", LOSSY, receiver_capture),
    ("tcpdump_at_sender", LOSSY, tcpdump_at_sender),
    // With super-packets there are few packets: every 20th is lost, so that some are.
    ("offloads_on", LabOptions { offloads: true, loss: Loss::Every { every: 20, offset: 10 }, ..LIMITED }, offloads_on),
    ("bbr", LOSSY, bbr),
    ("ipv6", LOSSY, ipv6),
    ("both_directions", LOSSY, both_directions),
    ("heavy_loss", LabOptions { loss: Loss::PerMille(150), ..LOSSY }, heavy_loss),
    ("syn_lost", LabOptions { loss: Loss::Every { every: 100, offset: 0 }, ..LOSSY }, syn_lost),
    (
        "dropped_in_own_queue",
        LabOptions { rate_mbit: Some(50), queue: Duration::from_millis(3), ..PLAIN },
        dropped_in_own_queue,
    ),
    ("short_connections_200", LIMITED, short_connections_200),
    ("loopback_both_ends", PLAIN, loopback_both_ends),
    ("any_interface", LOSSY, any_interface),
    ("netns_filter", PLAIN, netns_filter),
    ("port_filter", PLAIN, port_filter),
    ("host_prefix_filter", PLAIN, host_prefix_filter),
    ("check_finds_wrong_joins", LOSSY, check_finds_wrong_joins),
    ("joining_again_replaces", LOSSY, joining_again_replaces),
    ("child_command", PLAIN, child_command),
    ("duration", PLAIN, duration),
    ("sigint", LIMITED, sigint),
    ("sigterm", LIMITED, sigterm),
    ("second_session", PLAIN, second_session),
];
const FIRST_PORT: u16 = 6101;

static MISSING: LazyLock<Option<String>> = LazyLock::new(|| {
    // Leftovers are no reason not to run.
    let _ = remove_leftovers();
    preconditions::missing()
});

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(THREADS).min(THREADS));
    let mut trials: Vec<Trial> = (FIRST_PORT..).zip(TESTS).map(|(port, test)| live(port, test)).collect();
    trials.push(Trial::ignorable_test("forced_backend_missing", || {
        match MISSING.clone().or_else(preconditions::kernel_has_kprobes) {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => in_scene(FIRST_PORT - 1, &PLAIN, forced_backend_missing),
        }
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn live(port: u16, &(name, options, steps): &'static Test) -> Trial {
    Trial::ignorable_test(name, move || match MISSING.clone() {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => in_scene(port, &options, steps),
    })
}

/// Some machines keep BPF programs from running while certain tasks are interrupted: what the network does in that time
/// goes unsampled, by any recorder. A run in which that happened shows nothing, and is repeated; a wrong one never is.
fn in_scene(port: u16, options: &LabOptions, steps: fn(&Scene) -> Result<()>) -> Result<Completion, Failed> {
    for attempt in 1.. {
        match in_one_scene(port, options, steps) {
            Err(error) if attempt < ATTEMPTS && error.is::<MissedSamples>() => {
                eprintln!("port {port}: attempt {attempt} is repeated: {error:#}");
            }
            Err(error) => return Err(format!("{error:#}").into()),
            Ok(()) => break,
        }
    }
    Ok(Completion::Completed)
}

fn in_one_scene(port: u16, options: &LabOptions, steps: fn(&Scene) -> Result<()>) -> Result<()> {
    let mut scene = Scene::new(port, options)?;
    let result = steps(&scene).and_then(|()| scene.verify());
    if std::env::var_os("TCPPROBE_TEST_KEEP").is_some_and(|keep| keep == "1") || result.is_err() {
        let folder = scene.keep_folder();
        return result.with_context(|| format!("files in {}", folder.display()));
    }
    Ok(())
}

// --- what every recording must be ---------------------------------------------------------------------------------

/// All sessions are complete, nothing was lost, and every flow has a beginning and an end.
fn expect_sound(scene: &Scene, sessions: i64) -> Result<()> {
    expect_number(scene, sessions, "SELECT count(*) FROM sessions")?;
    expect_number(scene, 0, "SELECT count(*) FROM sessions WHERE complete != 1 OR ended_ns < started_ns")?;
    expect_number(scene, 0, "SELECT count(*) FROM losses WHERE cause != 'not_shown'")?;
    let lost = scene.number("SELECT sum(lost) FROM sessions")?;
    expect_number(scene, lost, "SELECT coalesce(sum(count), 0) FROM losses")?;
    if lost != 0 {
        return Err(MissedSamples(format!("{lost} samples, as the recorder says itself")).into());
    }
    expect_number(
        scene,
        0,
        "SELECT count(*) FROM flows WHERE first_ns IS NULL OR last_ns IS NULL OR last_ns < first_ns",
    )?;
    expect_number(scene, 0, "SELECT count(*) FROM samples WHERE flow_id NOT IN (SELECT id FROM flows)")?;
    let counted = scene.number("SELECT count(*) FROM samples")?;
    expect_number(scene, counted, "SELECT sum(samples) FROM sessions")
}

fn expect_number(scene: &Scene, expected: i64, sql: &str) -> Result<()> {
    let number = scene.number(sql)?;
    ensure!(number == expected, "{number}, not {expected}: {sql}");
    Ok(())
}

/// The path lost packets, the sampler saw retransmissions, and the join found them in the capture.
fn expect_losses(scene: &Scene) -> Result<()> {
    ensure!(scene.lab.dropped()? > 0, "the path lost nothing");
    expect_retransmissions(scene)
}

fn expect_retransmissions(scene: &Scene) -> Result<()> {
    for sql in [
        "SELECT count(*) FROM samples WHERE kind = 'retransmit'",
        "SELECT count(*) FROM packet_state WHERE retransmission AND match IN ('exact', 'within')",
    ] {
        ensure!(scene.number(sql)? > 0, "no retransmissions: {sql}");
    }
    Ok(())
}

/// Records a transfer at the sender with tcpprobe's own capture, joins and checks it.
fn record_and_join(scene: &Scene, transfer: Transfer) -> Result<()> {
    let interface = scene.lab.interface(Ns::A);
    let recorder = scene.record(Ns::A, &["-i", interface])?;
    scene.send(transfer)?;
    let said = Scene::stop(recorder)?.stderr;
    ensure!(said.contains("packet"), "the summary has no packets:\n{said}");
    expect_sound(scene, 1)?;
    scene.join_and_check(&scene.capture(), &[])
}

// --- captures at the sender ---------------------------------------------------------------------------------------

fn sender_capture(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(50_000_000))?;
    expect_losses(scene)?;
    let dropped = scene.lab.dropped()?;
    let sent =
        scene.number("SELECT count(*) FROM packets JOIN flows ON flows.id = flow_id WHERE dir = 'out' AND len > 0")?;
    // About 1 %: the network is the one that this test is about.
    ensure!((100..=1000).contains(&dropped), "the path lost {dropped} of {sent} packets");
    Ok(())
}

fn tcpdump_at_sender(scene: &Scene) -> Result<()> {
    let tcpdump = scene.tcpdump(Ns::A, "sender.pcap")?;
    let recorder = scene.record(Ns::A, &["--no-pcap"])?;
    scene.send(scene.transfer(20_000_000))?;
    Scene::stop(recorder)?;
    let capture = tcpdump.stop(scene)?;
    ensure!(!scene.capture().exists(), "a capture in spite of --no-pcap");
    expect_sound(scene, 1)?;
    scene.join_and_check(&capture, &[])?;
    expect_losses(scene)
}

fn offloads_on(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(4_000_000))?;
    expect_losses(scene)?;
    let longest = scene.number("SELECT max(len) FROM packets WHERE dir = 'out'")?;
    ensure!(longest > 3000, "the longest captured segment has {longest} bytes: no offload");
    Ok(())
}

fn bbr(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { congestion: "bbr", ..scene.transfer(3_000_000) })?;
    expect_number(
        scene,
        1,
        &format!(
            "SELECT count(*) FROM flows WHERE congestion = 'bbr' AND netns = {}",
            scene.lab.namespace_inode(Ns::A)?
        ),
    )?;
    expect_losses(scene)
}

fn ipv6(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { to: scene.lab.ipv6(Ns::B), ..scene.transfer(10_000_000) })?;
    expect_number(scene, 0, "SELECT count(*) FROM flows WHERE remote_addr NOT LIKE 'fd77:%'")?;
    expect_losses(scene)
}

fn both_directions(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { reply: 5_000_000, ..scene.transfer(5_000_000) })?;
    expect_losses(scene)
}

/// Timeouts, tail loss probes, and the same bytes sent many times.
fn heavy_loss(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { connections: 8, ..scene.transfer(100_000) })?;
    expect_losses(scene)?;
    let most = scene.number(
        "SELECT max(times) FROM (SELECT count(*) AS times FROM packets WHERE dir = 'out' AND len > 0 GROUP BY flow_id, seq)",
    )?;
    ensure!(most >= 3, "no bytes were sent more than {most} times");
    Ok(())
}

fn syn_lost(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(1_000_000))?;
    expect_losses(scene)?;
    let syns = scene.number("SELECT count(*) FROM packets WHERE dir = 'out' AND flags & 18 = 2")?;
    ensure!(syns >= 2, "{syns} SYN in the capture");
    Ok(())
}

/// Samples without a packet: what the sender's own qdisc drops never comes to the capture.
fn dropped_in_own_queue(scene: &Scene) -> Result<()> {
    // One connection alone would wait for its packets to leave the queue.
    let recorder = scene.record(Ns::A, &["-i", scene.lab.interface(Ns::A)])?;
    scene.send(Transfer { connections: 40, ..scene.transfer(50_000) })?;
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    // A segment that was dropped is tried again at once, so that its samples differ in nothing but their time.
    scene.join_and_check(&scene.capture(), &["--min-matched", "0.98"])?;
    let sent = scene.number("SELECT count(*) FROM samples WHERE phase = 'transmit' AND len > 0")?;
    let distinct = scene.number(
        "SELECT count(*) FROM (SELECT DISTINCT flow_id, seq FROM samples WHERE phase = 'transmit' AND len > 0)",
    )?;
    ensure!(sent > distinct, "the queue dropped nothing");
    Ok(())
}

fn short_connections_200(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { connections: 200, reply: 2_000, ..scene.transfer(20_000) })?;
    let address = scene.lab.ipv4(Ns::A);
    expect_number(scene, 200, &format!("SELECT count(*) FROM flows WHERE local_addr = '{address}'"))
}

fn any_interface(scene: &Scene) -> Result<()> {
    // Without -i: all interfaces of the namespace, with another link type.
    let recorder = scene.record(Ns::A, &[])?;
    scene.send(scene.transfer(5_000_000))?;
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    scene.join_and_check(&scene.capture(), &[])?;
    expect_losses(scene)
}

fn loopback_both_ends(scene: &Scene) -> Result<()> {
    let recorder = scene.record(Ns::A, &["-i", "lo"])?;
    let to = IpAddr::V4(Ipv4Addr::LOCALHOST);
    scene.send(Transfer { to, in_ns: Ns::A, reply: 1_000_000, ..scene.transfer(5_000_000) })?;
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    scene.join_and_check(&scene.capture(), &[])?;
    expect_number(scene, 2, "SELECT count(*) FROM flows")?;
    let tcp_packets = scene.number("SELECT tcp_packets FROM captures")?;
    for dir in ["out", "in"] {
        expect_number(scene, tcp_packets, &format!("SELECT count(*) FROM packets WHERE dir = '{dir}'"))?;
    }
    Ok(())
}

// --- captures at the receiver -------------------------------------------------------------------------------------

fn receiver_capture(scene: &Scene) -> Result<()> {
    let sender = scene.lab.ipv4(Ns::A).to_string();
    let tcpdump = scene.tcpdump(Ns::B, "receiver.pcap")?;
    let recorder = scene.record(Ns::A, &["--host", &sender, "--no-pcap"])?;
    scene.send(scene.transfer(20_000_000))?;
    Scene::stop(recorder)?;
    let capture = tcpdump.stop(scene)?;
    expect_sound(scene, 1)?;
    // Where bytes were lost and sent again within one tick of TSval, a join without the sender's clock cannot say which
    // of the two arrived.
    scene.join_and_check(&capture, &["--tap", "receiver", "--sender", &sender, "--min-matched", "0.98"])?;
    expect_losses(scene)
}

fn receiver_capture_gro_on(scene: &Scene) -> Result<()> {
    scene.lab.set_end_offloads(Ns::B, true)?;
    receiver_capture(scene)?;
    let (longest, sent) = (
        scene.number("SELECT max(len) FROM packets WHERE dir = 'out'")?,
        scene.number("SELECT max(mss) FROM packet_state")?,
    );
    ensure!(longest > sent, "the longest captured segment has {longest} bytes, one MSS is {sent}: nothing was merged");
    Ok(())
}

// --- filters ------------------------------------------------------------------------------------------------------

fn netns_filter(scene: &Scene) -> Result<()> {
    let (name, inode) = (scene.lab.namespace(Ns::A), scene.lab.namespace_inode(Ns::A)?);
    for (session, netns) in [name.as_str(), "current"].into_iter().enumerate() {
        let recorder = scene.record(Ns::A, &["--netns", netns, "--no-pcap"])?;
        scene.send(scene.transfer(100_000))?;
        Scene::stop(recorder)?;
        expect_sound(scene, session as i64 + 1)?;
        // The other end of each connection, in B, has the same port and is not recorded.
        expect_number(scene, session as i64 + 1, "SELECT count(*) FROM flows")?;
        expect_number(scene, 0, &format!("SELECT count(*) FROM flows WHERE netns != {inode}"))?;
    }
    Ok(())
}

fn port_filter(scene: &Scene) -> Result<()> {
    let recorder = scene.record(Ns::A, &["-i", scene.lab.interface(Ns::A)])?;
    let other = scene.port + 500;
    for port in [other, scene.port, other] {
        scene.send(Transfer { port, ..scene.transfer(200_000) })?;
    }
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    scene.join_and_check(&scene.capture(), &[])?;
    let port = scene.port;
    expect_number(scene, 2, "SELECT count(*) FROM flows")?;
    expect_number(scene, 2, &format!("SELECT count(*) FROM flows WHERE {port} IN (local_port, remote_port)"))?;
    // The capture has the same filter: all of its TCP packets are of the recorded flows.
    expect_number(scene, 0, "SELECT tcp_packets - (SELECT count(DISTINCT number) FROM packets) FROM captures")
}

fn host_prefix_filter(scene: &Scene) -> Result<()> {
    let recorder = scene.record(Ns::A, &["-i", scene.lab.interface(Ns::A), "--host", "10.77.0.0/16"])?;
    for to in [scene.lab.ipv6(Ns::B), scene.lab.ipv4(Ns::B)] {
        scene.send(Transfer { to, ..scene.transfer(200_000) })?;
    }
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    scene.join_and_check(&scene.capture(), &[])?;
    expect_number(scene, 2, "SELECT count(*) FROM flows")?;
    expect_number(scene, 2, "SELECT count(*) FROM flows WHERE remote_addr LIKE '10.77.%'")?;
    expect_number(scene, 0, "SELECT tcp_packets - (SELECT count(DISTINCT number) FROM packets) FROM captures")
}

// --- the join's own promises --------------------------------------------------------------------------------------

/// The check itself must be able to fail: what a wrong join would write, it finds, and at the right packet.
fn check_finds_wrong_joins(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(3_000_000))?;
    expect_losses(scene)?;
    let sent = "match = 'exact' AND dir = 'out' AND len > 0";
    let (data, again) = (format!("{sent} AND NOT retransmission"), format!("{sent} AND retransmission"));
    let first_sending = "sample_id = (SELECT sample_id FROM packet_state AS p WHERE p.flow_id = changed.flow_id \
                         AND p.seq = changed.seq AND p.dir = 'out' AND p.len > 0 ORDER BY p.number LIMIT 1)";
    let faults = [
        (&data, "DELETE FROM changed"),
        (&data, "UPDATE changed SET len = len - 1"),
        (&data, "UPDATE changed SET number = number + 1"),
        (&data, "UPDATE changed SET sample_id = sample_id + 1"),
        (&data, "UPDATE changed SET match = 'none', reason = NULL"),
        (&again, "UPDATE changed SET match = 'carried'"),
        (&again, &format!("UPDATE changed SET {first_sending}")),
    ];
    for (case, (which, change)) in faults.iter().enumerate() {
        let copy = scene.file(&format!("fault-{case}.db"));
        scene.database()?.execute("VACUUM INTO ?1", [copy.to_str()]).context("a copy of the trace")?;
        let database = rusqlite::Connection::open(&copy)?;
        // Tables in place of the views, whatever those are made of: these can be changed.
        database.execute_batch(
            "CREATE TABLE p AS SELECT * FROM packets; CREATE TABLE s AS SELECT * FROM packet_state;
             DROP VIEW packet_state; DROP VIEW packets;
             ALTER TABLE p RENAME TO packets; ALTER TABLE s RENAME TO packet_state;",
        )?;
        let choice = format!("SELECT id, number FROM packet_state WHERE {which} ORDER BY number LIMIT 1 OFFSET 5");
        let (id, number): (i64, i64) = database.query_row(&choice, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for table in ["packets", "packet_state"] {
            database
                .execute(&format!("{} WHERE id = {id}", change.replace("changed", table)), [])
                .context(change.to_string())?;
        }
        let report = scene.check(&copy, &scene.capture(), &[])?.expect_code(1);
        let report = report.with_context(|| format!("not found: {change}"))?.stdout;
        ensure!(report.contains(&format!("WRONG packet {number}:")), "{change} of packet {number}:\n{report}");
    }
    Ok(())
}

fn joining_again_replaces(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(1_000_000))?;
    let rows = "SELECT count(*) FROM packets";
    let before = scene.number(rows)?;
    scene.join_and_check(&scene.capture(), &[])?;
    expect_number(scene, before, rows)?;
    expect_number(scene, 1, "SELECT count(*) FROM captures")
}

// --- how a recording ends -----------------------------------------------------------------------------------------

fn child_command(scene: &Scene) -> Result<()> {
    let mut command = scene.record_command(Ns::A, &["--no-pcap", "--", "sh", "-c", "exit 7"])?;
    tools::run(&mut command, STEP_LIMIT)?.expect_code(7)?;
    expect_sound(scene, 1)
}

fn duration(scene: &Scene) -> Result<()> {
    let started = Instant::now();
    let recorder = scene.record(Ns::A, &["--duration", "2s"])?;
    scene.send(scene.transfer(100_000))?;
    recorder.wait(STEP_LIMIT)?.expect_code(0)?;
    ensure!(started.elapsed() >= Duration::from_secs(2), "ended after {:?}", started.elapsed());
    expect_sound(scene, 1)?;
    expect_number(scene, 2, "SELECT count(*) FROM flows")
}

fn sigint(scene: &Scene) -> Result<()> {
    end_by_signal(scene, Signal::SIGINT)
}

fn sigterm(scene: &Scene) -> Result<()> {
    end_by_signal(scene, Signal::SIGTERM)
}

/// In the middle of a transfer: what was recorded until then is complete and can be joined.
fn end_by_signal(scene: &Scene, signal: Signal) -> Result<()> {
    let recorder = scene.record(Ns::A, &["-i", scene.lab.interface(Ns::A)])?;
    scene.send(scene.transfer(1_000_000))?;
    let transfer = Transfer { bytes: 1 << 40, ..scene.transfer(0) };
    let server = scene.serve(&transfer)?;
    let mut client = scene.lab.command(Ns::A, tools::traffic()?);
    let address = format!("{}:{}", transfer.to, transfer.port);
    let client = Running::start(client.args(["send", "--connect", &address, "--bytes", &transfer.bytes.to_string()]))?;
    std::thread::sleep(Duration::from_millis(300));
    recorder.stop(signal, STEP_LIMIT)?.expect_code(0)?;
    drop((client, server));
    expect_sound(scene, 1)?;
    // What was on its way at the end may have been sampled or captured only.
    scene.join_and_check(&scene.capture(), &["--min-matched", "0.99"])
}

/// A recording never overwrites: neither the first session nor its capture.
fn second_session(scene: &Scene) -> Result<()> {
    let interface = scene.lab.interface(Ns::A);
    record_and_join(scene, scene.transfer(200_000))?;
    let first = (session_rows(scene)?, fingerprint(&scene.capture())?);
    let recorder = scene.record(Ns::A, &["-i", interface])?;
    scene.send(scene.transfer(300_000))?;
    Scene::stop(recorder)?;
    ensure!(first == (session_rows(scene)?, fingerprint(&scene.capture())?), "the first session has changed");
    expect_sound(scene, 2)?;
    for session in [1, 2] {
        expect_number(scene, 2, &format!("SELECT count(*) FROM flows WHERE session_id = {session}"))?;
    }
    Ok(())
}

/// All rows that belong to session 1, as one number.
fn session_rows(scene: &Scene) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    let database = scene.database()?;
    for sql in [
        "SELECT * FROM sessions WHERE id = 1",
        "SELECT * FROM flows WHERE session_id = 1 ORDER BY id",
        "SELECT * FROM samples WHERE flow_id IN (SELECT id FROM flows WHERE session_id = 1) ORDER BY id",
        "SELECT * FROM clocks WHERE session_id = 1 ORDER BY mono_before_ns",
        "SELECT * FROM packets WHERE flow_id IN (SELECT id FROM flows WHERE session_id = 1) ORDER BY id",
    ] {
        let mut statement = database.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                format!("{:?}", row.get_ref(column)?).hash(&mut hasher);
            }
        }
    }
    Ok(hasher.finish())
}

fn fingerprint(path: &std::path::Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    std::fs::read(path).with_context(|| path.display().to_string())?.hash(&mut hasher);
    Ok(hasher.finish())
}

fn forced_backend_missing(scene: &Scene) -> Result<()> {
    let mut command = scene.record_command(Ns::A, &["--backend", "kprobe", "--duration", "1s"])?;
    let finished = tools::run(&mut command, STEP_LIMIT)?.expect_code(1)?;
    ensure!(finished.stderr.contains("kprobe"), "the error does not name what is missing: {}", finished.stderr);
    Ok(())
}
