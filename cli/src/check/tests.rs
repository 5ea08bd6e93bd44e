//! Wording and decisions of `check`, from facts that a test makes up.

use std::collections::BTreeSet;

use serde_json::Value;
use tcpprobe_probes::check::Facts;
use tcpprobe_probes::{Backend, Point, SurveyedPoint, Trials};

use super::*;

/// A kernel with one way that is refused, for a user with these obstacles.
fn found(obstacles: Vec<Obstacle>) -> Found {
    let way = |trial| Trials { backend: Some(Backend::Kprobe), programs: vec!["kprobe/f".into()], trial };
    let refused = tcpprobe_probes::Trial::Refused("no kprobes".into());
    let points = vec![SurveyedPoint { point: Point::Transmit, ways: vec![way(refused)] }];
    let verdict = match obstacles.is_empty() {
        true => Verdict::Possible { unwatched: vec![] },
        false => Verdict::Impossible { obstacles },
    };
    let survey = Survey { facts: Facts::default(), ring_buffer: None, points, verdict };
    Found { survey, libpcap: None, capture: Ok(()), binary: "/opt/tcpprobe".into() }
}

fn text(found: &Found) -> String {
    let mut out = Vec::new();
    text::print(found, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Every key of an object and of what is in it.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| {
            into.insert(key.clone());
            keys(inner, into);
        }),
        Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

#[test]
fn the_documented_keys_are_those_that_are_printed() {
    let report = found(vec![Obstacle::NoBtf]);
    let mut printed = BTreeSet::new();
    keys(&serde_json::to_value(json::report(&report)).unwrap(), &mut printed);
    let docs = include_str!("../../../docs/check.md");
    // the last but one column of each row names keys
    let rows = docs.lines().filter(|l| l.starts_with("| "));
    let cells = rows.filter_map(|l| l.trim_matches('|').rsplit('|').nth(1).map(str::to_owned));
    let documented: BTreeSet<String> =
        cells.flat_map(|c| c.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect();
    assert_eq!(documented, printed);
}

#[test]
fn a_user_without_capabilities_gets_the_command_that_grants_them() {
    let text = text(&found(vec![Obstacle::MissingCapabilities(vec!["CAP_PERFMON"])]));
    assert!(text.contains("recording is not possible\n  this user lacks CAP_PERFMON"), "{text}");
    assert!(text.contains("sudo setcap cap_bpf,cap_perfmon,cap_net_raw+ep /opt/tcpprobe"), "{text}");
}

#[test]
fn low_memlock_is_told_with_its_size_and_both_ways_out() {
    let text = text(&found(vec![Obstacle::Memlock(65_536)]));
    assert!(text.contains("65536 bytes") && text.contains("ulimit -l unlimited"), "{text}");
    assert!(text.contains("cap_sys_resource"), "{text}");
}

#[test]
fn without_packets_recording_is_possible_in_part() {
    let full = found(vec![]);
    assert_eq!(full.verdict(), "full");
    let partial = Found { capture: Err("no".into()), ..found(vec![]) };
    assert_eq!(partial.verdict(), "partial");
    assert!(text(&partial).contains("--no-pcap"));
}

#[test]
fn a_program_that_several_ways_share_is_named_once() {
    let mut report = found(vec![]);
    let ways = report.survey.points[0].ways.clone();
    report.survey.points[0].ways.extend(ways);
    assert!(text(&report).contains("no kprobes:\n  kprobe/f\n"), "{}", text(&report));
}
