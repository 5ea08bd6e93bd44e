//! What thinning may not hide.

use proptest::prelude::*;
use tcpprobe_view::points::{Ack, Brief, Matched, Segment, State};
use tcpprobe_view::thin::Columns;

fn segment() -> impl Strategy<Value = Segment> {
    (0..1_000_000_i64, 0..500_000_i64, 1..20_000_i64, prop::bool::weighted(0.05), 1..100_000_i64).prop_map(
        |(t_ns, start, len, again, number)| Segment {
            t_ns,
            start,
            end: start + len,
            packets: 1,
            again,
            number,
            matched: Matched::Exact,
            state: Brief::default(),
        },
    )
}

fn column(t_ns: i64) -> i64 {
    t_ns / 10_000
}

proptest! {
    #[test]
    fn every_segment_is_covered_by_one_of_its_kind_in_its_column(mut all in prop::collection::vec(segment(), 0..400)) {
        all.sort_by_key(|s| s.t_ns);
        let thin = Columns::new(0, 1_000_000, 100).segments(&all, 0);
        prop_assert_eq!(thin.iter().map(|s| u64::from(s.packets)).sum::<u64>(), all.len() as u64);
        for s in &all {
            let covered = thin.iter().any(|t| {
                t.again == s.again && column(t.t_ns) == column(s.t_ns) && t.start <= s.start && t.end >= s.end
            });
            prop_assert!(covered, "{s:?}");
        }
    }

    #[test]
    fn zero_windows_and_extremes_stay(windows in prop::collection::vec(0..4_i64, 1..500)) {
        let all: Vec<Ack> = windows.iter().enumerate().map(|(i, &w)| Ack {
            t_ns: i as i64 * 1_000, ack: i as i64, window_bytes: Some(w * 1_000), sacked_bytes: None,
            number: i as i64, matched: Matched::Exact, state: Brief::default(),
        }).collect();
        let thin = Columns::new(0, 500_000, 10).acks(&all);
        for a in all.iter().filter(|a| a.window_bytes == Some(0)) {
            let same = |t: &Ack| t.t_ns / 50_000 == a.t_ns / 50_000 && t.window_bytes == Some(0);
            prop_assert!(thin.iter().any(same), "the zero window at {} is gone", a.t_ns);
        }
    }

    #[test]
    fn the_highest_and_the_lowest_of_each_line_stay(values in prop::collection::vec((0..1_000_i64, 0..1_000_i64), 1..500)) {
        let all: Vec<State> = values.iter().enumerate().map(|(i, &(cwnd, srtt))| State {
            t_ns: i as i64 * 1_000, cwnd_bytes: Some(cwnd), srtt_us: Some(srtt), ..State::default()
        }).collect();
        let thin = Columns::new(0, 500_000, 10).states(&all);
        prop_assert!(thin.len() <= 10 * (2 + 4));
        for line in [|s: &State| s.cwnd_bytes, |s: &State| s.srtt_us] {
            prop_assert_eq!(thin.iter().filter_map(line).max(), all.iter().filter_map(line).max());
            prop_assert_eq!(thin.iter().filter_map(line).min(), all.iter().filter_map(line).min());
        }
    }
}
