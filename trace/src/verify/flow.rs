//! Flows: the order of their samples in serials and time, and what is missing between them.

use super::columns::read;
use super::losses::Losses;
use super::sample::{self, Sample};
use super::sender::{self, Moment};
use super::session::{Session, Sessions};
use super::{Place, Run};
use crate::Result;
use crate::fields::index;

/// `bpf_ktime_get_ns` may go back when the kernel adjusts its clock's slope between two readings
/// (`ktime_get_mono_fast_ns` in `kernel/time/timekeeping.c`), and where processors' counters differ.
const CLOCK_SLACK_NS: i64 = 10_000;
/// The probes are attached before the session begins: loading the others and opening the capture may take so long.
const SETUP_NS: i64 = 30_000_000_000;
/// `TCP_CLOSE` of `include/net/tcp_states.h`.
const TCP_CLOSE: i64 = 7;

const SK_STATE: usize = index("sk_state");

/// Checks every flow.
pub(super) fn check(run: &mut Run<'_>, sessions: &mut Sessions) -> Result<()> {
    const NAMES: [&str; 5] = ["id", "session_id", "first_ns", "last_ns", "closed"];
    let err = run.failed();
    let db = run.db;
    let mut all_losses = db.prepare(Losses::SQL).map_err(&err)?;
    let mut losses = Losses::begin(&mut all_losses, run)?;
    let mut samples = db.prepare(&sample::sql()).map_err(&err)?;
    let sql = format!("SELECT {} FROM flows ORDER BY id", NAMES.join(", "));
    let mut statement = db.prepare(&sql).map_err(&err)?;
    let mut rows = statement.query([]).map_err(&err)?;
    while let Some(row) = rows.next().map_err(&err)? {
        let mut values = [None; NAMES.len()];
        let fault = read(row, &mut values).map_err(&err)?;
        let [id, session_id, first_ns, last_ns, closed] = values;
        let id = id.unwrap_or(0);
        let at = Place { session_id, flow_id: Some(id), ..Place::default() };
        if let Some((column, what)) = fault {
            run.violated("values", at.clone(), format!("{} is {what}", NAMES[column]))?;
        } else if first_ns.is_none() || last_ns.is_none() {
            run.violated("values", at.clone(), "first_ns or last_ns is NULL".into())?;
        }
        run.report.flows += 1;
        let session = session_id.and_then(|s| sessions.get(&s));
        let mut flow = Flow { at, session, last: None, span: None, closed: false, found: 0 };
        let mut of_flow = samples.query([id]).map_err(&err)?;
        while let Some(row) = of_flow.next().map_err(&err)? {
            let (sample, fault) = sample::sample(row).map_err(&err)?;
            flow.sample(run, &mut losses, &sample, fault)?;
        }
        let found = flow.found;
        flow.end(run, &mut losses, (first_ns, last_ns), closed)?;
        run.report.samples += found;
        if let Some(session) = session_id.and_then(|s| sessions.get_mut(&s)) {
            session.found += found;
        }
    }
    losses.finish(run, sessions)
}

/// A flow under way.
struct Flow<'a> {
    at: Place,
    session: Option<&'a Session>,
    last: Option<Sample>,
    /// Earliest and latest time of a sample, Unix epoch in ns, each with its serial.
    span: Option<[(i64, i64); 2]>,
    closed: bool,
    found: u64,
}

