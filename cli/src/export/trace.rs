//! `tcpprobe export --to trace --anonymize`: a trace that can be shared, with the captures that belong to it.
//!
//! A folder, so that trace and captures are there together or not at all; or the trace alone, as a file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use tcpprobe_replay::anonymize::Anonymizer;
use tcpprobe_replay::capture::Format;
use tcpprobe_replay::export::anonymous::{Error, Written, export};
use tcpprobe_trace::anonymous::{Copied, NamedCapture, Original};

use super::columns::interrupted;
use crate::Outcome;
use crate::args::ExportArgs;
use crate::key::key;
use crate::output::{new_folder, new_named_file};
use crate::progress::Progress;
use crate::sql::printable;
use crate::words::{count, counted, say};

/// The trace in the folder, as in the documentation.
const NAME: &str = "trace.db";
const WAY_OUT: &str = "name the captures to copy with --pcap, or write the trace alone with -o FILE.db";

/// Says why options cannot be meant.
pub(super) fn misplaced(args: &ExportArgs) -> Option<&'static str> {
    if !args.anonymize {
        Some("--to trace is for --anonymize; one that is to stay as it is, copy with sqlite3 TRACE '.backup COPY'")
    } else if args.output.as_os_str() == "-" {
        Some("a trace is written into a folder or a file: name one with -o DIR or -o FILE.db")
    } else if args.capture.is_some() {
        Some("--capture is for --to pcapng: leave it out, and name the captures to copy with --pcap")
    } else if !args.flows.is_empty() || args.session.is_some() {
        Some("a trace is exported whole: leave --flow and --session out")
    } else if is_file(args) && !args.pcaps.is_empty() {
        Some("a file has the trace alone: leave --pcap out, or name a folder with -o DIR")
    } else {
        None
    }
}

fn is_file(args: &ExportArgs) -> bool {
    args.output.extension().is_some_and(|e| e == "db")
}

