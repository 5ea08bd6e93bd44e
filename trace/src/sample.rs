//! What passes from the sampler to the trace and from the trace to the join.
//!
//! Owns the types and their names; must not know where they come from or where they are kept.

use std::net::SocketAddr;

use crate::fields::{FIELDS, KINDS, PHASES};

/// What a sample was taken for; the codes are positions in [`KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A segment was received.
    Ack = 0,
    /// A segment was sent that is no retransmission.
    Send = 1,
    /// A segment was sent again.
    Retransmit = 2,
    /// The TCP state changed.
    State = 3,
}

/// Where relative to the segment's processing a sample was taken; the codes are positions in [`PHASES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Before TCP processed the received segment.
    Before = 0,
    /// After it, or at a change of state.
    After = 1,
    /// On the way out; `snd_nxt` and `packets_out` are without this segment.
    Transmit = 2,
}

impl Kind {
    /// From a code in a record or table.
    pub fn from_code(code: u8) -> Option<Kind> {
        [Kind::Ack, Kind::Send, Kind::Retransmit, Kind::State].get(usize::from(code)).copied()
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        KINDS[self as usize].0
    }

    /// Was this socket the segment's sender?
    pub fn is_out(self) -> bool {
        matches!(self, Kind::Send | Kind::Retransmit)
    }
}

impl Phase {
    /// From a code in a record or table.
    pub fn from_code(code: u8) -> Option<Phase> {
        [Phase::Before, Phase::After, Phase::Transmit].get(usize::from(code)).copied()
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        PHASES[self as usize].0
    }
}

/// The segment that a sample was taken for, as the socket's host saw it: before segmentation, after merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the first byte (or of SYN or FIN).
    pub seq: u32,
    /// Payload bytes, without SYN and FIN.
    pub len: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// The nine flag bits of the header, FIN lowest.
    pub flags: u16,
    /// Timestamp value (RFC 7323), where the probe point knows it.
    pub tsval: Option<u32>,
    /// Identification of its IPv4 packet, where the probe point knows it; of the first one that a larger segment is
    /// cut into. A sender counts it up with every packet, retransmissions too (`ip_select_ident_segs`).
    pub ip_id: Option<u16>,
}

/// A socket's state: a value, in the units of the columns, for each field that the kernel has and that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    present: u64,
    values: [i64; FIELDS.len()],
}

const _: () = assert!(FIELDS.len() <= 64, "State::present has one bit a field");

impl Default for State {
    fn default() -> Self {
        State { present: 0, values: [0; FIELDS.len()] }
    }
}

impl State {
    /// The value of a field by its position in [`FIELDS`], `None` where it is NULL.
    pub fn get(&self, field: usize) -> Option<i64> {
        (self.present >> field & 1 == 1).then(|| self.values[field])
    }

    /// Sets or clears a field by its position in [`FIELDS`].
    pub fn set(&mut self, field: usize, value: Option<i64>) {
        match value {
            Some(v) => {
                self.present |= 1 << field;
                self.values[field] = v;
            }
            None => {
                self.present &= !(1 << field);
                self.values[field] = 0;
            }
        }
    }
}

/// Lengths of which a log does not say where in the sequence space they lie: a [`Sample`] without a segment, or without
/// `snd_nxt` and `snd_una`, can still have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unplaced {
    /// Payload bytes of the segment.
    pub len: Option<u32>,
    /// Bytes sent and not yet acknowledged.
    pub bytes_in_flight: Option<u32>,
}

/// One observation of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The flow, by the sampler's number, unique in its session.
    pub flow: u64,
    /// Position in the flow, from 1; a missing number is a sample that was lost.
    pub serial: u64,
    /// CLOCK_MONOTONIC, in ns.
    pub mono_ns: i64,
    /// What it was taken for.
    pub kind: Kind,
    /// When it was taken.
    pub phase: Phase,
    /// The segment; `None` for a change of state that no single segment made.
    pub segment: Option<Segment>,
    /// TCP's counters say that it sent something between the flow's last transmission and this one that no probe was
    /// shown. The serial number before this sample's is left out for it.
    pub unseen_before: bool,
    /// Of the serial numbers missing before this sample, how many the kernel refused a lock for
    /// ([`LossCause::LockRefused`]).
    pub refused_before: u16,
    /// Why a retransmission failed locally, as a positive errno; 0 where it did not.
    pub error: i32,
    /// The sender's state.
    pub state: State,
}

