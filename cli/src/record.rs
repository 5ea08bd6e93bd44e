//! `tcpprobe record`: starts sampler, capture and writer, waits for the end, and gives the account.

mod anonymous;
mod backlog;
mod backlog_file;
mod claim;
pub(crate) mod command;
mod ends;
mod meter;
mod pipeline;
pub(crate) mod recover;
mod sink;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::bail;
use nix::unistd::AccessFlags;
use tcpprobe_probes::{Losses, Options, Sampler, check, clock};
use tcpprobe_replay::live;
use tcpprobe_trace::sample::Sampled;
use tcpprobe_trace::writer::{SessionStart, SessionWriter};

use crate::Outcome;
use crate::args::{RecordArgs, SampleMode};
use crate::confine::confine;
use crate::key::key;
use crate::output::standard;
use crate::privilege::{self, Caller};
use crate::sockets;
use crate::words::{count, counted, say, seconds};
use backlog_file::{beside, named_beside};
use claim::Claim;
use command::Waiting;
use ends::{End, Ends};
use meter::{Meter, MeterLine};
use pipeline::{Kept, Report, Running};
use sink::{Printer, Sink};
use watch::Watched;

pub(crate) fn run(args: &RecordArgs) -> Outcome {
    let (filter, netns) = sockets::filter(&args.sockets)?;
    let options = Options {
        filter,
        backend: sockets::backend(args.backend),
        ring_bytes: args.buffer,
        sparse: args.sample == SampleMode::Cwnd,
        max_flows: sockets::MAX_FLOWS,
    };
    // signals are caught before anything is open, so that none of them can leave a half-open session
    let ends = Ends::catch()?;
    let command = Waiting::start(&args.command)?;
    let origin_mono_ns = clock::anchor().mono_ns();
    let sampler = Sampler::start(&options)?;
    let capture = (args.pcap.is_some() || args.trace.is_some()) && !args.no_pcap;
    let capture = capture.then(|| live::Options {
        interface: args.interface.clone(),
        netns,
        filter: live::filter(&args.sockets.ports, args.sockets.hosts.iter().map(|h| (h.addr(), h.prefix_len()))),
        snaplen: args.snaplen,
        buffer_bytes: args.buffer,
    });
    let device = capture.map(|options| live::Device::open(&options)).transpose()?;
    // from here on this is the caller's process; every file is found and made as theirs
    let (sampler, keep) = privilege::needed_to_the_end(sampler, Sampler::is_readable)?;
    privilege::give_up(Caller::behind_sudo(), &keep)?;
    if let Some(program) = args.command.first() {
        command::look_for(program)?;
    }
    let claim = args.trace.as_deref().map(claim).transpose()?;
    let key = args.anonymize.then(|| key(args.anonymize_key.as_deref())).transpose()?;
    let pcap = args.pcap.clone().or_else(|| args.trace.as_deref().map(pcap_beside)).filter(|_| device.is_some());
    let start = SessionStart {
        host: nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default(),
        kernel: check::kernel_release(),
        tool_version: env!("CARGO_PKG_VERSION").into(),
        command: command_line(),
        backend: sampler.backend(),
        filter: sockets::describe(&args.sockets),
        sampled: if options.sparse { Sampled::Changes } else { Sampled::All },
        capture_path: pcap.as_ref().map(|p| std::path::absolute(p).unwrap_or_else(|_| p.clone())),
    };
    let start = match key {
        Some(_) => anonymous::leave_out(start, sockets::describe_without_names(&args.sockets)),
        None => start,
    };
    warn_of_missing(&sampler);
    let started_mono_ns = clock::anchor().mono_ns();
    let gone = Arc::new(AtomicBool::new(false));
    let stdout = || Box::new(standard()) as Box<dyn Write + Send>;
    let printer = args.print.then(|| Printer::new(stdout(), origin_mono_ns, Arc::clone(&gone)));
    // the session begins last: where anything else fails, the trace is not touched
    let capture = device.zip(pcap.as_deref()).map(|(device, file)| device.into_file(file)).transpose()?;
    let capture = capture.map(|capture| match key {
        Some(key) => capture.anonymize(key),
        None => capture,
    });
    let begin = || {
        let trace = args.trace.as_deref();
        let writer = trace.map(|trace| SessionWriter::begin(trace, &start, clock::anchor())).transpose()?;
        let sink = Sink::new(writer, printer);
        let backlog = claim.zip(sink.owner()).map(|(claim, owner)| claim.begin(&owner)).transpose()?;
        anyhow::Ok((sink, backlog))
    };
    let begun = begin();
    if let (Err(_), Some(file)) = (&begun, &pcap) {
        // made a moment ago, by this recording, which does not take place
        let _ = std::fs::remove_file(file);
    }
    let (sink, backlog) = begun?;
    let meter = Arc::<Meter>::default();
    let files = args.trace.iter().flat_map(|t| [t.clone(), named_beside(t, "-wal")]).chain(pcap.clone()).collect();
    // a command, and what is printed, have the terminal to themselves
    let mut line = MeterLine::new(files, args.command.is_empty() && !args.print);
    let way = pipeline::Options {
        backlog,
        // whoever reads what is printed wants it now
        may_wait: !args.print,
        meter: line.is_shown().then(|| Arc::clone(&meter)),
        anonymize: key,
    };
    confine(args.trace.as_deref().map(folder_of))?;
    let running = Running::start(sampler, capture, sink, way)?;
    let watched = Watched::of(args.trace.as_deref(), pcap.as_deref());
    say!(
        "recording {} with {}{}{}",
        start.filter,
        start.backend,
        session(args, &running),
        pcap.as_ref().map(|p| format!(", packets into {}", p.display())).unwrap_or_default()
    );
    let by_itself = || {
        line.draw(&meter);
        if running.broken() {
            return Some(End::Broken);
        }
        if let Some(path) = watched.gone() {
            return Some(End::Removed(path.to_owned()));
        }
        gone.load(Ordering::Acquire).then_some(End::Unread)
    };
    let end = ends.wait(args.duration, command, by_itself);
    drop(line);
    let waiting_mib = running.waiting_bytes() >> 20;
    if waiting_mib >= WORTH_A_WORD_MIB {
        say!("writing the samples that waited, {waiting_mib} MiB");
    }
    let kept = running.kept();
    let broke_off = !matches!(end, Ok(End::Signal | End::Duration | End::Child(_) | End::Unread));
    let report = running.stop(broke_off).inspect_err(|_| kept_words(args, &kept))?;
    let recorded_ns = u64::try_from(report.ended.mono_ns() - started_mono_ns).unwrap_or(0);
    summary(args, &report, pcap.as_deref(), Duration::from_nanos(recorded_ns));
    if let Some(cause) = report.broke {
        return Err(cause.context("the recording broke off"));
    }
    match end? {
        End::Child(code) => Ok(code),
        End::Signal | End::Duration | End::Unread => Ok(ExitCode::SUCCESS),
        End::Broken => bail!("the recording broke off"),
        End::Removed(path) => bail!(
            "{}: was removed, or another file put in its place, while it was recorded into; the recording was ended, since nothing more could be kept there",
            path.display()
        ),
    }
}

