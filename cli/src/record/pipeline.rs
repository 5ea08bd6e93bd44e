//! The threads of a recording: one drains the ring, one writes the samples, one captures packets.
//!
//! Between draining and writing stands a bounded queue. Where the disk is too slow it fills, the drain waits, the
//! ring fills, and the kernel counts what it drops: every loss is counted in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tcpprobe_probes::{Cost, Event, Losses, Sampler, clock};
use tcpprobe_replay::live::{self, LiveCapture};
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::writer::{SessionEnd, Totals};

use super::sink::Sink;

/// Records taken from the ring at once.
const BATCH: usize = 8192;
/// Batches that may wait for the writer: 64 × 8192 samples of about 300 bytes are 160 MB at most.
const QUEUE: usize = 64;
/// The programs wake the reader once for 64 KiB; what is less waits no longer than this.
const DRAIN_EVERY: Duration = Duration::from_millis(20);
/// A crash loses no more than this.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

enum Message {
    Batch { events: Vec<Event>, after: Anchor },
    End { losses: Losses, costs: Vec<Cost> },
}

/// What a recording came to.
pub(crate) struct Report {
    pub(crate) totals: Totals,
    pub(crate) losses: Losses,
    pub(crate) costs: Vec<Cost>,
    pub(crate) capture: Option<live::Stats>,
    /// Lines printed.
    pub(crate) printed: Option<u64>,
}

/// A recording under way.
pub(crate) struct Running {
    pub(crate) session_id: Option<i64>,
    stop_capture: Arc<AtomicBool>,
    stop_sampler: Arc<AtomicBool>,
    drain: JoinHandle<anyhow::Result<()>>,
    capture: Option<JoinHandle<Result<live::Stats, live::Error>>>,
    writer: JoinHandle<anyhow::Result<(Sink, Losses, Vec<Cost>)>>,
}

impl Running {
    /// Starts the threads; when this returns, packets are being captured and samples are being written. The session
    /// begins last: where anything else fails, the trace is not touched.
    pub(crate) fn start(
        sampler: Sampler,
        capture: Option<live::Options>,
        begin: impl FnOnce() -> Result<Sink, tcpprobe_trace::Error>,
    ) -> anyhow::Result<Running> {
        let stop_capture = Arc::new(AtomicBool::new(false));
        let stop_sampler = Arc::new(AtomicBool::new(false));
        let file = capture.as_ref().map(|c| c.file.clone());
        let capture = capture.map(|options| start_capture(options, Arc::clone(&stop_capture))).transpose()?;
        let sink = match begin() {
            Ok(sink) => sink,
            Err(error) => {
                stop_capture.store(true, Ordering::Release);
                let _ = capture.map(join_thread);
                // made a moment ago, by this recording, which does not take place
                let _ = file.map(std::fs::remove_file);
                return Err(error.into());
            }
        };
        let session_id = sink.session_id();
        let (to_writer, from_drain) = bounded(QUEUE);
        let stop = Arc::clone(&stop_sampler);
        let drain = spawn("drain", move || drain(sampler, &to_writer, &stop))?;
        let writer = spawn("writer", move || write(sink, &from_drain))?;
        Ok(Running { session_id, stop_capture, stop_sampler, drain, capture, writer })
    }

