//! A recording that is to be shared: its addresses are rewritten before anything is written, printed or waits in a file.

use std::time::Duration;

use tcpprobe_probes::{Cost, Losses, Records};
use tcpprobe_replay::anonymize::{Anonymizer, Key};
use tcpprobe_trace::writer::SessionStart;

use super::pipeline::Source;

/// Leaves out of a session's begin what says whose it is; the filter then stands for what is not said.
pub(crate) fn leave_out(start: SessionStart, filter: String) -> SessionStart {
    SessionStart { host: String::new(), command: String::new(), capture_path: None, filter, ..start }
}

/// A source whose flows have rewritten addresses.
pub(crate) struct Anonymous<S> {
    source: S,
    anonymizer: Anonymizer,
}

impl<S: Source> Anonymous<S> {
    pub(crate) fn new(source: S, key: Key) -> Anonymous<S> {
        Anonymous { source, anonymizer: Anonymizer::new(key) }
    }
}

impl<S: Source> Source for Anonymous<S> {
    fn wait(&self, timeout: Duration) -> anyhow::Result<()> {
        self.source.wait(timeout)
    }

    fn drain(&mut self, max_bytes: usize, records: &mut Records) -> bool {
        let before = records.as_bytes().len();
        let more = self.source.drain(max_bytes, records);
        records.map_addresses(before, |address| self.anonymizer.address(address));
        more
    }

    fn context(&self) -> Vec<u8> {
        self.source.context()
    }

    fn end_measuring(&mut self) {
        self.source.end_measuring();
    }

    fn stop(&mut self) -> Vec<Cost> {
        self.source.stop()
    }

    fn losses(&self) -> Losses {
        self.source.losses()
    }
}