/// Claims a trace that is the user's own, or will be.
fn claim(trace: &Path) -> anyhow::Result<Claim> {
    privilege::own_or_new(trace)?;
    recover::before_writing(trace).map_err(|error| {
        let folder = folder_of(trace);
        let foreign = nix::unistd::geteuid().is_root() && nix::unistd::access(folder, AccessFlags::W_OK).is_err();
        if !foreign {
            return error;
        }
        error.context(format!(
            "{}: root without its capabilities may not write here; record with sudo as the folder's owner, or into a folder of root's",
            folder.display()
        ))
    })
}

/// The folder in which a file lies.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What takes a second to write.
const WORTH_A_WORD_MIB: u64 = 64;

/// What there is of a recording that could not be ended in order.
fn kept_words(args: &RecordArgs, kept: &Kept) {
    let Some(trace) = &args.trace else { return };
    say!("kept {} in {}; the session stays incomplete", counted(kept.samples(), "sample"), trace.display());
    if let Some(bytes) = kept.waiting_bytes().filter(|&bytes| bytes > 0) {
        say!(
            "  up to {} more wait in {}: the next command that opens the trace writes them, where there is room for them",
            counted(bytes.div_ceil(BYTES_OF_A_SAMPLE), "sample"),
            beside(trace).display()
        );
    }
}

/// What a record takes in the backlog, about.
const BYTES_OF_A_SAMPLE: u64 = 220;

/// Where the samples go, in words.
fn session(args: &RecordArgs, running: &Running) -> String {
    match (&args.trace, running.session_id) {
        (Some(trace), Some(id)) => format!(" into {} (session {id})", trace.display()),
        _ => String::new(),
    }
}

