//! A lab with a work folder, and the steps that a live test is made of: record, send, stop, join, check.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::lab::{Lab, LabOptions, Ns};
use crate::tools::{self, Finished, Running};

/// The time that a step may take; a machine under load needs a multiple of the usual.
pub const STEP_LIMIT: Duration = Duration::from_secs(30);
/// A path that loses one packet in seven makes a connection wait for one timeout after the other, each of them longer
/// than the one before (RFC 6298 §5.5): half a minute is nothing unusual.
const TRANSFER_LIMIT: Duration = Duration::from_secs(240);
/// The time that the check of a join may take, which reads a whole recording in Python.
const CHECK_LIMIT: Duration = Duration::from_secs(120);
/// Payload of the datagram that ends a capture by tcpdump.
const MARKER: &str = "tcpprobe-test: the end of this capture";

/// One test's network and files.
#[derive(Debug)]
pub struct Scene {
    /// The network.
    pub lab: Lab,
    /// The test's own port. BPF programs see the whole host, so each test filters by a port that no other uses.
    pub port: u16,
    folder: TempDir,
}

/// The recorder missed samples: what the join made of the others is right, but the test has not shown what it should.
#[derive(Debug)]
pub struct MissedSamples(pub String);

impl std::error::Error for MissedSamples {}

impl std::fmt::Display for MissedSamples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "samples were missed:\n{}", self.0)
    }
}

/// What to send through the network.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// From here.
    pub from: Ns,
    /// To this address, which decides the other end.
    pub to: IpAddr,
    /// Where the server listens.
    pub in_ns: Ns,
    /// To this port.
    pub port: u16,
    /// Bytes over each connection.
    pub bytes: u64,
    /// Bytes that the server answers on each.
    pub reply: u64,
    /// Connections at once.
    pub connections: u32,
    /// Congestion control of the sending sockets.
    pub congestion: &'static str,
    /// The sender's pause after each write of 61,007 bytes.
    pub every: Duration,
    /// When the server begins to read.
    pub read_after: Duration,
}

impl Scene {
    /// Builds the network and makes a folder.
    pub fn new(port: u16, options: &LabOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tcpprobe-test-").tempdir()?;
        Ok(Self { lab: Lab::new(options)?, port, folder })
    }

    /// A file in the test's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The trace that [`Scene::record`] writes.
    pub fn trace(&self) -> PathBuf {
        self.file("trace.db")
    }

    /// The capture that `tcpprobe record` writes beside the trace.
    pub fn capture(&self) -> PathBuf {
        self.file("trace.pcap")
    }

