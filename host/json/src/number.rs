//! Numbers as they are written. The reader hands a number on as an integer of 64 bits or as a float, which is exact for
//! nearly all of them: of the others the tree keeps the text, and they are compared digit by digit.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Number;

/// Digits that every float keeps, whatever they are. A number that has no more of them is read as it is written.
const FLOAT_DIGITS: usize = 15;
/// Digits of a `multipleOf`: ten times the rest of a division has to fit into 128 bits.
pub(crate) const DIVISOR_DIGITS_MAX: usize = 37;
/// The longest plain form of a number's [`Decimal::canonical`] text, in digits.
const PLAIN_DIGITS_MAX: i64 = 128;

/// Whether there may be a number in it that is not what is read: one of many digits. Looks at few of the bytes: so many
/// digits in a row lie across one that it looks at.
pub(crate) fn may_be_long(text: &str) -> bool {
    // Plain loops: every event comes through here.
    let bytes = text.as_bytes();
    let of_digits = |at: usize| at < bytes.len() && (bytes[at].is_ascii_digit() || bytes[at] == b'.');
    let mut at = FLOAT_DIGITS;
    while at < bytes.len() {
        if of_digits(at) {
            let (mut first, mut end) = (at, at + 1);
            while first > 0 && of_digits(first - 1) {
                first -= 1;
            }
            while end - first <= FLOAT_DIGITS && of_digits(end) {
                end += 1;
            }
            if end - first > FLOAT_DIGITS {
                return true;
            }
        }
        at += FLOAT_DIGITS + 1;
    }
    false
}

