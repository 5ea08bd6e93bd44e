//! What a flow's sender waited for, as the views `waiting_totals` and `why_waiting` have it.

use serde::Serialize;
use tcpprobe_trace::query::Query;

use super::overview::{Table, table};
use crate::Error;
use crate::flows::{int, text};
use crate::points::Flow;
use crate::read::Span;

/// The longest gaps that are listed.
const LONGEST: usize = 20;

/// A flow's waits.
#[derive(Serialize)]
pub(super) struct Waiting {
    totals: Table,
    /// The longest gaps; `start_ns` since the flow's start.
    longest: Table,
    runs: Runs,
}

/// Gaps on end with one reason, as one.
#[derive(Default, Serialize)]
struct Runs {
    from_ns: Vec<i64>,
    to_ns: Vec<i64>,
    /// Empty: not known.
    reason: Vec<String>,
}

impl Waiting {
    pub(super) fn read(
        query: &Query,
        flow: &Flow,
        span: Span,
        most: usize,
        left_out: &mut Vec<String>,
    ) -> Result<Waiting, Error> {
        let id = flow.id;
        let totals = format!(
            "SELECT coalesce(reason, 'not known') AS reason, gaps, total_ns, longest_ns FROM waiting_totals
WHERE flow_id = {id} ORDER BY total_ns DESC"
        );
        let longest = format!(
            "SELECT ts_ns - {} AS start_ns, gap_ns, coalesce(reason, 'not known') AS reason, unsent_bytes,
  cwnd_left_bytes, window_left_bytes, packets_in_flight, snd_cwnd FROM why_waiting
WHERE flow_id = {id} ORDER BY gap_ns DESC, ts_ns LIMIT {LONGEST}",
            flow.first_ns
        );
        Ok(Waiting {
            totals: table(query, "Waiting, by reason", &totals, left_out)?,
            longest: table(query, "Longest gaps", &longest, left_out)?,
            runs: runs(query, flow, span, most, left_out)?,
        })
    }
}

fn runs(query: &Query, flow: &Flow, span: Span, most: usize, left_out: &mut Vec<String>) -> Result<Runs, Error> {
    let mut runs: Vec<(i64, i64, String)> = Vec::new();
    let sql = format!("SELECT ts_ns, gap_ns, reason FROM why_waiting WHERE flow_id = {} ORDER BY ts_ns", flow.id);
    query.rows(&sql, |row| {
        let (Some(ts_ns), Some(gap_ns)) = (int(row.first()), int(row.get(1))) else { return Ok(()) };
        let from = ts_ns.saturating_sub(flow.first_ns);
        let to = from.saturating_add(gap_ns);
        if span.from_ns.is_some_and(|least| to < least) || span.to_ns.is_some_and(|most| from > most) {
            return Ok(());
        }
        let reason = text(row.get(2));
        match runs.last_mut() {
            Some(last) if last.2 == reason && last.1 == from => last.1 = to,
            _ => runs.push((from, to, reason)),
        }
        Ok(())
    })?;
    if runs.len() > most {
        let shortest = runs.len() - most;
        runs.sort_unstable_by_key(|r| std::cmp::Reverse(r.1 - r.0));
        runs.truncate(most);
        runs.sort_unstable();
        left_out.push(format!("the {shortest} shortest waits in the graph; the totals have them"));
    }
    let mut columns = Runs::default();
    for (from, to, reason) in runs {
        columns.from_ns.push(from);
        columns.to_ns.push(to);
        columns.reason.push(reason);
    }
    Ok(columns)
}