    /// Leaves the folder where it is, for a look at what went wrong, and says where.
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_path_buf()
    }

    /// The command `tcpprobe record -w trace.db --port PORT` in a namespace, with more arguments.
    pub fn record_command(&self, ns: Ns, arguments: &[&str]) -> Result<Command> {
        let mut command = self.lab.command(ns, tools::tcpprobe()?);
        command.args(["record", "-w"]).arg(self.trace());
        command.args(["--port", &self.port.to_string()]).args(arguments);
        Ok(command)
    }

    /// Starts recording; returns when samples and packets are being captured.
    pub fn record(&self, ns: Ns, arguments: &[&str]) -> Result<Running> {
        let mut recorder = Running::start(&mut self.record_command(ns, arguments)?)?;
        recorder.wait_for_stderr("recording", STEP_LIMIT)?;
        Ok(recorder)
    }

    /// Ends a recording as Ctrl-C does; it must say on standard error what it recorded.
    pub fn stop(recorder: Running) -> Result<Finished> {
        let finished = recorder.stop(Signal::SIGINT, STEP_LIMIT)?.expect_code(0)?;
        for word in ["sample", "flow", "lost"] {
            ensure!(finished.stderr.contains(word), "the summary has no `{word}`:\n{}", finished.stderr);
        }
        Ok(finished)
    }

    /// A transfer of the test's port from A to B, with cubic and no reply.
    pub fn transfer(&self, bytes: u64) -> Transfer {
        Transfer {
            from: Ns::A,
            to: self.lab.ipv4(Ns::B),
            in_ns: Ns::B,
            port: self.port,
            bytes,
            reply: 0,
            connections: 1,
            congestion: "cubic",
            every: Duration::ZERO,
            read_after: Duration::ZERO,
        }
    }

    /// Sends; returns when both ends have read everything and closed.
    pub fn send(&self, transfer: Transfer) -> Result<()> {
        let server = self.serve(&transfer)?;
        tools::run(&mut self.client(&transfer)?, TRANSFER_LIMIT)?.expect_code(0)?;
        let totals = server.wait(STEP_LIMIT)?.expect_code(0)?.stdout;
        let expected = format!("received {} bytes", transfer.bytes * u64::from(transfer.connections));
        ensure!(totals.contains(&expected), "the server {totals}, not {expected}");
        Ok(())
    }

    /// The client of a transfer, not yet started.
    pub fn client(&self, transfer: &Transfer) -> Result<Command> {
        let address = SocketAddr::new(transfer.to, transfer.port).to_string();
        let mut client = self.lab.command(transfer.from, tools::traffic()?);
        client.args(["send", "--connect", &address, "--congestion", transfer.congestion]);
        client.args(["--bytes", &transfer.bytes.to_string(), "--reply", &transfer.reply.to_string()]);
        client.args(["--connections", &transfer.connections.to_string()]);
        client.args(["--every", &transfer.every.as_millis().to_string()]);
        Ok(client)
    }

    /// The server of a transfer, listening.
    pub fn serve(&self, transfer: &Transfer) -> Result<Running> {
        let mut command = self.lab.command(transfer.in_ns, tools::traffic()?);
        let address = SocketAddr::new(transfer.to, transfer.port).to_string();
        command.args(["serve", "--bind", &address, "--reply", &transfer.reply.to_string()]);
        command.args(["--connections", &transfer.connections.to_string()]);
        command.args(["--read-after", &transfer.read_after.as_millis().to_string()]);
        let mut server = Running::start(&mut command)?;
        server.wait_for_stdout("listening", STEP_LIMIT)?;
        Ok(server)
    }

    /// Runs `tcpprobe join`, which must succeed.
    pub fn join(&self, capture: &Path) -> Result<Finished> {
        let mut command = Command::new(tools::tcpprobe()?);
        tools::run(command.arg("join").arg(self.trace()).arg(capture), STEP_LIMIT)?.expect_code(0)
    }

    /// Joins a capture and has `check_join` find nothing wrong with the result.
    pub fn join_and_check(&self, capture: &Path, arguments: &[&str]) -> Result<()> {
        self.join(capture)?;
        let checked = self.check(&self.trace(), capture, arguments)?;
        if checked.status.code() == Some(3) {
            return Err(MissedSamples(checked.stdout).into());
        }
        checked.expect_code(0).context("check_join finds the join wrong").map(drop)
    }

    /// Runs `check_join`.
    pub fn check(&self, trace: &Path, capture: &Path, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new("python3");
        tools::run(command.arg(tools::check_join()).arg(trace).arg(capture).args(arguments), CHECK_LIMIT)
    }

    /// Has `tcpprobe verify` find nothing wrong with the trace, where there is one.
    pub fn verify(&self) -> Result<()> {
        if !self.trace().exists() {
            return Ok(());
        }
        let mut command = Command::new(tools::tcpprobe()?);
        let verified = tools::run(command.arg("verify").arg(self.trace()), STEP_LIMIT)?;
        verified.expect_code(0).context("tcpprobe verify finds the trace wrong").map(drop)
    }

    /// The trace, for questions in SQL.
    pub fn database(&self) -> Result<Connection> {
        // Not `open`: it would create what is missing.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        Connection::open_with_flags(self.trace(), flags).with_context(|| self.trace().display().to_string())
    }

    /// The one integer that a query returns.
    pub fn number(&self, sql: &str) -> Result<i64> {
        self.database()?.query_row(sql, [], |row| row.get(0)).with_context(|| sql.to_string())
    }

    /// Starts tcpdump on an end's interface, for the test's port.
    pub fn tcpdump(&self, ns: Ns, name: &str) -> Result<Tcpdump> {
        let path = self.file(name);
        let filter = format!("tcp port {} or udp port 9", self.port);
        let mut command = self.lab.command(ns, "tcpdump");
        // -U and immediate mode: what was captured is in the file at once.
        command.args([
            "-i",
            self.lab.interface(ns),
            "-U",
            "--immediate-mode",
            "-s",
            "128",
            "-B",
            "16384",
            "-Z",
            "root",
        ]);
        let mut running = Running::start(command.arg("-w").arg(&path).arg(filter))?;
        running.wait_for_stderr("tcpdump: listening", STEP_LIMIT)?;
        Ok(Tcpdump { path, running })
    }
}

/// A running tcpdump.
#[derive(Debug)]
pub struct Tcpdump {
    path: PathBuf,
    running: Running,
}

impl Tcpdump {
    /// Stops when the file holds all that went before; returns its path.
    ///
    /// tcpdump leaves behind what the kernel still holds for it when it is interrupted. So a datagram is sent after
    /// the traffic, and only once that is in the file is tcpdump stopped.
    pub fn stop(self, scene: &Scene) -> Result<PathBuf> {
        let script = "import socket, sys; \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), (sys.argv[2], 9))";
        let target = scene.lab.ipv4(Ns::B).to_string();
        let mut sender = scene.lab.command(Ns::A, "python3");
        tools::run(sender.args(["-c", script, MARKER, &target]), STEP_LIMIT)?.expect_code(0)?;
        let deadline = Instant::now() + STEP_LIMIT;
        while !ends_with_marker(&self.path)? {
            ensure!(Instant::now() < deadline, "{}: the end of the traffic is not there", self.path.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        let finished = self.running.stop(Signal::SIGINT, STEP_LIMIT)?.expect_code(0)?;
        ensure!(finished.stderr.contains("\n0 packets dropped by kernel"), "tcpdump: {}", finished.stderr);
        Ok(self.path)
    }
}

fn ends_with_marker(path: &Path) -> Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    // The last few frames: an address resolution may follow the datagram.
    file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok(tail.windows(MARKER.len()).any(|window| window == MARKER.as_bytes()))
}
