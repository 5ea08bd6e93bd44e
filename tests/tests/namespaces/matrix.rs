//! Congestion control × path × tap × offloads × IP version: not every combination, but each two values together.

use anyhow::{Result, ensure};

use tcpprobe_tests::lab::{Bottleneck, LabOptions, Loss, Ns};
use tcpprobe_tests::scene::{Scene, Transfer};

use crate::expect::{expect_losses, expect_number, expect_sound};

/// What loses packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// Every hundredth packet is lost.
    OnePercent,
    /// More than every tenth.
    Heavy,
    /// A queue behind the router, which overflows.
    Rate20,
    Rate50,
    Rate200,
}

/// Where packets are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tap {
    Sender,
    Receiver,
    /// All interfaces of the sender.
    Any,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    congestion: &'static str,
    path: Path,
    tap: Tap,
    offloads: bool,
    ipv6: bool,
}

const fn run(congestion: &'static str, path: Path, tap: Tap, offloads: bool, ipv6: bool) -> Run {
    Run { congestion, path, tap, offloads, ipv6 }
}

/// Each two values of two columns occur together ([`every_pair_occurs`]).
pub(crate) const RUNS: &[Run] = &[
    run("cubic", Path::OnePercent, Tap::Sender, false, false),
    run("cubic", Path::Heavy, Tap::Receiver, true, true),
    run("cubic", Path::Rate20, Tap::Any, true, false),
    run("cubic", Path::Rate50, Tap::Sender, true, true),
    run("cubic", Path::Rate200, Tap::Receiver, false, false),
    run("reno", Path::OnePercent, Tap::Receiver, true, true),
    run("reno", Path::Heavy, Tap::Any, false, false),
    run("reno", Path::Rate20, Tap::Sender, false, true),
    run("reno", Path::Rate50, Tap::Receiver, false, false),
    run("reno", Path::Rate200, Tap::Any, true, true),
    run("bbr", Path::OnePercent, Tap::Any, false, true),
    run("bbr", Path::Heavy, Tap::Sender, true, false),
    run("bbr", Path::Rate20, Tap::Receiver, true, false),
    run("bbr", Path::Rate50, Tap::Any, false, true),
    run("bbr", Path::Rate200, Tap::Sender, true, false),
];

impl Run {
    /// For the name of its test.
    pub(crate) fn name(&self) -> String {
        let Self { congestion, path, tap, offloads, ipv6 } = self;
        let (offloads, ip) = (if *offloads { "on" } else { "off" }, if *ipv6 { 6 } else { 4 });
        format!("matrix_{congestion}_{path:?}_{tap:?}_offloads_{offloads}_ipv{ip}").to_lowercase()
    }

    /// Its network.
    pub(crate) fn lab(&self) -> LabOptions {
        let base = LabOptions { router: true, offloads: self.offloads, ..LabOptions::default() };
        let lossy = |loss| LabOptions { rate_mbit: Some(200), loss, ..base };
        let slow =
            |rate_mbit, queue_bytes| LabOptions { bottleneck: Some(Bottleneck { rate_mbit, queue_bytes }), ..base };
        match self.path {
            Path::OnePercent => lossy(Loss::Every { every: 100, offset: 30 }),
            Path::Heavy => lossy(Loss::PerMille(150)),
            Path::Rate20 => slow(20, 60_000),
            Path::Rate50 => slow(50, 60_000),
            Path::Rate200 => slow(200, 100_000),
        }
    }

    /// Records, joins and checks it.
    pub(crate) fn steps(&self, scene: &Scene) -> Result<()> {
        let (a, b) = (scene.lab.interface(Ns::A), scene.lab.interface(Ns::B));
        let recorder = match self.tap {
            Tap::Sender => scene.record(Ns::A, &["-i", a])?,
            Tap::Receiver => scene.record(Ns::B, &["-i", b])?,
            Tap::Any => scene.record(Ns::A, &[])?,
        };
        let address = |ns| if self.ipv6 { scene.lab.ipv6(ns) } else { scene.lab.ipv4(ns) };
        // Several connections overflow a queue that one of them would keep clear of.
        let (connections, bytes) = match self.path {
            Path::OnePercent => (1, 10_000_000),
            Path::Heavy => (8, 100_000),
            Path::Rate20 => (8, 250_000),
            Path::Rate50 => (8, 500_000),
            Path::Rate200 => (8, 1_500_000),
        };
        let congestion = self.congestion;
        scene.send(Transfer { to: address(Ns::B), congestion, connections, ..scene.transfer(bytes) })?;
        Scene::stop(recorder)?;
        expect_sound(scene, 1)?;
        let sender = address(Ns::A).to_string();
        let arguments: &[&str] = match (self.tap, self.path) {
            // Of two sendings within a tick of TSval nothing tells which one arrived, without IPv4's identification.
            (Tap::Receiver, Path::Heavy) if self.ipv6 => {
                &["--tap", "receiver", "--sender", &sender, "--min-matched", "0.5"]
            }
            (Tap::Receiver, _) => &["--tap", "receiver", "--sender", &sender, "--min-matched", "0.98"],
            (Tap::Sender | Tap::Any, _) => &["--sender", &sender],
        };
        scene.join_and_check(&scene.capture(), arguments)?;
        expect_losses(scene)?;
        let of_sender = format!("FROM flows WHERE congestion = '{congestion}' AND local_addr = '{sender}'");
        expect_number(scene, i64::from(connections), &format!("SELECT count(*) {of_sender}"))?;
        let longest = scene.number("SELECT max(len) FROM packets WHERE dir = 'out'")?;
        ensure!((longest > 1500) == self.offloads, "the longest captured segment has {longest} bytes");
        Ok(())
    }

    fn values(&self) -> [String; 5] {
        let Self { congestion, path, tap, offloads, ipv6 } = self;
        [(*congestion).into(), format!("{path:?}"), format!("{tap:?}"), format!("{offloads}"), format!("{ipv6}")]
    }
}

/// The table above leaves no pair out.
pub(crate) fn every_pair_occurs() -> Result<()> {
    let rows: Vec<[String; 5]> = RUNS.iter().map(Run::values).collect();
    for one in 0..5 {
        for other in 0..one {
            for a in &rows {
                for b in &rows {
                    let (one_value, other_value) = (&a[one], &b[other]);
                    let together = rows.iter().any(|r| &r[one] == one_value && &r[other] == other_value);
                    ensure!(together, "{one_value} and {other_value} never occur together");
                }
            }
        }
    }
    Ok(())
}
