//! The threads of a recording: one empties the ring, one writes the samples, one captures packets.
//!
//! Between emptying and writing stands a backlog, for the recorded machine comes first: where many samples come they
//! are written later, unless too many wait already. What waits is in a file, so that a recorder that is killed loses what
//! came in its last second at most. Where the disk has no room for it the recording ends. Where memory has none the drain
//! waits, the ring fills, and the kernel counts what it drops: every loss is counted in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tcpprobe_probes::{Cost, Decoder, Losses, Records, Sampler, clock};
use tcpprobe_replay::anonymize::Key;
use tcpprobe_replay::live::{self, LiveCapture};
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::writer::{SessionEnd, Totals};

use super::anonymous::Anonymous;
use super::backlog::{BATCH_BYTES, Batch, Gauge, In, Last, Next, Out, Taken, backlog};
use super::backlog_file::BacklogFile;
use super::meter::{Meter, Metered};
use super::sink::Sink;

/// What is less than the programs wake the reader for waits no longer than this.
const DRAIN_EVERY: Duration = Duration::from_millis(20);
/// A crash loses no more than this, and what is in the backlog's memory.
const COMMIT_EVERY: Duration = Duration::from_millis(300);
/// While more than this comes out of the ring, some 19,000 samples a second, writing waits.
const BUSY_BYTES_PER_SECOND: f64 = (4 << 20) as f64;
/// How long that is measured.
const PACE_EVERY: Duration = Duration::from_millis(200);
/// The programs' cost is measured in so many of these at most. Once it is not, it cannot be measured again: that takes
/// CAP_SYS_ADMIN, which is given up when a recording begins.
const MEASURED_WHILE_BUSY: u32 = 3;
/// With so many bytes of records in the backlog's file writing waits no longer, until there are none.
const TOO_MANY_BYTES: u64 = 1 << 30;

/// What a recording came to.
pub(crate) struct Report {
    /// When sampling ended; writing may have taken longer.
    pub(crate) ended: Anchor,
    pub(crate) totals: Totals,
    pub(crate) losses: Losses,
    pub(crate) costs: Vec<Cost>,
    pub(crate) capture: Option<live::Stats>,
    /// Why it ended by itself; what it had until then is in order.
    pub(crate) broke: Option<anyhow::Error>,
    /// Lines printed.
    pub(crate) printed: Option<u64>,
}

/// How samples get from the ring into the trace.
pub(crate) struct Options {
    /// Where those are that wait longer than a moment; none where there is no trace.
    pub(crate) backlog: Option<BacklogFile>,
    /// Whether writing them may wait until there are fewer.
    pub(crate) may_wait: bool,
    /// Counts what passes by, where someone wants to know.
    pub(crate) meter: Option<Arc<Meter>>,
    /// Rewrites the addresses of flows.
    pub(crate) anonymize: Option<Key>,
}

/// A recording under way.
pub(crate) struct Running {
    pub(crate) session_id: Option<i64>,
    stop_capture: Arc<AtomicBool>,
    stop_sampler: Arc<AtomicBool>,
    waiting: Gauge,
    committed: Arc<AtomicU64>,
    drain: JoinHandle<anyhow::Result<()>>,
    capture: Option<JoinHandle<Result<live::Stats, live::Error>>>,
    writer: JoinHandle<anyhow::Result<(Sink, Last)>>,
}

impl Running {
    /// Starts the threads.
    pub(crate) fn start(
        sampler: Sampler,
        capture: Option<LiveCapture>,
        sink: Sink,
        options: Options,
    ) -> anyhow::Result<Running> {
        let stop_capture = Arc::new(AtomicBool::new(false));
        let stop_sampler = Arc::new(AtomicBool::new(false));
        let capture = capture
            .map(|capture| {
                let (stop, meter) = (Arc::clone(&stop_capture), options.meter.clone().unwrap_or_default());
                spawn("capture", move || capture.run(&stop, &meter.packets))
            })
            .transpose()?;
        let session_id = sink.session_id();
        let (to_writer, from_drain) = backlog(options.backlog);
        let decoder = sampler.decoder();
        let waiting = to_writer.gauge();
        let pace = Pace::new(options.may_wait);
        let stop = Arc::clone(&stop_sampler);
        let mut source: Box<dyn Source + Send> = Box::new(sampler);
        if let Some(key) = options.anonymize {
            source = Box::new(Anonymous::new(source, key));
        }
        if let Some(meter) = options.meter {
            source = Box::new(Metered::new(source, meter));
        }
        let drain = spawn("drain", move || drain(source, to_writer, pace, &stop))?;
        let committed = Arc::<AtomicU64>::default();
        let counts = Arc::clone(&committed);
        let writer = spawn("writer", move || Writer::new(sink, decoder, counts).run(&from_drain))?;
        Ok(Running { session_id, stop_capture, stop_sampler, waiting, committed, drain, capture, writer })
    }

