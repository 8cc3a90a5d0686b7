//! Admission at its bounds: schemas by chance, full of unions, and events of every size that nearly obey them. None takes
//! more memory or processor time than an event of its size may.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tidemill_schema::Registry;
use uuid::Uuid;

use super::Target;
use super::cost::Bounds;
use super::targets::admitted;
use crate::chance::{self, nearly, one_of, size, text};

/// What admission may cost: each event alone, and `admitted` admits it twice.
pub(super) const ADMISSION: Bounds = Bounds {
    memory_per_byte: 20,
    memory_anyway_bytes: 16 << 20,
    time_per_byte: Duration::from_micros(1),
    time_anyway: Duration::from_millis(200),
};

const SCHEMAS: usize = 48;
/// One seed, so that an input that was kept means the same to every run.
const SCHEMAS_SEED: u64 = 14;
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

pub(super) fn bounds(folder: &Path) -> Target {
    let mut rng = StdRng::seed_from_u64(SCHEMAS_SEED);
    let schemas: Vec<Value> = (0..SCHEMAS).map(|number| whole(&mut rng, number)).collect();
    let folder = folder.join("schemas-by-chance");
    std::fs::create_dir(&folder).expect("a folder");
    for (number, schema) in schemas.iter().enumerate() {
        std::fs::write(folder.join(format!("Chance.S{number}.v1.json")), schema.to_string()).expect("written");
    }
    let registry = Registry::load(&folder).unwrap_or_else(|errors| panic!("good schemas: {errors:?}"));
    let run = move |input: &[u8]| match admitted(&registry, &Bytes::copy_from_slice(input)) {
        Ok(event) => format!("admitted {}", event.name().kind.len()),
        Err(refusal) => refusal,
    };
    let make = move |rng: &mut StdRng| event(rng, &schemas);
    Target {
        name: "bounds",
        seeds: Vec::new(),
        words: &[],
        make: Some(Box::new(make)),
        bounds: Some(ADMISSION),
        run: Box::new(run),
    }
}

/// The schema of an envelope with this one for its data.
fn whole(rng: &mut StdRng, number: usize) -> Value {
    let data = chance::schema(rng, 1 + number % 4);
    json!({ "type": "object", "required": ["data"], "properties": { "data": data } })
}

/// Of a hundred events one may be of any size that is allowed, and a little more.
fn event(rng: &mut StdRng, schemas: &[Value]) -> Vec<u8> {
    let most = match rng.random_range(0..100) {
        0 => PAYLOAD_BYTES_MAX - 400,
        1..=9 => 32 << 10,
        _ => 2 << 10,
    };
    let bytes = size(rng, most);
    let number = rng.random_range(0..schemas.len());
    let data = nearly(rng, &schemas[number]["properties"]["data"], bytes);
    let id = uuid::Builder::from_random_bytes(rng.random()).into_uuid();
    let (mut kind, mut version, mut more) = (format!("Chance.S{number}"), "1".to_owned(), String::new());
    match rng.random_range(0..40) {
        0 => kind = text(rng, bytes),
        1 => version = text(rng, bytes),
        2 => more = format!("\"{}\":{},", text(rng, 9), chance::value(rng, bytes)),
        3 => more = format!("\"attributes\":{},", chance::value(rng, bytes)),
        4 => more = format!("\"key\":\"{}\",", text(rng, bytes)),
        _ => {}
    }
    let data = if rng.random_range(0..8) == 0 {
        let key = one_of(rng, &["user_id", "order_id", "/1"]);
        format!("{{\"{key}\":{},\"more\":{data}}}", chance::number(rng, bytes / 2))
    } else {
        data
    };
    let correlation = Uuid::nil();
    format!(
        r#"{{"event_id":"{id}","event_type":"{kind}","version":"{version}","timestamp":"2026-01-31T12:00:00Z","correlation_id":"{correlation}",{more}"data":{data}}}"#
    )
    .into_bytes()
}
