//! A panel with its axes and its head, drawn by plotters.

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::DrawingArea;
use plotters::element::{PathElement, Rectangle, Text};
use plotters::prelude::{Cartesian2d, DrawingBackend, IntoFont as _, RGBColor};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontTransform, ShapeStyle, TextStyle};

use super::FONT;
use super::lines::Bounds;
use crate::Error;
use crate::scale::number;

pub(super) type Area<B> = DrawingArea<B, Shift>;
pub(super) type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

pub(super) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xe6, 0xe6, 0xe6);
const AXIS: RGBColor = RGBColor(0x88, 0x88, 0x88);

/// How something is shown in a panel's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A line.
    Line,
    /// A thin line, dashed.
    Dashes,
    /// An upright bar.
    Bar,
    /// An upright bar with an R.
    BarR,
}

/// What a colour means.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) colour: RGBColor,
    pub(super) key: Key,
}

impl Entry {
    pub(super) fn new(name: impl Into<String>, colour: RGBColor, key: Key) -> Entry {
        Entry { name: name.into(), colour, key }
    }
}

pub(super) fn text(size: i32, colour: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&colour)
}

pub(super) fn failed<E: std::error::Error>(error: E) -> Error {
    Error::Draw(error.to_string())
}

/// A panel to be made.
pub(super) struct Frame<'a> {
    pub(super) bounds: Bounds,
    /// Name and unit of the y axis.
    pub(super) y: &'a str,
    pub(super) y_ticks: usize,
    /// Has numbers and a name at the x axis.
    pub(super) has_x: bool,
    /// Names instead of numbers: at 0.5, 1.5, ….
    pub(super) lanes: Option<&'a [&'a str]>,
    pub(super) head: &'a [Entry],
    pub(super) scale: i32,
}

/// Height of a panel's head, and of the x axis' numbers and name.
pub(super) const HEAD: i32 = 22;
pub(super) const FOOT: i32 = 42;
/// Width of the y axis' numbers and name.
const LEFT: i32 = 84;
const RIGHT: i32 = 14;

impl Frame<'_> {
    pub(super) fn draw<'a, B: DrawingBackend + 'a>(&self, area: &'a Area<B>) -> Result<Chart<'a, B>, Error> {
        let s = self.scale;
        let Bounds { x, y } = self.bounds;
        let mut chart = ChartBuilder::on(area)
            .margin_right(RIGHT * s)
            .margin_top(HEAD * s)
            .set_label_area_size(plotters::chart::LabelAreaPosition::Left, LEFT * s)
            .set_label_area_size(plotters::chart::LabelAreaPosition::Bottom, if self.has_x { FOOT * s } else { 0 })
            .build_cartesian_2d(x.0..x.1, y.0..y.1)
            .map_err(failed)?;
        let lanes = self.lanes;
        let mut mesh = chart.configure_mesh();
        let shown = |v: &f64| number(*v);
        let none = |_: &f64| String::new();
        mesh.x_labels(10)
            .y_labels(self.y_ticks)
            .bold_line_style(ShapeStyle::from(&FAINT).stroke_width(s as u32))
            .light_line_style(plotters::style::TRANSPARENT)
            .axis_style(ShapeStyle::from(&AXIS).stroke_width(s as u32))
            .label_style(text(12 * s, INK))
            .axis_desc_style(text(12 * s, INK))
            .x_label_formatter(&shown)
            .y_label_formatter(if lanes.is_some() { &none } else { &shown });
        if self.has_x {
            mesh.x_desc("time since the flow's start (s)");
        }
        if lanes.is_some() {
            mesh.disable_y_mesh();
        }
        mesh.draw().map_err(failed)?;
        self.name(area)?;
        if let Some(lanes) = lanes {
            self.lane_names(area, &chart, lanes)?;
        }
        self.head(area)?;
        Ok(chart)
    }

    /// The y axis' name, upright at the left edge, where no number can reach it.
    fn name<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), Error> {
        let s = self.scale;
        let (_, height) = area.dim_in_pixel();
        let foot = if self.has_x { FOOT * s } else { 0 };
        let middle = (HEAD * s + height as i32 - foot) / 2;
        let font = (FONT, 12 * s).into_font().transform(FontTransform::Rotate270);
        let style = TextStyle::from(font).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(self.y.to_owned(), (4 * s, middle), style)).map_err(failed)
    }

    fn lane_names<B: DrawingBackend>(&self, area: &Area<B>, chart: &Chart<'_, B>, lanes: &[&str]) -> Result<(), Error> {
        let s = self.scale;
        let (left, top) = area.get_base_pixel();
        for (i, lane) in lanes.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(self.bounds.x.0, i as f64 + 0.5));
            let style = text(12 * s, INK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new((*lane).to_owned(), (x - left - 8 * s, y - top), style)).map_err(failed)?;
        }
        Ok(())
    }

    /// What the colours mean, in a row above the panel.
    fn head<B: DrawingBackend>(&self, area: &Area<B>) -> Result<(), Error> {
        let s = self.scale;
        let mut x = LEFT * s;
        let middle = HEAD * s / 2 + s;
        for Entry { name, colour, key } in self.head {
            let solid = ShapeStyle::from(colour).stroke_width((2 * s) as u32);
            let stroke = |x0, y0, x1, y1| PathElement::new(vec![(x0, y0), (x1, y1)], solid);
            match key {
                Key::Line => area.draw(&stroke(x, middle, x + 18 * s, middle)).map_err(failed)?,
                Key::Dashes => {
                    for i in 0..3 {
                        area.draw(&stroke(x + 7 * s * i, middle, x + (7 * i + 4) * s, middle)).map_err(failed)?;
                    }
                }
                Key::Bar | Key::BarR => {
                    let bar = [(x + 7 * s, middle - 6 * s), (x + 10 * s, middle + 6 * s)];
                    area.draw(&Rectangle::new(bar, colour.filled())).map_err(failed)?;
                }
            }
            if *key == Key::BarR {
                let style = text(11 * s, *colour).pos(Pos::new(HPos::Left, VPos::Center));
                area.draw(&Text::new("R", (x + 12 * s, middle), style)).map_err(failed)?;
            }
            let style = text(12 * s, INK).pos(Pos::new(HPos::Left, VPos::Center));
            let (width, _) = area.estimate_text_size(name, &style).map_err(failed)?;
            area.draw(&Text::new(name.clone(), (x + 24 * s, middle), style)).map_err(failed)?;
            x += 24 * s + width as i32 + 18 * s;
        }
        Ok(())
    }
}
