//! Whether a trace is consistent with itself and with how TCP works: what must hold whatever was recorded.
//!
//! Owns the list of checks ([`RECORDING`], [`JOIN`]; `docs/verify.md` says why each must hold) and runs them in one
//! pass over the samples of each flow and over the packets of each capture, with memory for flows and captures but not
//! for samples or packets. Takes nothing in the file for granted: values of another type, rows that name rows that are
//! not there and numbers beyond any range become violations. Must not know captures, or how the join finds a sample.

mod capture;
mod columns;
mod flow;
mod internals;
mod losses;
mod matched;
mod packet;
mod sample;
mod sender;
mod session;
mod shared;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use crate::reader::steps::steps;
use crate::store::{failed, open_read};
use crate::{Error, Result};

/// Something that must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name in the output.
    pub name: &'static str,
    /// What must hold, in one line.
    pub rule: &'static str,
}

const fn check(name: &'static str, rule: &'static str) -> Check {
    Check { name, rule }
}

/// What must hold in every recording.
pub const RECORDING: &[Check] = &[
    check("values", "columns hold numbers of their range, and name rows that are there"),
    check("serials", "within a flow serials rise"),
    check("gaps", "every gap in a flow's serials is in losses, and every loss of a flow is a gap"),
    check("session_counts", "sessions.samples and sessions.lost count the rows"),
    check("anchors", "clock anchors are brackets, and rise"),
    check("sample_time", "a flow's samples do not go back in time, and lie within their session's anchors"),
    check("flow_span", "first_ns and last_ns of a flow enclose its samples, and closed is what they say"),
    check("kind_phase", "kind, phase and segment of a sample belong together"),
    check("counters", "cumulative counters never fall"),
    check("snd_una_rises", "snd_una never goes back"),
    check("snd_nxt_rises", "snd_nxt never goes back"),
    check("rcv_nxt_rises", "rcv_nxt never goes back"),
    check("window_edges", "snd_una ≤ snd_nxt ≤ write_seq"),
    check("in_flight", "what is in flight or acknowledged was sent"),
    check("scoreboard", "sacked_out + lost_out ≤ packets_out ≤ bytes_in_flight, retrans_out ≤ packets_out"),
    check("state_range", "ca_state, sk_state and snd_cwnd are values that the kernel has"),
    check("new_data", "new data begins at snd_nxt"),
    check("retransmitted", "what is retransmitted lies between snd_una and snd_nxt, and is counted"),
    check("no_data", "a segment without data lies between snd_una - 1 and snd_nxt"),
    check("acknowledges", "a sent segment acknowledges nothing beyond rcv_nxt"),
    check("internals", "internal values are of one congestion control, and of a sample of their flow"),
    check("internals_range", "internal values are some that the kernel has"),
];

/// What must hold in a finished join.
pub const JOIN: &[Check] = &[
    check("references", "a packet names a flow that is there, and a sample of that flow"),
    check("match_reason", "match, reason, sample and carried edges of a packet belong together"),
    check("direction", "a packet's sample is of its direction, and of a segment that left"),
    check("exact", "an exact packet is its sample's segment, number by number"),
    check("within", "a packet that is within begins in its sample's segment, and samples cover the rest"),
    check("as_sent", "snd_una ≤ seq and the end ≤ snd_nxt once it was sent"),
    check("carried", "carried edges lie between those of the packet's sample and of the flow's next sample"),
    check("sacked", "sacked_bytes ≤ bytes_in_flight"),
    check(
        "delay",
        "delay_ns is packet time minus sample time, but for a clock that was set, and its variation is not negative",
    ),
    check("sightings", "packets of one sample are its parts, or numbered copies of them"),
    check("frames", "a frame has one row for each of its sockets, at most two, which do not contradict each other"),
    check("capture_counts", "packets, tcp_packets, joined and the frames not joined count the rows"),
    check("sample_counts", "what became of the samples agrees with the packets"),
];

/// Something that must hold and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the check.
    pub check: &'static str,
    /// Where.
    pub place: Place,
    /// What is wrong, in words.
    pub text: String,
}

/// Where something is wrong; what does not apply is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The session.
    pub session_id: Option<i64>,
    /// The flow.
    pub flow_id: Option<i64>,
    /// The sample's id.
    pub sample_id: Option<i64>,
    /// The sample's serial in its flow.
    pub serial: Option<i64>,
    /// The capture's path.
    pub capture: Option<String>,
    /// The packet: its frame number in the capture.
    pub number: Option<i64>,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sessions that did not end in order, or are still running.
    pub incomplete: Vec<i64>,
    /// Sessions.
    pub sessions: u64,
    /// Flows.
    pub flows: u64,
    /// Samples.
    pub samples: u64,
    /// Joined captures; without any, only [`RECORDING`] was checked.
    pub captures: u64,
    /// Rows of packets.
    pub packets: u64,
    /// Violations by check.
    pub violations: BTreeMap<&'static str, u64>,
}

impl Report {
    /// The checks that ran.
    pub fn checks(&self) -> impl Iterator<Item = &'static Check> {
        let join = if self.captures > 0 { JOIN } else { &[] };
        RECORDING.iter().chain(join)
    }

    /// Violations of all checks.
    pub fn violated(&self) -> u64 {
        self.violations.values().sum()
    }
}

/// Checks a trace and hands over each violation as it is found: recordings first, flow by flow, then captures.
///
/// All of it is read as of one moment, so that a trace that is still being recorded can be checked too.
///
/// # Errors
///
/// Where the trace cannot be read, or `each` fails.
pub fn verify(path: &Path, each: &mut dyn FnMut(&Violation) -> std::io::Result<()>) -> Result<Report> {
    let db = open_read(path)?;
    db.execute_batch("BEGIN").map_err(failed(path, "cannot verify"))?;
    let mut run = Run { db: &db, path, each, report: Report::default(), jumps_ns: jumps_ns(&db, path)? };
    let mut sessions = session::check(&mut run)?;
    flow::check(&mut run, &mut sessions)?;
    session::check_counts(&mut run, &sessions)?;
    internals::check(&mut run)?;
    capture::check(&mut run)?;
    Ok(run.report)
}

/// A check of a trace under way.
struct Run<'a> {
    db: &'a Connection,
    path: &'a Path,
    each: &'a mut dyn FnMut(&Violation) -> std::io::Result<()>,
    report: Report,
    /// By how much the wall clock was set, each time; in order of size.
    jumps_ns: Vec<i64>,
}

fn jumps_ns(db: &Connection, path: &Path) -> Result<Vec<i64>> {
    let mut jumps_ns: Vec<i64> = steps(db, path)?.into_iter().map(|step| step.jump_ns).collect();
    jumps_ns.sort_unstable();
    Ok(jumps_ns)
}

impl<'a> Run<'a> {
    fn violated(&mut self, check: &'static str, place: Place, text: String) -> Result<()> {
        *self.report.violations.entry(check).or_insert(0) += 1;
        (self.each)(&Violation { check, place, text })
            .map_err(|cause| Error::Io { path: Path::new("output").to_owned(), cause })
    }

    /// Wraps SQLite's errors.
    fn failed(&self) -> impl Fn(rusqlite::Error) -> Error + use<'a> {
        failed(self.path, "cannot verify")
    }
}

/// Is `a` behind `b` on the circle of sequence numbers?
fn behind(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
