//! Where samples go: into a trace, to standard output, or both.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tcpprobe_probes::Event;
use tcpprobe_replay::export::tcpprobe::Entry;
use tcpprobe_trace::backlog::Owner;
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::fields::index;
use tcpprobe_trace::internals::Internals;
use tcpprobe_trace::sample::{Flow, Sample};
use tcpprobe_trace::writer::{SessionEnd, SessionWriter, Totals};

/// Closed flows that are remembered: a socket may still receive something after its end.
const KEEP_CLOSED: usize = 4096;
/// `TCP_CLOSE` of `include/net/tcp_states.h`.
const TCP_CLOSE: i64 = 7;

/// The samples' destinations.
pub(crate) struct Sink {
    trace: Option<SessionWriter>,
    printer: Option<Printer<Box<dyn Write + Send>>>,
    printed: Totals,
}

impl Sink {
    pub(crate) fn new(trace: Option<SessionWriter>, printer: Option<Printer<Box<dyn Write + Send>>>) -> Sink {
        Sink { trace, printer, printed: Totals::default() }
    }

    /// The session in the trace, if there is one.
    pub(crate) fn session_id(&self) -> Option<i64> {
        self.trace.as_ref().map(SessionWriter::session_id)
    }

    /// Figures of the trace, or of what was printed.
    pub(crate) fn totals(&self) -> Totals {
        self.trace.as_ref().map_or(self.printed, SessionWriter::totals)
    }

    /// Takes samples and flows. Returns the samples whose flow was never announced: a full ring may swallow the
    /// announcement alone.
    pub(crate) fn take(&mut self, events: impl Iterator<Item = Event>, after: Anchor) -> anyhow::Result<u64> {
        let mut orphans = 0;
        for event in events {
            let known = match event {
                Event::Flow(flow) => self.flow(&flow, after)?,
                Event::Sample(sample) => self.sample(&sample, after)?,
                Event::Internals(internals) => self.internals(&internals, after)?,
            };
            orphans += u64::from(!known);
        }
        if let Some(printer) = &mut self.printer {
            printer.flush();
        }
        Ok(orphans)
    }

    fn flow(&mut self, flow: &Flow, after: Anchor) -> anyhow::Result<bool> {
        if let Some(printer) = &mut self.printer {
            self.printed.flows += u64::from(printer.flow(flow));
        }
        if let Some(trace) = &mut self.trace {
            trace.flow(flow, after)?;
        }
        Ok(true)
    }

    fn sample(&mut self, sample: &Sample, after: Anchor) -> anyhow::Result<bool> {
        let known = self.printer.as_mut().map(|p| p.sample(sample));
        if let Some(trace) = &mut self.trace {
            return Ok(trace.sample(sample, after)?);
        }
        self.printed.samples += u64::from(known == Some(true));
        Ok(known != Some(false))
    }

    fn internals(&mut self, internals: &Internals, after: Anchor) -> anyhow::Result<bool> {
        // the module's lines have no place for them
        self.trace.as_mut().map_or(Ok(true), |t| t.internals(internals, after)).map_err(Into::into)
    }

    /// Whose backlog holds what is not here yet.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.trace.as_ref().map(SessionWriter::owner)
    }

    /// Says that the first so many batches of the backlog's file have been taken.
    pub(crate) fn taken(&mut self, batches: u64) {
        if let Some(trace) = &mut self.trace {
            trace.taken(batches);
        }
    }

    /// Says that everything up to `now` has been taken, and makes it durable where `commit` says so.
    pub(crate) fn batch_end(&mut self, now: Anchor, commit: bool) -> anyhow::Result<()> {
        self.trace.as_mut().map_or(Ok(()), |t| t.batch_end(now, commit)).map_err(Into::into)
    }

    /// Makes everything so far durable.
    pub(crate) fn commit(&mut self) -> anyhow::Result<()> {
        self.trace.as_mut().map_or(Ok(()), SessionWriter::commit).map_err(Into::into)
    }

    /// Leaves a session that was broken off as it is, with what its backlog held; see
    /// [`SessionWriter::finish_resumed`].
    pub(crate) fn finish_resumed(self, unreadable: u64, remove: impl FnOnce()) -> anyhow::Result<()> {
        self.trace.map_or(Ok(()), |t| t.finish_resumed(unreadable, remove)).map_err(Into::into)
    }

    /// Ends the session. Returns the lines that were printed.
    ///
    /// # Errors
    /// The trace's; then that of standard output, with the session ended.
    pub(crate) fn finish(self, end: &SessionEnd, now: Anchor) -> anyhow::Result<Option<u64>> {
        if let Some(trace) = self.trace {
            trace.finish(end, now)?;
        }
        Ok(self.printer.map(Printer::finish).transpose()?)
    }
}

/// Prints received segments in the module's format.
pub(crate) struct Printer<W: Write> {
    out: std::io::BufWriter<W>,
    origin_mono_ns: i64,
    flows: HashMap<u64, Flow>,
    closed: VecDeque<u64>,
    lines: u64,
    gone: Arc<AtomicBool>,
    error: Option<std::io::Error>,
}

