//! Traces, the pages that are made of them, and what SQL says of them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value as Json;
use tcpprobe_fixtures::bulk::{Bulk, write};
use tcpprobe_tests::tools;

use crate::browser::{Browser, Screen};

const LIMIT: Duration = Duration::from_secs(60);
/// A real recording, with losses, a stalled receiver and an application that paused.
const STALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tutorial");
const BULK: Bulk = Bulk { packets: 4_000, flows: 12, packets_a_flow: None, loss_every: 500, window: 40 };

/// A trace, and the pages that are made of it.
pub(crate) struct Trace {
    pub(crate) folder: tempfile::TempDir,
}

impl Trace {
    pub(crate) fn stall(joined: bool) -> Result<Trace> {
        let folder = tempfile::tempdir()?;
        std::fs::copy(format!("{STALL}/stall.db"), folder.path().join("trace.db"))?;
        let trace = Trace { folder };
        if joined {
            trace.tcpprobe(&["join", "trace.db", &format!("{STALL}/stall.pcap.gz")], 0)?;
        }
        Ok(trace)
    }

    pub(crate) fn bulk() -> Result<Trace> {
        let folder = tempfile::tempdir()?;
        write(&BULK, folder.path()).unwrap();
        Ok(Trace { folder })
    }

    pub(crate) fn tcpprobe(&self, arguments: &[&str], code: i32) -> Result<tools::Finished> {
        let mut command = Command::new(tools::tcpprobe()?);
        tools::run(command.args(arguments).current_dir(self.folder.path()), LIMIT)?.expect_code(code)
    }

    pub(crate) fn page(&self, arguments: &[&str]) -> Result<(PathBuf, String)> {
        let page = self.folder.path().join("page.html");
        let said = self.tcpprobe(&[arguments, &["-o", "page.html"]].concat(), 0)?.stderr;
        Ok((page, said))
    }

    pub(crate) fn report(&self, screen: Screen) -> Result<Browser> {
        Browser::open(&self.page(&["report", "trace.db"])?.0, screen)
    }

    /// Rows of a statement, each an object.
    pub(crate) fn sql(&self, statement: &str) -> Result<Vec<Json>> {
        let out = self.tcpprobe(&["sql", "trace.db", statement, "--format", "json"], 0)?.stdout;
        match serde_json::from_str(&out) {
            Ok(Json::Array(rows)) => Ok(rows),
            _ => out.lines().map(|line| Ok(serde_json::from_str(line)?)).collect(),
        }
    }

    pub(crate) fn change(&self, statements: &str) {
        let db = rusqlite::Connection::open(self.folder.path().join("trace.db")).unwrap();
        db.execute_batch(statements).unwrap();
    }
}
