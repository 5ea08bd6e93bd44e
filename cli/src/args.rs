//! The command line: every command, its options, and the help that goes with them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use tcpprobe_replay::import::unix_time;
use tcpprobe_trace::READY;

/// Records the true state of TCP senders inside the Linux kernel, and gives every captured packet its sender's state.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  sudo tcpprobe record -w trace.db --port 443 --duration 30s
  tcpprobe join trace.db trace.pcap
  tcpprobe sql trace.db \"SELECT number, snd_cwnd, srtt_us FROM packet_state WHERE retransmission\"

Exit codes: 0 done, 1 error, 2 usage; `record -- CMD` ends with CMD's code."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Record(RecordArgs),
    Live(LiveArgs),
    Join(JoinArgs),
    Sql(SqlArgs),
    Show(ShowArgs),
    Import(ImportArgs),
    Export(ExportArgs),
    Plot(PlotArgs),
    Report(ReportArgs),
    Verify(VerifyArgs),
    Check(CheckArgs),
    Generate(GenerateArgs),
}

/// Sample live TCP sockets into a trace, and capture their packets beside it
///
/// Records until Ctrl-C, until --duration is over, or until CMD ends. Needs CAP_BPF, CAP_PERFMON and, for packets,
/// CAP_NET_RAW. A recording into a trace that exists becomes a new session of it; nothing is overwritten. Packets are
/// captured by port, host and network namespace like samples, but without regard to --mark.
///
/// Once a recording has begun, no privileges are left: with sudo it goes on as the user behind it. Its files are that
/// user's, and for no one else to read; an existing trace must be. CMD runs as the caller.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo tcpprobe record -w trace.db --port 443              until Ctrl-C
  sudo tcpprobe record -w trace.db --host 192.0.2.0/24 --duration 5min
  sudo tcpprobe record -w trace.db --no-pcap -- iperf3 -c 192.0.2.1
  sudo tcpprobe record --print --port 443 | awk '{ print $1, $7 }'     time and cwnd, live")]
pub(crate) struct RecordArgs {
    /// The trace; made if it does not exist. With --print it may be left out
    #[arg(short = 'w', long = "write", value_name = "TRACE", required_unless_present = "print")]
    pub(crate) trace: Option<PathBuf>,
    /// Also print each received segment's sample to standard output as it comes, in the format of the kernel module
    /// tcp_probe: time since the start, source, destination, length, snd_nxt, snd_una, snd_cwnd, ssthresh, snd_wnd,
    /// srtt (µs), rcv_wnd
    #[arg(long)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) sockets: SocketArgs,
    /// Capture packets on this interface
    #[arg(short = 'i', long, value_name = "IFACE", default_value = "any")]
    pub(crate) interface: String,
    /// The packet capture [default: beside the trace, trace.pcap for trace.db; none without a trace]
    #[arg(long, value_name = "FILE", conflicts_with = "no_pcap")]
    pub(crate) pcap: Option<PathBuf>,
    /// Capture no packets
    #[arg(long)]
    pub(crate) no_pcap: bool,
    /// Bytes to keep of each packet [default: its headers, without payload]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(64..=262_144))]
    pub(crate) snaplen: Option<u32>,
    /// Rewrite IP addresses in trace and capture, so that both can be shared: consistently, equal prefixes staying equal.
    /// Hardware addresses, TCP checksums and payload become none; names of host, command and files are left out
    #[arg(long)]
    pub(crate) anonymize: bool,
    /// Rewrite by the key in this file, 64 hexadecimal digits, so that several recordings have the same addresses; whoever
    /// has it can take the rewriting back [default: a random one that is not kept]
    #[arg(long, value_name = "FILE", requires = "anonymize")]
    pub(crate) anonymize_key: Option<PathBuf>,
    /// Which samples: all, or only those at which a socket's cwnd, ssthresh or ca_state has changed
    #[arg(long, value_enum, default_value_t = SampleMode::All)]
    pub(crate) sample: SampleMode,
    /// Size of the kernel's buffer for samples, and of the one for packets
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_BUFFER, value_parser = size)]
    pub(crate) buffer: u32,
    /// How to attach to the kernel
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    pub(crate) backend: BackendArg,
    /// Stop after this time, for instance 30s or 5min
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Run a command, and record until it ends
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Which sockets are sampled.
#[derive(Debug, clap::Args)]
pub(crate) struct SocketArgs {
    /// Only sockets with this local or remote port; may be repeated
    #[arg(long = "port", value_name = "N", value_parser = port)]
    pub(crate) ports: Vec<u16>,
    /// Only sockets with this local or remote address, or one in this prefix; may be repeated
    #[arg(long = "host", value_name = "ADDR[/LEN]", value_parser = host)]
    pub(crate) hosts: Vec<IpNet>,
    /// Only sockets with this mark (SO_MARK)
    #[arg(long, value_name = "N", value_parser = mark)]
    pub(crate) mark: Option<u32>,
    /// Only sockets of this network namespace: a name of `ip netns`, a path, or `current`
    #[arg(long, value_name = "NAME|PATH|current")]
    pub(crate) netns: Option<String>,
}

