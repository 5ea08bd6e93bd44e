//! A packet and its sample: what must hold between the two, by the kind of match.

use rusqlite::Statement;

use super::columns::{number, read};
use super::packet::{Neighbourhood, Packet, STORED, stored};
use super::sample::{ACK, FIN, RST, SYN, Segment, segment as sampled};
use super::{Place, Run, behind};
use crate::Result;
use crate::join::Match;
use crate::sample::{Kind, Phase};

/// A packet's sample, as far as it is compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) id: i64,
    pub(super) flow_id: Option<i64>,
    pub(super) serial: Option<i64>,
    pub(super) ts_ns: Option<i64>,
    pub(super) what: Option<(Kind, Phase)>,
    pub(super) segment: Option<Segment>,
    /// The segment did not leave the host.
    pub(super) failed: bool,
    pub(super) snd_nxt: Option<u32>,
    pub(super) in_flight: Option<i64>,
    pub(super) bytes_sent: Option<i64>,
}

impl Own {
    fn snd_una(&self) -> Option<u32> {
        self.snd_nxt.zip(self.in_flight).map(|(nxt, flight)| nxt.wrapping_sub(flight as u32))
    }
}

pub(super) fn check(run: &mut Run<'_>, look: &mut Neighbourhood<'_>, p: &Packet, own: &Own, at: &Place) -> Result<()> {
    let flight = match p.matched {
        Some(Match::Exact | Match::Within) => {
            of_its_own(run, look, p, own, at)?;
            own.in_flight
        }
        Some(Match::Carried) => carried(run, look, p, own, at)?,
        _ => None,
    };
    if let (Some(sacked), Some(flight)) = (p.sacked_bytes, flight)
        && !(0..=flight).contains(&sacked)
    {
        let text = format!("sacked_bytes is {sacked} with {flight} bytes in flight");
        run.violated("sacked", at.clone(), text)?;
    }
    Ok(())
}

fn of_its_own(run: &mut Run<'_>, look: &mut Neighbourhood<'_>, p: &Packet, own: &Own, at: &Place) -> Result<()> {
    let apart_ns = p.ts_ns.zip(own.ts_ns).map(|(packet, sample)| packet.wrapping_sub(sample));
    // the join knows better than the recording on which side of a step of its clock a sample is
    let stepped_ns = apart_ns.zip(p.delay_ns).map(|(apart, said)| apart.wrapping_sub(said));
    let is_step = stepped_ns.is_some_and(|by| run.jumps_ns.binary_search(&by).is_ok());
    if apart_ns != p.delay_ns && !is_step {
        let text = match p.ts_ns.zip(own.ts_ns).zip(p.delay_ns) {
            Some(((packet, sample), said)) => {
                format!("delay_ns is {said}, packet time minus sample time {}", packet.wrapping_sub(sample))
            }
            None => "delay_ns is NULL, or one of the times is".into(),
        };
        run.violated("delay", at.clone(), text)?;
    }
    if let Some(variation) = p.variation_ns.filter(|&v| v < 0) {
        run.violated("delay", at.clone(), format!("delay_variation_ns is {variation}"))?;
    }
    let (Some((kind, phase)), Some(sampled), Some(segment)) = (own.what, own.segment, p.segment) else {
        return run.violated("direction", at.clone(), "its sample names no segment".into());
    };
    let fits = match p.is_out {
        true => kind.is_out() && phase == Phase::Transmit,
        false => !kind.is_out(),
    };
    if !fits {
        let dir = if p.is_out { "out" } else { "in" };
        let text = format!("dir is {dir}, its sample's kind {} and phase {}", kind.name(), phase.name());
        return run.violated("direction", at.clone(), text);
    }
    if own.failed {
        run.violated("direction", at.clone(), "its sample's segment failed locally".into())?;
    }
    match p.matched {
        Some(Match::Exact) => exact(run, p.is_out, (&segment, &sampled), at)?,
        _ => within(run, look, p, own, (&segment, &sampled), at)?,
    }
    if p.is_out { as_sent(run, own, (&segment, &sampled), at) } else { Ok(()) }
}

fn exact(run: &mut Run<'_>, is_out: bool, (p, s): (&Segment, &Segment), at: &Place) -> Result<()> {
    // a pure ACK that followed while data waited for TCP is merged into it (tcp_add_to_backlog)
    let follows = !is_out && behind(p.ack, s.ack);
    let text = if (p.seq, p.space()) != (s.seq, s.space()) {
        format!("the packet has {p}, its sample {s}")
    } else if (p.flags ^ s.flags) & (SYN | FIN | RST | ACK) != 0 {
        format!("the packet has the flags {:#x}, its sample {:#x}", p.flags, s.flags)
    } else if p.flags & s.flags & ACK != 0 && p.ack != s.ack && !follows {
        format!("the packet has ack {}, its sample {}", p.ack, s.ack)
    } else {
        return Ok(());
    };
    run.violated("exact", at.clone(), text)
}

