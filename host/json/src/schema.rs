//! Schemas that look at the tree as it is (`node`): what a schema may use, and what is wrong with an event.

use std::sync::OnceLock;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::bounds::{self, Beyond};
use crate::draft::draft_of;
use crate::exact;
use crate::node::{self, Tree};
use crate::tree::{Json, SHOWN_BYTES};

/// What one regular expression of a schema may take, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A compiled schema (drafts 4, 6 and 7, formats on, unknown formats are an error).
#[derive(Debug)]
pub struct Schema {
    quick: Validator<Tree>,
    /// For events with numbers that `quick` compares as floats: made from the text when the first one comes. None if it
    /// could not be made; if `quick` is exact by itself, it is there from the beginning and never asked.
    exact: OnceLock<Option<Validator<Tree>>>,
    text: Box<str>,
    /// Patterns that a name of one object is tried on, at most.
    patterns: usize,
}

/// One thing that is wrong with an event.
#[derive(Debug)]
pub struct Mismatch {
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
pub struct Mismatches {
    pub first: Vec<Mismatch>,
    /// Whether there is more.
    pub more: bool,
}

impl Schema {
    /// The error says where in the schema, and what.
    pub fn compile(text: &str) -> Result<Self, String> {
        let json = Json::read(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let (schema, needs_exact) = exact::to_value(&json);
        let quick = validator(&schema, needs_exact)?;
        let exact = if needs_exact { OnceLock::from(None) } else { OnceLock::new() };
        let text = if needs_exact { "".into() } else { text.into() };
        Ok(Self { quick, exact, text, patterns: patterns(&schema) })
    }

    /// The validator that decides on the event which was just looked at. Making it does not fail: the text was read when
    /// the schema was loaded, and numbers that exact keywords refuse are long, so that they were made and refused then.
    fn deciding(&self) -> &Validator<Tree> {
        let make = || validator(&serde_json::from_str(&self.text).ok()?, true).ok();
        self.exact.get_or_init(make).as_ref().unwrap_or(&self.quick)
    }

    /// What is wrong with an event of this size, at most `max` things; none: it obeys the schema. Whatever the event, the
    /// check ends within [`bounds`], and what it takes does not grow with the number of errors.
    pub fn check(&self, json: &Json<'_>, event_bytes: usize, max: usize) -> Result<(), Mismatches> {
        let patterns = self.patterns;
        let is_valid = |validator: &Validator<Tree>| bounds::within(event_bytes, patterns, || validator.is_valid(json));
        let (mut validator, mut valid) = (&self.quick, is_valid(&self.quick));
        if node::take_looked_at_long() {
            validator = self.deciding();
            valid = is_valid(validator);
        }
        match valid {
            Ok(true) => Ok(()),
            Ok(false) => Err(findings(validator, patterns, json, event_bytes, max)),
            Err(_) => Err(too_long(event_bytes)),
        }
    }
}

fn validator(schema: &Value, exact: bool) -> Result<Validator<Tree>, String> {
    let options = jsonschema::options_for::<Tree>()
        .with_draft(draft_of(schema)?)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        // `uuid` came with a later draft: without this line a conforming validator lets "not-a-uuid" pass.
        .with_format("uuid", |text: &str| uuid::Uuid::try_parse(text).is_ok() && text.len() == 36)
        // Linear time: a schema's pattern cannot be made to backtrack by an event.
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX));
    let options = if exact { exact::with_keywords(options) } else { options };
    options.build(schema).map_err(|error| format!("{}: {error}", error.instance_path().as_str()))
}

/// The largest of its `patternProperties`.
fn patterns(schema: &Value) -> usize {
    match schema {
        Value::Array(items) => items.iter().map(patterns).max().unwrap_or(0),
        Value::Object(members) => {
            let here = members.get("patternProperties").and_then(Value::as_object).map_or(0, serde_json::Map::len);
            members.values().map(patterns).fold(here, usize::max)
        }
        _ => 0,
    }
}

