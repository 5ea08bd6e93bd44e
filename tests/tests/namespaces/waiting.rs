//! What a sender waited for, where the network and the programs leave it no other choice.

use std::time::Duration;

use anyhow::{Result, ensure};

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene, Transfer};
use tcpprobe_tests::tools;

use crate::expect::expect_sound;

/// Records a transfer at its sender.
fn record(scene: &Scene, transfer: Transfer) -> Result<()> {
    let recorder = scene.record(Ns::A, &["--no-pcap"])?;
    scene.send(transfer)?;
    Scene::stop(recorder)?;
    expect_sound(scene, 1)
}

/// At least so many per mille of the time between segments went for a reason; what remains is a transfer's beginning and
/// end.
fn expect_share(scene: &Scene, reason: &str, at_least: i64) -> Result<()> {
    let share = scene.number(&format!(
        "SELECT coalesce(sum(CASE WHEN reason = '{reason}' THEN total_ns END), 0) * 1000 / sum(total_ns)
         FROM waiting_totals"
    ))?;
    ensure!(share >= at_least, "{share} per mille of the time for `{reason}`:\n{}", totals(scene)?);
    Ok(())
}

fn totals(scene: &Scene) -> Result<String> {
    let db = scene.database()?;
    let mut statement = db.prepare("SELECT coalesce(reason, 'unknown'), gaps, total_ns FROM waiting_totals")?;
    let rows = statement.query_map([], |row| {
        Ok(format!("{}: {} gaps, {} ns", row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

pub(crate) fn for_the_application(scene: &Scene) -> Result<()> {
    let transfer = Transfer { every: Duration::from_millis(50), ..scene.transfer(1_000_000) };
    record(scene, transfer)?;
    expect_share(scene, "application", 950)
}

pub(crate) fn for_the_receive_window(scene: &Scene) -> Result<()> {
    // more than a receiver that does not read has room for
    let transfer = Transfer { read_after: Duration::from_secs(1), ..scene.transfer(30_000_000) };
    record(scene, transfer)?;
    expect_share(scene, "receive window", 700)?;
    let longest = "SELECT max(gap_ns) FROM why_waiting";
    let of_window =
        format!("SELECT count(*) FROM why_waiting WHERE gap_ns = ({longest}) AND reason = 'receive window'");
    ensure!(scene.number(&of_window)? == 1, "the longest wait was for something else");
    Ok(())
}

pub(crate) fn for_cwnd(scene: &Scene) -> Result<()> {
    // the queue is full before the window that a receiver begins with
    record(scene, Transfer { congestion: "reno", ..scene.transfer(3_000_000) })?;
    expect_share(scene, "cwnd", 700)
}

pub(crate) fn for_pacing(scene: &Scene) -> Result<()> {
    let transfer = scene.transfer(2_000_000);
    let recorder = scene.record(Ns::A, &["--no-pcap"])?;
    let server = scene.serve(&transfer)?;
    let (address, port, bytes) = (transfer.to.to_string(), transfer.port.to_string(), transfer.bytes.to_string());
    let mut client = scene.lab.command(transfer.from, "python3");
    tools::run(client.args(["-c", PACED, &address, &port, &bytes]), STEP_LIMIT)?.expect_code(0)?;
    server.wait(STEP_LIMIT)?.expect_code(0)?;
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    expect_share(scene, "pacing", 900)
}

/// Sends bytes to an address and port at 2 MB/s: SO_MAX_PACING_RATE, which no safe wrapper in Rust has.
const PACED: &str = "
import socket, sys
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, 47, 2_000_000)
client.connect((sys.argv[1], int(sys.argv[2])))
client.sendall(bytes(int(sys.argv[3])))
client.shutdown(socket.SHUT_WR)
while client.recv(4096): pass
";

pub(crate) fn for_recovery(scene: &Scene) -> Result<()> {
    record(scene, scene.transfer(2_000_000))?;
    // how much of the time it is depends on where the losses fall
    expect_share(scene, "recovery", 50)?;
    let retransmissions =
        scene.number("SELECT count(*) FROM samples WHERE kind = 'retransmit' AND phase = 'transmit'")?;
    let before = "FROM why_waiting WHERE before_retransmission";
    let waits = scene.number(&format!("SELECT count(*) {before}"))?;
    ensure!(waits == retransmissions, "{waits} waits before {retransmissions} retransmissions");
    ensure!(scene.number(&format!("SELECT count(*) {before} AND reason <> 'recovery'"))? == 0, "not for recovery");
    Ok(())
}
