//! The table of docs/kernels.md against a recording: what it says that a backend samples is there, and nothing else.

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use crate::machine::{Run, number};

const DOCUMENT: &str = include_str!("../../../docs/kernels.md");
/// The columns behind what is sampled.
const BACKENDS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];
/// `TCP_ESTABLISHED` of include/net/tcp_states.h.
const ESTABLISHED: u8 = 1;

/// A row: samples of these kinds and this phase, and whether a backend has them.
struct Row<'d> {
    kinds: Vec<&'d str>,
    phase: &'d str,
    /// Of sockets in ESTABLISHED, or of others; `None` where the row does not tell them apart.
    established: Option<bool>,
    by_backend: [&'d str; BACKENDS.len()],
}

/// The recording of `run`, of a transfer that lost segments, must have samples as the table says of its backend.
pub(crate) fn agrees(run: &Run, db: &Connection) -> Result<()> {
    let name = run.folder.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let backend = BACKENDS.iter().position(|b| name.split('_').any(|word| word == *b));
    let backend = backend.with_context(|| format!("{name} names no backend"))?;
    let rows = rows()?;
    for row in &rows {
        let said = row.by_backend[backend];
        for kind in &row.kinds {
            let what = format!("{kind}, {}, ESTABLISHED: {:?}", row.phase, row.established);
            let found = count(db, kind, row)?;
            match (said, said.contains("since")) {
                ("none", _) => ensure!(found == 0, "{found} samples that the table does not have: {what}"),
                // the table says of which kernels, and of which few states
                (_, true) if *kind == "ack" => {
                    ensure!(found == 0 || run.release()? >= (6, 11), "{found} samples on an old kernel: {what}");
                }
                _ => ensure!(found > 0, "no sample that the table has: {what}"),
            }
        }
    }
    let mut sampled = db.prepare("SELECT DISTINCT kind, phase FROM samples")?;
    let sampled =
        sampled.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<Vec<(String, String)>, _>>()?;
    for (kind, phase) in sampled {
        let is_known = rows.iter().any(|r| r.phase == phase && r.kinds.contains(&kind.as_str()));
        ensure!(is_known, "the table has no row of {kind}, {phase}");
    }
    Ok(())
}

fn count(db: &Connection, kind: &str, row: &Row<'_>) -> Result<i64> {
    let state = match row.established {
        Some(true) => format!("AND sk_state = {ESTABLISHED}"),
        Some(false) => format!("AND sk_state != {ESTABLISHED}"),
        None => String::new(),
    };
    number(db, &format!("SELECT count(*) FROM samples WHERE kind = '{kind}' AND phase = '{}' {state}", row.phase))
}

fn rows() -> Result<Vec<Row<'static>>> {
    let mut rows = Vec::new();
    let mut segment = "";
    for line in DOCUMENT.lines().filter(|l| l.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [of, what, by_backend @ ..] = cells.as_slice() else { continue };
        segment = if of.is_empty() { segment } else { of };
        let mut words: Vec<&str> = what.split('`').skip(1).step_by(2).collect();
        let phase = words.pop().with_context(|| format!("no phase in {line}"))?;
        ensure!(!words.is_empty(), "no kind in {line}");
        let said = <[&str; BACKENDS.len()]>::try_from(by_backend).ok().context("another table")?;
        let said = said.map(|cell| if cell == "the same" { said[0] } else { cell });
        let established = segment.strip_prefix("received in ").map(|state| state == "ESTABLISHED");
        rows.push(Row { kinds: words, phase, established, by_backend: said });
    }
    ensure!(rows.len() == 7, "{} rows in the table", rows.len());
    Ok(rows)
}
