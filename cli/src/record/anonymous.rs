//! A recording that is to be shared: its addresses are rewritten before anything is written, printed or waits in a file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tcpprobe_probes::{Cost, Losses, Records};
use tcpprobe_replay::anonymize::{Anonymizer, Key};
use tcpprobe_trace::writer::SessionStart;

use super::pipeline::Source;

/// A file that has a key has no more bytes.
const MAX_KEY_FILE_BYTES: u64 = 1 << 10;

/// The key of a file, or one that nobody else has and that is not kept.
pub(crate) fn key(file: Option<&Path>) -> anyhow::Result<Key> {
    let Some(path) = file else {
        let mut bytes = [0; Key::BYTES];
        let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
        random.context("/dev/urandom: cannot make a key")?;
        return Ok(Key::new(bytes)?);
    };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text));
    read.with_context(|| format!("cannot read the key {}", path.display()))?;
    Key::from_hex(&text)
        .with_context(|| format!("{}: `head -c 32 /dev/urandom | xxd -p -c 64` makes one", path.display()))
}

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
