//! Captures by another machine's clock: all namespaces share one, so the times in the file are rewritten.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::Scene;

use crate::expect::{expect_losses, expect_number, expect_sound};

/// As between TAI and UTC.
const AHEAD_NS: i64 = 37_000_000_000;
/// As a crystal in a warm room.
const DRIFT_PPB: i64 = 50_000;
/// Times in a capture are read within this.
const READING_NS: i64 = 5_000;

pub(crate) fn at_sender(scene: &Scene) -> Result<()> {
    shifted(scene, Ns::A, &[])
}

pub(crate) fn at_receiver(scene: &Scene) -> Result<()> {
    shifted(scene, Ns::B, &["--tap", "receiver", "--min-matched", "0.98"])
}

/// The same capture, once as it was taken and once by a clock that is ahead and runs fast: nothing differs but what is
/// said of that clock.
fn shifted(scene: &Scene, tap: Ns, arguments: &[&str]) -> Result<()> {
    let recorder = scene.record(tap, &["-i", scene.lab.interface(tap)])?;
    scene.send(scene.transfer(8_000_000))?;
    Scene::stop(recorder)?;
    expect_sound(scene, 1)?;
    let sender = scene.lab.ipv4(Ns::A).to_string();
    scene.join_and_check(&scene.capture(), &[&["--sender", &sender], arguments].concat())?;
    expect_losses(scene)?;

    let other = scene.file("shifted.pcap");
    rewrite(&scene.capture(), &other)?;
    scene.join(&other)?;
    expect_number(scene, 2, "SELECT count(*) FROM captures")?;
    let of = |capture: &str| {
        // Between which samples a packet without one stands is an estimate.
        format!(
            "SELECT number, flow_id, dir, match, reason, copy,
               CASE WHEN match IN ('exact', 'within') THEN sample_id END AS sample_id FROM packets
             WHERE capture_id = (SELECT id FROM captures WHERE path LIKE '%/{capture}')"
        )
    };
    let (own, shifted) = (of("trace.pcap"), of("shifted.pcap"));
    let rows = scene.number(&format!("SELECT count(*) FROM ({own})"))?;
    ensure!(rows > 5_000, "{rows} rows");
    for (one, without) in [(&own, &shifted), (&shifted, &own)] {
        expect_number(scene, 0, &format!("SELECT count(*) FROM ({one} EXCEPT {without})"))?;
    }

    let told = |column: &str| {
        let sql = format!("SELECT {column} FROM captures WHERE path LIKE '%/shifted.pcap'");
        scene.number(&sql).with_context(|| format!("{column} is not told"))
    };
    for (what, truth, reading) in [("clock_offset_ns", AHEAD_NS, READING_NS), ("clock_drift_ppb", DRIFT_PPB, 0)] {
        let error = what.replace("_ns", "_error_ns").replace("_ppb", "_error_ppb");
        let (value, error) = (told(what)?, told(&error)?);
        ensure!((value - truth).abs() <= error + reading, "{what} is {value} ± {error}, and in truth {truth}");
        // An error that allows for anything says nothing.
        ensure!(error < truth / 2, "{what} is {value} ± {error}: not told");
    }
    ensure!(told("clock_steps")? == 0, "the clock was never set");
    Ok(())
}

/// Copies a classic pcap file (<https://www.tcpdump.org/manpages/pcap-savefile.5.html>) with other times.
fn rewrite(from: &Path, to: &Path) -> Result<()> {
    const HEADER: usize = 24;
    const RECORD: usize = 16;
    let mut file = std::fs::read(from).with_context(|| from.display().to_string())?;
    let fraction_ns: i64 = match file.get(..4) {
        Some([0xd4, 0xc3, 0xb2, 0xa1]) => 1_000,
        Some([0x4d, 0x3c, 0xb2, 0xa1]) => 1,
        other => bail!("{}: no little-endian pcap file: {other:?}", from.display()),
    };
    let mut first_ns = None;
    let mut at = HEADER;
    while let Some(record) = file.get_mut(at..at + RECORD) {
        let field = |i: usize| -> Result<u32> { Ok(u32::from_le_bytes(record[i..i + 4].try_into()?)) };
        let (seconds, fraction, captured) = (field(0)?, field(4)?, field(8)?);
        let ts_ns = i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * fraction_ns;
        let elapsed_ns = ts_ns - *first_ns.get_or_insert(ts_ns);
        let ts_ns = ts_ns + AHEAD_NS + elapsed_ns * DRIFT_PPB / 1_000_000_000;
        record[..4].copy_from_slice(&u32::try_from(ts_ns / 1_000_000_000)?.to_le_bytes());
        record[4..8].copy_from_slice(&u32::try_from(ts_ns % 1_000_000_000 / fraction_ns)?.to_le_bytes());
        at += RECORD + captured as usize;
    }
    std::fs::write(to, file).with_context(|| to.display().to_string())
}
