//! When the sender had each packet in hand, by the recording's clock: for packets that have no sample to say it.
//!
//! The packets around say how long before or after the tap that was. Where the kernel's stamps are known, they say it
//! themselves: TSval is CLOCK_MONOTONIC in ms or µs, plus a constant of the connection (`tcp_time_stamp_ms`). So what
//! waited in a queue is put back to when it was sent. Must not know the order that follows from it.

use tcpprobe_trace::reader::SampleRow;
use tcpprobe_trace::sample::{Kind, Phase};

use crate::clocks::Clocks;
use crate::matching::Found;
use crate::packet::{Packet, TcpFlags};
use crate::reconstruct::SAME_HOST_NS;
use crate::seq::{Position, nearest};
use crate::sightings::FlowPacket;
use crate::stamps::TICKS_NS;

/// When the sender had each packet in hand, ns of the recording's clock: at its sample where it has one, otherwise as
/// long before or after the tap as the packets around it. `None`: nothing tells.
pub(crate) fn times(
    samples: &[SampleRow],
    all: &[Packet],
    packets: &[FlowPacket],
    found: &[Found],
    clocks: &Clocks,
    aligned_ns: impl FnOnce() -> Option<i64>,
) -> Vec<Option<i64>> {
    let mut times: Vec<Option<i64>> = found.iter().map(|f| f.sample().map(|s| samples[s as usize].ts_ns)).collect();
    let ts = |i: usize| all[packets[i].index as usize].ts_ns;
    let any_matched = found.iter().any(|f| f.sample().is_some());
    let aligned = if any_matched { None } else { aligned_ns() };
    let stamps = StampClock::of(samples);
    let at_once = AtOnce::of(samples, all, packets, found, clocks);
    let delay = |i: usize| {
        let sample = &samples[found[i].sample()? as usize];
        let usual = packets[i].is_out || at_once.is_none() || is_usual(sample);
        Some((ts(i)?, ts(i)?.checked_sub(sample.ts_ns)?)).filter(|_| usual)
    };
    for is_out in [true, false] {
        let of: Vec<usize> = (0..packets.len()).filter(|&i| packets[i].is_out == is_out && ts(i).is_some()).collect();
        let mut after = vec![None; of.len()];
        let mut next = None;
        for (k, &i) in of.iter().enumerate().rev() {
            next = delay(i).or(next);
            after[k] = next;
        }
        let mut before = None;
        for (k, &i) in of.iter().enumerate() {
            before = delay(i).or(before);
            let Some(t) = ts(i).filter(|_| times[i].is_none()) else { continue };
            // what one packet waited says nothing of others, much later
            let is_far = |known: Option<(i64, i64)>| known.is_none_or(|(at, _)| at.abs_diff(t) > BUSY_NS);
            let lone = !is_out && is_far(before) && is_far(after[k]);
            let delay = match (before, after[k]) {
                _ if lone && at_once.is_some() => at_once.as_ref().map(|a| a.delay_ns(t, clocks)),
                (Some(b), Some(a)) => Some(interpolate(b, a, t)),
                (Some((_, d)), None) | (None, Some((_, d))) => Some(d),
                (None, None) => aligned.or_else(|| clocks.offset_at_packet_ns(t)),
            };
            times[i] = delay.map(|d| t.saturating_sub(d));
        }
    }
    if let Some(stamps) = stamps {
        let fastest_ns = at_once.as_ref().map(|a| a.sent_ns);
        stamps.correct(&mut times, all, packets, found, fastest_ns);
    }
    times
}

/// A processor that is busy with other packets comes back within this.
const BUSY_NS: u64 = 1_000_000;

/// What TCP received, where the capture was taken at the socket's own host: it has it at once.
struct AtOnce {
    /// Time and delay of the packets whose samples were taken before they were processed; by time.
    received: Vec<(i64, i64)>,
    /// The fastest that was sent.
    sent_ns: i64,
}

/// Does a sample of what was received tell how long others wait? A change of state is more work, and sampled behind it.
fn is_usual(sample: &SampleRow) -> bool {
    sample.kind == Kind::Ack
}

