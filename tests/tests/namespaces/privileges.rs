//! What a recorder still may, seen from outside; whose its files are; and what the command has that it runs.

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;

use tcpprobe_replay::capture::Capture;
use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene};
use tcpprobe_tests::tools::{self, Running};

use crate::expect::{expect_number, expect_sound};
use crate::live::{self, Terminal};

/// nobody, who is on every system.
const USER: u32 = 65_534;
const NO_CAPABILITIES: &str = "0000000000000000";
/// The sets of a thread. The last one gives nothing, and only who is root can empty it.
const CAPABILITIES: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"];

/// A recording as sudo begins one for [`USER`], whose folder it is.
fn with_sudo(scene: &Scene, arguments: &[&str]) -> Result<Command> {
    chown(scene.file(""), Some(USER), Some(USER))?;
    let mut command = scene.record_command(Ns::A, arguments)?;
    command.env("SUDO_UID", USER.to_string()).env("SUDO_GID", USER.to_string());
    Ok(command)
}

/// One as root begins it that did not become root by sudo.
fn as_root(scene: &Scene, arguments: &[&str]) -> Result<Command> {
    chown(scene.file(""), Some(0), Some(0))?;
    let mut command = scene.record_command(Ns::A, arguments)?;
    command.env_remove("SUDO_UID").env_remove("SUDO_GID");
    Ok(command)
}

/// One as a user begins it who has a program with capabilities of its own.
fn with_file_capabilities(scene: &Scene, arguments: &[&str]) -> Result<Command> {
    chown(scene.file(""), Some(USER), Some(USER))?;
    let program = scene.file("tcpprobe");
    std::fs::copy(tools::tcpprobe()?, &program).context("a copy of the program")?;
    let capabilities = "cap_bpf,cap_perfmon,cap_net_raw+ep";
    tools::run(Command::new("setcap").arg(capabilities).arg(&program), STEP_LIMIT)?.expect_code(0)?;
    let mut command = scene.lab.command(Ns::A, "setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    command.args(["record", "-w"]).arg(scene.trace()).args(["--port", &scene.port.to_string()]).args(arguments);
    Ok(command)
}

/// setcap and setpriv, if one is missing.
pub(crate) fn missing() -> Option<String> {
    tcpprobe_tests::preconditions::missing_program(&["setcap", "setpriv"])
}

/// The fields of a `status` file of /proc.
fn fields(status: &str) -> HashMap<&str, &str> {
    status.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
}

/// Have a process and every thread of it given up these sets and everything else, and are they this user's?
fn expect_given_up(pid: Pid, user: u32, sets: &[&str], least_threads: usize) -> Result<()> {
    let mut threads = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        let fields = fields(&status);
        let all_four = [user.to_string().as_str(); 4].join("\t");
        ensure!(fields["Uid"] == all_four && fields["Gid"] == all_four, "{status}");
        for &set in sets {
            ensure!(fields[set] == NO_CAPABILITIES, "{set} of {status}");
        }
        ensure!(fields["NoNewPrivs"] == "1", "{status}");
        ensure!(fields["Seccomp"] == "2", "no filter of system calls: {status}");
        ensure!(user == 0 || !fields["Groups"].split(' ').any(|g| g == "0"), "root's group: {status}");
        threads += 1;
    }
    ensure!(threads >= least_threads, "{threads} threads");
    Ok(())
}

/// Is every file of a recording this user's, and for no one else?
fn expect_own_files(scene: &Scene, names: &[&str], user: u32) -> Result<()> {
    for name in names {
        let metadata = std::fs::metadata(scene.file(name)).with_context(|| (*name).to_owned())?;
        let mode = metadata.permissions().mode() & 0o777;
        ensure!((metadata.uid(), mode) == (user, 0o600), "{name}: of user {}, mode {mode:o}", metadata.uid());
    }
    Ok(())
}

/// Records a transfer, and looks at the recorder meanwhile.
fn record(scene: &Scene, command: &mut Command, user: u32, sets: &[&str]) -> Result<()> {
    let mut recorder = Running::start(command)?;
    recorder.wait_for_stderr("recording", STEP_LIMIT)?;
    expect_own_files(scene, &["trace.db", "trace.db-wal", "trace.db-shm", "trace.pcap"], user)?;
    scene.send(scene.transfer(300_000))?;
    // the main one, the drain, the writer, the capture, the signals
    expect_given_up(recorder.pid(), user, sets, 5)?;
    let said = Scene::stop(recorder)?.stderr;
    ensure!(!said.contains("not confined"), "{said}");
    expect_sound(scene, 1)?;
    expect_own_files(scene, &["trace.db", "trace.pcap"], user)?;
    ensure!(!scene.file("trace.db-wal").exists() && !scene.file("trace.db-backlog").exists(), "files are left");
    expect_no_payload(scene)?;
    scene.join(&scene.capture()).map(drop)
}