fn findings(
    validator: &Validator<Tree>,
    patterns: usize,
    json: &Json<'_>,
    event_bytes: usize,
    max: usize,
) -> Mismatches {
    let all = bounds::within(event_bytes, patterns, || {
        let mut errors = validator.iter_errors(json);
        let first = errors.by_ref().take(max).map(|error| finding(json, &error)).collect();
        Mismatches { first, more: errors.next().is_some() }
    });
    // With too many to collect, the first one by itself; that fails only where a union collects those of its branches.
    let one = |_| {
        bounds::within(event_bytes, patterns, || {
            let error = validator.validate(json).err();
            Mismatches { first: error.iter().map(|error| finding(json, error)).collect(), more: true }
        })
    };
    match all.or_else(one) {
        Ok(findings) => findings,
        Err(Beyond::Errors { first }) => {
            let said = format!("more than {} things about it are wrong", bounds::ERRORS_MAX);
            Mismatches { first: vec![Mismatch { at: address(json, first), text: None, said, rule: None }], more: true }
        }
        Err(Beyond::Steps) => too_long(event_bytes),
    }
}

fn finding(json: &Json<'_>, error: &ValidationError<'_>) -> Mismatch {
    let at = error.instance_path().as_str();
    let value = json.pointer(at);
    Mismatch {
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

fn too_long(event_bytes: usize) -> Mismatches {
    let steps = bounds::STEPS_MIN + bounds::STEPS_PER_BYTE * event_bytes as u64;
    let said =
        format!("checking it takes more than {steps} steps (STEPS_MIN, STEPS_PER_BYTE): its schema asks too much");
    Mismatches { first: vec![Mismatch { at: String::new(), text: None, said, rule: None }], more: false }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn findings(schema: &Value, event: &str) -> Mismatches {
        Schema::compile(&schema.to_string()).unwrap().check(&Json::read(event).unwrap(), event.len(), 3).unwrap_err()
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

    /// Each round of the pattern takes some 200 bytes once it is compiled.
    ///
    /// Reaches `PATTERN_BYTES_MAX`.
    #[test]
    fn a_pattern_has_a_bound() {
        let compiled = |rounds: u32| Schema::compile(&format!(r#"{{"pattern":"^(?:[a-z]{{10}}-){{{rounds}}}$"}}"#));
        let (mut good, mut bad) = (1, 100_000);
        while bad - good > 1 {
            let middle = (good + bad) / 2;
            match compiled(middle) {
                Ok(_) => good = middle,
                Err(_) => bad = middle,
            }
        }
        let refused = compiled(bad).unwrap_err();
        assert!(refused.contains("pattern"), "{refused}");
        let bytes_a_round = PATTERN_BYTES_MAX / good as usize;
        assert!((50..2000).contains(&bytes_a_round), "{good} rounds pass, {bad} do not");
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
        let unique = Schema::compile("{\"uniqueItems\":true}").unwrap();
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
        let same = Schema::compile(r#"{"const":{"a":[1,2.5,null,true,"x"]}}"#).unwrap();
        let check = |text: &str| same.check(&Json::read(text).unwrap(), text.len(), 3).is_ok();
        assert!(check("{\"a\":[1.0,2.5,null,true,\"x\"]}") && !check("{\"a\":[1,2.5,null,true,\"y\"]}"));
    }

    #[test]
    fn numbers_beyond_64_bits_and_floats_are_what_is_written() {
        for (schema, good, bad) in [
            (r#"{"const":18446744073709551616}"#, "18446744073709551616.0", "18446744073709551617"),
            (r#"{"const":18446744073709551617}"#, "1844674407370955161.7e1", "18446744073709551616"),
            (
                r#"{"const":{"a":[18446744073709551617]}}"#,
                r#"{"a":[18446744073709551617]}"#,
                r#"{"a":[18446744073709551616]}"#,
            ),
            (r#"{"enum":[1,18446744073709551616]}"#, "18446744073709551616", "18446744073709551617"),
            (r#"{"enum":["a",18446744073709551617]}"#, "18446744073709551617", "18446744073709551616"),
            (
                r#"{"properties":{"maximum":{"const":18446744073709551617}},"definitions":{"enum":{"const":18446744073709551617}}}"#,
                r#"{"maximum":18446744073709551617}"#,
                r#"{"maximum":18446744073709551616}"#,
            ),
            (
                r#"{"const":{"properties":{"maximum":18446744073709551617}}}"#,
                r#"{"properties":{"maximum":18446744073709551617}}"#,
                r#"{"properties":{"maximum":18446744073709551616}}"#,
            ),
            (r#"{"multipleOf":2}"#, "100000000000000000002", "100000000000000000001"),
            (r#"{"multipleOf":0.01}"#, "100000000000000000000.01", "100000000000000000000.001"),
            (r#"{"multipleOf":18446744073709551617}"#, "36893488147419103234", "36893488147419103232"),
            (r#"{"maximum":18446744073709551616}"#, "18446744073709551616", "18446744073709551617"),
            (r#"{"maximum":18446744073709551617}"#, "18446744073709551617", "18446744073709551618"),
            (r#"{"exclusiveMaximum":100000000000000000000}"#, "99999999999999999999.9", "100000000000000000000.0"),
            (r#"{"minimum":-9223372036854775808}"#, "-9223372036854775808", "-9223372036854775808.1"),
            (r#"{"exclusiveMinimum":0}"#, "0.0000000000000000000001", "-0.0000000000000000000001"),
            (r#"{"type":"integer"}"#, "170000000000000000000.0000", "17.0000000000000000000001"),
            (
                r#"{"uniqueItems":true}"#,
                "[18446744073709551616,18446744073709551617]",
                "[18446744073709551615,18446744073709551615.0]",
            ),
            (
                r#"{"$schema":"http://json-schema.org/draft-04/schema#","minimum":18446744073709551616,"exclusiveMinimum":true}"#,
                "18446744073709551617",
                "18446744073709551616",
            ),
        ] {
            let schema = Schema::compile(schema).unwrap();
            let check = |text: &str| schema.check(&Json::read(text).unwrap(), text.len(), 3);
            assert!(check(good).is_ok(), "{} {good} {:?}", schema.text, check(good));
            assert!(check(bad).is_err(), "{} {bad}", schema.text);
        }
        let found = findings(&json!({ "properties": { "x": { "maximum": 5 } } }), r#"{"x":18446744073709551617}"#);
        let first = &found.first[0];
        assert_eq!((&*first.at, &*first.said), ("/x", "18446744073709551617 is greater than the maximum of 5"));
        assert_eq!(first.rule.as_deref(), Some("/properties/x/maximum"));
    }

    /// Definitions that each ask for the next one twice: without a bound half a million looks at one text.
    #[test]
    fn a_long_text_that_is_looked_through_often_ends_the_check() {
        let mut defs = serde_json::Map::new();
        for level in 0..19 {
            let next = json!({ "$ref": format!("#/definitions/d{}", level + 1) });
            defs.insert(format!("d{level}"), json!({ "allOf": [next, next] }));
        }
        defs.insert("d19".into(), json!({ "pattern": "^[ab]*$", "minLength": 1, "format": "uri-reference" }));
        let schema = json!({ "definitions": defs, "properties": { "x": { "$ref": "#/definitions/d0" } } });
        let found = findings(&schema, &format!("{{\"x\":\"{}\"}}", "ab".repeat(300_000)));
        assert!(found.first[0].said.contains("STEPS_MIN"), "{}", found.first[0].said);
        // And names, which each pattern is tried on.
        let patterns: serde_json::Map<String, Value> = (0..1_900).map(|n| (format!("^[ab]*{n}$"), json!({}))).collect();
        let schema = json!({ "patternProperties": patterns, "additionalProperties": false });
        let found = findings(&schema, &format!("{{\"{}\":1}}", "ab".repeat(300_000)));
        assert!(found.first[0].said.contains("STEPS_MIN"), "{}", found.first[0].said);
    }

    #[test]
    fn numbers_of_many_digits_are_compared_within_bounds() {
        let number = |last: u32| format!("{}{last}", "7".repeat(300));
        let many: Vec<String> = (0..1_000).map(|last| number(last + 1_000)).collect();
        let schema = Schema::compile(&format!("{{\"items\":{{\"enum\":[{}]}}}}", many.join(","))).unwrap();
        let event = format!("[{}]", vec![number(1_999); 1_000].join(","));
        let found = schema.check(&Json::read(&event).unwrap(), event.len(), 3).unwrap_err();
        assert!(found.first[0].said.contains("STEPS_MIN"), "{}", found.first[0].said);
        let other = format!("[{}]", number(9_999));
        let found = schema.check(&Json::read(&other).unwrap(), other.len(), 3).unwrap_err();
        assert!(found.first[0].said.len() < 700, "{}", found.first[0].said.len());
        let refused = Schema::compile(&format!("{{\"multipleOf\":1{}1}}", "0".repeat(37))).unwrap_err();
        assert!(refused.contains("is not a number of 1 to 37 digits"), "{refused}");
    }
}
