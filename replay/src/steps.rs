//! On which side of a setting of the wall clock samples are that were taken between the two readings around it.
//!
//! The recording does not know when the clock was set, and has their times as if it came last. A capture by the same clock
//! has it in its packets' times: a sample's packet is near it, or as far away as the clock was set. Where the capture's
//! clock was not set, everything stays. Must not know how samples were matched.

use tcpprobe_trace::reader::{ClockStep, FlowRow, SampleRow};

use crate::matching::QUEUE_NS;
use crate::packet::Packet;
use crate::views::View;

/// So many delays on either side say what is usual.
const AROUND: usize = 16;

/// A smaller step is lost among the delays.
const LEAST_NS: u64 = 1_000_000;

/// A sample with its packet.
#[derive(Clone, Copy, Debug)]
struct Pair {
    session_id: i64,
    /// CLOCK_MONOTONIC of the sample, ns.
    mono_ns: i64,
    /// Packet minus sample, ns.
    delay_ns: i64,
    /// Of what the host sent.
    is_out: bool,
}

/// Samples from `from_ns` to before `to_ns`, CLOCK_MONOTONIC, came after the clock was set by `jump_ns`.
type Set = ClockStep;

/// Corrects the times of samples. `steps` by session and time.
pub(crate) fn settle(steps: &[ClockStep], flows: &[FlowRow], all: &[Packet], views: &mut [View]) {
    let is_telling = |step: &&ClockStep| step.jump_ns.unsigned_abs() >= LEAST_NS;
    if !steps.iter().any(|step| is_telling(&step)) {
        return;
    }
    let session = |view: &View| flows[view.flow as usize].session_id;
    let mut pairs: Vec<Pair> = Vec::new();
    for view in views.iter() {
        let session_id = session(view);
        pairs.extend(view.packets.iter().zip(&view.matched.found).filter_map(|(packet, found)| {
            let sample = &view.matched.samples[found.sample()? as usize];
            let delay_ns = all[packet.index as usize].ts_ns?.checked_sub(sample.ts_ns)?;
            Some(Pair { session_id, mono_ns: sample.mono_ns, delay_ns, is_out: packet.is_out })
        }));
    }
    pairs.sort_unstable_by_key(|p| (p.session_id, p.mono_ns, p.delay_ns));
    let sets: Vec<Set> = steps.iter().filter(is_telling).filter_map(|step| set(step, &pairs)).collect();
    if sets.is_empty() {
        return;
    }
    for view in views {
        let session_id = session(view);
        view.matched.samples.iter_mut().for_each(|sample| correct(sample, session_id, &sets));
    }
}

/// From where on samples came after the clock was set; `None`: of none is it known.
fn set(step: &ClockStep, pairs: &[Pair]) -> Option<Set> {
    let at = |mono_ns: i64| pairs.partition_point(|p| (p.session_id, p.mono_ns) < (step.session_id, mono_ns));
    let (begin, end) = (at(step.from_ns), at(step.to_ns));
    let between = pairs.get(begin..end).filter(|between| !between.is_empty())?;
    let of_session = |p: &&Pair| p.session_id == step.session_id;
    let before = median(pairs[..begin].iter().rev().take(AROUND).filter(of_session));
    let after = median(pairs[end..].iter().take(AROUND).filter(of_session));
    let usual_ns = match (before, after) {
        // the capture has another clock, which was not set
        (Some(b), Some(a)) if a.saturating_sub(b).unsigned_abs() > step.jump_ns.unsigned_abs() / 2 => return None,
        (Some(b), Some(a)) => i64::midpoint(b, a),
        (one, other) => one.or(other)?,
    };
    let is_after = |p: &Pair| {
        let unset_ns = p.delay_ns.saturating_sub(usual_ns);
        unset_ns.saturating_sub(step.jump_ns).unsigned_abs() < unset_ns.unsigned_abs()
    };
    // What is sent may wait in a queue while the clock is set, or while the machine sleeps, and what was received may
    // wait to be taken up: then a packet is on another side of it than its sample. But nothing is sent before its sample
    // was taken, or taken up before it was received: what was sent and captured before the clock was set was sampled
    // before that, and what was captured after it and received, after. One such outweighs all; but a clock that is set
    // back by no more than a packet may wait makes the one look like the other.
    let are_told_apart = step.jump_ns > 0 || step.jump_ns < -QUEUE_NS;
    let weight = |p: &Pair| if are_told_apart && is_after(p) != p.is_out { between.len() + 1 } else { 1 };
    // with the first of them after: so many are on the wrong side
    let mut wrong: usize = between.iter().filter(|p| !is_after(p)).map(weight).sum();
    let mut least = (wrong, 0);
    for (i, pair) in between.iter().enumerate() {
        if is_after(pair) {
            wrong += weight(pair);
        } else {
            wrong -= weight(pair);
        }
        least = least.min((wrong, i + 1));
    }
    Some(Set { from_ns: between.get(least.1)?.mono_ns, ..*step })
}

