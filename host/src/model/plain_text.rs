//! Text for people that may quote what a stranger has sent: bounded, and without what a terminal or a log would obey.

use std::fmt;

/// What such a text has at most, in bytes.
pub const PLAIN_TEXT_BYTES_MAX: usize = 4096;

/// `ESC[2J` becomes `\u{1b}[2J`, a new line `\n`, and what is longer than the bound ends with `...`.
///
/// ```
/// use tidemill::model::plain_text::PlainText;
/// assert_eq!(PlainText::from("/version: \"1\n\u{1b}[2J\"").as_str(), r#"/version: "1\n\u{1b}[2J""#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainText(String);

impl PlainText {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new(text: &str) -> Self {
        const DOTS: &str = "...";
        let mut plain = String::with_capacity(text.len().min(PLAIN_TEXT_BYTES_MAX));
        for c in text.chars() {
            let before = plain.len();
            if is_obeyed(c) {
                plain.extend(c.escape_default());
            } else {
                plain.push(c);
            }
            if plain.len() > PLAIN_TEXT_BYTES_MAX {
                plain.truncate(before);
                plain.truncate(plain.floor_char_boundary(PLAIN_TEXT_BYTES_MAX - DOTS.len()));
                plain.push_str(DOTS);
                break;
            }
        }
        Self(plain)
    }
}

/// Control characters of both sets, and the marks that turn the direction of what follows (Unicode TR 36, 3.2).
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

impl From<&str> for PlainText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for PlainText {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<PlainText> for String {
    fn from(reason: PlainText) -> Self {
        reason.0
    }
}

impl fmt::Display for PlainText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_plain_text_is_bounded_and_nothing_in_it_is_obeyed(
            text in "(\\PC|[\u{0}-\u{9f}\u{200e}\u{202e}\u{2066}é🦀]){0,6000}",
        ) {
            let reason = PlainText::from(&*text);
            prop_assert!(reason.as_str().len() <= PLAIN_TEXT_BYTES_MAX);
            prop_assert!(!reason.as_str().chars().any(is_obeyed));
            if text.len() < PLAIN_TEXT_BYTES_MAX && !text.chars().any(is_obeyed) {
                prop_assert_eq!(reason.as_str(), text);
            }
        }
    }

    /// Reaches `PLAIN_TEXT_BYTES_MAX`.
    #[test]
    fn what_is_too_long_says_so() {
        let longest = "x".repeat(PLAIN_TEXT_BYTES_MAX);
        assert_eq!(PlainText::from(&*longest).as_str(), longest);
        assert_eq!(PlainText::from(longest.clone() + "x").as_str(), longest[3..].to_owned() + "...");
        let reason = PlainText::from("é".repeat(5000));
        assert_eq!((reason.as_str().len(), reason.as_str().ends_with("é...")), (4095, true));
        assert_eq!(PlainText::from("\u{1}".repeat(5000)).as_str().len(), 4096);
    }
}
