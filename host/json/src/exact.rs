//! The keywords that compare numbers, exact for every number. The schema library compares floats where a number has no
//! place in 64 bits: right for nearly all events, and quick. A check that comes to another number is done again with these.

use std::cmp::Ordering;

use jsonschema::json::Json as Representation;
use jsonschema::{Keyword, ValidationError, ValidationOptions};
use serde_json::{Map, Value};

use crate::bounds;
use crate::node::Tree;
use crate::number::{DIVISOR_DIGITS_MAX, Decimal};
use crate::tree::{Json, SHOWN_BYTES};

/// Beside keywords whose numbers a value of serde_json cannot hold: their texts, by keyword.
const WRITTEN: &str = "tidemill:written";
/// What a bound allows of a number that compares to it so, and what is said of others.
const BOUNDS: [(&str, &[Ordering], &str); 4] = [
    ("minimum", &[Ordering::Equal, Ordering::Greater], "less than the minimum of"),
    ("exclusiveMinimum", &[Ordering::Greater], "less than or equal to the minimum of"),
    ("maximum", &[Ordering::Equal, Ordering::Less], "greater than the maximum of"),
    ("exclusiveMaximum", &[Ordering::Less], "greater than or equal to the maximum of"),
];
const KEYWORDS: [&str; 7] =
    ["const", "enum", "multipleOf", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"];

/// What an object in a schema is: the same name is a keyword in one, and a member of events in another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Schema,
    /// Names of any kind, and a schema for each.
    Named,
    /// A value that events are held against.
    Value,
}

impl Place {
    /// What is under this name.
    fn under(self, name: &str) -> Self {
        match (self, name) {
            (Self::Schema, "properties" | "patternProperties" | "definitions" | "$defs" | "dependencies") => {
                Self::Named
            }
            (Self::Schema, "const" | "enum" | "default" | "examples") | (Self::Value, _) => Self::Value,
            (Self::Schema | Self::Named, _) => Self::Schema,
        }
    }
}

/// A schema as a value, with the texts of numbers that a value cannot hold beside it; and whether there are any.
pub(crate) fn to_value(schema: &Json<'_>) -> (Value, bool) {
    value_at(Place::Schema, schema)
}

fn value_at(place: Place, json: &Json<'_>) -> (Value, bool) {
    match json {
        Json::Array(items) => {
            let (items, written): (Vec<Value>, Vec<bool>) = items.iter().map(|item| value_at(place, item)).unzip();
            (Value::Array(items), written.contains(&true))
        }
        Json::Object(members) => {
            let (mut all, mut texts, mut any) = (Map::new(), Map::new(), false);
            for member in members.iter() {
                let (value, written) = value_at(place.under(&member.name), &member.value);
                let is_keyword = place == Place::Schema && KEYWORDS.contains(&&*member.name);
                if is_keyword && has_long(&member.value) {
                    texts.insert(member.name.to_string(), text_of(&member.value).into());
                }
                any |= written;
                all.insert(member.name.to_string(), value);
            }
            any |= !texts.is_empty();
            if !texts.is_empty() {
                all.insert(WRITTEN.to_owned(), Value::Object(texts));
            }
            (Value::Object(all), any)
        }
        other => (other.to_value(), false),
    }
}

fn has_long(json: &Json<'_>) -> bool {
    match json {
        Json::Long(_) => true,
        Json::Array(items) => items.iter().any(has_long),
        Json::Object(members) => members.iter().any(|member| has_long(&member.value)),
        _ => false,
    }
}

/// As JSON, with every number as it is written.
fn text_of(json: &Json<'_>) -> String {
    match json {
        Json::Long(text) => text.clone().into_owned(),
        Json::Array(items) => format!("[{}]", items.iter().map(text_of).collect::<Vec<_>>().join(",")),
        Json::Object(members) => {
            let member = |(name, value)| format!("{}:{}", Value::from(name), text_of(value));
            let members: Vec<String> = members.iter().map(|m| (&*m.name, &m.value)).map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_value().to_string(),
    }
}

/// Puts these keywords in the place of the library's own.
pub(crate) fn with_keywords<'o, R>(mut options: ValidationOptions<'o, R, Tree>) -> ValidationOptions<'o, R, Tree> {
    for keyword in KEYWORDS {
        options = options.with_keyword(keyword, move |parent: &Map<String, Value>, value: &Value, _| {
            Ok(Box::new(Exact::new(keyword, parent, value)?) as Box<dyn for<'i> Keyword<'i, Tree>>)
        });
    }
    options
}

