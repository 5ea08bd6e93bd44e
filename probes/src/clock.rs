//! Reads the clocks: CLOCK_MONOTONIC, in which `bpf_ktime_get_ns` stamps samples, around CLOCK_REALTIME.

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

fn read_ns(clock: ClockId) -> i64 {
    // these two clocks exist on every Linux; 0 would show at once as a broken anchor
    clock_gettime(clock).map(|t| t.tv_sec() * 1_000_000_000 + t.tv_nsec()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_advance_and_are_tight() {
        let (a, b) = (anchor(), anchor());
        assert!(b.mono_before_ns >= a.mono_after_ns);
        assert!(a.mono_after_ns - a.mono_before_ns < 1_000_000, "a bracket of less than a millisecond");
        assert!(a.real_ns > 1_600_000_000_000_000_000, "after 2020");
    }
}
