//! What the kernel's TCP keeps true at every moment and from one moment to the next, sample by sample.
//!
//! Owns the invariants of `struct tcp_sock` as far as samples show them; must not know tables.

use super::sample::{ACK, RST, SYN, Sample};
use super::session::Session;
use super::{Place, Run, behind};
use crate::Result;
use crate::fields::index;
use crate::sample::{Kind, Phase};

/// A sample, and the flow's sample before it.
pub(super) struct Moment<'a> {
    pub(super) session: Option<&'a Session>,
    pub(super) last: Option<&'a Sample>,
    pub(super) now: &'a Sample,
    /// Are serials missing between them?
    pub(super) gap: bool,
}

/// `include/net/tcp_states.h`.
const TCP_SYN_SENT: i64 = 2;
/// As above.
const TCP_CLOSE: i64 = 7;
/// As above: `TCP_CLOSING`, the last that a socket with a sender's state is in.
const TCP_CLOSING: i64 = 11;
/// `TCP_CA_Loss` of `enum tcp_ca_state`, the last.
const TCP_CA_LOSS: i64 = 4;

const BYTES_SENT: usize = index("bytes_sent");
const BYTES_ACKED: usize = index("bytes_acked");
const BYTES_RETRANS: usize = index("bytes_retrans");
const PACKETS_OUT: usize = index("packets_out");
const RETRANS_OUT: usize = index("retrans_out");
const SACKED_OUT: usize = index("sacked_out");
const LOST_OUT: usize = index("lost_out");
const SEGS_OUT: usize = index("segs_out");
const SND_CWND: usize = index("snd_cwnd");
const CA_STATE: usize = index("ca_state");
const SK_STATE: usize = index("sk_state");

/// Counters of 64 bits, and those of 32, which wrap.
const COUNTERS: [(&str, usize, bool); 6] = [
    ("bytes_sent", BYTES_SENT, false),
    ("bytes_acked", BYTES_ACKED, false),
    ("bytes_retrans", BYTES_RETRANS, false),
    ("segs_out", SEGS_OUT, true),
    ("delivered", index("delivered"), true),
    ("lost", index("lost"), true),
];

pub(super) fn check(run: &mut Run<'_>, at: &Place, moment: &Moment<'_>) -> Result<()> {
    let mut said = |check, text| run.violated(check, at.clone(), text);
    kind(moment, &mut said)?;
    window(moment.now, &mut said)?;
    scoreboard(moment.now, &mut said)?;
    if let Some(last) = moment.last {
        counters(last, moment.now, &mut said)?;
        rises(moment, last, &mut said)?;
    }
    segment(moment, &mut said)
}

type Said<'a> = dyn FnMut(&'static str, String) -> Result<()> + 'a;

fn kind(moment: &Moment<'_>, said: &mut Said<'_>) -> Result<()> {
    let s = moment.now;
    let Some((kind, phase)) = s.what else {
        return said("kind_phase", "kind and phase are none that there are".into());
    };
    let belong = match kind {
        Kind::Ack => phase != Phase::Transmit,
        Kind::Send => phase == Phase::Transmit,
        Kind::Retransmit => phase != Phase::Before,
        Kind::State => phase == Phase::After,
    };
    if !belong {
        let text = format!("kind {} has no phase {}", kind.name(), phase.name());
        said("kind_phase", text)?;
    }
    let imported = moment.session.is_some_and(|s| s.imported);
    if kind != Kind::State && s.segment.is_none() && !imported {
        said("kind_phase", format!("kind {} names no segment", kind.name()))?;
    }
    Ok(())
}

