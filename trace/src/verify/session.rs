//! Sessions: their clock anchors, their figures, and the rows that name them.

use std::collections::BTreeMap;

use super::columns::{read, text};
use super::{Place, Run};
use crate::Result;
use crate::clock::Anchor;
use crate::sample::Sampled;
use crate::schema::RUN_OF_SAMPLE;

/// What the checks of samples need of a session.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) mono_base_ns: i64,
    pub(super) real_base_ns: i64,
    /// Were samples left out on purpose?
    pub(super) sparse: bool,
    /// From a log of another program, which need not know segments?
    pub(super) imported: bool,
    /// Does a transmit sample's `segs_out` count its own segment (`net:net_dev_queue`)?
    pub(super) counts_own_segment: bool,
    pub(super) complete: bool,
    pub(super) clock: Option<ClockSpan>,
    samples: Option<i64>,
    lost: Option<i64>,
    /// Rows of `sample_rows` that belong to it.
    pub(super) found: u64,
    /// Sum over its rows of `losses`.
    pub(super) lost_found: i64,
}

/// What a session's clock anchors say together.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockSpan {
    pub(super) first_mono_ns: i64,
    pub(super) last_mono_ns: i64,
    /// Wall clock minus monotonic clock, the smallest and the largest.
    pub(super) offset_ns: (i64, i64),
    widest_bracket_ns: i64,
    longest_gap_ns: i64,
}

impl ClockSpan {
    fn of(a: Anchor) -> ClockSpan {
        let offset = wall_offset_ns(a);
        ClockSpan {
            first_mono_ns: a.mono_before_ns,
            last_mono_ns: a.mono_after_ns,
            offset_ns: (offset, offset),
            widest_bracket_ns: a.mono_after_ns.saturating_sub(a.mono_before_ns),
            longest_gap_ns: 0,
        }
    }

    fn add(&mut self, a: Anchor) {
        let offset = wall_offset_ns(a);
        self.longest_gap_ns = self.longest_gap_ns.max(a.mono_before_ns.saturating_sub(self.last_mono_ns));
        self.last_mono_ns = self.last_mono_ns.max(a.mono_after_ns);
        self.offset_ns = (self.offset_ns.0.min(offset), self.offset_ns.1.max(offset));
        self.widest_bracket_ns = self.widest_bracket_ns.max(a.mono_after_ns.saturating_sub(a.mono_before_ns));
    }

    /// How far a sample's offset may be from those of the anchors that were kept: times were made with anchors in
    /// between, and the wall clock is slewed by at most 500 ppm (adjtimex(2)), which two anchors may show.
    pub(super) fn slack_ns(&self) -> i64 {
        (self.longest_gap_ns / 1000).saturating_add(self.widest_bracket_ns).saturating_add(1_000_000)
    }
}

/// As [`Anchor::offset_ns`], for numbers of any size.
fn wall_offset_ns(a: Anchor) -> i64 {
    let middle = (i128::from(a.mono_before_ns) + i128::from(a.mono_after_ns)) / 2;
    i64::try_from(i128::from(a.real_ns) - middle).unwrap_or(if middle > 0 { i64::MIN } else { i64::MAX })
}

pub(super) type Sessions = BTreeMap<i64, Session>;

fn place(session_id: i64) -> Place {
    Place { session_id: Some(session_id), ..Place::default() }
}

/// Checks sessions and anchors, and that no row names a session or flow that is not there.
pub(super) fn check(run: &mut Run<'_>) -> Result<Sessions> {
    const NAMES: [&str; 8] =
        ["id", "started_ns", "ended_ns", "complete", "samples", "lost", "mono_base_ns", "real_base_ns"];
    let err = run.failed();
    let mut sessions = Sessions::new();
    let sql = format!("SELECT {}, sample_mode, backend FROM sessions ORDER BY id", NAMES.join(", "));
    let mut statement = run.db.prepare(&sql).map_err(&err)?;
    let mut rows = statement.query([]).map_err(&err)?;
    while let Some(row) = rows.next().map_err(&err)? {
        let mut values = [None; NAMES.len()];
        let fault = read(row, &mut values).map_err(&err)?;
        let [id, started_ns, ended_ns, complete, samples, lost, mono_base_ns, real_base_ns] = values;
        let id = id.unwrap_or(0);
        let complete = complete == Some(1);
        if let Some((column, what)) = fault {
            run.violated("values", place(id), format!("{} is {what}", NAMES[column]))?;
        } else if started_ns.is_none() || mono_base_ns.is_none() || real_base_ns.is_none() {
            run.violated("values", place(id), "its times are NULL".into())?;
        } else if complete && ended_ns.is_none() {
            run.violated("values", place(id), "complete, but ended_ns is NULL".into())?;
        }
        if !complete {
            run.report.incomplete.push(id);
        }
        run.report.sessions += 1;
        let backend = text(row, NAMES.len() + 1).map_err(&err)?;
        let session = Session {
            mono_base_ns: mono_base_ns.unwrap_or(0),
            real_base_ns: real_base_ns.unwrap_or(0),
            sparse: text(row, NAMES.len()).map_err(&err)? == Sampled::Changes.name(),
            imported: backend.starts_with("import"),
            counts_own_segment: backend.contains("tracepoint"),
            complete,
            samples,
            lost,
            ..Session::default()
        };
        sessions.insert(id, session);
    }
    anchors(run, &mut sessions)?;
    orphans(run, &RECORDING_PARENTS)?;
    runs(run)?;
    Ok(sessions)
}

