//! `tcpprobe export --to parquet`, `csv` and `json`: whole tables, with how far it has come.

use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use tcpprobe_replay::export::columns::{Selection, Source, Watch};
use tcpprobe_replay::export::{csv, json, parquet};
use tcpprobe_trace::columns::View;

use super::usage;
use crate::Outcome;
use crate::args::{ExportArgs, ExportFormat, Table};
use crate::output::{new_file, new_folder, standard};
use crate::progress::Progress;
use crate::words::{counted, say};

pub(super) fn run(args: &ExportArgs, format: ExportFormat) -> Outcome {
    let selection = Selection { flows: args.flows.clone(), session: args.session };
    let is_stdout = args.output.as_os_str() == "-";
    let is_parquet = format == ExportFormat::Parquet;
    if is_parquet && is_stdout {
        return usage("Parquet is written into a folder or a file: name one with -o DIR or -o FILE.parquet");
    }
    let views: Vec<View> = View::ALL.into_iter().filter(|v| args.tables.iter().any(|t| view(*t) == *v)).collect();
    let is_folder = is_parquet && args.output.extension().is_none_or(|e| e != "parquet");
    if is_folder {
        let views = if views.is_empty() { View::ALL.to_vec() } else { views };
        return folder(args, &selection, &views);
    }
    let view = match views[..] {
        [] => View::Samples,
        [one] => one,
        _ => return usage("a file has one table; give one --table, or --to parquet -o DIR for a folder of several"),
    };
    let source = Source::open(&args.trace, &selection)?;
    let bar = Progress::of_rows(source.rows(view)?);
    let rows = if is_stdout {
        // standard output may be a pipe whose reader waits: signals end the process as they do others
        let mut show = |done| {
            bar.set(done);
            ControlFlow::Continue(())
        };
        let mut out = BufWriter::with_capacity(1 << 16, standard());
        write(format, &source, view, &mut out, &mut show)?
    } else {
        let mut watch = until_interrupted(&bar)?;
        new_file(&args.output, |file| {
            let mut out = BufWriter::new(file);
            let rows = write(format, &source, view, &mut out, &mut watch)?;
            out.flush()?;
            Ok(rows)
        })?
    };
    drop(bar);
    if rows == 0 {
        say!("{}: no rows in {}{}", args.trace.display(), view.name(), hint(view));
    } else if !is_stdout {
        say!("{}: {} of {}", args.output.display(), counted(rows, "row"), view.name());
    }
    Ok(ExitCode::SUCCESS)
}

fn write(
    format: ExportFormat,
    source: &Source,
    view: View,
    out: &mut (dyn Write + Send),
    watch: Watch<'_>,
) -> anyhow::Result<u64> {
    Ok(match format {
        ExportFormat::Parquet => parquet::export_file(source, view, out, watch)?,
        ExportFormat::Json => json::export(source, view, out, watch)?,
        _ => csv::export(source, view, out, watch)?,
    })
}

fn folder(args: &ExportArgs, selection: &Selection, views: &[View]) -> Outcome {
    let source = Source::open(&args.trace, selection)?;
    let mut total = 0;
    for view in views {
        total += source.rows(*view)?;
    }
    let bar = Progress::of_rows(total);
    let mut watch = until_interrupted(&bar)?;
    let into = |folder: &Path| Ok(parquet::export_folder(&source, views, folder, &mut watch)?);
    let written = new_folder(&args.output, into)?;
    drop(watch);
    drop(bar);
    for (view, rows) in written {
        match rows {
            0 => say!("{}: no rows in {}, which has no folder{}", args.trace.display(), view.name(), hint(view)),
            _ => say!("{}: {}", args.output.join(view.name()).display(), counted(rows, "row")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows how far it has come, and ends it at SIGINT and SIGTERM, so that what was half-written can be removed.
pub(super) fn until_interrupted(bar: &Progress) -> anyhow::Result<impl FnMut(u64) -> ControlFlow<()>> {
    let interrupted = interrupted()?;
    Ok(move |done| {
        bar.set(done);
        if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

/// Becomes true at SIGINT and SIGTERM, which end nothing any more.
pub(super) fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("cannot watch for signals")?;
    }
    Ok(interrupted)
}

fn view(table: Table) -> View {
    match table {
        Table::Samples => View::Samples,
        Table::Packets => View::Packets,
        Table::PacketState => View::PacketState,
    }
}

fn hint(view: View) -> &'static str {
    match view {
        View::Samples => "",
        View::Packets | View::PacketState => "; packets are there after `tcpprobe join`",
    }
}