/// Watch live TCP sockets on the terminal, as top shows processes
///
/// Rates, retransmissions, RTT, cwnd and what is in flight, of all flows or of one with its course over the last two
/// minutes. Nothing is written. Needs CAP_BPF and CAP_PERFMON. Colours are left out where NO_COLOR is set.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: ↑ ↓ select, Enter one flow, Esc all flows, s sort by rate, loss or RTT, p pause, q quit.

Examples:
  sudo tcpprobe live --port 443
  sudo tcpprobe live --sort rtt --host 192.0.2.0/24")]
pub(crate) struct LiveArgs {
    #[command(flatten)]
    pub(crate) sockets: SocketArgs,
    /// What comes first: the highest rate, share of retransmitted bytes, or smoothed RTT
    #[arg(long, value_enum, default_value_t = Sort::Rate)]
    pub(crate) sort: Sort,
    /// Size of the kernel's buffer for samples
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_BUFFER, value_parser = size)]
    pub(crate) buffer: u32,
    /// How to attach to the kernel
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    pub(crate) backend: BackendArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    Rate,
    Loss,
    Rtt,
}

/// Give every packet of a capture its sender's state
///
/// Adds the packets of recorded flows to the trace, each with its sample. Joining a capture again replaces its rows.
/// An interrupted join leaves the trace as it was.
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

/// Write samples and packets in the format of another program
///
/// parquet, csv and json: all columns of a table, for DuckDB, pandas, polars and jq; docs/export.md says how each reads
/// them. pcapng: the packets of a joined capture, each with its sender's state as a comment, which
/// wireshark/tcpprobe.lua makes fields of. xplot: for each flow a graph of what its socket sent, drawn by xplot.
/// tcpprobe: a line for each received segment, as /proc/net/tcpprobe of the old kernel module had it, so that its scripts
/// go on working.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tcpprobe export trace.db --to parquet -o columns             a folder: columns/packet_state/session_id=1/…
  tcpprobe export trace.db --to parquet --table samples -o samples.parquet
  tcpprobe export trace.db --to csv --table packet_state --flow 3 > packets.csv
  tcpprobe export trace.db --to xplot --flow 3 -o flow.xpl
  tcpprobe export trace.db --to tcpprobe --flow 3 > probe.log
  tcpprobe export trace.db --to tcpprobe --session 2 -o probe.log
  tcpprobe export trace.db --to pcapng -o annotated.pcapng")]
pub(crate) struct ExportArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// Output format
    #[arg(long, value_enum)]
    pub(crate) to: ExportFormat,
    /// Which table, of parquet, csv and json; may be repeated where the output is a folder [default: samples; of a folder
    /// all]
    #[arg(long = "table", value_name = "TABLE", value_enum)]
    pub(crate) tables: Vec<Table>,
    /// Output, which must not exist: a file; of parquet and xplot a folder, unless it ends in .parquet or .xpl; - is
    /// standard output
    #[arg(short = 'o', long = "output", value_name = "PATH", default_value = "-")]
    pub(crate) output: PathBuf,
    /// Only this flow; may be repeated
    #[arg(long = "flow", value_name = "N")]
    pub(crate) flows: Vec<i64>,
    /// Only this session
    #[arg(long, value_name = "N")]
    pub(crate) session: Option<i64>,
    /// For pcapng: the capture, by its path or number in the table captures; may be left out where there is one
    #[arg(long, value_name = "PATH|ID")]
    pub(crate) capture: Option<String>,
    /// For pcapng: the capture's file, where it has moved since it was joined
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
}

