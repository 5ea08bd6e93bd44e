//! Traces that have a sample only where `snd_cwnd`, `snd_ssthresh` or `ca_state` changed: what the join rebuilds
//! between them from the packets, beside what a full trace has.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene};
use tcpprobe_tests::{preconditions, tools};

use crate::expect::{expect_losses, expect_number, expect_sound, record_and_join};

/// Of 1000 packets, how many must have the full trace's `snd_una`, and its `snd_nxt`: of those that were sent, and those
/// that were received. How many cannot be told depends on what the machine does at the time: between these floors and
/// the shares of simulated recordings, which are the same each time and held to 94 to 99 %, lies noise. Below them the
/// rebuilding is broken.
#[derive(Clone, Copy, Debug)]
struct Floors {
    sent: (u64, u64),
    received: (u64, u64),
}

/// What is sent waits 10 ms in the sender's queue, and ACKs come in bursts, 1 µs apart: of those within a tick of TSval
/// nothing tells which was processed before a packet in the queue was sent, unless cwnd does: of a sender that does not
/// fill it the state is off by one ACK for a while.
pub(crate) fn behind_a_queue(scene: &Scene) -> Result<()> {
    rebuilt(scene, 3_000_000, Floors { sent: (800, 950), received: (950, 600) })
}

/// Nothing waits between the sender and its capture. But an ACK that comes while the application sends waits until it
/// is done (the socket's backlog): what is sent in between does not know of it, and no packet shows that.
/// And where one of two sampled packets was held up on its way to the tap, those between them seem to have been.
/// Since recording leaves the sender the processor it sends nearly all the time: of what was sent 530 to 970 of 1000 were
/// right in a dozen runs, and of what was received 380 to 1000.
/// Of super-packets there are few, of their ACKs fewer: of 20 MB 96 to 490 were left to compare.
pub(crate) fn without_a_queue(scene: &Scene) -> Result<()> {
    rebuilt(scene, 80_000_000, Floors { sent: (400, 950), received: (900, 250) })
}

fn rebuilt(scene: &Scene, bytes: u64, floors: Floors) -> Result<()> {
    record_and_join(scene, scene.transfer(bytes))?;
    expect_losses(scene)?;
    let thin = thinned(scene)?;
    let mut join = Command::new(tools::tcpprobe()?);
    tools::run(join.arg("join").arg(&thin).arg(scene.capture()), STEP_LIMIT)?.expect_code(0)?;
    let shares = compare(&scene.trace(), &thin, &scene.lab.ipv4(Ns::A).to_string())?;
    eprintln!("port {}: rebuilt {shares:?}", scene.port);
    for (what, (una, nxt)) in [("sent", floors.sent), ("received", floors.received)] {
        let share = shares.get(what).with_context(|| format!("nothing {what} to compare"))?;
        ensure!(share.rows > 100, "{} packets {what}", share.rows);
        for (edge, same, floor) in [("snd_una", share.una, una), ("snd_nxt", share.nxt, nxt)] {
            let enough = same * 1000 >= share.rows * floor;
            ensure!(enough, "{what}: {edge} is right at {same} of {} packets\n{}", share.rows, share.examples);
        }
    }
    Ok(())
}

