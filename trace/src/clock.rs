//! Clock anchors: what ties CLOCK_MONOTONIC, in which the kernel stamps samples, to the wall clock of captures.
//!
//! Owns the arithmetic; must not read clocks itself, so that it can be tested and used on any system.

/// Times that a clock may have, ns since the Unix epoch: 1960 to 2106, where also the seconds of a pcap file end. Two of
/// them differ by less than 2⁶² ns, so that differences of such differences do not overflow.
pub const TIMES_NS: std::ops::RangeInclusive<i64> = -(1 << 58)..=(1 << 62) - (1 << 58);

/// CLOCK_MONOTONIC stays below this for 36 years after a boot, ns.
const MONO_END_NS: i64 = 1 << 60;

/// The wall clock, read between two readings of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// CLOCK_MONOTONIC before, in ns.
    pub mono_before_ns: i64,
    /// CLOCK_REALTIME, in ns since the Unix epoch.
    pub real_ns: i64,
    /// CLOCK_MONOTONIC after, in ns.
    pub mono_after_ns: i64,
}

impl Anchor {
    /// The monotonic time that belongs to `real_ns`: the middle of the bracket.
    pub fn mono_ns(&self) -> i64 {
        self.mono_before_ns + (self.mono_after_ns - self.mono_before_ns) / 2
    }

    /// Wall clock minus monotonic clock at this anchor, in ns.
    pub fn offset_ns(&self) -> i64 {
        self.real_ns - self.mono_ns()
    }

    /// Can clocks have been read so? To be asked of an anchor that comes from elsewhere, before anything else.
    pub fn is_possible(&self) -> bool {
        (0..MONO_END_NS).contains(&self.mono_before_ns)
            && (self.mono_before_ns..MONO_END_NS).contains(&self.mono_after_ns)
            && TIMES_NS.contains(&self.real_ns)
    }
}

/// Two anchors with the time between them.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    from: Anchor,
    to: Anchor,
}

/// The kernel slews the wall clock by at most 500 ppm (adjtimex(2)); twice that, and the brackets' width, is a step.
const MAX_SLEW_PPM: i128 = 1000;

impl Segment {
    /// The time from one anchor to a later one.
    pub fn new(from: Anchor, to: Anchor) -> Self {
        Segment { from, to }
    }

    /// Was the wall clock set between the two anchors, and not only slewed?
    pub fn stepped(&self) -> bool {
        let moved = i128::from(self.to.offset_ns() - self.from.offset_ns()).abs();
        let elapsed = i128::from(self.to.mono_ns() - self.from.mono_ns()).max(0);
        let bracket = i128::from(
            self.to.mono_after_ns - self.to.mono_before_ns + self.from.mono_after_ns - self.from.mono_before_ns,
        );
        moved > elapsed * MAX_SLEW_PPM / 1_000_000 + bracket + 1_000
    }

    /// Wall clock minus monotonic clock at a monotonic time, in ns: interpolated between the anchors, the nearer one
    /// outside of them. Across a step the earlier offset holds, for when the step came is not known.
    pub fn offset_ns(&self, mono_ns: i64) -> i64 {
        let (from, to) = (self.from.offset_ns(), self.to.offset_ns());
        let length = i128::from(self.to.mono_ns() - self.from.mono_ns());
        if length <= 0 {
            return to;
        }
        if self.stepped() {
            return if mono_ns >= self.to.mono_ns() { to } else { from };
        }
        let at = i128::from(mono_ns - self.from.mono_ns()).clamp(0, length);
        // the quotient lies between 0 and to - from
        from + (i128::from(to - from) * at / length) as i64
    }
}

/// The wall clock of a session, as far as its anchors have told it.
#[derive(Clone, Debug)]
pub struct Timeline {
    last: Anchor,
    /// By how much the wall clock was set, and the monotonic time from which on that holds; one for each time.
    steps: Vec<(i64, i64)>,
}

impl Timeline {
    /// From a session's first anchor on.
    pub fn new(first: Anchor) -> Timeline {
        Timeline { last: first, steps: Vec::new() }
    }

    /// The latest anchor.
    pub fn last(&self) -> Anchor {
        self.last
    }

    /// Was the wall clock set between the latest anchor and one that follows?
    pub fn is_stepped_by(&self, next: Anchor) -> bool {
        Segment::new(self.last, next).stepped()
    }

    /// Wall clock minus monotonic clock at a monotonic time up to the anchor that follows, ns. What is from before the
    /// latest one, and comes late, has the clock from before it was set.
    pub fn offset_ns(&self, mono_ns: i64, next: Anchor) -> i64 {
        let offset_ns = Segment::new(self.last, next).offset_ns(mono_ns);
        if mono_ns >= self.last.mono_ns() {
            return offset_ns;
        }
        let since = self.steps.iter().rev().take_while(|&&(from_ns, _)| mono_ns < from_ns);
        since.fold(offset_ns, |offset_ns, &(_, jump_ns)| offset_ns.saturating_sub(jump_ns))
    }

    /// The next anchor, which is the latest from now on.
    pub fn advance(&mut self, next: Anchor) {
        if self.is_stepped_by(next) {
            self.steps.push((next.mono_ns(), next.offset_ns() - self.last.offset_ns()));
        }
        self.last = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(mono: i64, offset: i64) -> Anchor {
        Anchor { mono_before_ns: mono - 20, real_ns: mono + offset, mono_after_ns: mono + 20 }
    }

    #[test]
    fn interpolates_a_slewed_clock() {
        let s = Segment::new(anchor(1_000_000, 500), anchor(2_000_000, 700));
        assert!(!s.stepped());
        assert_eq!(s.offset_ns(1_500_000), 600);
        assert_eq!(s.offset_ns(0), 500, "before the first anchor its own offset holds");
        assert_eq!(s.offset_ns(9_000_000), 700);
    }

    #[test]
    fn a_step_is_not_smeared_over_the_segment() {
        let s = Segment::new(anchor(1_000_000_000, 0), anchor(2_000_000_000, 3_600_000_000_000));
        assert!(s.stepped());
        assert_eq!(s.offset_ns(1_999_999_999), 0);
        assert_eq!(s.offset_ns(2_000_000_000), 3_600_000_000_000);
    }

    #[test]
    fn the_limit_of_slewing_is_not_a_step() {
        let s = Segment::new(anchor(0, 0), anchor(1_000_000_000, 500_000));
        assert!(!s.stepped());
    }
}
