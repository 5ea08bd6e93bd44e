//! A flow's packets with their matches, and what the sender was at those that have no sample of their own.
//!
//! Owns how samples and packets of one flow become rows, in two steps: [`match_flow`] for each flow by itself, then,
//! when all matches of the capture have told how its clock differs, [`rows`]. Must not know files.

use tcpprobe_trace::join::{Match, PacketRow, Reason};
use tcpprobe_trace::reader::{FlowRow, SampleRow};
use tcpprobe_trace::sample::{Kind, Phase, Sampled};

use crate::clocks::{Clocks, Delay};
use crate::copies;
use crate::delays::UsualDelays;
use crate::hash::{HashMap, HashMapExt as _};
use crate::matching::{Completeness, Found, Matcher, match_direction};
use crate::order::aligned;
use crate::overtaken;
use crate::packet::{Packet, TcpFlags, Tunnel};
use crate::rebuild::{Known, rebuild};
use crate::sightings::{Direction, FlowPacket, holes_before, serves};

/// A packet passes the tap of its own host within this, if no queue holds it.
pub(crate) const SAME_HOST_NS: i64 = 1_000_000;
/// The fastest packets of a host take no longer from TCP to its tap and from its tap to TCP together; the nearest machine's
/// are farther away.
const SAME_WIRE_NS: i64 = 80_000;
/// No more ACKs than these wait for an application.
const MOST_MERGED: u16 = 64;

/// The samples of a flow, or those of a part of its life.
pub(crate) struct Samples {
    /// By serial.
    pub(crate) rows: Vec<SampleRow>,
    /// Is its first one among them, and its last one?
    pub(crate) begins: bool,
    pub(crate) ends: bool,
}

/// A flow's packets with their matches.
pub(crate) struct Matched {
    pub(crate) samples: Vec<SampleRow>,
    /// Is the flow's last sample among them?
    ends: bool,
    /// For each packet its sample.
    pub(crate) found: Vec<Found>,
    holes_before: Vec<u32>,
    copies: bool,
}

impl Matched {
    /// Among the samples that have packets, was an ACK sampled that has none?
    pub(crate) fn lacks_acks(&self, packets: &[FlowPacket]) -> bool {
        let is_ack = |s: &SampleRow| s.kind == Kind::Ack && s.phase == Phase::Before && s.has_segment;
        let (mut first, mut end) = (usize::MAX, 0);
        // what comes late in the capture is not counted, and looks as if it were not there: that does no harm
        let (mut next, mut there) = (0, 0);
        for (packet, f) in packets.iter().zip(&self.found) {
            let Some(s) = f.sample().map(|s| s as usize) else { continue };
            (first, end) = (first.min(s), end.max(s + 1));
            if !packet.is_out && s >= next && is_ack(&self.samples[s]) {
                next = s + 1;
                there += 1;
            }
        }
        self.samples.get(first..end).is_some_and(|among| among.iter().filter(|s| is_ack(s)).count() > there)
    }
}