/// A copy of the trace as `record --sample cwnd` would have made it, without a join.
fn thinned(scene: &Scene) -> Result<PathBuf> {
    let path = scene.file("thin.db");
    scene.database()?.execute("VACUUM INTO ?1", [path.to_str()]).context("a copy of the trace")?;
    let mut database = Connection::open(&path)?;
    let transaction = database.transaction()?;
    let mut kept: Vec<(i64, i64)> = Vec::new();
    {
        let sql = "SELECT id, flow_id, kind, snd_cwnd, snd_ssthresh, ca_state FROM samples ORDER BY flow_id, serial";
        let mut statement = transaction.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut last: HashMap<i64, (i64, [i64; 3])> = HashMap::new();
        while let Some(row) = rows.next()? {
            let (id, flow): (i64, i64) = (row.get(0)?, row.get(1)?);
            let (kind, state): (String, [i64; 3]) = (row.get(2)?, [row.get(3)?, row.get(4)?, row.get(5)?]);
            let same = last.get(&flow).is_some_and(|(_, before)| *before == state);
            if same && kind != "state" {
                continue;
            }
            let serial = last.get(&flow).map_or(1, |(serial, _)| serial + 1);
            last.insert(flow, (serial, state));
            kept.push((id, serial));
        }
    }
    let all: i64 = transaction.query_row("SELECT count(*) FROM sample_rows", [], |row| row.get(0))?;
    ensure!(kept.len() as i64 * 2 < all, "{} of {all} samples are changes", kept.len());
    transaction.execute_batch(
        "CREATE TEMP TABLE kept (id INTEGER PRIMARY KEY, serial INTEGER NOT NULL);
         DELETE FROM packet_rows; DELETE FROM unjoined; DELETE FROM translations; DELETE FROM sample_counts;
         DELETE FROM packetless_rows; DELETE FROM captures;",
    )?;
    for (id, serial) in &kept {
        transaction.execute("INSERT INTO kept VALUES (?1, ?2)", (id, serial))?;
    }
    // each that is kept is a run of its own, with the bases that it has
    let bases: String = transaction.query_row(
        "SELECT group_concat(name, ', ') FROM pragma_table_info('sample_runs')
         WHERE name NOT IN ('first_id', 'last_id', 'first_serial')",
        [],
        |row| row.get(0),
    )?;
    transaction.execute_batch(&format!(
        "CREATE TEMP TABLE runs AS SELECT k.id AS first_id, k.id AS last_id, k.serial AS first_serial, {bases}
           FROM kept k JOIN sample_runs u ON u.first_id = (SELECT r.id - r.run_off FROM sample_rows r WHERE r.id = k.id);
         DELETE FROM sample_rows WHERE id NOT IN (SELECT id FROM kept);
         DELETE FROM sample_runs;
         INSERT INTO sample_runs (first_id, last_id, first_serial, {bases}) SELECT * FROM runs;
         UPDATE sample_rows SET run_off = 0;
         UPDATE sessions SET sample_mode = 'cwnd', samples = (SELECT count(*) FROM sample_rows);"
    ))?;
    transaction.commit()?;
    Ok(path)
}

/// How many packets have the full trace's edges, of those that have no sample left.
#[derive(Debug, Default)]
struct Share {
    rows: u64,
    una: u64,
    nxt: u64,
    examples: String,
}

/// Differences that are shown.
const EXAMPLES: u64 = 10;

/// `ca_state` of the kernel's `TCP_CA_Recovery`; behind it comes `TCP_CA_Loss`. There what the sender sends is let go by
/// its own count of lost segments (`tcp_cwnd_reduction`), not by cwnd: of duplicate ACKs that come 1 µs apart nothing
/// tells which one made it send. Of these packets no share is asked for: simulated recordings have them in all numbers.
const IN_RECOVERY: i64 = 3;

/// The sockets of one address, at whose host the capture was taken.
fn compare(full: &Path, thin: &Path, address: &str) -> Result<BTreeMap<&'static str, Share>> {
    use std::fmt::Write as _;
    let database = Connection::open(thin)?;
    database.execute("ATTACH ?1 AS full", [full.to_str()])?;
    // ACKs that were merged while they waited share a sample, which is that of none of them alone.
    let mut statement = database.prepare(
        "SELECT f.number, f.flow_id, f.dir, f.seq, f.len, f.match, f.snd_una, f.snd_nxt, t.snd_una, t.snd_nxt, f.ca_state
         FROM full.packet_state f JOIN packet_state t USING (number, flow_id, dir)
         WHERE f.flow_id IN (SELECT id FROM flows WHERE local_addr = ?1) AND t.match = 'carried' AND f.match IN ('exact', 'within') AND (f.dir = 'out' OR f.sample_id NOT IN
           (SELECT sample_id FROM full.packets WHERE dir = 'in' AND sample_id NOT NULL GROUP BY sample_id
            HAVING count(*) > 1))
         ORDER BY f.number",
    )?;
    let mut rows = statement.query([address])?;
    let mut shares: BTreeMap<&'static str, Share> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (number, flow, dir): (u32, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (seq, len, matched): (u32, u32, String) = (row.get(3)?, row.get(4)?, row.get(5)?);
        let (una, nxt): (u32, u32) = (row.get(6)?, row.get(7)?);
        let (rebuilt_una, rebuilt_nxt): (u32, u32) = (row.get(8)?, row.get(9)?);
        let is_out = dir == "out";
        // The sample of a larger segment has snd_nxt at the segment's beginning. Where nothing tells that the packet is
        // a piece of it, it was sent by itself, at its own beginning.
        let is_piece = is_out && (seq.wrapping_sub(nxt) as i32) > 0;
        let nxt = if is_piece && rebuilt_nxt == seq { seq } else { nxt };
        let in_recovery = row.get::<_, i64>(10)? >= IN_RECOVERY;
        let share = shares.entry(match (is_out, in_recovery) {
            (true, false) => "sent",
            (false, false) => "received",
            (true, true) => "sent in recovery",
            (false, true) => "received in recovery",
        });
        let share = share.or_default();
        share.rows += 1;
        share.una += u64::from(una == rebuilt_una);
        share.nxt += u64::from(nxt == rebuilt_nxt);
        let wrong = 2 * share.rows - share.una - share.nxt;
        if (una, nxt) != (rebuilt_una, rebuilt_nxt) && wrong <= EXAMPLES {
            let off = |right: u32, rebuilt: u32| rebuilt.wrapping_sub(right) as i32;
            let (una, nxt) = (off(una, rebuilt_una), off(nxt, rebuilt_nxt));
            let _ = writeln!(
                share.examples,
                "packet {number}, flow {flow} {dir}, {len} bytes, {matched}: snd_una {una:+}, snd_nxt {nxt:+}"
            );
        }
    }
    Ok(shares)
}