/// So many packets on each side say what delay is usual.
const NEIGHBOURS: usize = 4;

impl AtOnce {
    /// `None`: the capture was taken elsewhere.
    fn of(
        samples: &[SampleRow],
        all: &[Packet],
        packets: &[FlowPacket],
        found: &[Found],
        clocks: &Clocks,
    ) -> Option<AtOnce> {
        let mut received = Vec::new();
        let mut sent_ns: Option<i64> = None;
        // of both directions the fastest, less the clocks' difference
        let (mut sent, mut taken) = (None::<i64>, None::<i64>);
        for (packet, f) in packets.iter().zip(found) {
            let (Some(s), Some(ts_ns)) = (f.sample(), all[packet.index as usize].ts_ns) else { continue };
            let sample = &samples[s as usize];
            let delay_ns = ts_ns.checked_sub(sample.ts_ns)?;
            let true_ns = delay_ns.checked_sub(clocks.offset_at_packet_ns(ts_ns)?)?;
            if packet.is_out {
                sent_ns = Some(sent_ns.map_or(delay_ns, |least| least.min(delay_ns)));
                sent = Some(sent.map_or(true_ns, |least| least.min(true_ns)));
                continue;
            }
            taken = taken.max(Some(true_ns));
            if is_usual(sample) {
                received.push((ts_ns, delay_ns));
            }
        }
        received.sort_unstable();
        (sent?.saturating_sub(taken?) < SAME_HOST_NS).then_some(AtOnce { received, sent_ns: sent_ns? })
    }

    /// The usual delay at a time.
    fn delay_ns(&self, ts_ns: i64, clocks: &Clocks) -> i64 {
        let at = self.received.partition_point(|r| r.0 < ts_ns);
        let near = at.saturating_sub(NEIGHBOURS)..self.received.len().min(at + NEIGHBOURS);
        let drift = |from_ns: i64| {
            clocks.offset_at_packet_ns(ts_ns).zip(clocks.offset_at_packet_ns(from_ns)).map_or(0, |(to, from)| to - from)
        };
        let mut near: Vec<i64> = self.received[near].iter().map(|r| r.1.saturating_add(drift(r.0))).collect();
        if near.is_empty() {
            // what is sent may wait in a queue: no more than this, and all flows together tell the clocks' difference
            return clocks.offset_at_packet_ns(ts_ns).map_or(self.sent_ns, |offset| offset.min(self.sent_ns));
        }
        let middle = near.len() / 2;
        *near.select_nth_unstable(middle).1
    }
}

/// The delay at a time between two of which it is known.
fn interpolate(before: (i64, i64), after: (i64, i64), t: i64) -> i64 {
    let length = i128::from(after.0) - i128::from(before.0);
    if length <= 0 {
        return before.1;
    }
    let at = (i128::from(t) - i128::from(before.0)).clamp(0, length);
    // lies between the two delays
    (i128::from(before.1) + (i128::from(after.1) - i128::from(before.1)) * at / length) as i64
}

/// A connection's stamps as a clock.
struct StampClock<'a> {
    /// The flow's, which tell the wall clock of a moment.
    samples: &'a [SampleRow],
    /// ns a tick.
    tick_ns: i64,
    /// Monotonic time of the stamp at `origin`, ns; no later than this.
    origin_ns: i64,
    origin: Position,
    /// How much earlier it may be, with so few stamps seen.
    slack_ns: i64,
}