    /// Has a thread ended that should still be running?
    pub(crate) fn broken(&self) -> bool {
        self.drain.is_finished()
            || self.writer.is_finished()
            || self.capture.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Bytes of records that are not written yet.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting.waiting_bytes()
    }

    /// Knows, also after a recording that broke off, what there is of it.
    pub(crate) fn kept(&self) -> Kept {
        Kept { committed: Arc::clone(&self.committed), waiting: self.waiting.clone() }
    }

    /// Ends the recording: packets first, so that none is captured that was not sampled. What was sampled is kept in
    /// order; where the recording `broke_off`, also for a cause that none of its threads knows, it does not count as complete.
    pub(crate) fn stop(self, broke_off: bool) -> anyhow::Result<Report> {
        self.stop_capture.store(true, Ordering::Release);
        let capture = self.capture.map(join_thread).transpose();
        self.stop_sampler.store(true, Ordering::Release);
        let drained = join_thread(self.drain);
        let (sink, Last { ended, losses, costs }) = join_thread(self.writer)??;
        let (stats, broke) = match capture? {
            Some(Ok(stats)) => (Some(stats), None),
            Some(Err(error)) => (None, Some(error.into())),
            None => (None, None),
        };
        let broke = drained?.err().or(broke);
        let totals = sink.totals();
        let end = SessionEnd {
            ended_ns: Some(ended.real_ns),
            capture_packets: stats.map(|s| s.packets),
            capture_dropped: stats.map(|s| s.dropped),
            losses: losses.by_cause().into_iter().filter(|(_, n)| *n > 0).collect(),
            costs: costs.iter().map(|c| (c.program.clone(), c.runs, c.time.as_nanos() as u64)).collect(),
            sampled: None,
            broke_off: broke_off || broke.is_some(),
        };
        let printed = sink.finish(&end, clock::anchor());
        if printed.is_ok() {
            self.waiting.remove_file();
        }
        Ok(Report { ended, totals, losses, costs, capture: stats, broke, printed: printed? })
    }
}

/// What there is of a recording.
pub(crate) struct Kept {
    committed: Arc<AtomicU64>,
    waiting: Gauge,
}

