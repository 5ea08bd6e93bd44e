//! Connections that begin or go on in another way than usual: the kernel must have done it, and the join be right.

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use crate::machine::{Run, number};
use crate::transfers::{SENDER, nothing_lost};

/// Of several connections one at least sent data from the second address, too.
pub(crate) fn mptcp(run: &Run) -> Result<()> {
    let db = exchanged(run, &[])?;
    let subflows = number(
        &db,
        "SELECT count(DISTINCT flow_id) FROM packets JOIN flows ON flows.id = flow_id
         WHERE len > 0 AND dir = 'out' AND local_addr = '10.77.1.1'",
    )?;
    ensure!(subflows >= 1, "no connection sent data from its second address");
    Ok(())
}

/// Two SYNs at least brought data, which the server took.
pub(crate) fn fastopen(run: &Run) -> Result<()> {
    let db = exchanged(run, &["--sender", SENDER])?;
    ensure!(counter(run, "TCPFastOpenPassive")? >= 2, "no connection was opened fast");
    // SYN without ACK
    let with_data = "FROM packets WHERE flags & 18 = 2 AND len > 0 AND dir = 'out'";
    ensure!(number(&db, &format!("SELECT count(*) {with_data}"))? >= 2, "no SYN with data");
    let unmatched = number(&db, &format!("SELECT count(*) {with_data} AND match NOT IN ('exact', 'within')"))?;
    ensure!(unmatched == 0, "{unmatched} SYNs with data have no sample");
    Ok(())
}

pub(crate) fn syncookies(run: &Run) -> Result<()> {
    exchanged(run, &["--sender", SENDER])?;
    ensure!(counter(run, "SyncookiesRecv")? >= 2, "no connection was made of a cookie");
    Ok(())
}

/// The counter of marks travels in AE, CWR and ECE (draft-ietf-tcpm-accurate-ecn §3.2.2): segments carry AE.
pub(crate) fn accecn(run: &Run) -> Result<()> {
    let db = exchanged(run, &["--sender", SENDER])?;
    let with_ae = number(&db, "SELECT count(*) FROM samples WHERE flags & 256")?;
    ensure!(with_ae > 0, "no segment with AE: this was no AccECN");
    Ok(())
}

/// Nothing was lost, all is joined right, and every data packet of a recorded flow has a sample of its own.
fn exchanged(run: &Run, check: &[&str]) -> Result<Connection> {
    run.recorded_well()?;
    let db = run.joined("trace.db", &[check, &["--port", "5202"]].concat())?;
    nothing_lost(run, &db)?;
    let (sent, well) = db.query_row(
        "SELECT count(*), sum(match IN ('exact', 'within')) FROM packets JOIN flows ON flows.id = flow_id
         WHERE dir = 'out' AND len > 0 AND local_addr LIKE '10.77._.1'",
        [],
        |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)),
    )?;
    ensure!(sent > 100 && well * 1000 >= sent * 999, "{well} of {sent} data packets have a sample of their own");
    Ok(db)
}

/// The sum of a counter of /proc/net/netstat over both ends, since the machine started.
fn counter(run: &Run, name: &str) -> Result<i64> {
    let text = run.text("netstat.txt")?;
    let lines: Vec<&str> = text.lines().collect();
    let of_pair = |pair: &[&str]| -> Option<i64> {
        let at = pair[0].split_whitespace().position(|n| n == name)?;
        pair[1].split_whitespace().nth(at)?.parse().ok()
    };
    let values: Vec<i64> = lines.chunks_exact(2).filter_map(of_pair).collect();
    ensure!(!values.is_empty(), "no counter {name}");
    values.into_iter().reduce(|a, b| a + b).context("no counter")
}
