//! The k-th packet has the k-th sample, where there are as many of both and neither identifications nor delays speak
//! against it.
//!
//! Of hundreds of ACKs that are alike each one has all others as its rivals, and most of what count says is said of all of
//! them: it is found out once. Must not know how candidates are found.

use super::empties::{EmptyKey, empty_key};
use super::{LONG_NS, Matcher, Place, Rivals, Sighting};
use crate::delays::{UsualDelays, Window};

/// Packets that could have the same of several samples.
#[derive(Default)]
pub(super) struct Contest {
    /// What they are alike in; `None`: they take space, or there are none yet.
    of: Option<(EmptyKey, Option<u32>, Option<Place>)>,
    rivals: Rivals,
    samples: Vec<u32>,
    count: Count,
}

/// What their number says.
#[derive(Default)]
enum Count {
    /// Not as many packets as samples, or of either some may be missing.
    #[default]
    Nothing,
    /// Copies are not counted as transmissions: which of these are some, count does not know.
    Undecided,
    /// The k-th packet has the k-th sample, whatever delays are usual.
    Decided,
    /// Each packet has the identification of one sample, and each sample that of one packet.
    Numbered,
    /// If the delays are usual.
    Likely { delays: Vec<i64>, spread: i64, spacing: i64 },
}

/// Whose sample it is, by count.
pub(super) enum Counted {
    /// Count says nothing.
    Nothing,
    /// It does not say which.
    Ambiguous,
    Sample(u32),
}

impl Contest {
    /// Which of these, its candidates, is a packet's.
    pub(super) fn sample(
        &mut self,
        matcher: &Matcher<'_>,
        packet: u32,
        candidates: &[u32],
        usual: &UsualDelays,
    ) -> Counted {
        let p = &matcher.packets[packet as usize];
        let of = (p.start == p.end).then(|| (empty_key(p), p.tsval, p.place));
        if of.is_none() || of != self.of || candidates != self.samples {
            self.of = of;
            self.samples.clear();
            self.samples.extend_from_slice(candidates);
            matcher.rivals(packet, candidates, &mut self.rivals);
            self.count = matcher.count(&self.rivals, candidates, usual);
        }
        let agreed = match &self.count {
            Count::Nothing => return Counted::Nothing,
            Count::Undecided => false,
            Count::Decided => true,
            Count::Numbered => {
                let own = candidates.iter().find(|&&s| matcher.samples[s as usize].ip_id == p.ip_id);
                return own.map_or(Counted::Ambiguous, |&s| Counted::Sample(s));
            }
            Count::Likely { delays, spread, spacing } => {
                matcher.agree(packet, candidates, (delays, *spread, *spacing), usual)
            }
        };
        match self.rivals.here.binary_search(&packet) {
            Ok(k) if agreed => Counted::Sample(candidates[k]),
            _ => Counted::Ambiguous,
        }
    }
}

impl Matcher<'_> {
    /// What is so of all of these packets.
    fn count(&self, rivals: &Rivals, candidates: &[u32], usual: &UsualDelays) -> Count {
        let packets = &rivals.here[..];
        // as many transmissions as samples, and none missing: then the count is right, or nothing is
        let as_many = packets.len() == candidates.len() && rivals.elsewhere.is_empty();
        if !as_many || self.is_open(packets, candidates, usual) || self.incomplete_around(candidates) {
            return Count::Nothing;
        }
        if packets.windows(2).any(|w| self.are_copies(w[0], w[1])) {
            return Count::Undecided;
        }
        if self.have_each_others_ids(packets, candidates) {
            return Count::Numbered;
        }
        let delays: Option<Vec<i64>> = packets.iter().zip(candidates).map(|(&r, &s)| self.delay(r, s)).collect();
        // without clocks only the count speaks
        let Some(delays) = delays else { return Count::Decided };
        // first in, first out, as in the sender's own queue, which may fill and empty meanwhile
        if self.is_near && packets.iter().zip(candidates).all(|(&r, &s)| usual.in_order(r, s)) {
            return Count::Decided;
        }
        let spread = delays.iter().max().zip(delays.iter().min()).map_or(0, |(max, min)| max - min);
        let times = candidates.iter().filter_map(|&s| self.samples[s as usize].ts_ns);
        let spacing = times.clone().zip(times.skip(1)).map(|(a, b)| b - a).min().unwrap_or(0);
        Count::Likely { delays, spread, spacing }
    }

    /// Is each identification that of one packet and of one sample, in whatever order? That is no coincidence, even if too
    /// little else tells whether identifications can be relied on.
    fn have_each_others_ids(&self, packets: &[u32], candidates: &[u32]) -> bool {
        let ids = |of: &[u32], all: &[Sighting]| {
            let ids: Option<Vec<u16>> = of.iter().map(|&i| all[i as usize].ip_id.filter(|&id| id != 0)).collect();
            ids.map(|mut ids| {
                ids.sort_unstable();
                ids
            })
        };
        ids(packets, self.packets).is_some_and(|ids_of_packets| {
            ids_of_packets.windows(2).all(|w| w[0] != w[1]) && ids(candidates, self.samples) == Some(ids_of_packets)
        })
    }

    /// Do delays, by how much they differ and by how far the samples are apart, agree with what is usual around a packet?
    fn agree(
        &self,
        packet: u32,
        candidates: &[u32],
        (delays, spread, spacing): (&[i64], i64, i64),
        usual: &UsualDelays,
    ) -> bool {
        let window = self.usual_around(packet, candidates, usual);
        // across a network they may have overtaken each other, if delays vary as much as they are apart
        if !self.is_near && window.is_some_and(|w| w.width() >= spacing) {
            return false;
        }
        let all = |test: &dyn Fn(Window, i64) -> bool| {
            window.is_none_or(|w| delays.iter().all(|&d| test(w, d) || w.distance(d) > LONG_NS))
        };
        // the wall clock was set between them: time says nothing
        spread > LONG_NS
            || (spread <= spacing / 2 && all(&|w, d| w.loosely_has(d)))
            || (spread < spacing && all(&|w, d| w.has(d)))
    }
}
