//! `tcpprobe import`: makes sessions of other programs' logs, all of them or none, and says what was understood.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tcpprobe_replay::import::{Clock, Format, Options, Report, import};
use tcpprobe_trace::import::ImportWriter;
use tcpprobe_trace::sample::Sampled;

use crate::Outcome;
use crate::args::{ImportArgs, LogFormat};
use crate::record::command_line;
use crate::record::recover::before_writing;
use crate::words::{count, counted, say};

pub(crate) fn run(args: &ImportArgs) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // the second one ends at once what waits for a line: SQLite rolls back then, too
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot catch signals")?;
    }
    // a trace that is not there yet is made under another name
    let _claim = if args.trace.exists() { Some(before_writing(&args.trace)?) } else { None };
    let mut writer = ImportWriter::begin(&args.trace)?;
    let mut reports = Vec::new();
    for log in &args.logs {
        let options = Options {
            format: match args.format {
                LogFormat::Auto => None,
                LogFormat::Tcpprobe => Some(Format::Tcpprobe),
                LogFormat::Event => Some(Format::Event),
                LogFormat::Siftr => Some(Format::Siftr),
            },
            start_ns: args.start,
            hz: args.hz,
            name: if is_stdin(log) { "standard input".into() } else { log.display().to_string() },
            tool_version: env!("CARGO_PKG_VERSION").into(),
            command: command_line(),
        };
        let report = import(open(log)?, &options, &mut writer, &stop)?;
        reports.push((options.name, report));
    }
    writer.commit()?;
    for (name, report) in &reports {
        summary(args, name, report);
    }
    Ok(ExitCode::SUCCESS)
}

fn is_stdin(log: &Path) -> bool {
    log.as_os_str() == "-"
}

fn open(log: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if is_stdin(log) {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(log).with_context(|| format!("cannot read the log {}", log.display()))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}

fn summary(args: &ImportArgs, name: &str, report: &Report) {
    say!(
        "{name}: {}, {} of {} from {} (session {} of {})",
        report.format.name(),
        counted(report.samples, "sample"),
        counted(report.flows, "flow"),
        counted(report.lines, "line"),
        report.session_id,
        args.trace.display()
    );
    let clock = match (report.clock, report.anchored) {
        (Clock::Wall, _) if args.start.is_some() => "of the wall clock; --start was not needed",
        (Clock::Wall, _) => "of the wall clock",
        (_, true) => "of the wall clock, by --start",
        (Clock::Log, false) => "since the log's start: ts_ns is no Unix time; --start TIME makes it one",
        (Clock::Boot, false) => "since the zero of the trace's clock: ts_ns is no Unix time; --start TIME makes it one",
    };
    say!("  times    {clock}");
    for note in &report.notes {
        say!("  units    {note}");
    }
    if report.sampled == Sampled::Changes {
        say!("  samples  no two alike in cwnd follow each other: taken for a log of its changes only (full=0)");
    }
    if report.lost > 0 {
        say!("  lost     {} that the log says it lacks", counted(report.lost, "sample"));
    }
    for (why, (n, line)) in &report.refused {
        say!("  skipped  {} ({}; the first is line {line})", counted(*n, "line"), why.name());
    }
    if report.refused.is_empty() {
        say!("  skipped  {} lines", count(0));
    }
}