/// Finds the samples of a flow's packets. `copies`: does the capture show packets more than once?
pub(crate) fn match_flow(
    flow: &FlowRow,
    samples: Samples,
    all: &[Packet],
    packets: &[FlowPacket],
    copies: bool,
) -> Matched {
    let Samples { rows: samples, begins, ends } = samples;
    let holes_before = holes_before(&samples, begins);
    let mut found = vec![Found::Nothing(Reason::NotSampled); packets.len()];
    let directions = [true, false].map(|is_out| Direction::new(is_out, &samples, all, packets));
    let sparse = flow.sampled == Sampled::Changes;
    let holes =
        directions.each_ref().map(|d| d.of_samples.iter().map(|&i| holes_before[i as usize]).collect::<Vec<_>>());
    let from_begin = begins && samples.first().is_some_and(|s| s.kind == Kind::State || s.flags & TcpFlags::SYN.0 != 0);
    let to_end = flow.closed && ends;
    let matchers = [0, 1].map(|i| {
        let completeness = Completeness { holes_before: &holes[i], sparse, copies, from_begin, to_end };
        Matcher::new(i == 0, &directions[i], completeness)
    });
    let is_near = is_near(matchers[0].usual_delays(), matchers[1].usual_delays());
    let matchers = matchers.map(|m| m.at(is_near));
    let mut ids_tell = false;
    for (d, matcher) in directions.iter().zip(&matchers) {
        for (&p, f) in d.of_packets.iter().zip(match_direction(matcher)) {
            // from positions in the direction's lists to positions in the flow's
            found[p as usize] = match f {
                Found::Exact(s) => Found::Exact(d.of_samples[s as usize]),
                Found::Within(s) => Found::Within(d.of_samples[s as usize]),
                nothing => nothing,
            };
        }
        ids_tell = matcher.ids_tell();
    }
    if ids_tell {
        merge_acks(&samples, all, packets, &mut found);
    } else {
        overtaken::reorder(overtaken::Flow { samples: &samples, all, packets, is_near }, &mut found);
    }
    Matched { samples, ends, found, holes_before, copies }
}

/// Was the capture taken at the socket's own host? Then nothing but a moment lies between the fastest packets of both
/// directions and their samples; elsewhere it is a round trip.
fn is_near(sent: &UsualDelays, received: &UsualDelays) -> bool {
    let fastest = sent.least_ns.zip(received.pairs.iter().map(|p| p.2).max());
    fastest.is_some_and(|(sent, received)| sent.saturating_sub(received) < SAME_WIRE_NS)
}

impl Matched {
    /// Packet time minus sample time of every match; where samples name no segments, of the ACKs that must be theirs.
    pub(crate) fn delays(&self, all: &[Packet], packets: &[FlowPacket]) -> impl Iterator<Item = Delay> {
        let nameless = !self.samples.iter().any(|s| s.has_segment);
        let aligned = if nameless { aligned(&self.samples, all, packets) } else { Vec::new() };
        aligned.into_iter().chain(packets.iter().zip(&self.found).filter_map(|(packet, f)| {
            let ts_ns = all[packet.index as usize].ts_ns?;
            let delay_ns = ts_ns.checked_sub(self.samples[f.sample()? as usize].ts_ns)?;
            Some(Delay { ts_ns, delay_ns, is_out: packet.is_out })
        }))
    }

    /// Takes back what nothing but order proves, where the clocks of all flows together speak against it.
    pub(crate) fn doubt(&mut self, all: &[Packet], packets: &[FlowPacket], clocks: &Clocks) {
        for (packet, f) in packets.iter().zip(&mut self.found) {
            let (p, Some(s)) = (&all[packet.index as usize], f.sample()) else { continue };
            let sample = &self.samples[s as usize];
            let stamped = p.tsval.is_some() && p.tsval == sample.tsval;
            // a piece, or a packet that was merged into the sampled one, has one of the next identifications
            let counted = p.ip_id.filter(|&id| id != 0).zip(sample.ip_id).map(|(p, s)| p.wrapping_sub(s));
            let counted = counted.is_some_and(|count| count <= MOST_MERGED);
            if stamped || counted {
                continue;
            }
            let delay_ns = p.ts_ns.and_then(|t| t.checked_sub(sample.ts_ns));
            if !delay_ns.is_none_or(|d| clocks.allow(sample.ts_ns, d, packet.is_out)) {
                *f = Found::Nothing(Reason::Ambiguous);
            }
        }
    }
}

