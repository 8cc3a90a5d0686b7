//! An event's envelope, read in one pass: its small members as they are, `data` only found. Whether an event is wanted is
//! known before its data is looked into.

use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::keep::{AsRead, AsWritten, Keep};
use crate::number::may_be_long;
use crate::read::{self, Anything, Text};
use crate::tree::{Json, Member, Members};

/// Members by which it is decided what an event is and what of it is checked: one that is there twice could be read in two
/// ways, so it is an error.
const ONCE: [&str; 3] = ["event_type", "version", "data"];

pub struct Envelope<'a> {
    members: Vec<Member<'a>>,
    data: Option<&'a str>,
    /// How `data` is to be read.
    as_written: bool,
}

impl<'a> Envelope<'a> {
    pub fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        match may_be_long(text) {
            true => Self::read_as_written(text),
            false => {
                let mut numbers = AsRead::default();
                let envelope = read(text, &mut numbers)?;
                if numbers.may_differ(text) { Self::read_as_written(text) } else { Ok(envelope) }
            }
        }
    }

    /// See [`Json::read_as_written`].
    pub fn read_as_written(text: &'a str) -> Result<Self, serde_json::Error> {
        Ok(Self { as_written: true, ..read(text, &mut AsWritten::new(text))? })
    }

    /// A member other than `data`.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.members.iter().rev().find(|member| member.name == name).map(|member| &member.value)
    }

    /// Takes a member other than `data` out of it, all if it is there several times; the last one counts.
    pub fn take(&mut self, name: &str) -> Option<Json<'a>> {
        self.members.extract_if(.., |member| member.name == name).last().map(|member| member.value)
    }

    /// The member `data`, as it is written.
    pub fn data(&self) -> Option<&'a str> {
        self.data
    }

    /// The whole of it as a tree, now with `data`.
    pub fn into_tree(mut self) -> Result<Json<'a>, serde_json::Error> {
        if let Some(text) = self.data {
            let value = if self.as_written { Json::read_as_written(text)? } else { read::read_short(text)? };
            self.members.push(Member { name: "data".into(), value });
        }
        Ok(Json::Object(Members::new(self.members)))
    }
}

fn read<'a>(text: &'a str, numbers: &mut impl Keep<'a>) -> Result<Envelope<'a>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let envelope = reader.deserialize_map(AnEnvelope(numbers))?;
    reader.end()?;
    Ok(envelope)
}

struct AnEnvelope<'n, N>(&'n mut N);

impl<'de, N: Keep<'de>> Visitor<'de> for AnEnvelope<'_, N> {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope { members: Vec::with_capacity(12), data: None, as_written: false };
        while let Some(Text(name)) = map.next_key()? {
            if let Some(once) = ONCE.into_iter().find(|once| *once == name)
                && (envelope.get(once).is_some() || (once == "data" && envelope.data.is_some()))
            {
                return Err(A::Error::duplicate_field(once));
            }
            if name == "data" {
                let data = map.next_value::<&RawValue>()?.get();
                self.0.pass(data);
                envelope.data = Some(data);
            } else {
                envelope.members.push(Member { name, value: map.next_value_seed(Anything(&mut *self.0))? });
            }
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_found_as_it_is_written() {
        let text = "{\"a\":1, \"data\" : { \"x\" : 1e2,\t\"y\":[ ] } ,\"b\":null,\"a\":2}";
        let envelope = Envelope::read(text).unwrap();
        assert_eq!(envelope.data(), Some("{ \"x\" : 1e2,\t\"y\":[ ] }"));
        assert_eq!(envelope.get("a"), Some(&Json::Number(2.into())));
        assert_eq!((envelope.get("b"), envelope.get("data")), (Some(&Json::Null), None));
        let (tree, value) = (envelope.into_tree().unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(tree.to_value(), value);
    }

    #[test]
    fn numbers_around_data_keep_their_text_as_those_in_it_do() {
        let text = r#"{"n":18446744073709551616,"data":{"x":[1.5,18446744073709551617]},"m":[2,18446744073709551618]}"#;
        let tree = Envelope::read(text).unwrap().into_tree().unwrap();
        for (pointer, number) in [("/n", "6"), ("/data/x/1", "7"), ("/m/1", "8")] {
            assert_eq!(tree.pointer(pointer), Some(&Json::Long(format!("1844674407370955161{number}").into())));
        }
    }

    /// What a number is does not depend on what stands beside it.
    #[test]
    fn numbers_too_small_for_a_float_are_no_zero() {
        for beside in ["1", "12345678901234567890"] {
            let text = format!(r#"{{"n":1e-999,"data":{{"n":1e-400,"x":0.0}},"m":{beside}}}"#);
            let tree = Envelope::read(&text).unwrap().into_tree().unwrap();
            assert_eq!(tree.pointer("/n"), Some(&Json::Long("1e-999".into())), "{beside}");
            assert_eq!(tree.pointer("/data/n"), Some(&Json::Long("1e-400".into())), "{beside}");
            assert!(matches!(tree.pointer("/data/x"), Some(Json::Number(_))), "{beside}");
        }
    }

    #[test]
    fn what_is_taken_is_gone_and_the_last_counts() {
        let mut envelope = Envelope::read(r#"{"h":1,"data":{"h":3},"h":2,"i":4}"#).unwrap();
        assert_eq!((envelope.take("h"), envelope.take("h")), (Some(Json::Number(2.into())), None));
        let left = serde_json::json!({ "data": { "h": 3 }, "i": 4 });
        assert_eq!(envelope.into_tree().unwrap().to_value(), left);
    }

    #[test]
    fn what_decides_is_there_once() {
        for name in ONCE {
            let error = Envelope::read(&format!("{{\"{name}\":1,\"{name}\":2}}")).err().unwrap().to_string();
            assert!(error.starts_with(&format!("duplicate field `{name}`")), "{error}");
        }
        assert!(Envelope::read("[]").is_err() && Envelope::read("{} {}").is_err());
        assert_eq!(Envelope::read("{\"data\":null}").unwrap().data(), Some("null"));
    }
}
