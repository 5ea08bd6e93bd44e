//! What every recording must be, and the steps that most tests begin with.

use anyhow::{Result, ensure};

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{MissedSamples, Scene, Transfer};

/// Causes of losses that lie with the kernel: it did not run a probe, or refused a lock for longer than a program may ask
/// for it, as it does where another virtual processor that holds it is not run itself.
const KERNELS_OWN: &str = "'not_shown', 'recursion', 'probe_missed', 'lock_refused'";

/// All sessions are complete, nothing was lost, and every flow has a beginning and an end.
pub(crate) fn expect_sound(scene: &Scene, sessions: i64) -> Result<()> {
    expect_number(scene, sessions, "SELECT count(*) FROM sessions")?;
    expect_number(scene, 0, "SELECT count(*) FROM sessions WHERE complete != 1 OR ended_ns < started_ns")?;
    // what the kernel did not run, or let no one do, is no fault of the recorder, which has to say it
    let causes = "SELECT coalesce(group_concat(count || ' ' || cause, ', '), '') FROM losses WHERE cause";
    let faults: String = scene.database()?.query_row(&format!("{causes} NOT IN ({KERNELS_OWN})"), [], |r| r.get(0))?;
    ensure!(faults.is_empty(), "the recorder lost samples: {faults}");
    let lost = scene.number("SELECT sum(lost) FROM sessions")?;
    expect_number(
        scene,
        lost,
        "SELECT coalesce(sum(count), 0) FROM losses WHERE cause NOT IN ('recursion', 'probe_missed')",
    )?;
    // runs for whatever socket are among them: one of this test may have been meant
    let missed: String = scene.database()?.query_row(&format!("{causes} IN ({KERNELS_OWN})"), [], |r| r.get(0))?;
    if !missed.is_empty() {
        return Err(MissedSamples(format!("{missed}, as the recorder says itself")).into());
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

pub(crate) fn expect_number(scene: &Scene, expected: i64, sql: &str) -> Result<()> {
    let number = scene.number(sql)?;
    ensure!(number == expected, "{number}, not {expected}: {sql}");
    Ok(())
}

/// The path lost packets, the sampler saw retransmissions, and the join found them in the capture.
pub(crate) fn expect_losses(scene: &Scene) -> Result<()> {
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
pub(crate) fn record_and_join(scene: &Scene, transfer: Transfer) -> Result<()> {
    let interface = scene.lab.interface(Ns::A);
    let recorder = scene.record(Ns::A, &["-i", interface])?;
    scene.send(transfer)?;
    let said = Scene::stop(recorder)?.stderr;
    ensure!(said.contains("packet"), "the summary has no packets:\n{said}");
    expect_sound(scene, 1)?;
    scene.join_and_check(&scene.capture(), &[])
}
