//! How far something has come is shown on a terminal, and only there.

use std::process::Command;

use anyhow::{Result, ensure};
use tcpprobe_fixtures::bulk::Bulk;
use tcpprobe_tests::tools;

use super::{LIMIT, Traced, export, tcpprobe};

/// What a terminal gets of a command; `script` is one.
fn on_a_terminal(arguments: &[&str]) -> Result<String> {
    let words = [&[tools::tcpprobe()?.to_str().unwrap_or_default()], arguments].concat().join("' '");
    let mut command = Command::new("script");
    command.args(["-qec", &format!("'{words}'"), "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", "1");
    Ok(tools::run(&mut command, LIMIT)?.expect_code(0)?.stdout)
}

pub(super) fn a_terminal_shows_a_bar_and_nothing_else_does() -> Result<()> {
    let traced = Traced::bulk(&Bulk { packets: 20_000, flows: 5, packets_a_flow: None, loss_every: 500, window: 40 })?;
    let (out, capture) = (traced.path("out")?, traced.path("trace.pcap")?);
    for (arguments, name, last) in [
        (vec!["export", &traced.trace, "--to", "csv", "-o", &out], "rows  ", "out: 20,000 rows of samples"),
        (vec!["join", &traced.trace, &capture], "trace.pcap  ", "samples         20,000  joined"),
    ] {
        let shown = on_a_terminal(&arguments)?;
        ensure!(shown.contains(name) && shown.contains(" %  ") && shown.contains(" left"), "{shown:?}");
        ensure!(shown.contains(last), "{shown:?}");
        ensure!(!shown.contains("\u{1b}[3"), "colours: {shown:?}");
    }
    let plain = export(&traced.trace, &["--to", "json", "-o", &traced.path("json")?])?;
    ensure!(plain.stderr.lines().count() == 1 && !plain.stderr.contains(['\r', '\u{1b}']), "{:?}", plain.stderr);
    let joined = tcpprobe(&["join", &traced.trace, &capture])?.expect_code(0)?;
    ensure!(!joined.stderr.contains(['\r', '\u{1b}']), "{:?}", joined.stderr);
    Ok(())
}
