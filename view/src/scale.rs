//! Units that suit a range, and numbers on axes.

/// A unit: what a stored value is divided by, and what the result is called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    /// Stored values per unit.
    pub per: f64,
    /// Its name.
    pub name: &'static str,
}

/// The largest unit of which `most` is at least two.
fn choose(most: f64, units: &[Unit]) -> Unit {
    let fits = units.iter().find(|u| most.abs() >= 2.0 * u.per).or(units.last());
    fits.copied().unwrap_or(Unit { per: 1.0, name: "" })
}

/// For bytes, by the largest one.
pub fn bytes(most: f64) -> Unit {
    let unit = |per, name| Unit { per, name };
    choose(most, &[unit(1e9, "GB"), unit(1e6, "MB"), unit(1e3, "kB"), unit(1.0, "B")])
}

/// For µs.
pub fn microseconds(most: f64) -> Unit {
    let unit = |per, name| Unit { per, name };
    choose(most, &[unit(1e6, "s"), unit(1e3, "ms"), unit(1.0, "µs")])
}

/// For bytes per second, shown as bits per second.
pub fn rate(most: f64) -> Unit {
    let unit = |per, name| Unit { per, name };
    choose(most, &[unit(1.25e8, "Gbit/s"), unit(1.25e5, "Mbit/s"), unit(125.0, "kbit/s"), unit(0.125, "bit/s")])
}

/// A number on an axis: as many decimals as it needs, six at most.
pub fn number(value: f64) -> String {
    let fixed = format!("{value:.6}");
    let trimmed = fixed.trim_end_matches('0').trim_end_matches('.');
    if trimmed == "-0" { "0".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_suit_what_is_shown() {
        assert_eq!(bytes(12_000_000.0).name, "MB");
        assert_eq!(bytes(1_999.0).name, "B");
        assert_eq!(rate(2_500_000.0).name, "Mbit/s", "20 Mbit/s in bytes");
        assert_eq!(2_500_000.0 / rate(2_500_000.0).per, 20.0);
        assert_eq!(microseconds(60_000.0).name, "ms");
        assert_eq!(microseconds(0.0).name, "µs");
    }

    #[test]
    fn numbers_carry_no_noise() {
        assert_eq!(number(0.1 + 0.2), "0.3");
        assert_eq!(number(2.0), "2");
        assert_eq!(number(-0.0), "0");
        assert_eq!(number(1500.0), "1500");
    }
}