/// Draw the time-sequence graph of flows, with the sender's state
///
/// Segments, retransmissions, ACKs and windows as tcptrace and xplot show them; below them cwnd, ssthresh and bytes in
/// flight, RTT, rates and ca_state. Shows packets where a capture was joined, else the samples alone. Several flows are
/// drawn beside each other on the same axes. As HTML the graph is one to look into: zoom, pan, and what the sender's state
/// was at a packet. docs/plots.md says how to read it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tcpprobe plot trace.db --flow 3 -o flow.svg
  tcpprobe plot trace.db --flow 3 -o loss.png --x 1.2..1.5 --y 3M..3.4M
  tcpprobe plot trace.db --flow 3 --flow 5 -o both.svg
  tcpprobe plot trace.db --flow 3 -o flow.html               for a browser; needs no network")]
pub(crate) struct PlotArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// The flow, as `tcpprobe show` numbers them; may be repeated, up to six
    #[arg(long = "flow", value_name = "N", required = true)]
    pub(crate) flows: Vec<i64>,
    /// Output file, which must not exist; - is standard output
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Format [default: what the output file's name ends with]
    #[arg(long, value_enum)]
    pub(crate) format: Option<PlotFormat>,
    /// Only this time, seconds since the flow's start; an end may be left out
    #[arg(long, value_name = "FROM..TO", value_parser = seconds_range, allow_hyphen_values = true)]
    pub(crate) x: Option<Range>,
    /// Only these sequence numbers, bytes from the flow's first, for instance 500k..1.5M; an end may be left out
    #[arg(long, value_name = "FROM..TO", value_parser = bytes_range, allow_hyphen_values = true)]
    pub(crate) y: Option<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlotFormat {
    Svg,
    Png,
    /// A page for a browser
    Html,
}

/// Make a page for a browser: sessions, flows, their graphs, and why each sender waited
///
/// One HTML file that needs a browser and no network. Flows are searched and sorted; a flow opens to its time-sequence
/// graph, which zooms, pans and shows the sender's state at a packet, and to what the sender waited for, gap by gap.
/// docs/report.md says how to read it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tcpprobe report trace.db -o report.html
  tcpprobe report trace.db -o report.html --graphs 200         more flows with graphs, each of fewer points
  tcpprobe report trace.db -o report.html --flow 3 --flow 5    graphs of these")]
pub(crate) struct ReportArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// Output file, which must not exist; - is standard output
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// A flow with a graph, as `tcpprobe show` numbers them; may be repeated [default: those that sent most]
    #[arg(long = "flow", value_name = "N", conflicts_with = "graphs")]
    pub(crate) flows: Vec<i64>,
    /// How many flows have a graph; the others are listed
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=2000))]
    pub(crate) graphs: u16,
}

/// A range of an axis; `None`: open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) from: Option<f64>,
    pub(crate) to: Option<f64>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// /proc/net/tcpprobe
    Tcpprobe,
    /// Apache Parquet, with units and meanings
    Parquet,
    /// Comma-separated values
    Csv,
    /// An object a line
    Json,
    /// Time-sequence graphs as tcptrace's, with the congestion window
    Xplot,
    /// A joined capture with the state beside each packet, for Wireshark
    Pcapng,
}

/// The views that are exported whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Table {
    /// What was sampled
    Samples,
    /// Captured packets
    Packets,
    /// Captured packets with the state of their sender
    PacketState,
}

/// Print what this kernel and this user can do
///
/// Tries every way to attach to every probe point, with the buffers of a recording by default, and takes each back; opens
/// a capture and closes it. Nothing is recorded. Ends with a verdict, and with what to do where recording is not possible.
/// Without privileges it prints what can be known without them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 samples can be recorded, 1 they cannot; 2 usage.

Examples:
  sudo tcpprobe check
  tcpprobe check --format json | jq -r '.obstacles[].remedy'      docs/check.md has the keys")]
