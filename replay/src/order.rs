//! Where packets without a sample stand in the sender's own order: between which samples.
//!
//! By the numbers themselves where they tell: a sample whose `snd_una` is below an acknowledgment was taken before
//! it, one that knows of a byte after that was sent. By time within what they leave open. Must not know files.

use tcpprobe_trace::reader::{FlowRow, SampleRow};
use tcpprobe_trace::sample::{Kind, Phase, Sampled};

use crate::clocks::{Clocks, Delay};
use crate::echoes::Echoes;
use crate::matching::Found;
use crate::packet::Packet;
use crate::rebuild::{Edges, edges_of};
use crate::reconstruct::SAME_HOST_NS;
use crate::scoreboard::Scoreboard;
use crate::segments::Segments;
use crate::seq::{MOST_WINDOW, Position, nearest};
use crate::sightings::{FlowPacket, space};
use crate::times::times;
use crate::turns::Turns;

/// Where a packet without a sample stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Before the sample at this position, behind the one before it.
    pub(crate) slot: usize,
    /// When the sender had it in hand, as far as is known; ns of the recording's clock.
    pub(crate) at_ns: i64,
    /// Position in the flow's packets.
    pub(crate) packet: usize,
}

/// An estimate of time is no better than this.
const ROUGHLY_NS: i64 = 2_000_000;

/// What is known of a flow, by sample and by packet.
#[derive(Clone, Copy)]
pub(crate) struct Evidence<'a> {
    pub(crate) samples: &'a [SampleRow],
    /// The edges at each sample.
    pub(crate) edges: &'a [Edges],
    pub(crate) all: &'a [Packet],
    pub(crate) packets: &'a [FlowPacket],
    pub(crate) found: &'a [Found],
    /// Of each packet the first one of its transmission: of what it is seen again of, or a piece of. Itself, if it is.
    pub(crate) firsts: &'a [usize],
}

impl Evidence<'_> {
    /// A packet of the flow.
    pub(crate) fn packet(&self, i: usize) -> &Packet {
        &self.all[self.packets[i].index as usize]
    }

    /// The least and the longest delay of what is sent; `None` where delays say that a network lies between.
    pub(crate) fn delays(&self) -> Option<(i64, i64)> {
        let (mut sent, mut received): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
        for (i, f) in self.found.iter().enumerate() {
            let Some(s) = f.sample().filter(|_| self.firsts[i] == i) else { continue };
            let delay = self.packet(i).ts_ns?.checked_sub(self.samples[s as usize].ts_ns)?;
            if self.packets[i].is_out { sent.push(delay) } else { received.push(delay) }
        }
        let (least, last) = (sent.iter().min()?, received.iter().max()?);
        (least.checked_sub(*last)? < SAME_HOST_NS).then_some((*least, *sent.iter().max()?))
    }

    /// Of each first packet of a transmission how many sequence numbers that one takes.
    pub(crate) fn spaces(&self) -> Vec<i64> {
        let mut spaces = vec![0; self.packets.len()];
        for (i, &first) in self.firsts.iter().enumerate() {
            let (p, begin) = (self.packet(i), self.packet(first));
            let end = i64::from(p.seq.wrapping_sub(begin.seq) as i32) + space(p.len, p.flags.0);
            spaces[first] = end.max(spaces[first]);
        }
        spaces
    }
}

