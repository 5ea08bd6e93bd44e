//! Which connections of a capture may be a flow, and how far the numbers would be shifted: by votes.
//!
//! What a middlebox leaves as it was finds the pairs: a number of one direction, a timestamp value, the distances of
//! the ends of what the application wrote. Each pair of a packet and a sample votes for the two shifts that would make
//! them one. Owns the look-up and its bounds; proves nothing. Must not know addresses.

use std::sync::OnceLock;

use tcpprobe_trace::reader::SampleRow;

use super::connections::Connection;
use super::{MARK, Shifts, some_of};
use crate::hash::{HashMap, HashMapExt as _};
use crate::packet::{Packet, TcpFlags};
use crate::sightings::{serves, space};

/// About so many pairs of key and packet are kept of all connections together, and of one direction of each at least
/// and at most so many.
const MOST_ENTRIES: usize = 1 << 20;
const OF_EACH: (usize, usize) = (16, 4096);
/// What as many packets have in common tells them apart no longer.
const MOST_ALIKE: usize = 16;
/// A flow has no more votes than this: enough for a majority, in bounded memory.
const MOST_VOTES: usize = 1 << 18;
/// So many connections are compared with a flow, those with the most votes.
const MOST_CANDIDATES: usize = 16;

/// What a packet and its sample have in common although its addresses or numbers were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// The first with a sequence number.
    Seq(u32),
    /// The first with an acknowledgment number.
    Ack(u32),
    /// The first with a timestamp value, with data or without.
    Stamp(u32, bool),
    /// Distances of the last four marks.
    Marks([u32; 3]),
}

/// Of connections with so many packets only one in so many keys is kept: many are enough for a majority.
const LONG: usize = 1024;
const ONE_OF: u32 = 8;

impl Key {
    /// A number that follows from the key alone and looks like none (Fibonacci hashing).
    fn mixed(self) -> u32 {
        let number = match self {
            Key::Seq(n) => n,
            Key::Ack(n) => n ^ 0x5555_5555,
            Key::Stamp(n, with_data) => n ^ if with_data { 0x3333_3333 } else { 0x0f0f_0f0f },
            Key::Marks([a, b, c]) => a.wrapping_add(b.rotate_left(7)).wrapping_add(c.rotate_left(14)),
        };
        (u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }

    /// Is it one of those that are kept? Packets and samples have the same.
    fn is_kept(self) -> bool {
        self.mixed() < u32::MAX / ONE_OF
    }
}

/// Numbers of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    seq: u32,
    ack: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    connection: u32,
    by_first_end: bool,
    numbers: Numbers,
}

/// A connection that a flow may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) connection: u32,
    /// Position in its ends of the one that would be the flow's socket.
    pub(crate) local: usize,
    pub(crate) shifts: Shifts,
    votes: u32,
}

#[cfg(test)]
impl Candidate {
    pub(crate) fn new(connection: u32, local: usize, shifts: Shifts) -> Candidate {
        Candidate { connection, local, shifts, votes: 0 }
    }
}

/// Packets of connections by what they have in common with their samples.
pub(crate) struct Index<'a> {
    connections: &'a [Connection],
    /// Of short connections, and of long ones those of the keys that are kept.
    short: Entries,
    long: Entries,
    /// Which keys there are, by some bits of each.
    filter: OnceLock<Vec<u64>>,
}

/// Entries by key, those of one key as a chain.
#[derive(Default)]
struct Entries {
    /// The last one of a key, and how many there are.
    last: HashMap<Key, (u32, u32)>,
    /// With the one before.
    all: Vec<(Entry, Option<u32>)>,
}

impl Entries {
    fn insert(&mut self, key: Key, entry: Entry) {
        let at = self.all.len() as u32;
        let (last, count) = self.last.entry(key).or_insert((at, 0));
        // one more than is looked at says that there are too many
        if *count as usize <= MOST_ALIKE {
            let before = std::mem::replace(last, at);
            self.all.push((entry, Some(before).filter(|_| *count > 0)));
            *count += 1;
        }
    }

