//! What a page shows of a trace: sessions, flows, match quality, losses, and of the flows with the most bytes a graph
//! and what their senders waited for.
//!
//! Every number is one of the trace's views; this module only chooses and bounds.

mod columns;
mod overview;
mod waiting;

use std::io::Write;

use serde::Serialize;
use tcpprobe_trace::query::Query;

use crate::Error;
use crate::flows::{int, plain};
use crate::html::Page;
use crate::picture::{MOST_FLOWS, View};
use crate::points::{CA_STATES, Direction, Matched, Series, Source};
use crate::read::{Span, series};
use crate::thin::Columns;
use columns::{Acks, Segments, States};
use overview::{Table, table};
use waiting::Waiting;

/// Points of all graphs of a report together; each has an equal part, within [`POINTS`].
const ALL_POINTS: usize = 400_000;
/// Points of one graph: at least, at most. More show no more on a screen, and take seconds to
/// draw.
const POINTS: (usize, usize) = (4_000, 20_000);

/// Which flows of a report have a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Graphs {
    /// So many, those that sent most.
    Most(usize),
    /// These.
    Of(Vec<i64>),
}

/// What became of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Size of the page.
    pub bytes: u64,
    /// Flows of the trace.
    pub flows: u64,
    /// Flows with a graph.
    pub graphs: u64,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// What is on the page besides the flows' own data.
