//! The panels of a picture: what each shows, and where.

use plotters::element::{PathElement, Rectangle, Text};
use plotters::prelude::{DrawingBackend, RGBColor};
use plotters::series::DashedLineSeries;
use plotters::style::{Color as _, ShapeStyle, WHITE};

use super::canvas::{Area, Chart, Entry, FOOT, Frame, HEAD, INK, Key, failed, text};
use super::lines::{Bounds, stairs};
use super::ranges::{Axes, Axis, axes, seconds};
use super::{View, sequence};
use crate::Error;
use crate::points::{CA_STATES, Direction, Series, Source, State};
use crate::scale;
use crate::thin::Columns;

const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const GREEN: RGBColor = RGBColor(0x00, 0x8a, 0x60);
const ORANGE: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const PURPLE: RGBColor = RGBColor(0x9b, 0x3f, 0xa8);
const GREY: RGBColor = RGBColor(0x6e, 0x6e, 0x6e);
/// Of the congestion avoidance states, in their order.
const STATES: [RGBColor; 5] = [GREEN, RGBColor(0xd9, 0xa4, 0x00), BLUE, ORANGE, RGBColor(0xb0, 0x10, 0x30)];

/// Heights in points: title, then the panels.
const TITLE: i32 = 50;
const HEIGHTS: [i32; 5] = [440, 180, 130, 130, 98 + HEAD + FOOT];
/// Widths: of one flow, of each of several.
const ALONE: i32 = 1200;
const BESIDE: i32 = 760;

/// Of one of a picture's panels, in dots.
pub(super) struct Panel {
    pub(super) scale: i32,
    width: i32,
    height: i32,
}

impl Panel {
    /// About as wide as what is within the axes.
    pub(super) fn plot_width(&self) -> i32 {
        (self.width - 98 * self.scale).max(1)
    }

    pub(super) fn plot_height(&self) -> i32 {
        (self.height - HEAD * self.scale).max(1)
    }

    /// One for each column of dots.
    pub(super) fn columns(&self, axes: &Axes) -> Columns {
        let ns = |s: f64| (s * 1e9) as i64;
        Columns::new(ns(axes.x_s.0), ns(axes.x_s.1), usize::try_from(self.plot_width()).unwrap_or(1))
    }
}

/// Width and height in dots.
pub(super) fn size(flows: usize, scale: i32) -> (u32, u32) {
    let width = if flows > 1 { BESIDE * i32::try_from(flows).unwrap_or(1) } else { ALONE };
    let height = TITLE + HEIGHTS.iter().sum::<i32>() + 6;
    ((width * scale) as u32, (height * scale) as u32)
}

/// Draws everything.
pub(super) fn all<B: DrawingBackend>(root: &Area<B>, flows: &[Series], view: &View, scale: i32) -> Result<(), Error> {
    root.fill(&WHITE).map_err(failed)?;
    let axes = axes(flows, view);
    for (series, column) in flows.iter().zip(root.split_evenly((1, flows.len().max(1)))) {
        let (top, mut rest) = column.split_vertically(TITLE * scale);
        title(&top, series, scale)?;
        for (i, height) in HEIGHTS.iter().enumerate() {
            let (area, below) = rest.split_vertically(height * scale);
            let (width, height) = area.dim_in_pixel();
            let panel = Panel { scale, width: width as i32, height: height as i32 };
            match i {
                0 => sequence::draw(&area, series, &axes, &panel)?,
                4 => ca_states(&area, series, &axes, &panel)?,
                _ => lines(&area, series, &axes, &panel, &PANELS[i - 1])?,
            }
            rest = below;
        }
    }
    Ok(())
}

fn title<B: DrawingBackend>(area: &Area<B>, series: &Series, s: i32) -> Result<(), Error> {
    let flow = &series.flow;
    let arrow = if series.direction == Direction::Sent { "→" } else { "←" };
    let name = format!("Flow {}: {} {arrow} {}  {}", flow.id, flow.local, flow.remote, flow.congestion);
    let source = match &series.source {
        Source::Packets(path) => format!("packets of {path}, states of samples"),
        Source::Samples => "from samples; no capture joined".to_owned(),
    };
    let whose = if series.direction == Direction::Sent { "data sent" } else { "data received" };
    let bold = plotters::style::TextStyle::from((super::FONT, 15 * s)).color(&INK);
    area.draw(&Text::new(name, (14 * s, 9 * s), bold)).map_err(failed)?;
    area.draw(&Text::new(format!("{whose}; {source}"), (14 * s, 30 * s), text(12 * s, GREY))).map_err(failed)
}

