//! A pcapng interface: link type, snaplen, how to read its timestamps, and how many packets it dropped.
//!
//! Option values are read here: pcap-parser 0.17 takes them for little-endian in every section, and refuses time
//! resolutions that are powers of 2.

use pcap_parser::{InterfaceDescriptionBlock, InterfaceStatisticsBlock, OptionCode, PcapNGOption};

use tcpprobe_trace::clock::TIMES_NS;

use super::Order;
use crate::packet::LinkType;

/// An interface as its description block has it.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) link: LinkType,
    /// In bytes; 0: no limit.
    pub(super) snaplen: u32,
    pub(super) drops: Drops,
    resolution: Resolution,
    /// Seconds to add to every timestamp.
    offset_s: i64,
}

impl Interface {
    pub(super) fn new(description: &InterfaceDescriptionBlock<'_>, order: Order) -> Self {
        let resolution = value::<1>(&description.options, OptionCode::IfTsresol);
        let offset_s = value(&description.options, OptionCode::IfTsoffset);
        Self {
            link: LinkType(description.linktype.0.cast_unsigned()),
            snaplen: description.snaplen,
            drops: Drops::default(),
            resolution: resolution.map_or(Resolution::MICROSECONDS, |[exponent]| Resolution(exponent)),
            offset_s: offset_s.map_or(0, |bytes| order.u64(bytes).cast_signed()),
        }
    }

    /// A timestamp of this interface in ns since the Unix epoch, if it fits.
    pub(super) fn ts_ns(&self, ts: u64) -> Option<i64> {
        let offset_ns = i128::from(self.offset_s) * 1_000_000_000;
        i64::try_from(self.resolution.ns(ts) + offset_ns).ok().filter(|ns| TIMES_NS.contains(ns))
    }
}

/// `if_tsresol`: units per second as a power of 10 or, with the highest bit set, of 2.
#[derive(Debug, Clone, Copy)]
struct Resolution(u8);

impl Resolution {
    const MICROSECONDS: Self = Self(6);

    /// `ts` units in ns, fractions cut.
    fn ns(self, ts: u64) -> i128 {
        let ts = i128::from(ts);
        let exponent = u32::from(self.0 & 0x7f);
        if self.0 & 0x80 != 0 {
            return (ts * 1_000_000_000) >> exponent;
        }
        match exponent.checked_sub(9) {
            None => ts * 10_i128.pow(9 - exponent),
            // Units beyond all powers of 10 that fit are too short for 64 bits of them to make one ns.
            Some(finer) => 10_i128.checked_pow(finer).map_or(0, |units| ts / units),
        }
    }
}

/// Dropped packets; `None` where no statistics tell.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Drops {
    pub(super) interface: Option<u64>,
    pub(super) system: Option<u64>,
}

impl Drops {
    /// Counts since the capture's start, so that an interface's last statistics hold all.
    pub(super) fn of(statistics: &InterfaceStatisticsBlock<'_>, order: Order) -> Self {
        let count = |code| value(&statistics.options, code).map(|bytes| order.u64(bytes));
        Self { interface: count(OptionCode::IsbIfDrop), system: count(OptionCode::IsbOsDrop) }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        Self { interface: sum(self.interface, other.interface), system: sum(self.system, other.system) }
    }
}

/// The value of an option of `LEN` bytes, if it is there and that long.
fn value<const LEN: usize>(options: &[PcapNGOption<'_>], code: OptionCode) -> Option<[u8; LEN]> {
    let option = options.iter().take_while(|option| option.code != OptionCode::EndOfOpt).find(|o| o.code == code)?;
    option.as_bytes().ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time 1,700,000,000.125 s, which every resolution used here holds exactly.
    const NS: i64 = 1_700_000_000_125_000_000;

    fn ns(resolution: u8, ts: u64, offset_s: i64) -> Option<i64> {
        let (link, resolution) = (LinkType::EN10MB, Resolution(resolution));
        Interface { link, snaplen: 0, drops: Drops::default(), resolution, offset_s }.ts_ns(ts)
    }

    #[test]
    fn resolutions_are_powers_of_10_or_of_2() {
        assert_eq!(ns(0, 1_700_000_000, 0), Some(1_700_000_000_000_000_000));
        assert_eq!(ns(3, 1_700_000_000_125, 0), Some(NS));
        assert_eq!(ns(6, 1_700_000_000_125_000, 0), Some(NS));
        assert_eq!(ns(9, 1_700_000_000_125_000_000, 0), Some(NS));
        assert_eq!(ns(10, 17_000_000_001_250_000_009, 0), Some(NS), "a tenth of a ns, cut");
        assert_eq!(ns(0x80, 1_700_000_000, 0), Some(1_700_000_000_000_000_000));
        assert_eq!(ns(0x80 | 3, 1_700_000_000 * 8 + 1, 0), Some(NS), "an eighth of a second");
        assert_eq!(ns(0x80 | 32, (1_700_000_000 << 32) + (1 << 29), 0), Some(NS), "as NTP counts");
    }

    #[test]
    fn offsets_are_seconds() {
        assert_eq!(ns(6, 125_000, 1_700_000_000), Some(NS));
        assert_eq!(ns(9, 1_700_000_037_125_000_000, -37), Some(NS));
    }

    #[test]
    fn times_that_do_not_fit_are_none() {
        assert_eq!(ns(0, u64::MAX, 0), None);
        assert_eq!(ns(6, 0, i64::MAX), None);
        assert_eq!(ns(6, 0, i64::MIN), None);
        assert_eq!(ns(127, u64::MAX, 0), Some(0));
        assert_eq!(ns(0xff, u64::MAX, 0), Some(0));
    }
}