impl<W: Write> Printer<W> {
    /// Times count from `origin_mono_ns`; `gone` is set where no one reads any more.
    pub(crate) fn new(out: W, origin_mono_ns: i64, gone: Arc<AtomicBool>) -> Printer<W> {
        Printer {
            out: std::io::BufWriter::with_capacity(1 << 16, out),
            origin_mono_ns,
            flows: HashMap::new(),
            closed: VecDeque::new(),
            lines: 0,
            gone,
            error: None,
        }
    }

    /// Learns a flow; was it new?
    fn flow(&mut self, flow: &Flow) -> bool {
        self.flows.insert(flow.key, flow.clone()).is_none()
    }

    /// Prints a sample, if it is of a received segment; is its flow known?
    fn sample(&mut self, sample: &Sample) -> bool {
        let Some(flow) = self.flows.get(&sample.flow) else { return false };
        let entry = Entry::of_sample(flow, sample, self.origin_mono_ns);
        if sample.state.get(const { index("sk_state") }) == Some(TCP_CLOSE) {
            self.closed.push_back(sample.flow);
            if let Some(old) = (self.closed.len() > KEEP_CLOSED).then(|| self.closed.pop_front()).flatten() {
                self.flows.remove(&old);
            }
        }
        if let (Some(entry), None) = (entry, &self.error) {
            let written = writeln!(self.out, "{entry}");
            self.lines += u64::from(written.is_ok());
            self.note(written);
        }
        true
    }

    fn flush(&mut self) {
        if self.error.is_none() {
            let flushed = self.out.flush();
            self.note(flushed);
        }
    }

    /// The recording ends in order where output does: the session is worth more than an error at once.
    fn note(&mut self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.error = Some(error);
            self.gone.store(true, Ordering::Release);
        }
    }

    /// The lines printed. That the reader has gone away is no error.
    fn finish(mut self) -> std::io::Result<u64> {
        self.flush();
        // what is left in the buffer after an error has nowhere to go
        let (_, _) = self.out.into_parts();
        match self.error {
            Some(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(self.lines),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpprobe_trace::sample::{Family, Kind, Phase, Segment, State};

    fn flow() -> Flow {
        Flow {
            key: 1,
            mono_ns: 0,
            local: "192.0.2.1:40000".parse().unwrap(),
            remote: "192.0.2.2:5201".parse().unwrap(),
            family: Family::Inet,
            netns: 1,
            cookie: None,
            congestion: None,
            snd_wscale: None,
            rcv_wscale: None,
        }
    }

    fn sample(kind: Kind, phase: Phase) -> Sample {
        let mut state = State::default();
        for (field, value) in [
            (const { index("snd_nxt") }, 0x2000),
            (const { index("snd_una") }, 0x1000),
            (const { index("snd_cwnd") }, 11),
            (const { index("snd_ssthresh") }, 7),
            (const { index("ca_state") }, 0),
            (const { index("snd_wnd") }, 65_535),
            (const { index("srtt_us") }, 250),
            (const { index("rcv_wnd") }, 29_200),
        ] {
            state.set(field, Some(value));
        }
        Sample {
            flow: 1,
            serial: 1,
            mono_ns: 5_000_000_123,
            kind,
            phase,
            segment: Some(Segment { seq: 1, len: 100, ack: 0x1000, flags: 0x10, tsval: Some(3), ip_id: None }),
            unseen_before: false,
            refused_before: 0,
            error: 0,
            state,
        }
    }

    #[test]
    fn only_received_segments_are_printed_and_as_the_module_did() {
        let mut printed = Vec::new();
        let mut printer = Printer::new(&mut printed, 4_000_000_000, Arc::default());
        assert!(!printer.sample(&sample(Kind::Ack, Phase::Before)), "the flow is not known yet");
        assert!(printer.flow(&flow()) && !printer.flow(&flow()));
        for (kind, phase) in [
            (Kind::Send, Phase::Transmit),
            (Kind::Ack, Phase::Before),
            (Kind::Ack, Phase::After),
            (Kind::State, Phase::After),
        ] {
            assert!(printer.sample(&sample(kind, phase)));
        }
        assert_eq!(printer.finish().unwrap(), 1);
        // 100 bytes of payload behind 20 + 12 of header; cwnd/2 + cwnd/4 = 7
        let line = "1.000000123 192.0.2.1:40000 192.0.2.2:5201 132 0x2000 0x1000 11 7 65535 250 29200\n";
        assert_eq!(String::from_utf8(printed).unwrap(), line);
    }

    struct Full(std::io::ErrorKind);

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error_a_full_disk_is_one() {
        use std::io::ErrorKind::{BrokenPipe, StorageFull};
        for (kind, is_error) in [(BrokenPipe, false), (StorageFull, true)] {
            let gone = Arc::new(AtomicBool::new(false));
            let mut printer = Printer::new(Full(kind), 0, Arc::clone(&gone));
            printer.flow(&flow());
            printer.sample(&sample(Kind::Ack, Phase::Before));
            printer.flush();
            assert!(gone.load(Ordering::Acquire));
            assert!(printer.sample(&sample(Kind::Ack, Phase::Before)), "the recording goes on until it is ended");
            assert_eq!(printer.finish().is_err(), is_error);
        }
    }
}
