use super::*;
use crate::btf::testing::Writer;

const TICK_NS: u64 = 4_000_000;

fn raw(congestion: &str, words: &[u64]) -> Raw {
    let mut all = [0; INTERNALS_WORDS];
    all[..words.len()].copy_from_slice(words);
    Raw {
        flow: 7,
        serial: 41,
        mono_ns: 100_000_000_000,
        jiffies: 1_000_250,
        mss: 1448,
        congestion: KNOWN.iter().position(|k| k.name == congestion).unwrap(),
        words: all,
    }
}

/// What a layout makes of a record that is the first one.
fn decode(layout: &Layout, raw: &Raw) -> Internals {
    let mut clock = JiffyClock::new(TICK_NS);
    clock.read(raw.jiffies, raw.mono_ns);
    layout.decode(raw, &clock)
}

/// The layout that a kernel has which keeps such a structure.
fn layout(congestion: &str, size_bytes: u32, members: &[(&str, u32, u32)]) -> Option<Layout> {
    let known = KNOWN.iter().find(|k| k.name == congestion).unwrap();
    let mut w = Writer::kernel();
    let int = w.int("unsigned int", 32);
    let long = w.int("unsigned long", 64);
    let members: Vec<(&str, u32, u32, u32)> = members
        .iter()
        .map(|&(name, offset_bits, bits)| match bits {
            32 => (name, int, offset_bits, 0),
            64 => (name, long, offset_bits, 0),
            bits => (name, int, offset_bits, bits),
        })
        .collect();
    w.structure(known.structure, size_bytes, &members);
    let blob = w.blob();
    Layout::find(known, &Types::read(&blob, None).unwrap())
}

fn value(internals: &Internals, column: &str) -> Option<Value> {
    internals.values[INTERNALS.iter().position(|i| i.name == column).unwrap()]
}

#[test]
fn every_column_has_one_source_and_every_congestion_control_a_structure() {
    for (at, column) in INTERNALS.iter().enumerate() {
        assert_eq!(SOURCES.iter().filter(|s| s.column == at).count(), 1, "{}", column.name);
        assert!(KNOWN.iter().any(|k| k.name == column.congestion), "{}", column.congestion);
    }
}

#[test]
fn names_are_those_of_the_kernel_s_structure() {
    let bytes: Vec<u8> = names().iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(&bytes[..16], b"cubic\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(&bytes[16..32], b"bbr\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bytes[48..], [0; 16], "a place that is not used");
}

#[test]
fn cubic_in_natural_units() {
    let members = [("last_max_cwnd", 0, 32), ("bic_K", 32, 32), ("epoch_start", 64, 32), ("curr_rtt", 96, 32)];
    let cubic = layout("cubic", 16, &members).unwrap();
    // K = 2.5 s, an epoch that began 250 ticks of 4 ms ago
    let words = [87 | 2560 << 32, 1_000_000 | 31_000 << 32];
    let got = decode(&cubic, &raw("cubic", &words));
    assert_eq!((got.flow, got.serial), (7, 41));
    assert_eq!(value(&got, "cubic_last_max_cwnd"), Some(Value::Integer(87)));
    assert_eq!(value(&got, "cubic_k_us"), Some(Value::Integer(2_500_000)));
    assert_eq!(value(&got, "cubic_epoch_start_ns"), Some(Value::MonoNs(99_000_000_000)));
    assert_eq!(value(&got, "cubic_hystart_curr_rtt_us"), Some(Value::Integer(31_000)));
    let before = decode(&cubic, &raw("cubic", &[0, u64::from(u32::MAX) << 32]));
    assert_eq!(value(&before, "cubic_epoch_start_ns"), None, "no epoch");
    assert_eq!(value(&before, "cubic_hystart_curr_rtt_us"), None, "nothing measured");
}

#[test]
fn an_epoch_across_the_turn_of_the_jiffies() {
    let cubic = layout("cubic", 4, &[("epoch_start", 0, 32)]).unwrap();
    let turned = Raw { jiffies: 10, ..raw("cubic", &[u64::from(u32::MAX) - 39]) };
    assert_eq!(value(&decode(&cubic, &turned), "cubic_epoch_start_ns"), Some(Value::MonoNs(99_800_000_000)));
}

#[test]
fn a_time_has_one_value_however_often_it_is_read() {
    let tick_ns = TICK_NS as i64;
    let mut clock = JiffyClock::new(TICK_NS);
    // jiffy 1000 began at 50 ms; readings come at any time within their jiffy
    for (jiffies, into_ns) in [(1000, 3_000_000), (1003, 100_000), (1010, 3_999_999)] {
        clock.read(jiffies, 50_000_000 + i64::from(jiffies - 1000) * tick_ns + into_ns);
    }
    let known = clock.began_ns(990);
    assert!((0..=100_000).contains(&(known - 10_000_000)), "{known}");
    clock.read(1020, 50_000_000 + 20 * tick_ns + 2_000_000);
    assert_eq!(clock.began_ns(990), known);
}

