//! Reads the clocks: CLOCK_MONOTONIC, in which `bpf_ktime_get_ns` stamps samples, around CLOCK_REALTIME.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use tcpprobe_trace::clock::Anchor;

/// Reads an anchor: of a few tries the one with the narrowest bracket, for a reading can be interrupted.
pub fn anchor() -> Anchor {
    let read = || Anchor {
        mono_before_ns: read_ns(ClockId::CLOCK_MONOTONIC),
        real_ns: read_ns(ClockId::CLOCK_REALTIME),
        mono_after_ns: read_ns(ClockId::CLOCK_MONOTONIC),
    };
    let mut best = read();
    for _ in 0..2 {
        let next = read();
        if next.mono_after_ns - next.mono_before_ns < best.mono_after_ns - best.mono_before_ns {
            best = next;
        }
    }
    best
}

/// CLOCK_MONOTONIC now.
pub(crate) fn monotonic_ns() -> u64 {
    u64::try_from(read_ns(ClockId::CLOCK_MONOTONIC)).unwrap_or(0)
}

fn read_ns(clock: ClockId) -> i64 {
    // these two clocks exist on every Linux; 0 would show at once as a broken anchor
    clock_gettime(clock).map(|t| t.tv_sec() * 1_000_000_000 + t.tv_nsec()).unwrap_or(0)
}

/// Tells when the wall clock is set, also by waking up from sleep: until the next anchor nothing says on which side of it
/// a sample is.
pub struct ClockSet(TimerFd);

/// 2200, s since the Unix epoch.
const NEVER_S: i64 = 7_258_118_400;

impl ClockSet {
    /// Watches from here on.
    ///
    /// # Errors
    /// What the kernel says: too many open files, for instance.
    pub fn watch() -> nix::Result<ClockSet> {
        let timer = TimerFd::new(TimerClock::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // a timer that the setting of the clock cancels, timerfd_create(2)
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        timer.set(Expiration::OneShot(TimeSpec::new(NEVER_S, 0)), flags)?;
        Ok(ClockSet(timer))
    }

    /// Readable once the clock has been set.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Is not readable from here on, until the clock is set anew. Returns whether it had been set.
    pub fn clear(&self) -> bool {
        // ECANCELED: it was, and the timer stands anew; EAGAIN: it was not
        self.0.wait() == Err(nix::Error::ECANCELED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_was_not_set() {
        assert!(!ClockSet::watch().unwrap().clear());
    }

    #[test]
    fn anchors_advance_and_are_tight() {
        let (a, b) = (anchor(), anchor());
        assert!(b.mono_before_ns >= a.mono_after_ns);
        assert!(a.mono_after_ns - a.mono_before_ns < 1_000_000, "a bracket of less than a millisecond");
        assert!(a.real_ns > 1_600_000_000_000_000_000, "after 2020");
    }
}