type Line = (&'static str, fn(&State) -> Option<i64>, RGBColor, Key);

/// A panel of lines.
struct Lines {
    name: &'static str,
    axis: fn(&Axes) -> &Axis,
    lines: &'static [Line],
}

const PANELS: [Lines; 3] = [
    Lines {
        name: "window",
        axis: |a| &a.bytes,
        lines: &[
            ("bytes in flight", |s| s.in_flight, GREY, Key::Line),
            ("SACKed", |s| s.sacked_bytes.filter(|&b| b > 0), PURPLE, Key::Line),
            ("ssthresh", |s| s.ssthresh_bytes, ORANGE, Key::Dashes),
            ("cwnd", |s| s.cwnd_bytes, BLUE, Key::Line),
        ],
    },
    Lines {
        name: "RTT",
        axis: |a| &a.rtt,
        lines: &[("srtt", |s| s.srtt_us, BLUE, Key::Line), ("min_rtt", |s| s.min_rtt_us, GREEN, Key::Dashes)],
    },
    Lines {
        name: "rate",
        axis: |a| &a.rate,
        lines: &[
            ("delivery rate", |s| s.delivery_rate, GREEN, Key::Line),
            ("pacing rate", |s| s.pacing_rate, ORANGE, Key::Dashes),
        ],
    },
];

fn lines<B: DrawingBackend>(
    area: &Area<B>,
    series: &Series,
    axes: &Axes,
    panel: &Panel,
    what: &Lines,
) -> Result<(), Error> {
    let s = panel.scale;
    let axis = (what.axis)(axes);
    let bounds = Bounds { x: axes.x_s, y: axis.range };
    let mut head = Vec::new();
    for &(name, line, colour, key) in what.lines {
        if let Some(most) = series.states.iter().filter_map(line).max() {
            let most = most as f64 / axis.unit.per;
            let name = if most > axis.range.1 {
                format!(
                    "{name} (up to {} {}, off the scale)",
                    scale::number((most * 10.0).round() / 10.0),
                    axis.unit.name
                )
            } else {
                name.to_owned()
            };
            head.push(Entry::new(name, colour, key));
        } else if name != "SACKed" {
            head.push(Entry::new(format!("{name} (not known)"), colour, key));
        }
    }
    let y = format!("{} ({})", what.name, axis.unit.name);
    let frame = Frame { bounds, y: &y, y_ticks: 5, has_x: false, lanes: None, head: &head, scale: s };
    let mut chart = frame.draw(area)?;
    let states = panel.columns(axes).states(&series.states);
    for &(_, line, colour, key) in what.lines {
        let points = states.iter().map(|p| (seconds(p.t_ns), line(p).map(|v| v as f64 / axis.unit.per)));
        let runs = stairs(points, &bounds);
        if key == Key::Dashes {
            dashes(&mut chart, runs, colour, s)?;
        } else {
            let style = ShapeStyle::from(&colour).stroke_width((3 * s / 2).max(1) as u32);
            chart.draw_series(runs.into_iter().map(|r| PathElement::new(r, style))).map_err(failed)?;
        }
    }
    Ok(())
}

pub(super) fn dashes<B: DrawingBackend>(
    chart: &mut Chart<'_, B>,
    runs: Vec<Vec<(f64, f64)>>,
    colour: RGBColor,
    s: i32,
) -> Result<(), Error> {
    let style = colour.stroke_width((3 * s / 2).max(1) as u32);
    for run in runs {
        chart.draw_series(DashedLineSeries::new(run, 5 * s as u32, 3 * s as u32, style)).map_err(failed)?;
    }
    Ok(())
}

/// A lane for each state, so that it is read by place and not by colour alone.
fn ca_states<B: DrawingBackend>(area: &Area<B>, series: &Series, axes: &Axes, panel: &Panel) -> Result<(), Error> {
    let bounds = Bounds { x: axes.x_s, y: (0.0, CA_STATES.len() as f64) };
    let frame = Frame {
        bounds,
        y: "ca_state",
        y_ticks: 5,
        has_x: true,
        lanes: Some(&CA_STATES),
        head: &[],
        scale: panel.scale,
    };
    let mut chart = frame.draw(area)?;
    let one_pixel = (bounds.x.1 - bounds.x.0) / f64::from(panel.plot_width());
    let mut bands: Vec<(usize, f64, f64)> = Vec::new();
    let next = series.states.iter().skip(1).map(|p| seconds(p.t_ns)).chain([bounds.x.1]);
    for (state, to) in series.states.iter().zip(next) {
        let Some(lane) = state.ca_state.and_then(|c| usize::try_from(c).ok()).filter(|&c| c < STATES.len()) else {
            continue;
        };
        let from = seconds(state.t_ns);
        match bands.last_mut() {
            Some(last) if last.0 == lane => last.2 = to,
            _ => bands.push((lane, from, to)),
        }
    }
    let boxes = bands.into_iter().filter(|&(_, from, to)| to >= bounds.x.0 && from <= bounds.x.1);
    let boxes = boxes.map(|(lane, from, to)| {
        // a short stay is at least two dots wide
        let (from, to) = (from.max(bounds.x.0), to.max(from + 2.0 * one_pixel).min(bounds.x.1));
        let y = lane as f64;
        Rectangle::new([(from, y + 0.2), (to, y + 0.8)], STATES[lane].filled())
    });
    chart.draw_series(boxes.collect::<Vec<_>>()).map(|_| ()).map_err(failed)
}