fn within(
    run: &mut Run<'_>,
    look: &mut Neighbourhood<'_>,
    p: &Packet,
    own: &Own,
    (segment, sampled): (&Segment, &Segment),
    at: &Place,
) -> Result<()> {
    if segment.space() == 0 {
        // pure ACKs that waited for TCP are merged into what comes after them (tcp_add_to_backlog)
        if !p.is_out && segment.seq == sampled.seq && !behind(sampled.ack, segment.ack) {
            return Ok(());
        }
        let text = format!("{segment} ack {} is no part of {sampled} ack {}", segment.ack, sampled.ack);
        return run.violated("within", at.clone(), text);
    }
    if segment.seq.wrapping_sub(sampled.seq) >= sampled.space() {
        let text = format!("the packet has {segment}, and does not begin in its sample's {sampled}");
        return run.violated("within", at.clone(), text);
    }
    if !p.is_out {
        // captured before the path cut it anew, and lost a piece
        return Ok(());
    }
    let mut covered = sampled.end();
    if behind(covered, segment.end()) {
        // what follows was sent after it, but for what was sent again
        for statement in [&mut look.after, &mut look.before] {
            covered = cover(run, statement, p, own.id, (covered, segment.end()))?;
        }
        covered = cover(run, &mut look.after, p, own.id, (covered, segment.end()))?;
    }
    if behind(covered, segment.end()) {
        // that it begins in its sample's transmission may be known by its identification, and the next sample be lost
        let lacks: bool = look.lacks.query_row((p.flow_id, own.serial), |row| row.get(0)).map_err(run.failed())?;
        if lacks && was_sent(run, &mut look.after, p, own.id, segment.end())? {
            return Ok(());
        }
        let text = format!("the packet has {segment}, and no sample near its own covers {covered}");
        return run.violated("within", at.clone(), text);
    }
    Ok(())
}

/// Up to where the samples of a flow near one cover a packet without a break.
fn cover(
    run: &Run<'_>,
    near: &mut Statement<'_>,
    p: &Packet,
    sample_id: i64,
    (mut covered, end): (u32, u32),
) -> Result<u32> {
    let err = run.failed();
    let mut rows = near.query([p.flow_id, sample_id]).map_err(&err)?;
    while behind(covered, end) {
        let Some(row) = rows.next().map_err(&err)? else { break };
        let mut values = [None; STORED];
        read(row, &mut values).map_err(&err)?;
        let near = stored(&values);
        if let (Some((kind, _)), Some(s)) = (near.what, sampled(&near))
            && kind.is_out() == p.is_out
            && covered.wrapping_sub(s.seq) < s.space()
        {
            covered = s.end();
        }
    }
    Ok(covered)
}

/// Does a sample of a flow after one say that what is before a number was sent?
fn was_sent(run: &Run<'_>, after: &mut Statement<'_>, p: &Packet, sample_id: i64, end: u32) -> Result<bool> {
    let err = run.failed();
    let mut rows = after.query([p.flow_id, sample_id]).map_err(&err)?;
    while let Some(row) = rows.next().map_err(&err)? {
        let mut values = [None; STORED];
        read(row, &mut values).map_err(&err)?;
        if stored(&values).snd_nxt.is_some_and(|nxt| !behind(nxt, end)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn as_sent(run: &mut Run<'_>, own: &Own, (p, s): (&Segment, &Segment), at: &Place) -> Result<()> {
    let (Some(nxt), Some(una)) = (own.snd_nxt, own.snd_una()) else { return Ok(()) };
    if p.answers_fast_open(una) {
        return Ok(());
    }
    // keepalives and window probes carry the number before snd_una
    let lowest = if p.space() == 0 { una.wrapping_sub(1) } else { una };
    // a transmit sample of new data is without its own segment; a packet merged on the way holds later ones too
    let highest = if behind(nxt, s.end()) { s.end() } else { nxt };
    let merged = behind(s.end(), p.end());
    if behind(p.seq, lowest) || behind(highest, p.seq) || (!merged && behind(highest, p.end())) {
        let text = format!("{p} left while snd_una was {una} and snd_nxt {nxt}");
        return run.violated("as_sent", at.clone(), text);
    }
    Ok(())
}

/// Returns the bytes in flight that the carried edges make.
fn carried(run: &mut Run<'_>, look: &mut Neighbourhood<'_>, p: &Packet, own: &Own, at: &Place) -> Result<Option<i64>> {
    let (Some(nxt), Some(una)) = (number(p.carried.0), number(p.carried.1)) else {
        run.violated("carried", at.clone(), "its snd_nxt or snd_una is no sequence number".into())?;
        return Ok(None);
    };
    if behind(nxt, una) {
        run.violated("carried", at.clone(), format!("snd_una {una} is after snd_nxt {nxt}"))?;
        return Ok(None);
    }
    let flight = Some(i64::from(nxt.wrapping_sub(una)));
    let (Some(own_nxt), Some(own_una)) = (own.snd_nxt, own.snd_una()) else { return Ok(flight) };
    let err = run.failed();
    let mut rows = look.next.query([p.flow_id, own.id]).map_err(&err)?;
    let Some(row) = rows.next().map_err(&err)? else { return Ok(flight) };
    let mut values = [None; STORED];
    read(row, &mut values).map_err(&err)?;
    let next = stored(&values);
    let sent = next.bytes_sent.zip(own.bytes_sent).map_or(0, |(now, then)| now.saturating_sub(then));
    let (Some(next_nxt), Some(next_una)) = (next.snd_nxt, next.snd_una()) else { return Ok(flight) };
    // where so much is missing between the two, 32 bits do not tell which is the later; behind the last sample nothing
    // says how much
    if !(0..1 << 31).contains(&sent) {
        return Ok(flight);
    }
    for (name, value, sampled) in [("snd_nxt", nxt, own_nxt), ("snd_una", una, own_una)] {
        if behind(value, sampled) {
            let text = format!("{name} {value} is before that of its sample, {sampled}");
            run.violated("carried", at.clone(), text)?;
        }
    }
    for (name, value, sampled) in [("snd_nxt", nxt, next_nxt), ("snd_una", una, next_una)] {
        if behind(sampled, value) {
            let text = format!("{name} {value} is after that of the flow's next sample, {sampled}");
            run.violated("carried", at.clone(), text)?;
        }
    }
    Ok(flight)
}
