//! JSON by chance, at the bounds: sizes of every magnitude, numbers, texts and shapes that somebody could choose to hurt
//! whoever reads them, and schemas with events that nearly obey them. The same dice make the same.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

/// Names that members of schemas and events share, so that they meet.
const NAMES: [&str; 8] = ["kind", "id", "items", "a", "b", "value", "type", "name"];
/// Nesting that a reader takes, the envelope not counted.
const DEEP: usize = 126;

/// Every magnitude up to `most` is as likely as the others; one in sixteen is the most itself, or one beside it.
pub fn size(dice: &mut StdRng, most: usize) -> usize {
    match dice.random_range(0..32) {
        0 => most,
        1 => most.saturating_sub(1),
        _ => (most as f64).powf(dice.random::<f64>()) as usize,
    }
}

pub fn one_of<'a, T: ?Sized>(dice: &mut StdRng, all: &[&'a T]) -> &'a T {
    all[dice.random_range(0..all.len())]
}

/// The inside of a JSON string of about so many bytes.
pub fn text(dice: &mut StdRng, bytes: usize) -> String {
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
    let unit = one_of(dice, &units);
    unit.repeat(bytes.div_ceil(unit.len()))
}

/// A number of about so many bytes.
pub fn number(dice: &mut StdRng, bytes: usize) -> String {
    let digits = |dice: &mut StdRng| one_of(dice, &["9", "1", "0123456789", "5"]).repeat(bytes / 2 + 1);
    let sign = one_of(dice, &["", "-"]);
    match dice.random_range(0..10) {
        0 => format!("{sign}1{}", digits(dice)),
        1 => format!("{sign}0.{}", digits(dice)),
        2 => format!("{sign}1{}.{}", digits(dice), digits(dice)),
        3 => format!("{sign}1e{}", one_of(dice, &["308", "-308", "400", "-400", "999999999", "-999999999"])),
        4 => format!("{sign}1{}E-{}", digits(dice), bytes),
        5 => format!("{sign}0.{}e+{bytes}", "0".repeat(bytes)),
        6 => format!("{}", (1_u128 << dice.random_range(0..127)) + dice.random_range(0..2_u128)),
        7 => format!("{sign}{}.0", dice.random_range(0..100)),
        8 => format!("{sign}0"),
        _ => format!("{sign}{}", dice.random_range(0..20)),
    }
}