/// Pure ACKs that waited while the application held the socket may have been merged into one: its header is the first
/// one's, its acknowledgment number the last one's (`tcp_add_to_backlog`). The identification of a sample's header
/// proves it for the first, and for the last where only one can be it.
fn merge_acks(samples: &[SampleRow], all: &[Packet], packets: &[FlowPacket], found: &mut [Found]) {
    let key = |ip_id: Option<u16>, seq: u32, tsval: Option<u32>| Some((ip_id.filter(|&i| i != 0)?, seq, tsval));
    let received =
        samples.iter().enumerate().filter(|&(i, s)| s.kind == Kind::Ack && s.len == 0 && serves(samples, i, false));
    let by_first: HashMap<_, u32> =
        received.filter_map(|(i, s)| Some((key(s.ip_id, s.seq, s.tsval)?, u32::try_from(i).ok()?))).collect();
    let mut first: Option<(u32, &Packet)> = None;
    // of each sample the packets that may have been the last one of it
    let mut lasts: HashMap<u32, Vec<usize>> = HashMap::new();
    for (i, packet) in packets.iter().enumerate().filter(|(_, packet)| !packet.is_out) {
        let p = &all[packet.index as usize];
        if p.len > 0 || !p.flags.ack() || p.flags.syn() || p.flags.rst() || found[i].sample().is_some() {
            continue;
        }
        if let Some(&s) = key(p.ip_id, p.seq, p.tsval).and_then(|k| by_first.get(&k))
            && is_below(p.ack, samples[s as usize].ack)
        {
            found[i] = Found::Within(s);
            first = Some((s, p));
            continue;
        }
        let Some((s, first)) = first else { continue };
        let sample = &samples[s as usize];
        let alike = (p.seq, p.tsval, p.tsecr) == (first.seq, first.tsval, first.tsecr);
        let follows = p.ip_id.zip(first.ip_id).is_some_and(|(p, f)| p.wrapping_sub(f) <= MOST_MERGED);
        let whole = (p.ack, p.flags.fin()) == (sample.ack, sample.flags & TcpFlags::FIN.0 != 0);
        if alike && follows && whole {
            lasts.entry(s).or_default().push(i);
        }
    }
    // those between may as well have been lost behind the tap
    let id = |i: usize| all[packets[i].index as usize].ip_id;
    for (s, last) in lasts {
        // one packet, however often it was seen
        if last.iter().all(|&i| id(i) == id(last[0])) {
            for i in last {
                found[i] = Found::Exact(s);
            }
        }
    }
}

