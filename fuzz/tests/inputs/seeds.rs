//! Whole inputs that other packages have, or make.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_tests::tools;

/// Scenarios that are small, and of several kinds: both ends, another address, IPv6, a hole, a merge.
const SCENARIOS: [&str; 5] = ["both_ends_recorded", "nat_both", "ipv6", "hole", "gro_merged_packets"];

/// A folder in memory where that is possible: a disk's delays would be most of the time.
pub(crate) fn folder() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }?)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// The files of a folder of the fixtures, by name.
fn files(folder: &str, extensions: &[&str]) -> Result<Vec<Vec<u8>>> {
    let folder = fixtures().join(folder);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known)) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Ok(std::fs::read(path)?)).collect()
}

/// Captures of real transfers.
pub(crate) fn captures() -> Result<Vec<Vec<u8>>> {
    files("captures", &["pcap"])
}

/// Logs of other programs.
pub(crate) fn logs() -> Result<Vec<Vec<u8>>> {
    files("logs", &["log", "txt"])
}

/// A trace without its capture, and the capture.
pub(crate) fn scenario(name: &str, folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let scenario = Scenario::load(&fixtures().join("scenarios").join(name).with_extension("toml"))?;
    let (trace, capture) = (folder.join("seed.db"), folder.join("seed.pcap"));
    scenario.write_trace(&trace)?;
    scenario.write_capture(&capture)?;
    Ok((trace, capture))
}

/// Traces with their captures joined, and these captures.
pub(crate) fn joined() -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    SCENARIOS
        .iter()
        .map(|name| {
            let folder = folder()?;
            let (trace, capture) = scenario(name, folder.path())?;
            let mut join = Command::new(tools::tcpprobe()?);
            join.args(["join", "seed.db", "seed.pcap"]).current_dir(folder.path());
            tools::run(&mut join, Duration::from_secs(60))?.expect_code(0)?;
            Ok((std::fs::read(trace)?, std::fs::read(capture)?))
        })
        .collect()
}
