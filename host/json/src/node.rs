//! The tree as a representation of JSON: the traits by which the schema library reads one that is not serde_json's
//! (`jsonschema::json`, version 0.61). Every look at it is a step of the check.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::RandomState;

use jsonschema::JsonType;
use jsonschema::json::{Array, JsonNumber, Node, NodeIdentity, Object, cmp};
use serde_json::{Number, Value};

use crate::bounds;
use crate::number::{Decimal, nearest};
use crate::tree::{Json, Member, Members};

thread_local! {
    /// Whether a check has looked at a number that the library cannot compare.
    static LOOKED_AT_LONG: Cell<bool> = const { Cell::new(false) };
}

/// In a check: a number is looked at that is not what floats can say.
#[cold]
fn looked_at_long() {
    LOOKED_AT_LONG.set(true);
}

/// Whether that has happened since this was last asked.
pub(crate) fn take_looked_at_long() -> bool {
    let looked = LOOKED_AT_LONG.get();
    if looked {
        LOOKED_AT_LONG.set(false);
    }
    looked
}

#[derive(Debug)]
pub(crate) struct Tree;

impl jsonschema::json::Json for Tree {
    type Node<'a> = &'a Json<'a>;
    type PreparedKey = String;
    type StringBuffer = ();
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), text: &str, f: impl FnOnce(Self::Node<'_>) -> T) -> T {
        f(&Json::String(Cow::Borrowed(text)))
    }
}

impl<'a> Node<'a, Tree> for &'a Json<'a> {
    type Object = &'a Members<'a>;
    type Array = &'a [Json<'a>];
    type Number = Written<'a>;

    fn as_object(&self) -> Option<&'a Members<'a>> {
        match self {
            Json::Object(members) => Some(members),
            _ => None,
        }
    }
    fn as_array(&self) -> Option<&'a [Json<'a>]> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }
    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Json::String(text) => {
                bounds::text(text.len());
                Some(Cow::Borrowed(text))
            }
            _ => None,
        }
    }
    fn as_number(&self) -> Option<Written<'a>> {
        match self {
            Json::Number(number) => Some(Written::Read(number)),
            Json::Long(text) => {
                looked_at_long();
                bounds::steps(text.len());
                Some(Written::Long(text))
            }
            _ => None,
        }
    }
    fn as_boolean(&self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }
    fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }
    fn json_type(&self) -> JsonType {
        bounds::step();
        match self {
            Json::Null => JsonType::Null,
            Json::Bool(_) => JsonType::Boolean,
            Json::Number(_) | Json::Long(_) => JsonType::Number,
            Json::String(_) => JsonType::String,
            Json::Array(_) => JsonType::Array,
            Json::Object(_) => JsonType::Object,
        }
    }
    /// In a check the library asks for it where a value is wrong: for each error that it collects it keeps a copy.
    fn to_value(&self) -> Cow<'a, Value> {
        if !bounds::error(std::ptr::from_ref::<Json<'a>>(*self) as usize) {
            return Cow::Owned(Json::to_value(self));
        }
        Cow::Owned(self.beginning())
    }
    /// Without a copy of the value.
    fn equals_value(&self, expected: &Value) -> bool {
        bounds::step();
        equals(self, expected)
    }
    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Json<'a>>(*self) as usize))
    }
    /// What verdicts are remembered by.
    fn container_identity(&self) -> Option<NodeIdentity> {
        let is_container = matches!(self, Json::Object(_) | Json::Array(_));
        (is_container && bounds::may_remember()).then(|| self.identity()).flatten()
    }
}

pub(crate) enum Written<'a> {
    Read(&'a Number),
    Long(&'a Cow<'a, str>),
}

