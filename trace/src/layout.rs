//! How a sample becomes a row of integers that are small, and a sample again.
//!
//! SQLite stores 0 and 1 in no bytes, and other integers in 1, 2, 3, 4, 6 or 8. Samples of a flow that follow each other
//! without a hole share a *run*, which has what they have in common, and bases from which their numbers are stored as
//! distances. What follows from other columns is stored as the distance from that, which is 0 as a rule. Owns this
//! arithmetic; [`crate::schema`] has the same in SQL, for every client, and must agree with it.

mod stored;

use crate::fields::{Moves, index};
use crate::sample::{Kind, Phase, Segment, State};
use crate::schema::stored;

pub(crate) use stored::Stored;

/// Columns of `sample_runs` behind `first_id`, `last_id`, `flow_id`, `first_serial`: what the columns of the run's
/// samples are distances from.
pub(crate) const BASES: [&str; 14] = [
    "mono_off",
    "clock_off",
    "own",
    "peer",
    "tsval_out",
    "tsval_in",
    "segs_out",
    "ip_id_out",
    "ip_id_in",
    "bytes_sent",
    "bytes_acked",
    "delivered",
    "ack_id",
    "seldom_id",
];

/// Columns of `sample_rows` behind `id`, but for the state fields that are stored as they are.
pub(crate) const SAMPLE_COLUMNS: [&str; 15] = [
    "mono_off",
    "clock_off",
    "what",
    "own",
    "peer",
    "len",
    "tsval_off",
    "ack_off",
    "nxt_off",
    "una_off",
    "notsent",
    "rcv_off",
    "sent_off",
    "segs_off",
    "ip_id_off",
];

/// Columns of `ack_rows` behind `id`, but for the state fields that are stored as they are.
pub(crate) const ACK_COLUMNS: [&str; 4] = ["seldom_off", "acked_off", "delivered_off", "rto_off"];

/// `what` is this many times the flags but for ACK, which is turned round, plus the code of kind and phase.
pub(crate) const PER_FLAGS: i64 = 12;
/// The code of kind and phase is this many times the kind, plus the phase.
pub(crate) const PER_KIND: i64 = 3;
/// The flag that is nearly always set.
pub(crate) const ACK_FLAG: i64 = 16;
/// A TSval counts ms as a rule.
pub(crate) const TSVAL_TICK_NS: i64 = 1_000_000;

const SND_NXT: usize = index("snd_nxt");
const WRITE_SEQ: usize = index("write_seq");
const RCV_NXT: usize = index("rcv_nxt");
const BYTES_SENT: usize = index("bytes_sent");
const BYTES_ACKED: usize = index("bytes_acked");
const SEGS_OUT: usize = index("segs_out");
const DELIVERED: usize = index("delivered");
const RTO_US: usize = index("rto_us");
const SRTT_US: usize = index("srtt_us");
const RTTVAR_US: usize = index("rttvar_us");

/// A sample before it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) serial: i64,
    /// ns since `sessions.mono_base_ns`.
    pub(crate) mono_off: i64,
    /// How far the wall clock has moved against the monotonic one since the session's begin, ns.
    pub(crate) clock_off: i64,
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    pub(crate) segment: Option<Segment>,
    /// Payload bytes; known without the segment in some logs.
    pub(crate) len: Option<u32>,
    /// `snd_nxt` - `snd_una`; known without these in some logs.
    pub(crate) in_flight: Option<u32>,
    /// errno of a transmission that failed locally, or 0.
    pub(crate) error: i32,
    /// How often `rcv_nxt` went round unseen since the flow's sample before.
    pub(crate) rcv_laps: i64,
    pub(crate) state: State,
}

impl Plain {
    fn number(&self, field: usize) -> Option<u32> {
        self.state.get(field).map(|v| v as u32)
    }

