//! Packets, one by one, each with its sample: in the order of the capture.

use rusqlite::{Row, Statement};

use super::capture::{Capture, Seen};
use super::columns::read;
use super::matched::{self, Own};
use super::sample::{Segment, segment as sampled};
use super::{Place, Run};
use crate::Result;
use crate::join::{Match, Reason};
use crate::layout::{BASES, Bases, SAMPLE_COLUMNS, Stored};
use crate::schema::{ROWS, RUN_OF_SAMPLE, serial};

/// The statements that packets are read with.
pub(super) struct Packets<'a> {
    rows: Statement<'a>,
    pub(super) look: Neighbourhood<'a>,
}

/// Looks at the samples around one.
pub(super) struct Neighbourhood<'a> {
    pub(super) next: Statement<'a>,
    pub(super) after: Statement<'a>,
    pub(super) before: Statement<'a>,
    /// Does a flow lack samples behind one?
    pub(super) lacks: Statement<'a>,
}

/// Samples that are looked at on either side for the rest of a packet that was merged from several.
const NEAR: usize = 4096;

const NAMES: [&str; 24] = [
    "p.id",
    "p.number",
    "p.ts_ns",
    "p.flow_id",
    "p.is_out",
    "p.seq",
    "p.ack",
    "p.len",
    "p.flags",
    "p.window",
    "p.sample_id",
    "p.match_code",
    "p.reason_code",
    "p.delay_ns",
    "p.carried_nxt",
    "p.carried_una",
    "p.copy",
    "p.sacked_bytes",
    "p.delay_variation_ns",
    "f.id",
    "p.interface",
    "z.real_base_ns",
    "r.id",
    "u.flow_id",
];
/// Behind them: the sample's serial and error, and [`Stored`].
const AT_SERIAL: usize = NAMES.len();
const AT_STORED: usize = AT_SERIAL + 2;

/// Columns of a sample's run and its own, for [`stored`].
fn columns() -> String {
    let bases = BASES.map(|name| format!("u.{name}"));
    let own = SAMPLE_COLUMNS.map(|name| format!("r.{name}"));
    bases.into_iter().chain(own).collect::<Vec<_>>().join(", ")
}

/// How many these are.
pub(super) const STORED: usize = BASES.len() + SAMPLE_COLUMNS.len();

/// A sample from its columns.
pub(super) fn stored(columns: &[Option<i64>]) -> Stored {
    let (of_run, own) = columns.split_at(BASES.len().min(columns.len()));
    let mut bases = [0; BASES.len()];
    bases.iter_mut().zip(of_run).for_each(|(base, value)| *base = value.unwrap_or(0));
    let mut row = [None; SAMPLE_COLUMNS.len()];
    row.iter_mut().zip(own).for_each(|(column, value)| *column = *value);
    Stored::new(&Bases::from(bases), &row)
}

impl<'a> Packets<'a> {
    pub(super) fn prepare(run: &Run<'a>) -> Result<Packets<'a>> {
        let err = run.failed();
        let rows = format!(
            "SELECT {}, {}, o.error, {} FROM packet_rows p LEFT JOIN flows f ON f.id = p.flow_id
             LEFT JOIN sample_rows r ON r.id = p.sample_id LEFT JOIN sample_runs u ON {RUN_OF_SAMPLE}
             LEFT JOIN rare_rows o ON o.sample_id = r.id LEFT JOIN sessions z ON z.id = f.session_id
             WHERE p.capture_id = ?1 ORDER BY p.number, p.id",
            NAMES.join(", "),
            serial(ROWS),
            columns(),
        );
        // from the run that the sample is in: it is found by the id
        let near = |of_run: &str, of_sample: &str, order: &str| {
            format!(
                "SELECT {} FROM sample_runs u CROSS JOIN sample_rows r ON r.id >= u.first_id AND r.id <= u.last_id
                 WHERE u.flow_id = ?1 AND u.first_id {of_run} (SELECT max(first_id) FROM sample_runs
                   WHERE first_id <= ?2) AND r.id {of_sample} ?2 ORDER BY u.first_id {order}, r.id {order}",
                columns(),
            )
        };
        let prepared = |sql: &str| run.db.prepare(sql).map_err(&err);
        Ok(Packets {
            rows: prepared(&rows)?,
            look: Neighbourhood {
                next: prepared(&format!("{} LIMIT 1", near(">=", ">", "")))?,
                after: prepared(&format!("{} LIMIT {NEAR}", near(">=", ">", "")))?,
                before: prepared(&format!("{} LIMIT {NEAR}", near("<=", "<", "DESC")))?,
                lacks: prepared("SELECT EXISTS (SELECT 1 FROM losses WHERE flow_id = ?1 AND after_serial >= ?2)")?,
            },
        })
    }
}

/// A row of packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) number: i64,
    pub(super) ts_ns: Option<i64>,
    pub(super) flow_id: i64,
    pub(super) is_out: bool,
    /// With the flow's numbers, not the capture's, where these are others.
    pub(super) segment: Option<Segment>,
    pub(super) sample_id: Option<i64>,
    pub(super) matched: Option<Match>,
    reason: Option<i64>,
    pub(super) delay_ns: Option<i64>,
    pub(super) carried: (Option<i64>, Option<i64>),
    copy: Option<i64>,
    pub(super) sacked_bytes: Option<i64>,
    pub(super) variation_ns: Option<i64>,
    pub(super) own: Option<Own>,
    flow_is_there: bool,
}

