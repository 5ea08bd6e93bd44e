//! Records of several sources in one order: of a flow, that of its samples.
//!
//! Samples of a flow come from several lanes, and from the ring, and none of these knows of the others. But a socket is
//! locked while a probe sees it: a flow's next sample is taken when the one before has been written, wherever. So what
//! is not later than the moment before all sources were looked through is there to be found, as far as its flow goes, and
//! has its place by its time. The rest waits for the next look. Owns that order; must not know what a record says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::decode::time_of;
use crate::records::Records;

/// Lanes, as the merge sees them.
pub(crate) trait Sources {
    /// How many there are.
    fn count(&self) -> usize;
    /// The oldest record of one that is not taken.
    fn front(&self, source: usize) -> Option<&[u8]>;
    /// Takes it.
    fn take(&mut self, source: usize);
}

/// What came through the ring and has not been handed on.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// Time, place and size of each record, by time once [`Merge::begin`] was called.
    order: Vec<(u64, usize, usize)>,
    /// Of these so many are handed on.
    done: usize,
}

impl Held {
    fn front(&self) -> Option<(u64, &[u8])> {
        let &(time, at, len) = self.order.get(self.done)?;
        Some((time, self.bytes.get(at..at + len)?))
    }
}

/// Puts records in order.
pub(crate) struct Merge {
    held: Held,
    /// Time up to which this look is to know all records.
    horizon_ns: u64,
    /// How many records may have their place in the ring, and not yet their time.
    in_flight: usize,
    /// Records that the ring had in this look, from after the horizon.
    late: usize,
    /// Sources that have something, by the time of their oldest record.
    heap: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Merge {
    /// At most `in_flight` programs are at work at once.
    pub(crate) fn new(in_flight: usize) -> Merge {
        Merge { held: Held::default(), horizon_ns: 0, in_flight, late: 0, heap: BinaryHeap::new() }
    }

    /// All sources are about to be looked through, for what is not later than `horizon_ns`.
    pub(crate) fn before_look(&mut self, horizon_ns: u64) {
        self.horizon_ns = horizon_ns;
        self.late = 0;
        let held = &mut self.held;
        held.order.drain(..std::mem::take(&mut held.done));
        // few are left: those that came during the last look
        let mut bytes = Vec::new();
        for (_, at, len) in &mut held.order {
            let from = std::mem::replace(at, bytes.len());
            bytes.extend_from_slice(held.bytes.get(from..from + *len).unwrap_or_default());
        }
        held.bytes.clear();
        held.bytes.extend_from_slice(&bytes);
    }

    /// Keeps a record of the ring until its turn comes; returns whether those behind it are all too late for this look.
    pub(crate) fn hold(&mut self, record: &[u8]) -> bool {
        let (at, time) = (self.held.bytes.len(), time_of(record));
        self.held.bytes.extend_from_slice(record);
        self.held.order.push((time, at, record.len()));
        // a record has its place before it has its time: one that is still to come, and not too late, had its place when
        // all of these had theirs and none of them its time
        self.late += usize::from(time > self.horizon_ns);
        self.late > self.in_flight
    }

    /// All sources have been looked through; where there may be more, nothing can be handed on.
    pub(crate) fn begin(&mut self, sources: &impl Sources, is_all: bool) {
        // records of one time stay as they came
        self.held.order.sort_by_key(|&(time, ..)| time);
        self.heap.clear();
        if !is_all {
            self.horizon_ns = 0;
        }
        for source in 0..sources.count() {
            self.heap.extend(sources.front(source).map(|record| Reverse((time_of(record), source))));
        }
    }

    /// Hands on what is known to be in order, until there are `max_bytes`; returns whether there is more.
    pub(crate) fn hand_on(
        &mut self,
        sources: &mut impl Sources,
        max_bytes: usize,
        records: &mut Records,
        mut seen: impl FnMut(&[u8]),
    ) -> bool {
        loop {
            let of_ring = self.held.front().map_or(u64::MAX, |(time, _)| time);
            let (of_lanes, source) = self.heap.peek().map_or((u64::MAX, 0), |&Reverse(first)| first);
            let time = of_ring.min(of_lanes);
            if time > self.horizon_ns || (of_ring == u64::MAX && self.heap.is_empty()) {
                return false;
            }
            if records.as_bytes().len() >= max_bytes {
                return true;
            }
            // what tells of a flow came through the ring, and before its samples
            if of_ring <= of_lanes {
                if let Some((_, record)) = self.held.front() {
                    records.push(record);
                    seen(record);
                }
                self.held.done += 1;
                continue;
            }
            if let Some(record) = sources.front(source) {
                records.push(record);
            }
            sources.take(source);
            let next = sources.front(source).map(time_of);
            if let Some(mut first) = self.heap.peek_mut() {
                match next {
                    Some(time) => *first = Reverse((time, source)),
                    None => _ = PeekMut::pop(first),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::layout::{SAMPLE, SAMPLE_BYTES, TYPE_SAMPLE, offset};

    /// Lanes in memory.
    struct Fake(Vec<VecDeque<Vec<u8>>>);

    impl Sources for Fake {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn front(&self, source: usize) -> Option<&[u8]> {
            self.0[source].front().map(Vec::as_slice)
        }

        fn take(&mut self, source: usize) {
            self.0[source].pop_front();
        }
    }

    fn sample(flow: u64, serial: u64, mono_ns: u64) -> Vec<u8> {
        let mut record = vec![0; SAMPLE_BYTES];
        record[..4].copy_from_slice(&TYPE_SAMPLE.to_ne_bytes());
        for (name, value) in [("flow", flow), ("serial", serial), ("mono_ns", mono_ns)] {
            let at = offset(SAMPLE, name);
            record[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        record
    }

    fn read(record: &[u8], name: &str) -> u64 {
        let at = offset(SAMPLE, name);
        u64::from_ne_bytes(record[at..at + 8].try_into().unwrap())
    }

    fn serials(records: &Records) -> Vec<u64> {
        records.iter().map(|record| read(record, "serial")).collect()
    }

    #[test]
    fn lanes_and_ring_become_one_order_up_to_the_horizon() {
        let lane = |samples: &[(u64, u64)]| samples.iter().map(|&(serial, time)| sample(7, serial, time)).collect();
        let mut lanes = Fake(vec![lane(&[(1, 10), (4, 40), (7, 70)]), lane(&[(2, 20), (6, 60)]), lane(&[])]);
        let mut merge = Merge::new(0);
        merge.before_look(55);
        for (serial, time) in [(5, 50), (3, 30), (8, 80)] {
            merge.hold(&sample(7, serial, time));
        }
        merge.begin(&lanes, true);
        let mut records = Records::default();
        // as much as fits, then the rest
        assert!(merge.hand_on(&mut lanes, 2 * SAMPLE_BYTES, &mut records, |_| {}));
        assert_eq!(serials(&records), [1, 2]);
        assert!(!merge.hand_on(&mut lanes, usize::MAX, &mut records, |_| {}));
        assert_eq!(serials(&records), [1, 2, 3, 4, 5]);
        // what was too late has its turn after the next look, with what came since
        merge.before_look(u64::MAX);
        merge.hold(&sample(7, 9, 90));
        merge.begin(&lanes, true);
        assert!(!merge.hand_on(&mut lanes, usize::MAX, &mut records, |_| {}));
        assert_eq!(serials(&records), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_came_through_the_ring_is_seen_before_samples_of_its_time() {
        let mut lanes = Fake(vec![VecDeque::from([sample(7, 2, 10)])]);
        let mut merge = Merge::new(0);
        merge.before_look(10);
        merge.hold(&sample(7, 1, 10));
        merge.begin(&lanes, true);
        let (mut records, mut seen) = (Records::default(), Vec::new());
        merge.hand_on(&mut lanes, usize::MAX, &mut records, |record| seen.push(read(record, "serial")));
        assert_eq!((serials(&records), seen), (vec![1, 2], vec![1]));
    }

    /// Numbers without a pattern, the same in each run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    /// A sample that a program is writing: it has its place, gets its time, and then shows.
    struct Writing {
        flow: u64,
        serial: u64,
        place: usize,
        /// Where it stands in the ring.
        at: usize,
        stamped_ns: u64,
        done_ns: u64,
    }

    /// Programs on several processors, and a reader.
    struct World {
        lanes: Vec<VecDeque<Vec<u8>>>,
        /// What each lane had when last looked at.
        looked: Vec<usize>,
        /// `None`: reserved, and not yet written.
        ring: Vec<Option<Vec<u8>>>,
        ring_read: usize,
        writing: Vec<Writing>,
        last_serials: [u64; FLOWS],
    }

    const FLOWS: usize = 3;
    const LANES: usize = 5;
    const RING: usize = LANES;

    impl World {
        fn new() -> World {
            World {
                lanes: vec![VecDeque::new(); LANES],
                looked: vec![0; LANES],
                ring: Vec::new(),
                ring_read: 0,
                writing: Vec::new(),
                last_serials: [0; FLOWS],
            }
        }

        /// Lets a moment pass. A flow is locked while a sample of it is written, a lane has one writer.
        fn step(&mut self, now_ns: u64, dice: &mut Dice) {
            self.finish(now_ns);
            let (flow, place) = (dice.below(FLOWS as u64), dice.below(LANES as u64 + 1) as usize);
            if self.writing.iter().any(|w| w.flow == flow || (w.place == place && place != RING)) {
                return;
            }
            // some are held up for long, before they look at the clock or behind
            let mut moment = || if dice.below(20) == 0 { dice.below(300) } else { dice.below(3) };
            let stamped_ns = now_ns + moment();
            let done_ns = stamped_ns + 1 + moment();
            let at = self.ring.len();
            if place == RING {
                self.ring.push(None);
            }
            let serial = &mut self.last_serials[flow as usize];
            *serial += 1;
            self.writing.push(Writing { flow, serial: *serial, place, at, stamped_ns, done_ns });
        }

        /// What is written by now shows.
        fn finish(&mut self, now_ns: u64) {
            let done: Vec<Writing> = self.writing.extract_if(.., |w| w.done_ns <= now_ns).collect();
            for w in done {
                let record = sample(w.flow, w.serial, w.stamped_ns);
                if w.place == RING { self.ring[w.at] = Some(record) } else { self.lanes[w.place].push_back(record) }
            }
        }

        fn look(&mut self) {
            self.looked = self.lanes.iter().map(VecDeque::len).collect();
        }

        /// Empties the ring, as far as is needed or possible; returns whether that is all.
        fn empty_ring(&mut self, merge: &mut Merge) -> bool {
            while let Some(Some(record)) = self.ring.get(self.ring_read) {
                self.ring_read += 1;
                if merge.hold(record) {
                    return true;
                }
            }
            self.ring_read == self.ring.len()
        }
    }

    impl Sources for World {
        fn count(&self) -> usize {
            LANES
        }

        fn front(&self, source: usize) -> Option<&[u8]> {
            self.lanes[source].front().filter(|_| self.looked[source] > 0).map(Vec::as_slice)
        }

        fn take(&mut self, source: usize) {
            self.lanes[source].pop_front();
            self.looked[source] -= 1;
        }
    }

    /// However the programs are held up, and whatever happens while the reader looks through its sources, each flow's
    /// samples come in their order, and none is left.
    #[test]
    fn a_flow_keeps_its_order_wherever_its_samples_are_written_and_whenever_one_looks() {
        for seed in 0..300 {
            let (mut dice, mut world, mut merge) = (Dice(seed), World::new(), Merge::new(FLOWS));
            let (mut records, mut now_ns) = (Records::default(), 0);
            while now_ns < 3_000 {
                for _ in 0..dice.below(60) {
                    now_ns += 1;
                    world.step(now_ns, &mut dice);
                }
                merge.before_look(now_ns);
                world.look();
                for _ in 0..dice.below(20) {
                    now_ns += 1;
                    world.step(now_ns, &mut dice);
                }
                let is_all = world.empty_ring(&mut merge);
                merge.begin(&world, is_all);
                while merge.hand_on(&mut world, records.as_bytes().len() + 1_000, &mut records, |_| {}) {}
            }
            while !world.writing.is_empty() {
                now_ns += 1;
                world.finish(now_ns);
            }
            merge.before_look(u64::MAX);
            world.look();
            assert!(world.empty_ring(&mut merge));
            merge.begin(&world, true);
            merge.hand_on(&mut world, usize::MAX, &mut records, |_| {});
            let mut came = [0; FLOWS];
            for record in records.iter() {
                let flow = read(record, "flow") as usize;
                came[flow] += 1;
                assert_eq!(read(record, "serial"), came[flow], "seed {seed}, flow {flow}");
            }
            assert_eq!(came, world.last_serials, "seed {seed}");
        }
    }
}