/// The exact value of a number in JSON: `digits` times ten to the power of `exponent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    /// `0` to `9`, without zeros at either end. None: the number is 0.
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// The text of a number in JSON. Exponents that no memory could hold the digits of are all one.
    pub fn parse(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let far = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
        let mut exponent = exponent.parse().unwrap_or(far).saturating_sub_unsigned(fraction.len() as u64);
        let all = whole.bytes().chain(fraction.bytes()).filter(u8::is_ascii_digit);
        let mut digits: Vec<u8> = all.skip_while(|digit| *digit == b'0').collect();
        while digits.pop_if(|last| *last == b'0').is_some() {
            exponent = exponent.saturating_add(1);
        }
        if digits.is_empty() {
            return Self { negative: false, digits, exponent: 0 };
        }
        Self { negative: text.starts_with('-'), digits, exponent }
    }

    /// A float is the decimal that it is printed as.
    pub fn of(number: &Number) -> Self {
        Self::parse(&number.to_string())
    }

    pub fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    /// The one text of all that are this number: `17` of 17.0 and of 1.7e1, `17.5` of 17.50. With so many digits that
    /// nobody would write them all, it is `1.7e300`.
    pub fn canonical(&self) -> String {
        let digits: String = self.digits.iter().map(|digit| char::from(*digit)).collect();
        let sign = if self.negative { "-" } else { "" };
        // Digits before the point.
        let whole = self.exponent.saturating_add(self.digits.len() as i64);
        if digits.is_empty() {
            return "0".to_owned();
        }
        if whole > PLAIN_DIGITS_MAX || self.exponent < -PLAIN_DIGITS_MAX {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            return format!("{sign}{first}{point}{rest}e{}", whole.saturating_sub(1));
        }
        match (usize::try_from(self.exponent), usize::try_from(whole)) {
            (Ok(zeros), _) => format!("{sign}{digits}{}", "0".repeat(zeros)),
            (Err(_), Ok(whole @ 1..)) => format!("{sign}{}.{}", &digits[..whole], &digits[whole..]),
            _ => format!("{sign}0.{}{digits}", "0".repeat(whole.unsigned_abs() as usize)),
        }
    }

    /// Whether division by this leaves an integer; by what is no divisor it never does.
    pub fn is_multiple_of(&self, divisor: &Self) -> bool {
        let Some(unit) = divisor.as_divisor() else { return false };
        if self.digits.is_empty() {
            return true;
        }
        // Without zeros at its end no power of ten divides it.
        let Ok(zeros) = usize::try_from(self.exponent.saturating_sub(divisor.exponent)) else { return false };
        let shift = |rest: u128, digit: u8| (rest * 10 + u128::from(digit - b'0')) % unit;
        let mut rest = self.digits.iter().fold(0, |rest, digit| shift(rest, *digit));
        for _ in 0..zeros {
            if rest == 0 {
                break;
            }
            rest = shift(rest, b'0');
        }
        rest == 0
    }

    /// Its digits, if it may divide: it is not 0, and has [`DIVISOR_DIGITS_MAX`] digits at most.
    pub fn as_divisor(&self) -> Option<u128> {
        let digits = std::str::from_utf8(&self.digits).ok().filter(|digits| digits.len() <= DIVISOR_DIGITS_MAX)?;
        digits.parse().ok()
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let whole = |number: &Self| number.exponent.saturating_add(number.digits.len() as i64);
        let size = || whole(self).cmp(&whole(other)).then_with(|| self.digits.cmp(&other.digits));
        sign(self).cmp(&sign(other)).then_with(|| match sign(self) {
            0 => Ordering::Equal,
            1 => size(),
            _ => size().reverse(),
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

/// The float nearest to it; one that is too large was an error of the reader.
pub(crate) fn nearest(text: &str) -> f64 {
    text.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Decimal::parse(text).canonical()
    }

    /// Reaches `PLAIN_DIGITS_MAX`.
    #[test]
    fn one_number_has_one_text() {
        for (same, wanted) in [
            (&["17", "17.0", "1.7e1", "170E-1", "0.17e+2", "1700e-2"][..], "17"),
            (&["0", "-0", "0.000", "0e5", "-0.0e-999999999999999999999"], "0"),
            (&["17.5", "17.50", "175e-1", "0.0175E3"], "17.5"),
            (&["-0.05", "-5e-2", "-0.0500"], "-0.05"),
            (&["100000000000000000001"], "100000000000000000001"),
            (&["100000000000000000002", "1000000000000000000020e-1"], "100000000000000000002"),
            (&["1e21", "1000000000000000000000"], "1000000000000000000000"),
            (&["1e300", "10e299", "0.1e301"], "1e300"),
            (&["-1.5e-300", "-15e-301"], "-1.5e-300"),
            (&["1e-400"], "1e-400"),
            (&["1e-99999999999999999999"], "1e-9223372036854775808"),
        ] {
            for text in same {
                assert_eq!(canonical(text), wanted, "{text}");
            }
        }
        let longest = "9".repeat(128);
        assert_eq!(canonical(&longest), longest);
        assert_eq!(canonical(&format!("{longest}9")), format!("9.{longest}e128"));
        let smallest = format!("0.{}1", "0".repeat(127));
        assert_eq!((canonical("1e-128"), canonical("1e-129")), (smallest, "1e-129".to_owned()));
    }

    /// Reaches `DIVISOR_DIGITS_MAX`.
    #[test]
    fn a_divisor_has_so_many_digits_that_no_remainder_overflows() {
        let nines = |count: usize| Decimal::parse(&"9".repeat(count));
        assert!(
            nines(DIVISOR_DIGITS_MAX).as_divisor().is_some() && nines(DIVISOR_DIGITS_MAX + 1).as_divisor().is_none()
        );
        let twice = "9".repeat(2 * DIVISOR_DIGITS_MAX);
        assert!(Decimal::parse(&twice).is_multiple_of(&nines(DIVISOR_DIGITS_MAX)));
        assert!(!Decimal::parse(&format!("{twice}8")).is_multiple_of(&nines(DIVISOR_DIGITS_MAX)));
    }

    /// Reaches `FLOAT_DIGITS`.
    #[test]
    fn it_is_seen_where_many_digits_are() {
        for before in 0..40 {
            for after in 0..40 {
                let around = |digits: &str| format!("{}{digits}{}", "x".repeat(before), "x".repeat(after));
                assert!(may_be_long(&around("1234567.890123456")), "{before} {after}");
                assert!(!may_be_long(&around("123456789012345a678901234567890")), "{before} {after}");
            }
        }
    }

    #[test]
    fn multiples_are_exact() {
        for (number, divisor, wanted) in [
            ("100000000000000000001", "2", false),
            ("100000000000000000002", "2", true),
            ("100000000000000000000.01", "0.01", true),
            ("100000000000000000000.001", "0.01", false),
            ("17.0000000000000000001", "1", false),
            ("1e300", "7", false),
            ("7e300", "7", true),
            ("1e300", "18446744073709551615", false),
            ("0", "0.3", true),
            ("0.9", "0.3", true),
            ("-12", "5", false),
            ("-15", "5", true),
            ("1", "1e3", false),
        ] {
            assert_eq!(Decimal::parse(number).is_multiple_of(&Decimal::parse(divisor)), wanted, "{number} {divisor}");
        }
    }

    proptest! {
        #[test]
        fn it_orders_and_prints_as_numbers_do(a in any::<i64>(), b in any::<i64>(), scale in 0..6u32, zeros in 0..4usize) {
            let unit = 10_i64.pow(scale);
            let text = |number: i64| {
                let (number, unit) = (i128::from(number), i128::from(unit));
                let sign = if number < 0 { "-" } else { "" };
                let (whole, rest) = (number.abs() / unit, number.abs() % unit);
                let width = scale as usize;
                if scale == 0 { format!("{number}") } else { format!("{sign}{whole}.{rest:0width$}{}", "0".repeat(zeros)) }
            };
            let (left, right) = (Decimal::parse(&text(a)), Decimal::parse(&text(b)));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(&Decimal::parse(&left.canonical()), &left);
            prop_assert_eq!(left.is_integer(), a % unit == 0);
        }

        #[test]
        fn floats_of_few_digits_are_read_as_they_are_written(digits in 1..=999_999_999_999_999_u64, exponent in -280..280i32) {
            let text = format!("{digits}e{exponent}");
            let read: Number = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(Decimal::of(&read), Decimal::parse(&text));
        }
    }
}