struct Exact {
    rule: Rule,
    /// What an error says of the rule.
    said: String,
}

enum Rule {
    OneOf(Vec<Json<'static>>),
    MultipleOf(Decimal),
    Bound(Decimal, &'static [Ordering]),
    /// A draft 4 `exclusiveMinimum` says how `minimum` is meant.
    Nothing,
}

impl Exact {
    fn new<'a>(keyword: &str, parent: &Map<String, Value>, value: &Value) -> Result<Self, ValidationError<'a>> {
        let written = parent.get(WRITTEN).and_then(|texts| texts.get(keyword)).and_then(Value::as_str);
        let text = written.map_or_else(|| value.to_string(), str::to_owned);
        let json = Json::read_as_written(&text).map_or(Json::Null, Json::into_static);
        let number = || json.decimal();
        // Every error holds it.
        let cut = &text[..text.floor_char_boundary(SHOWN_BYTES)];
        let shown = if cut.len() < text.len() { format!("{cut}...") } else { cut.to_owned() };
        let rule = match keyword {
            "const" => Rule::OneOf(vec![json]),
            "enum" => match json {
                Json::Array(items) => Rule::OneOf(items),
                _ => Rule::Nothing,
            },
            "multipleOf" => match number() {
                Some(divisor) if divisor.as_divisor().is_some() => Rule::MultipleOf(divisor),
                _ => {
                    let said = format!("{shown} is not a number of 1 to {DIVISOR_DIGITS_MAX} digits above 0");
                    return Err(ValidationError::custom(said));
                }
            },
            _ => {
                let is_true = |member: &str| parent.get(member) == Some(&Value::Bool(true));
                let keyword = match keyword {
                    "minimum" if is_true("exclusiveMinimum") => "exclusiveMinimum",
                    "maximum" if is_true("exclusiveMaximum") => "exclusiveMaximum",
                    other => other,
                };
                let bound = BOUNDS.iter().find(|(name, ..)| *name == keyword).zip(number());
                return Ok(match bound {
                    Some((&(_, allowed, words), at)) => {
                        Self { said: format!("is {words} {shown}"), rule: Rule::Bound(at, allowed) }
                    }
                    None => Self { said: String::new(), rule: Rule::Nothing },
                });
            }
        };
        let said = match keyword {
            "const" => format!("is not {shown}, which was expected"),
            "enum" => format!("is not one of {shown}"),
            _ => format!("is not a multiple of {shown}"),
        };
        Ok(Self { rule, said })
    }

    fn allows(&self, json: &Json<'_>) -> bool {
        bounds::step();
        match &self.rule {
            Rule::OneOf(values) => values.iter().any(|value| {
                bounds::step();
                json.same(value)
            }),
            Rule::MultipleOf(divisor) => json.decimal().is_none_or(|number| number.is_multiple_of(divisor)),
            Rule::Bound(at, allowed) => json.decimal().is_none_or(|number| allowed.contains(&number.cmp(at))),
            Rule::Nothing => true,
        }
    }
}

impl<'i> Keyword<'i, Tree> for Exact {
    fn validate(&self, json: <Tree as Representation>::Node<'i>) -> Result<(), ValidationError<'i>> {
        if self.allows(json) {
            return Ok(());
        }
        let shown = match json {
            Json::Long(text) => text[..text.floor_char_boundary(SHOWN_BYTES)].to_owned(),
            other => other.beginning().to_string(),
        };
        Err(ValidationError::custom(format!("{shown} {}", self.said)))
    }

    fn is_valid(&self, json: <Tree as Representation>::Node<'i>) -> bool {
        self.allows(json)
    }
}
