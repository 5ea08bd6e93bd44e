//! What ends a recording: a signal, the time, the end of a command, or a part of it that broke.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::command::Waiting;

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

/// Catches signals from its making on.
pub(crate) struct Ends {
    signals: Signals,
    events: Receiver<Event>,
    sender: Sender<Event>,
}

impl Ends {
    /// Starts catching. No thread begins here: those that there are would keep what this one gives up.
    pub(crate) fn catch() -> anyhow::Result<Ends> {
        let (sender, events) = unbounded();
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
        Ok(Ends { signals, events, sender })
    }

    /// Has the command run, if there is one, and waits for whatever comes first.
    pub(crate) fn wait(
        mut self,
        limit: Option<Duration>,
        command: Option<Waiting>,
        mut by_itself: impl FnMut() -> Option<End>,
    ) -> anyhow::Result<End> {
        let deadline = limit.map(|d| Instant::now() + d);
        let to = self.sender.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in self.signals.forever() {
                if to.send(Event::Signal(signal)).is_err() {
                    break;
                }
            }
        })?;
        let child_pid = command.as_ref().map(Waiting::id);
        if let Some(command) = command {
            let to = self.sender.clone();
            std::thread::Builder::new().name("command".into()).spawn(move || {
                let _ = to.send(Event::Child(command.go().wait()));
            })?;
        }
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
