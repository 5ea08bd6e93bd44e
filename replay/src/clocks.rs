//! How the clock of a capture differs from the clock of the recording, from the delays of matched packets.
//!
//! Nothing leaves before it was sent, and nothing is processed before it has arrived: a packet's time minus its
//! sample's is no less than the clocks' difference for what is sent, and no more for what is received. A line between
//! the two clouds of delays is what the difference can have been; all lines that fit between them are its uncertainty.
//! The join itself does not need any of this: it orders and explains. Must not know packets or flows.

use tcpprobe_trace::join::ClockEstimate;

/// A packet's time minus its sample's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    /// Time of the packet, ns.
    pub(crate) ts_ns: i64,
    /// Packet minus sample, ns.
    pub(crate) delay_ns: i64,
    /// Did the recorded socket send it?
    pub(crate) is_out: bool,
}

/// A piece of a capture in which neither clock was set.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from_ns: i64,
    line: Line,
}

/// The clocks' difference as a line over the capture's time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    at_ns: i64,
    offset_ns: f64,
    /// ns a ns.
    slope: f64,
    offset_error_ns: Option<f64>,
    slope_error: Option<f64>,
}

/// What the matches of a capture tell of its clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks {
    pieces: Vec<Piece>,
}

/// No clock that is looked after is off by more (adjtimex(2) slews by 500 ppm).
const MAX_SLOPE: f64 = 1e-3;
/// A jump of the delays beyond this, in both directions' order of magnitude, is a clock that was set.
const STEP_NS: i64 = 250_000_000;
/// Clocks are read, packets and samples stamped, with this much noise.
const NOISE_NS: f64 = 1_000.0;
/// A shorter capture does not tell how its clock drifts if nothing bounds the delays.
const LONG_ENOUGH_NS: f64 = 10e9;
/// Nothing without any proof waits longer, in a queue or for an application, and nothing comes earlier.
const LATE_NS: i64 = 500_000_000;
/// As above.
const EARLY_NS: i64 = 5_000_000;
/// What is farther off than this came while the recording did not yet know that its clock had been set.
const SET_NS: i64 = 600_000_000_000;
/// A path's delay may vary by this without a sign of it in most packets.
const PATH_NS: i64 = 10_000_000;
/// So many delays on both sides say that a jump is one.
const STEADY: usize = 8;

impl Clocks {
    /// From all delays of a capture, in any order.
    pub(crate) fn estimate(mut delays: Vec<Delay>) -> Clocks {
        // those of each flow are nearly in this order, which a stable sort makes use of
        delays.sort_by_key(|d| (d.ts_ns - d.delay_ns, d.ts_ns, d.is_out));
        let mut pieces = Vec::new();
        let mut begin = 0;
        for end in steps(&delays).into_iter().chain([delays.len()]) {
            if let Some(line) = fit(&delays[begin..end]) {
                pieces.push(Piece { from_ns: delays[begin].ts_ns - delays[begin].delay_ns, line });
            }
            begin = end;
        }
        Clocks { pieces }
    }

    /// The capture's clock minus the recording's at a time of the recording; `None`: nothing was matched.
    pub(crate) fn offset_at_sample_ns(&self, ts_ns: i64) -> Option<i64> {
        let at = self.pieces.partition_point(|p| p.from_ns <= ts_ns);
        let line = self.pieces.get(at.saturating_sub(1))?.line;
        Some(line.offset_ns(ts_ns.saturating_add(line.offset_ns as i64)))
    }

    /// Can a packet of this delay be the one of a sample of this time, as far as the clocks of all flows tell? Which
    /// side of a step a packet is on is not known: it may be on any.
    pub(crate) fn allow(&self, ts_ns: i64, delay_ns: i64, is_out: bool) -> bool {
        self.pieces.is_empty()
            || self.pieces.iter().any(|piece| {
                let offset = piece.line.offset_ns(ts_ns.saturating_add(piece.line.offset_ns as i64));
                let waited = if is_out { delay_ns.saturating_sub(offset) } else { offset.saturating_sub(delay_ns) };
                let error = piece.line.offset_error_ns.unwrap_or(0.0) as i64;
                (-error - EARLY_NS..=LATE_NS).contains(&waited) || waited.abs() > SET_NS
            })
    }

    /// The capture's clock minus the recording's at a time of the capture.
    pub(crate) fn offset_at_packet_ns(&self, ts_ns: i64) -> Option<i64> {
        let begins = |p: &Piece| p.from_ns.saturating_add(p.line.offset_ns as i64) <= ts_ns;
        let piece = self.pieces.iter().rev().find(|p| begins(p)).or(self.pieces.first())?;
        Some(piece.line.offset_ns(ts_ns))
    }

