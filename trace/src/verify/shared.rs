//! What the packets of one sample are to each other, and what became of all samples: both in the order of samples.

use std::collections::BTreeMap;

use rusqlite::Rows;

use super::capture::Capture;
use super::columns::{read, text};
use super::{Place, Run};
use crate::Result;
use crate::join::Outcome;
use crate::schema::RUN_OF_SAMPLE;

/// A row of packets that has a sample of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    sample_id: i64,
    copy: i64,
    is_out: bool,
    seq: i64,
    len: i64,
    ack: i64,
    flags: i64,
    number: i64,
    flow_id: i64,
}

impl Sighting {
    fn place(&self, capture: &Capture) -> Place {
        Place {
            flow_id: Some(self.flow_id),
            sample_id: Some(self.sample_id),
            number: Some(self.number),
            ..capture.place()
        }
    }

    /// Does it take no sequence space?
    fn is_empty(&self) -> bool {
        self.len == 0 && self.flags & 3 == 0
    }
}

const SIGHTINGS: &str = "SELECT sample_id, coalesce(copy, 0), is_out, seq, len, ack, flags, number, flow_id, match_code
  FROM packet_rows WHERE capture_id = ?1 AND match_code < 2 AND sample_id IS NOT NULL ORDER BY 1, 2, 4, 5, 6, 7, 8";

type Counts = BTreeMap<(i64, String), u64>;

/// Checks what shares a sample, and the account of the samples where there is one.
pub(super) fn check(run: &mut Run<'_>, capture: &Capture) -> Result<()> {
    let err = run.failed();
    let db = run.db;
    let said = said(run, capture)?;
    let mut without = db
        .prepare_cached(&format!(
            "SELECT n.sample_id, n.outcome_code, u.flow_id FROM packetless_rows n
             LEFT JOIN sample_rows r ON r.id = n.sample_id LEFT JOIN sample_runs u ON {RUN_OF_SAMPLE}
             WHERE n.capture_id = ?1 ORDER BY n.sample_id"
        ))
        .map_err(&err)?;
    let mut packetless = Packetless { rows: without.query([capture.id]).map_err(&err)?, next: None };
    let mut counts = Counts::new();
    packetless.advance(run, capture, &mut counts)?;
    let mut statement = db.prepare_cached(SIGHTINGS).map_err(&err)?;
    let mut rows = statement.query([capture.id]).map_err(&err)?;
    let (mut last, mut rank): (Option<Sighting>, i64) = (None, 0);
    while let Some(row) = rows.next().map_err(&err)? {
        let mut values = [None; 10];
        read(row, &mut values).map_err(&err)?;
        let Some(values) = values.into_iter().collect::<Option<Vec<i64>>>() else { continue };
        let &[sample_id, copy, is_out, seq, len, ack, flags, number, flow_id, match_code] = values.as_slice() else {
            continue;
        };
        let now = Sighting { sample_id, copy, is_out: is_out != 0, seq, len, ack, flags, number, flow_id };
        let before = last.filter(|l| l.sample_id == sample_id);
        rank = if before.is_some() { rank + 1 } else { 0 };
        if before.is_none() {
            *counts.entry((flow_id, Outcome::Joined.name().into())).or_insert(0) += 1;
            while packetless.next.is_some_and(|n| n < sample_id) {
                packetless.advance(run, capture, &mut counts)?;
            }
            if packetless.next == Some(sample_id) {
                let text = "its sample counts among those without a packet".into();
                run.violated("sample_counts", now.place(capture), text)?;
            }
        }
        // pure ACKs that waited for TCP are merged into one, alike or not (tcp_add_to_backlog)
        if !(match_code == 1 && !now.is_out && now.is_empty()) {
            shares(run, capture, before, rank, &now)?;
        }
        last = Some(now);
    }
    while packetless.next.is_some() {
        packetless.advance(run, capture, &mut counts)?;
    }
    account(run, capture, &said, &counts)
}

