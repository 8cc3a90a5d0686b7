//! JSON by chance, at the bounds: sizes of every magnitude, numbers, texts and shapes that somebody could choose to hurt
//! whoever reads them, and schemas with events that nearly obey them. The same rng make the same.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

/// Names that members of schemas and events share, so that they meet.
const NAMES: [&str; 8] = ["kind", "id", "items", "a", "b", "value", "type", "name"];
/// Nesting that a reader takes, the envelope not counted.
const DEEP: usize = 126;

/// Every magnitude up to `most` is as likely as the others; one in sixteen is the most itself, or one beside it.
pub(crate) fn size(rng: &mut StdRng, most: usize) -> usize {
    match rng.random_range(0..32) {
        0 => most,
        1 => most.saturating_sub(1),
        _ => (most as f64).powf(rng.random::<f64>()) as usize,
    }
}

pub(crate) fn one_of<'a, T: ?Sized>(rng: &mut StdRng, all: &[&'a T]) -> &'a T {
    all[rng.random_range(0..all.len())]
}

/// The inside of a JSON string of about so many bytes.
pub(crate) fn text(rng: &mut StdRng, bytes: usize) -> String {
    let units = [
        "s",
        "é",
        "\u{202e}",
        "😀",
        "\\n",
        "\\u0000",
        "\\u001b",
        "\\ud83d\\ude00",
        "\\\"",
        "9",
        " ",
        "/",
        "~1",
        "aB.c:",
    ];
    let unit = one_of(rng, &units);
    unit.repeat(bytes.div_ceil(unit.len()))
}

/// A number of about so many bytes.
pub(crate) fn number(rng: &mut StdRng, bytes: usize) -> String {
    let digits = |rng: &mut StdRng| one_of(rng, &["9", "1", "0123456789", "5"]).repeat(bytes / 2 + 1);
    let sign = one_of(rng, &["", "-"]);
    match rng.random_range(0..10) {
        0 => format!("{sign}1{}", digits(rng)),
        1 => format!("{sign}0.{}", digits(rng)),
        2 => format!("{sign}1{}.{}", digits(rng), digits(rng)),
        3 => format!("{sign}1e{}", one_of(rng, &["308", "-308", "400", "-400", "999999999", "-999999999"])),
        4 => format!("{sign}1{}E-{}", digits(rng), bytes),
        5 => format!("{sign}0.{}e+{bytes}", "0".repeat(bytes)),
        6 => format!("{}", (1_u128 << rng.random_range(0..127)) + rng.random_range(0..2_u128)),
        7 => format!("{sign}{}.0", rng.random_range(0..100)),
        8 => format!("{sign}0"),
        _ => format!("{sign}{}", rng.random_range(0..20)),
    }
}