impl JsonNumber for Written<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.read()?.as_u64()
    }
    fn as_i64(&self) -> Option<i64> {
        self.read()?.as_i64()
    }
    fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Read(number) => number.as_f64(),
            Self::Long(text) => Some(nearest(text)),
        }
    }
    fn as_str(&self) -> Cow<'_, str> {
        match self {
            Self::Read(number) => Cow::Owned(number.to_string()),
            Self::Long(text) => Cow::Borrowed(text),
        }
    }
    fn to_number(&self) -> Cow<'_, Number> {
        match self {
            Self::Read(number) => Cow::Borrowed(number),
            Self::Long(text) => Cow::Owned(Number::from_f64(nearest(text)).unwrap_or(0.into())),
        }
    }
    fn is_integer(&self) -> bool {
        match self {
            Self::Read(number) => is_integer(number),
            Self::Long(text) => Decimal::parse(text).is_integer(),
        }
    }
}

impl<'a> Written<'a> {
    fn read(&self) -> Option<&'a Number> {
        match self {
            Self::Read(number) => Some(number),
            Self::Long(_) => None,
        }
    }
}

fn is_integer(number: &Number) -> bool {
    number.is_u64() || number.is_i64() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
}

impl<'a> Object<'a, Tree> for &'a Members<'a> {
    type Node = &'a Json<'a>;
    type MemberName = &'a str;
    type MembersIter = Each<'a>;

    fn len(&self) -> usize {
        Members::len(self)
    }
    fn get(&self, name: &String) -> Option<&'a Json<'a>> {
        Members::get(self, name)
    }
    fn members(&self) -> Each<'a> {
        Each(self.iter())
    }
}

pub(crate) struct Each<'a>(std::slice::Iter<'a, Member<'a>>);

impl<'a> Iterator for Each<'a> {
    type Item = (&'a str, &'a Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        bounds::step();
        let member = self.0.next()?;
        bounds::name(member.name.len());
        Some((&*member.name, &member.value))
    }
}

impl<'a> Array<'a, Tree> for &'a [Json<'a>] {
    type Node = &'a Json<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        <[Json<'a>]>::len(self)
    }
    fn elements(&self) -> Elements<'a> {
        Elements(self.iter())
    }
    /// Without a copy of the items.
    fn is_unique(&self) -> bool {
        let keys = RandomState::new();
        let mut seen = HashMap::<u64, Vec<&Json<'_>>>::new();
        self.elements().all(|item| {
            let alike = seen.entry(item.hash(&keys)).or_default();
            let unique = !alike.iter().any(|other| {
                bounds::step();
                item.same(other)
            });
            alike.push(item);
            unique
        })
    }
}

pub(crate) struct Elements<'a>(std::slice::Iter<'a, Json<'a>>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a Json<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        bounds::step();
        self.0.next()
    }
}

fn equals(json: &Json<'_>, expected: &Value) -> bool {
    match (json, expected) {
        (Json::Number(number), Value::Number(_)) => cmp::equal(&Value::Number(number.clone()), expected),
        (Json::Long(text), Value::Number(expected)) => {
            bounds::steps(text.len());
            Decimal::parse(text) == Decimal::of(expected)
        }
        (Json::Array(items), Value::Array(wanted)) => {
            items.len() == wanted.len() && items.iter().zip(wanted).all(|(item, wanted)| equals(item, wanted))
        }
        (Json::Object(members), Value::Object(wanted)) => {
            let has = |(name, wanted): (&String, &Value)| members.get(name).is_some_and(|value| equals(value, wanted));
            members.len() == wanted.len() && wanted.iter().all(has)
        }
        (Json::String(text), Value::String(wanted)) => {
            if text.len() == wanted.len() {
                bounds::text(wanted.len());
            }
            text == wanted
        }
        (Json::Bool(value), Value::Bool(wanted)) => value == wanted,
        (Json::Null, Value::Null) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_keeps_the_library_s_contract() {
        let text = jsonschema::json::conformance::document().to_string();
        let tree = Json::read(&text).unwrap();
        jsonschema::json::conformance::assert_conformance::<Tree>(&&tree);
    }
}