fn packet(row: &Row<'_>, capture: &Capture) -> rusqlite::Result<(Packet, Option<String>)> {
    let mut values = [None; AT_STORED + STORED];
    let fault = read(row, &mut values)?;
    let mut fault = fault.map(|(column, what)| {
        let name = NAMES.get(column).map_or("a column of its sample", |name| &name[2..]);
        format!("{name} is {what}")
    });
    let [_, frame, ts_ns, flow_id, is_out, seq, ack, len, flags, window, sample_id, code, reason, delay_ns, ..] =
        values;
    let [carried_nxt, carried_una, copy, sacked_bytes, variation_ns] =
        [values[14], values[15], values[16], values[17], values[18]];
    let [flow, real_base_ns, sample, sample_flow] = [values[19], values[21], values[22], values[23]];
    let (serial, error) = (values[AT_SERIAL], values[AT_SERIAL + 1]);
    let is_out = is_out == Some(1);
    let mut segment = Segment::from(seq, len, ack, flags);
    let has_numbers = segment.is_some() && window.is_some_and(|w| (0..=65_535).contains(&w));
    if !has_numbers || frame.is_none_or(|n| n < 1) || capture.packets.is_some_and(|all| frame > Some(all)) {
        fault = fault.or_else(|| Some("its numbers are not those of a frame of this capture".into()));
    }
    if let Some((own, peer)) = flow_id.and_then(|f| capture.shifts.get(&f)).copied() {
        let (sent, received) = if is_out { (own, peer) } else { (peer, own) };
        segment = segment.map(|s| Segment { seq: s.seq.wrapping_sub(sent), ack: s.ack.wrapping_sub(received), ..s });
    }
    let own = sample.map(|id| {
        let stored = stored(&values[AT_STORED..]);
        let since_ns = stored.mono_off.zip(stored.clock_off).map(|(mono, clock)| mono.wrapping_add(clock));
        Own {
            id,
            flow_id: sample_flow,
            serial,
            ts_ns: real_base_ns.zip(since_ns).map(|(base, since)| base.wrapping_add(since)),
            what: stored.what,
            segment: sampled(&stored),
            failed: error.is_some_and(|e| e != 0),
            snd_nxt: stored.snd_nxt,
            in_flight: stored.in_flight.map(i64::from),
            bytes_sent: stored.bytes_sent,
        }
    });
    let matched = code.and_then(|c| usize::try_from(c).ok()).and_then(|c| Match::ALL.get(c)).copied();
    let packet = Packet {
        number: frame.unwrap_or(0),
        ts_ns,
        flow_id: flow_id.unwrap_or(0),
        is_out,
        segment,
        sample_id,
        matched,
        reason,
        delay_ns,
        carried: (carried_nxt, carried_una),
        copy,
        sacked_bytes,
        variation_ns,
        own,
        flow_is_there: flow.is_some(),
    };
    Ok((packet, fault))
}

impl Packet {
    pub(super) fn place(&self, capture: &Capture) -> Place {
        Place {
            flow_id: Some(self.flow_id),
            sample_id: self.sample_id,
            serial: self.own.and_then(|own| own.serial),
            number: Some(self.number),
            ..capture.place()
        }
    }

    /// Has it a sample of its own?
    fn is_sampled(&self) -> bool {
        self.matched.is_some_and(Match::is_own)
    }

