//! Records that no kernel wrote, for tests and benchmarks of what comes behind the ring.

use std::net::IpAddr;

use tcpprobe_trace::fields::{Convert, FIELDS};
use tcpprobe_trace::sample::{Family, Flow, Sample};

use crate::context;
use crate::internals::Layouts;
use crate::layout::{
    FLOW, Member, SAMPLE, SAMPLE_BYTES, STATE_OFFSETS, TYPE_FLOW, TYPE_SAMPLE, has, offset, size, width,
};
use crate::records::Records;

/// Length of a jiffy in these records; times that the kernel keeps in jiffies are rounded down to it.
pub const TICK_NS: u64 = 4_000_000;

/// What it takes to decode these records elsewhere.
pub fn context() -> Vec<u8> {
    context::keep(&Layouts::none(TICK_NS), TICK_NS)
}

/// Adds the record of a sample.
pub fn push_sample(records: &mut Records, sample: &Sample) {
    let mut record = [0; SAMPLE_BYTES];
    let mut known = if sample.unseen_before { has::UNSEEN } else { 0 };
    if let Some(segment) = sample.segment {
        known |= has::SEGMENT;
        put(&mut record, SAMPLE, "seq", segment.seq.into());
        put(&mut record, SAMPLE, "len", segment.len.into());
        put(&mut record, SAMPLE, "ack", segment.ack.into());
        put(&mut record, SAMPLE, "flags", segment.flags.into());
        known |= segment.tsval.map_or(0, |_| has::TSVAL) | segment.ip_id.map_or(0, |_| has::IP_ID);
        put(&mut record, SAMPLE, "tsval", segment.tsval.unwrap_or(0).into());
        put(&mut record, SAMPLE, "ip_id", segment.ip_id.unwrap_or(0).into());
    }
    put(&mut record, SAMPLE, "type", TYPE_SAMPLE.into());
    put(&mut record, SAMPLE, "error", -i64::from(sample.error) as u64);
    put(&mut record, SAMPLE, "refused", sample.refused_before.into());
    put(&mut record, SAMPLE, "flow", sample.flow);
    put(&mut record, SAMPLE, "serial", sample.serial);
    put(&mut record, SAMPLE, "mono_ns", sample.mono_ns as u64);
    put(&mut record, SAMPLE, "kind", sample.kind as u64);
    put(&mut record, SAMPLE, "phase", sample.phase as u64);
    put(&mut record, SAMPLE, "has", known.into());
    let mut present = 0;
    for (i, field) in FIELDS.iter().enumerate() {
        let value = match (field.convert, sample.state.get(i)) {
            // no measurement, no limit: the kernel has a number for it
            (Convert::MaxU32IsNull, None) => u32::MAX.into(),
            (Convert::UnlimitedIsNull, None) => u64::MAX,
            (_, None) => continue,
            (Convert::ShiftRight(bits), Some(value)) => (value as u64) << bits,
            (Convert::JiffiesToUs, Some(value)) => (value as u64).saturating_mul(1000) / TICK_NS,
            (_, Some(value)) => value as u64,
        };
        present |= 1 << i;
        set(&mut record, STATE_OFFSETS[i], field.wire.size_bytes(), value);
    }
    put(&mut record, SAMPLE, "present", present);
    records.push(&record);
}

/// Adds the record of an established flow.
pub fn push_flow(records: &mut Records, flow: &Flow) {
    const ESTABLISHED: u64 = 1;
    let mut record = [0; size(FLOW)];
    put(&mut record, FLOW, "type", TYPE_FLOW.into());
    put(&mut record, FLOW, "netns", flow.netns.into());
    put(&mut record, FLOW, "flow", flow.key);
    put(&mut record, FLOW, "mono_ns", flow.mono_ns as u64);
    put(&mut record, FLOW, "cookie", flow.cookie.unwrap_or(0));
    for (name, end) in [("local", flow.local), ("remote", flow.remote)] {
        let address = match end.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let (address_at, port_at) = match name {
            "local" => (offset(FLOW, "local_addr"), "local_port"),
            _ => (offset(FLOW, "remote_addr"), "remote_port"),
        };
        record[address_at..][..16].copy_from_slice(&address.octets());
        put(&mut record, FLOW, port_at, end.port().into());
    }
    let congestion = flow.congestion.as_deref().unwrap_or_default().as_bytes();
    let named = congestion.len().min(15);
    record[offset(FLOW, "congestion")..][..named].copy_from_slice(&congestion[..named]);
    put(&mut record, FLOW, "family", if flow.family == Family::Inet { 2 } else { 10 });
    put(&mut record, FLOW, "state", ESTABLISHED);
    let scaling = flow.snd_wscale.or(flow.rcv_wscale).is_some();
    put(&mut record, FLOW, "wscale_ok", scaling.into());
    put(&mut record, FLOW, "snd_wscale", flow.snd_wscale.unwrap_or(0).into());
    put(&mut record, FLOW, "rcv_wscale", flow.rcv_wscale.unwrap_or(0).into());
    records.push(&record);
}

fn put(record: &mut [u8], list: &[Member], name: &str, value: u64) {
    set(record, offset(list, name), width(list, name), value);
}

fn set(record: &mut [u8], at: usize, size_bytes: usize, value: u64) {
    record[at..][..size_bytes].copy_from_slice(&value.to_le_bytes()[..size_bytes]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, Event};
    use tcpprobe_trace::fields::index;
    use tcpprobe_trace::sample::{Kind, Phase, Segment, State};

    #[test]
    fn what_is_decoded_is_what_was_put_in() {
        let flow = Flow {
            key: 7,
            mono_ns: 5,
            local: "192.0.2.1:443".parse().unwrap(),
            remote: "192.0.2.2:40000".parse().unwrap(),
            family: Family::Inet,
            netns: 4,
            cookie: Some(9),
            congestion: Some("cubic".into()),
            snd_wscale: Some(7),
            rcv_wscale: Some(8),
        };
        let mut state = State::default();
        for (field, value) in
            [("srtt_us", 250), ("snd_nxt", 0xffff_fff0), ("pacing_rate", 1 << 40), ("rto_us", 204_000)]
        {
            state.set(index(field), Some(value));
        }
        let sample = Sample {
            flow: 7,
            serial: 41,
            mono_ns: 1_000,
            kind: Kind::Retransmit,
            phase: Phase::After,
            segment: Some(Segment { seq: 1, len: 2, ack: 3, flags: 0x18, tsval: Some(4), ip_id: None }),
            unseen_before: true,
            refused_before: 2,
            error: 11,
            state,
        };
        let mut records = Records::default();
        push_flow(&mut records, &flow);
        push_sample(&mut records, &sample);
        let kept = Records::from_bytes(records.as_bytes().to_vec());
        let mut decoder = Decoder::of_synthetic();
        let events: Vec<Event> = decoder.events(&kept).collect();
        assert_eq!(events, [Event::Flow(flow), Event::Sample(sample)]);
        assert_eq!(decoder.bad_records(), 0);
    }
}
