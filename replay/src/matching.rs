//! Which sample was taken for which packet: one direction of one flow.
//!
//! Range, timestamp value and IPv4 identification say which samples a packet can have. A single one that carries the
//! packet's own identification or timestamp value is its sample; a single one without must not contradict the clocks.
//! Of several, the k-th transmission goes with the k-th sample where as many were captured as were sampled and the
//! delays that follow from it agree with each other; otherwise time decides, if it does so with a margin. Where two
//! samples are still possible the packet gets none. Here are the candidates and the order of the rules, which are in
//! [`choice`], [`count`] and [`missing`]. Knows numbers and positions; must not know files.

mod choice;
mod count;
mod empties;
mod missing;

use std::ops::Range;

use count::{Contest, Counted};
use empties::{Empties, EmptyKey, empty_key};
use tcpprobe_trace::join::Reason;

use crate::delays::UsualDelays;
use crate::hash::{HashMap, HashMapExt as _, HashSet};
use crate::ids::{Kinship, MOST_MERGED, are_counted, are_telling, kinship, taken};
use crate::packet::TcpFlags;
use crate::seq::Position;
use crate::sightings::Direction;
use crate::spans::Spans;
use crate::stamps::StampLine;

/// A segment as the matching sees it, of a packet or of a sample alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    /// First position.
    pub(crate) start: Position,
    /// Position after its last byte, SYN and FIN counted; `start` where it takes no space.
    pub(crate) end: Position,
    /// Acknowledgment number.
    pub(crate) ack: u32,
    /// Flag bits.
    pub(crate) flags: u16,
    /// Timestamp value, if known.
    pub(crate) tsval: Option<u32>,
    /// Time, ns; of its own clock.
    pub(crate) ts_ns: Option<i64>,
    /// IPv4 identification.
    pub(crate) ip_id: Option<u16>,
    /// Interface and packet type, where the capture tells: a packet passes each of them once.
    pub(crate) place: Option<Place>,
}

/// Interface and packet type.
type Place = (u32, u8);

/// A packet's sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Taken for this very segment.
    Exact(u32),
    /// The packet is a part of it, or begins with it.
    Within(u32),
    /// None, and why.
    Nothing(Reason),
}

impl Found {
    pub(crate) fn sample(self) -> Option<u32> {
        match self {
            Found::Exact(s) | Found::Within(s) => Some(s),
            Found::Nothing(_) => None,
        }
    }
}

/// Of so many samples that are alike in all that tells them apart none is taken: time and memory go with their square.
const MOST_ALIKE: usize = 1024;

/// Sightings of one segment on several interfaces of a host are no farther apart, and no sender retransmits as soon.
pub(crate) const COPY_NS: i64 = 10_000;

/// Two clocks of one host are read with less noise than this.
pub(crate) const EARLY_NS: i64 = 3_000;

/// No queue of a host holds a packet longer.
pub(crate) const QUEUE_NS: i64 = 2_000_000_000;

/// No sender waits longer before it sends again, so that a difference beyond it is one of clocks (RFC 1122 §4.2.3.5
/// gives up after some minutes).
const LONG_NS: i64 = 900_000_000_000;

/// What the trace has of a direction, besides the samples themselves.
pub(crate) struct Completeness<'a> {
    /// For each sample the number of holes in the flow's serials before it.
    pub(crate) holes_before: &'a [u32],
    /// Were samples left out on purpose?
    pub(crate) sparse: bool,
    /// Does the capture show packets of this flow more than once, as one of several interfaces does?
    pub(crate) copies: bool,
    /// Was the flow recorded from its beginning?
    pub(crate) from_begin: bool,
    /// And to its end?
    pub(crate) to_end: bool,
}

/// The samples that each packet could have.
#[derive(Default)]
struct Candidates {
    /// For each packet where its samples are in the list; packets that are alike share them.
    ranges: Vec<Range<usize>>,
    flat: Vec<u32>,
    /// Packets that could have more samples than are looked at.
    beyond: HashSet<u32>,
}

impl Candidates {
    /// Gives a packet those of the one before it.
    fn as_before(&mut self, packet: u32) {
        self.ranges.extend(self.ranges.last().cloned());
        if packet.checked_sub(1).is_some_and(|before| self.beyond.contains(&before)) {
            self.beyond.insert(packet);
        }
    }

