//! Logs of other programs become sessions of a trace: those of the old kernel module, of the tracepoint that replaced
//! it, and of FreeBSD's siftr.
//!
//! Owns which format a log has, the account of what was not understood, and the way from lines to a session. What a
//! line says is known to one module for each format. Must not know the terminal.

mod flows;
mod line;
mod siftr;
mod tcp_probe_event;
mod tcpprobe;
mod text;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::atomic::{AtomicBool, Ordering};

use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::import::ImportWriter;
use tcpprobe_trace::sample::{Flow, LossCause, Sample, Sampled};
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

use flows::FlowTable;
use line::{Line, Lines, Log, Observation};

pub use line::{Clock, Refused};
pub use text::unix_time;

/// A kind of log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `/proc/net/tcpprobe` of the kernel module.
    Tcpprobe,
    /// `tcp:tcp_probe` as ftrace, `trace-cmd report` and `perf script` print it.
    Event,
    /// FreeBSD's siftr.
    Siftr,
}

impl Format {
    /// All, in the order in which they are tried.
    pub const ALL: [Format; 3] = [Format::Tcpprobe, Format::Event, Format::Siftr];

    /// What such a log is called.
    pub fn name(self) -> &'static str {
        match self {
            Format::Tcpprobe => "/proc/net/tcpprobe",
            Format::Event => "tcp:tcp_probe events",
            Format::Siftr => "siftr",
        }
    }

    fn reader(self, options: &Options) -> Box<dyn Log> {
        match self {
            Format::Tcpprobe => Box::new(tcpprobe::Reader::new(options.hz)),
            Format::Event => Box::new(tcp_probe_event::Reader::default()),
            Format::Siftr => Box::new(siftr::Reader::new(options.hz)),
        }
    }
}

/// What a log does not say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its format; found out where not given.
    pub format: Option<Format>,
    /// Unix time, in ns, of its time 0, where its times are none of the wall clock.
    pub start_ns: Option<i64>,
    /// Ticks of its kernel in a second, where it counts time in ticks.
    pub hz: Option<u32>,
    /// Its name, for the session's filter and for errors.
    pub name: String,
    /// Version of this program.
    pub tool_version: String,
    /// Its command line.
    pub command: String,
}

/// What became of a log.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its format.
    pub format: Format,
    /// The new session.
    pub session_id: i64,
    /// Lines read.
    pub lines: u64,
    /// Samples.
    pub samples: u64,
    /// Flows.
    pub flows: u64,
    /// Lines that made no sample, by cause: how many, and the first one's number.
    pub refused: BTreeMap<Refused, (u64, u64)>,
    /// Samples that the log itself says it lacks.
    pub lost: u64,
    /// What its times count from.
    pub clock: Clock,
    /// Is the wall clock of its times known?
    pub anchored: bool,
    /// Which segments it has samples of.
    pub sampled: Sampled,
    /// What its reader has to say about units.
    pub notes: Vec<String>,
}

