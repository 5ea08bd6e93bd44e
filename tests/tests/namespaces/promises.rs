//! The join's own promises.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use rusqlite::Connection;

use tcpprobe_tests::scene::Scene;

use crate::expect::{expect_losses, expect_number, record_and_join};

/// The check itself must be able to fail: what a wrong join would write, it finds, and at the right packet.
pub(crate) fn check_finds_wrong_joins(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(3_000_000))?;
    expect_losses(scene)?;
    let sent = "match = 'exact' AND dir = 'out' AND len > 0";
    let (data, again) = (format!("{sent} AND NOT retransmission"), format!("{sent} AND retransmission"));
    let first_sending = "sample_id = (SELECT sample_id FROM packet_state AS p WHERE p.flow_id = changed.flow_id \
                         AND p.seq = changed.seq AND p.dir = 'out' AND p.len > 0 ORDER BY p.number LIMIT 1)";
    let faults = [
        (&data, "DELETE FROM changed"),
        (&data, "UPDATE changed SET len = len - 1"),
        (&data, "UPDATE changed SET number = number + 1"),
        (&data, "UPDATE changed SET sample_id = sample_id + 1"),
        (&data, "UPDATE changed SET match = 'none', reason = NULL"),
        (&again, "UPDATE changed SET match = 'carried'"),
        (&again, &format!("UPDATE changed SET {first_sending}")),
        (&data, "UPDATE changed SET copy = 1"),
        (&data, "UPDATE changed SET sacked_bytes = sacked_bytes + 1"),
        (&data, "UPDATE changed SET delay_variation_ns = delay_variation_ns + 10000"),
        (&data, "UPDATE changed SET delay_variation_ns = NULL"),
    ];
    for (which, change) in &faults {
        let (copy, database) = changeable_copy(scene)?;
        let choice = format!("SELECT id, number FROM packet_state WHERE {which} ORDER BY number LIMIT 1 OFFSET 5");
        let (id, number): (i64, i64) = database.query_row(&choice, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for table in ["packets", "packet_state"] {
            database
                .execute(&format!("{} WHERE id = {id}", change.replace("changed", table)), [])
                .context(change.to_string())?;
        }
        expect_found(scene, &copy, change, &format!("WRONG packet {number}:"))?;
    }
    for (change, found) in [
        ("UPDATE captures SET clock_offset_ns = clock_offset_error_ns + 10000", "clock_offset_ns"),
        ("UPDATE captures SET clock_steps = 1", "the clock was set 1 times"),
        ("UPDATE sample_counts SET samples = samples + 1 WHERE outcome = 'joined'", "sample_counts"),
        ("UPDATE packets SET delay_variation_ns = delay_variation_ns + 1", "the smallest delay_variation_ns is 1"),
        ("UPDATE samples SET ip_id = (ip_id + 1) & 65535 WHERE phase = 'transmit'", "ip_id is"),
    ] {
        let (copy, database) = changeable_copy(scene)?;
        ensure!(database.execute(change, [])? > 0, "{change} changes nothing");
        expect_found(scene, &copy, change, found)?;
    }
    Ok(())
}

/// A copy of the trace with tables in place of the views, whatever those are made of: these can be changed.
fn changeable_copy(scene: &Scene) -> Result<(PathBuf, Connection)> {
    let copy = scene.file("fault.db");
    let _ = std::fs::remove_file(&copy);
    scene.database()?.execute("VACUUM INTO ?1", [copy.to_str()]).context("a copy of the trace")?;
    let database = Connection::open(&copy)?;
    database.execute_batch(
        "CREATE TABLE p AS SELECT * FROM packets; CREATE TABLE t AS SELECT * FROM packet_state;
         CREATE TABLE s AS SELECT * FROM samples;
         DROP VIEW samples_without_packet; DROP VIEW packet_state; DROP VIEW packets; DROP VIEW samples;
         PRAGMA legacy_alter_table = ON;
         ALTER TABLE p RENAME TO packets; ALTER TABLE t RENAME TO packet_state; ALTER TABLE s RENAME TO samples;
         CREATE TABLE samples_without_packet (capture_id, flow_id, sample_id);",
    )?;
    Ok((copy, database))
}

fn expect_found(scene: &Scene, copy: &Path, change: &str, found: &str) -> Result<()> {
    let report = scene.check(copy, &scene.capture(), &[])?.expect_code(1);
    let report = report.with_context(|| format!("not found: {change}"))?.stdout;
    ensure!(report.contains(found), "{change}: no `{found}` in\n{report}");
    Ok(())
}

pub(crate) fn joining_again_replaces(scene: &Scene) -> Result<()> {
    record_and_join(scene, scene.transfer(1_000_000))?;
    let rows = "SELECT count(*) FROM packets";
    let before = scene.number(rows)?;
    scene.join_and_check(&scene.capture(), &[])?;
    expect_number(scene, before, rows)?;
    expect_number(scene, 1, "SELECT count(*) FROM captures")
}