#[derive(Serialize)]
struct Overview {
    /// A report, or graphs alone.
    report: bool,
    trace: String,
    ca_states: [&'static str; 5],
    matches: [&'static str; 5],
    reasons: Vec<(&'static str, &'static str)>,
    tables: Vec<Table>,
    flows: Option<Table>,
    graphs: Vec<i64>,
    left_out: Vec<String>,
    data_bytes: u64,
    x_s: (Option<f64>, Option<f64>),
    y_bytes: (Option<f64>, Option<f64>),
}

impl Overview {
    fn new(query: &Query) -> Overview {
        let name = query.path().file_name().map(|n| plain(&n.to_string_lossy())).unwrap_or_default();
        Overview {
            report: true,
            trace: name,
            ca_states: CA_STATES,
            matches: Matched::ALL.map(Matched::name),
            reasons: tcpprobe_trace::WAITS.to_vec(),
            tables: Vec::new(),
            flows: None,
            graphs: Vec::new(),
            left_out: Vec::new(),
            data_bytes: 0,
            x_s: (None, None),
            y_bytes: (None, None),
        }
    }
}

/// A flow with its graph.
#[derive(Serialize)]
struct Graph {
    id: i64,
    local: String,
    remote: String,
    congestion: String,
    /// Does the socket send what is shown?
    sent: bool,
    /// The capture's path; null: the samples alone.
    capture: Option<String>,
    segments: Segments,
    acks: Acks,
    states: States,
    waiting: Waiting,
    tables: Vec<Table>,
    left_out: Vec<String>,
}

/// Writes the report of a trace.
///
/// # Errors
/// A flow that was asked for is not there or has no states, the trace cannot be read, or the page not be written.
pub fn report(query: &Query, graphs: &Graphs, out: &mut dyn Write) -> Result<Written, Error> {
    let mut overview = Overview::new(query);
    let flows = int(query.all("SELECT count(*) FROM flows")?.first().and_then(|row| row.first())).unwrap_or(0);
    let table_of_flows = overview::flows(query, &mut overview.left_out)?;
    let ids = match graphs {
        Graphs::Most(most) => table_of_flows.rows.iter().filter_map(|r| r.first()?.as_i64()).take(*most).collect(),
        Graphs::Of(ids) => distinct(ids),
    };
    let points = (ALL_POINTS / ids.len().max(1)).clamp(POINTS.0, POINTS.1);
    let mut page = Page::begin(out, &format!("{} · tcpprobe report", overview.trace))?;
    for id in ids {
        match graph(query, id, Span::default(), points) {
            Ok(graph) => add(&mut page, &mut overview, &graph)?,
            // of those that no one named, some may have nothing to show
            Err(Error::Empty { .. }) if matches!(graphs, Graphs::Most(_)) => {
                overview.left_out.push(format!("the graph of flow {id}: no sample of it has a sender's state"));
            }
            Err(error) => return Err(error),
        }
    }
    let graphs = overview.graphs.len() as u64;
    let flows = u64::try_from(flows).unwrap_or(0);
    if flows > graphs {
        let others = flows - graphs;
        overview
            .left_out
            .push(format!("the graphs of {others} of {flows} flows; --flow N picks one, --graphs N says how many"));
    }
    overview.tables = overview::tables(query, &mut overview.left_out)?;
    overview.flows = Some(table_of_flows);
    end(page, overview, flows)
}

/// Writes a page with nothing but the graphs of these flows, beside each other on the same axes.
///
/// # Errors
/// As [`report`]; or more flows than [`MOST_FLOWS`].
pub fn graphs(query: &Query, ids: &[i64], view: &View, span: Span, out: &mut dyn Write) -> Result<Written, Error> {
    if ids.len() > MOST_FLOWS {
        return Err(Error::TooMany { asked: ids.len(), most: MOST_FLOWS });
    }
    let mut overview = Overview { report: false, x_s: view.x_s, y_bytes: view.y_bytes, ..Overview::new(query) };
    let points = (ALL_POINTS / ids.len().max(1)).clamp(POINTS.0, POINTS.1);
    let mut page = Page::begin(out, &format!("{} · tcpprobe plot", overview.trace))?;
    for id in distinct(ids) {
        add(&mut page, &mut overview, &graph(query, id, span, points)?)?;
    }
    end(page, overview, ids.len() as u64)
}

/// A flow that is named twice is shown once: its data are found by its number.
fn distinct(ids: &[i64]) -> Vec<i64> {
    let mut distinct = Vec::new();
    for &id in ids {
        if !distinct.contains(&id) {
            distinct.push(id);
        }
    }
    distinct
}

fn add(page: &mut Page<'_>, overview: &mut Overview, graph: &Graph) -> Result<(), Error> {
    page.data(&format!("flow-{}", graph.id), graph)?;
    overview.graphs.push(graph.id);
    overview.left_out.extend(graph.left_out.iter().map(|l| format!("flow {}: {l}", graph.id)));
    Ok(())
}

fn end(mut page: Page<'_>, mut overview: Overview, flows: u64) -> Result<Written, Error> {
    overview.data_bytes = page.bytes();
    page.data("overview", &overview)?;
    let bytes = page.end()?;
    Ok(Written { bytes, flows, graphs: overview.graphs.len() as u64, left_out: overview.left_out })
}

fn graph(query: &Query, id: i64, span: Span, points: usize) -> Result<Graph, Error> {
    let mut series = series(query, id, span)?;
    let mut left_out = std::mem::take(&mut series.left_out);
    thin(&mut series, points, &mut left_out);
    let waiting = Waiting::read(query, &series.flow, span, points / 4, &mut left_out)?;
    let quality = format!(
        "SELECT capture_id AS capture, dir, match, coalesce(reason, '') AS reason, packets FROM match_quality WHERE flow_id = {id}"
    );
    let losses =
        format!("SELECT cause, sum(count) AS lost, count(*) AS holes FROM losses WHERE flow_id = {id} GROUP BY cause");
    let tables = vec![
        table(query, "Packets of this flow by match", &quality, &mut left_out)?,
        table(query, "Samples of this flow that are missing", &losses, &mut left_out)?,
    ];
    Ok(Graph {
        id,
        sent: series.direction == Direction::Sent,
        capture: match series.source {
            Source::Packets(path) => Some(path),
            Source::Samples => None,
        },
        segments: Segments::of(&series.segments),
        acks: Acks::of(&series.acks),
        states: States::of(&series.states),
        local: series.flow.local,
        remote: series.flow.remote,
        congestion: series.flow.congestion,
        waiting,
        tables,
        left_out,
    })
}

/// Makes the points fit, with as many columns as do.
fn thin(series: &mut Series, most: usize, left_out: &mut Vec<String>) {
    let points = |s: &Series| s.segments.len() + s.acks.len() + s.states.len();
    let before = points(series);
    if before <= most {
        return;
    }
    let times = [
        series.segments.first().map(|s| s.t_ns),
        series.segments.last().map(|s| s.t_ns),
        series.states.first().map(|s| s.t_ns),
        series.states.last().map(|s| s.t_ns),
    ];
    let from = times.iter().flatten().copied().min().unwrap_or(0);
    let to = times.iter().flatten().copied().max().unwrap_or(0);
    let mut count = most;
    loop {
        let columns = Columns::new(from, to, count);
        let segments = columns.segments(&series.segments, 0);
        let acks = columns.acks(&series.acks);
        let states = columns.states(&series.states);
        if segments.len() + acks.len() + states.len() <= most || count <= 64 {
            (series.segments, series.acks, series.states) = (segments, acks, states);
            break;
        }
        count = count * 2 / 3;
    }
    let us = (to.saturating_sub(from)) as f64 / count as f64 / 1e3;
    left_out.push(format!(
        "{} of {before} points that others within {us:.1} µs stand for; retransmissions stay apart",
        before - points(series)
    ));
}
