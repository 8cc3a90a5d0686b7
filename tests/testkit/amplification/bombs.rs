//! Byte bombs, a row each: events and raw entries at the bounds, from a seed. What lies on either side of a bound is in the
//! same row.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::chance::{self, one_of, size};

/// `host.payload_bytes_max` of the shop: the default.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// What an entry may have beside its event, in bytes (`ENTRY_FACTS_BYTES`).
const ENTRY_FACTS_BYTES: usize = 56 << 10;
/// What an envelope and an order without its bomb have room in, in bytes.
const REST_BYTES: usize = 2 << 10;
/// Branches of the union, of which none fits.
const BRANCHES: usize = 20;
/// A field of an entry of three such fields, and an entry of a crowd, in bytes.
const FOREIGN_FIELD_BYTES: usize = 20_000_000;
const LARGE_BYTES: usize = 17_000_000;
const FOREIGN_FIELDS: usize = 100_000;

const ORDERS: &str = "order-events";
pub(super) const UNIONS: &str = "union-events";

/// One entry of a stream, as a client appends it.
pub(super) struct Bomb {
    pub(super) stream: &'static str,
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Bomb {
    pub(super) fn bytes(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

pub(super) struct Row {
    pub(super) name: &'static str,
    /// How many are sent, and how many in the short form; 0: it has none.
    pub(super) count: usize,
    pub(super) short: usize,
    /// Makes the one with this number.
    pub(super) make: fn(&mut StdRng, usize) -> Bomb,
}

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    Row { name: "empty-objects",      count: 4,      short: 3,     make: empty_objects },
    Row { name: "union-of-20",        count: 4,      short: 2,     make: union },
    Row { name: "nesting-of-128",     count: 9,      short: 0,     make: nesting },
    Row { name: "brackets",           count: 4,      short: 0,     make: brackets },
    Row { name: "many-names",         count: 4,      short: 2,     make: many_names },
    Row { name: "long-names",         count: 4,      short: 0,     make: long_names },
    Row { name: "long-strings",       count: 4,      short: 0,     make: long_strings },
    Row { name: "numbers",            count: 8,      short: 4,     make: numbers },
    Row { name: "escapes",            count: 4,      short: 0,     make: escapes },
    Row { name: "long-type",          count: 4,      short: 2,     make: long_type },
    Row { name: "long-version",       count: 4,      short: 0,     make: long_version },
    Row { name: "control-characters", count: 64,     short: 0,     make: control_characters },
    Row { name: "no-json",            count: 50,     short: 10,    make: no_json },
    Row { name: "3-fields-of-20-mb",  count: 1,      short: 1,     make: large_fields },
    Row { name: "100000-fields",      count: 2,      short: 1,     make: many_fields },
    Row { name: "64-of-17-mb",        count: 64,     short: 8,     make: large_events },
    Row { name: "at-the-bound",       count: 12,     short: 6,     make: at_the_bound },
    Row { name: "junk",               count: 20_000, short: 3_000, make: junk },
    Row { name: "by-chance",          count: 20_000, short: 500,   make: small_by_chance },
    Row { name: "large-by-chance",    count: 60,     short: 4,     make: large_by_chance },
    Row { name: "fields-by-chance",   count: 500,    short: 30,    make: fields_by_chance },
];

/// A good order of this id: every handler of the shop commits it.
pub(super) fn order(id: Uuid) -> Value {
    json!({
        "event_id": id, "event_type": "Order.Created", "version": "1", "timestamp": "2026-01-31T12:00:00Z",
        "correlation_id": id,
        "data": {
            "order_id": 1, "order_number": "1", "user_id": 17, "total_amount": 15.3, "status": "confirmed",
            "items": [{
                "product_id": 1, "sku_id": 1, "sku_code": "85123A", "product_name": "lantern", "sku_name": "lantern",
                "quantity": 6, "unit_price": 2.55, "subtotal": 15.3
            }],
            "shipping_address": {
                "recipient": "Customer 17", "phone": "", "address": "", "city": "", "province": "United Kingdom"
            },
            "created_at": "2026-01-31T12:00:00Z"
        }
    })
}

/// An order that the payment service rejects: a dead letter that somebody needs.
pub(super) fn rejected_order(id: Uuid) -> Value {
    let mut order = order(id);
    order["attributes"] = json!({ "simulate": "reject" });
    order
}

fn event(bytes: Vec<u8>) -> Bomb {
    Bomb { stream: ORDERS, fields: vec![(b"event".to_vec(), bytes)] }
}

fn new_id(rng: &mut StdRng) -> Uuid {
    uuid::Builder::from_random_bytes(rng.random()).into_uuid()
}

/// A good order with this text in the place of its user's id.
fn with_user(rng: &mut StdRng, text: &str) -> Bomb {
    put(order(new_id(rng)), "\"user_id\":17", &format!("\"user_id\":17,{text}"))
}

/// The text of the order, with the one part replaced: for what a JSON writer would not write.
fn put(order: Value, what: &str, by: &str) -> Bomb {
    event(order.to_string().replacen(what, by, 1).into_bytes())
}

/// As many copies as fit into an event, with commas between them.
fn filled(one: &str) -> String {
    let count = (PAYLOAD_BYTES_MAX - REST_BYTES) / (one.len() + 1);
    vec![one; count].join(",")
}

fn empty_objects(rng: &mut StdRng, _: usize) -> Bomb {
    let mut order = order(new_id(rng));
    order["data"]["items"] = json!([]);
    put(order, "\"items\":[]", &format!("\"items\":[{}]", filled("{}")))
}

fn union(rng: &mut StdRng, number: usize) -> Bomb {
    let mut event = order(new_id(rng));
    event["event_type"] = "Bomb.Sent".into();
    event["data"] = json!({ "parts": [] });
    let part = ["{}", "{\"kind\":20}", "[]", "0"][number % 4];
    Bomb { stream: UNIONS, ..put(event, "\"parts\":[]", &format!("\"parts\":[{}]", filled(part))) }
}

/// The schema of what `union` makes: each part is exactly one of the branches.
pub(super) fn union_schema() -> Value {
    let branch = |number: usize| {
        let member = format!("member_{number}");
        json!({
            "type": "object", "required": ["kind", member],
            "properties": { "kind": { "const": number }, member: { "type": "string", "minLength": 1 } }
        })
    };
    let branches: Vec<Value> = (0..BRANCHES).map(branch).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["data"],
        "properties": { "data": {
            "type": "object", "required": ["parts"],
            "properties": { "parts": { "type": "array", "items": { "oneOf": branches } } }
        } }
    })
}

