//! Text for people that may quote untrusted input: bounded, and without what a terminal or a log would obey. All
//! that is printed for people or logged goes through here, so the rule stands in one place: [`is_obeyed`].

use std::borrow::Cow;
use std::fmt::{self, Write};

/// What such a text has at most, in bytes.
pub const PLAIN_TEXT_BYTES_MAX: usize = 4096;

const DOTS: &str = "...";

/// `ESC[2J` becomes `\u{1b}[2J`, a new line `\n`, and what is longer than the bound ends with `...`.
///
/// ```
/// use tidemill_core::model::plain_text::PlainText;
/// assert_eq!(PlainText::from("/version: \"1\n\u{1b}[2J\"").as_str(), r#"/version: "1\n\u{1b}[2J""#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainText(String);

impl PlainText {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new(text: &str) -> Self {
        let mut plain = String::with_capacity(text.len().min(PLAIN_TEXT_BYTES_MAX));
        // Writing to a String cannot fail.
        let _ = Escaping::at_most(&mut plain, PLAIN_TEXT_BYTES_MAX).write_str(text);
        if plain.len() > PLAIN_TEXT_BYTES_MAX {
            plain.truncate(plain.floor_char_boundary(PLAIN_TEXT_BYTES_MAX - DOTS.len()));
            plain.push_str(DOTS);
        }
        Self(plain)
    }
}

/// Whether a terminal or a log would do more with this character than show it: control characters of both sets, line and
/// paragraph separators, marks that turn the direction of what follows, and what is there and has no width (Unicode
/// TR 36, 3.2).
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{13430}'..='\u{13438}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Passes text on with what is obeyed escaped, and no more of it than it has room for.
pub struct Escaping<W> {
    to: W,
    /// Bytes; none: the text was truncated, and nothing more is passed on.
    room: Option<usize>,
}

impl<W: Write> Escaping<W> {
    /// However long it is.
    pub fn all(to: W) -> Self {
        Self::at_most(to, usize::MAX)
    }

    /// So many bytes, and `...` in place of the rest.
    pub fn at_most(to: W, bytes_max: usize) -> Self {
        Self { to, room: Some(bytes_max) }
    }

    fn escape(&mut self, c: char) -> fmt::Result {
        let Some(room) = self.room else { return Ok(()) };
        self.room = room.checked_sub(c.escape_default().len());
        if self.room.is_none() { self.to.write_str(DOTS) } else { write!(self.to, "{}", c.escape_default()) }
    }

    /// Passes on what is not obeyed.
    fn pass(&mut self, text: &str) -> fmt::Result {
        let Some(room) = self.room else { return Ok(()) };
        self.room = room.checked_sub(text.len());
        self.to.write_str(&text[..text.floor_char_boundary(room)])?;
        if self.room.is_none() { self.to.write_str(DOTS) } else { Ok(()) }
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_obeyed(*c)) {
            self.pass(&rest[..at])?;
            self.escape(c)?;
            rest = &rest[at + c.len_utf8()..];
        }
        self.pass(rest)
    }
}

/// One line of text: line ends are escaped as all else.
pub fn line(text: impl fmt::Display) -> String {
    let mut line = String::new();
    let _ = write!(Escaping::all(&mut line), "{text}"); // writing to a String cannot fail
    line
}

/// Text of several lines, such as an error with its hint: the line ends stay.
pub fn lines(text: &str) -> String {
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A JSON document for a terminal and for a program alike: what is obeyed stands in it as `\uXXXX`, so the document says
/// exactly what it said. (In JSON, nothing of this stands outside of strings.)
pub fn json(document: &str) -> Cow<'_, str> {
    // Those below U+0020 are white space between tokens: in strings they are escaped already.
    let is_escaped = |c: char| c >= ' ' && is_obeyed(c);
    if !document.contains(is_escaped) {
        return Cow::Borrowed(document);
    }
    let mut escaped = String::with_capacity(document.len() + 64);
    for c in document.chars() {
        if is_escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}"); // writing to a String cannot fail
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
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

    const ANY: &str = "(\\PC|[\u{0}-\u{9f}\u{200b}\u{200e}\u{202e}\u{2028}\u{2066}\u{feff}\u{e0041}é🦀]){0,6000}";

    proptest! {
        #[test]
        fn a_plain_text_is_bounded_and_nothing_in_it_is_obeyed(text in ANY) {
            let reason = PlainText::from(&*text);
            prop_assert!(reason.as_str().len() <= PLAIN_TEXT_BYTES_MAX);
            prop_assert!(!reason.as_str().chars().any(is_obeyed));
            if text.len() < PLAIN_TEXT_BYTES_MAX && !text.chars().any(is_obeyed) {
                prop_assert_eq!(reason.as_str(), text);
            }
        }

        #[test]
        fn a_json_document_says_the_same_and_nothing_in_it_is_obeyed(text in ANY) {
            let document = serde_json::to_string(&text).unwrap();
            let escaped = json(&document);
            prop_assert!(!escaped.chars().any(is_obeyed));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
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
        assert_eq!(PlainText::from("x".repeat(4096)).as_str().len(), 4096);
    }

    #[test]
    fn a_line_is_one_line_and_lines_keep_their_ends() {
        assert_eq!(line("a\nb\r\u{9b}2J\u{202e}"), r"a\nb\r\u{9b}2J\u{202e}");
        assert_eq!(lines("error: \u{1b}[2J\n  hint: a\u{7}\n"), "error: \\u{1b}[2J\n  hint: a\\u{7}");
    }
}
