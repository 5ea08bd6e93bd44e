//! Transfers over a lossy path: each backend by itself, as root and as a user, and with retransmissions that fail.

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use tcpprobe_tests::internals;

use crate::machine::{Run, number};
use crate::table;

/// The sender's address, of every run.
pub(crate) const SENDER: &str = "10.77.0.1";
/// The samples of its flows.
const OF_SENDER: &str = "flow_id IN (SELECT id FROM flows WHERE local_addr = '10.77.0.1')";
/// What a frame can spend on the path: 20 ms, and a full queue of 200 frames of 3 KB before it at 20 Mbit/s.
const PATH_NS: i64 = 300_000_000;

pub(crate) fn cubic(run: &Run) -> Result<()> {
    let db = transfer(run)?;
    let reductions = internals::cubic(&db)?;
    ensure!(reductions > 0, "no loss lowered the window");
    Ok(())
}

pub(crate) fn bbr(run: &Run) -> Result<()> {
    let db = transfer(run)?;
    if !is_described(run, &db, "bbr")? {
        return Ok(());
    }
    let rows = internals::bbr(&db)?;
    ensure!(rows > 20, "{rows} rows of bbr's inside");
    Ok(())
}

/// The path marked segments, and dctcp took notice.
pub(crate) fn dctcp(run: &Run) -> Result<()> {
    let db = whole(run)?;
    // ECE without SYN: the receiver's echo
    let echoes =
        number(&db, &format!("SELECT count(*) FROM samples WHERE kind = 'ack' AND flags & 66 = 64 AND {OF_SENDER}"))?;
    ensure!(echoes > 0, "the path marked nothing");
    if !is_described(run, &db, "dctcp")? {
        return Ok(());
    }
    let rises = internals::dctcp(&db)?;
    ensure!(rises > 0, "no mark raised alpha");
    Ok(())
}

/// Modules have no BTF on 5.10: there nothing must be said, rather than something wrong.
fn is_described(run: &Run, db: &Connection, congestion: &str) -> Result<bool> {
    if run.release()? >= (5, 11) {
        return Ok(true);
    }
    let rows = number(db, &format!("SELECT count(*) FROM congestion_internals WHERE congestion = '{congestion}'"))?;
    ensure!(rows == 0, "{rows} rows of {congestion}, of which this kernel does not describe the layout");
    Ok(false)
}

pub(crate) fn cubic_and_joined_inside(run: &Run) -> Result<()> {
    let (status, said) = (run.text("joined.status")?, run.text("joined.txt")?);
    ensure!(status == "0" && said.contains("no violation"), "joined and verified inside the machine: {status}\n{said}");
    cubic(run)
}

pub(crate) fn of_a_user(run: &Run) -> Result<()> {
    transfer(run).map(drop)
}

/// `tcpprobe check` says of this user what the recording has shown.
pub(crate) fn of_a_user_who_asks(run: &Run) -> Result<()> {
    transfer(run)?;
    let (status, said) = (run.text("check.status")?, run.text("check.txt")?);
    ensure!(status == "0", "tcpprobe check ends with {status}:\n{said}");
    Ok(())
}

/// The recording must not begin, and must say which capability is missing.
pub(crate) fn refused_to_a_user(run: &Run) -> Result<()> {
    let (status, said) = (run.text("status")?, run.text("record.txt")?);
    ensure!(status == "1", "the recording ended with {status}:\n{said}");
    let missing = if run.text("capabilities.txt")?.is_empty() { "CAP_BPF" } else { "CAP_PERFMON" };
    ensure!(said.contains(missing), "no word of {missing}:\n{said}");
    ensure!(!run.folder.join("trace.db").exists(), "a trace without a recording");
    let (status, said) = (run.text("check.status")?, run.text("check.txt")?);
    ensure!(
        status == "1" && said.contains("setcap cap_bpf,cap_perfmon,cap_net_raw"),
        "check ends with {status}:\n{said}"
    );
    Ok(())
}

