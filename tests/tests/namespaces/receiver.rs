//! Captures at the receiver.

use anyhow::{Result, ensure};

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::Scene;

use crate::expect::{expect_losses, expect_sound};

pub(crate) fn capture(scene: &Scene) -> Result<()> {
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

pub(crate) fn capture_gro_on(scene: &Scene) -> Result<()> {
    scene.lab.set_end_offloads(Ns::B, true)?;
    capture(scene)?;
    let (longest, sent) = (
        scene.number("SELECT max(len) FROM packets WHERE dir = 'out'")?,
        scene.number("SELECT max(mss) FROM packet_state")?,
    );
    ensure!(longest > sent, "the longest captured segment has {longest} bytes, one MSS is {sent}: nothing was merged");
    Ok(())
}
