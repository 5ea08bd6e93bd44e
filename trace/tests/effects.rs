//! The view `ack_effects`: which samples belong together, and what lies between them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::fields::index;
use tcpprobe_trace::query::{Query, Value};
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, Segment, State};
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

const ANCHOR: Anchor = Anchor { mono_before_ns: 0, real_ns: 0, mono_after_ns: 0 };

/// One sample of a flow: serial, kind and phase, acknowledgment number, then `snd_una`, `delivered` and `snd_cwnd`.
type Line = (u64, u64, Kind, Phase, u32, [u32; 3]);

fn effects(lines: &[Line], failed: &[u64], columns: &str) -> Vec<Vec<i64>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let mut writer = SessionWriter::begin(&path, &SessionStart::default(), ANCHOR).unwrap();
    for key in [1, 2] {
        let flow = Flow {
            key,
            mono_ns: 0,
            local: format!("192.0.2.1:{key}").parse().unwrap(),
            remote: "192.0.2.2:443".parse().unwrap(),
            family: Family::Inet,
            netns: 1,
            cookie: None,
            congestion: None,
            snd_wscale: None,
            rcv_wscale: None,
        };
        writer.flow(&flow, ANCHOR).unwrap();
    }
    for &(flow, serial, kind, phase, ack, [una, delivered, cwnd]) in lines {
        let mut state = State::default();
        for (name, value) in [("snd_una", una), ("snd_nxt", 5000), ("delivered", delivered), ("snd_cwnd", cwnd)] {
            state.set(index(name), Some(i64::from(value)));
        }
        let sample = Sample {
            flow,
            serial,
            mono_ns: serial as i64 * 1000,
            kind,
            phase,
            segment: Some(Segment { seq: 1, len: 0, ack, flags: 0x10, tsval: None, ip_id: None }),
            unseen_before: false,
            refused_before: 0,
            error: if failed.contains(&serial) { 11 } else { 0 },
            state,
        };
        assert!(writer.sample(&sample, ANCHOR).unwrap());
    }
    writer.finish(&SessionEnd::default(), ANCHOR).unwrap();
    let sql = format!("SELECT {columns} FROM ack_effects ORDER BY before_id");
    let rows = Query::open(&path).unwrap().all(&sql).unwrap();
    let number = |value: &Value| match value {
        Value::Integer(n) => *n,
        other => unreachable!("no integer: {other:?}"),
    };
    rows.iter().map(|row| row.iter().map(number).collect()).collect()
}

use Kind::{Ack, Retransmit, Send};
use Phase::{After, Before, Transmit};

#[test]
fn an_ack_s_effect_is_what_changed_and_what_was_sent_meanwhile() {
    let lines = [
        (1, 1, Ack, Before, 300, [4_294_967_196, 7, 10]),
        // another flow's samples come in between
        (2, 1, Ack, Before, 300, [100, 1, 4]),
        (1, 2, Send, Transmit, 1, [300, 9, 12]),
        (1, 3, Retransmit, Transmit, 1, [300, 9, 12]),
        (1, 4, Retransmit, Transmit, 1, [300, 9, 12]),
        (2, 2, Ack, After, 300, [100, 1, 4]),
        (1, 5, Ack, After, 300, [300, 9, 12]),
    ];
    let columns =
        "flow_id, duration_ns, acked_bytes, delivered, snd_cwnd_before, snd_cwnd_after, segments_sent, retransmitted";
    // the last retransmission failed locally; the numbers of flow 1 go round
    let expected = [vec![1, 4000, 400, 2, 10, 12, 2, 1], vec![2, 1000, 0, 0, 4, 4, 0, 0]];
    assert_eq!(effects(&lines, &[4], columns), expected);
}

#[test]
fn only_samples_that_are_known_to_belong_together_are_paired() {
    let state = [300, 1, 10];
    let lines = [
        // the return of the first was not shown
        (1, 1, Ack, Before, 300, state),
        (1, 2, Ack, Before, 301, state),
        (1, 3, Ack, After, 301, state),
        // a sample is missing between the two
        (1, 4, Ack, Before, 302, state),
        (1, 6, Ack, After, 302, state),
        // of another segment
        (1, 7, Ack, Before, 303, state),
        (1, 8, Ack, After, 304, state),
        // missing beside a sample that is there
        (1, 9, Ack, Before, 305, state),
        (1, 10, Send, Transmit, 1, state),
        (1, 12, Ack, After, 305, state),
        (1, 13, Ack, Before, 306, state),
    ];
    assert_eq!(effects(&lines, &[], "ack"), [[301]]);
}
