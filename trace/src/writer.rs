//! Writes a session into a trace: flows as they are learnt, samples in batches, losses, clock anchors, the end.
//!
//! Owns the order of things in the file. Must not know where samples come from.

pub(crate) mod backlog;
mod internals;
mod runs;
mod upgrade;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::clock::{Anchor, Timeline};
use crate::fields::index;
use crate::internals::Internals;
use crate::layout::Plain;
use crate::sample::{Flow, LossCause, Sample, Sampled, Unplaced};
use crate::store::{failed, log_ahead, no_temporary_files, one_file, open_or_create};
use crate::{Error, Result};

pub(crate) use upgrade::upgrade;

pub use crate::session::{SessionEnd, SessionStart, Totals};

struct FlowState {
    id: i64,
    first_ns: i64,
    last_ns: i64,
    last_serial: u64,
    /// Those that are not written yet.
    held: Vec<Plain>,
    /// `bytes_received` and `rcv_nxt` of its last sample.
    received: Option<(i64, u32)>,
    closed: bool,
    commits_since_close: u32,
    dirty: bool,
    last_rows: runs::LastRows,
    internals: Option<Box<internals::Last>>,
    /// Those that came before their sample.
    early_internals: Option<Box<Internals>>,
    /// Those whose samples are not written yet.
    held_internals: Vec<internals::Held>,
}

impl FlowState {
    fn new(id: i64, first_ns: i64) -> FlowState {
        FlowState {
            id,
            first_ns,
            last_ns: first_ns,
            last_serial: 0,
            held: Vec::new(),
            received: None,
            closed: false,
            commits_since_close: 0,
            dirty: false,
            last_rows: runs::LastRows::default(),
            internals: None,
            early_internals: None,
            held_internals: Vec::new(),
        }
    }
}

/// A session being recorded.
pub struct SessionWriter {
    db: Connection,
    path: PathBuf,
    session_id: i64,
    started_ns: i64,
    mono_base_ns: i64,
    real_base_ns: i64,
    clock: Timeline,
    /// Has its latest anchor a row in `clocks`?
    anchor_is_kept: bool,
    anchored: bool,
    // boxed, for they are taken out while they are worked on
    flows: HashMap<u64, Box<FlowState>>,
    next: runs::NextIds,
    /// Flows with samples that are not written yet, in the order of these; and how many samples.
    holding: Vec<u64>,
    held: usize,
    totals: Totals,
    holes: HashMap<LossCause, u64>,
    in_transaction: bool,
    /// `None`: it has none.
    backlog: Option<backlog::Progress>,
}

impl SessionWriter {
    /// Opens or makes the trace and adds a session to it. Sessions that are there stay as they are.
    pub fn begin(path: &Path, start: &SessionStart, anchor: Anchor) -> Result<SessionWriter> {
        let db = open_or_create(path)?;
        log_ahead(&db, path)?;
        no_temporary_files(&db, path)?;
        // once, and before there is anything to record: a backlog without its session would be of no use
        db.pragma_update(None, "synchronous", "FULL").map_err(failed(path, "cannot begin a session"))?;
        let mut writer = SessionWriter::begin_on(db, path, start, anchor, true)?;
        writer.begin_backlog()?;
        writer.commit()?;
        log_ahead(&writer.db, path)?;
        writer.db.busy_timeout(WAIT_FOR_A_JOIN).map_err(failed(path, "cannot begin a session"))?;
        Ok(writer)
    }