/// A value of about so many bytes as JSON text: wide, deep, long, or a mixture.
pub fn value(dice: &mut StdRng, bytes: usize) -> String {
    if bytes < 12 {
        return match dice.random_range(0..8) {
            0 => "null".to_owned(),
            1 => "true".to_owned(),
            2 => "{}".to_owned(),
            3 => "[]".to_owned(),
            4 => format!("\"{}\"", one_of(dice, &NAMES)),
            _ => number(dice, 2),
        };
    }
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    match dice.random_range(0..9) {
        0 => format!("\"{}\"", text(dice, bytes)),
        1 => number(dice, bytes),
        // Many that are equal, and many that differ.
        2 => list(vec![value(dice, 8); bytes / 9 + 1]),
        3 => list((0..bytes / 8 + 1).map(|number| number.to_string()).collect()),
        4 => {
            let members: Vec<String> = (0..bytes / 12 + 1).map(|number| format!("\"n{number:06}\":0")).collect();
            format!("{{{}}}", members.join(","))
        }
        5 => {
            let name = one_of(dice, &NAMES);
            format!("{{{}}}", vec![format!("\"{name}\":{}", value(dice, 8)); bytes / 12 + 1].join(","))
        }
        6 => format!("{{\"{}\":{}}}", text(dice, bytes), number(dice, 2)),
        7 => {
            let levels = size(dice, DEEP).min(bytes / 6).max(1);
            let (open, close) = if dice.random() { ("[", "]") } else { ("{\"a\":", "}") };
            format!("{}{}{}", open.repeat(levels), value(dice, bytes - levels * 6), close.repeat(levels))
        }
        _ => {
            let parts = dice.random_range(2..6);
            let members: Vec<String> = (0..parts)
                .map(|_| {
                    let name = one_of(dice, &NAMES);
                    format!("\"{name}\":{}", value(dice, bytes / parts))
                })
                .collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// A schema of draft 7, with every keyword that a check may spend something on.
pub fn schema(dice: &mut StdRng, depth: usize) -> Value {
    if depth == 0 {
        return leaf(dice);
    }
    let next = depth - 1;
    match dice.random_range(0..12) {
        0 | 1 => union(dice, next),
        2 => json!({ "type": "array", "items": schema(dice, next) }),
        3 => json!({ "type": "array", "uniqueItems": true, "contains": schema(dice, next) }),
        4 => json!({ "not": schema(dice, next) }),
        5 => json!({ "if": schema(dice, next), "then": schema(dice, next), "else": schema(dice, next) }),
        6 => json!({ "items": [schema(dice, next), schema(dice, next)], "additionalItems": schema(dice, next) }),
        7 => json!({ "propertyNames": { "maxLength": 5 }, "additionalProperties": schema(dice, next) }),
        8 => json!({ "patternProperties": { "^n[0-9]+$": schema(dice, next), "^[a-z]*$": schema(dice, next) } }),
        9 => json!({ "dependencies": { "a": ["b"], "kind": schema(dice, next) }, "minProperties": 2 }),
        10 => json!({ "anyOf": [{ "$ref": "#" }, schema(dice, next)] }),
        _ => object(dice, next),
    }
}

fn leaf(dice: &mut StdRng) -> Value {
    match dice.random_range(0..10) {
        0 => json!({ "type": "string", "minLength": 1, "maxLength": 40 }),
        1 => json!({ "type": "string", "pattern": "^([a-z]+[0-9]?)*$" }),
        2 => json!({ "type": "string", "format": one_of(dice, &["date-time", "uuid", "email", "uri", "ipv6"]) }),
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
fn union(dice: &mut StdRng, depth: usize) -> Value {
    let word = one_of(dice, &["oneOf", "anyOf", "allOf"]);
    let wide = depth == 0 || dice.random_range(0..4) == 0;
    let count = if wide { size(dice, 60) + 2 } else { dice.random_range(2..4) };
    let branch = |number: usize, dice: &mut StdRng| {
        if !wide {
            return schema(dice, depth);
        }
        let member = format!("n{number:06}");
        json!({ "required": ["kind"], "properties": { "kind": { "const": number }, member: leaf(dice) } })
    };
    let branches: Vec<Value> = (0..count).map(|number| branch(number, dice)).collect();
    json!({ word: branches })
}

fn object(dice: &mut StdRng, depth: usize) -> Value {
    let mut members = Map::new();
    for _ in 0..dice.random_range(1..5) {
        members.insert(one_of(dice, &NAMES).to_owned(), schema(dice, depth));
    }
    let required: Vec<&String> = members.keys().take(2).collect();
    json!({ "type": "object", "required": required, "additionalProperties": dice.random::<bool>(), "properties": members })
}

/// JSON text of about so many bytes that obeys the schema in much, and now and then does not.
pub fn nearly(dice: &mut StdRng, schema: &Value, bytes: usize) -> String {
    let Value::Object(words) = schema else { return value(dice, bytes) };
    if bytes < 12 || dice.random_range(0..8) == 0 {
        return value(dice, bytes);
    }
    for word in ["oneOf", "anyOf", "allOf"] {
        if let Some(Value::Array(branches)) = words.get(word) {
            let branch = &branches[dice.random_range(0..branches.len())];
            return nearly(dice, branch, bytes);
        }
    }
    for word in ["then", "not", "contains"] {
        if let Some(part) = words.get(word) {
            return many(dice, part, bytes);
        }
    }
    if let Some(items) = words.get("items").filter(|items| items.is_object()) {
        return many(dice, items, bytes);
    }
    if let Some(part) = words.get("additionalItems") {
        return many(dice, part, bytes);
    }
    if let Some(Value::Object(members)) = words.get("properties") {
        let share = bytes / members.len().max(1);
        let member = |(name, schema): (&String, &Value)| format!("\"{name}\":{}", nearly(dice, schema, share));
        return format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","));
    }
    match words.get("const") {
        Some(fixed) => fixed.to_string(),
        None => value(dice, bytes),
    }
}

/// A list that is filled with one that nearly obeys, or with ones that differ.
fn many(dice: &mut StdRng, schema: &Value, bytes: usize) -> String {
    let each = size(dice, bytes / 2).max(12);
    let count = bytes / each + 1;
    let items: Vec<String> = if dice.random() {
        vec![nearly(dice, schema, each); count]
    } else {
        (0..count).map(|_| nearly(dice, schema, each)).collect()
    };
    format!("[{}]", items.join(","))
}