fn window(s: &Sample, said: &mut Said<'_>) -> Result<()> {
    if let Some(flight) = s.in_flight
        && !(0..1 << 31).contains(&flight)
    {
        said("window_edges", format!("snd_una is after snd_nxt: bytes_in_flight is {flight}"))?;
    }
    if let Some(notsent) = s.notsent.filter(|&n| n < 0) {
        said("window_edges", format!("write_seq is {} before snd_nxt", notsent.unsigned_abs()))?;
    }
    let flight = s.in_flight.filter(|flight| (0..1 << 31).contains(flight));
    if let (Some(flight), Some(acked), Some(sent)) = (flight, s.get(BYTES_ACKED), s.get(BYTES_SENT)) {
        // SYN and FIN take sequence space, and are no bytes
        if i128::from(flight) + i128::from(acked) > i128::from(sent) + 2 {
            let text = format!("{flight} bytes are in flight and {acked} acknowledged, but bytes_sent is {sent}");
            said("in_flight", text)?;
        }
    }
    Ok(())
}

fn scoreboard(s: &Sample, said: &mut Said<'_>) -> Result<()> {
    if let Some(state) = s.get(CA_STATE).filter(|c| *c > TCP_CA_LOSS) {
        said("state_range", format!("ca_state is {state}"))?;
    }
    if let Some(state) = s.get(SK_STATE).filter(|c| !(1..=TCP_CLOSING).contains(c)) {
        said("state_range", format!("sk_state is {state}"))?;
    }
    if s.get(SND_CWND) == Some(0) {
        said("state_range", "snd_cwnd is 0".into())?;
    }
    // a socket that breaks off forgets its queue, and leaves the other counts as they are (tcp_write_queue_purge)
    if s.get(SK_STATE) == Some(TCP_CLOSE) {
        return Ok(());
    }
    let Some(out) = s.get(PACKETS_OUT) else { return Ok(()) };
    if let (Some(sacked), Some(lost)) = (s.get(SACKED_OUT), s.get(LOST_OUT))
        && sacked.saturating_add(lost) > out
    {
        said("scoreboard", format!("sacked_out {sacked} + lost_out {lost} > packets_out {out}"))?;
    }
    if let Some(again) = s.get(RETRANS_OUT).filter(|r| *r > out) {
        said("scoreboard", format!("retrans_out {again} > packets_out {out}"))?;
    }
    // a SYN is counted before it is sent (tcp_connect_queue_skb)
    if let Some(flight) = s.in_flight
        && s.get(SK_STATE) != Some(TCP_SYN_SENT)
        && (out > flight || (out == 0 && flight > 0))
    {
        said("scoreboard", format!("packets_out is {out} with {flight} bytes in flight"))?;
    }
    Ok(())
}

fn counters(last: &Sample, now: &Sample, said: &mut Said<'_>) -> Result<()> {
    for (name, field, wraps) in COUNTERS {
        let (Some(then), Some(value)) = (last.get(field), now.get(field)) else { continue };
        // data in the SYN counts twice until its ACK is there (tcp_rcv_fastopen_synack)
        if name == "delivered" && (then, value) == (2, 1) {
            continue;
        }
        let falls = if wraps { behind(value as u32, then as u32) } else { value < then };
        if falls {
            said("counters", format!("{name} falls from {then} to {value}"))?;
        }
    }
    Ok(())
}

/// Half the circle: numbers that are so far apart cannot be compared.
const HALF: i64 = 1 << 31;

fn rises(moment: &Moment<'_>, last: &Sample, said: &mut Said<'_>) -> Result<()> {
    let now = moment.now;
    let sent = now.get(BYTES_SENT).zip(last.get(BYTES_SENT)).map(|(now, then)| now.saturating_sub(then));
    // where samples are missing the socket may have gone on by more than half the circle
    let missing = moment.gap || moment.session.is_some_and(|s| s.sparse);
    let comparable = !missing || sent.is_some_and(|n| (0..HALF).contains(&n));
    if comparable && sent.is_none_or(|n| n < HALF) {
        for (check, then, value) in
            [("snd_una_rises", last.snd_una, now.snd_una), ("snd_nxt_rises", last.snd_nxt, now.snd_nxt)]
        {
            if let (Some(then), Some(value)) = (then, value)
                && behind(value, then)
            {
                said(check, format!("back from {then} to {value}, by {}", then.wrapping_sub(value)))?;
            }
        }
    }
    // before the peer's SYN there is no such number
    if let (Some(then), Some(value)) = (last.rcv_nxt, now.rcv_nxt)
        && !missing
        && last.get(SK_STATE) != Some(TCP_SYN_SENT)
        && behind(value, then)
    {
        said("rcv_nxt_rises", format!("back from {then} to {value}, by {}", then.wrapping_sub(value)))?;
    }
    Ok(())
}

