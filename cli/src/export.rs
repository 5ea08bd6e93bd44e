//! `tcpprobe export`: samples, or a capture with states, in the format of another program, on standard output or into a new file.

mod columns;
mod trace;
mod xplot;

use std::process::ExitCode;

use tcpprobe_replay::export::pcapng;
use tcpprobe_replay::export::tcpprobe::{Selection, export};

use crate::args::{ExportArgs, ExportFormat};
use crate::record::recover::before_reading;
use crate::words::{count, counted, error, say};
use crate::{Outcome, output};

pub(crate) fn run(args: &ExportArgs) -> Outcome {
    let has_tables = matches!(args.to, ExportFormat::Parquet | ExportFormat::Csv | ExportFormat::Json);
    if !args.tables.is_empty() && !has_tables {
        return usage("this format is not of a table: leave --table out");
    }
    if let Some(message) = misplaced(args) {
        return usage(message);
    }
    before_reading(&args.trace);
    match args.to {
        ExportFormat::Tcpprobe => lines(args),
        ExportFormat::Pcapng => capture(args),
        ExportFormat::Xplot => xplot::run(args),
        ExportFormat::Trace => trace::run(args),
        format => columns::run(args, format),
    }
}

/// Says why options do not go with the format, or with each other.
fn misplaced(args: &ExportArgs) -> Option<&'static str> {
    if args.to == ExportFormat::Trace {
        return trace::misplaced(args);
    }
    if args.anonymize {
        return Some(
            "--anonymize is for --to trace: make an anonymous trace of it with -o FILE.db, and export that to this format",
        );
    }
    if args.to != ExportFormat::Pcapng && (args.capture.is_some() || !args.pcaps.is_empty()) {
        return Some("--capture and --pcap are for --to pcapng: leave them out");
    }
    (args.pcaps.len() > 1).then_some("an annotated capture is made of one: give one --pcap")
}

/// What cannot be meant.
fn usage(message: &'static str) -> Outcome {
    error(&anyhow::Error::msg(message));
    Ok(ExitCode::from(2))
}

fn lines(args: &ExportArgs) -> Outcome {
    let written = output::write(&args.output, |out| Ok(export(&args.trace, &selection(args), out)?))?;
    if written.left_out > 0 {
        say!("{} left out: without sequence numbers or cwnd", counted(written.left_out, "sample"));
    }
    if written.lines == 0 {
        say!("{}: no sample of a received segment to write", args.trace.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn capture(args: &ExportArgs) -> Outcome {
    let source = pcapng::Source { capture: args.capture.clone(), file: args.pcaps.first().cloned() };
    let written = output::write(&args.output, |out| Ok(pcapng::export(&args.trace, &source, &selection(args), out)?))?;
    say!("{}, {} with a state", counted(written.packets, "packet"), count(written.annotated));
    if written.without_options > 0 {
        say!("{} of recorded flows left as they are: their blocks have no options", count(written.without_options));
    }
    if written.rows_left_out > 0 {
        say!(
            "{} left out: of packets that have those of a sender and a receiver",
            counted(written.rows_left_out, "row")
        );
    }
    if written.values_left_out > 0 {
        say!("{} left out: not of their column's type", counted(written.values_left_out, "value"));
    }
    if let Some(end) = written.truncated {
        say!("the capture ends within a record, after packet {}; that record is left out", end.after_frame);
    }
    Ok(ExitCode::SUCCESS)
}

fn selection(args: &ExportArgs) -> Selection {
    Selection { flows: args.flows.clone(), session: args.session }
}