pub(crate) struct CheckArgs {
    /// Output
    #[arg(long, value_enum, default_value_t = CheckFormat::Table)]
    pub(crate) format: CheckFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// Text
    Table,
    /// One object
    Json,
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

/// Write man pages or shell completions, for packages and for yourself
///
/// Both follow from the definition of the command line that --help is from.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tcpprobe generate man -o /usr/local/share/man/man1
  tcpprobe generate bash > ~/.local/share/bash-completion/completions/tcpprobe
  tcpprobe generate zsh > \"${fpath[1]}/_tcpprobe\"
  tcpprobe generate fish > ~/.config/fish/completions/tcpprobe.fish")]
pub(crate) struct GenerateArgs {
    /// What
    pub(crate) what: Generated,
    /// Folder of the man pages, of which there is one for each command
    #[arg(short = 'o', long, value_name = "DIR", required_if_eq("what", "man"))]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Generated {
    /// tcpprobe.1, tcpprobe-record.1, …
    Man,
    Bash,
    Zsh,
    Fish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SampleMode {
    All,
    Cwnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendArg {
    Auto,
    Fentry,
    Kprobe,
    Tracepoint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    Json,
}

/// Default of --buffer, in bytes; its help says it as `DEFAULT_BUFFER`.
pub(crate) const DEFAULT_BUFFER_BYTES: u32 = 16 << 20;
const DEFAULT_BUFFER: &str = "16M";

fn ready_names() -> clap::builder::PossibleValuesParser {
    READY.map(|ready| ready.name).into()
}

fn host(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net.trunc(),
        Err(_) => text.parse::<std::net::IpAddr>().map(IpNet::from).map_err(|_| {
            "not an address or a prefix; give for instance 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32".to_owned()
        })?,
    };
    Ok(net)
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&p| p > 0).ok_or_else(|| "not a port; give a number from 1 to 65535".to_owned())
}

fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "not a mark; give a number such as 42 or 0x2a".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    // a bare number is seconds, as for tcpdump -G and sleep
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string());
    }
    humantime::parse_duration(text).map_err(|e| format!("{e}; give for instance 30s or 5min"))
}

fn start_ns(text: &str) -> Result<i64, String> {
    unix_time(text).ok_or_else(|| "not a time; give for instance 1700000000.5 or 2023-11-14T22:13:20Z".to_owned())
}

fn size(text: &str) -> Result<u32, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor: u64 = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err("unknown unit; give for instance 4M".to_owned()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    bytes
        .and_then(|b| u32::try_from(b).ok())
        .filter(|b| (64 << 10..=1 << 30).contains(b))
        .ok_or_else(|| "a size from 64K to 1G is needed".to_owned())
}

fn seconds_range(text: &str) -> Result<Range, String> {
    range(text, |t| t.parse().ok())
        .ok_or_else(|| "not a range of seconds; give for instance 1.2..1.5 or 3..".to_owned())
}

fn bytes_range(text: &str) -> Result<Range, String> {
    let bytes = |t: &str| {
        let (digits, factor) = match t.char_indices().last() {
            Some((at, 'k' | 'K')) => (&t[..at], 1e3),
            Some((at, 'M')) => (&t[..at], 1e6),
            Some((at, 'G')) => (&t[..at], 1e9),
            _ => (t, 1.0),
        };
        digits.parse::<f64>().ok().map(|n| n * factor)
    };
    range(text, bytes).ok_or_else(|| "not a range of bytes; give for instance 500k..1.5M or 3M..".to_owned())
}

fn range(text: &str, number: impl Fn(&str) -> Option<f64>) -> Option<Range> {
    let (from, to) = text.split_once("..")?;
    // as nanoseconds, what is larger would not fit
    let end = |t: &str| match t {
        "" => Some(None),
        t => number(t).filter(|n| n.abs() < 1e12).map(Some),
    };
    let range = Range { from: end(from)?, to: end(to)? };
    let ascends = range.from.zip(range.to).is_none_or(|(from, to)| from < to);
    (ascends && (range.from.is_some() || range.to.is_some())).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size(DEFAULT_BUFFER), Ok(DEFAULT_BUFFER_BYTES));
        assert_eq!(size("128KiB"), Ok(128 << 10));
        assert_eq!(size("65536"), Ok(65536));
        assert!(size("1").is_err() && size("2T").is_err() && size("99999999999999999999G").is_err());
    }

    #[test]
    fn hosts_and_marks() {
        assert_eq!(host("192.0.2.7/24").unwrap().to_string(), "192.0.2.0/24");
        assert_eq!(host("::1").unwrap().to_string(), "::1/128");
        assert!(host("example.org").is_err());
        assert_eq!(mark("0x2a"), Ok(42));
        assert!(mark("-1").is_err());
    }

    #[test]
    fn ranges() {
        let both = |from, to| Ok(Range { from, to });
        assert_eq!(seconds_range("1.5..2"), both(Some(1.5), Some(2.0)));
        assert_eq!(seconds_range("..2"), both(None, Some(2.0)));
        assert_eq!(bytes_range("500k..1.5M"), both(Some(5e5), Some(1.5e6)));
        assert_eq!(bytes_range("1G.."), both(Some(1e9), None));
        for bad in ["", "..", "2..1", "1..1", "a..b", "1", "nan..2", "1..inf", "1e300..", "é..1"] {
            assert!(seconds_range(bad).is_err() && bytes_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5min"), Ok(Duration::from_secs(300)));
        assert!(duration("-3").is_err() && duration("soon").is_err());
    }
}
