//! `tcpprobe export`: samples in the format of another program, on standard output or into a new file.

mod columns;
mod output;
mod xplot;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tcpprobe_replay::export::tcpprobe::{Selection, Written, export};

use crate::Outcome;
use crate::args::{ExportArgs, ExportFormat};
use crate::words::{counted, error, say};

pub(crate) fn run(args: &ExportArgs) -> Outcome {
    let has_tables = matches!(args.to, ExportFormat::Parquet | ExportFormat::Csv | ExportFormat::Json);
    if !args.tables.is_empty() && !has_tables {
        return usage("this format is not of a table: leave --table out");
    }
    match args.to {
        ExportFormat::Tcpprobe => lines(args),
        ExportFormat::Xplot => xplot::run(args),
        format => columns::run(args, format),
    }
}

/// What cannot be meant.
fn usage(message: &'static str) -> Outcome {
    error(&anyhow::Error::msg(message));
    Ok(ExitCode::from(2))
}

fn lines(args: &ExportArgs) -> Outcome {
    let selection = Selection { flows: args.flows.clone(), session: args.session };
    let written = if args.output.as_os_str() == "-" {
        let mut out = BufWriter::new(std::io::stdout().lock());
        export(&args.trace, &selection, &mut out)?
    } else {
        into_file(&args.trace, &selection, &args.output)?
    };
    if written.left_out > 0 {
        say!("{} left out: without sequence numbers or cwnd", counted(written.left_out, "sample"));
    }
    if written.lines == 0 {
        say!("{}: no sample of a received segment to write", args.trace.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn into_file(trace: &Path, selection: &Selection, path: &Path) -> anyhow::Result<Written> {
    let file = File::create_new(path)
        .with_context(|| format!("cannot make {}; an existing file is never overwritten", path.display()))?;
    let mut out = BufWriter::new(file);
    let written = export(trace, selection, &mut out).map_err(anyhow::Error::from).and_then(|written| {
        out.flush().with_context(|| path.display().to_string())?;
        Ok(written)
    });
    if written.is_err() {
        // made a moment ago, and not whole
        let _ = std::fs::remove_file(path);
    }
    written
}
