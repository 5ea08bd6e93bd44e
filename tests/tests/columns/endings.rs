//! How exports end: what is left, what is untouched, what is said.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tcpprobe_fixtures::bulk::Bulk;
use tcpprobe_tests::tools::{self, Running};

use super::{LIMIT, Traced, export, tcpprobe};

pub(super) fn unknown_flows_and_sessions_are_named() -> Result<()> {
    let traced = Traced::joined("both_ends_recorded")?;
    for (arguments, wanted) in [
        (vec!["--flow", "77"], "no flow 77; there is flow 1 to 2"),
        (vec!["--flow", "2", "--flow", "0", "--session", "1"], "no flow 0 in session 1; there is flow 1 to 2"),
        (vec!["--session", "9"], "no flows in session 9; there is session 1"),
    ] {
        for format in ["csv", "json", "parquet"] {
            let out = traced.path("out")?;
            let rest = ["--to", format, "-o", &out];
            let said = tcpprobe(&[&["export", &traced.trace][..], &rest, &arguments].concat())?.expect_code(1)?.stderr;
            ensure!(said.contains(wanted), "{said}");
        }
    }
    ensure!(traced.names()? == ["trace.db", "trace.pcap"], "{:?}", traced.names()?);
    Ok(())
}

pub(super) fn what_exists_is_left_alone() -> Result<()> {
    let traced = Traced::joined("both_ends_recorded")?;
    let (file, folder, link) = (traced.path("a.parquet")?, traced.path("folder")?, traced.path("link")?);
    std::fs::write(&file, "mine")?;
    std::fs::create_dir(&folder)?;
    std::os::unix::fs::symlink("nowhere", &link)?;
    let before = traced.names()?;
    for format in ["csv", "json", "parquet"] {
        for path in [&file, &folder, &link] {
            let finished = tcpprobe(&["export", &traced.trace, "--to", format, "-o", path])?.expect_code(1)?;
            ensure!(finished.stderr.contains("never overwritten"), "{}", finished.stderr);
        }
    }
    ensure!(std::fs::read_to_string(&file)? == "mine" && std::fs::read_dir(&folder)?.next().is_none());
    ensure!(traced.names()? == before, "{:?}", traced.names()?);
    Ok(())
}

/// An export that has begun and will take a while.
fn begun(traced: &Traced, arguments: &[&str]) -> Result<Running> {
    let before = traced.names()?.len();
    let running = Running::start(Command::new(tools::tcpprobe()?).args(["export", &traced.trace]).args(arguments))?;
    let deadline = Instant::now() + LIMIT;
    while traced.names()?.len() == before {
        ensure!(Instant::now() < deadline, "it does not begin");
        std::thread::yield_now();
    }
    Ok(running)
}

fn long() -> Result<Traced> {
    Traced::bulk(&Bulk { packets: 40_000, flows: 5, packets_a_flow: None, loss_every: 500, window: 40 })
}

pub(super) fn interrupted_nothing_is_left() -> Result<()> {
    let traced = long()?;
    let before = traced.names()?;
    for (signal, format) in
        [(Signal::SIGINT, "parquet"), (Signal::SIGTERM, "csv"), (Signal::SIGINT, "json"), (Signal::SIGTERM, "xplot")]
    {
        let out = traced.path("out")?;
        let running = begun(&traced, &["--to", format, "-o", &out])?;
        let finished = running.stop(signal, LIMIT)?.expect_code(1)?;
        let wanted = format!("tcpprobe: cannot make {out}: interrupted; nothing is left of it\n");
        ensure!(finished.stderr == wanted, "{}", finished.stderr);
        ensure!(traced.names()? == before, "{format} left {:?}", traced.names()?);
    }
    Ok(())
}

pub(super) fn killed_there_is_no_folder() -> Result<()> {
    let traced = long()?;
    let out = traced.path("out")?;
    begun(&traced, &["--to", "parquet", "-o", &out])?.stop(Signal::SIGKILL, LIMIT)?;
    ensure!(!std::path::Path::new(&out).exists(), "half a folder");
    // and what lies beside is in nobody's way
    export(&traced.trace, &["--to", "parquet", "--table", "packets", "-o", &out])?;
    Ok(())
}

pub(super) fn a_reader_that_goes_away_is_no_error() -> Result<()> {
    let traced = long()?;
    for format in ["csv", "json"] {
        let mut command = Command::new("sh");
        command.args(["-c", "{ \"$0\" export \"$1\" --to \"$2\"; echo \"code $?\" >&2; } | head -n 2"]);
        command.arg(tools::tcpprobe()?).args([&traced.trace, format]);
        let finished = tools::run(&mut command, LIMIT)?;
        ensure!(finished.stderr == "code 0\n", "{format}: {}", finished.stderr);
        ensure!(finished.stdout.lines().count() == 2, "{}", finished.stdout);
    }
    Ok(())
}

pub(super) fn without_packets_their_tables_are_left_out() -> Result<()> {
    let traced = Traced::recorded("both_ends_recorded")?;
    let out = traced.path("out")?;
    let said = export(&traced.trace, &["--to", "parquet", "-o", &out])?.stderr;
    ensure!(said.contains("no rows in packet_state, which has no folder; packets are there after `tcpprobe join`"));
    let folders: Vec<_> = std::fs::read_dir(&out)?.collect::<Result<_, _>>()?;
    ensure!(folders.len() == 1 && folders[0].file_name() == "samples", "{folders:?}");
    let none = traced.path("none")?;
    let arguments = ["export", &traced.trace, "--to", "parquet", "--table", "packets", "-o", &none];
    let said = tcpprobe(&arguments)?.expect_code(1)?.stderr;
    let trace = &traced.trace;
    let wanted =
        format!("{trace}: no rows of these flows in packets; packets are there after `tcpprobe join {trace} CAPTURE`");
    ensure!(said.contains(&wanted), "{said}");
    // a header is all that is known
    let csv = export(&traced.trace, &["--to", "csv", "--table", "packets"])?;
    ensure!(csv.stdout.lines().count() == 1 && csv.stdout.starts_with("id,capture_id,number,"), "{}", csv.stdout);
    Ok(())
}