pub(super) fn run(args: &ExportArgs) -> Outcome {
    let mut anonymizer = Anonymizer::new(key(args.anonymize_key.as_deref())?);
    let original = Original::open(&args.trace)?;
    if is_file(args) {
        let interrupted = interrupted()?;
        let copied = new_named_file(&args.output, |to| trace(&original, to, &mut anonymizer, &interrupted))?;
        say_trace(&args.output, &copied);
        match original.captures()?.len() as u64 {
            0 => {}
            captures => say!("  left out  {}: a folder (-o DIR) has copies", counted(captures, "capture")),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let captures = captures(args, &original)?;
    let interrupted = interrupted()?;
    let (copied, copies) = new_folder(&args.output, |folder| {
        let to = folder.join(NAME);
        // as readable as any other output: SQLite alone would keep it for its owner
        File::create_new(&to).with_context(|| to.display().to_string())?;
        let copied = trace(&original, &to, &mut anonymizer, &interrupted)?;
        let mut copies = Vec::new();
        for (at, named) in captures.iter().enumerate() {
            copies.push(capture(named, at, folder, &mut anonymizer, &interrupted)?);
        }
        Ok((copied, copies))
    })?;
    say_trace(&args.output.join(NAME), &copied);
    for (named, (name, written)) in captures.iter().zip(&copies) {
        say_capture(&args.output.join(name), &named.path, written);
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies the trace, with how far it has come.
fn trace(
    original: &Original,
    to: &Path,
    anonymizer: &mut Anonymizer,
    interrupted: &Arc<AtomicBool>,
) -> anyhow::Result<Copied> {
    let bar = Progress::of_rows(original.samples()?);
    let mut watch = |samples| {
        bar.set(samples);
        if interrupted.load(Ordering::Relaxed) { Err(Error::Interrupted.into()) } else { anyhow::Ok(()) }
    };
    original.copy(to, &mut |address| anonymizer.address(address), &mut watch)
}

/// The captures to copy: those that the user names, else those that the trace names, each of which must be what it was.
fn captures(args: &ExportArgs, original: &Original) -> anyhow::Result<Vec<NamedCapture>> {
    if !args.pcaps.is_empty() {
        return Ok(args.pcaps.iter().map(|path| NamedCapture { path: path.clone(), packets: Vec::new() }).collect());
    }
    let folder = std::path::absolute(&args.trace).ok().and_then(|trace| trace.parent().map(Path::to_owned));
    let (mut captures, mut files) = (Vec::new(), BTreeSet::new());
    for named in original.captures()? {
        let path = shown(&named.path);
        let metadata = match std::fs::metadata(&named.path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => bail!("{path}: a capture of {}, but it is no file; {WAY_OUT}", args.trace.display()),
            Err(cause) => bail!("{path}: cannot read this capture of {}: {cause}; {WAY_OUT}", args.trace.display()),
        };
        // a trace of someone else could name any file of this user's as one that is to be shared
        if named.packets.is_empty() && named.path.parent().map(Path::to_owned) != folder {
            bail!(
                "{path}: {} does not say how many packets it has, and it is not beside it; {WAY_OUT}",
                args.trace.display()
            );
        }
        // by another name the same one
        if files.insert((metadata.dev(), metadata.ino())) {
            captures.push(named);
        }
    }
    Ok(captures)
}

/// Copies a capture into the folder; returns its name there.
fn capture(
    named: &NamedCapture,
    at: usize,
    folder: &Path,
    anonymizer: &mut Anonymizer,
    interrupted: &Arc<AtomicBool>,
) -> anyhow::Result<(PathBuf, Written)> {
    let (mut capture, _bar) = crate::join::open(&named.path)?;
    let extension = if capture.summary().format == Format::Pcap { "pcap" } else { "pcapng" };
    let number = if at == 0 { String::new() } else { format!("-{}", at + 1) };
    let name = PathBuf::from(format!("trace{number}.{extension}"));
    let to = folder.join(&name);
    let file = File::create_new(&to).with_context(|| to.display().to_string())?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let mut watch =
        || if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let written = export(&mut capture, anonymizer, &mut out, &mut watch)?;
    out.flush().with_context(|| to.display().to_string())?;
    let packets = capture.summary().packets;
    if !named.packets.is_empty() && !named.packets.iter().any(|known| u64::try_from(*known) == Ok(packets)) {
        let known: Vec<String> = named.packets.iter().map(i64::to_string).collect();
        bail!(
            "{}: not the capture that the trace names: it has {packets} packets, not {}; {WAY_OUT}",
            shown(&named.path),
            known.join(" or ")
        );
    }
    Ok((name, written))
}

/// A path that may be someone else's word.
fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

fn say_trace(path: &Path, copied: &Copied) {
    let Copied { sessions, flows, samples, captures, packets, words, objects } = *copied;
    say!(
        "{}: {}, {}, {}",
        path.display(),
        counted(sessions, "session"),
        counted(flows, "flow"),
        counted(samples, "sample")
    );
    if captures > 0 {
        say!(
            "  left out  {} with {}: `tcpprobe join` makes it anew of the new files",
            counted(captures, "join"),
            counted(packets, "packet row")
        );
    }
    if words > 0 {
        say!("  left out  {} that tcpprobe does not write", counted(words, "text"));
    }
    if objects > 0 {
        say!("  left out  {} of the schema that tcpprobe does not make", counted(objects, "object"));
    }
}

fn say_capture(path: &Path, from: &Path, written: &Written) {
    let Written { packets, left_out, without_time, other_records, truncated } = *written;
    say!("{}: {} of {}", path.display(), counted(packets, "packet"), shown(from));
    if left_out > 0 {
        say!("  left out  {}, of which what is left would not be anonymous", counted(left_out, "packet"));
    }
    if without_time > 0 {
        say!("  left out  {} without a time", counted(without_time, "packet"));
    }
    if other_records > 0 {
        say!("  left out  {} that hold no packet", counted(other_records, "record"));
    }
    if let Some(end) = truncated {
        say!("  left out  the record within which the capture ends, after packet {}", count(end.after_frame));
    }
}
