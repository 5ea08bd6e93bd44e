//! The view `why_waiting`: what a sender waited for between two segments, from what the kernel said when it sent the first.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::fields::index;
use tcpprobe_trace::query::{Query, Value};
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, Segment, State};
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

const ANCHOR: Anchor = Anchor { mono_before_ns: 0, real_ns: 0, mono_after_ns: 0 };
const MSS: u32 = 1000;

/// A sender at a moment. In no one's way: 5 segments under way, room for 95 more, much to send.
#[derive(Clone, Copy)]
struct Sender {
    in_flight: u32,
    packets_out: u32,
    sacked_out: u32,
    lost_out: u32,
    retrans_out: u32,
    notsent: u32,
    cwnd: u32,
    wnd: u32,
    ca_state: u32,
}

const FREE: Sender = Sender {
    in_flight: 5 * MSS,
    packets_out: 5,
    sacked_out: 0,
    lost_out: 0,
    retrans_out: 0,
    notsent: 1_000_000,
    cwnd: 100,
    wnd: 1_000_000,
    ca_state: 0,
};

#[derive(Clone, Copy)]
struct Line {
    flow: u64,
    serial: u64,
    mono_ns: i64,
    kind: Kind,
    len: u32,
    error: i32,
    sender: Sender,
}

/// A segment of a flow at a time.
fn sends(serial: u64, mono_ns: i64, sender: Sender) -> Line {
    Line { flow: 1, serial, mono_ns, kind: Kind::Send, len: MSS, error: 0, sender }
}

fn acks(serial: u64, mono_ns: i64) -> Line {
    Line { kind: Kind::Ack, len: 0, ..sends(serial, mono_ns, FREE) }
}

fn again(line: Line) -> Line {
    Line { kind: Kind::Retransmit, ..line }
}

/// The columns of all rows.
fn waits(lines: &[Line], columns: &str) -> Vec<Vec<Value>> {
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
    for line in lines {
        let s = line.sender;
        let una = 4_294_960_000_u32;
        let nxt = una.wrapping_add(s.in_flight);
        let mut state = State::default();
        for (name, value) in [
            ("snd_una", una),
            ("snd_nxt", nxt),
            ("write_seq", nxt.wrapping_add(s.notsent)),
            ("packets_out", s.packets_out),
            ("sacked_out", s.sacked_out),
            ("lost_out", s.lost_out),
            ("retrans_out", s.retrans_out),
            ("snd_cwnd", s.cwnd),
            ("snd_wnd", s.wnd),
            ("mss", MSS),
            ("ca_state", s.ca_state),
        ] {
            state.set(index(name), Some(i64::from(value)));
        }
        let phase = if line.kind == Kind::Ack { Phase::Before } else { Phase::Transmit };
        let seq = if line.kind == Kind::Send { nxt } else { una };
        let sample = Sample {
            flow: line.flow,
            serial: line.serial,
            mono_ns: line.mono_ns,
            kind: line.kind,
            phase,
            segment: Some(Segment { seq, len: line.len, ack: 1, flags: 0x10, tsval: None, ip_id: None }),
            unseen_before: false,
            refused_before: 0,
            error: line.error,
            state,
        };
        assert!(writer.sample(&sample, ANCHOR).unwrap());
    }
    writer.finish(&SessionEnd::default(), ANCHOR).unwrap();
    Query::open(&path).unwrap().all(&format!("SELECT {columns} FROM why_waiting ORDER BY ts_ns")).unwrap()
}

fn text(words: &str) -> Value {
    Value::Text(words.to_owned())
}

/// What the first of two segments was followed by, with an ACK in between or none.
fn reason(first: Sender, with_ack: bool, second: impl Fn(Line) -> Line) -> Value {
    let mut lines = vec![sends(1, 1000, first)];
    if with_ack {
        lines.push(acks(2, 4000));
    }
    lines.push(second(sends(lines.len() as u64 + 1, 6000, FREE)));
    let rows = waits(&lines, "gap_ns, reason");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0][0], Value::Integer(5000));
    rows[0][1].clone()
}

fn same(line: Line) -> Line {
    line
}

#[test]
fn a_sender_waits_for_what_stands_in_its_way_once_its_segment_is_out() {
    // the segment itself is the last that was written
    let nothing_left = Sender { notsent: MSS, ..FREE };
    // with it the congestion window is full
    let cwnd_full = Sender { packets_out: 9, in_flight: 9 * MSS, cwnd: 10, ..FREE };
    // room for half a segment
    let window_full = Sender { wnd: 6 * MSS + MSS / 2, ..FREE };
    for (sender, expected) in [
        (FREE, "pacing"),
        (nothing_left, "application"),
        (cwnd_full, "cwnd"),
        (window_full, "receive window"),
        // no room in either, but less in the congestion window
        (Sender { wnd: 10 * MSS + 1, ..cwnd_full }, "cwnd"),
        // what was written and fits is sent
        (Sender { wnd: 6 * MSS, notsent: MSS, ..FREE }, "application"),
        // selectively acknowledged and lost segments are not in flight, what was sent again is
        (Sender { sacked_out: 5, ..cwnd_full }, "pacing"),
        (Sender { lost_out: 5, ..cwnd_full }, "pacing"),
        (Sender { lost_out: 5, retrans_out: 5, ..cwnd_full }, "cwnd"),
        (Sender { ca_state: 3, ..cwnd_full }, "recovery"),
        (Sender { ca_state: 4, ..FREE }, "recovery"),
        (Sender { ca_state: 2, ..cwnd_full }, "cwnd"),
        (Sender { ca_state: 3, ..nothing_left }, "application"),
        // less than a segment waits for its ACK
        (Sender { notsent: MSS + 10, ..FREE }, "application"),
    ] {
        assert_eq!(reason(sender, true, same), text(expected));
    }
    assert_eq!(reason(nothing_left, false, again), text("recovery"), "what follows is a retransmission");
}

#[test]
fn the_kernel_waits_for_an_ack_rather_than_send_a_little() {
    let little_cwnd = Sender { packets_out: 80, in_flight: 80 * MSS, ..FREE };
    assert_eq!(reason(little_cwnd, true, same), text("cwnd"));
    assert_eq!(reason(little_cwnd, false, same), text("pacing"), "no ACK came that it could have waited for");
    let little_window = Sender { wnd: 8 * MSS, ..FREE };
    assert_eq!(reason(little_window, true, same), text("receive window"));
    let half = Sender { packets_out: 50, in_flight: 50 * MSS, ..FREE };
    assert_eq!(reason(half, true, same), text("pacing"));
}

#[test]
fn gaps_are_between_segments_with_data_that_left_the_host() {
    let empty = Line { len: 0, ..sends(2, 2000, FREE) };
    let failed = Line { error: 11, ..sends(3, 3000, FREE) };
    let other = Line { flow: 2, serial: 1, ..sends(1, 3500, FREE) };
    let rows = waits(
        &[sends(1, 1000, FREE), empty, failed, other, sends(4, 4000, FREE), again(sends(5, 4500, FREE)), acks(6, 5000)],
        "flow_id, gap_ns, before_retransmission",
    );
    let integers = |row: [i64; 3]| row.map(Value::Integer).to_vec();
    assert_eq!(rows, [integers([1, 3000, 0]), integers([1, 500, 1])]);
}

#[test]
fn where_samples_are_missing_nothing_is_said() {
    let rows = waits(&[sends(1, 1000, FREE), sends(3, 2000, FREE), sends(4, 3000, FREE)], "reason");
    assert_eq!(rows, [[Value::Null], [text("pacing")]]);
}
