//! Money in JSON is a decimal number; a float cannot add those up.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

/// An amount in integer cents, read exactly from the text of a JSON number with decimals.
///
/// ```
/// # use tidemill_sdk::{Cents, serde_json};
/// let amounts: Vec<Cents> = serde_json::from_str("[0.1, 0.2, 15.3]").unwrap();
/// assert_eq!(amounts.iter().map(|cents| cents.0).sum::<i64>(), 1560);
/// ```
///
/// A part of a cent is rounded, a half away from zero. Reads from JSON text only, not from a `serde_json::Value`:
/// that has been through a float.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cents(pub i64);

impl<'de> Deserialize<'de> for Cents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        cents(raw).map(Self).ok_or_else(|| D::Error::custom(format!("{raw} is not an amount of money")))
    }
}

/// `None`: no number, or more digits than money has.
fn cents(text: &str) -> Option<i64> {
    let (amount, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = exponent.parse::<i32>().ok()?.checked_add(2)?.checked_sub(fraction.len().try_into().ok()?)?;
    let power = 10i128.checked_pow(shift.unsigned_abs())?;
    let cents = match shift {
        0.. => digits.checked_mul(power)?,
        _ => digits.checked_add(digits.signum() * (power / 2))? / power,
    };
    cents.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::cents;

    #[test]
    fn amounts_are_exact() {
        let amounts = [("0", 0), ("17", 1700), ("139.12", 13912), ("-0.07", -7), ("1e3", 100_000), ("1.5E-1", 15)];
        for (text, expected) in amounts.into_iter().chain([("2.10000000000000000000000000000000000000", 210)]) {
            assert_eq!(cents(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn half_a_cent_is_rounded_away_from_zero() {
        for (text, expected) in [("0.005", 1), ("0.0049", 0), ("-0.005", -1), ("0.015", 2), ("1e-3", 0)] {
            assert_eq!(cents(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["null", "\"1.00\"", "1e40", "1e-99", "1e99999999999", "92233720368547758.08"] {
            assert_eq!(cents(text), None, "{text}");
        }
    }
}
