//! Records as the programs wrote them, on their way from the ring to whoever decodes them, later and elsewhere.
//!
//! Emptying the ring is a race against what fills it: so it is no more than copying. Owns the bytes in between; what they
//! mean is [`crate::decode`]'s.

use std::net::IpAddr;

use crate::decode::{BadRecord, Event, Record, decode, is_sample, map_addresses};
use crate::internals::Layouts;
use crate::synthetic::TICK_NS;

/// Before each record: its size in bytes.
const PREFIX_BYTES: usize = size_of::<u32>();

/// Records of the ring, one behind the other, not yet decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    bytes: Vec<u8>,
}

impl Records {
    /// Those that [`Records::as_bytes`] gave.
    pub fn from_bytes(bytes: Vec<u8>) -> Records {
        Records { bytes }
    }

    /// None, in memory that [`Records::into_bytes`] gave.
    pub fn from_spare(mut bytes: Vec<u8>) -> Records {
        bytes.clear();
        Records { bytes }
    }

    /// With room for records of so many bytes.
    pub fn with_capacity(bytes: usize) -> Records {
        Records { bytes: Vec::with_capacity(bytes) }
    }

    /// To be kept outside of memory.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The memory, to be used again.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds one, as the ring has it.
    pub fn push(&mut self, record: &[u8]) {
        // a ring hands out records of less than 2^30 bytes
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(record);
    }

    /// Adds all of another one's.
    pub fn append(&mut self, more: &Records) {
        self.bytes.extend_from_slice(&more.bytes);
    }

    /// How many of them are samples.
    pub fn samples(&self) -> u64 {
        self.iter().filter(|record| is_sample(record)).count() as u64
    }

    /// Puts other addresses in the place of those of flows, in the records that begin at byte `from` or behind it, where
    /// one must begin. Nothing else has addresses.
    pub fn map_addresses(&mut self, from: usize, mut map: impl FnMut(IpAddr) -> IpAddr) {
        let mut rest = self.bytes.get_mut(from..).unwrap_or_default();
        while let Some((prefix, behind)) = rest.split_first_chunk_mut::<PREFIX_BYTES>() {
            let Some((record, next)) = behind.split_at_mut_checked(u32::from_ne_bytes(*prefix) as usize) else {
                return;
            };
            map_addresses(record, &mut map);
            rest = next;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (prefix, behind) = rest.split_first_chunk::<PREFIX_BYTES>()?;
            let (record, next) = behind.split_at_checked(u32::from_ne_bytes(*prefix) as usize)?;
            rest = next;
            Some(record)
        })
    }
}

/// Decodes records in the order in which the ring had them.
pub struct Decoder {
    layouts: Layouts,
    tick_ns: u64,
    bad_records: u64,
}

impl Decoder {
    /// `tick_ns` is the length of a jiffy.
    pub(crate) fn new(layouts: Layouts, tick_ns: u64) -> Decoder {
        Decoder { layouts, tick_ns, bad_records: 0 }
    }

    /// A decoder of records that no kernel wrote.
    pub fn of_synthetic() -> Decoder {
        Decoder::new(Layouts::none(TICK_NS), TICK_NS)
    }

    /// What these say.
    pub fn events<'a>(&'a mut self, records: &'a Records) -> impl Iterator<Item = Event> + 'a {
        records.iter().filter_map(|record| match decode(record, self.tick_ns) {
            Ok(Record::Sample(sample)) => Some(Event::Sample(sample)),
            Ok(Record::Flow(flow, owner)) => {
                // the sampler has set its mask when it took the record from the ring
                let _ = flow.congestion.as_deref().and_then(|name| self.layouts.learn(name, &owner));
                Some(Event::Flow(flow))
            }
            Ok(Record::Internals(raw)) => self.layouts.decode(&raw).map(Event::Internals),
            Err(BadRecord { .. }) => {
                self.bad_records += 1;
                None
            }
        })
    }

    /// Records that could not be understood so far.
    pub fn bad_records(&self) -> u64 {
        self.bad_records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::push_flow;
    use tcpprobe_trace::sample::{Family, Flow};

    fn flow(local: &str, remote: &str) -> Flow {
        Flow {
            key: 7,
            mono_ns: 1,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            family: if local.starts_with('[') { Family::Inet6 } else { Family::Inet },
            netns: 1,
            cookie: None,
            congestion: None,
            snd_wscale: Some(7),
            rcv_wscale: Some(7),
        }
    }

    #[test]
    fn addresses_of_flows_are_replaced_and_nothing_else() {
        let mut records = Records::default();
        push_flow(&mut records, &flow("192.0.2.9:1", "192.0.2.8:2"));
        let from = records.as_bytes().len();
        push_flow(&mut records, &flow("192.0.2.1:40000", "192.0.2.2:443"));
        push_flow(&mut records, &flow("[2001:db8::1]:40000", "[2001:db8::2]:443"));
        records.map_addresses(from, |address| match address {
            IpAddr::V4(v4) => IpAddr::from((u32::from(v4) ^ 0xff00_0000).to_be_bytes()),
            IpAddr::V6(v6) => IpAddr::from((u128::from(v6) ^ 0xff).to_be_bytes()),
        });
        let flows = [
            flow("192.0.2.9:1", "192.0.2.8:2"),
            flow("63.0.2.1:40000", "63.0.2.2:443"),
            flow("[2001:db8::fe]:40000", "[2001:db8::fd]:443"),
        ];
        assert_eq!(Decoder::of_synthetic().events(&records).collect::<Vec<_>>(), flows.map(Event::Flow));
    }
}
