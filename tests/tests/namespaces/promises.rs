//! The join's own promises.

use anyhow::{Context, Result, ensure};

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
    ];
    for (case, (which, change)) in faults.iter().enumerate() {
        let copy = scene.file(&format!("fault-{case}.db"));
        scene.database()?.execute("VACUUM INTO ?1", [copy.to_str()]).context("a copy of the trace")?;
        let database = rusqlite::Connection::open(&copy)?;
        // Tables in place of the views, whatever those are made of: these can be changed.
        database.execute_batch(
            "CREATE TABLE p AS SELECT * FROM packets; CREATE TABLE s AS SELECT * FROM packet_state;
             DROP VIEW packet_state; DROP VIEW packets;
             ALTER TABLE p RENAME TO packets; ALTER TABLE s RENAME TO packet_state;",
        )?;
        let choice = format!("SELECT id, number FROM packet_state WHERE {which} ORDER BY number LIMIT 1 OFFSET 5");
        let (id, number): (i64, i64) = database.query_row(&choice, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for table in ["packets", "packet_state"] {
            database
                .execute(&format!("{} WHERE id = {id}", change.replace("changed", table)), [])
                .context(change.to_string())?;
        }
        let report = scene.check(&copy, &scene.capture(), &[])?.expect_code(1);
        let report = report.with_context(|| format!("not found: {change}"))?.stdout;
        ensure!(report.contains(&format!("WRONG packet {number}:")), "{change} of packet {number}:\n{report}");
    }
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
