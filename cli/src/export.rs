//! `tcpprobe export`: samples in the format of another program, on standard output or into a new file.

use std::process::ExitCode;

use tcpprobe_replay::export::tcpprobe::{Selection, export};

use crate::Outcome;
use crate::args::{ExportArgs, ExportFormat};
use crate::output;
use crate::words::{counted, say};

pub(crate) fn run(args: &ExportArgs) -> Outcome {
    let ExportFormat::Tcpprobe = args.to;
    let selection = Selection { flows: args.flows.clone(), session: args.session };
    let written = output::write(&args.output, |out| Ok(export(&args.trace, &selection, out)?))?;
    if written.left_out > 0 {
        say!("{} left out: without sequence numbers or cwnd", counted(written.left_out, "sample"));
    }
    if written.lines == 0 {
        say!("{}: no sample of a received segment to write", args.trace.display());
    }
    Ok(ExitCode::SUCCESS)
}