    /// Ascending.
    fn of(&self, packet: u32) -> &[u32] {
        &self.flat[self.ranges[packet as usize].clone()]
    }
}

/// Packets that could have the same samples, ascending.
#[derive(Default)]
struct Rivals {
    /// At the place where the packet was seen, itself among them.
    here: Vec<u32>,
    /// At another place, where more were seen.
    elsewhere: Vec<u32>,
}

impl Rivals {
    fn none_but(&mut self, packet: u32) {
        self.here.clear();
        self.here.push(packet);
        self.elsewhere.clear();
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        self.here.iter().chain(&self.elsewhere).copied()
    }
}

/// Matches one direction of a flow.
pub(crate) struct Matcher<'a> {
    packets: &'a [Sighting],
    samples: &'a [Sighting],
    completeness: Completeness<'a>,
    sample_spans: Spans,
    packet_spans: Spans,
    empty_samples: Empties,
    empty_packets: Empties,
    candidates: Candidates,
    /// Delays of the packets whose sample is beyond doubt: nothing else could be theirs, nor it another's.
    usual: UsualDelays,
    /// Is a packet the only one that could have its only sample?
    alone: Vec<bool>,
    /// Do identifications tell transmissions apart?
    ids: bool,
    /// For each sample of what was sent, how many identifications its pieces may have.
    taken: Vec<Option<u16>>,
    /// The longest that was sent as one packet.
    largest_piece: i64,
    /// What the packets' stamps say of samples that have none, and when these were taken.
    line: Option<(StampLine, &'a [i64])>,
    /// The first packet that no sample can be of, beyond all of them if there is none, and the last.
    foreign: (u32, Option<u32>),
    /// Does the sender of this direction's packets count its identifications up?
    counted: bool,
    /// Did the recorded socket send this direction's packets?
    is_out: bool,
    /// Was the capture taken at the socket's own host, where nothing overtakes?
    is_near: bool,
}

/// Finds each packet's sample.
pub(crate) fn match_direction(matcher: &Matcher<'_>) -> Vec<Found> {
    let Matcher { packets, usual, .. } = matcher;
    let (mut rivals, mut contest) = (Rivals::default(), Contest::default());
    let mut by_time: Vec<(u32, u32)> = Vec::new();
    let mut found: Vec<Found> = (0..packets.len() as u32)
        .map(|p| {
            let candidates = matcher.candidates.of(p);
            match candidates {
                [] if matcher.candidates.beyond.contains(&p) => Found::Nothing(Reason::Ambiguous),
                [] => Found::Nothing(Reason::NotSampled),
                // of what was sent its own number is proof enough, whatever else there is
                [only] if matcher.is_out && matcher.kinship(&packets[p as usize], *only) == Kinship::Same => {
                    matcher.verdict(p, *only)
                }
                [only] => {
                    match matcher.alone[p as usize] {
                        true => rivals.none_but(p),
                        false => matcher.rivals(p, candidates, &mut rivals),
                    }
                    matcher.lone(p, *only, &rivals, usual)
                }
                several => {
                    match contest.sample(matcher, p, several, usual) {
                        Counted::Sample(s) => return matcher.verdict(p, s),
                        Counted::Ambiguous => return Found::Nothing(Reason::Ambiguous),
                        Counted::Nothing => {}
                    }
                    match matcher.by_time(p, several, usual) {
                        Some(s) => {
                            by_time.push((s, p));
                            matcher.verdict(p, s)
                        }
                        None => Found::Nothing(Reason::Ambiguous),
                    }
                }
            }
        })
        .collect();
    // what time alone gave to two packets that are no copies of each other is certain of neither
    by_time.sort_unstable();
    for pair in by_time.windows(2).filter(|w| w[0].0 == w[1].0) {
        let (a, b) = (pair[0].1, pair[1].1);
        let same_start = packets[a as usize].start == packets[b as usize].start;
        if same_start && !matcher.are_copies(a, b) {
            found[a as usize] = Found::Nothing(Reason::Ambiguous);
            found[b as usize] = Found::Nothing(Reason::Ambiguous);
        }
    }
    found
}

