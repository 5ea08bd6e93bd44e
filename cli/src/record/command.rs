//! A command that is to be recorded: its process is there before anything is open, and waits to become the command.
//!
//! For once it records, this process may not execute anything, and has nothing left that it could be the caller with. So
//! the process of the command is started first, as this very program under the name of [`NAME`]; it makes itself the
//! caller's, and executes the command when it is told to.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode};

use anyhow::{Context as _, bail};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::{AccessFlags, access, close, pipe2};

use crate::Outcome;
use crate::privilege::{Caller, be_the_caller};

/// The first of the arguments with which this program waits to become a command. Behind it, the descriptor of the pipe
/// through which it is told, and the command.
pub(crate) const NAME: &str = "tcpprobe: waits to execute a command";

/// A process that waits. Dropped, it ends without having executed anything.
pub(crate) struct Waiting {
    child: Child,
    tell: File,
}

impl Waiting {
    /// Starts it; to be called before anything is open that the command must not have.
    pub(crate) fn start(command: &[OsString]) -> anyhow::Result<Option<Waiting>> {
        let Some(program) = command.first() else { return Ok(None) };
        let start = || -> std::io::Result<Waiting> {
            let (told, tell) = pipe2(OFlag::O_CLOEXEC)?;
            // for this one program, which closes it
            fcntl(&told, FcntlArg::F_SETFD(FdFlag::empty()))?;
            let mut waiting = Command::new("/proc/self/exe");
            waiting.arg0(NAME).arg(told.as_raw_fd().to_string()).args(command);
            Ok(Waiting { child: waiting.spawn()?, tell: tell.into() })
        };
        start().map(Some).with_context(|| cannot_start(program))
    }

    /// The process that becomes the command.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has it execute the command. What comes of that is for its end to tell.
    pub(crate) fn go(mut self) -> Child {
        // one that has been ended meanwhile has nothing to be told
        let _ = self.tell.write_all(&[1]);
        self.child
    }
}

/// Can this user execute a program, as far as can be known before?
///
/// # Errors
/// There is none of that name, or it cannot be executed.
pub(crate) fn look_for(program: &OsStr) -> anyhow::Result<()> {
    let executable = |path: &Path| access(path, AccessFlags::X_OK);
    if program.as_bytes().contains(&b'/') {
        return executable(Path::new(program)).with_context(|| cannot_start(program));
    }
    // where there is no PATH, the C library has one
    let Some(path) = std::env::var_os("PATH") else { return Ok(()) };
    if !std::env::split_paths(&path).any(|folder| executable(&folder.join(program)).is_ok()) {
        bail!("{}: no such program in PATH", cannot_start(program));
    }
    Ok(())
}

fn cannot_start(program: &OsStr) -> String {
    format!("cannot start {}", program.to_string_lossy())
}

/// What this program does under the name of [`NAME`]: waits, and becomes the command.
pub(crate) fn wait_and_execute(mut arguments: impl Iterator<Item = OsString>) -> Outcome {
    let told: Option<RawFd> = arguments.next().and_then(|fd| fd.to_str()?.parse().ok());
    let (Some(told), Some(program)) = (told, arguments.next()) else { bail!("no command to wait for") };
    // while it is this user's pipe still
    let mut pipe = File::open(format!("/proc/self/fd/{told}")).context("cannot wait to be told")?;
    close(told).context("cannot wait to be told")?;
    be_the_caller(Caller::behind_sudo())?;
    let mut word = [0];
    // nothing: the recording did not begin
    if pipe.read(&mut word).context("cannot wait to be told")? == 0 {
        return Ok(ExitCode::FAILURE);
    }
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| cannot_start(&program))
}
