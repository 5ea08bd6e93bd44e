//! A flow's packets with their matches, and the sender's window edges for those that have no sample of their own.
//!
//! Owns how samples and packets of one flow become rows; must not know files or the order of other flows.

use std::collections::VecDeque;

use tcpprobe_trace::join::{Match, PacketRow, Reason};
use tcpprobe_trace::reader::{FlowRow, SampleRow};
use tcpprobe_trace::sample::{Kind, Phase, Sampled};

use crate::matching::{Completeness, Found, Sighting, has_copies, match_direction};
use crate::packet::{Packet, TcpFlags};
use crate::seq::{Position, Unwrapper, nearest};

/// Joins a flow's packets (index into `all`, sent by its socket?) to its samples.
pub(crate) fn join_flow(
    flow: &FlowRow,
    samples: &[SampleRow],
    all: &[Packet],
    packets: &[(u32, bool)],
) -> Vec<PacketRow> {
    let holes_before = holes_before(samples);
    let mut found = vec![Found::Nothing(Reason::NotSampled); packets.len()];
    let directions = [true, false].map(|is_out| Direction::new(is_out, samples, all, packets));
    let copies = directions.iter().any(|d| has_copies(&d.captured));
    for d in &directions {
        let holes: Vec<u32> = d.of_samples.iter().map(|&i| holes_before[i as usize]).collect();
        let completeness = Completeness { holes_before: &holes, sparse: flow.sampled == Sampled::Changes, copies };
        for (&p, f) in d.of_packets.iter().zip(match_direction(&d.captured, &d.sampled, completeness)) {
            // from positions in the direction's lists to positions in the flow's
            found[p as usize] = match f {
                Found::Exact(s) => Found::Exact(d.of_samples[s as usize]),
                Found::Within(s) => Found::Within(d.of_samples[s as usize]),
                nothing => nothing,
            };
        }
    }
    merge_acks(samples, all, packets, &holes_before, &mut found);
    rows(flow, samples, all, packets, &found, &holes_before)
}

/// One direction of a flow: which of its samples and packets, and what they look like.
struct Direction {
    of_samples: Vec<u32>,
    of_packets: Vec<u32>,
    sampled: Vec<Sighting>,
    captured: Vec<Sighting>,
}

impl Direction {
    fn new(is_out: bool, samples: &[SampleRow], all: &[Packet], packets: &[(u32, bool)]) -> Direction {
        let of_samples: Vec<u32> = (0..samples.len() as u32).filter(|&i| serves(samples, i as usize, is_out)).collect();
        let of_packets: Vec<u32> = (0..packets.len() as u32).filter(|&i| packets[i as usize].1 == is_out).collect();
        let sampled = sightings_of_samples(samples, &of_samples);
        let captured = sightings_of_packets(all, packets, &of_packets, samples, &of_samples, &sampled);
        Direction { of_samples, of_packets, sampled, captured }
    }
}

/// For each sample the number of holes in the serials before it; the first sample of a flow has the serial 1.
fn holes_before(samples: &[SampleRow]) -> Vec<u32> {
    let mut holes = 0;
    let mut expected = 1;
    samples
        .iter()
        .map(|s| {
            holes += u32::from(s.serial > expected);
            expected = s.serial + 1;
            holes
        })
        .collect()
}

/// Can this sample be the one of a packet in this direction?
fn serves(samples: &[SampleRow], i: usize, is_out: bool) -> bool {
    let s = &samples[i];
    if !s.has_segment || s.kind.is_out() != is_out {
        return false;
    }
    match (s.kind, s.phase) {
        (Kind::Send | Kind::Retransmit, Phase::Transmit) => s.error == 0 && !failed(s, samples.get(i + 1)),
        // the kernel's word after a retransmission: its transmit sample is another one
        (Kind::Send | Kind::Retransmit, _) => false,
        // one segment, two samples: the one from before it was processed is taken
        (Kind::Ack, Phase::After) => !samples[..i].iter().rev().find(|b| b.kind == Kind::Ack).is_some_and(|b| {
            b.phase == Phase::Before && (b.seq, b.len, b.ack, b.flags) == (s.seq, s.len, s.ack, s.flags)
        }),
        // a change of state names a segment where one made it (the SYN-ACK)
        (Kind::Ack | Kind::State, _) => true,
    }
}