/// What could not be sent again is told apart where the kernel says so (ad892e912b84, "tcp: trace retransmit failures in
/// tcp_retransmit_skb", Linux 6.17), and is no packet's sample.
pub(crate) fn failing_locally(run: &Run) -> Result<()> {
    let db = whole(run)?;
    let words =
        number(&db, "SELECT count(*) FROM samples WHERE kind = 'retransmit' AND phase = 'after' AND error != 0")?;
    let told = number(&db, "SELECT count(*) FROM samples_without_packet WHERE reason = 'failed locally'")?;
    if run.release()? < (6, 17) {
        ensure!((words, told) == (0, 0), "{words} words of failure, {told} told apart: this kernel cannot say");
    } else {
        ensure!(words > 0, "nothing failed");
        ensure!(told == words, "{told} of {words} are told apart");
    }
    // data that is not in the capture was dropped by the path; or TCP itself sent it as new once more, for without a
    // route it had failed before it came to any device
    let unmatched = number(
        &db,
        &format!(
            "SELECT count(*) FROM samples_without_packet JOIN samples ON samples.id = sample_id
             WHERE phase = 'transmit' AND len > 0 AND samples.{OF_SENDER} AND NOT EXISTS (
               SELECT 1 FROM samples again WHERE again.flow_id = samples.flow_id AND again.id > samples.id
                 AND samples.kind = 'send' AND again.kind = 'send' AND again.seq = samples.seq)"
        ),
    )?;
    let dropped = run.dropped()?;
    ensure!(0 < unmatched && unmatched <= dropped, "{unmatched} without a packet, {dropped} dropped by the path");
    Ok(())
}

/// The wall clock was set by an hour forward and two back, and every packet still has the sample of its moment.
pub(crate) fn stepped(run: &Run) -> Result<()> {
    let db = transfer(run)?;
    let steps = offsets_s(&db)?;
    // `date` sets whole seconds
    let as_set = matches!(steps[..], [0, 3_598..=3_600, -3_603..=-3_600]);
    ensure!(as_set, "the wall clock was {steps:?} s off");
    of_its_moment(&db)
}

/// The machine slept, which the wall clock noticed and the monotonic clock did not.
pub(crate) fn suspended(run: &Run) -> Result<()> {
    ensure!(run.text("suspended.status")? == "0", "the machine was not suspended");
    let db = transfer(run)?;
    let steps = offsets_s(&db)?;
    ensure!(matches!(steps[..], [0, 2..=6]), "the wall clock was {steps:?} s off");
    of_its_moment(&db)
}

/// By how much the wall clock goes before the monotonic one, less what it did at first; one for each time that it was set.
fn offsets_ns(db: &Connection) -> Result<Vec<i64>> {
    let mut anchors = db.prepare("SELECT real_ns - mono_before_ns FROM clocks ORDER BY mono_before_ns")?;
    let offsets_ns = anchors.query_map([], |r| r.get::<_, i64>(0))?.collect::<Result<Vec<_>, _>>()?;
    let first_ns = offsets_ns.first().copied().context("no clock was read")?;
    let mut offsets_ns: Vec<i64> = offsets_ns.iter().map(|offset| offset - first_ns).collect();
    offsets_ns.dedup_by_key(|offset| (*offset + 500_000_000).div_euclid(1_000_000_000));
    Ok(offsets_ns)
}

/// The same, rounded to seconds.
fn offsets_s(db: &Connection) -> Result<Vec<i64>> {
    Ok(offsets_ns(db)?.iter().map(|offset| (offset + 500_000_000).div_euclid(1_000_000_000)).collect())
}

