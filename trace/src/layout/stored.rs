//! From columns to a sample: the other way round than [`super::Bases`] goes.

use super::{
    ACK_COLUMNS, ACK_FLAG, BYTES_ACKED, BYTES_SENT, Bases, Columns, DELIVERED, PER_FLAGS, PER_KIND, RTO_US, RTTVAR_US,
    SAMPLE_COLUMNS, SEGS_OUT, SRTT_US, TSVAL_TICK_NS, rto_from,
};
use crate::fields::FIELDS;
use crate::sample::{Kind, Phase};

/// What a row of `sample_rows` says, put together with its run. Takes nothing for granted: numbers of any size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) mono_off: Option<i64>,
    pub(crate) clock_off: Option<i64>,
    /// `None`: a code that there is not.
    pub(crate) what: Option<(Kind, Phase)>,
    /// The segment's, or without one 0.
    pub(crate) flags: i64,
    /// The segment's number in the socket's own sequence space, and in its peer's.
    pub(crate) own: Option<u32>,
    pub(crate) peer: Option<u32>,
    pub(crate) len: Option<i64>,
    pub(crate) tsval: Option<u32>,
    pub(crate) ip_id: Option<u16>,
    pub(crate) snd_nxt: Option<u32>,
    pub(crate) in_flight: Option<u32>,
    pub(crate) notsent: Option<i64>,
    pub(crate) rcv_nxt: Option<u32>,
    pub(crate) bytes_sent: Option<i64>,
    pub(crate) segs_out: Option<i64>,
    /// From the run's base, in the own sequence space.
    una_off: i64,
}

/// Kind, phase and flags of `what`.
fn decoded(what: i64) -> (Option<(Kind, Phase)>, i64) {
    let code = u8::try_from(what.rem_euclid(PER_FLAGS)).unwrap_or(0);
    let kind_phase = Kind::from_code(code / PER_KIND as u8).zip(Phase::from_code(code % PER_KIND as u8));
    (kind_phase.filter(|_| what >= 0), (what / PER_FLAGS) ^ ACK_FLAG)
}

impl Stored {
    /// From columns in the order of [`SAMPLE_COLUMNS`].
    pub(crate) fn new(bases: &Bases, columns: &Columns<{ SAMPLE_COLUMNS.len() }>) -> Stored {
        let [mono, clock, what, own, peer, len, tsval, _, nxt, una, notsent, rcv, sent, segs, ip_id] = *columns;
        let (what, flags) = what.map_or((None, ACK_FLAG), decoded);
        let is_out = what.is_some_and(|(kind, _)| kind.is_out());
        let own_number = (bases.own as u32).wrapping_add(own.unwrap_or(0) as u32);
        let peer_number = (bases.peer as u32).wrapping_add(peer.unwrap_or(0) as u32);
        let nxt_off = nxt.unwrap_or(0);
        let segs_out = segs.map(|n| bases.segs_out.wrapping_add(n));
        let ticks = mono.unwrap_or(0) / TSVAL_TICK_NS;
        let tsval_base = if is_out { bases.tsval_out } else { bases.tsval_in };
        let ip_base = if is_out { bases.ip_id_out.wrapping_add(segs_out.unwrap_or(0)) } else { bases.ip_id_in };
        let moved = own.unwrap_or(0).wrapping_add(nxt_off).wrapping_add(if is_out { len.unwrap_or(0) } else { 0 });
        Stored {
            mono_off: mono.map(|m| bases.mono_off.wrapping_add(m)),
            clock_off: clock.map(|c| bases.clock_off.wrapping_add(c)),
            what,
            flags,
            own: own.map(|_| own_number),
            peer: peer.map(|_| peer_number),
            len,
            tsval: tsval.map(|t| tsval_base.wrapping_add(ticks).wrapping_add(t) as u32),
            ip_id: ip_id.map(|ip| ip_base.wrapping_add(ip) as u16),
            snd_nxt: nxt.map(|n| own_number.wrapping_add(n as u32)),
            in_flight: una.map(|u| nxt_off.wrapping_add(u) as u32),
            notsent,
            rcv_nxt: rcv.map(|r| peer_number.wrapping_add(r as u32)),
            bytes_sent: sent.map(|s| bases.bytes_sent.wrapping_add(moved).wrapping_add(s)),
            segs_out,
            una_off: own.unwrap_or(0).wrapping_sub(una.unwrap_or(0)),
        }
    }

    /// The number that the sample's segment begins with, and its acknowledgment number.
    pub(crate) fn seq_ack(&self) -> (Option<u32>, Option<u32>) {
        match self.what {
            Some((kind, _)) if kind.is_out() => (self.own, self.peer),
            _ => (self.peer, self.own),
        }
    }

    /// The oldest unacknowledged number.
    pub(crate) fn snd_una(&self) -> Option<u32> {
        self.snd_nxt.zip(self.in_flight).map(|(nxt, bytes)| nxt.wrapping_sub(bytes))
    }

    /// The fields that are stored as distances but no numbers of the wire; the columns of its ACK state are in the
    /// order of [`ACK_COLUMNS`], and `state` has what is stored as it is.
    pub(crate) fn fields(
        &self,
        bases: &Bases,
        columns: &Columns<{ ACK_COLUMNS.len() }>,
        state: &mut [Option<i64>; FIELDS.len()],
    ) {
        let [_, acked, delivered, rto] = *columns;
        state[BYTES_SENT] = self.bytes_sent;
        state[SEGS_OUT] = self.segs_out;
        state[BYTES_ACKED] = acked.map(|a| bases.bytes_acked.wrapping_add(self.una_off).wrapping_add(a));
        state[DELIVERED] = delivered.map(|d| bases.delivered.wrapping_add(d));
        state[RTO_US] = rto.map(|r| rto_from(state[SRTT_US], state[RTTVAR_US]).wrapping_add(r));
    }
}
