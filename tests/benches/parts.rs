//! How fast the parts are, each by itself, on a recording of 50 flows that this makes: `cargo bench -p tcpprobe-tests`.
//!
//! scripts/compare.py has the whole beside its peers.

#![expect(clippy::unwrap_used, reason = "a benchmark may fail like a test")]

use std::path::PathBuf;
use std::sync::LazyLock;

use divan::Bencher;
use divan::counter::ItemsCount;
use tcpprobe_fixtures::bulk::{Bulk, write};
use tcpprobe_probes::synthetic::push_sample;
use tcpprobe_probes::{Decoder, Records};
use tcpprobe_replay::capture::{Capture, read_tcp};
use tcpprobe_replay::join::{Batching, Joined, join, join_in_parts};
use tcpprobe_trace::fields::FIELDS;
use tcpprobe_trace::join::JoinWriter;
use tcpprobe_trace::reader::TraceReader;
use tcpprobe_trace::sample::{Kind, Phase, Sample, Segment, State};
use tempfile::TempDir;

const PACKETS: u64 = 100_000;
const BULK: Bulk = Bulk { packets: PACKETS, flows: 50, packets_a_flow: None, loss_every: 5_000, window: 40 };

static RECORDING: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    write(&BULK, folder.path()).unwrap();
    folder
});
static JOINED: LazyLock<Joined> = LazyLock::new(|| join(&trace(), &capture(), Batching::default()).unwrap());

fn trace() -> PathBuf {
    RECORDING.path().join("trace.db")
}

fn capture() -> PathBuf {
    RECORDING.path().join("trace.pcap")
}

fn main() {
    LazyLock::force(&JOINED);
    divan::main();
}

/// Frames of a capture file, no more than their records.
#[divan::bench]
fn read_frames(bencher: Bencher) {
    bencher.counter(ItemsCount::new(PACKETS)).bench(|| {
        let mut capture = Capture::open(&capture()).unwrap();
        while capture.next_frame().unwrap().is_some() {}
        capture.summary()
    });
}

/// As above, and their headers.
#[divan::bench]
fn decode_packets(bencher: Bencher) {
    bencher.counter(ItemsCount::new(PACKETS)).bench(|| read_tcp(&capture()).unwrap());
}

/// The samples of all flows out of the trace.
#[divan::bench]
fn read_samples(bencher: Bencher) {
    bencher.counter(ItemsCount::new(PACKETS)).bench(|| {
        let reader = TraceReader::open(&trace()).unwrap();
        let flows = reader.flows().unwrap();
        flows.iter().map(|f| reader.samples(f.id).unwrap().len()).sum::<usize>()
    });
}

/// All of the join but the store, on one thread.
#[divan::bench]
fn match_and_rebuild(bencher: Bencher) {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    bencher
        .counter(ItemsCount::new(PACKETS))
        .bench(|| one.install(|| join_in_parts(&trace(), &capture(), Batching::default(), |_| Ok(())).unwrap()));
}

/// The rows of a join into the trace.
#[divan::bench]
fn store_rows(bencher: Bencher) {
    let copy = || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(trace(), folder.path().join("trace.db")).unwrap();
        folder
    };
    bencher.counter(ItemsCount::new(PACKETS)).with_inputs(copy).bench_local_values(|folder| {
        let mut writer = JoinWriter::begin(&folder.path().join("trace.db"), false).unwrap();
        writer.write(&JOINED.capture, JOINED.packets.iter().copied()).unwrap();
        writer.commit().unwrap();
        folder
    });
}

/// Records of the ring, as the programs write them, to samples.
#[divan::bench]
fn decode_ring(bencher: Bencher) {
    let mut records = Records::default();
    let mut state = State::default();
    (0..FIELDS.len()).for_each(|field| state.set(field, Some(field as i64 * 4)));
    for serial in 1..=PACKETS {
        let segment = Segment { seq: serial as u32, len: 1448, ack: 1, flags: 0x10, tsval: Some(7), ip_id: Some(9) };
        let sample = Sample {
            flow: serial % 50 + 1,
            serial,
            mono_ns: serial as i64 * 1_000,
            kind: Kind::Send,
            phase: Phase::Transmit,
            segment: Some(segment),
            unseen_before: false,
            refused_before: 0,
            error: 0,
            state,
        };
        push_sample(&mut records, &sample);
    }
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
        let mut decoder = Decoder::of_synthetic();
        let decoded = decoder.events(&records).map(divan::black_box).count();
        assert_eq!(decoded as u64, PACKETS);
    });
}

/// A recording's samples into a new trace, and the frames of its capture into a file.
#[divan::bench]
fn write_recording(bencher: Bencher) {
    let folder = || tempfile::tempdir().unwrap();
    bencher.counter(ItemsCount::new(PACKETS)).with_inputs(folder).bench_local_values(|folder| {
        write(&BULK, folder.path()).unwrap();
        folder
    });
}
