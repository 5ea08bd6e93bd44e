//! The lines of `/proc/net/tcpprobe`, as the kernel module `tcp_probe` printed them until Linux 4.15: 11 columns.
//!
//! Owns the format; where the samples come from, it must not know.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tcpprobe_trace::fields::index;
use tcpprobe_trace::received::{Received, ReceivedReader};
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, State};

/// Length of a TCP header, and of the timestamps option with its padding (RFC 7323 appendix A).
const HEADER_BYTES: u32 = 20;
const TIMESTAMPS_BYTES: u32 = 12;

/// A line of the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    since_ns: u64,
    local: Endpoint,
    remote: Endpoint,
    /// `skb->len`; 0 where it is not known.
    length: u16,
    snd_nxt: u32,
    snd_una: u32,
    snd_cwnd: u32,
    ssthresh: u32,
    snd_wnd: u32,
    srtt_us: u32,
    rcv_wnd: Option<u32>,
}

/// What the columns do not take from the state.
struct Head {
    since_ns: i64,
    local: SocketAddr,
    remote: SocketAddr,
    family: Family,
    len: Option<u32>,
    has_timestamps: bool,
}

impl Entry {
    /// The line of a sample; `None` where it is not of a received segment before it was processed, or its state lacks
    /// the columns that have no substitute.
    pub fn of_sample(flow: &Flow, sample: &Sample, origin_mono_ns: i64) -> Option<Entry> {
        if (sample.kind, sample.phase) != (Kind::Ack, Phase::Before) {
            return None;
        }
        let head = Head {
            since_ns: sample.mono_ns - origin_mono_ns,
            local: flow.local,
            remote: flow.remote,
            family: flow.family,
            len: sample.segment.map(|s| s.len),
            has_timestamps: sample.segment.is_some_and(|s| s.tsval.is_some()),
        };
        Entry::new(&head, &sample.state)
    }

    fn of_received(r: &Received) -> Option<Entry> {
        let head = Head {
            since_ns: r.since_ns,
            local: r.local,
            remote: r.remote,
            family: r.family,
            len: r.len,
            has_timestamps: r.has_timestamps,
        };
        Entry::new(&head, &r.state)
    }

    fn new(head: &Head, state: &State) -> Option<Entry> {
        let get = |field: usize| state.get(field).and_then(|v| u32::try_from(v).ok());
        let snd_cwnd = get(const { index("snd_cwnd") })?;
        let options = if head.has_timestamps { TIMESTAMPS_BYTES } else { 0 };
        Some(Entry {
            since_ns: u64::try_from(head.since_ns).unwrap_or(0),
            local: Endpoint(head.local, head.family),
            remote: Endpoint(head.remote, head.family),
            // the module cut it to 16 bits too
            length: head.len.map_or(0, |len| len.wrapping_add(HEADER_BYTES + options) as u16),
            snd_nxt: get(const { index("snd_nxt") })?,
            snd_una: get(const { index("snd_una") })?,
            snd_cwnd,
            ssthresh: current_ssthresh(
                get(const { index("snd_ssthresh") }),
                snd_cwnd,
                state.get(const { index("ca_state") }),
            ),
            snd_wnd: get(const { index("snd_wnd") }).unwrap_or(0),
            srtt_us: get(const { index("srtt_us") }).unwrap_or(0),
            rcv_wnd: get(const { index("rcv_wnd") }),
        })
    }
}

/// `tcp_current_ssthresh()` of `include/net/tcp.h`. Where an imported log left snd_ssthresh open, it was three quarters
/// of cwnd; where it left ca_state open, it had this very value.
fn current_ssthresh(snd_ssthresh: Option<u32>, cwnd: u32, ca_state: Option<i64>) -> u32 {
    const CWR: i64 = 2;
    const RECOVERY: i64 = 3;
    let most = (cwnd >> 1) + (cwnd >> 2);
    match (snd_ssthresh, ca_state) {
        (None, _) => most,
        (Some(ssthresh), None | Some(CWR | RECOVERY)) => ssthresh,
        (Some(ssthresh), Some(_)) => ssthresh.max(most),
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ns) = (self.since_ns / 1_000_000_000, self.since_ns % 1_000_000_000);
        write!(
            f,
            "{s}.{ns:09} {} {} {} {:#x} {:#x} {} {} {} {}",
            self.local,
            self.remote,
            self.length,
            self.snd_nxt,
            self.snd_una,
            self.snd_cwnd,
            self.ssthresh,
            self.snd_wnd,
            self.srtt_us
        )?;
        self.rcv_wnd.map_or(Ok(()), |wnd| write!(f, " {wnd}"))
    }
}

/// An address as the kernel's `%pISpc` prints that of a socket: an IPv6 socket's in brackets, mapped where it is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint(SocketAddr, Family);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (SocketAddr::V4(v4), Family::Inet6) => write!(f, "[{}]:{}", v4.ip().to_ipv6_mapped(), v4.port()),
            (address, _) => write!(f, "{address}"),
        }
    }
}

