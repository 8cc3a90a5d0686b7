//! Schemas that look at the tree as it is: the traits by which the schema library reads a JSON that is not serde_json's
//! (`jsonschema::json`, version 0.61), and what a schema may use.

use std::borrow::Cow;

use jsonschema::json::{Array, JsonNumber, Node, NodeIdentity, Object};
use jsonschema::{Draft, JsonType, PatternOptions, Validator};
use serde_json::{Number, Value};

use crate::tree::{Json, Member, Members};

/// What one regular expression of a schema may take, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A compiled schema (draft 7, formats on, formats that nobody knows are an error).
#[derive(Debug)]
pub struct Schema(Validator<Tree>);

/// One thing that is wrong with an event.
pub struct Finding {
    /// A JSON pointer into the event.
    pub at: String,
    /// The text there, if it is one.
    pub text: Option<String>,
    pub said: String,
    /// A JSON pointer into the schema.
    pub rule: String,
}

impl Schema {
    /// The error says where in the schema, and what.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let validator = jsonschema::options_for::<Tree>()
            .with_draft(Draft::Draft7)
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            // `uuid` came with a later draft: without this line a conforming validator lets "not-a-uuid" pass.
            .with_format("uuid", |text: &str| uuid::Uuid::try_parse(text).is_ok() && text.len() == 36)
            // Linear time: a schema's pattern cannot be made to backtrack by an event.
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
            .build(schema);
        validator.map(Self).map_err(|error| format!("{}: {error}", error.instance_path().as_str()))
    }

    pub fn is_valid(&self, json: &Json<'_>) -> bool {
        self.0.is_valid(json)
    }

    /// What is wrong, one thing after the other.
    pub fn findings<'a>(&'a self, json: &'a Json<'a>) -> impl Iterator<Item = Finding> + 'a {
        self.0.iter_errors(json).map(|error| Finding {
            at: error.instance_path().as_str().to_owned(),
            text: error.instance().as_str().map(str::to_owned),
            said: error.to_string(),
            rule: error.schema_path().as_str().to_owned(),
        })
    }
}

/// The tree as a representation of JSON.
#[derive(Debug)]
struct Tree;

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
            Json::String(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }
    fn as_number(&self) -> Option<Written<'a>> {
        match self {
            Json::Number(number) => Some(Written(number)),
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
        match self {
            Json::Null => JsonType::Null,
            Json::Bool(_) => JsonType::Boolean,
            Json::Number(_) => JsonType::Number,
            Json::String(_) => JsonType::String,
            Json::Array(_) => JsonType::Array,
            Json::Object(_) => JsonType::Object,
        }
    }
    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(Json::to_value(self))
    }
    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Json<'a>>(*self) as usize))
    }
}

struct Written<'a>(&'a Number);

impl JsonNumber for Written<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.as_u64()
    }
    fn as_i64(&self) -> Option<i64> {
        self.0.as_i64()
    }
    fn as_f64(&self) -> Option<f64> {
        self.0.as_f64()
    }
    fn as_str(&self) -> Cow<'_, str> {
        Cow::Owned(self.0.to_string())
    }
    fn to_number(&self) -> Cow<'_, Number> {
        Cow::Borrowed(self.0)
    }
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

struct Each<'a>(std::slice::Iter<'a, Member<'a>>);

impl<'a> Iterator for Each<'a> {
    type Item = (&'a str, &'a Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|member| (&*member.name, &member.value))
    }
}

impl<'a> Array<'a, Tree> for &'a [Json<'a>] {
    type Node = &'a Json<'a>;
    type ElementsIter = std::slice::Iter<'a, Json<'a>>;

    fn len(&self) -> usize {
        <[Json<'a>]>::len(self)
    }
    fn elements(&self) -> std::slice::Iter<'a, Json<'a>> {
        self.iter()
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
