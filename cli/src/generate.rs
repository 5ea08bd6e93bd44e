//! `tcpprobe generate`: man pages and shell completions, from the definition of the command line.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::Outcome;
use crate::args::{Args, GenerateArgs, Generated};
use crate::output::standard;

const NAME: &str = "tcpprobe";

pub(crate) fn run(args: &GenerateArgs) -> Outcome {
    let shell = match (args.what, &args.output) {
        (Generated::Man, Some(folder)) => return man(folder),
        (Generated::Bash, _) => Shell::Bash,
        (Generated::Zsh, _) => Shell::Zsh,
        (Generated::Fish, _) => Shell::Fish,
        (Generated::Man, None) => anyhow::bail!("no folder for the man pages; name one with -o"),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), NAME, &mut script);
    let mut out = standard();
    out.write_all(&script)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A page for each command.
fn man(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(Args::command().disable_help_subcommand(true), folder)
        .with_context(|| format!("cannot write man pages into {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