    /// Adds a session in a transaction that stays open: the one that the connection has, or a new one. `anchored`:
    /// is the anchor's wall clock known? Where not, the session gets no row in `clocks`.
    pub(crate) fn begin_on(
        db: Connection,
        path: &Path,
        start: &SessionStart,
        anchor: Anchor,
        anchored: bool,
    ) -> Result<SessionWriter> {
        let err = failed(path, "cannot begin a session");
        if db.is_autocommit() {
            db.execute_batch("BEGIN IMMEDIATE").map_err(&err)?;
        }
        let real_base_ns = anchor.mono_ns() + anchor.offset_ns();
        db.execute(
            "INSERT INTO sessions (started_ns, complete, host, kernel, tool_version, command, backend, filter,
               sample_mode, samples, lost, capture_path, mono_base_ns, real_base_ns)
             VALUES (?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, ?9, ?10, ?11)",
            params![
                anchor.real_ns,
                start.host,
                start.kernel,
                start.tool_version,
                start.command,
                start.backend,
                start.filter,
                start.sampled.name(),
                start.capture_path.as_ref().map(|p| p.to_string_lossy().into_owned()),
                anchor.mono_ns(),
                real_base_ns,
            ],
        )
        .map_err(&err)?;
        let session_id = db.last_insert_rowid();
        let next = runs::NextIds::of(&db, path)?;
        let mut writer = SessionWriter {
            db,
            path: path.to_owned(),
            session_id,
            started_ns: anchor.real_ns,
            mono_base_ns: anchor.mono_ns(),
            real_base_ns,
            clock: Timeline::new(anchor),
            anchor_is_kept: true,
            anchored,
            flows: HashMap::new(),
            next,
            holding: Vec::new(),
            held: 0,
            totals: Totals::default(),
            holes: HashMap::new(),
            in_transaction: true,
            backlog: None,
        };
        writer.anchor_row(anchor)?;
        Ok(writer)
    }

    /// The session's id in the trace.
    pub fn session_id(&self) -> i64 {
        self.session_id
    }

    /// Figures so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Keeps a clock anchor.
    pub fn anchor_row(&mut self, anchor: Anchor) -> Result<()> {
        if !self.anchored {
            return Ok(());
        }
        self.transaction()?;
        let err = failed(&self.path, "cannot write a clock anchor");
        self.db
            .prepare_cached("INSERT INTO clocks VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut s| {
                s.execute(params![self.session_id, anchor.mono_before_ns, anchor.real_ns, anchor.mono_after_ns])
            })
            .map_err(&err)?;
        Ok(())
    }

    /// Adds a flow, or what has been learnt of it since.
    pub fn flow(&mut self, flow: &Flow, now: Anchor) -> Result<()> {
        if !self.believes(flow.mono_ns, now) {
            return Ok(());
        }
        self.transaction()?;
        self.recall(flow.key)?;
        let err = failed(&self.path, "cannot write a flow");
        let cookie = flow.cookie.map(|c| c as i64);
        if let Some(known) = self.flows.get(&flow.key) {
            self.db
                .prepare_cached(
                    "UPDATE flows SET cookie = coalesce(?2, cookie), congestion = coalesce(?3, congestion),
                       snd_wscale = coalesce(?4, snd_wscale), rcv_wscale = coalesce(?5, rcv_wscale) WHERE id = ?1",
                )
                .and_then(|mut s| {
                    s.execute(params![known.id, cookie, flow.congestion, flow.snd_wscale, flow.rcv_wscale])
                })
                .map_err(&err)?;
            return Ok(());
        }
        let ts_ns = flow.mono_ns + self.clock.offset_ns(flow.mono_ns, now);
        self.db
            .prepare_cached(
                "INSERT INTO flows (session_id, local_addr, local_port, remote_addr, remote_port, family, netns, cookie,
                   congestion, snd_wscale, rcv_wscale, first_ns, last_ns, closed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, 0)",
            )
            .and_then(|mut s| {
                s.execute(params![
                    self.session_id,
                    flow.local.ip().to_string(),
                    flow.local.port(),
                    flow.remote.ip().to_string(),
                    flow.remote.port(),
                    flow.family.name(),
                    flow.netns,
                    cookie,
                    flow.congestion,
                    flow.snd_wscale,
                    flow.rcv_wscale,
                    ts_ns,
                ])
            })
            .map_err(&err)?;
        let id = self.db.last_insert_rowid();
        self.totals.flows += 1;
        self.key_row(flow.key, id)?;
        self.flows.insert(flow.key, Box::new(FlowState::new(id, ts_ns)));
        Ok(())
    }

    /// Adds a sample. `now` is an anchor taken after the sample. Samples of a flow come in the order of their
    /// serials; a missing serial is written down as a loss. A sample of a flow that was never announced is refused
    /// with `false`. In a session that was broken off so is what no sampler can have seen, and what the session has
    /// already changes nothing.
    pub fn sample(&mut self, sample: &Sample, now: Anchor) -> Result<bool> {
        self.unplaced_sample(sample, Unplaced::default(), now)
    }

    /// [`SessionWriter::sample`] of a log that knows lengths without their place: they are taken where the sample
    /// itself does not say them.
    pub fn unplaced_sample(&mut self, sample: &Sample, unplaced: Unplaced, now: Anchor) -> Result<bool> {
        self.transaction()?;
        self.recall(sample.flow)?;
        let Some(flow) = self.flows.get(&sample.flow) else { return Ok(false) };
        match self.has_already(flow, sample) {
            Some(false) if self.believes(sample.mono_ns, now) => {}
            has_already => return Ok(has_already == Some(true)),
        }
        let Some(mut flow) = self.flows.remove(&sample.flow) else { return Ok(false) };
        let is_first = flow.held.is_empty();
        let taken = self.sample_of(&mut flow, sample, unplaced, now);
        self.flows.insert(sample.flow, flow);
        taken?;
        if is_first {
            self.holding.push(sample.flow);
        }
        self.held += 1;
        if self.held >= runs::MAX_HELD { self.write_held().map(|()| true) } else { Ok(true) }
    }

    fn sample_of(&mut self, flow: &mut FlowState, sample: &Sample, unplaced: Unplaced, now: Anchor) -> Result<()> {
        let missing = sample.serial.saturating_sub(flow.last_serial + 1);
        let unseen = missing.min(u64::from(sample.unseen_before));
        let refused = (missing - unseen).min(u64::from(sample.refused_before));
        // a hole of both causes does not say in which order they came
        let full = missing - unseen - refused;
        self.hole(flow.id, flow.last_serial, full, LossCause::RingFull)?;
        self.hole(flow.id, flow.last_serial + full, refused, LossCause::LockRefused)?;
        self.hole(flow.id, sample.serial - 1 - unseen, unseen, LossCause::NotShown)?;
        flow.last_serial = sample.serial;

        let ts_ns = sample.mono_ns + self.clock.offset_ns(sample.mono_ns, now);
        let mono_off = sample.mono_ns - self.mono_base_ns;
        let clock_off = ts_ns - self.real_base_ns - mono_off;
        flow.first_ns = flow.first_ns.min(ts_ns);
        flow.last_ns = flow.last_ns.max(ts_ns);
        flow.dirty = true;
        flow.closed |= sample.state.get(const { index("sk_state") }) == Some(TCP_CLOSE);

        let number = |field: usize| sample.state.get(field).map(|v| v as u32);
        let (nxt, una) = (number(const { index("snd_nxt") }), number(const { index("snd_una") }));
        let received = sample.state.get(const { index("bytes_received") }).zip(number(const { index("rcv_nxt") }));
        let rcv_laps = received.zip(flow.received).map_or(0, |(now, then)| laps(then, now));
        flow.received = received.or(flow.received);
        flow.held.push(Plain {
            serial: i64::try_from(sample.serial).unwrap_or(i64::MAX),
            mono_off,
            clock_off,
            kind: sample.kind,
            phase: sample.phase,
            segment: sample.segment,
            len: sample.segment.map(|s| s.len).or(unplaced.len),
            in_flight: nxt.zip(una).map(|(n, u)| n.wrapping_sub(u)).or(unplaced.bytes_in_flight),
            error: sample.error,
            rcv_laps,
            state: sample.state,
        });
        self.totals.samples += 1;
        self.early_internals(flow, now);
        Ok(())
    }

    /// Writes the samples that were held back.
    fn write_held(&mut self) -> Result<()> {
        for key in std::mem::take(&mut self.holding) {
            if let Some(mut flow) = self.flows.remove(&key) {
                let written = self.write_flow(&mut flow);
                self.flows.insert(key, flow);
                written?;
            }
        }
        self.held = 0;
        Ok(())
    }

    /// Writes those of one flow, and what its congestion control held at them.
    fn write_flow(&mut self, flow: &mut FlowState) -> Result<()> {
        let samples = std::mem::take(&mut flow.held);
        let first_id = self.next.sample;
        runs::RunWriter::new(&self.db, &self.path, &mut self.next)?.write(flow.id, &mut flow.last_rows, &samples)?;
        self.write_internals(flow, &samples, first_id)
    }

    fn hole(&mut self, flow_id: i64, after_serial: u64, count: u64, cause: LossCause) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.totals.holes = self.totals.holes.saturating_add(count);
        let of_cause = self.holes.entry(cause).or_insert(0);
        *of_cause = of_cause.saturating_add(count);
        self.loss(Some(flow_id), Some(after_serial), count, cause)
    }

    fn loss(&self, flow_id: Option<i64>, after: Option<u64>, count: u64, cause: LossCause) -> Result<()> {
        let err = failed(&self.path, "cannot write a loss");
        let after = after.and_then(|a| i64::try_from(a).ok());
        self.db
            .prepare_cached("INSERT INTO losses VALUES (?1, ?2, ?3, ?4, ?5)")
            .and_then(|mut s| {
                s.execute(params![
                    self.session_id,
                    flow_id,
                    after,
                    i64::try_from(count).unwrap_or(i64::MAX),
                    cause.name()
                ])
            })
            .map_err(&err)?;
        Ok(())
    }

    /// Says that everything up to `now` has been handed over, and makes it durable where `commit` says so.
    pub fn batch_end(&mut self, now: Anchor, commit: bool) -> Result<()> {
        let stepped = self.clock.is_stepped_by(now);
        if stepped && !self.anchor_is_kept {
            // between this one and the next it was set: the nearer, the less is in doubt
            self.anchor_row(self.clock.last())?;
        }
        self.anchor_is_kept = commit || stepped;
        if self.anchor_is_kept {
            self.anchor_row(now)?;
        }
        self.clock.advance(now);
        if commit { self.commit() } else { Ok(()) }
    }

    /// Makes everything so far durable.
    pub fn commit(&mut self) -> Result<()> {
        self.transaction()?;
        self.write_held()?;
        self.totals_rows()?;
        self.progress_row()?;
        self.forget_closed()?;
        self.db.execute_batch("COMMIT").map_err(failed(&self.path, "cannot commit"))?;
        self.in_transaction = false;
        Ok(())
    }

    /// After its close a socket may still send a reset; then it is forgotten, or memory would grow with each flow.
    fn forget_closed(&mut self) -> Result<()> {
        let mut forgotten = Vec::new();
        self.flows.retain(|&key, f| {
            f.commits_since_close += u32::from(f.closed);
            let keep = f.commits_since_close < KEEP_CLOSED_COMMITS;
            if !keep {
                forgotten.push(key);
            }
            keep
        });
        forgotten.into_iter().try_for_each(|key| self.drop_key_row(key))
    }

    /// Forgets a flow of which nothing more will come.
    pub fn forget(&mut self, key: u64) -> Result<()> {
        self.transaction()?;
        let Some(mut flow) = self.flows.remove(&key) else { return Ok(()) };
        self.held -= flow.held.len();
        self.holding.retain(|&holding| holding != key);
        self.write_flow(&mut flow)?;
        self.flow_row(&flow)
    }

    fn flow_row(&self, flow: &FlowState) -> Result<()> {
        self.db
            .prepare_cached("UPDATE flows SET first_ns = ?2, last_ns = ?3, closed = ?4 WHERE id = ?1")
            .and_then(|mut s| s.execute(params![flow.id, flow.first_ns, flow.last_ns, flow.closed]))
            .map_err(failed(&self.path, "cannot write a flow"))?;
        Ok(())
    }

    /// Brings the rows of flows and session up to date.
    fn totals_rows(&mut self) -> Result<()> {
        self.transaction()?;
        for flow in self.flows.values().filter(|f| f.dirty) {
            self.flow_row(flow)?;
        }
        self.flows.values_mut().for_each(|f| f.dirty = false);
        self.db
            .prepare_cached("UPDATE sessions SET samples = ?2, lost = ?3 WHERE id = ?1")
            .and_then(|mut s| s.execute(params![self.session_id, self.totals.samples as i64, self.totals.holes as i64]))
            .map_err(failed(&self.path, "cannot write the session"))?;
        Ok(())
    }

    /// Ends the session, with everything that there is of it. Returns the samples lost in all.
    pub fn finish(self, end: &SessionEnd, now: Anchor) -> Result<u64> {
        let path = self.path.clone();
        let (db, lost) = self.end(end, now)?;
        db.execute_batch("COMMIT").map_err(failed(&path, "cannot end the session"))?;
        // whoever reads on is not waited for so long
        let _ = db.busy_timeout(Duration::from_secs(5));
        one_file(&db);
        Ok(lost)
    }

    /// Ends the session in a transaction that stays open; gives the connection back, and the samples lost in all.
    pub(crate) fn end(mut self, end: &SessionEnd, now: Anchor) -> Result<(Connection, u64)> {
        self.anchor_row(now)?;
        let mut lost: u64 = 0;
        for &(cause, count) in &end.losses {
            // a log of someone else may claim any number
            lost = if cause.is_of_samples() { count.saturating_add(lost) } else { lost };
            // what left no hole (a flow's last samples, or flows never announced) is lost all the same
            let by_flow = self.holes.get(&cause).copied().unwrap_or(0);
            if count > by_flow {
                self.loss(None, None, count - by_flow, cause)?;
            }
        }
        self.transaction()?;
        self.write_held()?;
        self.end_backlog()?;
        // the kernel counts every loss that leaves a hole; were it not so, the holes would still be there
        let lost = lost.max(self.totals.holes);
        self.totals_rows()?;
        let err = failed(&self.path, "cannot end the session");
        for (program, runs, total_ns) in &end.costs {
            self.db
                .execute(
                    "INSERT INTO probe_costs VALUES (?1, ?2, ?3, ?4)",
                    params![self.session_id, program, *runs as i64, *total_ns as i64],
                )
                .map_err(&err)?;
        }
        self.db
            .execute(
                "UPDATE sessions SET ended_ns = ?2, complete = ?7, lost = ?3, capture_packets = ?4, capture_dropped = ?5,
                   sample_mode = coalesce(?6, sample_mode) WHERE id = ?1",
                params![
                    self.session_id,
                    end.ended_ns.unwrap_or(now.real_ns),
                    i64::try_from(lost).unwrap_or(i64::MAX),
                    end.capture_packets.map(|c| c as i64),
                    end.capture_dropped.map(|c| c as i64),
                    end.sampled.map(Sampled::name),
                    !end.broke_off,
                ],
            )
            .map_err(&err)?;
        Ok((self.db, lost))
    }

    fn transaction(&mut self) -> Result<()> {
        if !self.in_transaction {
            self.db.execute_batch("BEGIN IMMEDIATE").map_err(|cause| Error::Sqlite {
                path: self.path.clone(),
                context: "cannot write",
                cause,
            })?;
            self.in_transaction = true;
        }
        Ok(())
    }
}

/// A join has the trace to itself until it has written its rows. Meanwhile samples wait; they need not be lost.
const WAIT_FOR_A_JOIN: Duration = Duration::from_secs(600);

/// How often `rcv_nxt` went round between two states of a flow, beyond the nearer way from one to the other.
fn laps(then: (i64, u32), now: (i64, u32)) -> i64 {
    const HALF: i64 = 1 << 31;
    let nearest = i64::from(now.1.wrapping_sub(then.1) as i32);
    // SYN and FIN take a number and are no bytes: rounded
    (now.0.saturating_sub(then.0).saturating_sub(nearest).saturating_add(HALF)) >> 32
}

/// A closed flow is remembered for so many commits.
const KEEP_CLOSED_COMMITS: u32 = 20;

/// `TCP_CLOSE` of `include/net/tcp_states.h`.
const TCP_CLOSE: i64 = 7;

fn insert(table: &str, columns: usize) -> String {
    let marks: Vec<&str> = std::iter::repeat_n("?", columns).collect();
    format!("INSERT INTO {table} VALUES ({})", marks.join(","))
}