    /// For the row of the capture, whose first packet is of this time.
    pub(crate) fn row(&self, first_ts_ns: i64) -> Option<ClockEstimate> {
        let line = self.pieces.first()?.line;
        let error = |at: f64| line.offset_error_ns.map(|e| e + line.slope_error.unwrap_or(0.0) * at.abs());
        let lead = (first_ts_ns - line.at_ns) as f64;
        let ppb = |slope: f64| (slope * 1e9).round() as i64;
        Some(ClockEstimate {
            offset_ns: line.offset_ns(first_ts_ns),
            offset_error_ns: error(lead).map(|e| e.ceil() as i64),
            drift_ppb: line.slope_error.map(|e| (ppb(line.slope), ppb(e).max(1))),
            steps: self.pieces.len().saturating_sub(1) as u32,
        })
    }
}

/// Of each of so many stretches and of each direction the fastest, the slowest and a delay between.
pub(crate) fn telling(delays: &[Delay], stretches: usize) -> Vec<Delay> {
    let mut telling = Vec::new();
    for is_out in [true, false] {
        let mut of: Vec<&Delay> = delays.iter().filter(|d| d.is_out == is_out).collect();
        of.sort_by_key(|d| (d.ts_ns, d.delay_ns));
        for stretch in of.chunks(of.len().div_ceil(stretches).max(1)) {
            let mut few: Vec<Delay> = stretch.iter().copied().copied().collect();
            few.sort_unstable_by_key(|d| (d.delay_ns, d.ts_ns));
            let few = [few.first(), few.get(few.len() / 2), few.last()];
            telling.extend(few.into_iter().flatten().copied());
        }
    }
    telling.sort_unstable_by_key(|d| (d.ts_ns, d.delay_ns, d.is_out));
    telling.dedup();
    telling
}

impl Line {
    fn offset_ns(&self, ts_ns: i64) -> i64 {
        (self.offset_ns + self.slope * (ts_ns - self.at_ns) as f64).round() as i64
    }
}

/// Where the delays jump and stay: positions in the list.
fn steps(delays: &[Delay]) -> Vec<usize> {
    let mut steps = Vec::new();
    let mut last = [None::<i64>; 2];
    for i in 0..delays.len() {
        let d = delays[i];
        let before = last[usize::from(d.is_out)].replace(d.delay_ns);
        let Some(before) = before.filter(|b| (d.delay_ns - b).abs() > STEP_NS) else { continue };
        // packets that waited long are no step: those around them must have moved as far, of both directions; of one
        // alone, so many of them
        let from = steps.last().copied().unwrap_or(0);
        let jump = d.delay_ns - before;
        let moved = |is_out: bool, least: usize| {
            let of = |d: &&Delay| d.is_out == is_out;
            let left = median(delays[from..i].iter().rev().filter(of).take(STEADY), least)?;
            Some(median(delays[i..].iter().filter(of).take(STEADY), least)? - left)
        };
        let as_far = |moved: i64| moved.signum() == jump.signum() && moved.abs() >= jump.abs() / 2;
        let other = moved(!d.is_out, 1);
        let own = moved(d.is_out, if other.is_some() { 1 } else { STEADY });
        if !own.is_some_and(as_far) || !other.is_none_or(as_far) {
            continue;
        }
        // what is let go all at once, as when the peer's link-layer address is known, was sent in less time than it waited
        let run = |run: &mut dyn Iterator<Item = &Delay>, delay_ns: i64| {
            let near = |one: &&Delay| (one.delay_ns - delay_ns).abs() < jump.abs() / 2;
            lasts_ns(run.filter(|one| one.is_out == d.is_out).take_while(near)) >= jump.abs()
        };
        if other.is_none()
            && !(run(&mut delays[from..i].iter().rev(), before) && run(&mut delays[i..].iter(), d.delay_ns))
        {
            continue;
        }
        steps.push(i);
        last = [None; 2];
        last[usize::from(d.is_out)] = Some(d.delay_ns);
    }
    steps
}

/// The time from the first to the last sample.
fn lasts_ns<'a>(of: impl Iterator<Item = &'a Delay>) -> i64 {
    let mut at = of.map(|d| d.ts_ns.saturating_sub(d.delay_ns));
    at.next().map_or(0, |first| at.last().map_or(0, |last| (last - first).abs()))
}

