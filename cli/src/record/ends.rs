//! What ends a recording: a signal, the time, the end of a command, or a part of it that broke.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Why a recording ended.
pub(crate) enum End {
    /// Ctrl-C, SIGTERM or SIGHUP.
    Signal,
    /// `--duration` is over.
    Duration,
    /// The command ended, with this code.
    Child(ExitCode),
    /// A thread of the recording stopped by itself.
    Broken,
    /// A file of it was removed.
    Removed(PathBuf),
    /// No one reads what is printed any more.
    Unread,
}

enum Event {
    Signal(i32),
    Child(std::io::Result<std::process::ExitStatus>),
}

/// Watches for signals from its making on.
pub(crate) struct Ends {
    events: Receiver<Event>,
    sender: Sender<Event>,
}

impl Ends {
    /// Starts watching.
    pub(crate) fn watch() -> anyhow::Result<Ends> {
        let (sender, events) = unbounded();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
        let to = sender.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                if to.send(Event::Signal(signal)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Ends { events, sender })
    }

    /// Runs the command, if there is one, and waits for whatever comes first.
    pub(crate) fn wait(
        &self,
        limit: Option<Duration>,
        command: &[OsString],
        mut by_itself: impl FnMut() -> Option<End>,
    ) -> anyhow::Result<End> {
        let deadline = limit.map(|d| Instant::now() + d);
        let child_pid = match command.split_first() {
            Some((program, arguments)) => Some(self.spawn(program, arguments)?),
            None => None,
        };
        let mut interrupted = false;
        loop {
            match by_itself() {
                Some(End::Unread) => {
                    terminate(child_pid);
                    return Ok(End::Unread);
                }
                Some(end) => return Ok(end),
                None => {}
            }
            // by_itself() is asked at least this often
            let step = Duration::from_millis(200);
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                terminate(child_pid);
                return Ok(End::Duration);
            }
            match self.events.recv_timeout(left.map_or(step, |l| l.min(step))) {
                Ok(Event::Signal(signal)) => {
                    // the terminal tells the command of Ctrl-C too; a signal from elsewhere must be passed on
                    if child_pid.is_none() || signal != SIGINT || interrupted {
                        terminate(child_pid);
                        return Ok(End::Signal);
                    }
                    // a command that does not end by the first Ctrl-C does by the second
                    interrupted = true;
                }
                Ok(Event::Child(status)) => {
                    let status = status.context("cannot wait for the command")?;
                    return Ok(End::Child(exit_code(status)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Signal),
            }
        }
    }

    fn spawn(&self, program: &OsString, arguments: &[OsString]) -> anyhow::Result<u32> {
        let mut child: Child = Command::new(program)
            .args(arguments)
            .spawn()
            .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
        let pid = child.id();
        let to = self.sender.clone();
        std::thread::Builder::new().name("command".into()).spawn(move || {
            let _ = to.send(Event::Child(child.wait()));
        })?;
        Ok(pid)
    }
}

fn terminate(child_pid: Option<u32>) {
    if let Some(pid) = child_pid.and_then(|p| i32::try_from(p).ok()) {
        // it may be gone already
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
}

/// The command's code as a shell gives it: 128 + n where signal n ended it.
fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
