//! What options take, as people write it: sizes, times, addresses, ranges.

use std::time::Duration;

use ipnet::IpNet;
use tcpprobe_replay::import::unix_time;

use super::Range;

pub(super) fn host(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net.trunc(),
        Err(_) => text.parse::<std::net::IpAddr>().map(IpNet::from).map_err(|_| {
            "not an address or a prefix; give for instance 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32".to_owned()
        })?,
    };
    Ok(net)
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&p| p > 0).ok_or_else(|| "not a port; give a number from 1 to 65535".to_owned())
}

pub(super) fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "not a mark; give a number such as 42 or 0x2a".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    // a bare number is seconds, as for tcpdump -G and sleep
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string());
    }
    humantime::parse_duration(text).map_err(|e| format!("{e}; give for instance 30s or 5min"))
}

pub(super) fn start_ns(text: &str) -> Result<i64, String> {
    unix_time(text).ok_or_else(|| "not a time; give for instance 1700000000.5 or 2023-11-14T22:13:20Z".to_owned())
}

pub(super) fn size(text: &str) -> Result<u32, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor: u64 = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err("unknown unit; give for instance 4M".to_owned()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    bytes
        .and_then(|b| u32::try_from(b).ok())
        .filter(|b| (64 << 10..=1 << 30).contains(b))
        .ok_or_else(|| "a size from 64K to 1G is needed".to_owned())
}

pub(super) fn seconds_range(text: &str) -> Result<Range, String> {
    range(text, |t| t.parse().ok())
        .ok_or_else(|| "not a range of seconds; give for instance 1.2..1.5 or 3..".to_owned())
}

pub(super) fn bytes_range(text: &str) -> Result<Range, String> {
    let bytes = |t: &str| {
        let (digits, factor) = match t.char_indices().last() {
            Some((at, 'k' | 'K')) => (&t[..at], 1e3),
            Some((at, 'M')) => (&t[..at], 1e6),
            Some((at, 'G')) => (&t[..at], 1e9),
            _ => (t, 1.0),
        };
        digits.parse::<f64>().ok().map(|n| n * factor)
    };
    range(text, bytes).ok_or_else(|| "not a range of bytes; give for instance 500k..1.5M or 3M..".to_owned())
}

fn range(text: &str, number: impl Fn(&str) -> Option<f64>) -> Option<Range> {
    let (from, to) = text.split_once("..")?;
    // as nanoseconds, what is larger would not fit
    let end = |t: &str| match t {
        "" => Some(None),
        t => number(t).filter(|n| n.abs() < 1e12).map(Some),
    };
    let range = Range { from: end(from)?, to: end(to)? };
    let ascends = range.from.zip(range.to).is_none_or(|(from, to)| from < to);
    (ascends && (range.from.is_some() || range.to.is_some())).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::sampling::{DEFAULT_BUFFER, DEFAULT_BUFFER_BYTES};

    #[test]
    fn sizes() {
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size(DEFAULT_BUFFER), Ok(DEFAULT_BUFFER_BYTES));
        assert_eq!(size("128KiB"), Ok(128 << 10));
        assert_eq!(size("65536"), Ok(65536));
        assert!(size("1").is_err() && size("2T").is_err() && size("99999999999999999999G").is_err());
    }

    #[test]
    fn hosts_and_marks() {
        assert_eq!(host("192.0.2.7/24").unwrap().to_string(), "192.0.2.0/24");
        assert_eq!(host("::1").unwrap().to_string(), "::1/128");
        assert!(host("example.org").is_err());
        assert_eq!(mark("0x2a"), Ok(42));
        assert!(mark("-1").is_err());
    }

    #[test]
    fn ranges() {
        let both = |from, to| Ok(Range { from, to });
        assert_eq!(seconds_range("1.5..2"), both(Some(1.5), Some(2.0)));
        assert_eq!(seconds_range("..2"), both(None, Some(2.0)));
        assert_eq!(bytes_range("500k..1.5M"), both(Some(5e5), Some(1.5e6)));
        assert_eq!(bytes_range("1G.."), both(Some(1e9), None));
        for bad in ["", "..", "2..1", "1..1", "a..b", "1", "nan..2", "1..inf", "1e300..", "é..1"] {
            assert!(seconds_range(bad).is_err() && bytes_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5min"), Ok(Duration::from_secs(300)));
        assert!(duration("-3").is_err() && duration("soon").is_err());
    }
}
