//! Runs programs with their output captured and a limit to their time, and waits for what they say.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The `tcpprobe` under test: `TCPPROBE_BIN`, or the one that was built together with this test.
pub fn tcpprobe() -> Result<PathBuf> {
    match std::env::var_os("TCPPROBE_BIN") {
        Some(path) => Ok(path.into()),
        None => built_program("tcpprobe"),
    }
}

/// The traffic generator of the fixtures.
pub fn traffic() -> Result<PathBuf> {
    built_program("traffic")
}

/// The program that checks a join on its own terms.
pub fn check_join() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("check_join")
}

/// A program of this workspace. `cargo test --workspace` builds it as `target/PROFILE/NAME`, two folders above this
/// test's own `target/PROFILE/deps/TEST`; cargo tells its path to no other package's tests.
fn built_program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("this test has no target folder")?;
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is not built: run `cargo test --workspace`, or `cargo build --workspace` first", path.display());
    }
    Ok(path)
}

/// What a program left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Finished {
    /// This result, or an error with all that the program said when its exit code is not `code`.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        if self.status.code() != Some(code) {
            bail!("ended with {}, not exit code {code}\n{}{}", self.status, self.stdout, self.stderr);
        }
        Ok(self)
    }
}

/// Runs a program to its end, or kills it after `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    Running::start(command)?.wait(limit)
}

/// A program that runs. Dropped before its end, it is killed.
#[derive(Debug)]
pub struct Running {
    name: String,
    pid: Pid,
    output: Receiver<Event>,
    stdout: String,
    stderr: String,
    status: Option<ExitStatus>,
    /// Of the two output pipes, those still open.
    open: usize,
}

#[derive(Debug)]
enum Event {
    Stdout(String),
    Stderr(String),
    Closed,
    Ended(std::io::Result<ExitStatus>),
}

impl Running {
    /// Starts a program with no standard input.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| name.clone())?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let (events, output) = channel();
        if let Some(pipe) = child.stdout.take() {
            read_lines(pipe, Event::Stdout, events.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            read_lines(pipe, Event::Stderr, events.clone());
        }
        await_end(child, events);
        Ok(Self { name, pid, output, stdout: String::new(), stderr: String::new(), status: None, open: 2 })
    }

    /// The process, for signals and `/proc`.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until a line of standard error starts with `start`, and returns it.
    pub fn wait_for_stderr(&mut self, start: &str, limit: Duration) -> Result<String> {
        self.wait_for(start, limit, |running| &running.stderr)
    }

    /// Waits until a line of standard output starts with `start`, and returns it.
    pub fn wait_for_stdout(&mut self, start: &str, limit: Duration) -> Result<String> {
        self.wait_for(start, limit, |running| &running.stdout)
    }

    fn wait_for(&mut self, start: &str, limit: Duration, text: impl Fn(&Self) -> &str) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(line) = text(self).lines().find(|line| line.starts_with(start)) {
                return Ok(line.into());
            }
            if self.is_over() {
                bail!("{}: ended without saying `{start}`\n{}{}", self.name, self.stdout, self.stderr);
            }
            if !self.next_event(deadline)? {
                bail!("{}: no `{start}` within {limit:?}\n{}{}", self.name, self.stdout, self.stderr);
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Waits for the end, and for the ends of its output; kills the program after `limit`.
    pub fn wait(mut self, limit: Duration) -> Result<Finished> {
        let deadline = Instant::now() + limit;
        while !self.is_over() {
            if !self.next_event(deadline)? {
                bail!("{}: still running after {limit:?}\n{}{}", self.name, self.stdout, self.stderr);
            }
        }
        let status = self.status.context("no exit status")?;
        Ok(Finished { status, stdout: std::mem::take(&mut self.stdout), stderr: std::mem::take(&mut self.stderr) })
    }

    /// Sends a signal and waits for the end.
    pub fn stop(self, signal: Signal, limit: Duration) -> Result<Finished> {
        self.signal(signal)?;
        self.wait(limit)
    }

    fn is_over(&self) -> bool {
        self.status.is_some() && self.open == 0
    }

    /// Takes in the next event; false when there was none in time.
    fn next_event(&mut self, deadline: Instant) -> Result<bool> {
        match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Stdout(line)) => self.stdout.push_str(&line),
            Ok(Event::Stderr(line)) => self.stderr.push_str(&line),
            Ok(Event::Closed) => self.open -= 1,
            Ok(Event::Ended(status)) => self.status = Some(status?),
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => bail!("{}: its output is lost", self.name),
        }
        Ok(true)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() && kill(self.pid, Signal::SIGKILL).is_ok() {
            // Its namespace may be removed next: wait until it is gone.
            let deadline = Instant::now() + Duration::from_secs(10);
            while self.status.is_none() && self.next_event(deadline).unwrap_or(false) {}
        }
    }
}

fn read_lines(pipe: impl Read + Send + 'static, event: fn(String) -> Event, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // Not `lines()`: output that is not UTF-8, or does not end in a newline, is shown too.
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let _ = events.send(event(String::from_utf8_lossy(&line).into_owned()));
            line.clear();
        }
        let _ = events.send(Event::Closed);
    });
}

fn await_end(mut child: Child, events: Sender<Event>) {
    std::thread::spawn(move || {
        let status = child.wait();
        let _ = events.send(Event::Ended(status));
    });
}
