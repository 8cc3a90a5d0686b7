//! Fingerprints: letters that died of the same cause share one, whatever ids and numbers stand in their texts.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::model::dead_letter::ReasonClass;

/// Hex digits in a row that are taken for a digest rather than for a word.
const HEX_RUN: usize = 8;

/// What of a text counts: a plugin's own words may be long.
const TEXT_BYTES_MAX: usize = 4096;

/// Eight hex digits that stand for the class and for what the text says apart from its particulars.
pub fn fingerprint(class: ReasonClass, text: &str) -> String {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    let digest = Sha256::digest(format!("{class}\n{}", outline(text)));
    digest[..4].iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The text with placeholders where it names something: `"x"` for what is quoted, `ID`, `HEX` and `N`.
fn outline(text: &str) -> String {
    let mut outline = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = outline.ends_with(|c: char| c.is_alphanumeric() || c == '"');
        let (taken, placeholder) = match first {
            '"' | '`' => (quoted(rest, first), "\"x\""),
            '-' if !after_word && rest[1..].starts_with(|c: char| c.is_ascii_digit()) => (1 + number(&rest[1..]), "N"),
            c if c.is_ascii_alphanumeric() && !after_word && is_uuid(rest) => (36, "ID"),
            c if c.is_ascii_alphanumeric() && !after_word && hex(rest) > 0 => (hex(rest), "HEX"),
            c if c.is_ascii_digit() => (number(rest), "N"),
            _ => (0, ""),
        };
        if taken > 0 {
            outline.push_str(placeholder);
            rest = &rest[taken..];
        } else {
            outline.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    outline
}

/// The length of a quotation with its quotes; 0 if it is not closed.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    0
}

/// The length of a number: `12`, `12.50`.
fn number(text: &str) -> usize {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    let fraction = text[whole..].strip_prefix('.').map_or(0, digits);
    if fraction > 0 { whole + 1 + fraction } else { whole }
}

fn is_uuid(text: &str) -> bool {
    text.get(..36).is_some_and(|id| uuid::Uuid::try_parse(id).is_ok()) && word(text) == 8
}

/// The length of a word that is a run of hex digits, `0x` before it or not; 0 if it is none.
fn hex(text: &str) -> usize {
    let word = &text[..word(text)];
    let is_hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_run = match word.strip_prefix("0x") {
        Some(digits) => !digits.is_empty() && is_hex(digits),
        // Plain digits are a number, plain letters may be a word.
        None => {
            word.len() >= HEX_RUN
                && is_hex(word)
                && word.bytes().any(|byte| byte.is_ascii_digit())
                && word.bytes().any(|byte| byte.is_ascii_alphabetic())
        }
    };
    if is_run { word.len() } else { 0 }
}

fn word(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_alphanumeric).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn particulars_become_placeholders() {
        for (text, wanted) in [
            ("", ""),
            ("no such customer", "no such customer"),
            ("order 17 costs 12.50, not -3.", "order N costs N, not N."),
            ("attempt3 of 4 attempts", "attemptN of N attempts"),
            ("2026-01-31T12:00:00Z", "N-N-NTN:N:NZ"),
            ("event 0191d3a0-0000-7000-8000-000000000001 is known", "event ID is known"),
            ("0191d3a000007000 8000, 0xff, deadbeef, 12345678", "HEX N, HEX, deadbeef, N"),
            ("customer \"ada \\\" 1\" or `bob`", "customer \"x\" or \"x\""),
            ("an open \"quote 5", "an open \"quote N"),
            ("don't 'quote' me", "don't 'quote' me"),
            ("größe 5 \u{1F30A}7", "größe N \u{1F30A}N"),
            ("/data/items/3: -1 is less than 0", "/data/items/N: N is less than N"),
            ("a-b - c", "a-b - c"),
            ("\"", "\""),
            ("-", "-"),
        ] {
            assert_eq!(outline(text), wanted, "{text}");
        }
    }

    /// Reaches `TEXT_BYTES_MAX`.
    #[test]
    fn what_is_behind_the_bound_tells_nothing_apart() {
        let of = |text: &str| fingerprint(ReasonClass::Rejected, text);
        let (long, longest) = ("x".repeat(TEXT_BYTES_MAX - 1), "x".repeat(TEXT_BYTES_MAX));
        assert_ne!(of(&format!("{long}y")), of(&format!("{long}z")));
        assert_eq!(of(&format!("{longest}y")), of(&format!("{longest}z")));
    }

    #[test]
    fn a_fingerprint_tells_causes_apart_and_not_cases() {
        let of = |text| fingerprint(ReasonClass::Rejected, text);
        assert_eq!(of("order 17: no stock"), of("order 4711: no stock"));
        assert_ne!(of("order 17: no stock"), of("order 17: no price"));
        assert_ne!(of("x"), fingerprint(ReasonClass::Exhausted, "x"));
        assert_eq!(of("x").len(), 8);
        // Scripts keep fingerprints: they do not change from one version to the next.
        assert_eq!(of("order 17: no stock"), "0824fa12");
    }
}
