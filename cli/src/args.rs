//! The command line: every command, its options, and the help that goes with them.

mod outputs;
mod sampling;
mod traces;
mod values;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use outputs::{ExportArgs, ExportFormat, PlotArgs, PlotFormat, Range, ReportArgs, Table};
pub(crate) use sampling::{
    BackendArg, CheckArgs, CheckFormat, DEFAULT_BUFFER_BYTES, LiveArgs, RecordArgs, SampleMode, SocketArgs, Sort,
};
pub(crate) use traces::{Format, ImportArgs, JoinArgs, LogFormat, ShowArgs, SqlArgs, VerifyArgs, VerifyFormat};

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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }
}