/// Unless more is asked for, a capture has headers: of LINUX_SLL2 (20 bytes), IPv4 (20), and TCP with its options (60).
fn expect_no_payload(scene: &Scene) -> Result<()> {
    let mut capture = Capture::open(&scene.capture())?;
    let mut with_payload = 0;
    while let Some(frame) = capture.next_frame()? {
        ensure!(frame.data.len() <= 100, "frame {} has {} bytes", frame.number, frame.data.len());
        with_payload += u32::from(frame.orig_len > 1000);
    }
    ensure!(with_payload > 10, "{with_payload} frames had a payload");
    Ok(())
}

/// Are the programs' costs there, which are read at the very end?
fn expect_costs(scene: &Scene) -> Result<()> {
    expect_number(scene, 1, "SELECT count(*) > 2 AND min(runs) > 0 FROM probe_costs")
}

pub(crate) fn given_up_with_sudo(scene: &Scene) -> Result<()> {
    record(scene, &mut with_sudo(scene, &[])?, USER, &CAPABILITIES)?;
    expect_costs(scene)
}

pub(crate) fn given_up_by_root(scene: &Scene) -> Result<()> {
    record(scene, &mut as_root(scene, &[])?, 0, &CAPABILITIES)?;
    expect_costs(scene)
}

pub(crate) fn given_up_with_file_capabilities(scene: &Scene) -> Result<()> {
    record(scene, &mut with_file_capabilities(scene, &[])?, USER, &CAPABILITIES[..4])
}

/// `live` sees a flow that begins when it has given up everything.
fn expect_live_given_up(scene: &Scene, environment: &str, user: u32) -> Result<()> {
    let file = scene.file("pid");
    let command = format!("echo $$ > {}; exec env {environment} {}", file.display(), live::command(scene)?);
    let terminal = Terminal::start(scene, &format!("sh -c '{command}'"))?;
    terminal.wait_for(&["0 flows by rate"])?;
    let pid = Pid::from_raw(std::fs::read_to_string(&file)?.trim().parse()?);
    let traffic = live::endless(scene)?;
    terminal.wait_for(&["1 flow by rate", "Mbit/s"])?;
    // the main one, and the one that reads the terminal
    expect_given_up(pid, user, &CAPABILITIES, 2)?;
    terminal.press("q")?;
    let screen = terminal.wait_for(&["exit code 0"])?;
    // what is said before the first picture stands there again
    ensure!(!screen.contains("not confined"), "{screen}");
    drop(traffic);
    Ok(())
}

pub(crate) fn given_up_by_live_with_sudo(scene: &Scene) -> Result<()> {
    expect_live_given_up(scene, &format!("SUDO_UID={USER} SUDO_GID={USER}"), USER)
}

pub(crate) fn given_up_by_live_of_root(scene: &Scene) -> Result<()> {
    expect_live_given_up(scene, "-u SUDO_UID -u SUDO_GID", 0)
}

/// More than what is written at once: the backlog is made, and taken away, when nothing else can be any more.
pub(crate) fn backlog_after_giving_up(scene: &Scene) -> Result<()> {
    let mut recorder = Running::start(&mut with_sudo(scene, &["--no-pcap"])?)?;
    recorder.wait_for_stderr("recording", STEP_LIMIT)?;
    let transfer = scene.transfer(u64::MAX);
    let server = scene.serve(&transfer)?;
    let client = Running::start(&mut scene.client(&transfer)?)?;
    let deadline = std::time::Instant::now() + STEP_LIMIT;
    while !scene.file("trace.db-backlog").exists() {
        ensure!(std::time::Instant::now() < deadline, "nothing waits to be written");
        std::thread::sleep(Duration::from_millis(20));
    }
    expect_own_files(scene, &["trace.db-backlog"], USER)?;
    drop((client, server));
    Scene::stop(recorder)?;
    ensure!(!scene.file("trace.db-backlog").exists(), "the backlog is there still");
    expect_number(scene, 1, "SELECT complete FROM sessions")
}