fn median<'a>(of: impl Iterator<Item = &'a Pair>) -> Option<i64> {
    let mut delays_ns: Vec<i64> = of.map(|p| p.delay_ns).collect();
    delays_ns.sort_unstable();
    delays_ns.get(delays_ns.len() / 2).copied()
}

/// `sets` by session and time.
fn correct(sample: &mut SampleRow, session_id: i64, sets: &[Set]) {
    let at = sets.partition_point(|s| (s.session_id, s.from_ns) <= (session_id, sample.mono_ns));
    let Some(set) = at.checked_sub(1).map(|last| &sets[last]) else { return };
    if set.session_id == session_id && sample.mono_ns < set.to_ns {
        sample.ts_ns = sample.ts_ns.saturating_add(set.jump_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: i64 = 3_600_000_000_000;

    fn step(jump_ns: i64) -> ClockStep {
        ClockStep { session_id: 1, from_ns: 1_000, to_ns: 2_000, jump_ns }
    }

    /// A pair every 100 ns from 500 to 2,500, the delays as they are told at a time.
    fn pairs(delay_ns: impl Fn(i64) -> i64) -> Vec<Pair> {
        (5..25)
            .map(|i| Pair { session_id: 1, mono_ns: i * 100, delay_ns: delay_ns(i * 100), is_out: i % 2 == 0 })
            .collect()
    }

    #[test]
    fn packets_tell_when_the_clock_was_set() {
        for jump_ns in [HOUR_NS, -HOUR_NS, 4_000_000] {
            let captured = pairs(|t| 10 + t % 300 + if (1_500..2_000).contains(&t) { jump_ns } else { 0 });
            assert_eq!(set(&step(jump_ns), &captured).map(|s| s.from_ns), Some(1_500), "{jump_ns}");
        }
    }

    #[test]
    fn where_it_was_set_last_nothing_changes() {
        assert_eq!(set(&step(HOUR_NS), &pairs(|t| t % 300)), None);
    }

    #[test]
    fn another_clock_that_nobody_set_tells_nothing() {
        let elsewhere = pairs(|t| if t < 2_000 { 77 } else { 77 - HOUR_NS });
        assert_eq!(set(&step(HOUR_NS), &elsewhere), None);
    }

    #[test]
    fn one_slow_packet_is_not_the_clock() {
        let jump_ns = 4_000_000;
        let slow = pairs(|t| 10 + if t == 1_200 || (1_600..2_000).contains(&t) { jump_ns } else { 0 });
        assert_eq!(set(&step(jump_ns), &slow).map(|s| s.from_ns), Some(1_600));
    }

    #[test]
    fn what_waited_while_the_clock_was_set_was_sampled_on_its_other_side() {
        // the samples of 1,300 and 1,400 are of packets that waited in a queue, that of 1,500 is of one that did not
        let waited = |t: i64| t == 1_300 || t == 1_400 || (1_600..2_000).contains(&t);
        // and here those of 1,700 and 1,800 are of packets that waited to be taken up, that of 1,600 is of one that did not
        let taken_up = |t: i64| t == 1_600 || t == 1_900;
        for jump_ns in [HOUR_NS, -HOUR_NS] {
            let captured = |is_out: bool, is_after: &dyn Fn(i64) -> bool| {
                let mut captured = pairs(|t| 10 + if is_after(t) { jump_ns } else { 0 });
                captured.iter_mut().for_each(|p| p.is_out = is_out);
                captured
            };
            assert_eq!(set(&step(jump_ns), &captured(true, &waited)).map(|s| s.from_ns), Some(1_600), "{jump_ns}");
            assert_eq!(set(&step(jump_ns), &captured(false, &taken_up)).map(|s| s.from_ns), Some(1_600), "{jump_ns}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_a_little_is_like_a_wait() {
        // what was sent at 1,700, and waited for as long, looks as if it was sent before; what was received for 1,200,
        // and waited to be taken up, as if after
        for (is_out, waited_at) in [(true, 1_700), (false, 1_200)] {
            let is_after = |t: i64| (1_500..2_000).contains(&t) != (t == waited_at);
            let mut captured = pairs(|t| 10 - if is_after(t) { 4_000_000 } else { 0 });
            captured.iter_mut().for_each(|p| p.is_out = is_out);
            assert_eq!(set(&step(-4_000_000), &captured).map(|s| s.from_ns), Some(1_500), "{is_out}");
        }
    }

    #[test]
    fn other_sessions_have_clocks_of_their_own() {
        let mut captured = pairs(|t| if (1_500..2_000).contains(&t) { HOUR_NS } else { 0 });
        captured.iter_mut().for_each(|p| p.session_id = 2);
        assert_eq!(set(&step(HOUR_NS), &captured), None);
    }
}
