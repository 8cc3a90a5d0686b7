//! A value that stands as text in the file: parsed once, as the file is read.

use std::cmp::Ordering;
use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// The text and what it means. A text without a meaning is kept too: `check` names all that are wrong, each at its key,
/// where an error of the reader would end at the first.
#[derive(Debug, Clone)]
pub struct Parsed<T> {
    pub text: String,
    pub value: Result<T, String>,
}

/// The values that could be parsed. A checked configuration has no others.
pub(crate) fn values<'a, T: Clone + 'a>(list: impl IntoIterator<Item = &'a Parsed<T>>) -> Vec<T> {
    list.into_iter().filter_map(|one| one.value.clone().ok()).collect()
}

impl<T: FromStr<Err: Display>> From<String> for Parsed<T> {
    fn from(text: String) -> Self {
        let value = text.parse().map_err(|error: T::Err| error.to_string());
        Self { text, value }
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl<T> PartialEq for Parsed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<T> Eq for Parsed<T> {}

impl<T> PartialOrd for Parsed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Parsed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}