    /// The segment's number in the socket's own sequence space, and in its peer's.
    fn numbers(&self) -> (Option<u32>, Option<u32>) {
        match self.segment {
            None => (None, None),
            Some(s) if self.kind.is_out() => (Some(s.seq), Some(s.ack)),
            Some(s) => (Some(s.ack), Some(s.seq)),
        }
    }

    /// Where the sample is in both sequence spaces, by its segment or, without one, by the state.
    fn places(&self) -> (Option<u32>, Option<u32>) {
        let (own, peer) = self.numbers();
        (own.or(self.number(SND_NXT)), peer.or(self.number(RCV_NXT)))
    }

    /// How far it is from another sample: in time, and in both sequence spaces.
    pub(crate) fn moved_from(&self, first: &Plain) -> [i64; 3] {
        let ((own, peer), (own_then, peer_then)) = (self.places(), first.places());
        let moved = |now: Option<u32>, then: Option<u32>| now.zip(then).map_or(0, |(now, then)| distance(now, then));
        [self.mono_off.saturating_sub(first.mono_off), moved(own, own_then), moved(peer, peer_then)]
    }

    fn tsval(&self, is_out: bool) -> Option<u32> {
        self.segment.filter(|_| self.kind.is_out() == is_out).and_then(|s| s.tsval)
    }

    fn ip_id(&self, is_out: bool) -> Option<u16> {
        self.segment.filter(|_| self.kind.is_out() == is_out).and_then(|s| s.ip_id)
    }
}

/// Distances of 32-bit numbers, the nearer way.
fn distance(to: u32, from: u32) -> i64 {
    i64::from(to.wrapping_sub(from) as i32)
}

/// How many bytes SQLite takes for an integer with this absolute value.
fn width(size: i64) -> u8 {
    match size {
        0 | 1 => 0,
        2..=0x7f => 1,
        0x80..=0x7fff => 2,
        0x8000..=0x7f_ffff => 3,
        0x80_0000..=0x7fff_ffff => 4,
        _ => 8,
    }
}

/// The base that makes the distances of all of these small: their least, or their middle where that saves bytes.
fn base(values: impl Iterator<Item = i64>) -> i64 {
    let mut range: Option<(i64, i64)> = None;
    for v in values {
        range = Some(range.map_or((v, v), |(low, high)| (low.min(v), high.max(v))));
    }
    let Some((low, high)) = range else { return 0 };
    let span = high.saturating_sub(low);
    if width(span / 2 + 1) < width(span) { low + span / 2 } else { low }
}

/// The same for numbers of 32 bits, which go round.
fn round_base(numbers: impl Iterator<Item = u32> + Clone) -> u32 {
    let Some(first) = numbers.clone().next() else { return 0 };
    first.wrapping_add(base(numbers.map(|n| distance(n, first))) as u32)
}

/// What the samples of a run are stored relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bases {
    pub(crate) mono_off: i64,
    pub(crate) clock_off: i64,
    pub(crate) own: i64,
    pub(crate) peer: i64,
    pub(crate) tsval_out: i64,
    pub(crate) tsval_in: i64,
    pub(crate) segs_out: i64,
    pub(crate) ip_id_out: i64,
    pub(crate) ip_id_in: i64,
    pub(crate) bytes_sent: i64,
    pub(crate) bytes_acked: i64,
    pub(crate) delivered: i64,
    /// Ids of the first sample's rows.
    pub(crate) ack_id: i64,
    pub(crate) seldom_id: i64,
}

/// Columns of a row of `sample_rows` or `ack_rows`, in the order of [`SAMPLE_COLUMNS`] or [`ACK_COLUMNS`].
type Columns<const N: usize> = [Option<i64>; N];

