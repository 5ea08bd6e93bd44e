//! Time-sequence graphs for xplot, drawn from samples as tcptrace draws them from packets, with the congestion window.
//!
//! Owns the drawing. Commands are those of xplot.org; a graph is of what one socket sends.

use std::io::Write;

use tcpprobe_trace::columns::{Column, View};
use tcpprobe_trace::rows::{Cell, FlowOf, Row};

use super::columns::{Error, Source, Watch};

/// Bits of the views' `flags` (RFC 9293 §3.1).
const FIN: i64 = 1;
const SYN: i64 = 2;

/// What a graph has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// Segments with data, SYN or FIN.
    pub segments: u64,
    /// Samples without sequence numbers, of which nothing can be drawn.
    pub left_out: u64,
}

/// Draws a flow. `done` counts rows on for `watch`.
///
/// # Errors
/// The trace or the output fails, or the caller wants no more.
pub fn export(
    source: &Source,
    flow: FlowOf,
    out: &mut dyn Write,
    done: &mut u64,
    watch: Watch<'_>,
) -> Result<Drawn, Error> {
    let (local, remote) = source.endpoints(flow)?;
    // not `unsigned`: positions go on beyond 32 bits, where a number that wraps would be a line across the graph
    writeln!(out, "timeval double\ntitle\n{} > {} (flow {})", plain(&local), plain(&remote), flow.id)?;
    writeln!(out, "xlabel\ntime\nylabel\nsequence number")?;
    let places = Places::new();
    let mut graph = Graph { out, drawn: Drawn::default(), last_ns: 0, una: None, steps: Steps::default(), sacked: 0 };
    source.each_of(flow, View::Samples, done, watch, |_, row| match Seen::of(row, &places)? {
        Some(seen) => Ok(graph.add(&seen)?),
        None => {
            graph.drawn.left_out += 1;
            Ok(())
        }
    })?;
    graph.end()?;
    graph.out.flush()?;
    Ok(graph.drawn)
}

/// A text is a line of its own in the file: one that has several would be commands.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Where in a row the columns are that a graph needs.
struct Places([usize; COLUMNS.len()]);

const COLUMNS: [&str; 11] =
    ["ts_ns", "kind", "seq", "len", "flags", "error", "snd_una", "snd_wnd", "snd_cwnd", "mss", "sacked_out"];

impl Places {
    fn new() -> Places {
        let columns = View::Samples.columns();
        let place = |name: &str| columns.iter().position(|c: &Column| c.name == name).unwrap_or(usize::MAX);
        Places(COLUMNS.map(place))
    }
}

/// What of a sample is drawn.
struct Seen {
    ts_ns: i64,
    snd_una: u32,
    /// Its end, where the socket sent it: sequence number, length with SYN and FIN, flags.
    sent: Option<(u32, u32, i64)>,
    is_retransmission: bool,
    snd_wnd: Option<u32>,
    cwnd_bytes: Option<u32>,
    sacked_out: u32,
}

impl Seen {
    /// `None`: it has no `snd_una` or no time.
    fn of(row: &Row<'_>, places: &Places) -> Result<Option<Seen>, Error> {
        let mut numbers = [None::<i64>; COLUMNS.len()];
        let (mut is_out, mut is_retransmission) = (false, false);
        for (at, cell) in row.cells().enumerate() {
            let Some(column) = places.0.iter().position(|&p| p == at) else { continue };
            match cell? {
                Cell::Integer(n) => numbers[column] = Some(n),
                Cell::Text(kind) => {
                    is_retransmission = kind == "retransmit";
                    is_out = is_retransmission || kind == "send";
                }
                Cell::Null => {}
            }
        }
        let [ts_ns, _, seq, len, flags, error, una, wnd, cwnd, mss, sacked] = numbers;
        let word = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
        let (Some(ts_ns), Some(snd_una)) = (ts_ns, word(una)) else { return Ok(None) };
        // what failed locally did not leave
        let sent = match (word(seq), word(len)) {
            (Some(seq), Some(len)) if is_out && error.is_none() => {
                let flags = flags.unwrap_or(0);
                let counted = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
                Some((seq, len.saturating_add(counted), flags)).filter(|(_, len, _)| *len > 0)
            }
            _ => None,
        };
        let cwnd_bytes = word(cwnd).zip(word(mss)).map(|(packets, mss)| packets.saturating_mul(mss));
        let sacked_out = word(sacked).unwrap_or(0);
        Ok(Some(Seen { ts_ns, snd_una, sent, is_retransmission, snd_wnd: word(wnd), cwnd_bytes, sacked_out }))
    }
}