/// The median of at least so many delays.
fn median<'a>(of: impl Iterator<Item = &'a Delay>, least: usize) -> Option<i64> {
    let mut sorted: Vec<i64> = of.map(|d| d.delay_ns).collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().filter(|_| sorted.len() >= least)
}

/// A point of the plane: ns since the first delay, delay less the first one.
type Point = (f64, f64);

fn fit(delays: &[Delay]) -> Option<Line> {
    let first = delays.first()?;
    let points = |is_out: bool| -> Vec<Point> {
        let beyond = beyond(delays, is_out);
        let of = delays.iter().filter(|d| d.is_out == is_out && !beyond(d.delay_ns));
        let mut points: Vec<Point> =
            of.map(|d| ((d.ts_ns - first.ts_ns) as f64, (d.delay_ns - first.delay_ns) as f64)).collect();
        points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points
    };
    let above = hull(&points(true), 1.0);
    let below = hull(&points(false), -1.0);
    let line = |offset: f64, slope: f64| Line {
        at_ns: first.ts_ns,
        offset_ns: offset + first.delay_ns as f64,
        slope,
        offset_error_ns: None,
        slope_error: None,
    };
    match (above.is_empty(), below.is_empty()) {
        (false, false) => Some(between(&above, &below, line)),
        (false, true) => Some(along(&above, 1.0, line)),
        (true, false) => Some(along(&below, -1.0, line)),
        (true, true) => None,
    }
}

/// Which delays of a direction no true match has: a few wrong ones would move the bounds for all.
fn beyond(delays: &[Delay], is_out: bool) -> impl Fn(i64) -> bool {
    let mut of: Vec<i64> = delays.iter().filter(|d| d.is_out == is_out).map(|d| d.delay_ns).collect();
    let mut quarter = |n: usize| {
        let at = of.len() * n / 4;
        if at < of.len() { *of.select_nth_unstable(at).1 } else { 0 }
    };
    let (low, high) = (quarter(1), quarter(3));
    // Tukey's fences, and what a path may vary by in between
    let reach = high.saturating_sub(low).saturating_mul(3).saturating_add(PATH_NS);
    let (least, most) = (low.saturating_sub(reach), high.saturating_add(reach));
    move |delay| if is_out { delay < least } else { delay > most }
}

/// The points that bound a cloud from below (`side` 1) or from above (-1), from left to right.
fn hull(points: &[Point], side: f64) -> Vec<Point> {
    let mut hull: Vec<Point> = Vec::new();
    for &p in points {
        while let [.., a, b] = hull[..] {
            let turn = (b.0 - a.0) * (p.1 - a.1) - (b.1 - a.1) * (p.0 - a.0);
            if turn * side > 0.0 {
                break;
            }
            hull.pop();
        }
        hull.push(p);
    }
    hull
}

/// Room between the two clouds for a line of this slope, and where its offset lies: lowest, highest.
fn room(above: &[Point], below: &[Point], slope: f64) -> (f64, f64) {
    let high = above.iter().map(|p| p.1 - slope * p.0).fold(f64::INFINITY, f64::min);
    let low = below.iter().map(|p| p.1 - slope * p.0).fold(f64::NEG_INFINITY, f64::max);
    (low, high)
}

/// All lines that separate the clouds, but for noise: the middle of their slopes, and the middle of its offsets.
fn between(above: &[Point], below: &[Point], line: impl Fn(f64, f64) -> Line) -> Line {
    let gap = |slope: f64| {
        let (low, high) = room(above, below, slope);
        high - low
    };
    // concave: the widest gap by thirds
    let (mut a, mut b) = (-MAX_SLOPE, MAX_SLOPE);
    for _ in 0..100 {
        let (m, n) = (a + (b - a) / 3.0, b - (b - a) / 3.0);
        if gap(m) < gap(n) { a = m } else { b = n }
    }
    let widest = f64::midpoint(a, b);
    let needed = gap(widest).min(0.0) - NOISE_NS;
    // how far the slope may go to either side until there is no room
    let edge = |limit: f64| {
        let (mut inside, mut outside) = (widest, limit);
        if gap(outside) >= needed {
            return outside;
        }
        for _ in 0..100 {
            let middle = f64::midpoint(inside, outside);
            if gap(middle) >= needed { inside = middle } else { outside = middle }
        }
        inside
    };
    let (least, most) = (edge(-MAX_SLOPE), edge(MAX_SLOPE));
    let told = least > -MAX_SLOPE && most < MAX_SLOPE;
    let slope = if told { f64::midpoint(least, most) } else { 0.0 };
    let mut bounds = (f64::INFINITY, f64::NEG_INFINITY);
    for s in [least, slope, most, widest] {
        let (low, high) = room(above, below, s);
        bounds = (bounds.0.min(low.min(high)), bounds.1.max(low.max(high)));
    }
    let (low, high) = room(above, below, slope);
    let offset = f64::midpoint(low, high);
    let mut found = line(offset, slope);
    found.offset_error_ns = Some((bounds.1 - offset).max(offset - bounds.0) + NOISE_NS);
    found.slope_error = told.then_some((most - least) / 2.0);
    found
}

