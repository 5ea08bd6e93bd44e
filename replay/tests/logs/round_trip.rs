//! From a trace to the module's lines and back.

use std::path::Path;

use proptest::prelude::*;
use tcpprobe_replay::export::tcpprobe::{Error, Selection, Written, export};
use tcpprobe_trace::clock::Anchor;
use tcpprobe_trace::fields::index;
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, Segment, State};
use tcpprobe_trace::writer::{SessionEnd, SessionStart, SessionWriter};

use crate::{import_into, log, options, rows, temp};

const START: i64 = 5_000_000_000;

fn anchor(mono_ns: i64) -> Anchor {
    Anchor { mono_before_ns: mono_ns, real_ns: mono_ns + 1_700_000_000_000_000_000, mono_after_ns: mono_ns }
}

fn flow(key: u64) -> Flow {
    let v6 = key.is_multiple_of(2);
    let address = |host: u16| {
        if v6 { format!("[2001:db8::{host}]:{}", 4000 + key) } else { format!("192.0.2.{host}:{}", 4000 + key) }
    };
    Flow {
        key,
        mono_ns: START,
        local: address(1).parse().unwrap(),
        remote: address(2).parse().unwrap(),
        family: if v6 || key == 3 { Family::Inet6 } else { Family::Inet },
        netns: 1,
        cookie: Some(key),
        congestion: None,
        snd_wscale: None,
        rcv_wscale: None,
    }
}

const COLUMNS: [&str; 8] =
    ["snd_nxt", "snd_una", "snd_cwnd", "snd_ssthresh", "snd_wnd", "srtt_us", "rcv_wnd", "ca_state"];

fn state(values: [u32; 8]) -> State {
    let mut state = State::default();
    for (name, value) in COLUMNS.iter().zip(values) {
        state.set(index(name), Some(i64::from(value)));
    }
    state
}

/// A recording: of each flow, in turn, what it received and what it sent.
fn record(path: &Path, samples: &[(u64, [u32; 8])]) {
    let mut writer = SessionWriter::begin(path, &SessionStart::default(), anchor(START)).unwrap();
    let mut serials = [0; 4];
    let now = anchor(START + 1_000_000_000);
    for (i, &(key, values)) in samples.iter().enumerate() {
        writer.flow(&flow(key), now).unwrap();
        for (kind, phase) in [(Kind::Ack, Phase::Before), (Kind::Send, Phase::Transmit)] {
            serials[key as usize] += 1;
            let sample = Sample {
                flow: key,
                serial: serials[key as usize],
                mono_ns: START + i as i64 * 1_000_003,
                kind,
                phase,
                segment: Some(Segment { seq: 7, len: 1448, ack: values[1], flags: 0x10, tsval: Some(1), ip_id: None }),
                unseen_before: false,
                refused_before: 0,
                error: 0,
                state: state(values),
            };
            writer.sample(&sample, now).unwrap();
        }
    }
    writer.finish(&SessionEnd::default(), now).unwrap();
}

fn export_text(path: &Path, selection: &Selection) -> Result<(String, Written), Error> {
    let mut out = Vec::new();
    let written = export(path, selection, &mut out)?;
    Ok((String::from_utf8(out).unwrap(), written))
}

/// What gnuplot and awk need: 11 columns that are numbers, but for the two addresses.
fn assert_numeric(text: &str) {
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words.len(), 11, "{line}");
        assert!(words[0].parse::<f64>().is_ok(), "{line}");
        for word in &words[3..] {
            let number = word.strip_prefix("0x").map_or_else(|| word.parse(), |hex| u32::from_str_radix(hex, 16));
            assert!(number.is_ok(), "{line}");
        }
    }
}