    /// Has a thread ended that should still be running?
    pub(crate) fn broken(&self) -> bool {
        self.drain.is_finished()
            || self.writer.is_finished()
            || self.capture.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Ends the recording in order: packets first, so that none is captured that was not sampled.
    pub(crate) fn stop(self) -> anyhow::Result<Report> {
        self.stop_capture.store(true, Ordering::Release);
        let capture = self.capture.map(join_thread).transpose();
        self.stop_sampler.store(true, Ordering::Release);
        let drained = join_thread(self.drain);
        let (sink, losses, costs) = join_thread(self.writer)??;
        // what was sampled is kept in order, even where the capture broke off
        let captured = match capture {
            Ok(Some(ended)) => ended.map(Some).map_err(anyhow::Error::from),
            Ok(None) => Ok(None),
            Err(e) => Err(e),
        };
        let stats = captured.as_ref().ok().copied().flatten();
        drained??;
        let totals = sink.totals();
        let end = SessionEnd {
            capture_packets: stats.map(|s| s.packets),
            capture_dropped: stats.map(|s| s.dropped),
            losses: losses.by_cause().into_iter().filter(|(_, n)| *n > 0).collect(),
            costs: costs.iter().map(|c| (c.program.clone(), c.runs, c.time.as_nanos() as u64)).collect(),
            sampled: None,
        };
        let printed = sink.finish(&end, clock::anchor());
        captured?;
        Ok(Report { totals, losses, costs, capture: stats, printed: printed? })
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<JoinHandle<T>> {
    Ok(std::thread::Builder::new().name(name.into()).spawn(work)?)
}

fn join_thread<T>(thread: JoinHandle<T>) -> anyhow::Result<T> {
    let name = thread.thread().name().unwrap_or("a").to_owned();
    thread.join().map_err(|_| anyhow!("the {name} thread failed: this is a bug of tcpprobe"))
}

type CaptureThread = JoinHandle<Result<live::Stats, live::Error>>;

/// The device is opened on the thread that reads it, for that thread may have to move to another namespace.
fn start_capture(options: live::Options, stop: Arc<AtomicBool>) -> anyhow::Result<CaptureThread> {
    let (opened, is_open) = bounded(1);
    let thread = spawn("capture", move || match LiveCapture::open(&options) {
        Ok(capture) => {
            let _ = opened.send(());
            capture.run(&stop)
        }
        Err(e) => Err(e),
    })?;
    // the sender is dropped without a word where opening failed
    if is_open.recv().is_ok() {
        return Ok(thread);
    }
    match join_thread(thread)? {
        Err(e) => Err(e.into()),
        Ok(_) => Err(anyhow!("the capture ended before it began: this is a bug of tcpprobe")),
    }
}

fn drain(mut sampler: Sampler, to_writer: &Sender<Message>, stop: &AtomicBool) -> anyhow::Result<()> {
    let gone = |_| anyhow!("the writer stopped");
    while !stop.load(Ordering::Acquire) {
        sampler.wait(DRAIN_EVERY)?;
        drain_ring(&mut sampler, to_writer).map_err(gone)?;
    }
    let costs = sampler.stop();
    // detached: what the ring holds now is all that there is
    drain_ring(&mut sampler, to_writer).map_err(gone)?;
    to_writer.send(Message::End { losses: sampler.losses(), costs }).map_err(|_| anyhow!("the writer stopped"))
}

fn drain_ring(sampler: &mut Sampler, to_writer: &Sender<Message>) -> Result<(), crossbeam_channel::SendError<Message>> {
    loop {
        let mut events = Vec::new();
        let taken = sampler.drain(BATCH, &mut events);
        // an empty batch carries an anchor all the same: it keeps the clocks tied while nothing happens
        to_writer.send(Message::Batch { events, after: clock::anchor() })?;
        if taken < BATCH {
            return Ok(());
        }
    }
}

fn write(mut sink: Sink, from_drain: &Receiver<Message>) -> anyhow::Result<(Sink, Losses, Vec<Cost>)> {
    let mut committed = Instant::now();
    let mut orphans = 0;
    loop {
        match from_drain.recv_timeout(COMMIT_EVERY) {
            Ok(Message::Batch { events, after }) => {
                orphans += sink.take(&events, after)?;
                let due = committed.elapsed() >= COMMIT_EVERY;
                sink.batch_end(after, due)?;
                if due {
                    committed = Instant::now();
                }
            }
            Ok(Message::End { mut losses, costs }) => {
                losses.bad_records += orphans;
                return Ok((sink, losses, costs));
            }
            Err(RecvTimeoutError::Timeout) => sink.commit()?,
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("the drain stopped")),
        }
    }
}
