//! Commands on traces: `join`, `sql`, `show`, `import`, `verify`.

use std::path::PathBuf;

use clap::ValueEnum;
use tcpprobe_trace::READY;

use super::values::start_ns;

/// Give every packet of a capture its sender's state
///
/// Adds the packets of recorded flows to the trace, each with its sample. Joining a capture again replaces its rows.
/// An interrupted join leaves the trace as it was. While a long capture is joined no other program can read it, unless it
/// is being recorded.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tcpprobe join trace.db trace.pcap
  tcpprobe join trace.db sender.pcapng receiver.pcapng.zst")]
pub(crate) struct JoinArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// Captures, pcap or pcapng; may be compressed with gzip or zstd
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    /// Threads to join with [default: one per processor]; the result is the same for any number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Say what would be joined and leave the trace as it is
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// Run a query on a trace, which is opened read-only
///
/// The query is SQL, or one that is ready: a view of the trace, so that any SQLite client has it too.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "\
tcpprobe sql [--format FORMAT] TRACE SELECT
       tcpprobe sql [--format FORMAT] TRACE --query NAME [--flow N]...
       tcpprobe sql [--format FORMAT] --list",
    after_help = "\
Tables and views: sessions, flows, samples, losses, clocks, captures, packets, packet_state; those of --list.

Examples:
  tcpprobe sql trace.db \"SELECT * FROM flows\"
  tcpprobe sql trace.db \"SELECT ts_ns, snd_cwnd FROM samples WHERE flow_id = 1\" --format csv > cwnd.csv
  tcpprobe sql --list
  tcpprobe sql trace.db --query waiting-totals --flow 1"
)]
pub(crate) struct SqlArgs {
    /// The trace
    #[arg(required_unless_present = "list")]
    pub(crate) trace: Option<PathBuf>,
    /// One SQL statement
    #[arg(value_name = "SELECT", required_unless_present_any = ["query", "list"])]
    pub(crate) statement: Option<String>,
    /// A query that is ready
    #[arg(long, value_name = "NAME", value_parser = ready_names(), hide_possible_values = true, conflicts_with = "statement")]
    pub(crate) query: Option<String>,
    /// Of a query that is ready only the rows of this flow; may be repeated
    #[arg(long = "flow", value_name = "N", requires = "query")]
    pub(crate) flows: Vec<i64>,
    /// Print the queries that are ready
    #[arg(long, conflicts_with_all = ["statement", "query"])]
    pub(crate) list: bool,
    /// Output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    Json,
}

fn ready_names() -> clap::builder::PossibleValuesParser {
    READY.map(|ready| ready.name).into()
}

/// Print what a trace holds: sessions, flows, losses, captures and their matches
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tcpprobe show trace.db")]
pub(crate) struct ShowArgs {
    /// The trace
    pub(crate) trace: PathBuf,
}

/// Add logs of other programs to a trace, each as a session of its own
///
/// Reads /proc/net/tcpprobe logs of the old kernel module, tcp:tcp_probe events as the text of ftrace, trace-cmd report
/// or perf script, and FreeBSD's siftr logs. A trace that does not exist is made. All logs are added or none: an
/// interrupted import leaves the trace as it was. docs/foreign-logs.md says what each format gives and what it lacks.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tcpprobe import trace.db probe.log --start 2015-06-01T12:00:00Z
  perf script --ns | tcpprobe import trace.db -
  tcpprobe import trace.db siftr.log
  tcpprobe sql trace.db \"SELECT ts_ns, snd_cwnd FROM samples\"")]
pub(crate) struct ImportArgs {
    /// The trace; made if it does not exist
    pub(crate) trace: PathBuf,
    /// Logs; - is standard input
    #[arg(required = true, value_name = "LOG")]
    pub(crate) logs: Vec<PathBuf>,
    /// What the logs are; auto finds out from their lines
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    pub(crate) format: LogFormat,
    /// When the logs' time 0 was, for times that are none of the wall clock: Unix time in seconds, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = start_ns)]
    pub(crate) start: Option<i64>,
    /// Ticks a second of the kernel that wrote the logs, where they have srtt in ticks: Linux 3.14 and older
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) hz: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Auto,
    /// /proc/net/tcpprobe
    Tcpprobe,
    /// tcp:tcp_probe of ftrace, trace-cmd report or perf script
    Event,
    /// FreeBSD's siftr
    Siftr,
}

/// Check that a trace contradicts neither itself nor how TCP works
///
/// What must hold in every recording and every finished join: serials without an unexplained gap, counters that never
/// fall, snd_una ≤ seq ≤ snd_nxt as sent, packets that fit their samples, …; docs/verify.md has all checks and why they
/// hold. Prints each violation in a line on standard output, and a summary on standard error.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 no violation, 1 violations, or the trace cannot be read; 2 usage.

Examples:
  tcpprobe verify trace.db
  tcpprobe verify trace.db --format csv --limit 1000000 > violations.csv")]
pub(crate) struct VerifyArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// Print so many violations at most; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u64,
    /// Output
    #[arg(long, value_enum, default_value_t = VerifyFormat::Text)]
    pub(crate) format: VerifyFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyFormat {
    Text,
    Csv,
    Json,
}
