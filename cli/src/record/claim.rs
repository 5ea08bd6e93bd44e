//! One writer of samples at a time, recorder or import: a trace is claimed by making its backlog's file, which is locked
//! for as long as the writer lives.
//!
//! Not by a lock on the trace itself: SQLite has its own there, and on a network file system the two would be one.

use std::path::Path;

use anyhow::{Context as _, bail};
use tcpprobe_trace::backlog::Owner;

use super::backlog_file::{BacklogFile, Found, Leftover, Unusable, beside, remove};

/// A trace that no other recorder can have. Dropped before the session begins, it is given back.
pub(crate) struct Claim {
    file: Option<BacklogFile>,
}

impl Claim {
    /// Claims a trace beside which there is no backlog.
    ///
    /// # Errors
    /// Another recorder has it, or its folder takes no file.
    pub(crate) fn of(trace: &Path) -> anyhow::Result<Claim> {
        let path = beside(trace);
        match BacklogFile::create(&path) {
            Ok(file) => Ok(Claim { file: Some(file) }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => bail!(in_use(trace)),
            Err(e) => Err(e).with_context(|| {
                format!(
                    "{}: cannot be made; a recording needs room in that folder, and the right to write there",
                    path.display()
                )
            }),
        }
    }

    /// The file, for the records of this session.
    pub(crate) fn begin(mut self, owner: &Owner) -> anyhow::Result<BacklogFile> {
        let mut file = self.file.take().context("a trace was claimed twice: this is a bug of tcpprobe")?;
        if let Err(error) = file.begin(owner) {
            let path = file.path().to_owned();
            remove(file.file(), &path);
            return Err(error).with_context(|| path.display().to_string());
        }
        Ok(file)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            remove(file.file(), file.path());
        }
    }
}

/// Who has a trace, and what to do about it, in words.
pub(crate) fn in_use(trace: &Path) -> String {
    let by = match Leftover::find(trace) {
        Ok(Found::InUse(Leftover { pid: Some(pid), .. })) => format!("process {pid}"),
        Ok(_) | Err(Unusable::Forbidden { .. } | Unusable::OfSomeoneElse(_)) => "another process".into(),
        Err(e) => return e.to_string(),
    };
    format!(
        "{}: {by} writes samples into this trace: a recording, an import, or what a killed recorder left; name another file, or wait for its end",
        trace.display()
    )
}