impl StampClock<'_> {
    /// From the samples of what was sent; `None`: too few of them tell the tick.
    fn of(samples: &[SampleRow]) -> Option<StampClock<'_>> {
        let sent = samples.iter().filter(|s| s.phase == Phase::Transmit && s.kind.is_out());
        let stamped: Vec<(i64, u32)> = sent.filter_map(|s| Some((s.mono_ns, s.tsval.filter(|&v| v != 0)?))).collect();
        let (first, last) = (stamped.first()?, stamped.last()?);
        let origin = Position::first(first.1);
        let mut at = origin;
        let stamps: Vec<(i64, i64)> = stamped
            .iter()
            .map(|s| {
                at = nearest(s.1, at);
                (s.0, at - origin)
            })
            .collect();
        let (elapsed_ns, ticks) = (last.0 - first.0, stamps.last()?.1);
        let tick_ns = TICKS_NS.into_iter().find(|tick| {
            let off = ticks.saturating_mul(*tick).saturating_sub(elapsed_ns).abs();
            ticks > 0 && off <= tick * 2 + elapsed_ns / 100
        })?;
        // sampled right after it was stamped: the earliest of them says best when a tick begins
        let origin_ns = stamps.iter().map(|(mono, ticks)| mono - ticks * tick_ns).min()?;
        let slack_ns = tick_ns / stamps.len().min(8) as i64;
        Some(StampClock { samples, tick_ns, origin_ns, origin, slack_ns })
    }

    /// The wall clock at a time of the monotonic one, as the samples around it have it. Between two of them it may have
    /// been set: then the one that is nearer to an estimate.
    fn wall_ns(&self, mono_ns: i64, estimate_ns: i64) -> i64 {
        let after = self.samples.partition_point(|s| s.mono_ns < mono_ns);
        let around = &self.samples[after.saturating_sub(1)..self.samples.len().min(after + 1)];
        let walls_ns = around.iter().map(|s| mono_ns.saturating_add(s.ts_ns.saturating_sub(s.mono_ns)));
        walls_ns.min_by_key(|wall_ns| wall_ns.abs_diff(estimate_ns)).unwrap_or(estimate_ns)
    }

    /// Moves estimates into the tick in which the packet was stamped. Pieces of one segment have one stamp and one
    /// moment.
    fn correct(
        &self,
        times: &mut [Option<i64>],
        all: &[Packet],
        packets: &[FlowPacket],
        found: &[Found],
        fastest_ns: Option<i64>,
    ) {
        let mut burst: Option<Burst> = None;
        for (i, packet) in packets.iter().enumerate().filter(|(_, packet)| packet.is_out) {
            let p = &all[packet.index as usize];
            let (Some(tsval), Some(time)) = (p.tsval.filter(|&v| v != 0), times[i]) else { continue };
            if found[i].sample().is_some() {
                // the other pieces of its segment have the sample too
                burst = None;
                continue;
            }
            let ticks = nearest(tsval, self.origin) - self.origin;
            let same = burst.filter(|b| b.goes_on_with(p));
            let estimate = same.map_or(time, |b| b.time_ns);
            let begin = self.wall_ns(self.origin_ns + ticks * self.tick_ns, estimate);
            // where the tick begins is an estimate too, and nothing passes the tap before it is sent
            let latest = p.ts_ns.zip(fastest_ns).map_or(i64::MAX, |(t, fastest)| t.saturating_sub(fastest));
            let time_ns =
                estimate.clamp(begin.saturating_sub(self.slack_ns), begin.saturating_add(self.tick_ns)).min(latest);
            times[i] = Some(time_ns);
            burst =
                Some(Burst { last: p, time_ns, ..same.unwrap_or(Burst { piece: p.len, sum: 0, last: p, time_ns }) });
            burst = burst.map(|b| Burst { sum: b.sum + p.len, ..b });
        }
    }
}

/// Packets that may be pieces of one segment, cut on the way to the tap.
#[derive(Clone, Copy)]
struct Burst<'a> {
    last: &'a Packet,
    time_ns: i64,
    /// Bytes of its first piece.
    piece: u32,
    /// Bytes of all so far.
    sum: u32,
}

/// The longest segment that is cut (`GSO_LEGACY_MAX_SIZE`).
const LONGEST: u32 = 65_536;

impl Burst<'_> {
    /// May this be its next piece? All but the last are as long as the first, and PSH is on the last (`tcp_gso_segment`).
    fn goes_on_with(&self, p: &Packet) -> bool {
        let last = self.last;
        (p.seq, p.tsval, p.tsecr) == (last.seq.wrapping_add(last.len), last.tsval, last.tsecr)
            && last.len == self.piece
            && last.flags.0 & TcpFlags::PSH.0 == 0
            && p.len <= self.piece
            && self.sum.saturating_add(p.len) <= LONGEST
    }
}
