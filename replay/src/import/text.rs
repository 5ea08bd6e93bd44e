//! Numbers, times and addresses as logs have them.

use std::net::{IpAddr, SocketAddr};

use tcpprobe_trace::sample::{Family, State};

/// The largest time that is taken: the year 2103. Sums of two stay far from what an `i64` holds.
const MAX_SECONDS: u64 = 4_200_000_000;

/// `12.345678` in ns: a fraction of one to nine digits.
pub(super) fn seconds_ns(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.')?;
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok().filter(|&s| s <= MAX_SECONDS)?;
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    Some(i64::try_from(seconds).ok()? * 1_000_000_000 + fraction)
}

/// A time as a user gives it, in ns of the Unix epoch: seconds, or RFC 3339 with `Z` or an offset.
pub fn unix_time(text: &str) -> Option<i64> {
    let text = text.trim();
    let fraction = if text.contains('.') { "" } else { ".0" };
    seconds_ns(&format!("{text}{fraction}")).or_else(|| rfc3339_ns(text))
}

/// RFC 3339 §5.6 without leap seconds.
fn rfc3339_ns(text: &str) -> Option<i64> {
    let part = |range: std::ops::Range<usize>, limit: std::ops::RangeInclusive<i64>| -> Option<i64> {
        let digits = text.get(range)?;
        let digits = digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits)?;
        digits.parse().ok().filter(|n| limit.contains(n))
    };
    let mark = |at: usize, any: &[u8]| text.as_bytes().get(at).is_some_and(|b| any.contains(b)).then_some(());
    for (at, any) in [(4, &b"-"[..]), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")] {
        mark(at, any)?;
    }
    let (year, month, day) = (part(0..4, 1970..=2100)?, part(5..7, 1..=12)?, part(8..10, 1..=31)?);
    let (hour, minute, second) = (part(11..13, 0..=23)?, part(14..16, 0..=59)?, part(17..19, 0..=59)?);
    let rest = text.get(19..)?;
    let zone_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (fraction, zone) = rest.split_at(zone_at);
    let fraction_ns = if fraction.is_empty() { 0 } else { seconds_ns(&format!("0{fraction}"))? };
    let ahead_s = match zone {
        "Z" | "z" => 0,
        zone => {
            let sign = if zone.starts_with('+') { 1 } else { -1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            let number =
                |t: &str, limit: i64| (t.len() == 2).then(|| t.parse().ok())?.filter(|n| (0..=limit).contains(n));
            sign * (number(hours, 23)? * 3600 + number(minutes, 59)? * 60)
        }
    };
    let seconds = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second - ahead_s;
    (seconds >= 0).then(|| seconds * 1_000_000_000 + fraction_ns)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `None` where the month is shorter.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    let february = 28 + i64::from(is_leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month - 1).ok()?;
    (day <= *months.get(month)?).then(|| {
        let years: i64 = (1970..year).map(|y| 365 + i64::from(is_leap(y))).sum();
        years + months.iter().take(month).sum::<i64>() + day - 1
    })
}

/// A 32-bit number, decimal or with `0x`.
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `192.0.2.1:80` or `[2001:db8::1]:80`, as the kernel's `%pISpc` prints them: the address, IPv4 where it is mapped
/// into IPv6, and the socket's family.
pub(super) fn endpoint(text: &str) -> Option<(SocketAddr, Family)> {
    let address: SocketAddr = text.parse().ok()?;
    let family = if address.is_ipv4() { Family::Inet } else { Family::Inet6 };
    Some((unmapped(address.ip(), address.port()), family))
}

/// An address with its port; IPv4 where it is mapped into IPv6.
pub(super) fn unmapped(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// What `tcp_current_ssthresh()` gave (`include/net/tcp.h`), as snd_ssthresh: in CWR and Recovery it is that itself,
/// otherwise no less than three quarters of cwnd. Where it is these three quarters, snd_ssthresh may be anything below.
pub(super) fn ssthresh(current: u32, cwnd: u32) -> Option<u32> {
    (current != (cwnd >> 1) + (cwnd >> 2)).then_some(current)
}

/// Sets a field to a number, or clears it.
pub(super) fn set(state: &mut State, field: usize, value: Option<u32>) {
    state.set(field, value.map(i64::from));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(seconds_ns("0.000000001"), Some(1));
        assert_eq!(seconds_ns("925.751789"), Some(925_751_789_000));
        assert_eq!(seconds_ns("1700000000.5"), Some(1_700_000_000_500_000_000));
        for bad in ["", ".", "1", "1.", ".1", "-1.0", "1.-1", "1.0000000001", "4200000001.0", "99999999999999999999.0"]
        {
            assert_eq!(seconds_ns(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_user_s_times() {
        // date -u -d 2023-11-14T22:13:20 +%s
        const SECOND: i64 = 1_700_000_000;
        assert_eq!(unix_time("1700000000"), Some(SECOND * 1_000_000_000));
        assert_eq!(unix_time("2023-11-14T22:13:20Z"), Some(SECOND * 1_000_000_000));
        assert_eq!(unix_time("2023-11-14 23:43:20.25+01:30"), Some(SECOND * 1_000_000_000 + 250_000_000));
        assert_eq!(unix_time("2023-11-14T18:13:20-04:00"), Some(SECOND * 1_000_000_000));
        assert_eq!(unix_time("2000-03-01T00:00:00Z"), Some(951_868_800 * 1_000_000_000));
        for bad in ["", "soon", "2023-11-14", "2023-11-14T22:13:20", "2023-02-29T00:00:00Z", "2023-11-14T22:13:20+1:00"]
        {
            assert_eq!(unix_time(bad), None, "{bad}");
        }
        // a character of several bytes where a digit belongs
        assert_eq!(unix_time("2023-11-1é 22:13:20Z"), None);
    }

    #[test]
    fn addresses() {
        let (v4, family) = endpoint("192.0.2.1:80").unwrap();
        assert_eq!((v4.to_string().as_str(), family), ("192.0.2.1:80", Family::Inet));
        let (mapped, family) = endpoint("[::ffff:192.0.2.1]:80").unwrap();
        assert_eq!((mapped.to_string().as_str(), family), ("192.0.2.1:80", Family::Inet6));
        let (v6, family) = endpoint("[2001:db8::1]:80").unwrap();
        assert_eq!((v6.to_string().as_str(), family), ("[2001:db8::1]:80", Family::Inet6));
        assert_eq!(endpoint("192.0.2.1"), None);
    }

    #[test]
    fn numbers() {
        assert_eq!(number("0xffffffff"), Some(u32::MAX));
        assert_eq!(number("0"), Some(0));
        for bad in ["", "0x", "0x100000000", "-1", "4294967296", "1x"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_threshold_that_only_follows_cwnd_is_not_known() {
        assert_eq!(ssthresh(22, 23), Some(22));
        assert_eq!(ssthresh(30, 40), None, "three quarters of 40");
        assert_eq!(ssthresh(20, 40), Some(20), "less than that: the kernel was in recovery");
        assert_eq!(ssthresh(u32::MAX >> 1, 10), Some(u32::MAX >> 1));
    }
}