/// Between the sample of a segment that is sent and its packet there are milliseconds, with what waits on the path; what
/// waited while the clock was set has that in its delay.
fn of_its_moment(db: &Connection) -> Result<()> {
    let steps_ns: Vec<i64> = offsets_ns(db)?.windows(2).map(|two| two[1] - two[0]).collect();
    let mut delays = db.prepare(
        "SELECT number, delay_ns FROM packets JOIN samples ON samples.id = sample_id
         WHERE match = 'exact' AND phase = 'transmit'",
    )?;
    let delays = delays.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<Vec<(i64, i64)>, _>>()?;
    ensure!(delays.len() > 500, "{} packets with a sample of their own", delays.len());
    let is_usual = |delay_ns: i64| (-1_000_000..500_000_000).contains(&delay_ns);
    let mut waited = 0;
    for (number, delay_ns) in delays.iter().filter(|(_, delay_ns)| !is_usual(*delay_ns)) {
        let by_a_step = steps_ns.iter().any(|step| is_usual(delay_ns - step));
        ensure!(by_a_step, "packet {number} is {delay_ns} ns after its sample");
        waited += 1;
    }
    // 20 ms at 20 Mbit/s, of either end, with each step
    ensure!(waited <= 200, "{waited} packets waited while the clock was set");
    Ok(())
}

/// A recording without losses, in which the path did lose, and all that TCP sent has its packet or was dropped there.
fn transfer(run: &Run) -> Result<Connection> {
    let db = whole(run)?;
    let dropped = run.dropped()?;
    ensure!(dropped > 0, "the path lost nothing");
    let again = number(
        &db,
        &format!("SELECT count(*) FROM samples WHERE kind = 'retransmit' AND phase = 'transmit' AND {OF_SENDER}"),
    )?;
    ensure!(again > 0, "nothing was sent again");
    let unmatched = format!(
        "SELECT count(*) FROM samples WHERE phase = 'transmit' AND {OF_SENDER}
           AND id NOT IN (SELECT sample_id FROM packets WHERE match IN ('exact', 'within'))"
    );
    // what was sent last may have waited on the path still when the recording ended
    let long_ago = format!("{unmatched} AND ts_ns < (SELECT max(ts_ns) FROM packets) - {PATH_NS}");
    let (unmatched, long_ago) = (number(&db, &unmatched)?, number(&db, &long_ago)?);
    // a router solicitation or the like may have been among what was dropped, and of each connection one segment that no
    // socket sends: an ACK of TIME_WAIT, or a reset
    let others: i64 = run.text("icmpv6.txt")?.parse().context("icmpv6.txt")?;
    let others = others + number(&db, &format!("SELECT count(DISTINCT flow_id) FROM samples WHERE {OF_SENDER}"))?;
    ensure!(
        (long_ago..=unmatched + others).contains(&dropped),
        "{unmatched} transmissions without a packet, {long_ago} of them long before the end, {dropped} dropped by the \
         path, of {others} other frames at most"
    );
    table::agrees(run, &db).context("docs/kernels.md is wrong")?;
    Ok(db)
}

/// Nothing was lost, and 99.9 % of the sender's data packets have a sample of their own.
fn whole(run: &Run) -> Result<Connection> {
    run.recorded_well()?;
    let db = run.joined("trace.db", &["--sender", SENDER, "--port", "5201"])?;
    nothing_lost(run, &db)?;
    Ok(db)
}

/// No sample of a segment is missing. What it left behind may be: a return is not shown where another one is being
/// handled on the processor, and kretprobes before 6.2 have one instance a processor where the kernel is not
/// preemptible (3b7ddab8a19a, "kprobes: kretprobe events missing on 2-core KVM guest"). It is counted, and rare.
pub(crate) fn nothing_lost(run: &Run, db: &Connection) -> Result<()> {
    let lost = number(db, "SELECT coalesce(sum(lost), 0) FROM sessions")?;
    let returns = number(db, "SELECT coalesce(sum(count), 0) FROM losses WHERE cause = 'return_missed'")?;
    ensure!(lost == returns, "{lost} samples were lost:\n{}", run.text("record.txt")?);
    let received = number(db, "SELECT count(*) FROM samples WHERE kind = 'ack' AND phase = 'before'")?;
    ensure!(returns * 100 <= received, "{returns} of {received} returns were missed");
    Ok(())
}
