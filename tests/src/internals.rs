//! Is what a trace says of the inside of congestion controls true? Judged by what their algorithms make of it: the
//! window before a reduction, the time K of CUBIC's function, BBR's gains and the pacing rate that follows from them, how
//! far DCTCP's alpha can go at once.
//!
//! Owns these relations, taken from net/ipv4/tcp_cubic.c, tcp_bbr.c and tcp_dctcp.c; knows nothing of how the values are read.

use anyhow::{Result, ensure};
use rusqlite::Connection;

/// CUBIC: where `last_max_cwnd` moves, it is the window that was reduced, or what fast convergence makes of it; where
/// an epoch begins, its K follows from the two windows, and its time is now. Returns the reductions that were looked at.
///
/// # Errors
/// The first row that does not fit, or a trace without rows.
pub fn cubic(db: &Connection) -> Result<usize> {
    let mut rows = db.prepare(
        "SELECT i.flow_id, i.sample_id, i.ts_ns, s.snd_cwnd, i.cubic_last_max_cwnd, i.cubic_k_us, i.cubic_epoch_start_ns
         FROM congestion_internals i JOIN samples s ON s.id = i.sample_id WHERE i.congestion = 'cubic'
         ORDER BY i.flow_id, i.sample_id",
    )?;
    let rows = rows
        .query_map([], |r| {
            let epoch: Option<i64> = r.get(6)?;
            Ok(([r.get::<_, i64>(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?], epoch))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(!rows.is_empty(), "nothing is known of cubic");
    let mut reductions = 0;
    let mut last = (0, 0, None);
    for ([flow, sample, ts_ns, cwnd, last_max, k_us], epoch_ns) in rows {
        let (last_flow, was, last_epoch) = if last.0 == flow { last } else { (flow, 0, None) };
        last = (last_flow, last_max, epoch_ns);
        if last_max != was && last_max != 0 {
            reductions += 1;
            let windows = windows_before(db, flow, sample)?;
            // BICTCP_BETA_SCALE 1024, beta 717
            let fits = windows.iter().any(|&w| last_max == w || (w < was && last_max == w * (1024 + 717) / 2048));
            ensure!(fits, "sample {sample}: last_max_cwnd {last_max} was {was}, of windows {windows:?}");
        }
        let Some(epoch_ns) = epoch_ns.filter(|&e| Some(e) != last_epoch) else { continue };
        // another value of the same epoch: what is known of the clock got better by less than a tick
        if last_epoch.is_some_and(|last| epoch_ns.abs_diff(last) <= 10_000_000) {
            continue;
        }
        let late_ns = ts_ns - epoch_ns;
        ensure!((-10_000_000..=100_000_000).contains(&late_ns), "sample {sample}: its epoch began {late_ns} ns before");
        // C = 0.4; the window may have grown by a few packets since
        let seconds = |distance: i64| (distance.max(0) as f64 / 0.4).cbrt();
        let (least, most) = (seconds(last_max - cwnd - 1) * 0.95, seconds(last_max - cwnd + 3) * 1.05);
        let k = k_us as f64 / 1e6;
        ensure!((least..=most).contains(&k), "sample {sample}: K is {k} s, not {least} to {most} s");
    }
    Ok(reductions)
}

/// The windows that a flow had at its last samples up to this one, and those that it went back to within an ACK: one
/// that ends a recovery sets the window to the threshold (tcp_end_cwnd_reduction) and may begin the next at once.
fn windows_before(db: &Connection, flow: i64, sample: i64) -> Result<Vec<i64>> {
    let mut windows = db.prepare_cached(
        "SELECT snd_cwnd, iif(ca_state IN (2, 3), snd_ssthresh, NULL) FROM samples
         WHERE flow_id = ?1 AND id <= ?2 ORDER BY id DESC LIMIT 40",
    )?;
    let windows = windows
        .query_map([flow, sample], |r| Ok([r.get::<_, Option<i64>>(0)?, r.get(1)?]))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(windows.into_iter().flatten().flatten().collect())
}

/// BBR: each mode has its gains, and once the pipe is full the pacing rate is bandwidth times gain, less 1 %. Returns
/// the rows that were looked at.
///
/// # Errors
/// The first row that does not fit, or too many whose pacing rate does not.
pub fn bbr(db: &Connection) -> Result<usize> {
    let mut rows = db.prepare(
        "SELECT i.sample_id, i.bbr_mode, i.bbr_pacing_gain, i.bbr_cwnd_gain, i.bbr_bw_bytes_per_s, i.bbr_full_bw_reached,
           coalesce(s.pacing_rate, 0)
         FROM congestion_internals i JOIN samples s ON s.id = i.sample_id WHERE i.congestion = 'bbr'",
    )?;
    let rows = rows
        .query_map([], |r| {
            let mode: String = r.get(1)?;
            Ok((r.get::<_, i64>(0)?, mode, [r.get::<_, f64>(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?]))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(!rows.is_empty(), "nothing is known of bbr");
    let (mut paced, mut as_said) = (0, 0);
    for (sample, mode, [pacing_gain, cwnd_gain, bw, full, pacing_rate]) in &rows {
        // bbr_init leaves the gains to bbr_main, which the first ACK calls
        if *bw == 0.0 {
            ensure!(mode == "STARTUP", "sample {sample}: {mode} without a bandwidth");
            continue;
        }
        // bbr_high_gain, bbr_drain_gain, bbr_pacing_gain[], all in 1/256; 1 where the long-term estimate is in use
        let gains: &[f64] = match mode.as_str() {
            "STARTUP" => &[739.0 / 256.0, 1.0],
            "DRAIN" => &[88.0 / 256.0],
            "PROBE_BW" => &[1.25, 0.75, 1.0],
            _ => &[1.0],
        };
        ensure!(gains.contains(pacing_gain), "sample {sample}: {mode} with a pacing gain of {pacing_gain}");
        let windows = [739.0 / 256.0, 2.0, 1.0];
        ensure!(windows.contains(cwnd_gain), "sample {sample}: {mode} with a cwnd gain of {cwnd_gain}");
        if *full == 1.0 && *pacing_rate > 0.0 {
            paced += 1;
            as_said += usize::from((pacing_rate / (bw * pacing_gain * 0.99) - 1.0).abs() < 0.02);
        }
    }
    ensure!(as_said * 100 >= paced * 95, "the pacing rate is bandwidth times gain at {as_said} of {paced} rows");
    Ok(rows.len())
}

/// DCTCP: alpha begins at 1; each window takes a sixteenth of it away and adds at most a sixteenth, where there were marks
/// (`dctcp_update_alpha`). Returns how often it rose.
///
/// # Errors
/// The first row that does not fit, or a trace without rows.
pub fn dctcp(db: &Connection) -> Result<usize> {
    let mut rows = db.prepare(
        "SELECT flow_id, sample_id, dctcp_alpha, dctcp_ce_state FROM congestion_internals WHERE congestion = 'dctcp'
         ORDER BY flow_id, sample_id",
    )?;
    let rows = rows
        .query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?, r.get::<_, f64>(2)?, r.get::<_, i64>(3)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(!rows.is_empty(), "nothing is known of dctcp");
    let mut rises = 0;
    let mut last = None;
    for (flow, sample, alpha, ce_state) in rows {
        ensure!(ce_state == 0 || ce_state == 1, "sample {sample}: ce_state is {ce_state}");
        // DCTCP_MAX_ALPHA 1024, dctcp_shift_g 4
        let alpha = (alpha * 1024.0).round() as i64;
        let was = last.filter(|(of, _)| *of == flow).map_or(1024, |(_, was)| was);
        last = Some((flow, alpha));
        let least = was - if was >> 4 == 0 { was } else { was >> 4 };
        ensure!(
            alpha == was || (least..=(least + 64).min(1024)).contains(&alpha),
            "sample {sample}: alpha was {was}/1024, and is {alpha}/1024"
        );
        rises += usize::from(alpha > was);
    }
    Ok(rises)
}
