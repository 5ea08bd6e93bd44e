//! Brings a trace of an older version up to date; up to version 3 its samples are written anew.

use std::path::Path;

use rusqlite::{Connection, Row};

use super::runs::{LastRows, MAX_HELD, NextIds, RunWriter};
use crate::fields::index;
use crate::layout::Plain;
use crate::sample::{Kind, Phase, Segment, State};
use crate::schema::older;
use crate::store::failed;
use crate::{Error, Result};

/// Brings a trace of an older version up to date, in the transaction that is under way.
pub(crate) fn upgrade(db: &Connection, path: &Path, from: i64) -> Result<()> {
    let err = failed(path, "cannot bring this older trace up to date");
    if from >= 4 {
        return db.execute_batch(&older::with_samples(from)).map_err(&err);
    }
    db.execute_batch(&older::before_samples(from)).map_err(&err)?;
    let mut next = NextIds::of(db, path)?;
    {
        let sql = "SELECT DISTINCT flow_id FROM older_sample_rows ORDER BY flow_id";
        let mut flows = db.prepare(sql).map_err(&err)?;
        let mut rows = flows.query([]).map_err(&err)?;
        while let Some(row) = rows.next().map_err(&err)? {
            let flow_id = row.get(0).map_err(&err)?;
            flow(&mut RunWriter::new(db, path, &mut next)?, flow_id)?;
        }
    }
    // statements that name what goes now would be in its way
    db.flush_prepared_statement_cache();
    db.execute_batch(&older::after_samples()).map_err(&err)
}

fn flow(runs: &mut RunWriter<'_>, flow_id: i64) -> Result<()> {
    let (db, path) = (runs.db, runs.path);
    let err = failed(path, "cannot read a sample of this older trace");
    let mut statement = db.prepare_cached(&older::samples_of_flow()).map_err(&err)?;
    let mut rows = statement.query([flow_id]).map_err(&err)?;
    let mut last = LastRows::default();
    let mut samples: Vec<(i64, Plain)> = Vec::new();
    while let Some(row) = rows.next().map_err(&err)? {
        samples.push(sample(row).map_err(&err)?.ok_or_else(|| Error::Damaged {
            path: path.to_owned(),
            what: format!("a sample of flow {flow_id} has a kind and phase that there are not"),
        })?);
        if samples.len() >= MAX_HELD {
            write(runs, flow_id, &mut last, &mut samples)?;
        }
    }
    write(runs, flow_id, &mut last, &mut samples)
}

fn write(runs: &mut RunWriter<'_>, flow_id: i64, last: &mut LastRows, samples: &mut Vec<(i64, Plain)>) -> Result<()> {
    let (older, plain): (Vec<i64>, Vec<Plain>) = std::mem::take(samples).into_iter().unzip();
    let first_id = runs.next.sample;
    runs.write(flow_id, last, &plain)?;
    let err = failed(runs.path, "cannot bring this older trace up to date");
    let mut statement = runs.db.prepare_cached("INSERT INTO sample_ids VALUES (?1, ?2)").map_err(&err)?;
    for (older, id) in older.into_iter().zip(first_id..) {
        statement.execute([older, id]).map_err(&err)?;
    }
    Ok(())
}

/// A row of [`older::samples_of_flow`] with its id; `None` where its kind and phase are none.
fn sample(row: &Row<'_>) -> rusqlite::Result<Option<(i64, Plain)>> {
    let get = |at: usize| row.get::<_, Option<i64>>(at);
    let what = get(4)?.and_then(|what| u8::try_from(what).ok());
    // `what` was four times the kind, plus the phase
    let Some((kind, phase)) = what.and_then(|w| Kind::from_code(w / 4).zip(Phase::from_code(w % 4))) else {
        return Ok(None);
    };
    let (seq, len, ack) = (get(5)?.map(|n| n as u32), get(6)?.map(|n| n as u32), get(7)?.map(|n| n as u32));
    let segment = match seq {
        None => None,
        Some(seq) => Some(Segment {
            seq,
            len: len.unwrap_or(0),
            ack: ack.unwrap_or(0),
            flags: get(8)?.unwrap_or(0) as u16,
            tsval: get(9)?.map(|t| t as u32),
            ip_id: get(10)?.map(|ip| ip as u16),
        }),
    };
    // numbers were kept as distances from those of the segment, or from 0
    let (own, peer) = match segment {
        None => (0, 0),
        Some(s) if kind.is_out() => (s.seq, s.ack),
        Some(s) => (s.ack, s.seq),
    };
    let mut state = State::default();
    for (at, (field, _)) in older::fields().enumerate() {
        state.set(field, get(older::HEAD + at)?);
    }
    let (in_flight, notsent) = (get(14)?.map(|n| n as u32), get(15)?);
    let snd_nxt = get(13)?.map(|off| own.wrapping_add(off as u32));
    let number = |number: Option<u32>| number.map(i64::from);
    state.set(const { index("snd_nxt") }, number(snd_nxt));
    state.set(const { index("snd_una") }, number(snd_nxt.zip(in_flight).map(|(nxt, bytes)| nxt.wrapping_sub(bytes))));
    state.set(
        const { index("write_seq") },
        number(snd_nxt.zip(notsent).map(|(nxt, bytes)| nxt.wrapping_add(bytes as u32))),
    );
    state.set(const { index("rcv_nxt") }, get(16)?.map(|off| i64::from(peer.wrapping_add(off as u32))));
    let plain = Plain {
        serial: row.get(1)?,
        mono_off: row.get(2)?,
        clock_off: row.get(3)?,
        kind,
        phase,
        segment,
        len,
        in_flight,
        error: get(11)?.unwrap_or(0) as i32,
        rcv_laps: get(12)?.unwrap_or(0),
        state,
    };
    Ok(Some((row.get(0)?, plain)))
}
