//! Schemas that look at the tree as it is: the traits by which the schema library reads a JSON that is not serde_json's
//! (`jsonschema::json`, version 0.61), and what a schema may use.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::RandomState;

use jsonschema::error::ValidationErrorKind;
use jsonschema::json::{Array, JsonNumber, Node, NodeIdentity, Object, cmp};
use jsonschema::{Draft, JsonType, PatternOptions, ValidationError, Validator};
use serde_json::{Number, Value};

use crate::bounds::{self, Beyond};
use crate::tree::{Json, Member, Members, SHOWN_BYTES};

/// What one regular expression of a schema may take, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A compiled schema (draft 7, formats on, formats that nobody knows are an error).
#[derive(Debug)]
pub struct Schema(Validator<Tree>);

/// One thing that is wrong with an event.
#[derive(Debug)]
pub struct Finding {
    /// A JSON pointer into the event.
    pub at: String,
    /// The text there, if it is one.
    pub text: Option<String>,
    pub said: String,
    /// A JSON pointer into the schema; none if what is wrong could not be told apart.
    pub rule: Option<String>,
}

/// What is wrong with an event: the first few things.
#[derive(Debug)]
pub struct Findings {
    pub first: Vec<Finding>,
    /// Whether there is more.
    pub more: bool,
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

    /// What is wrong with an event of this size, at most `max` things; none: it obeys the schema. Whatever the event, the
    /// check ends within [`bounds`], and what it takes does not grow with the number of errors.
    pub fn check(&self, json: &Json<'_>, event_bytes: usize, max: usize) -> Result<(), Findings> {
        match bounds::within(event_bytes, || self.0.is_valid(json)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.findings(json, event_bytes, max)),
            Err(_) => Err(too_long(event_bytes)),
        }
    }

    fn findings(&self, json: &Json<'_>, event_bytes: usize, max: usize) -> Findings {
        let all = bounds::within(event_bytes, || {
            let mut errors = self.0.iter_errors(json);
            let first = errors.by_ref().take(max).map(|error| finding(json, &error)).collect();
            Findings { first, more: errors.next().is_some() }
        });
        // With too many to collect, the first one by itself; that fails only where a union collects those of its branches.
        let one = |_| {
            bounds::within(event_bytes, || {
                let error = self.0.validate(json).err();
                Findings { first: error.iter().map(|error| finding(json, error)).collect(), more: true }
            })
        };
        match all.or_else(one) {
            Ok(findings) => findings,
            Err(Beyond::Errors { first }) => {
                let said = format!("more than {} things about it are wrong", bounds::ERRORS_MAX);
                Findings { first: vec![Finding { at: address(json, first), text: None, said, rule: None }], more: true }
            }
            Err(Beyond::Steps) => too_long(event_bytes),
        }
    }
}

fn finding(json: &Json<'_>, error: &ValidationError<'_>) -> Finding {
    let at = error.instance_path().as_str();
    let value = json.pointer(at);
    Finding {
        at: at.to_owned(),
        text: value.and_then(Json::as_str).map(|text| text[..text.floor_char_boundary(SHOWN_BYTES)].to_owned()),
        said: match error.kind() {
            // Its own words count the items of the array, of which an error holds the first ones only.
            ValidationErrorKind::AdditionalItems { limit } => {
                format!("it has more items than the {limit} that are allowed")
            }
            _ => error.to_string(),
        },
        rule: Some(error.schema_path().as_str().to_owned()),
    }
}

fn too_long(event_bytes: usize) -> Findings {
    let steps = bounds::STEPS_MIN + bounds::STEPS_PER_BYTE * event_bytes as u64;
    let said =
        format!("checking it takes more than {steps} steps (STEPS_MIN, STEPS_PER_BYTE): its schema asks too much");
    Findings { first: vec![Finding { at: String::new(), text: None, said, rule: None }], more: false }
}

fn equals(json: &Json<'_>, expected: &Value) -> bool {
    match (json, expected) {
        (Json::Number(number), Value::Number(_)) => cmp::equal(&Value::Number(number.clone()), expected),
        (Json::Array(items), Value::Array(wanted)) => {
            items.len() == wanted.len() && items.iter().zip(wanted).all(|(item, wanted)| equals(item, wanted))
        }
        (Json::Object(members), Value::Object(wanted)) => {
            let has = |(name, wanted): (&String, &Value)| members.get(name).is_some_and(|value| equals(value, wanted));
            members.len() == wanted.len() && wanted.iter().all(has)
        }
        (Json::String(text), Value::String(wanted)) => text == wanted,
        (Json::Bool(value), Value::Bool(wanted)) => value == wanted,
        (Json::Null, Value::Null) => true,
        _ => false,
    }
}