/// The places of all packets without a sample, in the sender's order. Those of which nothing can be said are left out.
pub(crate) fn places(
    evidence: Evidence<'_>,
    clocks: &Clocks,
    echoes: &Echoes,
    flow: &FlowRow,
    segments: Option<&Segments>,
) -> Vec<Place> {
    let Evidence { samples, edges, all, packets, found, .. } = evidence;
    if found.iter().all(|f| f.sample().is_some()) {
        return Vec::new();
    }
    let rising = Rising::new(samples, edges);
    let times = times(samples, all, packets, found, clocks, || {
        let mut delays: Vec<i64> = aligned(samples, all, packets).into_iter().map(|d| d.delay_ns).collect();
        let middle = delays.len() / 2;
        (!delays.is_empty()).then(|| *delays.select_nth_unstable(middle).1)
    });
    if flow.sampled == Sampled::Changes
        && let Some(places) =
            (Turns { evidence, echoes, rising: &rising, times: &times, wscale: flow.snd_wscale }).places()
    {
        return places;
    }
    let mut places = Vec::new();
    // without a time a packet stands behind the last one of the capture that has a sample
    let mut last: Option<(usize, i64)> = None;
    let queue_known = packets.iter().zip(found).any(|(packet, f)| packet.is_out && f.sample().is_some());
    let mut seen = Seen { queue_known, ..Seen::default() };
    // at the host itself nothing is taken up before it passed the tap
    let is_near = evidence.delays().is_some();
    let passed_ns = |p: &Packet| {
        let ts_ns = p.ts_ns.filter(|_| is_near)?;
        Some(ts_ns.saturating_sub(clocks.offset_at_packet_ns(ts_ns)?).saturating_sub(CLOCK_NS))
    };
    let mut sacks = edges.first().zip(segments).map(|(begin, segments)| Sacks::new(segments, begin.una));
    for (i, packet) in packets.iter().enumerate() {
        let p = &all[packet.index as usize];
        let sacked = sacks.as_mut().filter(|_| !packet.is_out).and_then(|sacks| sacks.take(p));
        if let Some(s) = found[i].sample() {
            last = Some((s as usize + 1, samples[s as usize].ts_ns));
            seen.packet(p, packet.is_out, edges[s as usize]);
            continue;
        }
        let by_time = match (times[i], last) {
            (Some(t), _) => (rising.at.partition_point(|&a| a <= t), t),
            (None, Some(last)) => last,
            (None, None) => continue,
        };
        let near = edges[by_time.0.clamp(1, edges.len()) - 1];
        let slot = rising.slot(p, packet.is_out, by_time, near, &seen);
        let slot = sacked.map_or(slot, |sacked| sacked.slot(slot, passed_ns(p), samples, edges));
        seen.packet(p, packet.is_out, near);
        places.push(Place { slot, at_ns: by_time.1, packet: i });
    }
    let answered = Answered::new(&places, packets, found, echoes);
    for place in places.iter_mut().filter(|place| packets[place.packet].is_out) {
        let p = &all[packets[place.packet].index as usize];
        let near = edges[place.slot.clamp(1, edges.len()) - 1];
        let start = nearest(p.seq, near.nxt);
        // what was new then has been placed by the numbers
        if !rising.is_new(place.slot, start) {
            place.slot = answered.slot(place.slot, echoes.stamp(place.packet)).min(rising.last_sent(p, start, near));
        }
    }
    places.sort_by_key(|p| (p.slot, p.at_ns, p.packet));
    places
}

/// What the capture's ACKs acknowledge selectively, in its order.
struct Sacks<'a> {
    segments: &'a Segments,
    board: Scoreboard,
    una: Position,
    counted: i64,
}

/// An ACK that acknowledges more of what lies beyond `una`: so many segments with it.
#[derive(Clone, Copy)]
struct Sacked {
    una: Position,
    segments: i64,
}

/// The clocks' difference is known no better than this.
const CLOCK_NS: i64 = 10_000;
/// So many samples are asked how much they know of what was acknowledged.
const MOST_ASKED: usize = 256;

impl<'a> Sacks<'a> {
    fn new(segments: &'a Segments, una: Position) -> Sacks<'a> {
        Sacks { segments, board: Scoreboard::default(), una, counted: 0 }
    }

    /// The next received packet; what it adds, if it does nothing else.
    fn take(&mut self, p: &Packet) -> Option<Sacked> {
        if !p.flags.ack() || p.flags.rst() {
            return None;
        }
        let ack = nearest(p.ack, self.una);
        let is_same = ack == self.una;
        if ack > self.una {
            self.una = ack;
            self.board.acknowledge(ack);
        } else if p.sack.is_empty() {
            return None;
        }
        for (left, right) in p.sack.iter() {
            let start = nearest(left, self.una);
            self.board.add(start, start + i64::from(right.wrapping_sub(left)), self.una, Position::MAX);
        }
        let before = std::mem::replace(&mut self.counted, self.segments.of(&self.board));
        (is_same && self.counted > before).then_some(Sacked { una: self.una, segments: self.counted })
    }
}

impl Sacked {
    /// Before the first sample that knows of it, as the samples count: near where time puts it.
    fn slot(self, slot: usize, from_ns: Option<i64>, samples: &[SampleRow], edges: &[Edges]) -> usize {
        // `None`: of another time, or not told
        let knows = |s: &usize| {
            let counted = samples.get(*s)?.sacked_out.filter(|_| edges[*s].una == self.una)?;
            Some(i64::from(counted) >= self.segments)
        };
        let ahead = (slot..slot + MOST_ASKED).find(|s| knows(s) != Some(false));
        // a sample does not know of what came after it
        let is_early = |s: &usize| from_ns.is_some_and(|from| samples[*s].ts_ns < from);
        let back = (slot.saturating_sub(MOST_ASKED)..slot).rev().find(|s| is_early(s) || knows(s) != Some(true));
        match (ahead, back) {
            (Some(ahead), _) if ahead > slot => ahead,
            (_, Some(back)) => back + 1,
            _ => slot,
        }
    }
}

/// Where the ACKs stand whose stamps what is sent carries back (RFC 7323): each with its stamp, and before which sample.
struct Answered {
    by_stamp: Vec<(Position, usize)>,
    /// The last place up to each of them, and the first from each on.
    last: Vec<usize>,
    first: Vec<usize>,
}

impl Answered {
    fn new(places: &[Place], packets: &[FlowPacket], found: &[Found], echoes: &Echoes) -> Answered {
        let own = found.iter().enumerate().filter_map(|(i, f)| Some((i, f.sample()? as usize + 1)));
        let every = own.chain(places.iter().map(|p| (p.packet, p.slot)));
        let mut by_stamp: Vec<(Position, usize)> =
            every.filter(|&(i, _)| !packets[i].is_out).filter_map(|(i, slot)| Some((echoes.stamp(i)?, slot))).collect();
        by_stamp.sort_unstable();
        let mut last: Vec<usize> = by_stamp.iter().map(|s| s.1).collect();
        let mut first = last.clone();
        for i in 1..last.len() {
            last[i] = last[i].max(last[i - 1]);
        }
        for i in (1..first.len()).rev() {
            first[i - 1] = first[i - 1].min(first[i]);
        }
        Answered { by_stamp, last, first }
    }

