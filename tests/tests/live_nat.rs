//! Live tests of captures behind a middlebox: what the sender's own capture says of each packet, the one behind a NAT
//! or behind a proxy of handshakes must say, too.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Completion, Trial};

use tcpprobe_tests::lab::{LabOptions, Ns};
use tcpprobe_tests::preconditions;
use tcpprobe_tests::scene::{MissedSamples, STEP_LIMIT, Scene, Transfer};
use tcpprobe_tests::tools;

/// How often a test that missed samples is tried.
const ATTEMPTS: u32 = 8;

/// What the router does with the sockets' packets, and what the join must say of it.
struct Middlebox {
    name: &'static str,
    port: u16,
    set_up: fn(&Scene) -> Result<()>,
    /// A condition on a row of `translations`.
    found: &'static str,
}

const MIDDLEBOXES: [Middlebox; 2] = [
    Middlebox {
        name: "receiver_capture_behind_nat",
        port: 7201,
        set_up: |scene| scene.lab.masquerade(),
        found: "local_addr = '10.77.2.1' AND local_port >= 61000 AND seq_shift = 0 AND peer_seq_shift = 0",
    },
    Middlebox {
        name: "receiver_capture_behind_proxy_of_handshakes",
        port: 7202,
        set_up: |scene| scene.lab.answer_handshakes(scene.port),
        found: "local_addr = '10.77.1.1' AND seq_shift = 0 AND peer_seq_shift != 0",
    },
];

static MISSING: LazyLock<Option<String>> = LazyLock::new(preconditions::missing);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = MIDDLEBOXES.iter().map(|middlebox| {
        Trial::ignorable_test(middlebox.name, move || match MISSING.clone() {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => repeat(middlebox).map_err(|e| format!("{e:#}").into()),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// A run in which the recorder was not shown all samples is repeated, see `namespaces.rs`.
fn repeat(middlebox: &Middlebox) -> Result<Completion> {
    for _ in 1..ATTEMPTS {
        match run(middlebox) {
            Err(error) if error.is::<MissedSamples>() => eprintln!("{} is repeated: {error:#}", middlebox.name),
            other => return other,
        }
    }
    run(middlebox)
}

fn run(middlebox: &Middlebox) -> Result<Completion> {
    let mut scene = Scene::new(middlebox.port, &LabOptions { router: true, ..LabOptions::default() })?;
    if let Err(error) = (middlebox.set_up)(&scene) {
        return Ok(Completion::ignored_with(format!("no such middlebox with this kernel: {error:#}")));
    }
    let result = compare(middlebox, &scene);
    if result.is_err() {
        let folder = scene.keep_folder();
        result.with_context(|| format!("files in {}", folder.display()))?;
    }
    Ok(Completion::Completed)
}

fn compare(middlebox: &Middlebox, scene: &Scene) -> Result<()> {
    // the sockets of the sender alone: nothing else knows the addresses behind the router
    let recorder = scene.record(Ns::A, &["--netns", "current"])?;
    let tcpdump = scene.tcpdump(Ns::B, "behind.pcap")?;
    scene.send(Transfer { reply: 5000, connections: 3, ..scene.transfer(2_000_000) })?;
    let behind = tcpdump.stop(scene)?;
    Scene::stop(recorder)?;
    let said = scene.join(&behind)?.stderr;
    scene.join(&scene.capture())?;

    ensure!(said.matches("  flow ").count() == 3, "the join says nothing of other addresses:\n{said}");
    let found = format!("SELECT count(*) FROM translations WHERE capture_id = 1 AND {}", middlebox.found);
    ensure!(scene.number(&found)? == 3, "not all flows were found:\n{said}");
    let own = scene.number("SELECT count(*) FROM translations WHERE capture_id = 2")?;
    ensure!(own == 0, "{own} translations in the sender's own capture");

    let (own, behind) = (transmissions(scene, 2)?, transmissions(scene, 1)?);
    ensure!(own.len() > 3000, "{} packets with data in the sender's own capture", own.len());
    // what comes after the sender has closed is shown to no tracepoint
    let sent = own.iter().filter(|(looks, _)| looks.1 == "out").flat_map(|(_, samples)| samples);
    let unsampled = sent.filter(|sample| sample.is_none()).count();
    if unsampled > 0 {
        return Err(MissedSamples(format!("{unsampled} packets have no sample in the sender's own capture")).into());
    }
    for (key, samples) in &behind {
        ensure!(own.get(key) == Some(samples), "{key:?}: {samples:?}, the sender's own capture has {:?}", own.get(key));
    }
    ensure!(own.len() == behind.len(), "{} packets, {} in the other capture", own.len(), behind.len());
    let mut verify = Command::new(tools::tcpprobe()?);
    tools::run(verify.arg("verify").arg(scene.trace()), STEP_LIMIT)?.expect_code(0).map(drop)
}

/// What a packet looks like to the flow's socket: flow, direction, sequence and acknowledgment number, length, flags.
type Looks = (i64, String, u32, u32, u32, u16);

/// The samples of all packets with data, by what these look like.
fn transmissions(scene: &Scene, capture: i64) -> Result<BTreeMap<Looks, Vec<Option<i64>>>> {
    let db = scene.database()?;
    let mut statement = db.prepare(
        "SELECT flow_id, dir, (seq - iif(dir = 'out', own, peer)) & 4294967295, (ack - iif(dir = 'out', peer, own)) & 4294967295,
           len, flags, iif(match IN ('exact', 'within'), sample_id, NULL)
         FROM packets p JOIN (SELECT id, coalesce(seq_shift, 0) own, coalesce(peer_seq_shift, 0) peer FROM flows f
           LEFT JOIN translations t ON t.flow_id = f.id AND t.capture_id = ?1) s ON s.id = p.flow_id
         WHERE capture_id = ?1 AND len > 0",
    )?;
    let mut found: BTreeMap<Looks, Vec<Option<i64>>> = BTreeMap::new();
    let mut rows = statement.query([capture])?;
    while let Some(r) = rows.next()? {
        let looks = (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?);
        found.entry(looks).or_default().push(r.get(6)?);
    }
    for samples in found.values_mut() {
        samples.sort_unstable();
    }
    Ok(found)
}
