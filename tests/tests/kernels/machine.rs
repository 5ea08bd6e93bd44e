//! Boots the machines, two at a time, and hands out what their runs have left. Owns the files' names, as scripts/vm
//! leaves them; must not know what a run is about.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rusqlite::{Connection, OpenFlags};

use tcpprobe_tests::tools;

/// As scripts/vm.sh names them.
pub(crate) const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "newest"];
/// Each emulates one processor; there are seldom more than two real ones.
const AT_ONCE: usize = 2;
/// scripts/vm.sh lets a machine run for a quarter of an hour, and may have to fetch and to build.
const BOOT_LIMIT: Duration = Duration::from_secs(1500);
/// A join, a check.
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// What scripts/vm.sh ends with where something that it needs is not here.
const LACKING: i32 = 3;

/// How a machine ended.
#[derive(Clone, Debug)]
enum Ended {
    /// All of its runs are over.
    Well,
    /// It could not be started.
    Lacking(String),
    /// It broke off.
    Badly(String),
}

/// The machines of this test program.
#[derive(Clone)]
pub(crate) struct Machines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Kernels whose machines are still to be started, each with its runs; the last one first.
    waiting: Vec<(&'static str, Vec<&'static str>)>,
    started: bool,
    ended: Vec<(&'static str, Ended)>,
}

impl Machines {
    pub(crate) fn new(runs: [(&'static str, Vec<&'static str>); KERNELS.len()]) -> Machines {
        let waiting = runs.into_iter().rev().filter(|(_, runs)| !runs.is_empty()).collect();
        let state = Mutex::new(State { waiting, started: false, ended: Vec::new() });
        Machines(Arc::new(Shared { state, changed: Condvar::new() }))
    }

    /// Waits for a kernel's machine. The outer error is the reason why there is nothing to judge.
    pub(crate) fn run(&self, kernel: &'static str, name: &str) -> Result<Result<Run>, String> {
        let ended = match self.ended(kernel) {
            Ok(ended) => ended,
            Err(error) => return Ok(Err(error)),
        };
        match ended {
            Ended::Lacking(reason) => return Err(reason),
            Ended::Badly(said) => return Ok(Err(anyhow::anyhow!("the machine did not get to its end: {said}"))),
            Ended::Well => {}
        }
        let folder = machines_folder().join(kernel).join(name);
        match std::fs::read_to_string(folder.join("lacking.txt")) {
            Ok(reason) => Err(reason.trim().to_owned()),
            Err(_) => Ok(Run::open(kernel, folder)),
        }
    }

    fn ended(&self, kernel: &str) -> Result<Ended> {
        let lock = || self.0.state.lock().map_err(|_| anyhow::anyhow!("another trial broke off"));
        let mut state = lock()?;
        if !state.started {
            state.started = true;
            for _ in 0..AT_ONCE {
                let machines = self.clone();
                thread::spawn(move || machines.work());
            }
        }
        loop {
            if let Some((_, ended)) = state.ended.iter().find(|(k, _)| *k == kernel) {
                return Ok(ended.clone());
            }
            state = self.0.changed.wait(state).map_err(|_| anyhow::anyhow!("another trial broke off"))?;
        }
    }

    /// Starts one machine after the other.
    fn work(&self) {
        loop {
            let Ok(mut state) = self.0.state.lock() else { return };
            let Some((kernel, runs)) = state.waiting.pop() else { return };
            drop(state);
            let ended = boot(kernel, &runs).unwrap_or_else(|error| Ended::Badly(format!("{error:#}")));
            let Ok(mut state) = self.0.state.lock() else { return };
            state.ended.push((kernel, ended));
            self.0.changed.notify_all();
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn machines_folder() -> PathBuf {
    root().join("target/vm")
}

fn boot(kernel: &str, runs: &[&str]) -> Result<Ended> {
    if std::env::var_os("TCPPROBE_TEST_JUDGE").is_some_and(|only| only == "1") {
        return Ok(Ended::Well);
    }
    let mut command = Command::new(root().join("scripts/vm.sh"));
    command.arg(kernel).env("VM_RUNS", runs.join(" ")).env("VM_OUT", machines_folder());
    let finished = tools::run(&mut command, BOOT_LIMIT)?;
    let last = finished.stderr.lines().rfind(|l| l.starts_with("vm: ")).unwrap_or_default().to_owned();
    Ok(match finished.status.code() {
        Some(0) => Ended::Well,
        Some(LACKING) => Ended::Lacking(format!("no machine with Linux {kernel}: {last}")),
        _ => Ended::Badly(finished.stderr),
    })
}

/// What a run has left.
pub(crate) struct Run {
    /// The kernel, as scripts/vm.sh names it.
    pub(crate) kernel: &'static str,
    pub(crate) folder: PathBuf,
}

impl Run {
    fn open(kernel: &'static str, folder: PathBuf) -> Result<Run> {
        ensure!(folder.is_dir(), "{} is not there: the run has left nothing", folder.display());
        Ok(Run { kernel, folder })
    }

    /// The kernel's own release, in numbers: 5.10, 7.3.
    pub(crate) fn release(&self) -> Result<(u32, u32)> {
        let release = std::fs::read_to_string(machines_folder().join(self.kernel).join("release"))?;
        let mut numbers = release.split(['.', '-']).map(|n| n.trim().parse().unwrap_or(0));
        Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
    }

    /// The text of one of its files, without the end of its last line.
    pub(crate) fn text(&self, file: &str) -> Result<String> {
        let path = self.folder.join(file);
        Ok(std::fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim_end().to_owned())
    }

    /// The command that recorded must have ended well.
    pub(crate) fn recorded_well(&self) -> Result<()> {
        let (status, said) = (self.text("status")?, self.text("record.txt")?);
        ensure!(status == "0", "the recording ended with {status}:\n{said}");
        Ok(())
    }

    /// Frames that the queue of the sender's interface has dropped: netem's losses.
    pub(crate) fn dropped(&self) -> Result<i64> {
        let said = self.text("qdisc.txt")?;
        let after = said.split("(dropped ").nth(1).and_then(|s| s.split(',').next());
        after.and_then(|n| n.parse().ok()).with_context(|| format!("no `dropped` in {said}"))
    }

    /// Joins the run's capture to a copy of one of its traces; verifies it, and has `check_join` look at it.
    pub(crate) fn joined(&self, trace: &str, check: &[&str]) -> Result<Connection> {
        let copy = self.folder.join(format!("judged-{trace}"));
        std::fs::copy(self.folder.join(trace), &copy)?;
        let capture = self.folder.join("trace.pcap");
        let tcpprobe = || Ok::<_, anyhow::Error>(Command::new(tools::tcpprobe()?));
        tools::run(tcpprobe()?.arg("join").arg(&copy).arg(&capture), STEP_LIMIT)?.expect_code(0)?;
        let verified = tools::run(tcpprobe()?.arg("verify").arg(&copy), STEP_LIMIT)?;
        verified.expect_code(0).context("tcpprobe verify finds the trace wrong")?;
        let mut python = Command::new("python3");
        let checked = tools::run(python.arg(tools::check_join()).arg(&copy).arg(&capture).args(check), STEP_LIMIT)?;
        if checked.status.code() != Some(0) {
            bail!("check_join finds the join wrong: {}\n{}{}", checked.status, checked.stdout, checked.stderr);
        }
        let db = Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Ok(db)
    }
}

/// The one integer that a query returns.
pub(crate) fn number(db: &Connection, sql: &str) -> Result<i64> {
    db.query_row(sql, [], |row| row.get(0)).with_context(|| sql.to_owned())
}
