//! How well a connection of a capture agrees with a flow's samples, once its numbers are shifted back.
//!
//! Owns what counts as evidence, and how much of which kind is enough; must not know what else may fit.

use std::collections::BTreeMap;

use tcpprobe_trace::reader::{FlowRow, SampleRow};
use tcpprobe_trace::sample::Sampled;

use super::{MARK, Shifts};
use crate::hash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
use crate::matching::Sighting;
use crate::packet::{Packet, TcpFlags};
use crate::seq::Position;
use crate::sightings::{Direction, FlowPacket, holes_before};
use crate::spans::Spans;

/// Numbers of both directions that are the same as the socket's: 64 bits that chance does not hit, seen so often that a
/// connection of equal beginnings does not either.
const ENOUGH_NUMBERS: usize = 3;
/// Segments at the same places of the stream where one direction's numbers are as they were.
const ENOUGH_SEGMENTS: usize = 8;
/// Timestamp values that come at the same places. Connections between the same hosts have the same clock
/// (`secure_tcp_ts_off`): but they do not do the same at so many of its ticks.
const ENOUGH_STAMPS: usize = 12;
/// Different lengths that the application wrote one after the other.
const ENOUGH_DISTANCES: usize = 8;
/// Where lengths alone speak, clocks must not differ by more: an application may do the same again later.
const SAME_TIME_NS: i64 = 2_000_000_000;

/// How a flow is known in a connection; later ones are stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proof {
    /// Not at all, but enough to doubt that another one is it.
    Possible,
    /// By timestamps, or by lengths and time, at the same places of both directions' streams.
    Places,
    /// By the numbers of one direction, and the places of the other.
    OneDirection,
    /// By the numbers of both directions.
    Numbers,
}

/// What agrees and what does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Different segments that a sample has.
    pub(crate) segments: usize,
    /// Different timestamp values among them.
    stamps: usize,
    /// Different distances between marks that both have.
    distances: usize,
    /// Packets with data: of a sample,
    agree: usize,
    /// of none that is like them, although one covers their range,
    contradict: usize,
    /// of a range that no sample has, though there are samples before and after.
    missing: usize,
    /// of a range behind the end of a flow that was closed.
    beyond: usize,
    marks_agree: usize,
    marks_contradict: usize,
    /// What a direction's timestamp values are shifted by, if all are by the same; sent, received.
    stamps_off: [Option<u32>; 2],
    /// Least and greatest time of a packet minus its sample's, ns.
    delays: Option<(i64, i64)>,
}

/// Compares packets, shifted back, with a flow's samples.
pub(crate) fn agreement(flow: &FlowRow, samples: &[SampleRow], all: &[Packet], packets: &[FlowPacket]) -> Agreement {
    let mut found = Agreement::default();
    for is_out in [true, false] {
        found.direction(is_out, &Direction::new(is_out, samples, all, packets), flow.closed);
    }
    found
}

impl Agreement {
    /// The shifts with those of timestamp values. Only where a direction's numbers are the socket's own: of shifts in
    /// everything some would fit any two that do alike.
    pub(crate) fn with_stamps(&self, shifts: Shifts) -> Option<Shifts> {
        let [own_stamps, peer_stamps] = self.stamps_off.map(Option::unwrap_or_default);
        let off = own_stamps != 0 || peer_stamps != 0;
        (off && (shifts.own == 0 || shifts.peer == 0)).then_some(Shifts { own_stamps, peer_stamps, ..shifts })
    }

    /// Do different segments agree in their timestamp values as well?
    pub(crate) fn is_stamped(&self) -> bool {
        self.stamps > 1
    }

    /// Is the flow this connection, as far as the two alone tell? `None`: there is no reason to think so.
    pub(crate) fn proof(&self, shifts: Shifts, sampled: Sampled, samples: &[SampleRow]) -> Option<Proof> {
        let timely = self.delays.is_some_and(|(least, most)| least >= -SAME_TIME_NS && most <= SAME_TIME_NS);
        let (kind, part) = match (shifts.own, shifts.peer) {
            (0, 0) => (Proof::Numbers, ratio(self.segments, ENOUGH_NUMBERS)),
            (0, _) | (_, 0) => (Proof::OneDirection, ratio(self.segments, ENOUGH_SEGMENTS)),
            _ => {
                let stamped = ratio(self.stamps, ENOUGH_STAMPS).min(ratio(self.segments, ENOUGH_SEGMENTS));
                // without stamps an exception is one too many
                let sure = timely && self.contradict + self.marks_contradict + self.beyond == 0;
                let shaped = ratio(self.distances, ENOUGH_DISTANCES).min(if sure { 1.0 } else { 0.9 });
                (Proof::Places, stamped.max(shaped))
            }
        };
        let whole = sampled == Sampled::All && holes_before(samples, true).last().is_none_or(|&holes| holes == 0);
        let sound = self.contradict * 10 <= self.agree
            && (kind != Proof::Places || self.beyond * 10 <= self.agree)
            && self.marks_contradict * 10 <= self.marks_agree
            && (!whole || self.missing * 2 <= self.agree);
        let refuted = self.contradict > self.agree || self.marks_contradict > self.marks_agree;
        match part {
            p if p >= 1.0 && sound => Some(kind),
            p if p >= 0.5 && !refuted => Some(Proof::Possible),
            _ => None,
        }
    }