/// Where packets go unless told otherwise: `trace.pcap` for `trace.db`, or the first of `trace-2.pcap`, … that is free.
fn pcap_beside(trace: &Path) -> PathBuf {
    let first = trace.with_extension("pcap");
    let stem = trace.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    std::iter::once(first.clone())
        .chain((2..10_000).map(|n| trace.with_file_name(format!("{stem}-{n}.pcap"))))
        .find(|p| !p.exists())
        // then the error says that it exists
        .unwrap_or(first)
}

pub(crate) fn command_line() -> String {
    std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn warn_of_missing(sampler: &Sampler) {
    for attached in sampler.attached().iter().filter(|a| a.programs.is_empty()) {
        say!("this kernel does not show {}: {}", attached.point.name(), attached.refused.join("; "));
    }
}

fn summary(args: &RecordArgs, report: &Report, pcap: Option<&Path>, recorded: Duration) {
    let into = args.trace.as_ref().map(|t| format!(" into {}", t.display())).unwrap_or_default();
    say!("recorded {}{into}", seconds(recorded));
    say!("  samples  {} of {}", count(report.totals.samples), counted(report.totals.flows, "flow"));
    if let Some(lines) = report.printed {
        say!("  printed  {}", counted(lines, "line"));
    }
    if let (Some(stats), Some(file)) = (report.capture, pcap) {
        say!("  packets  {} in {}, {} dropped", count(stats.packets), file.display(), count(stats.dropped));
    }
    if let Some(left_out) = report.capture.map(|stats| stats.left_out).filter(|n| *n > 0) {
        say!("  left out {}, of which what is left would not be anonymous", counted(left_out, "packet"));
    }
    say!("  lost     {}", lost(&report.losses));
    if let Some(missed) = missed(&report.losses) {
        say!("  missed   {missed}");
    }
    for cost in &report.costs {
        let mean_ns = cost.time.as_nanos() as u64 / cost.runs.max(1);
        let missed = if cost.missed > 0 { format!(", {} missed", count(cost.missed)) } else { String::new() };
        say!("  cost     {:<32} {:>12} runs, {mean_ns} ns each{missed}", cost.program, count(cost.runs));
    }
    if report.totals.samples == 0 {
        say!("  no TCP segment of a socket that the filter names was seen");
    }
}

/// What was lost, why, and what helps.
fn lost(losses: &Losses) -> String {
    let Losses {
        ring_full,
        lock_refused,
        flow_table_full,
        header_unreadable,
        bad_records,
        not_shown,
        return_missed,
        probe_missed: _,
        recursion: _,
    } = *losses;
    let causes = [
        (ring_full, "ring full: a larger --buffer or a filter helps"),
        (lock_refused, "lock refused by the kernel, though there was room: less load or a filter helps"),
        (flow_table_full, "flow table full: a filter helps"),
        (header_unreadable, "header unreadable"),
        (bad_records, "record not understood"),
        (not_shown, "sent by TCP, but not shown to the probe"),
        (return_missed, "`after` samples: the return of a kernel function was not shown"),
    ];
    counted_causes(&causes).unwrap_or_else(|| "0 samples".into())
}

/// Runs that did not take place, for whatever socket; what they cost in samples is among the lost. `None`: not one.
fn missed(losses: &Losses) -> Option<String> {
    counted_causes(&[
        (losses.probe_missed, "kprobes, of any socket, while another one was handled"),
        (losses.recursion, "programs, for any socket, while one was running"),
    ])
}

fn counted_causes(causes: &[(u64, &str)]) -> Option<String> {
    let counted: Vec<String> =
        causes.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{} ({why})", count(*n))).collect();
    (!counted.is_empty()).then(|| counted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_buffer_is_advised_only_where_the_ring_was_full() {
        assert_eq!(lost(&Losses::default()), "0 samples");
        let full = Losses { ring_full: 1_234, ..Losses::default() };
        assert_eq!(lost(&full), "1,234 (ring full: a larger --buffer or a filter helps)");
        let runs = Losses { probe_missed: 3, ..Losses::default() };
        assert_eq!(lost(&runs), "0 samples", "a run that did not take place is no sample");
        assert_eq!(missed(&runs).as_deref(), Some("3 (kprobes, of any socket, while another one was handled)"));
        assert_eq!(missed(&full), None);
        let refused = Losses { lock_refused: 4, not_shown: 1, ..Losses::default() };
        assert_eq!(
            lost(&refused),
            "4 (lock refused by the kernel, though there was room: less load or a filter helps), \
             1 (sent by TCP, but not shown to the probe)"
        );
    }
}
