//! Three backends that record one and the same transfer at once: where they sample at the same point, they say the
//! same; where they do not, what differs is what docs/kernels.md names.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use rusqlite::Connection;
use rusqlite::types::Value;
use tcpprobe_trace::fields::STATE_COLUMNS;

use crate::machine::Run;
use crate::transfers::nothing_lost;

/// What differs between the entry of `__tcp_transmit_skb` and `net_dev_queue` behind it: the function itself counts the
/// segment, and chooses the window that it offers (`tcp_select_window`).
const AT_THE_QUEUE: &[&str] = &["bytes_sent", "segs_out", "rcv_wnd"];
/// Of so many packets one may have been missed by the probe at the entry, and shown by the tracepoint instead.
const FILLED_IN_OF: usize = 100;

/// Where samples of different backends can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    ReceivedBefore,
    ReceivedAfter,
    Sent,
}

/// The sample of a packet: by frame number, socket and whether it was sent.
type Key = (i64, String, i64);

struct Recording {
    backend: &'static str,
    /// The states of each point's packets, by column.
    states: BTreeMap<(Point, Key), Vec<Value>>,
}

pub(crate) fn backends(run: &Run) -> Result<()> {
    run.recorded_well()?;
    ensure!(run.dropped()? > 0, "the path lost nothing");
    let mut recordings = Vec::new();
    for backend in ["fentry", "kprobe", "tracepoint"] {
        let db = run.joined(&format!("{backend}.db"), &["--port", "5201"])?;
        nothing_lost(run, &db)?;
        recordings.push(Recording { backend, states: states(&db)? });
    }
    let [fentry, kprobe, tracepoint] = recordings.as_slice() else { unreachable!("three were pushed") };
    let none: &[&str] = &[];
    for (one, other, point, but) in [
        (fentry, kprobe, Point::ReceivedBefore, none),
        (fentry, tracepoint, Point::ReceivedBefore, none),
        (fentry, kprobe, Point::ReceivedAfter, none),
        (fentry, kprobe, Point::Sent, none),
        (fentry, tracepoint, Point::Sent, AT_THE_QUEUE),
    ] {
        agree(one, other, point, but)?;
    }
    Ok(())
}

/// Every state of a packet that both have at this point must be the same, but for some columns, which must differ.
fn agree(one: &Recording, other: &Recording, point: Point, but: &[&str]) -> Result<()> {
    let mut compared = 0;
    let mut differ: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for (key, state) in one.states.iter().filter(|((p, _), _)| *p == point) {
        let Some(same) = other.states.get(key) else { continue };
        compared += 1;
        for ((column, a), b) in STATE_COLUMNS.iter().zip(state).zip(same) {
            if a != b {
                let (count, _) = differ.entry(column).or_insert_with(|| (0, format!("{:?}: {a:?}, {b:?}", key.1)));
                *count += 1;
            }
        }
    }
    let (one, other) = (one.backend, other.backend);
    ensure!(compared > 500, "{point:?}: {one} and {other} have {compared} packets in common");
    if point == Point::Sent && but.is_empty() {
        differ.retain(|column, (count, _)| !AT_THE_QUEUE.contains(column) || *count * FILLED_IN_OF > compared);
    }
    for column in but {
        ensure!(differ.remove(column).is_some(), "{point:?}: {column} of {one} and {other} does not differ");
    }
    ensure!(differ.is_empty(), "{point:?}: of {compared} packets, {one} and {other} differ in {differ:?}");
    Ok(())
}

/// Every sample that belongs to a packet, with its state; the first one of each packet at each point.
fn states(db: &Connection) -> Result<BTreeMap<(Point, Key), Vec<Value>>> {
    let mut states = BTreeMap::new();
    let columns: Vec<String> = STATE_COLUMNS.iter().map(|c| format!("s.{c}")).collect();
    // the after sample of a packet is found through its before sample; tracepoints have none in ESTABLISHED
    let sql = format!(
        "SELECT p.number, f.local_addr || ' ' || f.local_port, p.dir = 'out', s.phase, {columns}
         FROM packets p JOIN flows f ON f.id = p.flow_id JOIN (
           SELECT id AS of_packet, id AS shown FROM samples UNION ALL SELECT before_id, after_id FROM ack_effects
         ) w ON w.of_packet = p.sample_id JOIN samples s ON s.id = w.shown
         WHERE p.match = 'exact'",
        columns = columns.join(", ")
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key: Key = (row.get(0)?, row.get(1)?, row.get(2)?);
        let point = match row.get::<_, String>(3)?.as_str() {
            "before" => Point::ReceivedBefore,
            "after" => Point::ReceivedAfter,
            _ => Point::Sent,
        };
        let state = (0..STATE_COLUMNS.len()).map(|i| row.get(4 + i)).collect::<Result<Vec<Value>, _>>()?;
        states.entry((point, key)).or_insert(state);
    }
    Ok(states)
}