impl Bases {
    /// Good bases for these samples, but for the ids.
    pub(crate) fn of(samples: &[Plain]) -> Bases {
        let all = || samples.iter();
        let mut bases = Bases {
            mono_off: base(all().map(|s| s.mono_off)),
            clock_off: base(all().map(|s| s.clock_off)),
            own: i64::from(round_base(all().filter_map(|s| s.places().0))),
            peer: i64::from(round_base(all().filter_map(|s| s.places().1))),
            segs_out: base(all().filter_map(|s| s.state.get(SEGS_OUT))),
            delivered: base(all().filter_map(|s| s.state.get(DELIVERED))),
            ..Bases::default()
        };
        let mono_off = bases.mono_off;
        let tsval = |is_out| {
            round_base(all().filter_map(move |s| {
                s.tsval(is_out).map(|t| t.wrapping_sub((s.mono_off.wrapping_sub(mono_off) / TSVAL_TICK_NS) as u32))
            }))
        };
        (bases.tsval_out, bases.tsval_in) = (i64::from(tsval(true)), i64::from(tsval(false)));
        // these follow from others as a rule: the first one's stays until something happens
        let segs = |s: &Plain| s.state.get(SEGS_OUT).unwrap_or(0) as u16;
        bases.ip_id_out = all().find_map(|s| s.ip_id(true).map(|ip| ip.wrapping_sub(segs(s)))).map_or(0, i64::from);
        let first_in = all().find_map(|s| s.ip_id(false)).unwrap_or(0);
        let ids_in = all().filter_map(|s| s.ip_id(false)).map(|ip| i64::from(ip.wrapping_sub(first_in) as i16));
        bases.ip_id_in = i64::from(first_in.wrapping_add(base(ids_in) as u16));
        let sent = |s: &Plain| Some(s.state.get(BYTES_SENT)?.wrapping_sub(bases.sent(s)));
        let acked = |s: &Plain| Some(s.state.get(BYTES_ACKED)?.wrapping_sub(bases.acked(s)));
        let (sent, acked) = (all().find_map(sent), all().find_map(acked));
        bases.bytes_sent = sent.unwrap_or(0);
        bases.bytes_acked = acked.unwrap_or(0);
        bases
    }

    /// In the order of [`BASES`].
    pub(crate) fn columns(&self) -> [i64; BASES.len()] {
        let Bases { mono_off, clock_off, own, peer, tsval_out, tsval_in, segs_out, ip_id_out, ip_id_in, .. } = *self;
        let Bases { bytes_sent, bytes_acked, delivered, ack_id, seldom_id, .. } = *self;
        [
            mono_off,
            clock_off,
            own,
            peer,
            tsval_out,
            tsval_in,
            segs_out,
            ip_id_out,
            ip_id_in,
            bytes_sent,
            bytes_acked,
            delivered,
            ack_id,
            seldom_id,
        ]
    }

    /// From columns in the order of [`BASES`].
    pub(crate) fn from(columns: [i64; BASES.len()]) -> Bases {
        let [mono_off, clock_off, own, peer, tsval_out, tsval_in, segs_out, ip_id_out, ip_id_in, rest @ ..] = columns;
        let [bytes_sent, bytes_acked, delivered, ack_id, seldom_id] = rest;
        Bases {
            mono_off,
            clock_off,
            own,
            peer,
            tsval_out,
            tsval_in,
            segs_out,
            ip_id_out,
            ip_id_in,
            bytes_sent,
            bytes_acked,
            delivered,
            ack_id,
            seldom_id,
        }
    }

    /// Distances in the own sequence space: of the segment's number from the base, of `snd_nxt` from the segment's, of
    /// the segment's from `snd_una`.
    fn own(&self, s: &Plain) -> [Option<i64>; 3] {
        let own = s.numbers().0.map(|n| distance(n, self.own as u32));
        let from = (self.own as u32).wrapping_add(own.unwrap_or(0) as u32);
        let nxt = s.number(SND_NXT).map(|n| distance(n, from));
        let una = s.in_flight.map(|bytes| i64::from(bytes.wrapping_sub(nxt.unwrap_or(0) as u32) as i32));
        [own, nxt, una]
    }

