//! Commands that make something of a trace for other programs and for the eye: `export`, `plot`, `report`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::values::{bytes_range, seconds_range};

/// Write samples and packets in the format of another program
///
/// parquet, csv and json: all columns of a table, for DuckDB, pandas, polars and jq; docs/export.md says how each reads
/// them. pcapng: the packets of a joined capture, each with its sender's state as a comment, which
/// wireshark/tcpprobe.lua makes fields of. trace: with --anonymize, a trace and its captures that can be shared. xplot:
/// for each flow a graph of what its socket sent, drawn by xplot. tcpprobe: a line for each received segment, as
/// /proc/net/tcpprobe of the old kernel module had it, so that its scripts go on working.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tcpprobe export trace.db --to parquet -o columns             a folder: columns/packet_state/session_id=1/…
  tcpprobe export trace.db --to parquet --table samples -o samples.parquet
  tcpprobe export trace.db --to csv --table packet_state --flow 3 > packets.csv
  tcpprobe export trace.db --to xplot --flow 3 -o flow.xpl
  tcpprobe export trace.db --to tcpprobe --flow 3 > probe.log
  tcpprobe export trace.db --to tcpprobe --session 2 -o probe.log
  tcpprobe export trace.db --to pcapng -o annotated.pcapng
  tcpprobe export trace.db --to trace --anonymize -o shared    a folder: shared/trace.db, shared/trace.pcap, …")]
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
    /// Output, which must not exist: a file; of parquet, xplot and trace a folder, unless it ends in .parquet, .xpl or
    /// .db; - is standard output
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
    /// For pcapng: the capture's file, where it has moved since it was joined. For trace, may be repeated: the captures
    /// to copy [default: those that were joined or recorded along]
    #[arg(long = "pcap", value_name = "FILE")]
    pub(crate) pcaps: Vec<PathBuf>,
    /// For trace: rewrite IP addresses, and leave out what `record --anonymize` leaves out; joins too, as the new files
    /// can be joined
    #[arg(long)]
    pub(crate) anonymize: bool,
    /// Rewrite by the key in this file, 64 hexadecimal digits, so that it agrees with other exports and recordings;
    /// whoever has it can take the rewriting back [default: a random one that is not kept]
    #[arg(long, value_name = "FILE", requires = "anonymize")]
    pub(crate) anonymize_key: Option<PathBuf>,
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
    /// A trace with its captures, anonymous
    Trace,
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

/// A range of an axis; `None`: open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) from: Option<f64>,
    pub(crate) to: Option<f64>,
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