    fn of(&self, key: Key) -> impl Iterator<Item = &Entry> {
        let last = self.last.get(&key).filter(|(_, count)| *count as usize <= MOST_ALIKE).map(|(last, _)| *last);
        let chain = std::iter::successors(last, |&at| self.all[at as usize].1);
        chain.map(|at| &self.all[at as usize].0)
    }
}

impl<'a> Index<'a> {
    pub(crate) fn new(connections: &'a [Connection], all: &[Packet]) -> Index<'a> {
        let mut index =
            Index { connections, short: Entries::default(), long: Entries::default(), filter: OnceLock::new() };
        let most = (MOST_ENTRIES / 2 / connections.len().max(1)).clamp(OF_EACH.0, OF_EACH.1);
        let mut entries = Vec::new();
        for (connection, number) in connections.iter().zip(0u32..) {
            let is_long = connection.packets.len() >= LONG;
            for by_first_end in [true, false] {
                let mut keys = Keys::default();
                for packet in some_of(&connection.packets).filter(|p| p.is_out == by_first_end) {
                    let p = &all[packet.index as usize];
                    keys.of(p.seq, p.len, p.ack, p.flags.0, p.tsval, |key, numbers| {
                        if !is_long || key.is_kept() {
                            entries.push((key, Entry { connection: number, by_first_end, numbers }));
                        }
                    });
                }
                // evenly spread: a recording may begin late, or end early
                let step = entries.len().div_ceil(most).max(1);
                let into = if is_long { &mut index.long } else { &mut index.short };
                for (key, entry) in entries.drain(..).step_by(step) {
                    into.insert(key, entry);
                }
            }
        }
        index
    }

    /// Are there at least two of these keys, or as good as certainly?
    pub(crate) fn has_some(&self, signature: &[u32]) -> bool {
        let filter = self.filter.get_or_init(|| {
            let mut filter = vec![0; 1 << (FILTER_BITS - 6)];
            for key in self.short.last.keys().chain(self.long.last.keys()) {
                let (at, bit) = place(key.mixed());
                filter[at] |= bit;
            }
            filter
        });
        let known = signature.iter().filter(|&&mixed| {
            let (at, bit) = place(mixed);
            filter[at] & bit != 0
        });
        known.count() >= signature.len().min(2)
    }

    /// The connections that a flow may be, the most probable ones.
    pub(crate) fn candidates(&self, flow: u32, samples: &[SampleRow]) -> Vec<Candidate> {
        let mut votes: HashMap<(u32, usize, Shifts), u32> = HashMap::new();
        let mut cast = 0;
        let mut keys = [Keys::default(), Keys::default()];
        for (i, s) in samples.iter().enumerate() {
            let is_out = s.kind.is_out();
            if cast >= MOST_VOTES {
                break;
            }
            if !serves(samples, i, is_out) {
                continue;
            }
            keys[usize::from(is_out)].of(s.seq, s.len, s.ack, s.flags, s.tsval, |key, of_sample| {
                let short = Some(&self.short).filter(|short| !short.all.is_empty());
                let long = Some(&self.long).filter(|_| key.is_kept());
                for e in short.into_iter().chain(long).flat_map(|entries| entries.of(key)) {
                    // the first end is the flow's own where both sent it, or both received it
                    let local = usize::from(e.by_first_end != is_out);
                    let owners = self.connections[e.connection as usize].owners;
                    // whose socket it is already, and what the flow is without a translation
                    if owners[local].is_some() || owners.contains(&Some(flow)) {
                        continue;
                    }
                    let seq = e.numbers.seq.wrapping_sub(of_sample.seq);
                    let ack = e.numbers.ack.wrapping_sub(of_sample.ack);
                    let (own, peer) = if is_out { (seq, ack) } else { (ack, seq) };
                    let shifts = Shifts { own, peer, ..Shifts::default() };
                    *votes.entry((e.connection, local, shifts)).or_insert(0) += 1;
                    cast += 1;
                }
            });
        }
        best(votes)
    }
}

/// Bits by which keys are told to be there: of a million one in sixteen is set.
const FILTER_BITS: u32 = 24;

/// Word and bit.
fn place(mixed: u32) -> (usize, u64) {
    let bit = mixed >> (32 - FILTER_BITS);
    ((bit >> 6) as usize, 1 << (bit & 63))
}

/// Some of the keys of a flow's samples, mixed; evenly spread.
pub(crate) fn signature(samples: &[SampleRow], most: usize) -> Vec<u32> {
    let mut all = Vec::new();
    let mut keys = [Keys::default(), Keys::default()];
    for (i, s) in samples.iter().enumerate() {
        let is_out = s.kind.is_out();
        if serves(samples, i, is_out) {
            let of = &mut keys[usize::from(is_out)];
            of.of(s.seq, s.len, s.ack, s.flags, s.tsval, |key, _| all.push(key.mixed()));
        }
    }
    let step = all.len().div_ceil(most).max(1);
    all.into_iter().step_by(step).collect()
}

/// Of each connection and end the shifts with the most votes; chance has one vote.
fn best(votes: HashMap<(u32, usize, Shifts), u32>) -> Vec<Candidate> {
    let mut most: HashMap<(u32, usize), Candidate> = HashMap::new();
    for ((connection, local, shifts), votes) in votes.into_iter().filter(|(_, votes)| *votes > 1) {
        let new = Candidate { connection, local, shifts, votes };
        let kept = most.entry((connection, local)).or_insert(new);
        if (new.votes, new.shifts) > (kept.votes, kept.shifts) {
            *kept = new;
        }
    }
    let mut best: Vec<Candidate> = most.into_values().collect();
    best.sort_unstable_by_key(|c| (std::cmp::Reverse(c.votes), c.connection, c.local));
    best.truncate(MOST_CANDIDATES);
    best
}

/// The keys of one direction's segments, in the order in which they come.
#[derive(Default)]
struct Keys {
    seq: Option<u32>,
    ack: Option<u32>,
    stamps: [Option<u32>; 2],
    marks: [Option<u32>; 4],
}

impl Keys {
    /// A segment is pieces in one place and whole in another: a key is of the first with a new value, where they agree.
    fn of(&mut self, seq: u32, len: u32, ack: u32, flags: u16, tsval: Option<u32>, mut emit: impl FnMut(Key, Numbers)) {
        // without the other direction's number a segment says one shift of two
        if flags & TcpFlags::ACK.0 == 0 || flags & TcpFlags::RST.0 != 0 {
            return;
        }
        let numbers = Numbers { seq, ack };
        if self.seq.replace(seq) != Some(seq) {
            emit(Key::Seq(seq), numbers);
        }
        if self.ack.replace(ack) != Some(ack) {
            emit(Key::Ack(ack), numbers);
        }
        let with_data = len > 0;
        if let Some(stamp) = tsval
            && self.stamps[usize::from(with_data)].replace(stamp) != Some(stamp)
        {
            emit(Key::Stamp(stamp, with_data), numbers);
        }
        let end = seq.wrapping_add(space(len, flags) as u32);
        if flags & MARK != 0 && end != seq && self.marks[3].is_none_or(|last| (end.wrapping_sub(last) as i32) > 0) {
            self.marks.rotate_left(1);
            self.marks[3] = Some(end);
            if let [Some(a), Some(b), Some(c), Some(d)] = self.marks {
                let key = Key::Marks([b.wrapping_sub(a), c.wrapping_sub(b), d.wrapping_sub(c)]);
                emit(key, Numbers { seq: end, ack });
            }
        }
    }
}