/// A sample's packet beside the one before it, by copy and range; so many come before it.
fn shares(run: &mut Run<'_>, capture: &Capture, before: Option<Sighting>, rank: i64, now: &Sighting) -> Result<()> {
    // what is seen again, merged with others, is seen as often as its first byte: a number may be missing
    if now.copy > rank {
        let text = format!("copy is {}, and {rank} other packets of its sample were seen less often", now.copy);
        return run.violated("sightings", now.place(capture), text);
    }
    let Some(before) = before else { return Ok(()) };
    let alike = |s: &Sighting| (s.copy, s.seq, s.len, s.flags & 7, if s.is_empty() { s.ack } else { 0 });
    if alike(&before) == alike(now) {
        let text = format!("packet {} has the same sample and range, and both are copy {}", before.number, now.copy);
        return run.violated("sightings", now.place(capture), text);
    }
    Ok(())
}

/// The samples without a packet, in the order of their ids.
struct Packetless<'s> {
    rows: Rows<'s>,
    next: Option<i64>,
}

impl Packetless<'_> {
    fn advance(&mut self, run: &mut Run<'_>, capture: &Capture, counts: &mut Counts) -> Result<()> {
        let err = run.failed();
        self.next = None;
        while let Some(row) = self.rows.next().map_err(&err)? {
            let mut values = [None; 3];
            read(row, &mut values).map_err(&err)?;
            let [Some(sample_id), code, flow_id] = values else { continue };
            let outcome = code.and_then(|c| usize::try_from(c).ok()).and_then(|c| Outcome::ALL.get(c));
            let at = Place { sample_id: Some(sample_id), flow_id, ..capture.place() };
            match (flow_id, outcome) {
                (Some(flow), Some(outcome)) => {
                    *counts.entry((flow, outcome.name().into())).or_insert(0) += 1;
                }
                (None, _) => run.violated("values", at, "packetless_rows names a sample that is not there".into())?,
                (_, None) => run.violated("values", at, "packetless_rows has no such outcome".into())?,
            }
            self.next = Some(sample_id);
            return Ok(());
        }
        Ok(())
    }
}

fn said(run: &Run<'_>, capture: &Capture) -> Result<Counts> {
    let err = run.failed();
    let sql = "SELECT flow_id, samples, outcome FROM sample_counts WHERE capture_id = ?1";
    let mut statement = run.db.prepare_cached(sql).map_err(&err)?;
    let mut rows = statement.query([capture.id]).map_err(&err)?;
    let mut said = Counts::new();
    while let Some(row) = rows.next().map_err(&err)? {
        let mut values = [None; 2];
        read(row, &mut values).map_err(&err)?;
        let samples = values[1].and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        said.insert((values[0].unwrap_or(0), text(row, 2).map_err(&err)?), samples);
    }
    Ok(said)
}

/// Compares `sample_counts` to the rows, flow by flow.
fn account(run: &mut Run<'_>, capture: &Capture, said: &Counts, found: &Counts) -> Result<()> {
    // a join of an older version did not keep it
    if said.is_empty() {
        return Ok(());
    }
    let keys: std::collections::BTreeSet<_> = said.keys().chain(found.keys()).collect();
    for key in keys {
        let (flow_id, outcome) = key;
        let count = |of: &Counts| of.get(key).copied().unwrap_or(0);
        let (said, found) = (count(said), count(found));
        let wrong = match Outcome::ALL.iter().find(|o| o.name() == outcome) {
            None => Some(format!("there is no outcome `{outcome}`")),
            // a packet made of several samples names the first
            Some(Outcome::Joined) => (said < found).then(|| format!("{said} samples are joined, packets name {found}")),
            // these are counted and not listed
            Some(Outcome::OutsideCapture | Outcome::FlowNotCaptured) => None,
            Some(_) => (said != found).then(|| format!("{said} samples are {outcome}, packetless_rows lists {found}")),
        };
        if let Some(text) = wrong {
            let at = Place { flow_id: Some(*flow_id), ..capture.place() };
            run.violated("sample_counts", at, text)?;
        }
    }
    Ok(())
}
