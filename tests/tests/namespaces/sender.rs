//! Captures at the sender.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};

use tcpprobe_tests::internals;
use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{Scene, Transfer};

use crate::expect::{expect_losses, expect_number, expect_sound, record_and_join};

pub(crate) fn capture(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(50_000_000))?;
    expect_losses(scene)?;
    let dropped = scene.lab.dropped()?;
    let sent =
        scene.number("SELECT count(*) FROM packets JOIN flows ON flows.id = flow_id WHERE dir = 'out' AND len > 0")?;
    // About 1 %: the network is the one that this test is about.
    ensure!((100..=1000).contains(&dropped), "the path lost {dropped} of {sent} packets");
    let reductions = internals::cubic(&scene.database()?)?;
    ensure!(reductions >= 10, "of all these losses {reductions} lowered the window");
    Ok(())
}

pub(crate) fn tcpdump(scene: &Scene) -> Result<()> {
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

pub(crate) fn offloads_on(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(4_000_000))?;
    expect_losses(scene)?;
    let longest = scene.number("SELECT max(len) FROM packets WHERE dir = 'out'")?;
    ensure!(longest > 3000, "the longest captured segment has {longest} bytes: no offload");
    Ok(())
}

pub(crate) fn bbr(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { congestion: "bbr", ..scene.transfer(3_000_000) })?;
    expect_number(
        scene,
        1,
        &format!(
            "SELECT count(*) FROM flows WHERE congestion = 'bbr' AND netns = {}",
            scene.lab.namespace_inode(Ns::A)?
        ),
    )?;
    // what has not changed is no row: a path that stays the same makes few
    let rows = internals::bbr(&scene.database()?)?;
    ensure!(rows >= 10, "{rows} rows of bbr's inside");
    expect_losses(scene)
}

pub(crate) fn ipv6(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { to: scene.lab.ipv6(Ns::B), ..scene.transfer(10_000_000) })?;
    expect_number(scene, 0, "SELECT count(*) FROM flows WHERE remote_addr NOT LIKE 'fd77:%'")?;
    expect_losses(scene)
}

pub(crate) fn both_directions(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { reply: 5_000_000, ..scene.transfer(5_000_000) })?;
    expect_losses(scene)
}

/// Timeouts, tail loss probes, and the same bytes sent many times.
pub(crate) fn heavy_loss(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { connections: 8, ..scene.transfer(100_000) })?;
    expect_losses(scene)?;
    let most = scene.number(
        "SELECT max(times) FROM (SELECT count(*) AS times FROM packets WHERE dir = 'out' AND len > 0 GROUP BY flow_id, seq)",
    )?;
    ensure!(most >= 3, "no bytes were sent more than {most} times");
    Ok(())
}

pub(crate) fn syn_lost(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(1_000_000))?;
    expect_losses(scene)?;
    let syns = scene.number("SELECT count(*) FROM packets WHERE dir = 'out' AND flags & 18 = 2")?;
    ensure!(syns >= 2, "{syns} SYN in the capture");
    Ok(())
}

/// Samples without a packet: what the sender's own qdisc drops never comes to the capture.
pub(crate) fn dropped_in_own_queue(scene: &Scene) -> Result<()> {
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

pub(crate) fn short_connections_200(scene: &Scene) -> Result<()> {
    record_and_join(scene, Transfer { connections: 200, reply: 2_000, ..scene.transfer(20_000) })?;
    let address = scene.lab.ipv4(Ns::A);
    expect_number(scene, 200, &format!("SELECT count(*) FROM flows WHERE local_addr = '{address}'"))
}

pub(crate) fn any_interface(scene: &Scene) -> Result<()> {
    // Without -i: all interfaces of the namespace, with another link type.
    let recorder = scene.record(Ns::A, &[])?;
    scene.send(scene.transfer(5_000_000))?;
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    scene.join_and_check(&scene.capture(), &[])?;
    expect_losses(scene)
}

/// Captured on a router, on all of its interfaces: each packet comes by twice, but for what is lost between the two.
pub(crate) fn router_any_interface(scene: &Scene) -> Result<()> {
    let recorder = scene.record(Ns::R, &[])?;
    for to in [scene.lab.ipv4(Ns::B), scene.lab.ipv6(Ns::B)] {
        scene.send(Transfer { to, connections: 4, ..scene.transfer(500_000) })?;
    }
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    scene.join_and_check(&scene.capture(), &[])?;
    expect_losses(scene)?;
    let of_sender = "FROM packets JOIN flows ON flows.id = flow_id WHERE dir = 'out' AND remote_port = local.port";
    let of_sender = of_sender.replace("local.port", &scene.port.to_string());
    // What was lost was lost between the two interfaces.
    let seen = |copy: i64| scene.number(&format!("SELECT count(*) {of_sender} AND copy = {copy}"));
    let (once, twice) = (seen(0)?, seen(1)?);
    // an ACK with a twin, of which nothing tells at its second place which one it is, counts as one more that was seen
    // once instead of again
    let not_said =
        scene.number(&format!("SELECT count(*) {of_sender} AND reason = 'ambiguous' AND packets.len = 0"))?;
    let dropped = i64::try_from(scene.lab.dropped()?)?;
    let differ = once - twice - dropped;
    ensure!(
        differ >= 0 && differ <= 2 * not_said,
        "{once} packets, {twice} seen again, {dropped} dropped, {not_said} not said"
    );
    expect_number(scene, 0, "SELECT count(*) FROM packets WHERE copy > 1")
}

pub(crate) fn loopback_both_ends(scene: &Scene) -> Result<()> {
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
