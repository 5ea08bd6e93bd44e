//! From the bytes of a ring record to a sample or a flow: a pure function that knows no BPF.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tcpprobe_trace::fields::{Convert, FIELDS, Wire};
use tcpprobe_trace::internals::Internals;
use tcpprobe_trace::sample::{Family, Flow, Kind, Phase, Sample, Segment, State};

use crate::internals::Raw;
use crate::layout::{
    FLOW, INTERNALS, INTERNALS_WORDS, SAMPLE, SAMPLE_BYTES, STATE_OFFSETS, TYPE_FLOW, TYPE_INTERNALS, TYPE_SAMPLE, has,
    offset, size, width,
};

/// What the sampler says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A sample.
    Sample(Sample),
    /// What a flow is, or has become.
    Flow(Flow),
    /// What a flow's congestion control holds inside, at its last sample.
    Internals(Internals),
}

/// A ring record, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A sample.
    Sample(Sample),
    /// What a flow is, and the module that brings its congestion control.
    Flow(Flow, String),
    /// The private state of a congestion control, which takes BTF to be understood.
    Internals(Raw),
}

/// A ring record that is not one of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("record of {len} bytes: {what}")]
pub struct BadRecord {
    /// Its size.
    pub len: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// A scalar member, at an offset that the compiler computes.
macro_rules! get {
    ($record:expr, $list:expr, $name:literal) => {
        read($record, const { offset($list, $name) }, const { width($list, $name) })
    };
}

/// Decodes a record. `tick_ns` is the length of a jiffy.
pub(crate) fn decode(record: &[u8], tick_ns: u64) -> Result<Record, BadRecord> {
    let bad = |what| BadRecord { len: record.len(), what };
    match read(record, 0, 4) {
        Some(t) if t == u64::from(TYPE_SAMPLE) && record.len() >= SAMPLE_BYTES => {
            decode_sample(record, tick_ns).ok_or_else(|| bad("unknown kind or phase"))
        }
        Some(t) if t == u64::from(TYPE_FLOW) && record.len() >= size(FLOW) => decode_flow(record)
            .map(|(flow, owner)| Record::Flow(flow, owner))
            .ok_or_else(|| bad("unknown address family")),
        Some(t) if t == u64::from(TYPE_INTERNALS) && record.len() >= size(INTERNALS) => {
            decode_internals(record).ok_or_else(|| bad("a time out of range"))
        }
        _ => Err(bad("unknown type, or too short for it")),
    }
}

/// Is it a sample, as far as its type says?
pub(crate) fn is_sample(record: &[u8]) -> bool {
    read(record, 0, 4) == Some(u64::from(TYPE_SAMPLE))
}

/// When a record came to be, CLOCK_MONOTONIC; 0 where it does not say.
pub(crate) fn time_of(record: &[u8]) -> u64 {
    let time = match read(record, 0, 4).map(|t| t as u32) {
        Some(TYPE_SAMPLE) => get!(record, SAMPLE, "mono_ns"),
        Some(TYPE_FLOW) => get!(record, FLOW, "mono_ns"),
        Some(TYPE_INTERNALS) => get!(record, INTERNALS, "mono_ns"),
        _ => None,
    };
    time.unwrap_or(0)
}

/// The flow that a record tells of, and the module that brings its congestion control; `None` where it is another record.
pub(crate) fn flow_of(record: &[u8]) -> Option<(Flow, String)> {
    if read(record, 0, 4) != Some(u64::from(TYPE_FLOW)) {
        return None;
    }
    decode_flow(record)
}

/// Puts other addresses in the place of a flow record's; other records have none. IPv4 is handed over as IPv4.
pub(crate) fn map_addresses(record: &mut [u8], map: &mut impl FnMut(IpAddr) -> IpAddr) {
    if read(record, 0, 4) != Some(u64::from(TYPE_FLOW)) {
        return;
    }
    for at in [const { offset(FLOW, "local_addr") }, const { offset(FLOW, "remote_addr") }] {
        let Some(octets) = record.get_mut(at..).and_then(|r| r.first_chunk_mut::<16>()) else { return };
        *octets = match map(Ipv6Addr::from(*octets).to_canonical()) {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
    }
}

fn decode_sample(record: &[u8], tick_ns: u64) -> Option<Record> {
    let known = get!(record, SAMPLE, "has")? as u32;
    let segment = (known & has::SEGMENT != 0).then_some(Segment {
        seq: get!(record, SAMPLE, "seq")? as u32,
        len: get!(record, SAMPLE, "len")? as u32,
        ack: get!(record, SAMPLE, "ack")? as u32,
        flags: get!(record, SAMPLE, "flags")? as u16,
        tsval: if known & has::TSVAL != 0 { Some(get!(record, SAMPLE, "tsval")? as u32) } else { None },
        ip_id: if known & has::IP_ID != 0 { Some(get!(record, SAMPLE, "ip_id")? as u16) } else { None },
    });
    let present = get!(record, SAMPLE, "present")?;
    let mut state = State::default();
    for (i, field) in FIELDS.iter().enumerate() {
        if present >> i & 1 == 1 {
            let value = read(record, STATE_OFFSETS[i], field.wire.size_bytes())?;
            state.set(i, convert(value, field.wire, field.convert, tick_ns));
        }
    }
    Some(Record::Sample(Sample {
        flow: get!(record, SAMPLE, "flow")?,
        serial: get!(record, SAMPLE, "serial")?,
        mono_ns: i64::try_from(get!(record, SAMPLE, "mono_ns")?).ok()?,
        kind: Kind::from_code(get!(record, SAMPLE, "kind")? as u8)?,
        phase: Phase::from_code(get!(record, SAMPLE, "phase")? as u8)?,
        segment,
        unseen_before: known & has::UNSEEN != 0,
        refused_before: get!(record, SAMPLE, "refused")? as u16,
        // the tracepoint hands over a negative errno
        error: -i32::from(get!(record, SAMPLE, "error")? as u16 as i16),
        state,
    }))
}

fn convert(value: u64, wire: Wire, how: Convert, tick_ns: u64) -> Option<i64> {
    let value = match how {
        Convert::Plain => value,
        Convert::ShiftRight(bits) => value >> bits,
        Convert::JiffiesToUs => value.saturating_mul(tick_ns) / 1000,
        Convert::MaxU32IsNull if value == u64::from(u32::MAX) => return None,
        Convert::UnlimitedIsNull if value == u64::MAX || value == u64::from(u32::MAX) => return None,
        Convert::MaxU32IsNull | Convert::UnlimitedIsNull => value,
    };
    debug_assert!(wire != Wire::U8 || value <= 255);
    // nothing that the kernel counts reaches 2^63; what does is no count
    i64::try_from(value).ok()
}

fn decode_internals(record: &[u8]) -> Option<Record> {
    let at = offset(INTERNALS, "words");
    let mut words = [0; INTERNALS_WORDS];
    for (i, word) in words.iter_mut().enumerate() {
        *word = read(record, at + 8 * i, 8)?;
    }
    Some(Record::Internals(Raw {
        flow: get!(record, INTERNALS, "flow")?,
        serial: get!(record, INTERNALS, "serial")?,
        mono_ns: i64::try_from(get!(record, INTERNALS, "mono_ns")?).ok()?,
        jiffies: get!(record, INTERNALS, "jiffies")? as u32,
        mss: get!(record, INTERNALS, "mss")? as u32,
        congestion: get!(record, INTERNALS, "congestion")? as usize,
        words,
    }))
}

fn decode_flow(record: &[u8]) -> Option<(Flow, String)> {
    let address = |name| {
        let at = offset(FLOW, name);
        let octets: [u8; 16] = record.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
    };
    let family = match get!(record, FLOW, "family")? {
        2 => Family::Inet,
        10 => Family::Inet6,
        _ => return None,
    };
    let text = |name, bytes| {
        let at = offset(FLOW, name);
        let until_nul: Vec<u8> = record.get(at..at + bytes)?.iter().copied().take_while(|&b| b != 0).collect();
        Some(String::from_utf8_lossy(&until_nul).into_owned())
    };
    let congestion = text("congestion", 16)?;
    // TCP_SYN_SENT (2), TCP_SYN_RECV (3): window scaling is still being negotiated
    let negotiated = !matches!(get!(record, FLOW, "state")?, 2 | 3);
    let scaling = get!(record, FLOW, "wscale_ok")? == 1;
    let scale = |shift: u64| negotiated.then_some(if scaling { shift as u8 } else { 0 });
    let flow = Flow {
        key: get!(record, FLOW, "flow")?,
        mono_ns: i64::try_from(get!(record, FLOW, "mono_ns")?).ok()?,
        local: SocketAddr::new(address("local_addr")?, get!(record, FLOW, "local_port")? as u16),
        remote: SocketAddr::new(address("remote_addr")?, get!(record, FLOW, "remote_port")? as u16),
        family,
        netns: get!(record, FLOW, "netns")? as u32,
        cookie: get!(record, FLOW, "cookie").filter(|&c| c != 0),
        congestion: (!congestion.is_empty()).then_some(congestion),
        snd_wscale: scale(get!(record, FLOW, "snd_wscale")?),
        rcv_wscale: scale(get!(record, FLOW, "rcv_wscale")?),
    };
    Some((flow, text("owner", 56)?))
}

fn read(record: &[u8], at: usize, size_bytes: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.get_mut(..size_bytes)?.copy_from_slice(record.get(at..at + size_bytes)?);
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Member;
    use tcpprobe_trace::fields::index;

    fn put(record: &mut [u8], list: &[Member], name: &str, value: u64) {
        let m = list.iter().find(|m| m.name == name).unwrap();
        let at = offset(list, name);
        record[at..at + m.size_bytes].copy_from_slice(&value.to_le_bytes()[..m.size_bytes]);
    }

    fn put_field(record: &mut [u8], name: &str, value: u64) {
        let i = FIELDS.iter().position(|f| f.name == name).unwrap();
        let size = FIELDS[i].wire.size_bytes();
        record[STATE_OFFSETS[i]..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    fn sample_record() -> Vec<u8> {
        let mut r = vec![0; SAMPLE_BYTES];
        put(&mut r, SAMPLE, "type", u64::from(TYPE_SAMPLE));
        put(&mut r, SAMPLE, "flow", 7);
        put(&mut r, SAMPLE, "serial", 41);
        put(&mut r, SAMPLE, "kind", 1);
        put(&mut r, SAMPLE, "phase", 2);
        put(&mut r, SAMPLE, "present", u64::MAX);
        r
    }

    fn state_of(record: &[u8], tick_ns: u64) -> State {
        match decode(record, tick_ns).unwrap() {
            Record::Sample(s) => s.state,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn units_are_natural() {
        let mut r = sample_record();
        put_field(&mut r, "srtt_us", 20_000 << 3);
        put_field(&mut r, "mdev_us", 500 << 2);
        put_field(&mut r, "rttvar_us", 700 << 2);
        put_field(&mut r, "snd_cwnd", 10);
        put_field(&mut r, "rto_us", 51);
        let s = state_of(&r, 4_000_000);
        assert_eq!(s.get(index("srtt_us")), Some(20_000));
        assert_eq!(s.get(index("mdev_us")), Some(500));
        assert_eq!(s.get(index("rttvar_us")), Some(700));
        assert_eq!(s.get(index("snd_cwnd")), Some(10), "packets");
        assert_eq!(s.get(index("rto_us")), Some(204_000), "51 jiffies of 4 ms");
    }

    #[test]
    fn a_tick_that_is_no_whole_number_of_microseconds() {
        let mut r = sample_record();
        put_field(&mut r, "rto_us", 60);
        assert_eq!(state_of(&r, 3_333_333).get(index("rto_us")), Some(199_999));
    }

    #[test]
    fn what_the_kernel_lacks_is_null_and_not_zero() {
        let mut r = sample_record();
        put(&mut r, SAMPLE, "present", !(1 << index("delivered")));
        let s = state_of(&r, 1_000_000);
        assert_eq!(s.get(index("delivered")), None);
        assert_eq!(s.get(index("lost")), Some(0));
    }

    #[test]
    fn no_measurement_and_no_limit_are_null() {
        let mut r = sample_record();
        put_field(&mut r, "min_rtt_us", u64::from(u32::MAX));
        put_field(&mut r, "pacing_rate", u64::MAX);
        put_field(&mut r, "snd_ssthresh", 0x7fff_ffff);
        let s = state_of(&r, 1_000_000);
        assert_eq!(s.get(index("min_rtt_us")), None);
        assert_eq!(s.get(index("pacing_rate")), None);
        assert_eq!(s.get(index("snd_ssthresh")), Some(0x7fff_ffff), "the kernel's own infinity");
        put_field(&mut r, "pacing_rate", u64::from(u32::MAX));
        assert_eq!(state_of(&r, 1_000_000).get(index("pacing_rate")), None, "32 bits before Linux 4.20");
    }

    #[test]
    fn a_segment_without_timestamps() {
        let mut r = sample_record();
        put(&mut r, SAMPLE, "has", u64::from(has::SEGMENT));
        put(&mut r, SAMPLE, "seq", 0xffff_fff0);
        put(&mut r, SAMPLE, "len", 1448);
        let Ok(Record::Sample(s)) = decode(&r, 1) else { panic!("no sample") };
        assert_eq!(
            s.segment,
            Some(Segment { seq: 0xffff_fff0, len: 1448, ack: 0, flags: 0, tsval: None, ip_id: None })
        );
        assert_eq!((s.flow, s.serial, s.kind, s.phase), (7, 41, Kind::Send, Phase::Transmit));
    }

    #[test]
    fn errors_are_positive_and_refusals_are_counted() {
        let mut r = sample_record();
        put(&mut r, SAMPLE, "error", (-16_i64) as u64);
        put(&mut r, SAMPLE, "refused", 65_535);
        let Ok(Record::Sample(s)) = decode(&r, 1) else { panic!("no sample") };
        assert_eq!((s.error, s.refused_before), (16, 65_535));
    }

    #[test]
    fn records_that_are_not_ours_are_refused() {
        assert!(decode(&[], 1).is_err());
        assert!(decode(&sample_record()[..SAMPLE_BYTES - 1], 1).is_err());
        let mut r = sample_record();
        put(&mut r, SAMPLE, "kind", 9);
        assert_eq!(decode(&r, 1).unwrap_err().what, "unknown kind or phase");
        put(&mut r, SAMPLE, "type", 77);
        assert!(decode(&r, 1).is_err());
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mut r = vec![0; size(FLOW)];
        put(&mut r, FLOW, "type", u64::from(TYPE_FLOW));
        put(&mut r, FLOW, "family", 10);
        put(&mut r, FLOW, "local_port", 443);
        let at = offset(FLOW, "local_addr");
        r[at..at + 16].copy_from_slice(&"::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets());
        let Ok(Record::Flow(f, _)) = decode(&r, 1) else { panic!("no flow") };
        assert_eq!(f.local.to_string(), "192.0.2.1:443");
        assert_eq!(f.family, Family::Inet6);
    }

    #[test]
    fn window_scales_are_known_once_negotiated() {
        let mut r = vec![0; size(FLOW)];
        put(&mut r, FLOW, "type", u64::from(TYPE_FLOW));
        put(&mut r, FLOW, "family", 2);
        put(&mut r, FLOW, "snd_wscale", 9);
        let mut scale = |state, wscale_ok| {
            put(&mut r, FLOW, "state", state);
            put(&mut r, FLOW, "wscale_ok", wscale_ok);
            match decode(&r, 1) {
                Ok(Record::Flow(f, _)) => f.snd_wscale,
                _ => panic!("no flow"),
            }
        };
        assert_eq!(scale(1, 1), Some(9));
        assert_eq!(scale(1, 0), Some(0), "the peer does not scale");
        assert_eq!(scale(2, 1), None, "not yet negotiated in SYN_SENT");
    }
}
