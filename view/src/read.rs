//! From a trace to the points of a flow.
//!
//! States are always the samples'. Segments and ACKs are the packets of the capture that shows most of the flow, or,
//! where none was joined, the samples' own.

mod packets;
mod samples;

use tcpprobe_trace::query::Query;

use crate::points::{Ack, Flow, Segment, Series, Source, State};
use crate::thin::Columns;
use crate::{Error, flows};

/// A part of a flow's time, ns since its start; open where an end is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Nothing before.
    pub from_ns: Option<i64>,
    /// Nothing after.
    pub to_ns: Option<i64>,
}

impl Span {
    fn has(self, t_ns: i64) -> bool {
        self.from_ns.is_none_or(|from| t_ns >= from) && self.to_ns.is_none_or(|to| t_ns <= to)
    }
}

/// Points held while reading; beyond them what is there is thinned to [`THINNED_COLUMNS`], so that memory does not grow
/// with the trace.
const MOST_POINTS: usize = 2_000_000;
const THINNED_COLUMNS: usize = 20_000;

/// Reads what is to be drawn of a flow.
///
/// # Errors
/// There is no such flow, nothing of it lies in the span, or the trace cannot be read.
pub fn series(query: &Query, id: i64, span: Span) -> Result<Series, Error> {
    let flow = flows::flow(query, id)?;
    let direction = samples::direction(query, id)?;
    let mut points = Points::new(&flow, span);
    let mut left_out = Vec::new();
    let capture = packets::capture(query, id, &mut left_out)?;
    let bases = samples::read(query, &flow, direction, capture.is_none(), &mut points)?;
    if let Some(capture) = &capture {
        packets::read(query, &flow, direction, capture, bases, &mut points, &mut left_out)?;
    }
    points.sort();
    if points.states.is_empty() && points.segments.is_empty() {
        return Err(Error::Empty { trace: query.path().to_owned(), flow: id, ranged: span != Span::default() });
    }
    let Points { segments, acks, states, .. } = points;
    let source = capture.map_or(Source::Samples, |c| Source::Packets(c.path));
    Ok(Series { flow, direction, source, segments, acks, states, left_out })
}

/// Points as they come, within the span and bounded.
struct Points {
    span: Span,
    columns: Columns,
    segments: Vec<Segment>,
    acks: Vec<Ack>,
    states: Vec<State>,
    /// The last state before the span: what holds at its begin.
    before: Option<State>,
}

impl Points {
    fn new(flow: &Flow, span: Span) -> Points {
        let from = span.from_ns.unwrap_or(0);
        let to = span.to_ns.unwrap_or_else(|| flow.last_ns.saturating_sub(flow.first_ns));
        let columns = Columns::new(from, to, THINNED_COLUMNS);
        Points { span, columns, segments: Vec::new(), acks: Vec::new(), states: Vec::new(), before: None }
    }

    fn segment(&mut self, segment: Segment) {
        if self.span.has(segment.t_ns) {
            self.segments.push(segment);
            if self.segments.len() >= MOST_POINTS {
                self.segments = self.columns.segments(&self.segments, 0);
            }
        }
    }

    fn ack(&mut self, ack: Ack) {
        if self.span.has(ack.t_ns) {
            self.acks.push(ack);
            if self.acks.len() >= MOST_POINTS {
                self.acks = self.columns.acks(&self.acks);
            }
        }
    }

    fn state(&mut self, state: State) {
        if self.span.has(state.t_ns) {
            if let Some(before) = self.before.take() {
                self.states.push(State { t_ns: self.span.from_ns.unwrap_or(before.t_ns), ..before });
            }
            // between two samples that are alike nothing happens that a line would show
            if let [.., before, last] = &mut self.states[..]
                && same_lines(before, last)
                && same_lines(last, &state)
            {
                *last = state;
                return;
            }
            self.states.push(state);
            if self.states.len() >= MOST_POINTS {
                self.states = self.columns.states(&self.states);
            }
        } else if self.span.from_ns.is_some_and(|from| state.t_ns < from) {
            self.before = Some(state);
        }
    }

    fn sort(&mut self) {
        // a capture's order of packets is not always that of their times
        self.segments.sort_by_key(|s| s.t_ns);
        self.acks.sort_by_key(|a| a.t_ns);
        self.states.sort_by_key(|s| s.t_ns);
    }
}

fn same_lines(a: &State, b: &State) -> bool {
    a.una == b.una && State::DRAWN.iter().all(|line| line(a) == line(b))
}

/// Sequence numbers of 32 bits as positions that do not wrap, counted from the first one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwrapped {
    base: i64,
    last: i64,
}

impl Unwrapped {
    pub(crate) fn new(base: i64) -> Unwrapped {
        Unwrapped { base, last: 0 }
    }

    /// The position nearest to the last one.
    pub(crate) fn at(&mut self, seq: i64) -> i64 {
        // to 32 bits with sign: the shorter way round
        let distance = seq.wrapping_sub(self.base.wrapping_add(self.last)) as i32;
        self.last = self.last.saturating_add(i64::from(distance));
        self.last
    }
}

/// The first number of each of the two streams, where known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bases {
    sent: Option<i64>,
    received: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::Unwrapped;

    #[test]
    fn numbers_go_on_after_the_wrap_and_come_back_before_it() {
        let mut at = Unwrapped::new(0xffff_ff00);
        assert_eq!(at.at(0xffff_ff00), 0);
        assert_eq!(at.at(0x0000_0100), 0x200);
        assert_eq!(at.at(0xffff_ffff), 0xff);
        assert_eq!(at.at(0xffff_fe00), -0x100, "before the first: a keepalive");
    }

    #[test]
    fn a_stream_longer_than_the_numbers_keeps_counting() {
        let mut at = Unwrapped::new(7);
        let step = 1_i64 << 30;
        for i in 0..20 {
            assert_eq!(at.at((7 + i * step) & 0xffff_ffff), i * step);
        }
    }
}