impl<'a> Matcher<'a> {
    /// Packets come in the order of the capture, samples in that of their serials.
    pub(crate) fn new(is_out: bool, direction: &'a Direction, completeness: Completeness<'a>) -> Matcher<'a> {
        let (packets, samples) = (&direction.captured[..], &direction.sampled[..]);
        let taken = if is_out { taken(samples) } else { Vec::new() };
        let whole = samples.iter().zip(&taken).filter(|(_, t)| **t == Some(1));
        let largest_piece = whole.map(|(s, _)| s.end - s.start).max().unwrap_or(0);
        let mut matcher = Matcher {
            packets,
            samples,
            completeness,
            sample_spans: spans(samples),
            packet_spans: spans(packets),
            empty_samples: Empties::new(samples),
            empty_packets: Empties::new(packets),
            candidates: Candidates::default(),
            usual: UsualDelays::new(Vec::new()),
            alone: Vec::new(),
            ids: false,
            taken,
            largest_piece,
            line: None,
            foreign: (u32::MAX, None),
            counted: are_counted(packets),
            is_out,
            is_near: false,
        };
        let by_numbers = matcher.all_candidates(None);
        let lone = (0..packets.len() as u32).filter_map(|p| match by_numbers.of(p) {
            [only] => Some((&packets[p as usize], &samples[*only as usize])),
            _ => None,
        });
        matcher.ids = are_telling(lone, samples, is_out);
        matcher.narrow_all(&by_numbers);
        if let Some(mono_ns) = direction.unstamped.as_deref() {
            let usual = &matcher.usual.pairs;
            let pairs = usual.iter().map(|&(p, s, _)| (&packets[p as usize], mono_ns[s as usize]));
            matcher.line = StampLine::of(pairs).zip(Some(mono_ns));
            if matcher.line.is_some() {
                matcher.narrow_all(&by_numbers);
            }
        }
        let mut foreign = (0..packets.len() as u32).filter(|&p| matcher.candidates.of(p).is_empty());
        let first = foreign.next();
        matcher.foreign = (first.unwrap_or(u32::MAX), foreign.next_back().or(first));
        matcher
    }

    /// The candidates, and what they say at once: by what is known now besides the numbers.
    fn narrow_all(&mut self, by_numbers: &Candidates) {
        self.candidates = self.all_candidates(Some(by_numbers));
        (self.usual, self.alone) = self.beyond_doubt();
    }

    /// Each packet's candidates; `known` has them by numbers alone.
    fn all_candidates(&self, known: Option<&Candidates>) -> Candidates {
        let mut all = Candidates { ranges: Vec::with_capacity(self.packets.len()), ..Candidates::default() };
        all.flat.reserve(self.packets.len());
        let mut of_one = Vec::new();
        let mut last = None;
        for p in 0..self.packets.len() as u32 {
            let of = self.alike_in(p);
            if of.is_some() && of == last {
                all.as_before(p);
                continue;
            }
            last = of;
            of_one.clear();
            match known {
                Some(known) if !known.beyond.contains(&p) => of_one.extend_from_slice(known.of(p)),
                // too many to be told apart by numbers
                None if self.has_many(p) => _ = all.beyond.insert(p),
                _ => self.with_its_numbers(p, &mut of_one),
            }
            self.narrow(p, &mut of_one);
            if of_one.len() > MOST_ALIKE {
                all.beyond.insert(p);
                of_one.clear();
            }
            let begin = all.flat.len();
            all.flat.extend_from_slice(&of_one);
            all.ranges.push(begin..all.flat.len());
        }
        all
    }

    /// What packets have in common that have the same samples; `None`: each has its own.
    fn alike_in(&self, packet: u32) -> Option<(EmptyKey, Option<u32>)> {
        let p = &self.packets[packet as usize];
        let by_numbers = self.line.is_none() && !self.ids && !self.answers_for_none(p);
        (by_numbers && p.start == p.end).then(|| (empty_key(p), p.tsval))
    }

    /// Takes it no space, and are more than a few samples alike?
    fn has_many(&self, packet: u32) -> bool {
        let p = &self.packets[packet as usize];
        p.start == p.end && self.empty_samples.has_many(p)
    }

    /// What their identifications say of a packet and a sample.
    fn kinship(&self, packet: &Sighting, sample: u32) -> Kinship {
        if !self.ids {
            return Kinship::Unknown;
        }
        let sampled = &self.samples[sample as usize];
        // the next transmission's identification is none of its pieces'
        let taken = self.taken.get(sample as usize).copied().flatten();
        let count = packet.ip_id.zip(sampled.ip_id).map(|(p, s)| p.wrapping_sub(s));
        match (taken, count, kinship(packet, sampled, self.is_out)) {
            (Some(taken), Some(count), _) if count >= taken => Kinship::Other,
            // a transmission that is missing may have had it
            (_, Some(1..), Kinship::Same) if self.incomplete_around(&[sample]) && !self.is_large(packet, sampled) => {
                Kinship::Unknown
            }
            (.., kin) => kin,
        }
    }

    /// Is a packet that may be made of several pieces so of pieces as large as others are? Small ones fit any length.
    fn is_large(&self, packet: &Sighting, sample: &Sighting) -> bool {
        let count = packet.ip_id.zip(sample.ip_id).map_or(1, |(p, s)| p.wrapping_sub(s).max(1));
        let size = (packet.start - sample.start) / i64::from(count);
        packet.end - packet.start == size || 2 * size > self.largest_piece
    }

    /// With the knowledge of where the capture was taken.
    pub(crate) fn at(self, is_near: bool) -> Self {
        Matcher { is_near, ..self }
    }

    /// Do identifications tell this direction's transmissions apart?
    pub(crate) fn ids_tell(&self) -> bool {
        self.ids
    }

    /// The samples that could be this packet's by its numbers, ascending.
    fn with_its_numbers(&self, packet: u32, into: &mut Vec<u32>) {
        let p = &self.packets[packet as usize];
        match p.start == p.end {
            // those of another identification are other transmissions
            true => self.empty_samples.alike(p, true, p.ip_id.filter(|_| self.ids), into),
            false => self.sample_spans.covering(p.start, into),
        }
        into.retain(|&s| {
            let s = &self.samples[s as usize];
            same_or_unknown(p.tsval, s.tsval) && same_kind(p, s)
        });
    }

    /// Takes away what cannot be this packet's by the time of its stamp and by its identification.
    fn narrow(&self, packet: u32, into: &mut Vec<u32>) {
        let p = &self.packets[packet as usize];
        if let Some((line, mono_ns)) = &self.line {
            into.retain(|&s| line.allows(p, mono_ns[s as usize]));
        }
        if self.answers_for_none(p) {
            into.retain(|&s| kinship(p, &self.samples[s as usize], true) == Kinship::Same);
        }
        if self.ids {
            let same = into.iter().any(|&s| self.kinship(p, s) == Kinship::Same);
            into.retain(|&s| match self.kinship(p, s) {
                Kinship::Same => true,
                Kinship::Unknown => !same,
                Kinship::Other => false,
            });
        }
    }

    /// The small sockets of TIME_WAIT, and those that answer for none, count nothing and have no samples.
    fn answers_for_none(&self, p: &Sighting) -> bool {
        self.is_out && self.counted && p.ip_id == Some(0) && p.flags & TcpFlags::SYN.0 == 0
    }

    /// The packets that could have these samples too, this one among them.
    fn rivals(&self, packet: u32, candidates: &[u32], into: &mut Rivals) {
        let p = &self.packets[packet as usize];
        let Rivals { here, elsewhere } = into;
        // two with different stamps can only both have a sample that has none
        match p.start == p.end {
            true => {
                // by now no packet has a sample of another identification
                let ip_id = match candidates {
                    [only] if self.ids => self.samples[*only as usize].ip_id.filter(|&id| id != 0),
                    _ => None,
                };
                self.empty_packets.alike(p, !self.empty_samples.has_unstamped(p), ip_id, here);
            }
            false => self.packet_spans.covering(p.start, here),
        }
        here.retain(|&r| {
            self.candidates.of(r).iter().any(|s| candidates.binary_search(s).is_ok())
                || candidates.iter().any(|&s| self.may_hold(r, s))
        });
        elsewhere.clear();
        elsewhere.extend(here.extract_if(.., |r| !same_place(p, &self.packets[*r as usize])));
        if !elsewhere.is_empty() {
            self.keep_most_shown(elsewhere, here.len());
        }
    }

    /// Of packets at several places those of the place that shows the most, if they are more than `than`. Places that
    /// show more transmissions than the packet's own prove that the capture has lost some of them there.
    fn keep_most_shown(&self, elsewhere: &mut Vec<u32>, than: usize) {
        let place = |r: u32| self.packets[r as usize].place;
        let mut shown: HashMap<_, usize> = HashMap::new();
        for &r in elsewhere.iter() {
            *shown.entry(place(r)).or_default() += 1;
        }
        match shown.into_iter().map(|(at, n)| (n, at)).max() {
            Some((n, at)) if n > than => elsewhere.retain(|&r| place(r) == at),
            _ => elsewhere.clear(),
        }
    }

    /// Can a packet that begins before a sampled segment have brought it, as a part?
    fn may_hold(&self, packet: u32, sample: u32) -> bool {
        let (p, s) = (&self.packets[packet as usize], &self.samples[sample as usize]);
        let follows = match (self.ids, p.ip_id, s.ip_id) {
            (true, Some(packet), Some(sample)) => (1..=MOST_MERGED).contains(&sample.wrapping_sub(packet)),
            _ => true,
        };
        let holds = p.start < s.start && s.start < p.end && same_or_unknown(p.tsval, s.tsval) && same_kind(p, s);
        holds && follows && self.line.as_ref().is_none_or(|(line, mono_ns)| line.allows(p, mono_ns[sample as usize]))
    }

    /// The delays of packets whose sample is beyond doubt.
    pub(crate) fn usual_delays(&self) -> &UsualDelays {
        &self.usual
    }

    fn beyond_doubt(&self) -> (UsualDelays, Vec<bool>) {
        let mut rivals = Rivals::default();
        let mut pairs = Vec::with_capacity(self.packets.len());
        let mut alone = vec![false; self.packets.len()];
        for p in 0..self.packets.len() as u32 {
            if let [only] = self.candidates.of(p) {
                self.rivals(p, &[*only], &mut rivals);
                alone[p as usize] = rivals.all().eq([p]);
                let undisputed = rivals.all().all(|r| r == p || self.are_copies(p, r));
                if let (true, Some(delay)) = (undisputed, self.delay(p, *only)) {
                    pairs.push((p, *only, delay));
                }
            }
        }
        (UsualDelays::new(pairs), alone)
    }

    /// Can these be two sightings of one transmission?
    fn are_copies(&self, a: u32, b: u32) -> bool {
        let (a, b) = (&self.packets[a as usize], &self.packets[b as usize]);
        // what was sent once may have been doubled on the way: the two have one identification
        let doubled = self.is_out && self.counted && looks(a) == looks(b) && a.ip_id.is_some_and(|id| id != 0);
        doubled || (self.completeness.copies && same_sighting(a, b))
    }

    fn delay(&self, packet: u32, sample: u32) -> Option<i64> {
        Some(self.packets[packet as usize].ts_ns? - self.samples[sample as usize].ts_ns?)
    }
}

fn spans(of: &[Sighting]) -> Spans {
    Spans::new(of.iter().zip(0u32..).map(|(s, i)| (s.start, s.end, i)))
}

/// Were both seen at one place, or is it not known?
fn same_place(a: &Sighting, b: &Sighting) -> bool {
    same_or_unknown(a.place, b.place)
}

fn same_or_unknown<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
    a.zip(b).is_none_or(|(a, b)| a == b)
}

fn looks(s: &Sighting) -> (Position, Position, u32, u16, Option<u32>, Option<u16>) {
    (s.start, s.end, s.ack, s.flags, s.tsval, s.ip_id)
}

/// Alike in all that is known here, and so close in time that no sender can have sent them both?
fn same_sighting(a: &Sighting, b: &Sighting) -> bool {
    looks(a) == looks(b)
        && a.place.zip(b.place).is_none_or(|(a, b)| a != b)
        && a.ts_ns.zip(b.ts_ns).is_some_and(|(a, b)| (a - b).abs() <= COPY_NS)
}

/// A reset is never a part of data, nor the other way round.
fn same_kind(a: &Sighting, b: &Sighting) -> bool {
    (a.flags ^ b.flags) & TcpFlags::RST.0 == 0
}
