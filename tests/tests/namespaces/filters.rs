//! What is recorded and captured, and what is not.

use anyhow::Result;

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{Scene, Transfer};

use crate::expect::{expect_number, expect_sound};

pub(crate) fn netns_filter(scene: &Scene) -> Result<()> {
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

pub(crate) fn port_filter(scene: &Scene) -> Result<()> {
    let recorder = scene.record(Ns::A, &["-i", scene.lab.interface(Ns::A)])?;
    let other = scene.port + 100;
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

pub(crate) fn host_prefix_filter(scene: &Scene) -> Result<()> {
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
