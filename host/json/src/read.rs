//! Reading the tree: in one pass, with every text that has no escapes borrowed from the input.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::keep::{AsRead, AsWritten, Keep};
use crate::number::may_be_long;
use crate::tree::{Json, Member, Members};

/// Room for the members of an object, made with the second of them: most have no more.
const MEMBERS: usize = 8;

impl<'a> Json<'a> {
    /// Reads exactly one value. Serde's own limit of 128 levels stops what is too deep.
    pub fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        match may_be_long(text) {
            true => Self::read_as_written(text),
            false => read_short(text),
        }
    }

    /// The same, however few digits a number has: none is taken for what it is not, such as 1e-400 for 0.
    pub fn read_as_written(text: &'a str) -> Result<Self, serde_json::Error> {
        read(text, &mut AsWritten::new(text))
    }
}

/// Exactly one value.
fn read<'a>(text: &'a str, numbers: &mut impl Keep<'a>) -> Result<Json<'a>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let json = Anything(numbers).deserialize(&mut reader)?;
    reader.end()?;
    Ok(json)
}

/// The same for a text in which no number has many digits.
pub(crate) fn read_short(text: &str) -> Result<Json<'_>, serde_json::Error> {
    let mut numbers = AsRead::default();
    let json = read(text, &mut numbers)?;
    if numbers.may_differ(text) { read(text, &mut AsWritten::new(text)) } else { Ok(json) }
}

/// Any value, with its numbers kept in this way.
pub(crate) struct Anything<'n, N>(pub &'n mut N);

impl<'de, N: Keep<'de>> DeserializeSeed<'de> for Anything<'_, N> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, N: Keep<'de>> Visitor<'de> for Anything<'_, N> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }
    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(self.0.keep(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(self.0.keep(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        // There is no infinity in JSON, and what is too large for a float is an error of the reader.
        Ok(Number::from_f64(value).map_or(Json::Null, |number| self.0.keep(number)))
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::String(Cow::Owned(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Anything(&mut *self.0))? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let Some(Text(name)) = map.next_key()? else { return Ok(Json::Object(Members::default())) };
        let first = Member { name, value: map.next_value_seed(Anything(&mut *self.0))? };
        // Room for more is made only where there are more: objects of one member each would take fifty times their text.
        let Some(Text(name)) = map.next_key()? else { return Ok(Json::Object(Members::new(vec![first]))) };
        let mut all = Vec::with_capacity(MEMBERS);
        all.push(first);
        all.push(Member { name, value: map.next_value_seed(Anything(&mut *self.0))? });
        while let Some(Text(name)) = map.next_key()? {
            all.push(Member { name, value: map.next_value_seed(Anything(&mut *self.0))? });
        }
        if all.len() <= MEMBERS / 2 {
            all.shrink_to_fit();
        }
        Ok(Json::Object(Members::new(all)))
    }
}

/// A text that is borrowed if it can be. Serde's own `Cow` never is.
pub(crate) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AText)
    }
}

struct AText;

impl<'de> Visitor<'de> for AText {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}