/// A line that goes on at its height until that changes.
#[derive(Clone, Copy, Default)]
struct Step(Option<(i64, i64)>);

#[derive(Clone, Copy, Default)]
struct Steps {
    acknowledged: Step,
    window: Step,
    congestion: Step,
}

struct Graph<'a> {
    out: &'a mut dyn Write,
    drawn: Drawn,
    last_ns: i64,
    /// Position of the last `snd_una`, which goes on where the number wraps.
    una: Option<i64>,
    steps: Steps,
    sacked: u32,
}

impl Graph<'_> {
    fn add(&mut self, seen: &Seen) -> std::io::Result<()> {
        let una = match self.una {
            Some(at) => at.saturating_add(distance(seen.snd_una, at as u32)),
            None => i64::from(seen.snd_una),
        };
        (self.una, self.last_ns) = (Some(una), seen.ts_ns);
        let ts = seen.ts_ns;
        step(self.out, "green", &mut self.steps.acknowledged, ts, una)?;
        if let Some(wnd) = seen.snd_wnd {
            step(self.out, "yellow", &mut self.steps.window, ts, una.saturating_add(wnd.into()))?;
        }
        if let Some(cwnd) = seen.cwnd_bytes {
            step(self.out, "blue", &mut self.steps.congestion, ts, una.saturating_add(cwnd.into()))?;
        }
        if seen.sacked_out != self.sacked {
            self.sacked = seen.sacked_out;
            if self.sacked > 0 {
                writeln!(self.out, "purple\nbtext {} {una}\nS{}", Seconds(ts), self.sacked)?;
            }
        }
        match seen.sent {
            Some((seq, len, flags)) => {
                let from = una.saturating_add(distance(seq, seen.snd_una));
                self.segment(Seconds(ts), from, from.saturating_add(len.into()), flags, seen.is_retransmission)
            }
            None => Ok(()),
        }
    }

    /// Lines go on to the last sample.
    fn end(&mut self) -> std::io::Result<()> {
        let Steps { acknowledged, window, congestion } = self.steps;
        for (colour, step) in [("green", acknowledged), ("yellow", window), ("blue", congestion)] {
            if let Some((since, height)) = step.0 {
                let (since, last) = (Seconds(since), Seconds(self.last_ns));
                writeln!(self.out, "{colour}\nline {since} {height} {last} {height}")?;
            }
        }
        writeln!(self.out, "go")
    }

    fn segment(&mut self, at: Seconds, from: i64, to: i64, flags: i64, is_retransmission: bool) -> std::io::Result<()> {
        self.drawn.segments += 1;
        writeln!(self.out, "{}", if is_retransmission { "red" } else { "white" })?;
        writeln!(self.out, "darrow {at} {from}\nuarrow {at} {to}\nline {at} {from} {at} {to}")?;
        let mut words = Vec::new();
        for (is_so, word) in [(is_retransmission, "R"), (flags & SYN != 0, "SYN"), (flags & FIN != 0, "FIN")] {
            words.extend(is_so.then_some(word));
        }
        if words.is_empty() { Ok(()) } else { writeln!(self.out, "atext {at} {to}\n{}", words.join(" ")) }
    }
}

/// Draws a step where the height has changed.
fn step(out: &mut dyn Write, colour: &str, step: &mut Step, ts: i64, height: i64) -> std::io::Result<()> {
    if let Some((since, last)) = step.0 {
        if last == height {
            return Ok(());
        }
        writeln!(out, "{colour}\nline {} {last} {} {last}", Seconds(since), Seconds(ts))?;
        writeln!(out, "line {} {last} {} {height}", Seconds(ts), Seconds(ts))?;
    }
    step.0 = Some((ts, height));
    Ok(())
}

/// From `b` to `a`, the nearer way round.
fn distance(a: u32, b: u32) -> i64 {
    i64::from(a.wrapping_sub(b) as i32)
}

/// A time as xplot reads it: seconds with six digits behind the point.
#[derive(Clone, Copy)]
struct Seconds(i64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = self.0.max(0) / 1_000;
        write!(f, "{}.{:06}", us / 1_000_000, us % 1_000_000)
    }
}