    fn direction(&mut self, is_out: bool, d: &Direction, ends: bool) {
        let spans = Spans::new(d.sampled.iter().zip(0u32..).map(|(s, i)| (s.start, s.end, i)));
        let mut empty: HashMap<(Position, u32), Vec<u32>> = HashMap::new();
        for (s, i) in d.sampled.iter().zip(0u32..).filter(|(s, _)| s.start == s.end) {
            empty.entry((s.start, s.ack)).or_default().push(i);
        }
        let (Some(first), Some(last)) =
            (d.sampled.iter().map(|s| s.start).min(), d.sampled.iter().map(|s| s.end).max())
        else {
            return;
        };
        let (mut segments, mut stamps) = (HashSet::new(), HashSet::new());
        let mut stamps_off: HashMap<u32, HashSet<(Position, u32)>> = HashMap::new();
        let mut own = Vec::new();
        for p in d.captured.iter().filter(|p| p.flags & TcpFlags::RST.0 == 0) {
            let with_data = p.end > p.start;
            if with_data {
                spans.covering(p.start, &mut own);
            } else {
                own.clear();
                own.extend(empty.get(&(p.start, p.ack)).into_iter().flatten());
            }
            let covered = !own.is_empty();
            let same = own.iter().map(|&s| &d.sampled[s as usize]).find(|s| (s.start, s.ack) == (p.start, p.ack));
            if let Some((ours, theirs)) = p.tsval.zip(same.and_then(|s| s.tsval)) {
                stamps_off.entry(ours.wrapping_sub(theirs)).or_default().insert((p.start, p.ack));
            }
            own.retain(|&s| is_like(p, &d.sampled[s as usize]));
            match own.iter().find(|&&s| d.sampled[s as usize].ack == p.ack) {
                Some(&s) => {
                    let s = &d.sampled[s as usize];
                    self.agree += usize::from(with_data);
                    segments.insert((p.start, p.end, p.ack));
                    stamps.extend(p.tsval.filter(|_| s.tsval.is_some()));
                    self.delay(p, s);
                }
                // received ones may have waited, and were merged with later ones (`tcp_add_to_backlog`)
                None if !own.is_empty() && !is_out => {}
                None if !with_data => {}
                None if covered => self.contradict += 1,
                None if ends && p.start >= last => self.beyond += 1,
                None => self.missing += usize::from(first <= p.start && p.end <= last),
            }
        }
        let every: usize = stamps_off.values().map(HashSet::len).sum();
        let most = stamps_off.into_iter().map(|(off, of)| (of.len(), off)).max();
        let most = most.filter(|(of, _)| *of >= ENOUGH_SEGMENTS && *of * 10 >= every * 9);
        self.stamps_off[usize::from(!is_out)] = most.map(|(_, off)| off);
        self.segments += segments.len();
        self.stamps += stamps.len();
        self.marks(is_out, d, &spans);
    }

    fn delay(&mut self, p: &Sighting, s: &Sighting) {
        let Some(delay) = p.ts_ns.zip(s.ts_ns).and_then(|(p, s)| p.checked_sub(s)) else { return };
        let (least, most) = self.delays.unwrap_or((delay, delay));
        self.delays = Some((least.min(delay), most.max(delay)));
    }

    /// Compares where the writes of an application end, which no segmentation on the way changes.
    fn marks(&mut self, is_out: bool, d: &Direction, sampled: &Spans) {
        let captured = Spans::new(d.captured.iter().zip(0u32..).map(|(p, i)| (p.start, p.end, i)));
        let (of_packets, of_samples) = (marks(&d.captured), marks(&d.sampled));
        let mut every: Vec<Position> = of_packets.keys().chain(of_samples.keys()).copied().collect();
        every.sort_unstable();
        every.dedup();
        let mut distances = HashSet::new();
        let mut last: Option<Position> = None;
        let mut covering = Vec::new();
        for at in every {
            match (of_packets.get(&at), of_samples.get(&at)) {
                (Some(a), Some(b)) if a == b => {
                    self.marks_agree += 1;
                    distances.extend(last.map(|last| at - last));
                    last = Some(at);
                    continue;
                }
                // merged with later ones while they waited
                (Some(a), Some(b)) if !is_out && (b.wrapping_sub(*a) as i32) > 0 => {}
                (Some(_), Some(_)) => self.marks_contradict += 1,
                // what the other one did not see says nothing
                (Some(_), None) => {
                    sampled.covering(at - 1, &mut covering);
                    self.marks_contradict += usize::from(!covering.is_empty());
                }
                _ => {
                    captured.covering(at - 1, &mut covering);
                    self.marks_contradict += usize::from(!covering.is_empty());
                }
            }
            last = None;
        }
        self.distances += distances.len();
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// Can a packet be of a sample, but for its acknowledgment number?
fn is_like(p: &Sighting, s: &Sighting) -> bool {
    p.tsval.zip(s.tsval).is_none_or(|(a, b)| a == b) && (p.flags ^ s.flags) & TcpFlags::SYN.0 == 0
}

/// Ends of segments that are marked, with the acknowledgment number of the first such segment.
fn marks(of: &[Sighting]) -> BTreeMap<Position, u32> {
    let mut marks = BTreeMap::new();
    for s in of.iter().filter(|s| s.flags & MARK != 0 && s.end > s.start) {
        marks.entry(s.end).or_insert(s.ack);
    }
    marks
}