    /// What does not belong together of the columns that say how its state is known.
    fn misfit(&self) -> Option<String> {
        let reason = self.reason.and_then(|r| usize::try_from(r).ok()).and_then(|r| Reason::ALL.get(r));
        if self.reason.is_some() && reason.is_none() {
            return Some("its reason is none that there is".into());
        }
        let Some(matched) = self.matched else { return Some("its match is none that there is".into()) };
        let own = matched.is_own();
        let edges = [self.carried.0, self.carried.1].iter().flatten().count();
        let wrong = if own && reason.is_some() {
            "has a reason"
        } else if !own && reason.is_none() {
            "is without a reason"
        } else if matched == Match::None && self.sample_id.is_some() {
            "has a sample"
        } else if matched != Match::None && self.sample_id.is_none() {
            "is without a sample"
        } else if edges != if matched == Match::Carried { 2 } else { 0 } {
            "has carried edges, or lacks them"
        } else if !own && self.delay_ns.is_some() {
            "has a delay"
        } else {
            return None;
        };
        Some(format!(
            "match {}{} {wrong}",
            matched.name(),
            reason.map(|r| format!(" ({})", r.name())).unwrap_or_default()
        ))
    }
}

/// Checks the packets of a capture.
pub(super) fn check(run: &mut Run<'_>, packets: &mut Packets<'_>, capture: &Capture) -> Result<Seen> {
    let err = run.failed();
    let mut rows = packets.rows.query([capture.id]).map_err(&err)?;
    let mut seen = Seen::default();
    let mut frame = Frame::default();
    while let Some(row) = rows.next().map_err(&err)? {
        let (packet, fault) = packet(row, capture).map_err(&err)?;
        let at = packet.place(capture);
        run.report.packets += 1;
        if let Some(fault) = fault {
            run.violated("values", at.clone(), fault)?;
        }
        frame.add(run, &packet, &at, &mut seen)?;
        if let Some(text) = packet.misfit() {
            run.violated("match_reason", at.clone(), text)?;
        }
        if packet.copy.is_some_and(|c| c < 0) {
            run.violated("sightings", at.clone(), format!("copy is {}", packet.copy.unwrap_or(0)))?;
        }
        if !packet.flow_is_there {
            run.violated("references", at.clone(), "its flow is not there".into())?;
        }
        match packet.own {
            None if packet.sample_id.is_some() => {
                run.violated("references", at, "its sample is not there".into())?;
            }
            Some(own) if own.flow_id != Some(packet.flow_id) => {
                run.violated("references", at, format!("its sample is one of flow {}", own.flow_id.unwrap_or(0)))?;
            }
            Some(own) => matched::check(run, &mut packets.look, &packet, &own, &at)?,
            None => {}
        }
    }
    Ok(seen)
}

/// The rows of one frame, which follow each other.
#[derive(Default)]
struct Frame {
    number: Option<i64>,
    rows: u32,
    first: (i64, bool),
    copy: Option<i64>,
    /// Has the first row a sample of its own?
    sampled: bool,
    joined: bool,
}

impl Frame {
    fn add(&mut self, run: &mut Run<'_>, p: &Packet, at: &Place, seen: &mut Seen) -> Result<()> {
        if self.number != Some(p.number) {
            let (first, sampled) = ((p.flow_id, p.is_out), p.is_sampled());
            *self = Frame { number: Some(p.number), first, copy: p.copy, sampled, ..Frame::default() };
            seen.frames += 1;
        }
        self.rows += 1;
        if !self.joined && p.matched.is_some_and(|m| m != Match::None) {
            self.joined = true;
            seen.joined += 1;
        }
        if self.rows > 2 {
            run.violated("frames", at.clone(), format!("row {} of this frame", self.rows))
        } else if self.rows == 2 && self.first == (p.flow_id, p.is_out) {
            run.violated("frames", at.clone(), "a second row for the same socket".into())
        } else if self.rows == 2 && self.first.1 == p.is_out {
            let dir = if p.is_out { "sent" } else { "received" };
            run.violated("frames", at.clone(), format!("flow {} has {dir} it too", self.first.0))
        } else if self.rows == 2 && !self.agrees(p) {
            let (copy, other) = (p.copy.unwrap_or(0), self.copy.unwrap_or(0));
            run.violated("frames", at.clone(), format!("copy {copy} here, copy {other} to flow {}", self.first.0))
        } else {
            Ok(())
        }
    }

    /// Can what its first row and this one say of the sightings both be?
    fn agrees(&self, p: &Packet) -> bool {
        let (one, other) = ((self.copy.unwrap_or(0), self.sampled), (p.copy.unwrap_or(0), p.is_sampled()));
        let (sent, received) = if p.is_out { (other, one) } else { (one, other) };
        match (sent.1, received.1) {
            // either may lack a sighting that the other has
            (true, true) => true,
            // what is doubled on the way is received twice
            (false, true) => received.0 <= sent.0,
            _ => received.0 == sent.0,
        }
    }
}
