//! What commands show on a terminal, which tmux is here: `live`, and the line of `record`.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::{STEP_LIMIT, Scene, Transfer};
use tcpprobe_tests::tools::{self, Running};

/// A terminal with a command in it; goes away with this.
pub(crate) struct Terminal {
    socket: String,
}

impl Terminal {
    /// Starts a shell command; its exit code is shown when it ends.
    pub(crate) fn start(scene: &Scene, command: &str) -> Result<Terminal> {
        // a server that was told to end still has its socket for a while: each terminal has one of its own
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let terminal = Terminal { socket: format!("tcpprobe-test-{}-{number}", scene.port) };
        let then_waits = format!("{command}; echo \"exit code $?\"; read -r _");
        terminal.tmux(&["new-session", "-d", "-x", "150", "-y", "40", &then_waits])?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        // a user's own configuration may change what keys do
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket, "-f", "/dev/null", "-u"]).args(arguments);
        // as in the lab
        command.env_remove("SUDO_UID").env_remove("SUDO_GID");
        Ok(tools::run(&mut command, STEP_LIMIT)?.expect_code(0)?.stdout)
    }

    pub(crate) fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// What stands on it, with what makes its colours.
    fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits for all of these words; returns what stands there then.
    pub(crate) fn wait_for(&self, words: &[&str]) -> Result<String> {
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            let screen = self.screen()?;
            if words.iter().all(|word| screen.contains(word)) {
                return Ok(screen);
            }
            if Instant::now() > deadline {
                bail!("of {words:?} not all are on the screen:\n{screen}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

/// tmux, if it is missing.
pub(crate) fn missing() -> Option<String> {
    Command::new("tmux").arg("-V").output().err().map(|e| format!("tmux: {e}"))
}

/// Is anything in a colour of its own (SGR 30 to 38)?
fn is_coloured(screen: &str) -> bool {
    screen
        .split("\x1b[")
        .filter_map(|rest| rest.split_once('m'))
        .any(|(codes, _)| codes.split(';').any(|code| code.parse().is_ok_and(|code: u8| (30..=38).contains(&code))))
}

/// The shell command of a `live` of the test's port.
pub(crate) fn command(scene: &Scene) -> Result<String> {
    let netns = scene.lab.namespace(Ns::A);
    let tcpprobe = tools::tcpprobe()?;
    Ok(format!("ip netns exec {netns} {} live --netns current --port {}", tcpprobe.display(), scene.port))
}

/// A transfer that goes on until it is dropped. One of its ends may end by itself when the other is gone.
pub(crate) fn endless(scene: &Scene) -> Result<(Running, Running)> {
    let transfer = Transfer { every: Duration::from_millis(20), ..scene.transfer(u64::MAX) };
    let server = scene.serve(&transfer)?;
    let client = Running::start(&mut scene.client(&transfer)?)?;
    Ok((server, client))
}

pub(crate) fn flows_move_and_keys_work(scene: &Scene) -> Result<()> {
    let terminal = Terminal::start(scene, &command(scene)?)?;
    terminal.wait_for(&[&format!("port {}", scene.port), "0 flows by rate", "waiting for a TCP segment"])?;
    let (server, client) = endless(scene)?;
    let remote = format!("{}:{}", scene.lab.ipv4(Ns::B), scene.port);
    terminal.wait_for(&["1 flow by rate", &remote, "cubic", "Mbit/s", "Open", "q quit"])?;
    for order in ["by loss", "by RTT", "by rate"] {
        terminal.press("s")?;
        terminal.wait_for(&[order])?;
    }
    terminal.press("Enter")?;
    let screen =
        terminal.wait_for(&[&format!("→ {remote}"), "ssthresh", "in flight", "srtt", "now", "Esc all flows"])?;
    ensure!(is_coloured(&screen), "no colours");
    terminal.press("p")?;
    terminal.wait_for(&["paused"])?;
    terminal.press("Escape")?;
    terminal.wait_for(&["1 flow by rate", "paused"])?;
    terminal.press("q")?;
    let screen = terminal.wait_for(&["exit code 0"])?;
    ensure!(!screen.contains("by rate"), "the terminal is not as it was:\n{screen}");
    drop((client, server));
    Ok(())
}

pub(crate) fn without_colours_and_without_a_terminal(scene: &Scene) -> Result<()> {
    let mut piped = scene.lab.command(Ns::A, tools::tcpprobe()?);
    let said = tools::run(piped.args(["live", "--port", &scene.port.to_string()]), STEP_LIMIT)?.expect_code(1)?.stderr;
    ensure!(said.contains("live needs a terminal"), "{said}");
    let terminal = Terminal::start(scene, &format!("NO_COLOR=1 {}", command(scene)?))?;
    let (server, client) = endless(scene)?;
    terminal.wait_for(&["1 flow by rate"])?;
    terminal.press("Enter")?;
    let screen = terminal.wait_for(&["in flight", "Esc all flows"])?;
    ensure!(!is_coloured(&screen), "colours in spite of NO_COLOR:\n{screen}");
    terminal.press("C-c")?;
    terminal.wait_for(&["exit code 0"])?;
    drop(terminal);
    ends_with_its_terminal(scene)?;
    drop((client, server));
    Ok(())
}

/// A window that is closed, or a connection that is cut.
fn ends_with_its_terminal(scene: &Scene) -> Result<()> {
    let file = scene.file("pid");
    let command = format!("echo $$ > {}; exec {}", file.display(), command(scene)?);
    let terminal = Terminal::start(scene, &format!("sh -c '{command}'"))?;
    terminal.wait_for(&["by rate"])?;
    let process = Path::new("/proc").join(std::fs::read_to_string(file)?.trim());
    ensure!(process.exists(), "{} is not there", process.display());
    drop(terminal);
    let deadline = Instant::now() + STEP_LIMIT;
    while process.exists() {
        ensure!(Instant::now() < deadline, "goes on without its terminal");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

pub(crate) fn record_has_one_line_on_a_terminal(scene: &Scene) -> Result<()> {
    let (server, client) = endless(scene)?;
    let netns = scene.lab.namespace(Ns::A);
    let (tcpprobe, trace) = (tools::tcpprobe()?, scene.file("line.db"));
    let record =
        format!("ip netns exec {netns} {} record -w {} --port {}", tcpprobe.display(), trace.display(), scene.port);
    let terminal = Terminal::start(scene, &record)?;
    terminal.wait_for(&["recording port", " samples/s ", " packets/s ", " samples lost", " MB"])?;
    terminal.press("C-c")?;
    let screen = terminal.wait_for(&["recorded ", "exit code 0"])?;
    ensure!(!screen.contains("samples/s"), "the line stays:\n{screen}");
    drop((client, server));
    let recorder = scene.record(Ns::A, &["--no-pcap", "--duration", "1"])?;
    let said = recorder.wait(STEP_LIMIT)?.expect_code(0)?.stderr;
    ensure!(!said.contains("samples/s") && !said.contains('\x1b'), "a line that no terminal shows:\n{said}");
    Ok(())
}