/// The JSON pointer of the value that lies at this address.
fn address(json: &Json<'_>, wanted: usize) -> String {
    fn find(json: &Json<'_>, wanted: usize, path: &mut Vec<String>) -> bool {
        if std::ptr::from_ref(json) as usize == wanted {
            return true;
        }
        let mut inside = |name: String, value: &Json<'_>| {
            path.push(name);
            let found = find(value, wanted, path);
            if !found {
                path.pop();
            }
            found
        };
        match json {
            Json::Array(items) => items.iter().enumerate().any(|(at, item)| inside(at.to_string(), item)),
            Json::Object(members) => {
                members.iter().any(|member| inside(member.name.replace('~', "~0").replace('/', "~1"), &member.value))
            }
            _ => false,
        }
    }
    let mut path = Vec::new();
    find(json, wanted, &mut path);
    path.iter().map(|name| format!("/{name}")).collect()
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
        bounds::step();
        match self {
            Json::Null => JsonType::Null,
            Json::Bool(_) => JsonType::Boolean,
            Json::Number(_) => JsonType::Number,
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
        bounds::step();
        self.0.next().map(|member| (&*member.name, &member.value))
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

struct Elements<'a>(std::slice::Iter<'a, Json<'a>>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a Json<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        bounds::step();
        self.0.next()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn findings(schema: &Value, event: &str) -> Findings {
        Schema::compile(schema).unwrap().check(&Json::read(event).unwrap(), event.len(), 3).unwrap_err()
    }

    #[test]
    fn a_refusal_costs_no_more_where_more_is_wrong() {
        let item = json!({ "type": "object", "required": ["a", "b", "c"] });
        let plain = json!({ "properties": { "items": { "items": item } } });
        let found = findings(&plain, &format!("{{\"items\":[{}{{}}]}}", "{},".repeat(300_000)));
        assert_eq!((found.first.len(), found.more), (1, true));
        assert_eq!((&*found.first[0].at, &*found.first[0].said), ("/items/0", "\"a\" is a required property"));

        let branch =
            |kind: &str| json!({ "required": ["a", "b", "c", "d"], "properties": { "kind": { "const": kind } } });
        let branches: Vec<Value> = (0..20).map(|number| branch(&number.to_string())).collect();
        let union = json!({ "properties": { "labels": { "items": { "anyOf": branches } } } });
        let outer = json!({ "properties": { "data": { "anyOf": [union, union, union] } } });
        let found = findings(&outer, &format!("{{\"data\":{{\"labels\":[{}{{}}]}}}}", "{},".repeat(30_000)));
        assert_eq!((&*found.first[0].at, found.more), ("/data", true));
        assert!(found.first[0].said.contains("more than 1000 things"), "{}", found.first[0].said);
    }

    #[test]
    fn a_schema_that_asks_too_much_is_stopped() {
        // Each level asks the next one twice: 2^40 in all.
        let level = |next: u32| {
            let next = json!({ "$ref": format!("#/definitions/l{next}") });
            json!({ "anyOf": [{ "allOf": [next, { "type": "string" }] }, { "allOf": [next, { "type": "null" }] }] })
        };
        let mut levels: serde_json::Map<String, Value> = (0..40).map(|at| (format!("l{at}"), level(at + 1))).collect();
        levels.insert("l40".into(), json!({ "type": "number" }));
        let schema = json!({ "properties": { "x": { "$ref": "#/definitions/l0" } }, "definitions": levels });
        let found = findings(&schema, "{\"x\":1}");
        assert!(found.first[0].said.contains("STEPS_MIN"), "{}", found.first[0].said);
    }

    #[test]
    fn what_is_shown_of_a_value_is_its_beginning() {
        let long = "é".repeat(100_000);
        let found =
            findings(&json!({ "type": "string" }), &format!("{{\"{long}\":[\"{long}\",{}1]}}", "[],".repeat(100_000)));
        assert!(found.first[0].said.len() < 700, "{}", found.first[0].said.len());
        let found =
            findings(&json!({ "items": [{}], "additionalItems": false }), &format!("[{}1]", "0,".repeat(100_000)));
        assert_eq!(found.first[0].said, "it has more items than the 1 that are allowed");
    }

    #[test]
    fn sameness_is_that_of_json_schema() {
        let unique = Schema::compile(&json!({ "uniqueItems": true })).unwrap();
        for (items, wanted) in [
            ("1,2,\"1\",[1],{\"a\":1},null,false,0,[],{}", true),
            ("1,1.0", false),
            ("0,-0.0", false),
            ("{\"a\":1,\"b\":[2]},{\"b\":[2.0],\"a\":1}", false),
            ("{\"a\":1},{\"a\":1,\"b\":2}", true),
            ("9007199254740993,9007199254740992", true),
        ] {
            let text = format!("[{items}]");
            let json = Json::read(&text).unwrap();
            assert_eq!(unique.check(&json, text.len(), 3).is_ok(), wanted, "{text}");
            let library = jsonschema::is_valid(&json!({ "uniqueItems": true }), &serde_json::from_str(&text).unwrap());
            assert_eq!(library, wanted, "{text}");
        }
        let same = Schema::compile(&json!({ "const": { "a": [1, 2.5, null, true, "x"] } })).unwrap();
        let check = |text: &str| same.check(&Json::read(text).unwrap(), text.len(), 3).is_ok();
        assert!(check("{\"a\":[1.0,2.5,null,true,\"x\"]}") && !check("{\"a\":[1,2.5,null,true,\"y\"]}"));
    }

    #[test]
    fn the_tree_keeps_the_library_s_contract() {
        let text = jsonschema::json::conformance::document().to_string();
        let tree = Json::read(&text).unwrap();
        jsonschema::json::conformance::assert_conformance::<Tree>(&&tree);
    }
}
