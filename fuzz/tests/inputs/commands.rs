//! The whole commands, each in a process with little memory and time: they end with a documented code and a word.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use tcpprobe_fuzz::run::Target;
use tcpprobe_probes::synthetic;
use tcpprobe_tests::tools::{self, Finished};
use tcpprobe_trace::backlog::Owner;
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::writer::{SessionStart, SessionWriter};

use crate::seeds;
use crate::traces::PAGE_BYTES;

/// Address space, which is more than memory: each thread reserves some.
const MOST_BYTES: &str = "--as=1610612736";
const MOST_SECONDS: &str = "--cpu=20";
const LIMIT: Duration = Duration::from_secs(25);

/// Runs a command within the limits.
fn tcpprobe(folder: &Path, arguments: &[&str]) -> Result<Finished> {
    let mut command = Command::new("prlimit");
    command.args([MOST_BYTES, MOST_SECONDS]).arg(tools::tcpprobe()?).args(arguments);
    tools::run(command.current_dir(folder).env("RAYON_NUM_THREADS", "2"), LIMIT)
}

/// Did it end as documented? An error names the file that was damaged.
fn check(folder: &Path, arguments: &[&str], file: &str) -> Result<()> {
    let ended = tcpprobe(folder, arguments)?;
    // a command has one trace
    let named = ended.stderr.contains(file) || ended.stderr.contains("this trace");
    match ended.status.code() {
        Some(0) => Ok(()),
        Some(1) if named => Ok(()),
        // verify's own word for a violation is on standard output
        Some(1) if arguments[0] == "verify" && ended.stdout.contains(file) => Ok(()),
        _ => bail!("tcpprobe {}: {}\n{}{}", arguments.join(" "), ended.status, ended.stdout, ended.stderr),
    }
}

/// One of several, by the input: so that an input is tried in the same way again.
fn choice<'a, T>(input: &[u8], of: &'a [T]) -> &'a T {
    let sum = input.iter().fold(0_usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    &of[sum % of.len()]
}

fn target(
    name: &'static str,
    block_bytes: usize,
    seeds: Vec<Vec<u8>>,
    read: impl Fn(&Path, &[u8]) -> Result<()> + 'static,
) -> Target {
    Target {
        name,
        block_bytes,
        seeds,
        read: Box::new(move |input| {
            let folder = seeds::folder().map_err(|e| e.to_string())?;
            read(folder.path(), input).map_err(|e| format!("{e:#}"))
        }),
        most_bytes: |_| 64 << 20,
    }
}

/// `join` of a damaged capture, its export with the states, and its anonymous copy.
pub(crate) fn capture() -> Result<Target> {
    let mut captures: Vec<_> = seeds::joined()?;
    captures.truncate(2);
    let whole = captures[0].0.clone();
    let captures = captures.into_iter().map(|(_, capture)| capture).collect();
    Ok(target("command_capture", 4, captures, move |folder, input| {
        std::fs::write(folder.join("trace.db"), &whole)?;
        std::fs::write(folder.join("damaged"), input)?;
        check(folder, &["join", "trace.db", "damaged"], "damaged")?;
        check(folder, &["export", "trace.db", "--to", "pcapng", "-o", "annotated.pcapng"], "seed.pcap")?;
        let shared = ["export", "trace.db", "--to", "trace", "--anonymize", "--pcap", "damaged", "-o", "shared"];
        check(folder, &shared, "damaged")
    }))
}

/// `import` of a damaged log.
pub(crate) fn log() -> Result<Target> {
    Ok(target("command_log", 64, seeds::logs()?, |folder, input| {
        std::fs::write(folder.join("damaged"), input)?;
        check(folder, &["import", "trace.db", "damaged"], "damaged")
    }))
}

