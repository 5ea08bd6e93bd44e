//! Fewer points, the same picture: what falls into one column of pixels is drawn once.
//!
//! What was sent again, zero windows and the extremes of every line are never among what goes.

use crate::points::{Ack, Segment, State};

/// Columns of equal length in time.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    from_ns: i64,
    width_ns: i64,
}

/// Ranges apart from each other that are kept of one column.
const RANGES_A_COLUMN: usize = 48;

impl Columns {
    /// `count` columns from `from_ns` to `to_ns`.
    pub fn new(from_ns: i64, to_ns: i64, count: usize) -> Columns {
        let count = i64::try_from(count.max(1)).unwrap_or(i64::MAX);
        Columns { from_ns, width_ns: (to_ns.saturating_sub(from_ns) / count).max(1) }
    }

    fn of(self, t_ns: i64) -> i64 {
        t_ns.saturating_sub(self.from_ns).div_euclid(self.width_ns)
    }

    /// Segments: of a column those become one that touch or overlap, or whose gap is at most `gap` bytes; what was sent
    /// again stays apart from what was not.
    pub fn segments(self, all: &[Segment], gap: i64) -> Vec<Segment> {
        let mut out: Vec<Segment> = Vec::new();
        for group in all.chunk_by(|a, b| self.of(a.t_ns) == self.of(b.t_ns)) {
            let begin = out.len();
            let mut sorted = group.to_vec();
            sorted.sort_by_key(|s| (s.again, s.start, s.t_ns));
            for s in sorted {
                let room = out.len() - begin < RANGES_A_COLUMN;
                match out.get_mut(begin..).and_then(<[Segment]>::last_mut) {
                    Some(last) if last.again == s.again && (!room || s.start <= last.end.saturating_add(gap)) => {
                        last.end = last.end.max(s.end);
                        last.packets = last.packets.saturating_add(s.packets);
                        if s.number < last.number {
                            last.number = s.number;
                            last.state = s.state;
                        }
                        last.t_ns = last.t_ns.min(s.t_ns);
                    }
                    _ => out.push(s),
                }
            }
            if let Some(column) = out.get_mut(begin..) {
                column.sort_by_key(|s| s.t_ns);
            }
        }
        out
    }

    /// States: of a column the first, the last, and where a line is at its lowest and its highest.
    pub fn states(self, all: &[State]) -> Vec<State> {
        self.rows(all, |s| s.t_ns, &State::DRAWN)
    }

    /// ACKs: as states, by what they acknowledge, the window, its end, and what is selectively acknowledged.
    pub fn acks(self, all: &[Ack]) -> Vec<Ack> {
        self.rows(all, |a| a.t_ns, &[|a| Some(a.ack), |a| a.window_bytes, Ack::window_end, |a| a.sacked_bytes])
    }

    fn rows<R: Copy>(self, all: &[R], time: fn(&R) -> i64, lines: &[fn(&R) -> Option<i64>]) -> Vec<R> {
        let mut out = Vec::new();
        let mut keep: Vec<usize> = Vec::new();
        for group in all.chunk_by(|a, b| self.of(time(a)) == self.of(time(b))) {
            keep.clear();
            keep.extend([0, group.len() - 1]);
            for line in lines {
                let values = || group.iter().enumerate().filter_map(|(i, r)| line(r).map(|v| (v, i)));
                keep.extend(values().min_by_key(|v| v.0).map(|v| v.1));
                keep.extend(values().max_by_key(|v| v.0).map(|v| v.1));
            }
            keep.sort_unstable();
            keep.dedup();
            out.extend(keep.iter().filter_map(|&i| group.get(i)));
        }
        out
    }
}