fn segment(moment: &Moment<'_>, said: &mut Said<'_>) -> Result<()> {
    let now = moment.now;
    let (Some((kind, _)), Some(s), Some(nxt), Some(una)) = (now.what, now.segment, now.snd_nxt, now.snd_una) else {
        return Ok(());
    };
    if !kind.is_out() {
        return Ok(());
    }
    match kind {
        Kind::Send if s.space() > 0 => {
            // what waited below TCP, a SYN for its neighbour's address, is seen after snd_nxt has moved
            let waited = !behind(s.seq, una) && !behind(nxt, s.end()) && !has_retransmitted(moment, s.len);
            if s.seq != nxt && !waited && !s.answers_fast_open(una) {
                said("new_data", format!("{s} is sent as new data while snd_nxt is {nxt}"))?;
            }
        }
        // keepalives and window probes carry the number before snd_una (tcp_xmit_probe_skb)
        _ if s.space() == 0 => {
            if behind(s.seq, una.wrapping_sub(1)) || behind(nxt, s.seq) {
                said("no_data", format!("{s} is sent while snd_una is {una} and snd_nxt {nxt}"))?;
            }
        }
        _ => {
            if (behind(s.seq, una) || behind(nxt, s.end())) && !s.answers_fast_open(una) {
                said("retransmitted", format!("{s} is retransmitted while snd_una is {una} and snd_nxt {nxt}"))?;
            }
            counted_again(moment, s.len, s.flags & SYN != 0, said)?;
        }
    }
    if let Some(rcv_nxt) = now.rcv_nxt
        && s.flags & (ACK | RST) == ACK
        && behind(rcv_nxt, s.ack)
    {
        said("acknowledges", format!("ack {} is sent while rcv_nxt is {rcv_nxt}", s.ack))?;
    }
    Ok(())
}

/// Has the socket counted so many bytes as retransmitted since the sample before, or anything where there are none?
fn has_retransmitted(moment: &Moment<'_>, len: u32) -> bool {
    let now = moment.now.get(BYTES_RETRANS);
    let then = moment.last.map_or(Some(0), |l| l.get(BYTES_RETRANS));
    now.zip(then).is_none_or(|(now, then)| now.saturating_sub(then) >= i64::from(len.max(1)))
}

/// `__tcp_retransmit_skb` counts what it sends before it sends it; what it has not counted was sent for the first time.
fn counted_again(moment: &Moment<'_>, len: u32, is_syn: bool, said: &mut Said<'_>) -> Result<()> {
    let now = moment.now;
    if now.what.is_none_or(|(_, phase)| phase != Phase::Transmit) {
        return Ok(());
    }
    if let (Some(then), Some(value)) = (moment.last.and_then(|l| l.get(BYTES_RETRANS)), now.get(BYTES_RETRANS))
        && value.saturating_sub(then) < i64::from(len)
    {
        let text = format!("{len} bytes are retransmitted, but bytes_retrans goes from {then} to {value}");
        said("retransmitted", text)?;
    }
    if is_syn && moment.session.is_some_and(|s| s.counts_own_segment) && now.get(SEGS_OUT).is_some_and(|n| n < 2) {
        said("retransmitted", "a SYN is retransmitted, but segs_out counts no other segment".into())?;
    }
    Ok(())
}