/// 127, 128 and 129 levels in all: the envelope and its data are two of them.
fn nesting(rng: &mut StdRng, number: usize) -> Bomb {
    let levels = 127 + number % 3 - 2;
    let (open, close) = if number.is_multiple_of(2) { ("[", "]") } else { ("{\"a\":", "}") };
    let text = format!("\"deep\":{}0{}", open.repeat(levels), close.repeat(levels));
    with_user(rng, &text)
}

fn brackets(rng: &mut StdRng, number: usize) -> Bomb {
    let one = ["[", "{\"a\":", "[{\"a\":"][number % 3];
    let text = format!("\"deep\":{}", one.repeat((PAYLOAD_BYTES_MAX - REST_BYTES) / one.len()));
    with_user(rng, &text)
}

fn many_names(rng: &mut StdRng, _: usize) -> Bomb {
    let names: Vec<String> = (0..(PAYLOAD_BYTES_MAX - REST_BYTES) / 12).map(|n| format!("\"n{n:06}\":0")).collect();
    with_user(rng, &names.join(","))
}

fn long_names(rng: &mut StdRng, number: usize) -> Bomb {
    let name = "n".repeat(PAYLOAD_BYTES_MAX - REST_BYTES);
    if number.is_multiple_of(2) {
        return with_user(rng, &format!("\"{name}\":0"));
    }
    // One that is in the way of an item.
    put(order(new_id(rng)), "\"items\":[{", &format!("\"items\":[{{\"{name}\":0}},{{"))
}

