//! The time-sequence graph: segments, ACKs, windows, as tcptrace and xplot show them.

use plotters::element::{PathElement, Text};
use plotters::prelude::{DrawingBackend, RGBColor};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, ShapeStyle};

use super::canvas::{Area, Chart, Entry, Frame, Key, failed, text};
use super::lines::{Bounds, stairs};
use super::panels::{Panel, dashes};
use super::ranges::{Axes, seconds};
use crate::Error;
use crate::points::{Direction, Segment, Series};

// Okabe and Ito's colours, which people who see fewer colours tell apart too; darker where they stand on white
const SEGMENT: RGBColor = RGBColor(0x22, 0x22, 0x22);
const AGAIN: RGBColor = RGBColor(0xd6, 0x27, 0x1e);
const ACK: RGBColor = RGBColor(0x00, 0x8a, 0x60);
const WINDOW: RGBColor = RGBColor(0xd9, 0xa4, 0x00);
const CWND: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const SACK: RGBColor = RGBColor(0x9b, 0x3f, 0xa8);

/// Pixels between two letters at least, so that each can be read.
const LETTER_GAP: i32 = 11;

pub(super) fn draw<B: DrawingBackend>(
    area: &Area<B>,
    series: &Series,
    axes: &Axes,
    panel: &Panel,
) -> Result<(), Error> {
    let s = panel.scale;
    let per = axes.seq.unit.per;
    let bounds = Bounds { x: axes.x_s, y: axes.seq.range };
    let sent = series.direction == Direction::Sent;
    let again = if sent { "retransmission" } else { "again or out of order" };
    let mut head = vec![
        Entry::new("segment", SEGMENT, Key::Bar),
        Entry::new(again, AGAIN, Key::BarR),
        Entry::new("ACK", ACK, Key::Line),
    ];
    if let Some(lowest) = series.acks.iter().filter_map(|a| a.window_end()).min() {
        let above = lowest as f64 / per > axes.seq.range.1;
        let name = if above { "receive window (above the graph)" } else { "receive window" };
        head.push(Entry::new(name, WINDOW, Key::Line));
    }
    if sent {
        head.push(Entry::new("snd_una + cwnd", CWND, Key::Dashes));
    }
    if series.acks.iter().any(|a| a.sacked_bytes.is_some_and(|b| b > 0)) {
        head.push(Entry::new("SACKed, how much", SACK, Key::Bar));
    }
    let y = format!("sequence number ({})", axes.seq.unit.name);
    let frame = Frame { bounds, y: &y, y_ticks: 10, has_x: false, lanes: None, head: &head, scale: s };
    let mut chart = frame.draw(area)?;
    let columns = panel.columns(axes);
    let line = |chart: &mut Chart<'_, B>, runs: Vec<Vec<(f64, f64)>>, colour: RGBColor| {
        let style = ShapeStyle::from(&colour).stroke_width((3 * s / 2).max(1) as u32);
        chart.draw_series(runs.into_iter().map(|r| PathElement::new(r, style))).map(|_| ()).map_err(failed)
    };
    let acks = columns.acks(&series.acks);
    let window = acks.iter().map(|a| (seconds(a.t_ns), a.window_end().map(|w| w as f64 / per)));
    line(&mut chart, stairs(window, &bounds), WINDOW)?;
    if sent {
        let states = columns.states(&series.states);
        let limit = states.iter().map(|p| {
            let limit = p.una.zip(p.cwnd_bytes).map(|(una, cwnd)| una.saturating_add(cwnd) as f64 / per);
            (seconds(p.t_ns), limit)
        });
        dashes(&mut chart, stairs(limit, &bounds), CWND, s)?;
    }
    line(&mut chart, stairs(acks.iter().map(|a| (seconds(a.t_ns), Some(a.ack as f64 / per))), &bounds), ACK)?;
    let one_pixel = (bounds.y.1 - bounds.y.0) * per / f64::from(panel.plot_height());
    let segments = columns.segments(&series.segments, one_pixel as i64);
    bars(&mut chart, &segments, &bounds, per, one_pixel / per, panel)?;
    zero_windows(&mut chart, series, &bounds, per, panel)?;
    sacked(&mut chart, &acks, &bounds, per, s)
}

