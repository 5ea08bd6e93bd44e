//! `tcpprobe plot`: the time-sequence graph of flows, as a picture or a page.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use tcpprobe_trace::query::Query;
use tcpprobe_view::picture::{Format, View, draw};
use tcpprobe_view::read::{Span, series};
use tcpprobe_view::report::graphs;

use crate::args::{PlotArgs, PlotFormat, Range};
use crate::record::recover::before_reading;
use crate::report::say_left_out;
use crate::words::say;
use crate::{Outcome, output};

pub(crate) fn run(args: &PlotArgs) -> Outcome {
    let format = match args.format {
        Some(format) => format,
        None => by_name(&args.output)?,
    };
    before_reading(&args.trace);
    let query = Query::open(&args.trace)?;
    let ends = |range: Option<Range>| range.map_or((None, None), |r| (r.from, r.to));
    let view = View { x_s: ends(args.x), y_bytes: ends(args.y) };
    let ns = |seconds: Option<f64>| seconds.map(|s| (s * 1e9) as i64);
    let span = Span { from_ns: ns(view.x_s.0), to_ns: ns(view.x_s.1) };
    let format = match format {
        PlotFormat::Svg => Format::Svg,
        PlotFormat::Png => Format::Png,
        PlotFormat::Html => {
            let written = output::write(&args.output, |out| Ok(graphs(&query, &args.flows, &view, span, out)?))?;
            say_left_out(&written);
            return Ok(ExitCode::SUCCESS);
        }
    };
    output::write(&args.output, |out| {
        let mut flows = Vec::new();
        for &flow in &args.flows {
            let series = series(&query, flow, span)?;
            for left_out in &series.left_out {
                say!("flow {flow}: left out: {left_out}");
            }
            flows.push(series);
        }
        Ok(out.write_all(&draw(&flows, &view, format)?)?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn by_name(output: &Path) -> anyhow::Result<PlotFormat> {
    match output.extension().and_then(|e| e.to_str()) {
        Some("svg") => Ok(PlotFormat::Svg),
        Some("png") => Ok(PlotFormat::Png),
        Some("html") => Ok(PlotFormat::Html),
        _ => bail!(
            "{}: no format of a picture by its name; end it with .svg, .png or .html, or give --format",
            output.display()
        ),
    }
}