fn long_strings(rng: &mut StdRng, number: usize) -> Bomb {
    let text = "s".repeat(PAYLOAD_BYTES_MAX - REST_BYTES);
    let (what, by) = match number % 4 {
        0 => ("\"order_number\":\"1\"", format!("\"order_number\":\"{text}\"")),
        1 => ("\"province\":\"United Kingdom\"", format!("\"province\":\"{text}\"")),
        2 => ("\"status\":\"confirmed\"", format!("\"status\":\"{text}\"")),
        _ => ("\"user_id\":17", format!("\"user_id\":\"{text}\"")),
    };
    put(order(new_id(rng)), what, &by)
}

fn numbers(rng: &mut StdRng, number: usize) -> Bomb {
    let digits = "9".repeat(PAYLOAD_BYTES_MAX - REST_BYTES);
    let (what, by) = match number % 8 {
        0 => ("\"user_id\":17", format!("\"user_id\":{digits}")),
        1 => ("\"total_amount\":15.3", format!("\"total_amount\":0.{digits}")),
        2 => ("\"total_amount\":15.3", format!("\"total_amount\":-{digits}")),
        3 => ("\"quantity\":6", format!("\"quantity\":{digits}.5")),
        4 => ("\"user_id\":17", "\"user_id\":1e999999999".to_owned()),
        5 => ("\"total_amount\":15.3", "\"total_amount\":1e-999999999".to_owned()),
        6 => ("\"user_id\":17", format!("\"user_id\":17,\"more\":[{}]", filled("-1e400"))),
        _ => ("\"user_id\":17", format!("\"user_id\":17,\"more\":[{}]", filled(&rng.random::<u64>().to_string()))),
    };
    put(order(new_id(rng)), what, &by)
}

fn escapes(rng: &mut StdRng, number: usize) -> Bomb {
    let one = ["\\u0000", "\\n", "\\ud83d\\ude00", "\\u001b"][number % 4];
    let text = one.repeat((PAYLOAD_BYTES_MAX - REST_BYTES) / one.len());
    let field = ["order_number", "status", "recipient", "order_id"][number % 4];
    with_user(rng, &format!("\"{field}\":\"{text}\""))
}

fn long_type(rng: &mut StdRng, number: usize) -> Bomb {
    let one = ["T", "\\u001b", "Order.", "\\\""][number % 4];
    let text = one.repeat((PAYLOAD_BYTES_MAX - REST_BYTES) / one.len());
    put(order(new_id(rng)), "\"Order.Created\"", &format!("\"{text}\""))
}

fn long_version(rng: &mut StdRng, number: usize) -> Bomb {
    let text = ["1", "v", "\\n", "\\u202e"][number % 4];
    let text = text.repeat((PAYLOAD_BYTES_MAX - REST_BYTES) / text.len());
    put(order(new_id(rng)), "\"version\":\"1\"", &format!("\"version\":\"{text}\""))
}

fn control_characters(rng: &mut StdRng, number: usize) -> Bomb {
    let code = (number % 32) as u8;
    let (escaped, raw) = (format!("\\u{code:04x}"), char::from(code).to_string());
    let text = if number < 32 { &escaped } else { &raw };
    let what = ["\"Order.Created\"", "\"version\":\"1\"", "\"status\":\"confirmed\""][number % 3];
    let by = format!("{}{text}\"", &what[..what.len() - 1]);
    put(order(new_id(rng)), what, &by)
}

fn no_json(rng: &mut StdRng, number: usize) -> Bomb {
    let id = new_id(rng);
    let mut good = order(id).to_string().into_bytes();
    match number % 10 {
        0 => event(Vec::new()),
        1 => event(vec![0]),
        2 => event(vec![0; 100_000]),
        3 => event(vec![0xff; 100_000]),
        4 => event(b"{}".to_vec()),
        5 => event(b"null".to_vec()),
        6 => {
            good.truncate(rng.random_range(0..good.len()));
            event(good)
        }
        7 => {
            let at = rng.random_range(0..good.len());
            good[at] = rng.random_range(0x80..=0xff);
            event(good)
        }
        8 => Bomb { stream: ORDERS, fields: vec![(Vec::new(), Vec::new())] },
        _ => event([&good[..], &good].concat()),
    }
}