/// What a flow is: one TCP socket in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The sampler's number of the flow, unique in its session.
    pub key: u64,
    /// When this was observed, CLOCK_MONOTONIC in ns.
    pub mono_ns: i64,
    /// The socket's own address; IPv4-mapped addresses are IPv4.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The socket's address family.
    pub family: Family,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The kernel's socket cookie, where it has one.
    pub cookie: Option<u64>,
    /// Name of the congestion control.
    pub congestion: Option<String>,
    /// Shift of the windows that the peer sends, once negotiated.
    pub snd_wscale: Option<u8>,
    /// Shift of the windows that this socket sends, once negotiated.
    pub rcv_wscale: Option<u8>,
}

/// A socket's address family: an `inet6` socket may well speak IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// AF_INET.
    Inet,
    /// AF_INET6.
    Inet6,
}

impl Family {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Inet6 => "inet6",
        }
    }
}

/// Which of a session's segments were sampled; names as in `sessions.sample_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampled {
    /// All.
    #[default]
    All,
    /// Those at which cwnd, ssthresh or ca_state had changed.
    Changes,
    /// Those that were received.
    Received,
}

impl Sampled {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Sampled::All => "all",
            Sampled::Changes => "cwnd",
            Sampled::Received => "received",
        }
    }
}

/// Why samples were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LossCause {
    /// The ring buffer had no room: the reader was too slow.
    RingFull,
    /// The ring buffer, or the table of sockets, had room, but the kernel refused its lock time and again: since Linux
    /// 6.15 it gives up on a lock of BPF that another processor holds for too long.
    LockRefused,
    /// More sockets at once than the sampler can follow.
    FlowTableFull,
    /// A segment left whose TCP header could not be read (encrypted or encapsulated before the first device).
    HeaderUnreadable,
    /// A record that the reader could not understand.
    BadRecord,
    /// TCP sent something that the kernel did not show to the probe: the probe did not fire, or the segment was
    /// dropped (by a packet filter) before the point at which segments are watched.
    NotShown,
    /// The program that wrote an imported log says that it left some out.
    NotLogged,
    /// A kprobe, of any socket, that did not run because another one was running on the same processor (the kernel's
    /// `nmissed`). No sample: where one is missing for it, that has its own cause.
    ProbeMissed,
    /// A program that was not run, for any socket, because one was running on the same processor already
    /// (`recursion_misses` of `struct bpf_prog_info`). No sample either.
    Recursion,
    /// The return of a function was not shown: a received segment has no `after` sample. It leaves no hole in the
    /// serials.
    ReturnMissed,
}

impl LossCause {
    /// Are samples counted? Otherwise runs of probes that did not take place, for whatever socket: they are written
    /// down, but do not count as lost samples.
    pub fn is_of_samples(self) -> bool {
        !matches!(self, LossCause::ProbeMissed | LossCause::Recursion)
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            LossCause::RingFull => "ring_full",
            LossCause::LockRefused => "lock_refused",
            LossCause::FlowTableFull => "flow_table_full",
            LossCause::HeaderUnreadable => "header_unreadable",
            LossCause::BadRecord => "bad_record",
            LossCause::NotShown => "not_shown",
            LossCause::NotLogged => "not_logged",
            LossCause::ProbeMissed => "probe_missed",
            LossCause::Recursion => "recursion",
            LossCause::ReturnMissed => "return_missed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_positions_in_the_lists() {
        for (code, (name, _)) in KINDS.iter().enumerate() {
            assert_eq!(Kind::from_code(code as u8).map(Kind::name), Some(*name));
        }
        for (code, (name, _)) in PHASES.iter().enumerate() {
            assert_eq!(Phase::from_code(code as u8).map(Phase::name), Some(*name));
        }
        assert_eq!(Kind::from_code(KINDS.len() as u8), None);
        assert_eq!(Phase::from_code(PHASES.len() as u8), None);
    }

    #[test]
    fn a_cleared_field_is_not_zero() {
        let mut s = State::default();
        assert_eq!(s.get(3), None);
        s.set(3, Some(0));
        assert_eq!(s.get(3), Some(0));
        s.set(3, None);
        assert_eq!(s, State::default());
    }
}
