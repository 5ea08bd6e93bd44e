//! `tcpprobe check`: words for what this kernel and this user can do.
//!
//! Owns the verdict on recording as a whole, samples and packets. Must not try anything itself: probes and replay do.

mod json;
mod text;
mod words;

use std::io::Write as _;
use std::process::ExitCode;

use tcpprobe_probes::{Obstacle, Survey, Verdict, survey};
use tcpprobe_replay::live;

use crate::Outcome;
use crate::args::{CheckArgs, CheckFormat, DEFAULT_BUFFER_BYTES};
use crate::output::standard;
use crate::sockets::MAX_FLOWS;

pub(crate) fn run(args: &CheckArgs) -> Outcome {
    let found = Found {
        survey: survey(DEFAULT_BUFFER_BYTES, MAX_FLOWS),
        libpcap: live::libpcap_version(),
        capture: live::try_device("any", DEFAULT_BUFFER_BYTES).map_err(|e| e.to_string()),
        binary: std::env::current_exe().map_or_else(|_| "tcpprobe".to_owned(), |p| p.display().to_string()),
    };
    let mut out = standard();
    match args.format {
        CheckFormat::Table => text::print(&found, &mut out)?,
        CheckFormat::Json => {
            serde_json::to_writer_pretty(&mut out, &json::report(&found))?;
            writeln!(out)?;
        }
    }
    Ok(if found.obstacles().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All that was found out.
struct Found {
    survey: Survey,
    /// libpcap's version.
    libpcap: Option<String>,
    /// Whether a capture can be opened, or why not.
    capture: Result<(), String>,
    /// Path of this program, for commands that are to be typed.
    binary: String,
}

impl Found {
    /// What stands in the way of recording samples; never empty where that is impossible.
    fn obstacles(&self) -> &[Obstacle] {
        match &self.survey.verdict {
            Verdict::Impossible { obstacles } => obstacles,
            Verdict::Possible { .. } => &[],
        }
    }

    /// `full`, `partial` or `impossible`.
    fn verdict(&self) -> &'static str {
        match &self.survey.verdict {
            Verdict::Possible { unwatched } if unwatched.is_empty() && self.capture.is_ok() => "full",
            Verdict::Possible { .. } => "partial",
            Verdict::Impossible { .. } => "impossible",
        }
    }
}

#[cfg(test)]
mod tests;