fn large_fields(rng: &mut StdRng, _: usize) -> Bomb {
    let byte = rng.random();
    let fields = ["a", "b", "c"].map(|name| (name.as_bytes().to_vec(), vec![byte; FOREIGN_FIELD_BYTES]));
    Bomb { stream: ORDERS, fields: fields.into() }
}

fn many_fields(rng: &mut StdRng, _: usize) -> Bomb {
    let field = |_| (vec![b'f'], vec![rng.random()]);
    Bomb { stream: ORDERS, fields: (0..FOREIGN_FIELDS).map(field).collect() }
}

fn large_events(rng: &mut StdRng, _: usize) -> Bomb {
    event(vec![rng.random(); LARGE_BYTES])
}

/// Good orders of so many bytes: of the bound itself, of the largest entry that is held whole, and one byte beyond.
fn at_the_bound(rng: &mut StdRng, number: usize) -> Bomb {
    let name = "event".len();
    let bytes = PAYLOAD_BYTES_MAX
        + match number % 6 {
            0 => 0,
            1 => 1,
            2 => ENTRY_FACTS_BYTES - name,
            3 => ENTRY_FACTS_BYTES - name + 1,
            4 => ENTRY_FACTS_BYTES,
            _ => ENTRY_FACTS_BYTES + 1,
        };
    let Bomb { stream, mut fields } = with_user(rng, "\"fill\":\"\"");
    let text = String::from_utf8(fields.remove(0).1).expect("JSON");
    let fill = "f".repeat(bytes - text.len());
    let text = text.replacen("\"fill\":\"", &format!("\"fill\":\"{fill}"), 1);
    Bomb { stream, ..event(text.into_bytes()) }
}

fn junk(_: &mut StdRng, _: usize) -> Bomb {
    event(b"x".to_vec())
}

/// Orders with parts that chance puts into their places.
fn small_by_chance(rng: &mut StdRng, _: usize) -> Bomb {
    by_chance(rng, 2 << 10)
}

fn large_by_chance(rng: &mut StdRng, _: usize) -> Bomb {
    by_chance(rng, PAYLOAD_BYTES_MAX - REST_BYTES)
}

const PARTS: [&str; 8] = [
    "\"user_id\":17",
    "\"total_amount\":15.3",
    "\"status\":\"confirmed\"",
    "\"quantity\":6",
    "\"version\":\"1\"",
    "\"event_type\":\"Order.Created\"",
    "\"province\":\"United Kingdom\"",
    "\"order_id\":1",
];

fn by_chance(rng: &mut StdRng, most: usize) -> Bomb {
    let part = one_of(rng, &PARTS);
    let name = part.split(':').next().unwrap_or_default();
    let bytes = size(rng, most);
    let by = match rng.random_range(0..6) {
        0 => format!("{name}:{}", chance::number(rng, bytes)),
        1 => format!("{name}:\"{}\"", chance::text(rng, bytes)),
        2 => format!("{name}:{}", chance::value(rng, bytes)),
        // Beside it: the order may stay a good one.
        3 => format!("{part},\"more\":{}", chance::value(rng, bytes)),
        4 => format!("{part},\"{}\":0", chance::text(rng, bytes)),
        _ => format!("{part},{}", vec![part; bytes / part.len() + 1].join(",")),
    };
    put(order(new_id(rng)), part, &by)
}

/// An entry as any client appends one: fields of every size, the event among them or not.
fn fields_by_chance(rng: &mut StdRng, _: usize) -> Bomb {
    let count = size(rng, 40).max(1);
    let mut fields = Vec::new();
    for _ in 0..count {
        let (name, value) = (size(rng, 4 << 10), size(rng, (1 << 20) / count));
        fields.push((chance::text(rng, name).into_bytes(), chance::text(rng, value).into_bytes()));
    }
    if rng.random() {
        let Bomb { fields: event, .. } = by_chance(rng, 2 << 10);
        fields.extend(event);
    }
    Bomb { stream: ORDERS, fields }
}
