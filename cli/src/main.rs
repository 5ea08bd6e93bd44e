//! The `tcpprobe` command.
//!
//! Owns arguments, signals, progress, wording and exit codes. Must not know how anything works: recording is in
//! `tcpprobe-probes`, the file in `tcpprobe-trace`, captures and the join in `tcpprobe-replay`, pictures in
//! `tcpprobe-view`.

mod args;
mod check;
mod confine;
mod export;
mod generate;
mod import;
mod join;
mod key;
mod live;
mod output;
mod plot;
mod privilege;
mod progress;
mod record;
mod report;
mod show;
mod sockets;
mod sql;
mod verify;
mod words;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

use args::{Args, Command};

/// What a command may end with besides success: the code that the shell sees.
pub(crate) type Outcome = anyhow::Result<ExitCode>;

fn main() -> ExitCode {
    // at a limit of file sizes (RLIMIT_FSIZE) a write is to fail like on a full disk, and not to end the process; a
    // handler, since a command that is started would inherit that the signal is ignored
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    let mut arguments = std::env::args_os();
    let outcome = match arguments.next() {
        Some(name) if name == record::command::NAME => record::command::wait_and_execute(arguments),
        _ => run(Args::parse().command),
    };
    outcome.unwrap_or_else(|error| {
        // `tcpprobe show … | head` is no error
        if words::is_broken_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        words::error(&error);
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Record(a) => record::run(&a),
        Command::Live(a) => live::run(&a),
        Command::Join(a) => join::run(&a),
        Command::Sql(a) => sql::run(&a),
        Command::Show(a) => show::run(&a),
        Command::Import(a) => import::run(&a),
        Command::Export(a) => export::run(&a),
        Command::Plot(a) => plot::run(&a),
        Command::Report(a) => report::run(&a),
        Command::Verify(a) => verify::run(&a),
        Command::Check(a) => check::run(&a),
        Command::Generate(a) => generate::run(&a),
    }
}