/// Recorded so: few samples, no packet of its sockets without a state, and each change of cwnd at the packet that made it.
pub(crate) fn recorded(scene: &Scene) -> Result<()> {
    let recorder = scene.record(Ns::A, &["-i", scene.lab.interface(Ns::A), "--sample", "cwnd"])?;
    scene.send(scene.transfer(5_000_000))?;
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    scene.join(&scene.capture())?;
    expect_number(scene, 1, "SELECT count(*) FROM sessions WHERE sample_mode = 'cwnd'")?;
    let data = "FROM packet_state JOIN flows ON flows.id = flow_id WHERE dir = 'out' AND len > 0";
    let (samples, packets) =
        (scene.number("SELECT count(*) FROM samples")?, scene.number(&format!("SELECT count(*) {data}"))?);
    ensure!(samples * 2 < packets, "{samples} samples for {packets} packets");
    let states = scene.number("SELECT count(DISTINCT snd_cwnd) FROM samples")?;
    ensure!(states > 10, "cwnd had {states} values");
    expect_number(scene, 0, &format!("SELECT count(*) {data} AND match = 'none'"))?;
    expect_number(scene, 0, &format!("SELECT count(*) {data} AND match = 'carried' AND reason != 'sparse trace'"))?;
    // What is sent begins in the window that was rebuilt, or in a segment that begins there; modulo 2^32.
    let beyond = format!(
        "SELECT count(*) {data} AND match = 'carried'
         AND ((seq - snd_una) & 4294967295 > 1 << 30 OR (snd_nxt + 65536 - seq) & 4294967295 > 1 << 30)"
    );
    expect_number(scene, 0, &beyond)
}

/// A filter of the sender's own drops segments where this kernel shows none yet, and cwnd is often the same before and
/// after: each is one that was not shown, and none is taken for one that the ring had no room for.
pub(crate) fn not_shown(scene: &Scene) -> Result<()> {
    scene.lab.drop_own_output(Ns::A, scene.port, 8)?;
    let recorder = scene.record(Ns::A, &["--sample", "cwnd"])?;
    scene.send(scene.transfer(10_000_000))?;
    Scene::stop(recorder)?;
    expect_number(scene, 0, "SELECT count(*) FROM losses WHERE cause = 'ring_full'")?;
    let lost = scene.number("SELECT sum(lost) FROM sessions")?;
    // a lock that the kernel refuses has nothing to do with it
    let told = "SELECT coalesce(sum(count), 0) FROM losses WHERE cause IN ('not_shown', 'lock_refused')";
    expect_number(scene, lost, told)?;
    // where TCP itself can be watched, each segment is seen before the filter drops it
    if preconditions::kernel_has_kprobes().is_none() {
        ensure!(lost > 10, "{lost} segments were not shown");
        let holes = scene.number("SELECT count(*) FROM losses WHERE flow_id NOT NULL AND cause = 'not_shown'")?;
        ensure!(holes > 0, "{holes} holes in the order of samples");
    }
    Ok(())
}