fn bars<B: DrawingBackend>(
    chart: &mut Chart<'_, B>,
    segments: &[Segment],
    bounds: &Bounds,
    per: f64,
    one_pixel: f64,
    panel: &Panel,
) -> Result<(), Error> {
    let s = panel.scale;
    let at = |seg: &Segment| {
        let (x, low, high) = (seconds(seg.t_ns), seg.start as f64 / per, seg.end as f64 / per);
        // at least two dots, or a small one could not be seen
        bounds.stroke(x, low, high.max(low + 2.0 * one_pixel)).map(|(low, high)| (x, low, high))
    };
    let cap = (bounds.x.1 - bounds.x.0) * 2.5 / f64::from(panel.plot_width());
    for again in [false, true] {
        let colour = if again { AGAIN } else { SEGMENT };
        let width = if again { 2 * s } else { (3 * s / 2).max(1) } as u32;
        let style = colour.stroke_width(width);
        let shown = segments.iter().filter(|seg| seg.again == again).filter_map(at);
        let mut strokes = Vec::new();
        for (x, low, high) in shown {
            strokes.push(PathElement::new(vec![(x, low), (x, high)], style));
            // tcptrace's ends, where a bar is high enough to have some
            if high - low > 7.0 * one_pixel {
                for y in [low, high] {
                    let ends = vec![((x - cap).max(bounds.x.0), y), ((x + cap).min(bounds.x.1), y)];
                    strokes.push(PathElement::new(ends, colour.stroke_width(s as u32)));
                }
            }
        }
        chart.draw_series(strokes).map_err(failed)?;
    }
    let marks = segments.iter().filter(|seg| seg.again).filter_map(at).map(|(x, _, high)| (x, high));
    letters(chart, marks, "R", AGAIN, s)
}

/// A letter above each mark; where there is no room for one the mark stays as it is.
fn letters<B: DrawingBackend>(
    chart: &mut Chart<'_, B>,
    marks: impl Iterator<Item = (f64, f64)>,
    letter: &'static str,
    colour: RGBColor,
    s: i32,
) -> Result<(), Error> {
    let mut placed: Vec<(i32, i32)> = Vec::new();
    let mut texts = Vec::new();
    for mark in marks {
        let (x, y) = chart.backend_coord(&mark);
        let near = placed
            .iter()
            .rev()
            .take(64)
            .any(|&(px, py)| (px - x).abs() < LETTER_GAP * s && (py - y).abs() < LETTER_GAP * s);
        if !near {
            placed.push((x, y));
            let style = text(11 * s, colour).pos(Pos::new(HPos::Center, VPos::Bottom));
            texts.push(Text::new(letter, mark, style));
        }
    }
    chart.draw_series(texts).map(|_| ()).map_err(failed)
}

/// xplot's Z: the receiver has said that it takes nothing more.
fn zero_windows<B: DrawingBackend>(
    chart: &mut Chart<'_, B>,
    series: &Series,
    bounds: &Bounds,
    per: f64,
    panel: &Panel,
) -> Result<(), Error> {
    let marks = series.acks.iter().filter(|a| a.window_bytes == Some(0)).filter_map(|a| {
        let (x, y) = (seconds(a.t_ns), a.ack as f64 / per);
        bounds.stroke(x, y, y).map(|_| (x, y))
    });
    letters(chart, marks, "Z", SACK, panel.scale)
}

/// How much is selectively acknowledged, as a bar above the ACK. Where in the window it lies, a trace does not keep.
fn sacked<B: DrawingBackend>(
    chart: &mut Chart<'_, B>,
    acks: &[crate::points::Ack],
    bounds: &Bounds,
    per: f64,
    s: i32,
) -> Result<(), Error> {
    let strokes = acks.iter().filter_map(|a| {
        let bytes = a.sacked_bytes.filter(|&b| b > 0)?;
        let x = seconds(a.t_ns);
        let (low, high) = bounds.stroke(x, a.ack as f64 / per, a.ack.saturating_add(bytes) as f64 / per)?;
        Some(PathElement::new(vec![(x, low), (x, high)], SACK.mix(0.55).stroke_width(s as u32)))
    });
    chart.draw_series(strokes.collect::<Vec<_>>()).map(|_| ()).map_err(failed)
}