/// Did this transmission fail on the host? The kernel says so right after it (`tcp:tcp_retransmit_skb`, since ≈6.17).
fn failed(transmit: &SampleRow, next: Option<&SampleRow>) -> bool {
    next.is_some_and(|n| n.kind == Kind::Retransmit && n.phase == Phase::After && n.error != 0 && n.seq == transmit.seq)
}

fn space(len: u32, flags: u16) -> Position {
    let one = |flag: TcpFlags| Position::from(flags & flag.0 != 0);
    Position::from(len) + one(TcpFlags::SYN) + one(TcpFlags::FIN)
}

fn sightings_of_samples(samples: &[SampleRow], of: &[u32]) -> Vec<Sighting> {
    let mut last: Option<(Position, Option<i64>)> = None;
    of.iter()
        .map(|&i| {
            let s = &samples[i as usize];
            let start = match last {
                None => Unwrapper::begin(s.seq).unwrap(s.seq),
                Some((at, bytes)) => {
                    // how far a sender went where samples are missing; retransmissions make it a little less
                    let sent =
                        if s.kind.is_out() { s.bytes_sent.zip(bytes).map_or(0, |(now, then)| now - then) } else { 0 };
                    nearest(s.seq, at.saturating_add(sent.clamp(0, 1 << 50)))
                }
            };
            last = Some((start, s.bytes_sent));
            Sighting {
                start,
                end: start + space(s.len, s.flags),
                ack: s.ack,
                flags: s.flags,
                tsval: s.tsval,
                ts_ns: Some(s.ts_ns),
            }
        })
        .collect()
}

/// Beyond the widest window (RFC 7323 §2.3).
const FAR: Position = 1 << 30;

fn sightings_of_packets(
    all: &[Packet],
    packets: &[(u32, bool)],
    of: &[u32],
    samples: &[SampleRow],
    of_samples: &[u32],
    sampled: &[Sighting],
) -> Vec<Sighting> {
    // a capture may begin gigabytes after the samples: the first packet is looked for where samples were at its time
    let mut unwrapper: Option<Unwrapper> = None;
    let begin = |p: &Packet| {
        let near = match p.ts_ns {
            Some(t) => of_samples.iter().zip(sampled).min_by_key(|(i, _)| samples[**i as usize].ts_ns.abs_diff(t)),
            None => of_samples.iter().zip(sampled).next(),
        };
        near.map_or_else(|| Unwrapper::begin(p.seq), |(_, s)| Unwrapper::near(s.start))
    };
    of.iter()
        .map(|&i| {
            let p = &all[packets[i as usize].0 as usize];
            let mut from = *unwrapper.get_or_insert_with(|| begin(p));
            let mut start = from.unwrap(p.seq);
            if unwrapper.is_some_and(|u| (start - u.position()).abs() > FAR) {
                // no window is as wide: packets are missing here, and the samples of that time tell how many
                from = begin(p);
                start = from.unwrap(p.seq);
            }
            unwrapper = Some(from);
            Sighting {
                start,
                end: start + space(p.len, p.flags.0),
                ack: p.ack,
                flags: p.flags.0,
                tsval: p.tsval,
                ts_ns: p.ts_ns,
            }
        })
        .collect()
}

