//! Numbers while a text is read: as the reader takes them, or as they are written.

use serde_json::Number;

use crate::number::Decimal;
use crate::tree::Json;

/// How a reader keeps the numbers that it comes to, in the order of the text.
pub(crate) trait Keep<'a> {
    fn keep(&mut self, read: Number) -> Json<'a>;
    /// The reader has passed this part of the text over.
    fn pass(&mut self, part: &'a str);
}

/// As they are read: right where neither [`may_be_long`] nor [`AsRead::may_differ`] says otherwise.
#[derive(Default)]
pub(crate) struct AsRead {
    /// There was a zero, or a float that is too small to have all of its digits.
    tiny: bool,
}

impl AsRead {
    /// Whether such a number may be none of those that are written: 1e-400 is no zero.
    pub(crate) fn may_differ(&self, text: &str) -> bool {
        let small = |part: &[u8]| {
            part[0].is_ascii_digit()
                && matches!(part[1], b'e' | b'E')
                && part[2] == b'-'
                && part[3..].iter().all(u8::is_ascii_digit)
        };
        self.tiny && text.as_bytes().windows("1e-308".len()).any(small)
    }
}

impl<'a> Keep<'a> for AsRead {
    fn keep(&mut self, read: Number) -> Json<'a> {
        self.tiny |= read.is_f64() && read.as_f64().is_some_and(|float| float.abs() < f64::MIN_POSITIVE);
        Json::Number(read)
    }
    fn pass(&mut self, _: &'a str) {}
}

/// With the text of those that are not what was read: it is looked for in the same text, side by side with the reader.
pub(crate) struct AsWritten<'a>(&'a str);

impl<'a> AsWritten<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The next number. The text is JSON as far as the reader has come.
    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.0.as_bytes();
        let mut at = 0;
        while !matches!(bytes.get(at)?, b'-' | b'0'..=b'9') {
            if bytes[at] == b'"' {
                at += 1;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            at += 1;
        }
        let len = bytes[at..].iter().take_while(|byte| is_of_number(**byte)).count();
        let (number, rest) = (self.0.get(at..at + len)?, self.0.get(at + len..)?);
        self.0 = rest;
        Some(number)
    }
}

impl<'a> Keep<'a> for AsWritten<'a> {
    fn keep(&mut self, read: Number) -> Json<'a> {
        match self.next() {
            Some(text) if read.is_f64() && Decimal::of(&read) != Decimal::parse(text) => Json::Long(text.into()),
            _ => Json::Number(read),
        }
    }
    fn pass(&mut self, part: &'a str) {
        let passed = part.as_ptr() as usize + part.len() - self.0.as_ptr() as usize;
        self.0 = self.0.get(passed..).unwrap_or_default();
    }
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}
