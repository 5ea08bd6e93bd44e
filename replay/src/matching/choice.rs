//! Whose sample it is: of one candidate whether it is the packet's own, of several which.
//!
//! A wrong state is worse than none: each rule says yes only where the packet's rivals are ruled out as well. Must not
//! know how candidates are found.

use tcpprobe_trace::join::Reason;

use super::{EARLY_NS, Found, LONG_NS, Matcher, QUEUE_NS, Rivals, Sighting, same_or_unknown};
use crate::delays::{MARGIN_NS, UsualDelays, Window};
use crate::ids::{Kinship, kinship};
use crate::reconstruct::SAME_HOST_NS;

impl Matcher<'_> {
    /// Is the only sample that a packet could have its own?
    pub(super) fn lone(&self, packet: u32, sample: u32, rivals: &Rivals, usual: &UsualDelays) -> Found {
        let (p, s) = (&self.packets[packet as usize], &self.samples[sample as usize]);
        let kin = self.kinship(p, sample);
        let is_its = |r: u32| self.kinship(&self.packets[r as usize], sample) == Kinship::Same;
        let others = rivals
            .all()
            .filter(|&r| r != packet && !self.are_copies(packet, r) && (kin != Kinship::Same || is_its(r)))
            .count();
        let incomplete = self.incomplete_around(&[sample]) || (others > 0 && self.is_open(&[packet], &[sample], usual));
        // what may be a part of it cannot be where that very part is
        if kin != Kinship::Same && rivals.all().any(|r| r != packet && is_its(r)) {
            return Found::Nothing(Reason::NotSampled);
        }
        if kin == Kinship::Same {
            // one transmission, however often it was seen; what arrives twice is processed twice
            return match (self.is_out || others == 0 || self.fits_alone(packet, sample, rivals, usual), incomplete) {
                (true, _) => self.verdict(packet, sample),
                (false, true) => Found::Nothing(Reason::Hole),
                (false, false) => Found::Nothing(Reason::Ambiguous),
            };
        }
        // merged with others while it waited: how long does not tell which
        if self.ids && kin == Kinship::Unknown && p.ip_id.is_some_and(|id| id != 0) && others > 0 {
            return Found::Nothing(Reason::Ambiguous);
        }
        // ACKs alike in every field follow each other closely: beside a hole this may be another one's sample
        if p.start == p.end && self.hole_is_near(sample) {
            return Found::Nothing(Reason::Hole);
        }
        if p.tsval.is_some() && p.tsval == s.tsval {
            // of two transmissions within the timestamp's resolution one sample may have been lost
            return match (others, incomplete) {
                (0, _) => self.verdict(packet, sample),
                (_, true) => Found::Nothing(Reason::Hole),
                // the other one may have been lost between the tap and TCP
                (_, false) if self.fits_alone(packet, sample, rivals, usual) => self.verdict(packet, sample),
                (_, false) => Found::Nothing(Reason::Ambiguous),
            };
        }
        // at the sender's own tap what was sent comes after its sample and in its order, however long the queue is
        if self.is_out && self.is_near && others == 0 && !incomplete && self.left_in_order(packet, sample, usual) {
            return self.verdict(packet, sample);
        }
        // what was sent again leaves later than what has been sent since
        if self.is_out && self.is_near && usual.contradict(packet, sample) {
            return Found::Nothing(Reason::NotSampled);
        }
        let fits = |packet| {
            let delay = self.delay(packet, sample)?;
            // the clocks of one host, and no coincidence
            if delay.abs() <= SAME_HOST_NS {
                return Some(true);
            }
            let window = self.usual_around(packet, &[sample], usual)?;
            (window.distance(delay) <= LONG_NS).then(|| window.loosely_has(delay))
        };
        let is_last = p.start == p.end && sample as usize + 1 == self.samples.len() && self.completeness.to_end;
        match fits(packet) {
            // a time-wait socket repeats the last one, later than anything takes on its way
            Some(true) if is_last && !self.is_near && usual.is_slowest(sample, self.delay(packet, sample)) => {
                Found::Nothing(Reason::Ambiguous)
            }
            Some(false) => Found::Nothing(Reason::NotSampled),
            Some(true) => {
                // what is received may wait for its application, however long
                let waited = |r| !self.is_out && self.is_near && self.delay(r, sample).is_some_and(|d| d <= 0);
                // across a network the queue that all others waited in may have been empty for one
                let excluded = |r| {
                    let delays = self.delay(packet, sample).zip(self.delay(r, sample));
                    let window = self.usual_around(packet, &[sample], usual);
                    self.is_near || window.zip(delays).is_none_or(|(w, (own, d))| w.excludes(d, own, false))
                };
                let also = rivals.all().any(|r| {
                    let is_other = r != packet && !self.are_copies(packet, r);
                    is_other && (fits(r) != Some(false) || waited(r) || !excluded(r))
                });
                if also { Found::Nothing(Reason::Ambiguous) } else { self.verdict(packet, sample) }
            }
            // nothing to compare with
            None if incomplete || self.any_hole() => Found::Nothing(Reason::Hole),
            // the only sample of what was sent: those before it, or behind, may be missing
            None if self.is_out && self.is_open(&[packet], &[sample], usual) => Found::Nothing(Reason::Hole),
            // too few to know whether something rewrites identifications, or this is another transmission
            None if self.are_numbered(p, s) && kinship(p, s, self.is_out) != Kinship::Same => {
                Found::Nothing(Reason::Ambiguous)
            }
            None if others > 0 => Found::Nothing(Reason::Ambiguous),
            // a time-wait socket repeats the last one
            None if is_last => Found::Nothing(Reason::Ambiguous),
            None => self.verdict(packet, sample),
        }
    }

    /// What is usual around a packet, by packets that have none of these samples. Where what is received waits for its
    /// application, all pieces of a segment wait alike, and no others.
    pub(super) fn usual_around(&self, packet: u32, samples: &[u32], usual: &UsualDelays) -> Option<Window> {
        let waits = self.is_near && !self.is_out;
        usual.around(packet, if waits { &[] } else { samples })
    }

    /// Do both have an identification? A peer that counts nothing sends 0.
    fn are_numbered(&self, packet: &Sighting, sample: &Sighting) -> bool {
        packet.ip_id.is_some() && sample.ip_id.is_some_and(|id| self.is_out || id != 0)
    }

    /// Did the packet pass the tap after its sample, and in the order of the others?
    fn left_in_order(&self, packet: u32, sample: u32, usual: &UsualDelays) -> bool {
        let late = self.delay(packet, sample).zip(usual.least_ns).map(|(delay, least)| delay - least);
        // a time-wait socket repeats the last one after a while
        let is_last = sample as usize + 1 == self.samples.len() && self.completeness.to_end;
        let most = if is_last { SAME_HOST_NS } else { QUEUE_NS };
        late.is_some_and(|l| (-MARGIN_NS..=most).contains(&l)) && usual.in_order(packet, sample)
    }

    /// Is this packet's delay usual, and that of all others for this sample clearly not?
    fn fits_alone(&self, packet: u32, sample: u32, rivals: &Rivals, usual: &UsualDelays) -> bool {
        let (Some(window), Some(own)) = (self.usual_around(packet, &[sample], usual), self.delay(packet, sample))
        else {
            return false;
        };
        let mut others = rivals.all().filter(|&r| r != packet && !self.are_copies(packet, r));
        window.has(own) && others.all(|r| self.delay(r, sample).is_some_and(|d| window.excludes(d, own, self.is_near)))
    }

    /// The only sample whose delay is usual, if all others are clearly not.
    pub(super) fn by_time(&self, packet: u32, candidates: &[u32], usual: &UsualDelays) -> Option<u32> {
        let window = self.usual_around(packet, candidates, usual)?;
        let can_be = |d: i64| !self.is_too_early(d, usual);
        let mut fitting =
            candidates.iter().filter(|&&s| self.delay(packet, s).is_some_and(|d| window.has(d) && can_be(d)));
        let only = *fitting.next()?;
        let own = self.delay(packet, only)?;
        let mut others = candidates.iter().filter(|&&s| s != only);
        let excluded = |d: i64| !can_be(d) || window.excludes(d, own, self.is_near);
        others.all(|&s| self.delay(packet, s).is_some_and(excluded)).then_some(only)
    }

    /// On the sender's own host nothing passes the tap before its sample was taken, as the fastest of all show it.
    fn is_too_early(&self, delay: i64, usual: &UsualDelays) -> bool {
        let least = usual.least_ns.filter(|_| self.is_out && self.is_near);
        least.is_some_and(|least| delay < least - EARLY_NS)
    }

    /// How a packet and the sample of its first byte fit together.
    pub(super) fn verdict(&self, packet: u32, sample: u32) -> Found {
        let (p, s) = (&self.packets[packet as usize], &self.samples[sample as usize]);
        if p.start == s.start && p.end == s.end {
            return Found::Exact(sample);
        }
        // one packet of the sampled transmission, and others, which may have been lost on the way
        if self.kinship(p, sample) == Kinship::Same {
            return Found::Within(sample);
        }
        // merged on the way: every byte must be of some sample
        let mut covered = s.end;
        let mut more = Vec::new();
        while covered < p.end {
            self.sample_spans.covering(covered, &mut more);
            let next = more
                .iter()
                .map(|&i| &self.samples[i as usize])
                .filter(|s| same_or_unknown(p.tsval, s.tsval))
                .map(|s| s.end)
                .max();
            match next {
                Some(end) => covered = end,
                None => return Found::Nothing(Reason::NotSampled),
            }
        }
        Found::Within(sample)
    }
}