#[test]
fn the_lines_of_a_recording() {
    let (_dir, path) = temp();
    record(&path, &[(1, [0x2000, 0x1000, 40, 20, 65_535, 250, 29_200, 0]), (3, [0, 0, 40, 20, 1, 2, 3, 3])]);
    let (text, written) = export_text(&path, &Selection::default()).unwrap();
    // outside of recovery no less than three quarters of cwnd; 1448 + 20 + 12 bytes; an IPv6 socket that speaks IPv4
    let expected = "0.000000000 192.0.2.1:4001 192.0.2.2:4001 1480 0x2000 0x1000 40 30 65535 250 29200\n\
        0.001000003 [::ffff:192.0.2.1]:4003 [::ffff:192.0.2.2]:4003 1480 0x0 0x0 40 20 1 2 3\n";
    assert_eq!((text.as_str(), written), (expected, Written { lines: 2, left_out: 0 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn exported_and_imported_again_it_is_the_same(
        // sequence numbers of one connection lie near each other
        given in prop::collection::vec((1u64..4, any::<[u16; 2]>(), 1u32..100_000, any::<u32>(), any::<[u32; 3]>(), 0u32..5), 1..40),
    ) {
        let mut places = [0xffff_0000_u32; 4];
        let samples: Vec<(u64, [u32; 8])> = given.iter().map(|&(key, [step, ahead], cwnd, ssthresh, [wnd, srtt, rcv_wnd], ca)| {
            let place = &mut places[key as usize];
            *place = place.wrapping_add(step.into());
            (key, [place.wrapping_add(ahead.into()), *place, cwnd, ssthresh, wnd, srtt, rcv_wnd, ca])
        }).collect();
        let (_dir, path) = temp();
        record(&path, &samples);
        let (text, written) = export_text(&path, &Selection::default()).unwrap();
        prop_assert_eq!(written, Written { lines: samples.len() as u64, left_out: 0 });
        assert_numeric(&text);

        let (_dir, again) = temp();
        import_into(&again, &text, &options(None)).unwrap();
        let sql = "SELECT local_addr, local_port, remote_addr, remote_port, family, mono_ns - (SELECT mono_base_ns FROM sessions),
            snd_nxt, snd_una, snd_cwnd, snd_wnd, srtt_us, rcv_wnd FROM samples s JOIN flows f ON f.id = s.flow_id
            WHERE kind = 'ack' ORDER BY s.mono_ns";
        prop_assert_eq!(rows(&path, sql), rows(&again, sql));
        // a threshold that came back is the recorded one, or the kernel's substitute outside of recovery
        let thresholds = |path: &Path| rows(path, "SELECT coalesce(snd_ssthresh, -1) FROM samples WHERE kind = 'ack' ORDER BY mono_ns");
        for ((before, after), (_, values)) in thresholds(&path).iter().zip(&thresholds(&again)).zip(&samples) {
            prop_assert!(after == "-1" && values[3] <= values[2] || after == before, "{} became {}", before, after);
        }
        // the module's length cannot be split into header and payload again; the rest is the same line
        let without_length = |text: &str| text.lines().map(|l| {
            let mut words: Vec<&str> = l.split(' ').collect();
            words.remove(3);
            words.join(" ")
        }).collect::<Vec<_>>();
        let (second, _) = export_text(&again, &Selection::default()).unwrap();
        prop_assert_eq!(without_length(&text), without_length(&second));
    }
}

#[test]
fn what_has_no_sequence_numbers_is_left_out_and_counted() {
    let (_dir, path) = temp();
    import_into(&path, log("siftr-1.2.4.log"), &options(None)).unwrap();
    let (text, written) = export_text(&path, &Selection::default()).unwrap();
    assert_eq!((text.as_str(), written), ("", Written { lines: 0, left_out: 2 }));
}

#[test]
fn flows_and_sessions_are_chosen() {
    let (_dir, path) = temp();
    record(&path, &[(1, [1; 8]), (2, [2; 8])]);
    record(&path, &[(1, [3; 8])]);
    let select = |flows: &[i64], session| export_text(&path, &Selection { flows: flows.to_vec(), session });
    assert!(matches!(select(&[], None), Err(Error::SeveralSessions { sessions, .. }) if sessions == [1, 2]));
    assert_eq!(select(&[], Some(1)).unwrap().1.lines, 2);
    assert_eq!(select(&[2], None).unwrap().1.lines, 1);
    assert_eq!(select(&[3], Some(2)).unwrap().1.lines, 1);
    assert!(matches!(select(&[3], Some(1)), Err(Error::NoFlow { flow: 3, session: Some(1), .. })));
    assert!(matches!(select(&[77], None), Err(Error::NoFlow { flow: 77, session: None, .. })));
    assert!(matches!(select(&[], Some(77)), Err(Error::NoSession { session: 77, .. })));
}