impl Flow<'_> {
    fn sample(
        &mut self,
        run: &mut Run<'_>,
        losses: &mut Losses<'_>,
        now: &Sample,
        fault: Option<String>,
    ) -> Result<()> {
        self.found += 1;
        let at = Place { sample_id: Some(now.id), serial: Some(now.serial), ..self.at.clone() };
        if let Some(fault) = fault {
            run.violated("values", at.clone(), fault)?;
        }
        let last_serial = self.last.map_or(0, |s| s.serial);
        let mut gap = false;
        if now.serial <= last_serial {
            let text =
                if self.last.is_some() { format!("after serial {last_serial}") } else { "the first is 1".into() };
            run.violated("serials", at.clone(), text)?;
        } else {
            gap = now.serial.saturating_sub(last_serial) > 1;
            self.gap(run, losses, last_serial, now.serial, &at)?;
        }
        self.time(run, now, &at)?;
        let moment = Moment { session: self.session, last: self.last.as_ref(), now, gap };
        sender::check(run, &at, &moment)?;
        self.closed |= now.get(SK_STATE) == Some(TCP_CLOSE);
        self.last = Some(*now);
        Ok(())
    }

    /// Serials between two samples' are missing: as many as losses say, and none where they say nothing.
    fn gap(&self, run: &mut Run<'_>, losses: &mut Losses<'_>, last: i64, now: i64, at: &Place) -> Result<()> {
        let explained = losses.take(run, self.at.flow_id, now)?;
        let missing = now.saturating_sub(last).saturating_sub(1);
        if explained == missing {
            return Ok(());
        }
        let text = match missing {
            0 => format!("losses counts {explained} samples missing after serial {last}, where none is"),
            _ => format!(
                "serials {} to {} are missing, {missing} of them; losses explains {explained}",
                last.saturating_add(1),
                now.saturating_sub(1)
            ),
        };
        run.violated("gaps", at.clone(), text)
    }

    fn time(&mut self, run: &mut Run<'_>, now: &Sample, at: &Place) -> Result<()> {
        if let Some(back_ns) = self.last.map(|last| last.mono_off_ns.saturating_sub(now.mono_off_ns))
            && back_ns > CLOCK_SLACK_NS
        {
            run.violated("sample_time", at.clone(), format!("{back_ns} ns before the sample before it"))?;
        }
        let Some(session) = self.session else { return Ok(()) };
        let mono_ns = session.mono_base_ns.saturating_add(now.mono_off_ns);
        let ts_ns = session.real_base_ns.saturating_add(now.mono_off_ns).saturating_add(now.clock_off_ns);
        if let Some(clock) = session.clock {
            let early_ns = clock.first_mono_ns.saturating_sub(mono_ns);
            let late_ns = mono_ns.saturating_sub(clock.last_mono_ns);
            if early_ns > SETUP_NS {
                run.violated("sample_time", at.clone(), format!("{early_ns} ns before the session's first anchor"))?;
            }
            if session.complete && late_ns > CLOCK_SLACK_NS {
                run.violated("sample_time", at.clone(), format!("{late_ns} ns after the session's last anchor"))?;
            }
            let (low, high) = clock.offset_ns;
            let offset_ns = ts_ns.saturating_sub(mono_ns);
            let off_ns = low.saturating_sub(offset_ns).max(offset_ns.saturating_sub(high));
            if off_ns > clock.slack_ns() {
                let text = format!("ts_ns is {off_ns} ns off what any of the session's clock anchors makes of mono_ns");
                run.violated("sample_time", at.clone(), text)?;
            }
        }
        let here = (ts_ns, now.serial);
        self.span = Some(self.span.map_or([here; 2], |[first, last]| [first.min(here), last.max(here)]));
        Ok(())
    }

    /// What only the whole flow tells.
    fn end(
        self,
        run: &mut Run<'_>,
        losses: &mut Losses<'_>,
        (first_ns, last_ns): (Option<i64>, Option<i64>),
        closed: Option<i64>,
    ) -> Result<()> {
        let left = losses.take(run, self.at.flow_id, i64::MAX)?;
        if left != 0 {
            let text = format!("losses counts {left} samples missing after the flow's last one");
            run.violated("gaps", self.at.clone(), text)?;
        }
        if let (Some([first, last]), Some(first_ns), Some(last_ns)) = (self.span, first_ns, last_ns) {
            for (outside_ns, serial, column) in [
                (first_ns.saturating_sub(first.0), first.1, "before first_ns"),
                (last.0.saturating_sub(last_ns), last.1, "after last_ns"),
            ] {
                if outside_ns > 0 {
                    let at = Place { serial: Some(serial), ..self.at.clone() };
                    run.violated("flow_span", at, format!("{outside_ns} ns {column}"))?;
                }
            }
        }
        if closed.is_some_and(|c| (c != 0) != self.closed) {
            let text = match self.closed {
                true => "closed is 0, and a sample shows the socket in CLOSE",
                false => "closed is 1, and no sample shows the socket in CLOSE",
            };
            run.violated("flow_span", self.at, text.into())?;
        }
        Ok(())
    }
}