/// What a command sees of itself: user, capabilities, open files.
const LOOK: [&str; 4] = ["--", "sh", "-c", "cat /proc/self/status; ls /proc/self/fd"];

/// Has a command what the caller has, and no more?
fn expect_of_command(command: &mut Command, user: u32, capabilities: &str) -> Result<()> {
    let finished = tools::run(command, STEP_LIMIT)?.expect_code(0)?;
    let fields = fields(&finished.stdout);
    ensure!(fields["Uid"].split('\t').all(|uid| uid == user.to_string()), "{}", finished.stdout);
    ensure!(fields["CapEff"] == capabilities && fields["CapPrm"] == capabilities, "{}", finished.stdout);
    // a command may become root as it could without being recorded
    ensure!(fields["NoNewPrivs"] == "0" && fields["Seccomp"] == "0", "{}", finished.stdout);
    // ls itself opens the folder
    let open: Vec<u32> = finished.stdout.lines().filter_map(|line| line.parse().ok()).collect();
    let own: Vec<u32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let foreign: Vec<_> = open.iter().filter(|fd| **fd > 3 && !own.contains(fd)).collect();
    ensure!(foreign.is_empty(), "descriptors {foreign:?} of the recorder are the command's too");
    Ok(())
}

pub(crate) fn command_with_sudo(scene: &Scene) -> Result<()> {
    expect_of_command(&mut with_sudo(scene, &LOOK)?, USER, NO_CAPABILITIES)
}

pub(crate) fn command_of_root(scene: &Scene) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    expect_of_command(&mut as_root(scene, &LOOK)?, 0, fields(&status)["CapEff"])
}

pub(crate) fn command_with_file_capabilities(scene: &Scene) -> Result<()> {
    expect_of_command(&mut with_file_capabilities(scene, &LOOK)?, USER, NO_CAPABILITIES)
}

pub(crate) fn command_that_is_not_there(scene: &Scene) -> Result<()> {
    let mut command = as_root(scene, &["--", "no-such-program"])?;
    let said = tools::run(&mut command, STEP_LIMIT)?.expect_code(1)?.stderr;
    ensure!(said.contains("cannot start no-such-program"), "{said}");
    ensure!(!scene.trace().exists() && !scene.capture().exists(), "a recording that did not begin has files");
    Ok(())
}

/// A recording must fail, name this file, and leave everything as it was.
fn expect_refused(command: &mut Command, name: &Path, untouched: &Path) -> Result<()> {
    let before = std::fs::read(untouched)?;
    let said = tools::run(command, STEP_LIMIT)?.expect_code(1)?.stderr;
    ensure!(said.contains(&name.display().to_string()), "{} is not named: {said}", name.display());
    ensure!(std::fs::read(untouched)? == before, "{} has changed", untouched.display());
    Ok(())
}

pub(crate) fn files_of_others(scene: &Scene) -> Result<()> {
    let duration = ["--duration", "1s"];
    let precious = scene.file("precious");
    std::fs::write(&precious, b"")?;
    for (link, other) in [(scene.trace(), scene.capture()), (scene.capture(), scene.trace())] {
        symlink(&precious, &link)?;
        // each in a folder of its own: the link alone is in its way
        for as_who in [as_root, with_sudo] {
            let mut command = as_who(scene, &duration)?;
            // beside a trace the capture takes another name
            expect_refused(command.arg("--pcap").arg(scene.capture()), &link, &precious)?;
            ensure!(!other.exists() || std::fs::metadata(&other)?.len() == 0, "{} was made", other.display());
        }
        std::fs::remove_file(&link)?;
        let _ = std::fs::remove_file(&other);
    }
    // root's own trace, and a folder in which the caller may not write
    std::fs::write(scene.trace(), b"")?;
    expect_refused(&mut with_sudo(scene, &duration)?, &scene.trace(), &precious)?;
    std::fs::remove_file(scene.trace())?;
    let mut command = with_sudo(scene, &duration)?;
    chown(scene.file(""), Some(0), Some(0))?;
    expect_refused(&mut command, &scene.trace(), &precious)?;
    let left: Vec<PathBuf> = std::fs::read_dir(scene.file(""))?.filter_map(|e| Some(e.ok()?.path())).collect();
    ensure!(left == [precious], "files are left: {left:?}");
    Ok(())
}