/// A value of about so many bytes as JSON text: wide, deep, long, or a mixture.
pub(crate) fn value(rng: &mut StdRng, bytes: usize) -> String {
    if bytes < 12 {
        return match rng.random_range(0..8) {
            0 => "null".to_owned(),
            1 => "true".to_owned(),
            2 => "{}".to_owned(),
            3 => "[]".to_owned(),
            4 => format!("\"{}\"", one_of(rng, &NAMES)),
            _ => number(rng, 2),
        };
    }
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    match rng.random_range(0..9) {
        0 => format!("\"{}\"", text(rng, bytes)),
        1 => number(rng, bytes),
        // Many that are equal, and many that differ.
        2 => list(vec![value(rng, 8); bytes / 9 + 1]),
        3 => list((0..bytes / 8 + 1).map(|number| number.to_string()).collect()),
        4 => {
            let members: Vec<String> = (0..bytes / 12 + 1).map(|number| format!("\"n{number:06}\":0")).collect();
            format!("{{{}}}", members.join(","))
        }
        5 => {
            let name = one_of(rng, &NAMES);
            format!("{{{}}}", vec![format!("\"{name}\":{}", value(rng, 8)); bytes / 12 + 1].join(","))
        }
        6 => format!("{{\"{}\":{}}}", text(rng, bytes), number(rng, 2)),
        7 => {
            let levels = size(rng, DEEP).min(bytes / 6).max(1);
            let (open, close) = if rng.random() { ("[", "]") } else { ("{\"a\":", "}") };
            format!("{}{}{}", open.repeat(levels), value(rng, bytes - levels * 6), close.repeat(levels))
        }
        _ => {
            let parts = rng.random_range(2..6);
            let members: Vec<String> = (0..parts)
                .map(|_| {
                    let name = one_of(rng, &NAMES);
                    format!("\"{name}\":{}", value(rng, bytes / parts))
                })
                .collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// A schema of draft 7, with every keyword that a check may spend something on.
pub(crate) fn schema(rng: &mut StdRng, depth: usize) -> Value {
    if depth == 0 {
        return leaf(rng);
    }
    let next = depth - 1;
    match rng.random_range(0..12) {
        0 | 1 => union(rng, next),
        2 => json!({ "type": "array", "items": schema(rng, next) }),
        3 => json!({ "type": "array", "uniqueItems": true, "contains": schema(rng, next) }),
        4 => json!({ "not": schema(rng, next) }),
        5 => json!({ "if": schema(rng, next), "then": schema(rng, next), "else": schema(rng, next) }),
        6 => json!({ "items": [schema(rng, next), schema(rng, next)], "additionalItems": schema(rng, next) }),
        7 => json!({ "propertyNames": { "maxLength": 5 }, "additionalProperties": schema(rng, next) }),
        8 => json!({ "patternProperties": { "^n[0-9]+$": schema(rng, next), "^[a-z]*$": schema(rng, next) } }),
        9 => json!({ "dependencies": { "a": ["b"], "kind": schema(rng, next) }, "minProperties": 2 }),
        10 => json!({ "anyOf": [{ "$ref": "#" }, schema(rng, next)] }),
        _ => object(rng, next),
    }
}

fn leaf(rng: &mut StdRng) -> Value {
    match rng.random_range(0..10) {
        0 => json!({ "type": "string", "minLength": 1, "maxLength": 40 }),
        1 => json!({ "type": "string", "pattern": "^([a-z]+[0-9]?)*$" }),
        2 => json!({ "type": "string", "format": one_of(rng, &["date-time", "uuid", "email", "uri", "ipv6"]) }),
        3 => json!({ "type": "integer", "minimum": 1, "maximum": 1_000_000 }),
        4 => json!({ "type": "number", "multipleOf": 0.01 }),
        5 => json!({ "multipleOf": 3 }),
        6 => json!({ "const": [1, { "a": 2 }] }),
        7 => json!({ "enum": ["a", "b", 17, 18_446_744_073_709_551_615_u64, null, {}] }),
        8 => json!({ "type": ["null", "boolean"] }),
        _ => json!(true),
    }
}

/// Some branches, or as many as a file of schemas allows.
fn union(rng: &mut StdRng, depth: usize) -> Value {
    let word = one_of(rng, &["oneOf", "anyOf", "allOf"]);
    let wide = depth == 0 || rng.random_range(0..4) == 0;
    let count = if wide { size(rng, 60) + 2 } else { rng.random_range(2..4) };
    let branch = |number: usize, rng: &mut StdRng| {
        if !wide {
            return schema(rng, depth);
        }
        let member = format!("n{number:06}");
        json!({ "required": ["kind"], "properties": { "kind": { "const": number }, member: leaf(rng) } })
    };
    let branches: Vec<Value> = (0..count).map(|number| branch(number, rng)).collect();
    json!({ word: branches })
}

fn object(rng: &mut StdRng, depth: usize) -> Value {
    let mut members = Map::new();
    for _ in 0..rng.random_range(1..5) {
        members.insert(one_of(rng, &NAMES).to_owned(), schema(rng, depth));
    }
    let required: Vec<&String> = members.keys().take(2).collect();
    json!({ "type": "object", "required": required, "additionalProperties": rng.random::<bool>(), "properties": members })
}

/// JSON text of about so many bytes that obeys the schema in much, and now and then does not.
pub(crate) fn nearly(rng: &mut StdRng, schema: &Value, bytes: usize) -> String {
    let Value::Object(words) = schema else { return value(rng, bytes) };
    if bytes < 12 || rng.random_range(0..8) == 0 {
        return value(rng, bytes);
    }
    for word in ["oneOf", "anyOf", "allOf"] {
        if let Some(Value::Array(branches)) = words.get(word) {
            let branch = &branches[rng.random_range(0..branches.len())];
            return nearly(rng, branch, bytes);
        }
    }
    for word in ["then", "not", "contains"] {
        if let Some(part) = words.get(word) {
            return many(rng, part, bytes);
        }
    }
    if let Some(items) = words.get("items").filter(|items| items.is_object()) {
        return many(rng, items, bytes);
    }
    if let Some(part) = words.get("additionalItems") {
        return many(rng, part, bytes);
    }
    if let Some(Value::Object(members)) = words.get("properties") {
        let share = bytes / members.len().max(1);
        let member = |(name, schema): (&String, &Value)| format!("\"{name}\":{}", nearly(rng, schema, share));
        return format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","));
    }
    match words.get("const") {
        Some(fixed) => fixed.to_string(),
        None => value(rng, bytes),
    }
}

/// A list that is filled with one that nearly obeys, or with ones that differ.
fn many(rng: &mut StdRng, schema: &Value, bytes: usize) -> String {
    let each = size(rng, bytes / 2).max(12);
    let count = bytes / each + 1;
    let items: Vec<String> = if rng.random() {
        vec![nearly(rng, schema, each); count]
    } else {
        (0..count).map(|_| nearly(rng, schema, each)).collect()
    };
    format!("[{}]", items.join(","))
}