/// Pure ACKs that waited while the application held the socket may have been merged into one, which carries the last
/// one's acknowledgment number (`tcp_add_to_backlog`): the earlier ones are a part of it.
fn merge_acks(
    samples: &[SampleRow],
    all: &[Packet],
    packets: &[(u32, bool)],
    holes_before: &[u32],
    found: &mut [Found],
) {
    let around = neighbours(packets, found);
    let mut next: Option<u32> = None;
    for i in (0..packets.len()).rev() {
        let (index, is_out) = packets[i];
        if is_out {
            continue;
        }
        if let Some(s) = found[i].sample() {
            next = Some(s);
            continue;
        }
        let p = &all[index as usize];
        let pure =
            p.len == 0 && p.flags.ack() && p.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) == 0;
        // where a sample is missing it may be this one's
        if !pure || found[i] != Found::Nothing(Reason::NotSampled) || in_hole(around[i], holes_before) {
            continue;
        }
        let Some(s) = next else { continue };
        let sample = &samples[s as usize];
        let merged = sample.kind == Kind::Ack
            && sample.len == 0
            && sample.seq == p.seq
            && sample.tsval.is_some()
            && sample.tsval == p.tsval
            && (sample.ack.wrapping_sub(p.ack) as i32) > 0;
        if merged {
            found[i] = Found::Within(s);
        }
    }
}

/// The sender's window edges, advanced from a sample by the packets since.
#[derive(Clone, Copy)]
struct Edges {
    sample: u32,
    ts_ns: i64,
    nxt: Position,
    una: Position,
}

/// The state at the present packet, and those that samples of later moments have already shown: what is received may
/// wait between tap and TCP while other packets pass the tap.
struct Carried {
    now: Option<Edges>,
    later: VecDeque<Edges>,
    /// Packet clock minus sample clock, as near as the fastest packets show it.
    offset_ns: i64,
}

impl Carried {
    /// Moves on to a packet.
    fn at(&mut self, ts_ns: Option<i64>) -> Option<&Edges> {
        while self.later.front().is_some_and(|e| ts_ns.is_none_or(|t| e.ts_ns + self.offset_ns <= t)) {
            self.now = self.later.pop_front();
        }
        self.now.as_ref()
    }

    /// Learns the state of a packet's sample; never back to an older one: a late packet does not undo what is known.
    fn learn(&mut self, index: u32, sample: &SampleRow) {
        let last = self.later.back().or(self.now.as_ref());
        if last.is_some_and(|e| e.sample >= index) {
            return;
        }
        let nxt = nearest(sample.snd_nxt, last.map_or((1 << 40) + Position::from(sample.snd_nxt), |e| e.nxt));
        let edges = Edges { sample: index, ts_ns: sample.ts_ns, nxt, una: nearest(sample.snd_una, nxt) };
        self.later.push_back(edges);
    }

    /// What a packet does to the edges, for the packets after it.
    fn advance(&mut self, p: &Packet, is_out: bool) {
        for edges in self.now.iter_mut().chain(&mut self.later) {
            if is_out {
                edges.nxt = edges.nxt.max(nearest(p.seq, edges.nxt) + space(p.len, p.flags.0));
            } else if p.flags.ack() && !p.flags.rst() {
                let ack = nearest(p.ack, edges.una);
                // what was never sent cannot be acknowledged (RFC 9293 §3.10.7.4)
                if ack > edges.una && ack <= edges.nxt {
                    edges.una = ack;
                }
            }
        }
    }
}

/// How the two clocks differ: from sample to tap what is sent takes no less than no time, nor what is received more.
fn clock_offset_ns(samples: &[SampleRow], all: &[Packet], packets: &[(u32, bool)], found: &[Found]) -> i64 {
    let delays = |sent: bool| {
        packets
            .iter()
            .zip(found)
            .filter(move |((_, is_out), _)| *is_out == sent)
            .filter_map(|((index, _), f)| Some(all[*index as usize].ts_ns? - samples[f.sample()? as usize].ts_ns))
    };
    delays(true).min().or_else(|| delays(false).max()).unwrap_or(0)
}