/// Is a sequence number before another?
fn is_below(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The smallest delay of what was received and of what was sent, less the clocks' difference, ns: that delays vary from.
pub(crate) type Least = [Option<i64>; 2];

/// The rows of a flow's packets, in the order of the capture, and what their delays vary from.
pub(crate) fn rows(
    flow: &FlowRow,
    matched: &Matched,
    all: &[Packet],
    packets: &[FlowPacket],
    clocks: &Clocks,
) -> (Vec<PacketRow>, Least) {
    let Matched { samples, ends, found, holes_before, copies } = matched;
    let around = neighbours(packets, found);
    let ends = Ends::of(flow.closed && *ends, samples);
    let made_it = ends.accepted.then(|| last_of_handshake(samples, all, packets, found)).flatten();
    let copies = copies::number(all, packets, found, *copies);
    let known = rebuild(samples, all, packets, found, clocks, flow, &copies);
    let mut rows: Vec<PacketRow> = packets
        .iter()
        .enumerate()
        .map(|(i, packet)| {
            let p = &all[packet.index as usize];
            let mut row = bare(flow.id, p, packet.is_out);
            row.copy = copies[i];
            match found[i] {
                Found::Exact(s) | Found::Within(s) => {
                    let sample = &samples[s as usize];
                    row.sample_id = Some(sample.id);
                    row.matched = if matches!(found[i], Found::Exact(_)) { Match::Exact } else { Match::Within };
                    row.delay_ns = p.ts_ns.and_then(|t| t.checked_sub(sample.ts_ns));
                    row.sacked_bytes = known[i].sacked_bytes;
                }
                Found::Nothing(why) => {
                    let hole = in_hole(around[i], holes_before);
                    let reason = match made_it == Some(i) {
                        true => Reason::RequestSocket,
                        false => ends.refine(why, flow, packet.is_out, p, &known[i], hole),
                    };
                    row.reason = Some(reason);
                    if let (Some(s), true) = (known[i].sample, has_state(reason)) {
                        row.sample_id = Some(samples[s as usize].id);
                        row.matched = Match::Carried;
                        row.carried = known[i].edges;
                        row.sacked_bytes = known[i].sacked_bytes;
                    }
                }
            }
            row
        })
        .collect();
    let least = vary(&mut rows, samples, found, clocks);
    (rows, least)
}

fn bare(flow_id: i64, p: &Packet, is_out: bool) -> PacketRow {
    PacketRow {
        number: p.number,
        ts_ns: p.ts_ns,
        flow_id,
        is_out,
        seq: p.seq,
        ack: p.ack,
        len: p.len,
        flags: p.flags.0,
        window: p.window,
        sample_id: None,
        matched: Match::None,
        reason: None,
        delay_ns: None,
        carried: None,
        copy: 0,
        interface: p.interface,
        tunnel: p.tunnel.map(Tunnel::as_str),
        sacked_bytes: None,
        delay_variation_ns: None,
    }
}

/// Delays less the clocks' difference and the smallest of their direction (RFC 5481 §4.2).
fn vary(rows: &mut [PacketRow], samples: &[SampleRow], found: &[Found], clocks: &Clocks) -> Least {
    // what is received passes the tap before it is sampled: its delay counts the other way round
    let delay = |row: &PacketRow, f: &Found| {
        let offset_ns = clocks.offset_at_sample_ns(samples[f.sample()? as usize].ts_ns)?;
        let delay_ns = row.delay_ns?.checked_sub(offset_ns)?;
        Some(if row.is_out { delay_ns } else { -delay_ns })
    };
    let delays: Vec<Option<i64>> = rows.iter().zip(found).map(|(row, f)| delay(row, f)).collect();
    let mut least: Least = [None; 2];
    for (row, delay) in rows.iter().zip(&delays) {
        let of_direction = &mut least[usize::from(row.is_out)];
        *of_direction = of_direction.map_or(*delay, |least| Some(delay.map_or(least, |d| d.min(least))));
    }
    for (row, delay) in rows.iter_mut().zip(&delays) {
        row.delay_variation_ns = delay.zip(least[usize::from(row.is_out)]).map(|(d, least)| d - least);
    }
    least
}

/// The ACK that made the socket of a connection that was accepted, where it has no sample of its own: the first sample is
/// its effect, however close in time.
fn last_of_handshake(samples: &[SampleRow], all: &[Packet], packets: &[FlowPacket], found: &[Found]) -> Option<usize> {
    let first = samples.first()?;
    let of = |i: &usize| {
        let p = &all[packets[*i].index as usize];
        !packets[*i].is_out && p.flags.ack() && !p.flags.syn() && !p.flags.rst()
    };
    let at = (0..packets.len()).find(of)?;
    let p = &all[packets[at].index as usize];
    (found[at].sample().is_none() && first.snd_una == Some(p.ack) && p.len == 0).then_some(at)
}

/// The samples of the nearest packets of the same direction that have one, before a packet and after it.
#[derive(Clone, Copy, Default)]
struct Neighbours {
    before: Option<u32>,
    after: Option<u32>,
}

fn neighbours(packets: &[FlowPacket], found: &[Found]) -> Vec<Neighbours> {
    let mut all = vec![Neighbours::default(); found.len()];
    // by direction: what is sent waits in a queue after its sample was taken, what is received does not
    let mut last = [None; 2];
    for (i, f) in found.iter().enumerate() {
        let last = &mut last[usize::from(packets[i].is_out)];
        all[i].before = *last;
        *last = f.sample().or(*last);
    }
    let mut next = [None; 2];
    for (i, f) in found.iter().enumerate().rev() {
        let next = &mut next[usize::from(packets[i].is_out)];
        all[i].after = *next;
        *next = f.sample().or(*next);
    }
    all
}

/// Is a sample missing where a packet's own would be?
fn in_hole(around: Neighbours, holes_before: &[u32]) -> bool {
    let at = |sample: Option<u32>, or: u32| sample.map_or(or, |s| holes_before[s as usize]);
    let last = holes_before.last().copied().unwrap_or(0);
    at(around.before, 0) < at(around.after, last)
}

/// Can the sender's state be said of a packet that has no sample for this reason?
fn has_state(reason: Reason) -> bool {
    !matches!(reason, Reason::AfterClose | Reason::TimeWait | Reason::RequestSocket | Reason::BeforeFirstSample)
}

/// How a flow's samples begin and end.
struct Ends {
    /// The flow was made by a socket that listens, when its handshake ended.
    accepted: bool,
    /// Or when it began: its own first segment is a SYN-ACK (TCP Fast Open).
    answered: bool,
    /// Position of the last sample that names a segment.
    last_named: Option<usize>,
    /// When the socket was closed, by the recording's clock.
    closed_ns: Option<i64>,
    /// It went to TIME_WAIT.
    waits: bool,
}

impl Ends {
    fn of(closed: bool, samples: &[SampleRow]) -> Ends {
        let accepted = samples.first().is_some_and(|s| s.kind == Kind::State && s.serial == 1);
        let answered = samples.first().is_some_and(|s| s.kind.is_out() && s.flags & SYN_ACK == SYN_ACK);
        let last_named = samples.iter().rposition(|s| s.has_segment);
        let closed_ns = samples.last().filter(|_| closed).map(|s| s.ts_ns);
        // who closed first and saw the peer's FIN leaves a small socket behind (RFC 9293 §3.6)
        let states: Vec<u8> = samples.iter().filter_map(|s| s.sk_state).collect();
        let before_close = states.iter().rev().find(|&&s| s != TCP_CLOSE);
        let waits =
            before_close.is_some_and(|s| [TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_CLOSING].contains(s));
        Ends { accepted, answered, last_named, closed_ns, waits }
    }

    /// Why a packet has no sample, in the light of what stands around it.
    fn refine(&self, why: Reason, flow: &FlowRow, is_out: bool, p: &Packet, known: &Known, hole: bool) -> Reason {
        // the SYN came before there was a socket, if by a moment
        if (self.accepted || self.answered) && !is_out && p.flags.syn() && !p.flags.ack() {
            return Reason::RequestSocket;
        }
        let Some(last) = known.sample else {
            // nothing tells where among the samples it belongs
            if known.at_ns.is_none() && !self.accepted && !p.flags.syn() {
                return why;
            }
            if why == Reason::Ambiguous {
                return why;
            }
            // the handshake of a socket that listens: a request socket answers it, and the last ACK makes the flow
            return if p.flags.syn() || self.accepted { Reason::RequestSocket } else { Reason::BeforeFirstSample };
        };
        // no segment was sampled after this one, and the socket was gone when it came
        let is_last = self.last_named.is_none_or(|n| last as usize >= n);
        if is_last && self.closed_ns.zip(known.at_ns).is_some_and(|(closed, at)| at > closed) {
            return if self.waits && !p.flags.rst() { Reason::TimeWait } else { Reason::AfterClose };
        }
        if p.flags.rst() {
            return Reason::Reset;
        }
        match flow.sampled {
            Sampled::Changes => return Reason::SparseTrace,
            Sampled::Received if is_out => return Reason::NotInSource,
            _ => {}
        }
        if matches!(why, Reason::Ambiguous | Reason::Hole) {
            return why;
        }
        if hole { Reason::Hole } else { why }
    }
}

const SYN_ACK: u16 = TcpFlags::SYN.0 | TcpFlags::ACK.0;

/// `include/net/tcp_states.h`.
const TCP_FIN_WAIT1: u8 = 4;
/// As above.
const TCP_FIN_WAIT2: u8 = 5;
/// As above.
const TCP_TIME_WAIT: u8 = 6;
/// As above.
const TCP_CLOSE: u8 = 7;
/// As above.
const TCP_CLOSING: u8 = 11;