impl Kept {
    /// Samples in the trace for good.
    pub(crate) fn samples(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Bytes of records in the backlog's file that may not be in the trace; `None`: there is no file.
    pub(crate) fn waiting_bytes(&self) -> Option<u64> {
        self.waiting.file_bytes()
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<JoinHandle<T>> {
    Ok(std::thread::Builder::new().name(name.into()).spawn(work)?)
}

fn join_thread<T>(thread: JoinHandle<T>) -> anyhow::Result<T> {
    let name = thread.thread().name().unwrap_or("a").to_owned();
    thread.join().map_err(|_| anyhow!("the {name} thread failed: this is a bug of tcpprobe"))
}

/// Where samples come from: the sampler, or in tests something faster.
pub(crate) trait Source {
    /// Waits until there is much to take.
    fn wait(&self, timeout: Duration) -> anyhow::Result<()>;
    /// Takes so many bytes of records; returns whether there may be more.
    fn drain(&mut self, max_bytes: usize, records: &mut Records) -> bool;
    /// What another process must know to decode the records.
    fn context(&self) -> Vec<u8>;
    /// What it costs is not measured from here on.
    fn end_measuring(&mut self);
    /// Ends it, but for what can still be taken.
    fn stop(&mut self) -> Vec<Cost>;
    /// What it missed.
    fn losses(&self) -> Losses;
}

impl Source for Box<dyn Source + Send> {
    fn wait(&self, timeout: Duration) -> anyhow::Result<()> {
        (**self).wait(timeout)
    }
    fn drain(&mut self, max_bytes: usize, records: &mut Records) -> bool {
        (**self).drain(max_bytes, records)
    }
    fn context(&self) -> Vec<u8> {
        (**self).context()
    }
    fn end_measuring(&mut self) {
        (**self).end_measuring();
    }
    fn stop(&mut self) -> Vec<Cost> {
        (**self).stop()
    }
    fn losses(&self) -> Losses {
        (**self).losses()
    }
}

impl Source for Sampler {
    fn wait(&self, timeout: Duration) -> anyhow::Result<()> {
        Ok(Sampler::wait(self, timeout)?)
    }
    fn drain(&mut self, max_bytes: usize, records: &mut Records) -> bool {
        Sampler::drain(self, max_bytes, records)
    }
    fn context(&self) -> Vec<u8> {
        Sampler::context(self)
    }
    fn end_measuring(&mut self) {
        Sampler::end_measuring(self);
    }
    fn stop(&mut self) -> Vec<Cost> {
        Sampler::stop(self)
    }
    fn losses(&self) -> Losses {
        Sampler::losses(self)
    }
}

/// Says when writing has to wait: while much is recorded, for what uses the processors then is what is recorded.
struct Pace {
    may_wait: bool,
    /// Since when these bytes were taken from the ring.
    since: Instant,
    taken_bytes: usize,
    /// Whether too many wait already.
    too_many: bool,
    /// What was said last.
    waits: bool,
}

impl Pace {
    fn new(may_wait: bool) -> Pace {
        Pace { may_wait, since: Instant::now(), taken_bytes: 0, too_many: false, waits: false }
    }

    /// What has been taken by now, and what waits in the file; `Some`: whether to wait from here on.
    fn after(&mut self, now: Instant, taken_bytes: usize, spilled_bytes: u64) -> Option<bool> {
        self.taken_bytes += taken_bytes;
        let elapsed = now.saturating_duration_since(self.since);
        if !self.may_wait {
            return None;
        }
        if elapsed < PACE_EVERY {
            // a transfer that begins is not to lose what the writer takes until then
            let is_busy = self.taken_bytes as f64 > BUSY_BYTES_PER_SECOND * PACE_EVERY.as_secs_f64();
            let begins = is_busy && !self.waits && !self.too_many;
            self.waits |= begins;
            return begins.then_some(true);
        }
        let bytes_per_second = self.taken_bytes as f64 / elapsed.as_secs_f64();
        (self.since, self.taken_bytes) = (now, 0);
        self.too_many = spilled_bytes >= TOO_MANY_BYTES || (self.too_many && spilled_bytes > 0);
        self.waits = !self.too_many && bytes_per_second > BUSY_BYTES_PER_SECOND;
        Some(self.waits)
    }
}

fn drain(mut source: impl Source, mut to_writer: In, mut pace: Pace, stop: &AtomicBool) -> anyhow::Result<()> {
    let gone = || anyhow!("the writer stopped");
    let mut busy = 0;
    let mut refusal = None;
    while refusal.is_none() && !stop.load(Ordering::Acquire) {
        source.wait(DRAIN_EVERY)?;
        let taken_bytes = drain_ring(&mut source, &mut to_writer).ok_or_else(gone)?;
        refusal = to_writer.refusal();
        if let Some(wait) = pace.after(Instant::now(), taken_bytes, to_writer.spilled_bytes()) {
            to_writer.hold(wait);
            busy += u32::from(wait && busy <= MEASURED_WHILE_BUSY);
            if busy > MEASURED_WHILE_BUSY {
                source.end_measuring();
            }
        }
    }
    to_writer.hold(false);
    let costs = source.stop();
    let ended = clock::anchor();
    // detached: what the ring holds now is all that there is
    drain_ring(&mut source, &mut to_writer).ok_or_else(gone)?;
    let last = Last { ended, losses: source.losses(), costs };
    to_writer.finish(last, || source.context()).then_some(()).ok_or_else(gone)?;
    // ended in order all the same: what came until then is written as far as that goes
    refusal.map_or(Ok(()), Err)
}

/// Returns the bytes of records that there were; `None`: there is no writer any more.
fn drain_ring(source: &mut impl Source, to_writer: &mut In) -> Option<usize> {
    let mut taken_bytes = 0;
    loop {
        let mut records = to_writer.records();
        let more = source.drain(BATCH_BYTES, &mut records);
        taken_bytes += records.as_bytes().len();
        // an empty batch carries an anchor all the same: it keeps the clocks tied while nothing happens
        if !to_writer.push(Batch::new(records, clock::anchor()), || source.context()) {
            return None;
        }
        if !more {
            return Some(taken_bytes);
        }
    }
}

struct Writer {
    sink: Sink,
    decoder: Decoder,
    /// When it last committed, and how many samples were in the trace then.
    committed: Instant,
    counts: Arc<AtomicU64>,
    /// Samples whose flow was never announced.
    orphans: u64,
}

impl Writer {
    fn new(sink: Sink, decoder: Decoder, counts: Arc<AtomicU64>) -> Writer {
        Writer { sink, decoder, committed: Instant::now(), counts, orphans: 0 }
    }

    fn run(mut self, from_drain: &Out) -> anyhow::Result<(Sink, Last)> {
        loop {
            match from_drain.next(COMMIT_EVERY.saturating_sub(self.committed.elapsed()))? {
                Next::Batch(batch) => {
                    self.take(&batch, from_drain)?;
                    from_drain.done(batch.records);
                }
                Next::Last(mut last) => {
                    last.losses.bad_records += self.orphans + self.decoder.bad_records();
                    return Ok((self.sink, last));
                }
                Next::Waited => {
                    let taken = self.tell_taken(from_drain);
                    self.sink.commit()?;
                    self.is_committed(from_drain, taken);
                }
                Next::Gone => return Err(anyhow!("the drain stopped")),
            }
        }
    }

    fn take(&mut self, batch: &Taken, from_drain: &Out) -> anyhow::Result<()> {
        self.orphans += self.sink.take(self.decoder.events(&batch.records), batch.after)?;
        let due = self.committed.elapsed() >= COMMIT_EVERY;
        let taken = if due { self.tell_taken(from_drain) } else { None };
        self.sink.batch_end(batch.after, due)?;
        if due {
            self.is_committed(from_drain, taken);
        }
        Ok(())
    }

    fn is_committed(&mut self, from_drain: &Out, taken: Option<u64>) {
        self.committed = Instant::now();
        self.counts.store(self.sink.totals().samples, Ordering::Release);
        from_drain.committed(taken);
    }

    /// Has the next commit store how far the backlog's file is written.
    fn tell_taken(&mut self, from_drain: &Out) -> Option<u64> {
        let taken = from_drain.taken();
        if let Some(batches) = taken {
            self.sink.taken(batches);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    mod killed;

    use super::*;
    use crate::record::backlog_file::beside;
    use crate::record::recover::before_writing;
    use std::path::Path;

    use rusqlite::Connection;
    use tcpprobe_probes::synthetic::{self, push_flow, push_sample};
    use tcpprobe_trace::fields::{FIELDS, index};
    use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, Segment, State};
    use tcpprobe_trace::writer::{SessionStart, SessionWriter};

    const FLOWS: u64 = 50;
    const MSS: u64 = 1448;
    /// What a record takes in the ring, about.
    const RECORD_BYTES: u64 = 224;

    /// Senders in turns, two segments for each acknowledgment.
    struct Flood {
        samples: u64,
        /// `None`: as fast as they are taken.
        per_second: Option<u64>,
        ring_bytes: u64,
        began: Instant,
        taken: u64,
        lost: u64,
        state: State,
    }

    impl Flood {
        fn new(samples: u64, per_second: Option<u64>, ring_bytes: u64) -> Flood {
            let mut state = State::default();
            (0..FIELDS.len()).for_each(|field| state.set(field, Some(1)));
            state.set(const { index("rto_us") }, Some(204_000));
            Flood { samples, per_second, ring_bytes, began: Instant::now(), taken: 0, lost: 0, state }
        }

        /// Samples that there have been.
        fn came(&self) -> u64 {
            let Some(per_second) = self.per_second else { return self.samples };
            self.samples.min((self.began.elapsed().as_nanos() * u128::from(per_second) / 1_000_000_000) as u64)
        }

        fn flow(key: u64) -> Flow {
            Flow {
                key,
                mono_ns: 1,
                local: ([10, 0, 0, key as u8], 443).into(),
                remote: "192.0.2.1:5000".parse().unwrap(),
                family: Family::Inet,
                netns: 1,
                cookie: Some(key),
                congestion: Some("cubic".into()),
                snd_wscale: Some(7),
                rcv_wscale: Some(7),
            }
        }

        fn sample(&mut self, number: u64) -> Sample {
            let (flow, turn) = (number % FLOWS + 1, number / FLOWS);
            let (segments, acks) = (turn - turn / 3, turn / 3);
            let kind = if turn % 3 == 2 { Kind::Ack } else { Kind::Send };
            let (sent, acked) = (segments * MSS, acks * 2 * MSS);
            for (field, value) in [
                (const { index("snd_nxt") }, sent & 0xffff_ffff),
                (const { index("snd_una") }, acked & 0xffff_ffff),
                (const { index("write_seq") }, sent & 0xffff_ffff),
                (const { index("bytes_sent") }, sent),
                (const { index("bytes_acked") }, acked),
                (const { index("segs_out") }, segments),
                (const { index("delivered") }, 2 * acks),
                (const { index("srtt_us") }, 20_000 + acks % 64),
                (const { index("snd_cwnd") }, 10 + acks % 128),
                (const { index("packets_out") }, segments - 2 * acks),
            ] {
                self.state.set(field, i64::try_from(value).ok());
            }
            let (seq, ack) = if kind == Kind::Ack { (1, acked as u32) } else { (sent as u32, 1) };
            let len = if kind == Kind::Ack { 0 } else { MSS as u32 };
            Sample {
                flow,
                serial: turn + 1,
                mono_ns: number as i64 * 1_000,
                kind,
                phase: if kind == Kind::Ack { Phase::Before } else { Phase::Transmit },
                segment: Some(Segment {
                    seq,
                    len,
                    ack,
                    flags: 0x10,
                    tsval: Some((number / 1_000_000) as u32),
                    ip_id: None,
                }),
                unseen_before: false,
                refused_before: 0,
                error: 0,
                state: self.state,
            }
        }
    }

    impl Source for Flood {
        fn wait(&self, timeout: Duration) -> anyhow::Result<()> {
            let until = Instant::now() + timeout;
            while self.came() - self.taken < self.ring_bytes / RECORD_BYTES / 4 && Instant::now() < until {
                std::thread::yield_now();
            }
            Ok(())
        }

        fn drain(&mut self, max_bytes: usize, records: &mut Records) -> bool {
            if self.taken == 0 {
                (1..=FLOWS).for_each(|key| push_flow(records, &Flood::flow(key)));
            }
            while records.as_bytes().len() < max_bytes {
                let waiting = self.came() - self.taken;
                if self.per_second.is_some() {
                    let too_many = waiting.saturating_sub(self.ring_bytes / RECORD_BYTES);
                    self.taken += too_many;
                    self.lost += too_many;
                }
                // a few at once, for looking at the clock takes time too
                let next = self.taken + waiting.min(64);
                if waiting == 0 {
                    return false;
                }
                while self.taken < next {
                    let sample = self.sample(self.taken);
                    push_sample(records, &sample);
                    self.taken += 1;
                }
            }
            true
        }

        fn context(&self) -> Vec<u8> {
            synthetic::context()
        }

        fn end_measuring(&mut self) {}

        fn stop(&mut self) -> Vec<Cost> {
            Vec::new()
        }

        fn losses(&self) -> Losses {
            Losses { ring_full: self.lost, ..Losses::default() }
        }
    }

    #[test]
    fn writing_waits_while_much_comes_and_only_so_long() {
        let much = BUSY_BYTES_PER_SECOND as usize;
        let mut pace = Pace::new(true);
        let mut after = |taken_bytes, spilled_bytes| {
            let then = pace.since + PACE_EVERY;
            pace.after(then, taken_bytes, spilled_bytes)
        };
        assert_eq!(after(much / 100, 0), Some(false));
        assert_eq!(after(much, 0), Some(true));
        assert_eq!(after(much, TOO_MANY_BYTES), Some(false));
        assert_eq!(after(much, TOO_MANY_BYTES / 2), Some(false), "until there are none");
        assert_eq!(after(much, 0), Some(true));
        assert_eq!(Pace::new(false).after(Instant::now() + PACE_EVERY, much, 0), None, "what is printed is wanted now");
    }

    /// What the writer does until a transfer is known to be a busy one, the transfer does not get.
    #[test]
    fn writing_waits_from_the_moment_that_too_much_has_come_for_the_time() {
        let enough = (BUSY_BYTES_PER_SECOND * PACE_EVERY.as_secs_f64()) as usize;
        let mut pace = Pace::new(true);
        let begin = pace.since;
        let [soon, then] = [PACE_EVERY / 10, PACE_EVERY].map(|after| begin + after);
        assert_eq!(pace.after(soon, enough / 2, 0), None, "it may be all for now");
        assert_eq!(pace.after(soon, enough, 0), Some(true));
        assert_eq!(pace.after(soon, enough, 0), None, "it waits already");
        assert_eq!(pace.after(then, 0, 0), Some(true), "what came until then counts");
        assert_eq!(pace.after(then + PACE_EVERY, 0, 0), Some(false));
        assert_eq!(Pace::new(false).after(soon, 100 * enough, 0), None, "what is printed is wanted now");
    }

    /// Records a flood into a trace until all of it came.
    fn record(flood: Flood, trace: &Path) -> Losses {
        let writer = SessionWriter::begin(trace, &SessionStart::default(), clock::anchor()).unwrap();
        let sink = Sink::new(Some(writer), None);
        let file = sink.owner().map(|owner| before_writing(trace).unwrap().begin(&owner).unwrap());
        let (to_writer, from_drain) = backlog(file);
        let waiting = to_writer.gauge();
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let writer = std::thread::spawn(move || {
            Writer::new(sink, Decoder::of_synthetic(), Arc::default()).run(&from_drain).unwrap()
        });
        let length = flood.per_second.map(|n| Duration::from_secs_f64(flood.samples as f64 / n as f64));
        let drained = std::thread::spawn(move || drain(flood, to_writer, Pace::new(true), &stop));
        if let Some(length) = length {
            std::thread::park_timeout(length);
        }
        let before = clock::anchor();
        over.store(true, Ordering::Release);
        drained.join().unwrap().unwrap();
        let after = clock::anchor();
        let (sink, Last { ended, losses, .. }) = writer.join().unwrap();
        // the session ended with the sampling, however long the rest took to be written
        assert!((before.mono_ns()..=after.mono_ns()).contains(&ended.mono_ns()));
        let losses_by_cause = losses.by_cause().into_iter().filter(|(_, n)| *n > 0).collect();
        sink.finish(&SessionEnd { losses: losses_by_cause, ..SessionEnd::default() }, clock::anchor()).unwrap();
        waiting.remove_file();
        losses
    }

    fn counts(trace: &Path) -> [i64; 3] {
        let db = Connection::open(trace).unwrap();
        let one = |sql| db.query_row(sql, [], |r| r.get(0)).unwrap();
        [
            one("SELECT samples FROM sessions"),
            one("SELECT count(*) FROM sample_rows"),
            one("SELECT coalesce(sum(count), 0) FROM losses WHERE cause = 'ring_full'"),
        ]
    }

    #[test]
    fn a_burst_is_written_down_to_the_last_sample() {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace.db");
        let losses = record(Flood::new(100_000, None, 0), &trace);
        assert_eq!(losses, Losses::default());
        assert_eq!(counts(&trace), [100_000, 100_000, 0]);
    }

    #[test]
    fn what_came_too_fast_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace.db");
        // more than any machine takes
        let losses = record(Flood::new(1_000_000, Some(20_000_000), 1 << 20), &trace);
        assert!(losses.ring_full > 0);
        let [samples, rows, lost] = counts(&trace);
        assert_eq!((samples, lost), (rows, losses.ring_full as i64));
        assert_eq!(samples + lost, 1_000_000);
    }

    /// `cargo test --release -p tcpprobe -- --ignored flood --nocapture`
    #[test]
    #[ignore = "takes minutes and gigabytes, and says something of an idle machine with optimized code alone"]
    fn a_flood_of_a_million_samples_a_second_for_half_a_minute() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let trace = folder.path().join("trace.db");
        let began = Instant::now();
        let losses = record(Flood::new(30_000_000, Some(1_000_000), 16 << 20), &trace);
        let peak = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = peak.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default().to_owned();
        eprintln!("written in {:.1} s, {peak}, {} lost", began.elapsed().as_secs_f64(), losses.ring_full);
        assert_eq!(losses, Losses::default());
        assert_eq!(counts(&trace), [30_000_000, 30_000_000, 0]);
    }
}