    /// `bytes_sent` as it follows from `snd_nxt` where nothing is sent again. The segment of a transmit sample counts.
    fn sent(&self, s: &Plain) -> i64 {
        let [own, nxt, _] = self.own(s);
        let len = if s.kind.is_out() { s.len.unwrap_or(0) } else { 0 };
        self.bytes_sent.wrapping_add(own.unwrap_or(0) + nxt.unwrap_or(0) + i64::from(len))
    }

    /// `bytes_acked` as it follows from `snd_una`.
    fn acked(&self, s: &Plain) -> i64 {
        let [own, _, una] = self.own(s);
        self.bytes_acked.wrapping_add(own.unwrap_or(0) - una.unwrap_or(0))
    }

    /// A sample's columns, but for the id of its row of `ack_rows`, which is 0 here.
    pub(crate) fn sample(&self, s: &Plain) -> Columns<{ SAMPLE_COLUMNS.len() }> {
        let [own, nxt_off, una_off] = self.own(s);
        let peer = s.numbers().1.map(|n| distance(n, self.peer as u32));
        let peer_from = (self.peer as u32).wrapping_add(peer.unwrap_or(0) as u32);
        let mono = s.mono_off.wrapping_sub(self.mono_off);
        let is_out = s.kind.is_out();
        let flags = s.segment.map_or(ACK_FLAG, |s| i64::from(s.flags));
        let what = (flags ^ ACK_FLAG) * PER_FLAGS + PER_KIND * s.kind as i64 + s.phase as i64;
        let tsval_base = if is_out { self.tsval_out } else { self.tsval_in } as u32;
        let tsval = s.segment.and_then(|s| s.tsval);
        let segs = s.state.get(SEGS_OUT);
        let ip_base = if is_out { self.ip_id_out.wrapping_add(segs.unwrap_or(0)) } else { self.ip_id_in } as u16;
        let ip_id = s.segment.and_then(|s| s.ip_id);
        [
            Some(mono),
            Some(s.clock_off.wrapping_sub(self.clock_off)),
            Some(what),
            own,
            peer,
            s.len.map(i64::from),
            tsval.map(|t| distance(t, tsval_base.wrapping_add((mono / TSVAL_TICK_NS) as u32))),
            Some(0),
            nxt_off,
            una_off,
            s.number(WRITE_SEQ).zip(s.number(SND_NXT)).map(|(end, nxt)| distance(end, nxt)),
            s.number(RCV_NXT).map(|n| distance(n, peer_from)),
            s.state.get(BYTES_SENT).map(|sent| sent.wrapping_sub(self.sent(s))),
            segs.map(|n| n.wrapping_sub(self.segs_out)),
            ip_id.map(|ip| i64::from(ip.wrapping_sub(ip_base) as i16)),
        ]
    }

    /// The columns of its ACK state, but for the id of its row of `seldom_rows`, which is 0 here.
    pub(crate) fn ack(&self, s: &Plain) -> Columns<{ ACK_COLUMNS.len() }> {
        [
            Some(0),
            s.state.get(BYTES_ACKED).map(|acked| acked.wrapping_sub(self.acked(s))),
            s.state.get(DELIVERED).map(|n| n.wrapping_sub(self.delivered)),
            s.state.get(RTO_US).map(|rto| rto.wrapping_sub(rto_from(s.state.get(SRTT_US), s.state.get(RTTVAR_US)))),
        ]
    }
}

/// RTO as RFC 6298 has it, before the kernel rounds it to ticks.
fn rto_from(srtt_us: Option<i64>, rttvar_us: Option<i64>) -> i64 {
    srtt_us.unwrap_or(0).wrapping_add(rttvar_us.unwrap_or(0))
}

/// Fields of a table that are stored as they are.
pub(crate) fn picked(state: &State, moves: Moves) -> impl Iterator<Item = Option<i64>> + '_ {
    stored(moves).map(|(i, _)| state.get(i))
}
