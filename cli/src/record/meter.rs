//! How a recording is getting on, for the one line on a terminal: counted where samples and packets pass by.
//!
//! Owns the figures and the line. Costs nothing where there is no terminal: then no one counts.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tcpprobe_probes::{Cost, Losses, Records};

use super::pipeline::Source;
use crate::words::count;

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(500);

/// Figures up to now.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    samples: AtomicU64,
    lost: AtomicU64,
    pub(crate) packets: AtomicU64,
}

/// A source whose samples and losses are counted.
pub(crate) struct Metered<S> {
    source: S,
    meter: Arc<Meter>,
    looked: Instant,
}

impl<S: Source> Metered<S> {
    pub(crate) fn new(source: S, meter: Arc<Meter>) -> Metered<S> {
        Metered { source, meter, looked: Instant::now() }
    }
}

impl<S: Source> Source for Metered<S> {
    fn wait(&self, timeout: Duration) -> anyhow::Result<()> {
        self.source.wait(timeout)
    }

    fn drain(&mut self, max_bytes: usize, records: &mut Records) -> bool {
        let before = records.samples();
        let more = self.source.drain(max_bytes, records);
        self.meter.samples.fetch_add(records.samples() - before, Ordering::Relaxed);
        if self.looked.elapsed() >= EVERY {
            self.looked = Instant::now();
            let losses = self.source.losses().by_cause();
            let lost = losses.iter().filter(|(cause, _)| cause.is_of_samples()).map(|(_, n)| n).sum();
            self.meter.lost.store(lost, Ordering::Relaxed);
        }
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

/// The line: on standard error, where that is a terminal; it goes when this is dropped.
///
/// Not a bar of a library: those fill the line to its end, where the terminal's echo of Ctrl-C begins the next one, and
/// what is wiped then is that.
pub(crate) struct MeterLine {
    is_shown: bool,
    files: Vec<PathBuf>,
    drawn: Instant,
    samples: u64,
    packets: u64,
}

impl MeterLine {
    /// With the size of these files, as far as they are there; nothing where it is not wanted.
    pub(crate) fn new(files: Vec<PathBuf>, is_wanted: bool) -> MeterLine {
        let is_shown = is_wanted && std::io::stderr().is_terminal();
        MeterLine { is_shown, files, drawn: Instant::now(), samples: 0, packets: 0 }
    }

    /// Is there one? Otherwise nothing need be counted.
    pub(crate) fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Draws it anew, if it is time.
    pub(crate) fn draw(&mut self, meter: &Meter) {
        let elapsed = self.drawn.elapsed();
        if !self.is_shown || elapsed < EVERY {
            return;
        }
        let (samples, packets) = (meter.samples.load(Ordering::Relaxed), meter.packets.load(Ordering::Relaxed));
        let rate = |now: u64, then: u64| count(((now - then) as f64 / elapsed.as_secs_f64()) as u64);
        let size: u64 = self.files.iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum();
        // cut at the terminal's edge (DECAWM off), not wrapped
        self.write(&format!(
            "\x1b[?7l{} samples/s   {} packets/s   {} samples lost   {:.1} MB\x1b[?7h",
            rate(samples, self.samples),
            rate(packets, self.packets),
            count(meter.lost.load(Ordering::Relaxed)),
            size as f64 / 1e6
        ));
        (self.drawn, self.samples, self.packets) = (Instant::now(), samples, packets);
    }

    /// Over what stands there.
    fn write(&self, words: &str) {
        // a terminal that has gone leaves no one to tell
        let _ = write!(std::io::stderr(), "\r\x1b[K{words}");
    }
}

impl Drop for MeterLine {
    fn drop(&mut self) {
        if self.is_shown {
            self.write("");
        }
    }
}