/// What reads a trace, on a damaged one.
pub(crate) fn trace() -> Result<Target> {
    let traces = seeds::joined()?;
    let capture = traces[0].1.clone();
    let commands: [&[&str]; 13] = [
        &["show", "damaged"],
        &["verify", "damaged"],
        &["sql", "damaged", "--query", "waiting-totals"],
        &["export", "damaged", "--to", "csv", "-o", "out"],
        &["export", "damaged", "--to", "json", "-o", "out"],
        &["export", "damaged", "--to", "parquet", "-o", "out"],
        &["export", "damaged", "--to", "tcpprobe"],
        &["export", "damaged", "--to", "xplot", "--flow", "1", "-o", "out"],
        &["export", "damaged", "--to", "trace", "--anonymize", "-o", "out.db"],
        &["export", "damaged", "--to", "trace", "--anonymize", "--pcap", "whole.pcap", "-o", "out"],
        &["plot", "damaged", "--flow", "1", "-o", "out.svg"],
        &["join", "damaged", "whole.pcap"],
        &["import", "damaged", "probe.log"],
    ];
    let log = seeds::logs()?.pop().unwrap_or_default();
    let seeds = traces.into_iter().map(|(trace, _)| trace).collect();
    Ok(target("command_trace", PAGE_BYTES, seeds, move |folder, input| {
        std::fs::write(folder.join("damaged"), input)?;
        std::fs::write(folder.join("whole.pcap"), &capture)?;
        std::fs::write(folder.join("probe.log"), &log)?;
        let command = *choice(input, &commands);
        // a query whose view is not there names no file: there is one trace
        check(folder, command, if command[0] == "sql" { ":" } else { "damaged" })
    }))
}

/// `show` beside a damaged backlog, which is none of the trace's faults: it goes on. The file is in order, with the
/// right checksums; what is damaged is what it takes to decode the records, and the records.
pub(crate) fn backlog() -> Result<Target> {
    let context = synthetic::context();
    let records = crate::bytes::records()?.into_bytes();
    let seed = [&u16::try_from(context.len())?.to_le_bytes()[..], &context, &records].concat();
    Ok(target("command_backlog", 64, vec![seed], |folder, input| {
        let trace = folder.join("trace.db");
        let at = Anchor { mono_before_ns: 1_000, real_ns: 1_700_000_000_000_001_000, mono_after_ns: 1_040 };
        let writer = SessionWriter::begin(&trace, &SessionStart::default(), at)?;
        std::fs::write(folder.join("trace.db-backlog"), backlog_of(&writer.owner(), at, input))?;
        drop(writer);
        let ended = tcpprobe(folder, &["show", "trace.db"])?;
        if ended.status.code() == Some(0) { Ok(()) } else { bail!("{}\n{}", ended.status, ended.stderr) }
    }))
}

/// A file of one batch, as `backlog_file.rs` of the command describes it.
fn backlog_of(owner: &Owner, after: Anchor, input: &[u8]) -> Vec<u8> {
    let (len, rest) = input.split_at(input.len().min(2));
    let context_bytes = len.iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte)).min(rest.len());
    let number = |n: i64| n.to_le_bytes();
    let mut head = b"tcpprobe backlog".to_vec();
    head.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    head.extend(tcpprobe_probes::records_id().to_le_bytes());
    head.extend([owner.session_id, owner.started_ns, owner.mono_base_ns, owner.real_base_ns].map(number).concat());
    head.resize(96, b'x');
    head.extend(crc32fast::hash(&head).to_le_bytes());
    head.resize(4096, 0);
    let mut covered = number(0).to_vec();
    covered.extend((context_bytes as u32).to_le_bytes());
    covered.extend(((rest.len() - context_bytes) as u32).to_le_bytes());
    covered.extend(crc32fast::hash(rest).to_le_bytes());
    covered.extend([0; 4]);
    let times = [after.mono_before_ns, after.real_ns, after.mono_after_ns, owner.started_ns];
    covered.extend(times.map(number).concat());
    [&head[..], b"TPBB", &crc32fast::hash(&covered).to_le_bytes(), &covered, rest].concat()
}