    /// A place that does not contradict the stamp that was carried back.
    fn slot(&self, slot: usize, echoed: Option<Position>) -> usize {
        let Some(stamp) = echoed else { return slot };
        let below = self.by_stamp.partition_point(|s| s.0 < stamp);
        let with = self.by_stamp.partition_point(|s| s.0 <= stamp);
        // after all with earlier stamps and the first with this one, before any with a later one
        let earlier = below.checked_sub(1).map(|i| self.last[i]);
        let own = self.by_stamp.get(below).filter(|s| s.0 == stamp).map(|s| s.1);
        let low = earlier.max(own).unwrap_or(0);
        let high = self.first.get(with).copied().unwrap_or(usize::MAX);
        if low <= high { slot.clamp(low, high) } else { slot }
    }
}

/// How far the capture's packets went in both directions.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    end: Option<Position>,
    ack: Option<Position>,
    /// Do matches tell how long what is sent takes to the tap?
    queue_known: bool,
}

impl Seen {
    fn packet(&mut self, p: &Packet, is_out: bool, near: Edges) {
        if is_out {
            let end = nearest(p.seq, near.nxt) + space(p.len, p.flags.0);
            self.end = Some(self.end.map_or(end, |e| e.max(end)));
        } else if p.flags.ack() {
            let ack = nearest(p.ack, near.una);
            self.ack = Some(self.ack.map_or(ack, |a| a.max(ack)));
        }
    }
}

/// Time and edges of the samples. None of them goes back, but for clocks of several processors and traces of others.
pub(crate) struct Rising {
    at: Vec<i64>,
    una: Vec<Position>,
    nxt: Vec<Position>,
    /// What each sample of a received segment is about to acknowledge.
    acks: Vec<Option<u32>>,
}

