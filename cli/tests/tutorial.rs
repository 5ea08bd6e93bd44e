//! `docs/tutorial.md` shows what the command prints: each of its sessions is run, in its order, on the recording.
//!
//! After a change that is meant, `UPDATE_DOCS=1 cargo test -p tcpprobe --test tutorial` writes the outputs anew.

use std::path::Path;
use std::process::Command;

const SESSION: &str = "```console\n$ ";
const END: &str = "\n```\n";

#[test]
fn what_the_tutorial_shows_is_what_is_printed() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let work = tempfile::tempdir().unwrap();
    for file in ["stall.db", "stall.pcap.gz"] {
        std::fs::copy(docs.join("tutorial").join(file), work.path().join(file)).unwrap();
    }
    let tcpprobe = Path::new(env!("CARGO_BIN_EXE_tcpprobe")).parent().unwrap();
    let path = format!("{}:{}", tcpprobe.display(), std::env::var("PATH").unwrap());
    let written = std::fs::read_to_string(docs.join("tutorial.md")).unwrap();
    let mut printed = String::new();
    let mut rest = written.as_str();
    let mut sessions = 0;
    while let Some((before, session)) = rest.split_once(SESSION) {
        let (session, behind) = session.split_once(END).unwrap();
        let command = session.lines().next().unwrap();
        let output = Command::new("sh")
            .args(["-c", &format!("{command} 2>&1")])
            .current_dir(work.path())
            .env("PATH", &path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
        let lines: Vec<_> =
            std::str::from_utf8(&output.stdout).unwrap().trim_end().lines().map(str::trim_end).collect();
        printed += &format!("{before}{SESSION}{command}\n{}{END}", lines.join("\n"));
        sessions += 1;
        rest = behind;
    }
    printed += rest;
    assert!(sessions >= 5);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(docs.join("tutorial.md"), &printed).unwrap();
    }
    assert_eq!(printed, written);
}
