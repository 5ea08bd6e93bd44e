//! Commands that ask the kernel: `record`, `live`, `check`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use ipnet::IpNet;

use super::values::{duration, host, mark, port, size};

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

/// Default of --buffer, in bytes; its help says it as `DEFAULT_BUFFER`.
pub(crate) const DEFAULT_BUFFER_BYTES: u32 = 16 << 20;

pub(super) const DEFAULT_BUFFER: &str = "16M";