#[test]
fn bbr_by_its_bit_fields() {
    let members = [("mode", 0, 3), ("pacing_gain", 3, 10), ("cwnd_gain", 13, 10), ("cycle_idx", 23, 3)];
    let bbr = layout("bbr", 8, &members).unwrap();
    let got = decode(&bbr, &raw("bbr", &[2 | 320 << 3 | 512 << 13 | 5 << 23]));
    assert_eq!(value(&got, "bbr_mode"), Some(Value::Integer(2)));
    assert_eq!(value(&got, "bbr_pacing_gain"), Some(Value::Real(1.25)));
    assert_eq!(value(&got, "bbr_cwnd_gain"), Some(Value::Real(2.0)));
    assert_eq!(value(&got, "bbr_cycle_idx"), Some(Value::Integer(5)));
    let unknown_mode = decode(&bbr, &raw("bbr", &[6]));
    assert_eq!(value(&unknown_mode, "bbr_mode"), None, "a mode that BBR does not have");
}

#[test]
fn bbr_s_bandwidth_is_the_one_in_use() {
    let mut w = Writer::kernel();
    let int = w.int("unsigned int", 32);
    let sample = w.structure("minmax_sample", 8, &[("t", int, 0, 0), ("v", int, 32, 0)]);
    let samples = w.array(sample, 3);
    let minmax = w.structure("minmax", 24, &[("s", samples, 0, 0)]);
    w.structure("bbr", 32, &[("bw", minmax, 0, 0), ("lt_bw", int, 192, 0), ("lt_use_bw", int, 224, 1)]);
    let blob = w.blob();
    let known = KNOWN.iter().find(|k| k.name == "bbr").unwrap();
    let bbr = Layout::find(known, &Types::read(&blob, None).unwrap()).unwrap();
    // 1/1000 and 1/2000 packets of 1448 bytes per µs
    let (maximum, long_term) = ((1 << 24) / 1000, (1 << 24) / 2000);
    for (used, expected) in [(0, 1_448_000), (1, 724_000)] {
        let got = decode(&bbr, &raw("bbr", &[maximum << 32, 0, 0, long_term | used << 32]));
        let Some(Value::Integer(bytes_per_s)) = value(&got, "bbr_bw_bytes_per_s") else { panic!("no bandwidth") };
        assert!((bytes_per_s - expected).abs() <= expected / 1000, "{bytes_per_s} for {expected}");
    }
}

#[test]
fn dctcp_s_alpha_is_a_fraction() {
    let dctcp = layout("dctcp", 8, &[("dctcp_alpha", 0, 32), ("ce_state", 32, 32)]).unwrap();
    let got = decode(&dctcp, &raw("dctcp", &[256 | 1 << 32]));
    assert_eq!(value(&got, "dctcp_alpha"), Some(Value::Real(0.25)));
    assert_eq!(value(&got, "dctcp_ce_state"), Some(Value::Integer(1)));
}

#[test]
fn a_layout_that_is_not_known_gives_nothing_and_one_that_lacks_members_gives_null() {
    // another structure of the same congestion control: none of its members is one of ours
    assert_eq!(layout("bbr", 8, &[("phase", 0, 32), ("inflight_hi", 32, 32)]), None);
    let partly = layout("bbr", 24, &[("mode", 64, 3), ("bw_hi", 0, 32), ("lt_bw", 128, 32)]).unwrap();
    let got = decode(&partly, &raw("bbr", &[u64::MAX, 1, u64::MAX]));
    assert_eq!(value(&got, "bbr_mode"), Some(Value::Integer(1)));
    let others = INTERNALS.iter().filter(|i| i.name != "bbr_mode" && value(&got, i.name).is_some());
    assert_eq!(others.map(|i| i.name).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn what_lies_beyond_the_words_that_are_read_is_null() {
    let beyond = INTERNALS_WORDS as u32 * 64;
    let cubic = layout("cubic", 200, &[("last_max_cwnd", 0, 32), ("tcp_cwnd", beyond, 32), ("bic_K", 48, 32)]).unwrap();
    let got = decode(&cubic, &raw("cubic", &[u64::MAX; 3]));
    assert_eq!(value(&got, "cubic_tcp_cwnd"), None);
    assert_eq!(value(&got, "cubic_k_us"), None, "across two words: no compiler puts it there");
    assert_eq!(value(&got, "cubic_last_max_cwnd"), Some(Value::Integer(i64::from(u32::MAX))));
}

#[test]
fn the_mask_has_the_bits_that_are_decoded_and_no_others() {
    let bbr = layout("bbr", 16, &[("min_rtt_stamp", 0, 32), ("mode", 32, 3), ("prior_cwnd", 96, 32)]).unwrap();
    let mask = bbr.mask();
    assert_eq!(mask[..2], [0b111 << 32, 0xffff_ffff << 32]);
    assert!(mask[2..].iter().all(|&w| w == 0));
}

#[test]
fn a_module_without_types_of_its_own_is_left_alone() {
    let mut w = Writer::kernel();
    let int = w.int("unsigned int", 32);
    w.structure("bbr", 8, &[("prior_cwnd", int, 0, 0)]);
    let kernel = w.blob();
    let known = KNOWN.iter().find(|k| k.name == "bbr").unwrap();
    assert!(read_layout(known, &kernel, "").is_some(), "built in");
    assert!(read_layout(known, &kernel, "tcp_of_someone_else").is_none(), "the kernel's structure is not its");
    assert!(read_layout(known, &kernel, "../../../etc").is_none());
}
