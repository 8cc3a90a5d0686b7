//! Numbers as people read them: three digits that count, thousands apart.

use super::stats::Spread;

/// `52 300`, `12.3`, `0.415`. The noise is larger than what is rounded away; the file of the run has every digit.
pub(crate) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    match rounded.abs() {
        1000.0.. => spaced(rounded),
        100.0.. => format!("{rounded:.0}"),
        10.0.. => format!("{rounded:.1}"),
        1.0.. => format!("{rounded:.2}"),
        _ if rounded == 0.0 => "0".to_owned(),
        _ => format!("{rounded:.3}"),
    }
}

/// A whole number, all of it.
pub(crate) fn spaced(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

/// `52 300 [48 100 - 55 900]`; the number alone if there was one round.
pub(crate) fn spread(spread: Option<Spread>) -> String {
    match spread {
        None => "-".to_owned(),
        Some(Spread { median, min, max }) if min.total_cmp(&max).is_eq() => figure(median),
        Some(Spread { median, min, max }) => format!("{} [{} - {}]", figure(median), figure(min), figure(max)),
    }
}

/// For pictures: `52.3k`, `10M`, `0.415`, and no zeros at the end.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let figure = figure(value);
    let figure = if figure.contains('.') { figure.trim_end_matches('0').trim_end_matches('.') } else { &figure };
    format!("{figure}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        let cases = [
            (123_456.0, "123 000"),
            (1_234_567.0, "1 230 000"),
            (9_996.0, "10 000"),
            (999.6, "1 000"),
            (12.34, "12.3"),
            (9.999, "10.0"),
            (0.4151, "0.415"),
            (0.0004, "0.000"),
            (0.0, "0"),
            (f64::NAN, "-"),
        ];
        for (value, words) in cases {
            assert_eq!(figure(value), words, "{value}");
        }
    }

    #[test]
    fn pictures_have_short_numbers() {
        let cases =
            [(52_345.0, "52.3k"), (10_000.0, "10k"), (1_000_000.0, "1M"), (15.0, "15"), (0.5, "0.5"), (200.0, "200")];
        for (value, words) in cases {
            assert_eq!(short(value), words, "{value}");
        }
    }

    #[test]
    fn one_round_has_no_spread() {
        let of = |values: &[f64]| spread(Spread::of(values.to_vec()));
        assert_eq!(of(&[1.0, 2.0, 3.0]), "2.00 [1.00 - 3.00]");
        assert_eq!(of(&[1500.0]), "1 500");
        assert_eq!(of(&[]), "-");
    }
}