impl Rising {
    pub(crate) fn new(samples: &[SampleRow], edges: &[Edges]) -> Rising {
        fn rising<T: Copy + Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
            let mut most: Option<T> = None;
            let at_least = |v: T| *most.insert(most.map_or(v, |m| m.max(v)));
            values.map(at_least).collect()
        }
        Rising {
            at: rising(samples.iter().map(|s| s.ts_ns)),
            una: rising(edges.iter().map(|e| e.una)),
            nxt: rising(edges.iter().map(|e| e.nxt)),
            acks: samples.iter().map(about_to_acknowledge).collect(),
        }
    }

    /// Is what begins at this position new data there, as the numbers tell?
    fn is_new(&self, slot: usize, start: Position) -> bool {
        slot.checked_sub(1).is_none_or(|before| self.nxt[before] <= start)
    }

    /// Between which samples a packet stands that time puts at `by_time`.
    fn slot(&self, p: &Packet, is_out: bool, by_time: (usize, i64), near: Edges, seen: &Seen) -> usize {
        let (slot, at_ns) = by_time;
        if p.flags.rst() {
            return slot;
        }
        let (values, position, is_old) = if is_out {
            let start = nearest(p.seq, near.nxt);
            (&self.nxt, start, seen.end.is_some_and(|end| end > start))
        } else if p.flags.ack() {
            let ack = nearest(p.ack, near.una);
            (&self.una, ack, seen.ack.is_some_and(|a| a > ack))
        } else {
            return slot;
        };
        // what was not there yet came before: of data, also a sample that is about to send it
        let takes = i64::from(is_out && space(p.len, p.flags.0) > 0);
        let mut lowest = values.partition_point(|&v| v < position + takes);
        if !is_out {
            if lowest == values.len() {
                // no sample knows of it: what was never sent cannot be acknowledged, what was sent was sent before
                let sent = self.nxt.partition_point(|&v| v < position);
                let was_sent = sent < self.nxt.len() || seen.end.is_some_and(|end| end >= position);
                lowest = if was_sent { sent } else { slot.min(lowest) };
            } else if slot <= lowest && self.is_merged(lowest, p.ack) {
                return lowest - 1;
            }
        }
        // and what goes beyond came after, unless this was sent again or came late
        let highest = values.partition_point(|&v| v <= position);
        let late = is_out && seen.queue_known && self.at.get(highest).is_some_and(|&a| at_ns - a > ROUGHLY_NS);
        let slot = if is_old || late { slot.max(lowest) } else { slot.clamp(lowest, highest) };
        if is_out { slot.min(self.last_sent(p, position, near)) } else { slot }
    }
}

fn about_to_acknowledge(s: &SampleRow) -> Option<u32> {
    (s.kind == Kind::Ack && s.phase == Phase::Before && s.has_segment).then_some(s.ack)
}

impl Rising {
    /// How many samples were surely taken before a number was sent, or what begins at it.
    pub(crate) fn before_sent(&self, start: Position) -> usize {
        self.nxt.partition_point(|&v| v < start)
    }

    /// How many were taken when nothing had been sent from this number on.
    pub(crate) fn knows_sent(&self, start: Position) -> usize {
        self.nxt.partition_point(|&v| v <= start)
    }

    /// How many were taken when what ends there was not yet acknowledged.
    pub(crate) fn not_acknowledged(&self, end: Position) -> usize {
        self.una.partition_point(|&v| v < end)
    }

    /// Before which sample the first ACK of so much stands.
    pub(crate) fn first_acknowledged(&self, position: Position, ack: u32) -> usize {
        let knows = self.not_acknowledged(position);
        if knows < self.una.len() && self.is_merged(knows, ack) { knows - 1 } else { knows }
    }

    /// Before which sample at the latest a packet was sent that begins there: what has been acknowledged is not sent
    /// again (`tcp_retransmit_skb`). What seems to be older than a window is newer, where a lap's samples are missing.
    fn last_sent(&self, p: &Packet, start: Position, near: Edges) -> usize {
        if space(p.len, p.flags.0) == 0 || near.una - start > MOST_WINDOW {
            return usize::MAX;
        }
        self.first_acknowledged(start + 1, p.seq)
    }

    /// Is the sample before the first one that knows of an ACK about to acknowledge more? Then the ACK was merged into
    /// that one while it waited (`tcp_add_to_backlog`), or it never came to TCP: nothing of its own was processed.
    fn is_merged(&self, knows: usize, ack: u32) -> bool {
        let about = knows.checked_sub(1).and_then(|last| self.acks[last]);
        about.is_some_and(|about| about.wrapping_sub(ack) as i32 > 0)
    }
}

/// Where samples do not name their segments, as in the logs of others: an ACK that is the first to acknowledge so much
/// was processed at the last sample that did not know of it. The delays that follow.
pub(crate) fn aligned(samples: &[SampleRow], all: &[Packet], packets: &[FlowPacket]) -> Vec<Delay> {
    let rising = Rising::new(samples, &edges_of(samples));
    let mut most: Option<Position> = None;
    let mut delays = Vec::new();
    for packet in packets.iter().filter(|packet| !packet.is_out && !samples.is_empty()) {
        let p = &all[packet.index as usize];
        let Some(ts_ns) = p.ts_ns.filter(|_| p.flags.ack() && !p.flags.rst()) else { continue };
        let ack = nearest(p.ack, most.unwrap_or(rising.una[0]));
        if most.is_some_and(|m| ack <= m) {
            continue;
        }
        most = Some(ack);
        let next = rising.una.partition_point(|&u| u < ack);
        if let (Some(before), Some(true)) = (next.checked_sub(1), rising.una.get(next).map(|&u| u == ack)) {
            delays.push(Delay { ts_ns, delay_ns: ts_ns.saturating_sub(samples[before].ts_ns), is_out: false });
        }
    }
    delays
}
