//! A time-sequence graph with its panels, as SVG or PNG.
//!
//! Owns sizes, colours and what is drawn where; the points come from [`crate::read`].

mod canvas;
mod lines;
mod panels;
mod ranges;
mod sequence;

use std::sync::Once;

use plotters::prelude::{BitMapBackend, IntoDrawingArea as _, SVGBackend};
use plotters::style::{FontStyle, register_font};

use crate::Error;
use crate::points::Series;

/// Flows that a picture has room for beside each other.
pub const MOST_FLOWS: usize = 6;

/// The format of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Scalable Vector Graphics.
    Svg,
    /// Portable Network Graphics, two dots a point.
    Png,
}

/// What part is drawn; open ends follow from the points.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct View {
    /// Seconds since the flow's start.
    pub x_s: (Option<f64>, Option<f64>),
    /// Sequence numbers, from the flow's first.
    pub y_bytes: (Option<f64>, Option<f64>),
}

/// Draws one flow, or several beside each other on the same axes; returns the file.
///
/// # Errors
/// More than [`MOST_FLOWS`], or the drawing fails.
pub fn draw(flows: &[Series], view: &View, format: Format) -> Result<Vec<u8>, Error> {
    if flows.len() > MOST_FLOWS {
        return Err(Error::TooMany { asked: flows.len(), most: MOST_FLOWS });
    }
    fonts();
    let scale = if format == Format::Png { 2 } else { 1 };
    let (width, height) = panels::size(flows.len(), scale);
    match format {
        Format::Svg => {
            let mut out = String::new();
            let root = SVGBackend::with_string(&mut out, (width, height)).into_drawing_area();
            panels::all(&root, flows, view, scale)?;
            root.present().map_err(drawing)?;
            drop(root);
            Ok(out.into_bytes())
        }
        Format::Png => {
            // plotters writes an image to a path only, so the dots are kept and encoded here
            let mut dots = vec![0; width as usize * height as usize * 3];
            {
                let root = BitMapBackend::with_buffer(&mut dots, (width, height)).into_drawing_area();
                panels::all(&root, flows, view, scale)?;
                root.present().map_err(drawing)?;
            }
            png(&dots, width, height)
        }
    }
}

fn png(dots: &[u8], width: u32, height: u32) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let failed = |e: png::EncodingError| Error::Draw(e.to_string());
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(dots).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(out)
}

/// The name that the font is registered by; a viewer of SVG takes its own of this family.
const FONT: &str = "sans-serif";

fn fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, font) in [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())] {
            // a font of a crate: where it is none, drawing fails with a word of it
            let _ = register_font(FONT, style, font);
        }
    });
}

fn drawing<E: std::error::Error + Send + Sync>(error: plotters::drawing::DrawingAreaErrorKind<E>) -> Error {
    Error::Draw(error.to_string())
}