/// The edge of one cloud below (or above) its middle. Without the other direction nothing bounds the offset.
fn along(hull: &[Point], side: f64, line: impl Fn(f64, f64) -> Line) -> Line {
    let (Some(first), Some(last)) = (hull.first(), hull.last()) else { return line(0.0, 0.0) };
    let middle = f64::midpoint(first.0, last.0);
    if last.0 - first.0 >= LONG_ENOUGH_NS
        && let Some(edge) = hull.windows(2).find(|e| e[1].0 >= middle && e[1].0 > e[0].0)
    {
        let slope = (edge[1].1 - edge[0].1) / (edge[1].0 - edge[0].0);
        if slope.abs() <= MAX_SLOPE {
            return line(edge[0].1 - slope * edge[0].0, slope);
        }
    }
    // too short for a slope: the extreme delay alone
    line(hull.iter().map(|p| p.1 * side).fold(f64::INFINITY, f64::min) * side, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Delays of a second's packets over a path, under a clock that is ahead and runs fast.
    fn delays(ahead_ns: i64, ppb: i64, out: &[(i64, i64)], received: &[(i64, i64)]) -> Vec<Delay> {
        let clock = |true_ns: i64| true_ns + ahead_ns + (i128::from(true_ns) * i128::from(ppb) / 1_000_000_000) as i64;
        let sent = out.iter().map(|&(at, wait)| {
            let ts_ns = clock(at + wait);
            Delay { ts_ns, delay_ns: ts_ns - at, is_out: true }
        });
        let taken = received.iter().map(|&(at, wait)| {
            let ts_ns = clock(at);
            Delay { ts_ns, delay_ns: ts_ns - (at + wait), is_out: false }
        });
        sent.chain(taken).collect()
    }

    proptest! {
        #[test]
        fn the_true_clock_lies_within_the_stated_error(
            ahead_ns in -5_000_000_000_000i64..5_000_000_000_000,
            ppb in -200_000i64..200_000,
            waits in prop::collection::vec((20_000_000i64..30_000_000, 10_000_000i64..40_000_000), 30..120),
        ) {
            let out: Vec<_> = waits.iter().zip(0i64..).map(|(w, i)| (i * 100_000_000, w.0)).collect();
            let received: Vec<_> = waits.iter().zip(0i64..).map(|(w, i)| (i * 100_000_000 + 7, w.1)).collect();
            let all = delays(ahead_ns, ppb, &out, &received);
            let first = all.iter().map(|d| d.ts_ns).min().unwrap();
            let estimate = Clocks::estimate(all).row(first).unwrap();
            let true_offset = ahead_ns + (out[0].1 as i128 * ppb as i128 / 1_000_000_000) as i64;
            let error = estimate.offset_error_ns.unwrap();
            prop_assert!((estimate.offset_ns - true_offset).abs() <= error + 10_000, "{estimate:?} {true_offset}");
            prop_assert!(error < 40_000_000, "{error}");
            if let Some((drift, drift_error)) = estimate.drift_ppb {
                prop_assert!((drift - ppb).abs() <= drift_error + 100, "{estimate:?}");
            }
            prop_assert_eq!(estimate.steps, 0);
        }
    }

    #[test]
    fn a_steady_path_tells_the_drift() {
        let out: Vec<_> = (0..600).map(|i| (i * 100_000_000, 5_000_000 + i % 7 * 1_000)).collect();
        let received: Vec<_> = (0..600).map(|i| (i * 100_000_000 + 50, 5_000_000 + i % 5 * 1_000)).collect();
        let estimate = Clocks::estimate(delays(3_000_000_000, 20_000, &out, &received)).row(8_000_000_000).unwrap();
        let (drift, error) = estimate.drift_ppb.unwrap();
        assert!((drift - 20_000).abs() <= error && error < 200_000, "{estimate:?}");
    }

    #[test]
    fn what_is_left_of_many_delays_tells_as_much() {
        let at = |i: i64| i * 10_000_000;
        let out: Vec<_> = (0..6_000).map(|i| (at(i), 5_000_000 + i * i % 7_001)).collect();
        let received: Vec<_> = (0..6_000).map(|i| (at(i) + 50, 5_000_000 + i * i % 5_003)).collect();
        let mut all = delays(3_000_000_000, 20_000, &out, &received);
        for d in all.iter_mut().filter(|d| d.ts_ns > 30_000_000_000) {
            d.ts_ns += 1_500_000_000;
            d.delay_ns += 1_500_000_000;
        }
        let few = telling(&all, 100);
        assert!(few.len() <= 600, "{} of {}", few.len(), all.len());
        let (whole, left) = (Clocks::estimate(all), Clocks::estimate(few));
        let (whole, left) = (whole.row(8_000_000_000).unwrap(), left.row(8_000_000_000).unwrap());
        assert_eq!((whole.steps, left.steps), (1, 1));
        let error = whole.offset_error_ns.unwrap();
        assert!((whole.offset_ns - left.offset_ns).abs() * 1_000 < error, "{whole:?}, {left:?}");
    }

    #[test]
    fn one_direction_bounds_nothing() {
        let out: Vec<_> = (0..50).map(|i| (i * 100_000_000, 5_000_000 + i % 7 * 1_000)).collect();
        let estimate = Clocks::estimate(delays(0, 0, &out, &[])).row(0).unwrap();
        assert_eq!((estimate.offset_ns, estimate.offset_error_ns), (5_000_000, None));
    }

    #[test]
    fn a_clock_that_was_set_makes_two_pieces() {
        let out: Vec<_> = (0..40).map(|i| (i * 100_000_000, 10_000)).collect();
        let received: Vec<_> = (0..40).map(|i| (i * 100_000_000 + 50, 10_000)).collect();
        let mut all = delays(0, 0, &out, &received);
        for d in all.iter_mut().filter(|d| d.ts_ns > 2_000_000_000) {
            d.ts_ns += 3_600_000_000_000;
            d.delay_ns += 3_600_000_000_000;
        }
        let clocks = Clocks::estimate(all);
        let row = clocks.row(0).unwrap();
        assert_eq!(row.steps, 1);
        assert!(row.offset_ns.abs() <= 10_000, "{row:?}");
        assert!((clocks.offset_at_sample_ns(3_000_000_000).unwrap() - 3_600_000_000_000).abs() <= 10_000);
        // packets that waited, one or many or the first, are no step
        let mut out: Vec<_> = (0..40).map(|i| (i * 100_000_000, 10_000)).collect();
        out[20].1 = 900_000_000;
        assert_eq!(Clocks::estimate(delays(0, 0, &out, &received)).row(0).unwrap().steps, 0);
        out[20].1 = 10_000;
        out[0].1 = 900_000_000;
        assert_eq!(Clocks::estimate(delays(0, 0, &out, &received[1..])).row(0).unwrap().steps, 0);
        for late in &mut out[15..30] {
            late.1 = 900_000_000;
        }
        assert_eq!(Clocks::estimate(delays(0, 0, &out, &received)).row(0).unwrap().steps, 0);
    }

    #[test]
    fn what_waited_for_the_neighbour_is_no_step() {
        // the SYNs of ten connections, and again a second later, until the peer's link-layer address is known
        let syns = (0..10).map(|i| (i * 20_000, 2_060_000_000 - i * 20_000));
        let again = (0..10).map(|i| (1_030_000_000 + i * 20_000, 1_030_000_000 - i * 20_000));
        let out: Vec<_> = syns.chain(again).chain((0..40).map(|i| (2_070_000_000 + i * 10_000_000, 10_000))).collect();
        let received: Vec<_> = (0..40).map(|i| (2_071_000_000 + i * 10_000_000, 10_000)).collect();
        for received in [&received[..], &[]] {
            assert_eq!(Clocks::estimate(delays(0, 0, &out, received)).row(0).unwrap().steps, 0);
        }
    }

    #[test]
    fn one_direction_alone_tells_a_step_in_the_long_run() {
        let out: Vec<_> = (0..40).map(|i| (i * 100_000_000, 10_000)).collect();
        let mut all = delays(0, 0, &out, &[]);
        for d in all.iter_mut().filter(|d| d.ts_ns > 2_000_000_000) {
            d.ts_ns += 1_500_000_000;
            d.delay_ns += 1_500_000_000;
        }
        assert_eq!(Clocks::estimate(all).row(0).unwrap().steps, 1);
    }
}