/// Which samples to write.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Of these flows; all where empty.
    pub flows: Vec<i64>,
    /// Of this session; where none is given, the flows must be of one.
    pub session: Option<i64>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Lines.
    pub lines: u64,
    /// Samples without sequence numbers or cwnd, which have no line.
    pub left_out: u64,
}

/// Why it was not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] tcpprobe_trace::Error),
    /// The lines cannot be written.
    #[error("cannot write the lines: {0}")]
    Write(#[from] std::io::Error),
    /// There is no such flow, or it is of another session.
    #[error(
        "{trace}: no flow {flow}{}; `tcpprobe show {trace}` lists them",
        of_session(*session),
        trace = trace.display()
    )]
    NoFlow {
        /// The trace.
        trace: PathBuf,
        /// The flow asked for.
        flow: i64,
        /// The session asked for.
        session: Option<i64>,
    },
    /// Nothing to choose from.
    #[error(
        "{trace}: no flows in session {session}; `tcpprobe show {trace}` says what it holds",
        trace = trace.display()
    )]
    NoSession {
        /// The trace.
        trace: PathBuf,
        /// The session asked for.
        session: i64,
    },
    /// The trace has no flows at all.
    #[error(
        "{trace}: no flows: nothing was recorded or imported; `tcpprobe show {trace}` says what it holds",
        trace = trace.display()
    )]
    NoFlows {
        /// The trace.
        trace: PathBuf,
    },
    /// The format has one time axis.
    #[error(
        "{}: flows of the sessions {}: their times count from different starts; choose one with --session",
        trace.display(),
        list(sessions)
    )]
    SeveralSessions {
        /// The trace.
        trace: PathBuf,
        /// Which.
        sessions: Vec<i64>,
    },
}

fn of_session(session: Option<i64>) -> String {
    session.map(|s| format!(" in session {s}")).unwrap_or_default()
}

fn list(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

/// Writes a trace's received segments as lines, in the order of time.
///
/// # Errors
/// The selection names nothing, or more than one session; the trace or the output fails.
pub fn export(trace: &Path, selection: &Selection, out: &mut dyn Write) -> Result<Written, Error> {
    let reader = ReceivedReader::open(trace)?;
    let flows = reader.flows()?;
    let of_session = |of: i64| selection.session.is_none_or(|s| s == of);
    for &flow in &selection.flows {
        if !flows.iter().any(|&(id, of)| id == flow && of_session(of)) {
            return Err(Error::NoFlow { trace: trace.to_owned(), flow, session: selection.session });
        }
    }
    let wanted = |id: i64| selection.flows.is_empty() || selection.flows.contains(&id);
    let mut sessions: Vec<i64> =
        flows.iter().filter(|&&(id, of)| wanted(id) && of_session(of)).map(|&(_, of)| of).collect();
    sessions.sort_unstable();
    sessions.dedup();
    let session = match sessions[..] {
        [] => {
            let trace = trace.to_owned();
            return Err(match selection.session {
                Some(session) => Error::NoSession { trace, session },
                None => Error::NoFlows { trace },
            });
        }
        [one] => one,
        _ => return Err(Error::SeveralSessions { trace: trace.to_owned(), sessions }),
    };
    let mut written = Written { lines: 0, left_out: 0 };
    reader.each(session, wanted, |r| -> Result<(), Error> {
        match Entry::of_received(r) {
            Some(entry) => {
                writeln!(out, "{entry}")?;
                written.lines += 1;
            }
            None => written.left_out += 1,
        }
        Ok(())
    })?;
    out.flush()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_the_kernel_s() {
        // the kernel's function: the threshold itself in CWR and Recovery, else at least three quarters of cwnd
        assert_eq!(current_ssthresh(Some(20), 40, Some(0)), 30);
        assert_eq!(current_ssthresh(Some(20), 40, Some(2)), 20);
        assert_eq!(current_ssthresh(Some(20), 40, Some(3)), 20);
        assert_eq!(current_ssthresh(Some(35), 40, Some(4)), 35);
        assert_eq!(current_ssthresh(None, 40, None), 30);
        assert_eq!(current_ssthresh(Some(20), 40, None), 20);
    }

    #[test]
    fn addresses_are_those_of_the_socket() {
        let shown = |a: &str, family| Endpoint(a.parse().unwrap(), family).to_string();
        assert_eq!(shown("192.0.2.1:80", Family::Inet), "192.0.2.1:80");
        assert_eq!(shown("192.0.2.1:80", Family::Inet6), "[::ffff:192.0.2.1]:80");
        assert_eq!(shown("[2001:db8::1]:80", Family::Inet6), "[2001:db8::1]:80");
    }
}