/// Each sample belongs to one run, which ends before the next begins.
fn runs(run: &mut Run<'_>) -> Result<()> {
    let err = run.failed();
    let no_run = format!(
        "SELECT count(*) FROM sample_rows r LEFT JOIN sample_runs u ON {RUN_OF_SAMPLE}
                          WHERE u.last_id IS NULL OR r.id NOT BETWEEN u.first_id AND u.last_id"
    );
    let overlap = "SELECT count(*) FROM sample_runs u WHERE u.last_id < u.first_id OR EXISTS (
                     SELECT 1 FROM sample_runs v WHERE v.first_id > u.first_id AND v.first_id <= u.last_id)";
    for (sql, what) in [(no_run.as_str(), "samples belong to no run"), (overlap, "runs of samples end wrongly")] {
        let count: i64 = run.db.query_row(sql, [], |row| row.get(0)).map_err(&err)?;
        if count > 0 {
            run.violated("values", Place::default(), format!("{count} {what}"))?;
        }
    }
    Ok(())
}

fn anchors(run: &mut Run<'_>, sessions: &mut Sessions) -> Result<()> {
    const NAMES: [&str; 4] = ["session_id", "mono_before_ns", "real_ns", "mono_after_ns"];
    let err = run.failed();
    let sql = format!("SELECT {} FROM clocks ORDER BY session_id, rowid", NAMES.join(", "));
    let mut statement = run.db.prepare(&sql).map_err(&err)?;
    let mut rows = statement.query([]).map_err(&err)?;
    let mut last: Option<(i64, Anchor)> = None;
    while let Some(row) = rows.next().map_err(&err)? {
        let mut values = [None; NAMES.len()];
        let fault = read(row, &mut values).map_err(&err)?;
        let [Some(session_id), Some(mono_before_ns), Some(real_ns), Some(mono_after_ns)] = values else {
            let (column, what) = fault.unwrap_or((values.iter().position(Option::is_none).unwrap_or(0), "NULL"));
            let at = place(values[0].unwrap_or(0));
            run.violated("values", at, format!("{} of a clock anchor is {what}", NAMES[column]))?;
            continue;
        };
        let now = Anchor { mono_before_ns, real_ns, mono_after_ns };
        if mono_before_ns > mono_after_ns {
            let text =
                format!("a clock anchor's mono_before_ns {mono_before_ns} is after its mono_after_ns {mono_after_ns}");
            run.violated("anchors", place(session_id), text)?;
        }
        let before = last.filter(|(session, _)| *session == session_id).map(|(_, anchor)| anchor);
        if let Some(before) = before
            && (mono_before_ns < before.mono_before_ns || mono_after_ns < before.mono_after_ns)
        {
            let text = format!("a clock anchor goes back, from {} to {mono_before_ns}", before.mono_before_ns);
            run.violated("anchors", place(session_id), text)?;
        }
        if let Some(session) = sessions.get_mut(&session_id) {
            match &mut session.clock {
                Some(span) => span.add(now),
                none => *none = Some(ClockSpan::of(now)),
            }
        }
        last = Some((session_id, now));
    }
    Ok(())
}

/// Table, column, the table whose row it names, and whether it has to name one.
pub(super) type Parent = (&'static str, &'static str, &'static str, bool);

const RECORDING_PARENTS: [Parent; 7] = [
    ("flows", "session_id", "sessions", true),
    ("clocks", "session_id", "sessions", true),
    ("probe_costs", "session_id", "sessions", true),
    ("losses", "session_id", "sessions", true),
    ("losses", "flow_id", "flows", false),
    ("sample_runs", "flow_id", "flows", true),
    ("internal_rows", "flow_id", "flows", true),
];

/// Rows that name a row that is not there; counted table by table, for there may be many.
pub(super) fn orphans(run: &mut Run<'_>, parents: &[Parent]) -> Result<()> {
    let err = run.failed();
    for (table, column, parent, always) in parents {
        // of an empty list NULL is no member either
        let null = if *always { format!("{column} IS NULL OR ") } else { format!("{column} IS NOT NULL AND ") };
        let sql = format!("SELECT count(*) FROM {table} WHERE {null}{column} NOT IN (SELECT id FROM {parent})");
        let count: i64 = run.db.query_row(&sql, [], |row| row.get(0)).map_err(&err)?;
        if count > 0 {
            let text = format!("{count} rows of {table} name a {column} that is not in {parent}");
            run.violated("values", Place::default(), text)?;
        }
    }
    Ok(())
}

/// Compares a session's figures to the rows that were found.
pub(super) fn check_counts(run: &mut Run<'_>, sessions: &Sessions) -> Result<()> {
    for (&id, session) in sessions {
        let found = i64::try_from(session.found).unwrap_or(i64::MAX);
        for (column, said, found) in [("samples", session.samples, found), ("lost", session.lost, session.lost_found)] {
            if said != Some(found) {
                let said = said.map_or("NULL".into(), |n| n.to_string());
                run.violated("session_counts", place(id), format!("{column} is {said}, the rows make {found}"))?;
            }
        }
    }
    Ok(())
}