/// Why a log cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("{name}: {cause}")]
    Read {
        /// The log.
        name: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Not a single sample was found in it.
    #[error("{name}: no sample found, lines read: {lines}; {expected}{refused}")]
    NoSample {
        /// The log.
        name: String,
        /// Lines read.
        lines: u64,
        /// What would have been understood.
        expected: String,
        /// Why the lines of the format that was asked for were refused.
        refused: String,
    },
    /// The user wants no more of it.
    #[error("interrupted; the trace is as before")]
    Interrupted,
    /// The trace cannot be written.
    #[error(transparent)]
    Trace(#[from] tcpprobe_trace::Error),
}

/// Reads a log to its end and adds it as a session. `stop` breaks it off.
///
/// # Errors
/// The import must be dropped where this fails: the session that was begun is not whole.
pub fn import(
    log: impl BufRead,
    options: &Options,
    into: &mut ImportWriter,
    stop: &AtomicBool,
) -> Result<Report, Error> {
    let mut lines = Lines::new(log);
    let mut next = |account: &mut dyn FnMut(&Line<'_>)| -> Result<bool, Error> {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        lines.next(account).map_err(|cause| Error::Read { name: options.name.clone(), cause })
    };
    let formats = options.format.as_ref().map_or(&Format::ALL[..], std::slice::from_ref);
    let mut readers: Vec<Account> = formats.iter().map(|&f| Account::new(f, options)).collect();
    let mut first = None;
    while first.is_none() {
        let more = next(&mut |line| {
            first = readers.iter_mut().enumerate().find_map(|(i, reader)| Some((i, reader.read(line)?)));
        })?;
        if !more {
            return Err(no_sample(options, &readers));
        }
    }
    // the loop above ends with one, or not at all
    let Some((chosen, first)) = first else { return Err(no_sample(options, &readers)) };
    let mut account = readers.swap_remove(chosen);

    let mut session = Session::begin(&account, &first, options, into)?;
    session.add(&first)?;
    loop {
        let mut observed = None;
        if !next(&mut |line| observed = account.read(line))? {
            break;
        }
        if let Some(observation) = observed {
            session.add(&observation)?;
        }
    }
    session.end(account, into)
}

/// A reader of one format, and the lines that it could not use.
struct Account {
    format: Format,
    reader: Box<dyn Log>,
    lines: u64,
    refused: BTreeMap<Refused, (u64, u64)>,
    lost: u64,
}

impl Account {
    fn new(format: Format, options: &Options) -> Account {
        Account { format, reader: format.reader(options), lines: 0, refused: BTreeMap::new(), lost: 0 }
    }

    fn read(&mut self, line: &Line<'_>) -> Option<Observation> {
        self.lines = line.number;
        match self.reader.read(line) {
            line::Read::Observation(o) => return Some(*o),
            line::Read::Nothing => {}
            line::Read::Lost(n) => self.lost = self.lost.saturating_add(n),
            line::Read::Refused(why) => self.refused.entry(why).or_insert((0, line.number)).0 += 1,
        }
        None
    }
}

fn no_sample(options: &Options, readers: &[Account]) -> Error {
    let expected: Vec<&str> = readers.iter().map(|r| r.reader.expected()).collect();
    // of several formats each refuses most lines, for reasons that say nothing
    let refused = match readers {
        [only] => {
            only.refused.iter().map(|(why, (n, at))| format!("; {n} × {} (first: line {at})", why.name())).collect()
        }
        _ => String::new(),
    };
    Error::NoSample {
        name: options.name.clone(),
        lines: readers.first().map_or(0, |r| r.lines),
        expected: format!("expected {}", expected.join(", or ")),
        refused,
    }
}

/// A session that a log becomes.
struct Session {
    writer: SessionWriter,
    flows: FlowTable,
    clock: Clock,
    anchored: bool,
    anchor: Anchor,
    last_ns: i64,
}

impl Session {
    fn begin(
        account: &Account,
        first: &Observation,
        options: &Options,
        into: &mut ImportWriter,
    ) -> Result<Session, Error> {
        let clock = account.reader.clock();
        // the module's times count from when its file was opened: that is where such a session starts
        let base_ns = if clock == Clock::Log { 0 } else { first.time_ns };
        let offset_ns = if clock == Clock::Wall { 0 } else { options.start_ns.unwrap_or(0) };
        let anchored = clock == Clock::Wall || options.start_ns.is_some();
        let anchor = Anchor { mono_before_ns: base_ns, real_ns: base_ns + offset_ns, mono_after_ns: base_ns };
        let start = SessionStart {
            kernel: account.reader.kernel(),
            tool_version: options.tool_version.clone(),
            command: options.command.clone(),
            backend: format!("import: {}", account.format.name()),
            filter: format!("log {}", options.name),
            ..SessionStart::default()
        };
        let writer = into.begin_session(&start, anchor, anchored)?;
        Ok(Session { writer, flows: FlowTable::default(), clock, anchored, anchor, last_ns: base_ns })
    }

    fn add(&mut self, o: &Observation) -> Result<(), Error> {
        let place = self.flows.place(o);
        for key in place.gone {
            self.writer.forget(key)?;
        }
        if place.is_new {
            let flow = Flow {
                key: place.key,
                mono_ns: o.time_ns,
                local: o.local,
                remote: o.remote,
                family: o.family,
                netns: 0,
                cookie: o.cookie,
                congestion: None,
                snd_wscale: o.snd_wscale,
                rcv_wscale: o.rcv_wscale,
            };
            self.writer.flow(&flow, self.anchor)?;
        }
        let sample = Sample {
            flow: place.key,
            serial: place.serial,
            mono_ns: o.time_ns,
            kind: o.kind,
            phase: o.phase,
            segment: None,
            unseen_before: false,
            refused_before: 0,
            error: 0,
            state: o.state,
        };
        self.writer.unplaced_sample(&sample, o.unplaced, self.anchor)?;
        self.last_ns = self.last_ns.max(o.time_ns);
        Ok(())
    }

    fn end(self, account: Account, into: &mut ImportWriter) -> Result<Report, Error> {
        let totals = self.writer.totals();
        let session_id = self.writer.session_id();
        let sampled = account.reader.sampled();
        let bad = account.refused.iter().filter(|(why, _)| why.may_hide_a_sample()).map(|(_, (n, _))| n).sum();
        let losses = [(LossCause::BadRecord, bad), (LossCause::NotLogged, account.lost)];
        let end = SessionEnd {
            losses: losses.into_iter().filter(|(_, n)| *n > 0).collect(),
            sampled: Some(sampled),
            ..SessionEnd::default()
        };
        let at = self.last_ns;
        let now = Anchor { mono_before_ns: at, real_ns: at + self.anchor.offset_ns(), mono_after_ns: at };
        into.end_session(self.writer, &end, now)?;
        Ok(Report {
            format: account.format,
            session_id,
            lines: account.lines,
            samples: totals.samples,
            flows: totals.flows,
            notes: account.reader.notes(),
            refused: account.refused,
            lost: account.lost,
            clock: self.clock,
            anchored: self.anchored,
            sampled,
        })
    }
}
