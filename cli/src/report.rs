//! `tcpprobe report`: a trace as one page for a browser.

use std::process::ExitCode;

use tcpprobe_trace::query::Query;
use tcpprobe_view::report::{Graphs, Written, report};

use crate::args::ReportArgs;
use crate::record::recover::before_reading;
use crate::words::{counted, say};
use crate::{Outcome, output};

pub(crate) fn run(args: &ReportArgs) -> Outcome {
    before_reading(&args.trace);
    let query = Query::open(&args.trace)?;
    let graphs = if args.flows.is_empty() { Graphs::Most(args.graphs.into()) } else { Graphs::Of(args.flows.clone()) };
    let written = output::write(&args.output, |out| Ok(report(&query, &graphs, out)?))?;
    say_left_out(&written);
    let megabytes = written.bytes as f64 / 1e6;
    say!(
        "{}: {megabytes:.1} MB, {}, {}",
        args.output.display(),
        counted(written.flows, "flow"),
        counted(written.graphs, "graph")
    );
    Ok(ExitCode::SUCCESS)
}

/// Says what is not in a page.
pub(crate) fn say_left_out(written: &Written) {
    for left_out in &written.left_out {
        say!("left out: {left_out}");
    }
}