fn rows(
    flow: &FlowRow,
    samples: &[SampleRow],
    all: &[Packet],
    packets: &[(u32, bool)],
    found: &[Found],
    holes_before: &[u32],
) -> Vec<PacketRow> {
    let around = neighbours(packets, found);
    let last_named = samples.iter().rposition(|s| s.has_segment);
    let offset_ns = clock_offset_ns(samples, all, packets, found);
    let mut carried = Carried { now: None, later: VecDeque::new(), offset_ns };
    let mut rows = Vec::with_capacity(packets.len());
    for (i, &(index, is_out)) in packets.iter().enumerate() {
        let p = &all[index as usize];
        let mut row = PacketRow {
            number: p.number,
            ts_ns: p.ts_ns,
            flow_id: flow.id,
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
            interface: None,
            tunnel: None,
            sacked_bytes: None,
            delay_variation_ns: None,
        };
        match found[i] {
            Found::Exact(s) | Found::Within(s) => {
                let sample = &samples[s as usize];
                row.sample_id = Some(sample.id);
                row.matched = if matches!(found[i], Found::Exact(_)) { Match::Exact } else { Match::Within };
                row.delay_ns = p.ts_ns.map(|t| t - sample.ts_ns);
                carried.learn(s, sample);
            }
            Found::Nothing(why) => {
                let hole = in_hole(around[i], holes_before);
                let known = carried.at(p.ts_ns);
                let reason = refine(why, flow, samples, p, known, last_named, hole);
                row.reason = Some(reason);
                let stateless =
                    matches!(reason, Reason::AfterClose | Reason::RequestSocket | Reason::BeforeFirstSample);
                if let (Some(e), false) = (known, stateless) {
                    row.sample_id = Some(samples[e.sample as usize].id);
                    row.matched = Match::Carried;
                    row.carried = Some((e.nxt as u32, e.una as u32));
                }
            }
        }
        carried.at(p.ts_ns);
        carried.advance(p, is_out);
        rows.push(row);
    }
    rows
}

/// The samples of the nearest packets of the same direction that have one, before a packet and after it.
#[derive(Clone, Copy, Default)]
struct Neighbours {
    before: Option<u32>,
    after: Option<u32>,
}

fn neighbours(packets: &[(u32, bool)], found: &[Found]) -> Vec<Neighbours> {
    let mut all = vec![Neighbours::default(); found.len()];
    // by direction: what is sent waits in a queue after its sample was taken, what is received does not
    let mut last = [None; 2];
    for (i, f) in found.iter().enumerate() {
        let last = &mut last[usize::from(packets[i].1)];
        all[i].before = *last;
        *last = f.sample().or(*last);
    }
    let mut next = [None; 2];
    for (i, f) in found.iter().enumerate().rev() {
        let next = &mut next[usize::from(packets[i].1)];
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

/// Why a packet has no sample, in the light of what stands around it.
fn refine(
    why: Reason,
    flow: &FlowRow,
    samples: &[SampleRow],
    p: &Packet,
    edges: Option<&Edges>,
    last_named: Option<usize>,
    hole: bool,
) -> Reason {
    let Some(edges) = edges else {
        if why == Reason::Ambiguous {
            return why;
        }
        // the handshake of a socket that listens: a request socket answers it, and the last ACK makes the flow
        let accepted = samples.first().is_some_and(|s| s.kind == Kind::State && s.serial == 1);
        return if p.flags.syn() || accepted { Reason::RequestSocket } else { Reason::BeforeFirstSample };
    };
    let last = edges.sample as usize;
    let closed_at = samples.last().filter(|_| flow.closed).map(|s| s.ts_ns);
    // no segment was sampled after this one, and the clock, if there is one, says that the socket was gone
    if last_named.is_none_or(|n| last >= n) && closed_at.zip(p.ts_ns).is_some_and(|(closed, ts)| ts > closed) {
        return Reason::AfterClose;
    }
    if p.flags.rst() {
        return Reason::Reset;
    }
    if flow.sampled == Sampled::Changes {
        return Reason::SparseTrace;
    }
    if matches!(why, Reason::Ambiguous | Reason::Hole) {
        return why;
    }
    if hole { Reason::Hole } else { why }
}
