//! Readers of bytes, called as the commands call them.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use tcpprobe_fuzz::run::Target;
use tcpprobe_probes::synthetic::{push_flow, push_sample};
use tcpprobe_probes::{Decoder, Event, Records};
use tcpprobe_replay::capture::{Capture, TcpPackets};
use tcpprobe_replay::import::{Options, import};
use tcpprobe_replay::packet::{LinkType, decode};
use tcpprobe_trace::import::ImportWriter;
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, Segment, State};

use crate::seeds;

const MIB: usize = 1 << 20;

/// gzip and Zstandard: what they unpack to is not bounded by the file, but by the longest record and the window.
fn is_packed(input: &[u8]) -> bool {
    input.starts_with(&[0x1f, 0x8b]) || input.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// A capture file, to its end or its first error.
pub(crate) fn capture() -> Result<Target> {
    let mut seeds = seeds::captures()?;
    seeds.extend(seeds::joined()?.into_iter().map(|(_, capture)| capture));
    Ok(Target {
        name: "capture",
        block_bytes: 4,
        seeds,
        read: Box::new(read_capture),
        most_bytes: |input| if is_packed(input) { 160 * MIB } else { 4 * input.len() + 2 * MIB },
    })
}

fn read_capture(input: &[u8]) -> Result<(), String> {
    let reader: Box<dyn Read + Send> = Box::new(std::io::Cursor::new(input.to_vec()));
    let mut capture = match Capture::from_reader(reader, Path::new("fuzzed")) {
        Ok(capture) => TcpPackets::new(capture),
        Err(e) => return says_where(&e.to_string()),
    };
    let mut count: u64 = 0;
    for packet in capture.by_ref() {
        match packet {
            Ok(_) => count += 1,
            Err(e) => {
                let said = e.to_string();
                // only a record or block is at a place; a stream that cannot be unpacked is not
                if !is_packed(input) && !said.contains("at byte") {
                    return Err(format!("an error that does not say where: {said}"));
                }
                says_where(&said)?;
                break;
            }
        }
    }
    let summary = capture.summary();
    let known = summary.tcp_packets + summary.not_tcp + summary.skipped.values().sum::<u64>();
    if summary.tcp_packets != count || summary.capture.packets != known {
        return Err(format!("{count} packets, but {summary:?}"));
    }
    Ok(())
}

fn says_where(error: &str) -> Result<(), String> {
    if error.contains("fuzzed") { Ok(()) } else { Err(format!("an error without the file: {error}")) }
}

/// A frame behind the number of its link type and its length on the wire.
pub(crate) fn frame() -> Result<Target> {
    let mut frames = Vec::new();
    for bytes in seeds::captures()?.into_iter().chain(seeds::joined()?.into_iter().map(|(_, capture)| capture)) {
        let mut capture = Capture::from_reader(Box::new(std::io::Cursor::new(bytes)), Path::new("seed"))?;
        while let Some(frame) = capture.next_frame()?.filter(|f| f.number <= 30) {
            frames.push([&frame.link.0.to_le_bytes()[..], &frame.orig_len.to_le_bytes(), frame.data].concat());
        }
    }
    Ok(Target { name: "frame", block_bytes: 20, seeds: frames, read: Box::new(read_frame), most_bytes: |_| 4096 })
}

fn read_frame(input: &[u8]) -> Result<(), String> {
    let Some((link, rest)) = input.split_first_chunk() else { return Ok(()) };
    let Some((orig_len, data)) = rest.split_first_chunk() else { return Ok(()) };
    // every other one as a link type that is read, whatever the number says
    let link = u32::from_le_bytes(*link);
    let known = LinkType::SUPPORTED[link as usize % LinkType::SUPPORTED.len()];
    for link in [LinkType(link), known] {
        decode(link, data, u32::from_le_bytes(*orig_len));
    }
    Ok(())
}

/// A log of another program, into a trace that stays as it is.
pub(crate) fn log() -> Result<Target> {
    let folder = seeds::folder()?;
    ImportWriter::begin(&folder.path().join("trace.db"))?.commit()?;
    Ok(Target {
        name: "log",
        block_bytes: 64,
        seeds: seeds::logs()?,
        read: Box::new(move |input| read_log(input, &folder.path().join("trace.db"))),
        // what SQLite takes is its own; a line makes no more than a sample, of less than a kilobyte, and a flow
        most_bytes: |input| 64 * input.len() + 8 * MIB,
    })
}

fn read_log(input: &[u8], trace: &Path) -> Result<(), String> {
    // dropped without commit: nothing stays
    let mut into = ImportWriter::begin(trace).map_err(|e| format!("no trace: {e}"))?;
    let options = Options { name: "fuzzed".into(), ..Options::default() };
    match import(input, &options, &mut into, &AtomicBool::new(false)) {
        Ok(report) => {
            let refused: u64 = report.refused.values().map(|(count, _)| count).sum();
            if report.samples + refused > report.lines {
                return Err(format!("more than its lines: {report:?}"));
            }
            Ok(())
        }
        Err(e) => says_where(&e.to_string()),
    }
}

/// Two flows, and a sample of each kind with all of its fields.
pub(crate) fn records() -> Result<Records> {
    let mut records = Records::default();
    for (family, local) in [(Family::Inet, "192.0.2.1:443"), (Family::Inet6, "[2001:db8::1]:443")] {
        push_flow(
            &mut records,
            &Flow {
                key: 7,
                mono_ns: 5,
                local: local.parse()?,
                remote: local.parse()?,
                family,
                netns: 4,
                cookie: Some(9),
                congestion: Some("cubic".into()),
                snd_wscale: Some(7),
                rcv_wscale: Some(8),
            },
        );
    }
    let mut state = State::default();
    for field in 0..tcpprobe_trace::fields::FIELDS.len() {
        state.set(field, Some(1000));
    }
    for kind in [Kind::Ack, Kind::Send, Kind::Retransmit, Kind::State] {
        let segment = Segment { seq: 1, len: 2, ack: 3, flags: 0x18, tsval: Some(4), ip_id: Some(5) };
        push_sample(
            &mut records,
            &Sample {
                flow: 7,
                serial: 41,
                mono_ns: 1_000,
                kind,
                phase: Phase::Transmit,
                segment: Some(segment),
                unseen_before: true,
                refused_before: 2,
                error: 11,
                state,
            },
        );
    }
    Ok(records)
}

/// What a ring buffer holds, as it is kept in a backlog.
pub(crate) fn record() -> Result<Target> {
    Ok(Target {
        name: "record",
        block_bytes: 64,
        seeds: vec![records()?.into_bytes()],
        read: Box::new(read_records),
        most_bytes: |input| 4 * input.len() + MIB,
    })
}

fn read_records(input: &[u8]) -> Result<(), String> {
    let records = Records::from_bytes(input.to_vec());
    let samples = records.samples();
    let mut decoder = Decoder::of_synthetic();
    let found = decoder.events(&records).filter(|e| matches!(e, Event::Sample(_))).count() as u64;
    if found > samples || samples - found > decoder.bad_records() {
        return Err(format!("{samples} samples, {found} decoded, {} bad records", decoder.bad_records()));
    }
    Ok(())
}
