//! Words and numbers for people: all on standard error, so that data on standard output stays data.

use std::error::Error as StdError;
use std::time::Duration;

/// Prints a line for the user.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        // a closed standard error leaves no one to tell
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}
pub(crate) use say;

/// Prints an error in one line: each cause after what it made fail.
pub(crate) fn error(error: &anyhow::Error) {
    let mut line = String::from("tcpprobe");
    let mut last = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        // many errors quote their cause already
        if !last.contains(&said) {
            line.push_str(": ");
            line.push_str(&said);
        }
        last = said;
    }
    say!("{line}");
}

/// Has the reader of our output gone away?
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause: &(dyn StdError + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 flow`, `2 flows`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `part` of `whole` in percent, never rounded up to 100.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    let thousandths = u128::from(part) * 100_000 / u128::from(whole);
    format!("{}.{:03} %", thousandths / 1000, thousandths % 1000)
}

/// A signed time in the unit that suits it.
pub(crate) fn nanoseconds(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let magnitude = ns.unsigned_abs();
    match magnitude {
        0..1_000 => format!("{sign}{magnitude} ns"),
        1_000..1_000_000 => format!("{sign}{:.1} µs", magnitude as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{sign}{:.1} ms", magnitude as f64 / 1e6),
        _ => format!("{sign}{:.3} s", magnitude as f64 / 1e9),
    }
}

/// A duration in seconds.
pub(crate) fn seconds(d: Duration) -> String {
    format!("{:.1} s", d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "flow"), "1 flow");
        assert_eq!(percent(99_999, 100_000), "99.999 %");
        assert_eq!(percent(9_999_999, 10_000_000), "99.999 %", "not 100 while one is missing");
        assert_eq!(percent(7, 7), "100.000 %");
        assert_eq!(nanoseconds(-1_500), "-1.5 µs");
    }
}
