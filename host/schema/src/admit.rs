//! Admission: the only way from bytes to an `Event`. Decode the envelope, ask whether it is wanted, validate it.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tidemill_json::{Envelope, Json};
use uuid::Uuid;

use super::event::{Event, EventParts, HOPS_MEMBER, HOPS_MOST};
use super::registry::Registry;
use tidemill_core::model::entry::PayloadHash;
use tidemill_core::model::name::{EventName, TIMER_KIND, is_reserved, parse_version};
use tidemill_core::model::outcome::NotRun;

/// What a handler wants to know of events.
pub struct AdmitOptions<'a> {
    /// Whether the handler's routes match this kind and version.
    pub wants: &'a dyn Fn(&str, u32) -> bool,
    /// JSON pointers into the envelope; the first that holds a string or a number makes the key.
    pub key: &'a [String],
    pub payload_bytes_max: usize,
}

/// Decodes, routes and validates. A refusal carries the words for the dead letter.
pub fn admit(registry: &Registry, bytes: &Bytes, terms: &AdmitOptions<'_>) -> Result<Event, NotRun> {
    let keyings = [terms.key];
    let event = admit_for_all(registry, bytes, terms.wants, &keyings, terms.payload_bytes_max)?;
    event.into_iter().next().ok_or(NotRun::NotWanted(0))
}

/// The same for handlers that make their keys in other ways: for each list of pointers the event with its key.
pub fn admit_for_all(
    registry: &Registry,
    bytes: &Bytes,
    wants: &dyn Fn(&str, u32) -> bool,
    keyings: &[impl AsRef<[String]>],
    payload_bytes_max: usize,
) -> Result<Vec<Event>, NotRun> {
    let mut envelope = envelope_of(bytes, payload_bytes_max)?;
    // No schema has to know of it.
    let hops = hops_of(envelope.take(HOPS_MEMBER));
    let kind = text_member(&envelope, "event_type", "a string such as \"Order.Created\"")?;
    let version = text_member(&envelope, "version", "the major version as a string, such as \"1\"")?;
    let Some(version) = parse_version(version) else {
        let said = format!("/version: \"{}\" is not a major version (hint: \"1\", \"2\", ...)", shown(version));
        return Err(NotRun::Invalid(said.into()));
    };
    if !wants(kind, version) {
        return Err(NotRun::NotWanted(0));
    }
    if is_reserved(kind) {
        let said = format!("/event_type: \"{}\" is the host's own: only the host publishes it", shown(kind));
        return Err(NotRun::Invalid(said.into()));
    }
    let schema = registry.find(kind, version)?;
    let data = envelope.data();
    let tree = envelope.into_tree().map_err(|error| undecodable(bytes, data, &error))?;
    schema.check(&tree, bytes.len())?;
    let data = data.filter(|data| *data != "null").ok_or_else(|| missing("data"))?;
    build(bytes, &tree, data, (&schema.name, hops), keyings)
}

/// Decodes the event of a timer. The host wrote it, so it has no schema, and every handler wants its own. The key is that
/// of the delivery which set the timer, whatever pointers the handler has.
pub fn admit_timer(bytes: &Bytes, payload_bytes_max: usize) -> Result<Event, NotRun> {
    let mut envelope = envelope_of(bytes, payload_bytes_max)?;
    let hops = hops_of(envelope.take(HOPS_MEMBER));
    let data = envelope.data().ok_or_else(|| missing("data"))?;
    let tree = envelope.into_tree().map_err(|error| undecodable(bytes, Some(data), &error))?;
    let name = EventName { kind: TIMER_KIND.into(), version: 1 };
    let mut events = build(bytes, &tree, data, (&name, hops), &[&[] as &[String]])?;
    events.pop().ok_or_else(|| missing("key"))
}

fn envelope_of(bytes: &Bytes, payload_bytes_max: usize) -> Result<Envelope<'_>, NotRun> {
    if bytes.len() > payload_bytes_max {
        let size = bytes.len();
        let said = format!("the event has {size} bytes; at most {payload_bytes_max} (payload_bytes_max) are allowed");
        return Err(NotRun::Undecodable(said.into()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        NotRun::Undecodable(format!("not UTF-8: byte {at} is 0x{:02x}", bytes[at]).into())
    })?;
    Envelope::read(text).map_err(|error| undecodable(bytes, None, &error))
}

/// The schema has been obeyed; what a lenient schema did not ask for is asked for here.
fn build(
    bytes: &Bytes,
    tree: &Json<'_>,
    data: &str,
    (name, hops): (&EventName, u32),
    keyings: &[impl AsRef<[String]>],
) -> Result<Vec<Event>, NotRun> {
    let id = uuid_member(tree, "event_id")?.ok_or_else(|| missing("event_id"))?;
    let correlation_id = uuid_member(tree, "correlation_id")?.ok_or_else(|| missing("correlation_id"))?;
    let time = tree.get("timestamp").and_then(Json::as_str).ok_or_else(|| missing("timestamp"))?;
    let start = data.as_ptr() as usize - bytes.as_ptr() as usize;
    let facts = Arc::new(EventParts {
        data: start..start + data.len(),
        hash: payload_hash(bytes),
        bytes: bytes.clone(),
        name: name.clone(),
        id,
        time: time.into(),
        correlation_id,
        causation_id: uuid_member(tree, "causation_id")?,
        attributes: attributes(tree)?,
        hops,
    });
    let key = |pointers: &[String]| key_of(bytes, tree, pointers).unwrap_or_else(|| id.to_string()).into();
    Ok(keyings.iter().map(|pointers| Event { facts: facts.clone(), key: key(pointers.as_ref()) }).collect())
}

/// What no host would have written there is untrusted, and counts as none: text, a fraction, less than none, or more
/// than any bound can be.
fn hops_of(member: Option<Json<'_>>) -> u32 {
    match member {
        Some(Json::Number(number)) => {
            number.as_u64().and_then(|hops| u32::try_from(hops).ok()).filter(|hops| *hops <= HOPS_MOST)
        }
        _ => None,
    }
    .unwrap_or(0)
}

/// The first 128 bits of the SHA-256 of an event's bytes.
pub fn payload_hash(bytes: &[u8]) -> PayloadHash {
    let mut hash = PayloadHash::default();
    hash.copy_from_slice(&Sha256::digest(bytes)[..16]);
    hash
}

fn key_of(bytes: &Bytes, tree: &Json<'_>, pointers: &[String]) -> Option<String> {
    let text = |pointer: &str| match tree.pointer(pointer)? {
        Json::String(text) if !text.is_empty() => Some(text.clone().into_owned()),
        number => number_key(bytes, pointer, number),
    };
    pointers.iter().find_map(|pointer| text(pointer)).or_else(|| text("/key"))
}

/// Numbers make one key exactly if they are one number, however they are written.
fn number_key(bytes: &Bytes, pointer: &str, value: &Json<'_>) -> Option<String> {
    match value {
        Json::Number(number) if !number.is_f64() => Some(number.to_string()),
        // What is too small for a float is read as 0, and is not 0.
        Json::Number(number) if number.as_f64().is_some_and(|float| float.abs() < f64::MIN_POSITIVE) => {
            let text = std::str::from_utf8(bytes).ok()?;
            let tree = Envelope::read_as_written(text).and_then(Envelope::into_tree).ok()?;
            tree.pointer(pointer).and_then(|value| value.decimal()).map(|number| number.canonical())
        }
        _ => value.decimal().map(|number| number.canonical()),
    }
}

fn attributes(tree: &Json<'_>) -> Result<Vec<(String, String)>, NotRun> {
    let wrong = || NotRun::Invalid("/attributes: must be an object of strings".into());
    match tree.get("attributes") {
        None => Ok(Vec::new()),
        Some(Json::Object(members)) => members
            .iter()
            .map(|member| Ok((member.name.to_string(), member.value.as_str().ok_or_else(wrong)?.to_owned())))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

fn uuid_member(tree: &Json<'_>, member: &str) -> Result<Option<Uuid>, NotRun> {
    let Some(value) = tree.get(member) else { return Ok(None) };
    let parsed = value.as_str().and_then(|text| Uuid::try_parse(text).ok());
    parsed.map(Some).ok_or_else(|| NotRun::Invalid(format!("/{member}: {} is not a UUID", value.beginning()).into()))
}

fn text_member<'a>(envelope: &'a Envelope<'_>, member: &str, wanted: &str) -> Result<&'a str, NotRun> {
    match envelope.get(member) {
        None | Some(Json::Null) => Err(missing(member)),
        Some(Json::String(text)) => Ok(text),
        Some(other) => {
            let said = other.beginning().to_string();
            Err(NotRun::Invalid(format!("/{member}: {} should be {wanted}", shown(&said)).into()))
        }
    }
}

/// The beginning of a text that a producer has chosen.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(60)]
}

fn missing(member: &str) -> NotRun {
    NotRun::Invalid(format!("/{member}: missing").into())
}

/// `part`: what of the event was read, if not all of it; the place in the words is that in the event.
fn undecodable(bytes: &[u8], part: Option<&str>, error: &serde_json::Error) -> NotRun {
    if bytes.is_empty() {
        return NotRun::Undecodable("the event is empty".into());
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return NotRun::Undecodable("the event begins with a byte order mark (hint: write UTF-8 without it)".into());
    }
    let said = error.to_string();
    let (line, column) = (error.line(), error.column());
    let what = said.strip_suffix(&format!(" at line {line} column {column}")).filter(|_| part.is_some());
    let said = match (what, part) {
        (Some(what), Some(part)) => {
            let before = &bytes[..part.as_ptr() as usize - bytes.as_ptr() as usize];
            let lines = before.iter().filter(|byte| **byte == b'\n').count();
            let in_line = before.iter().rev().take_while(|byte| **byte != b'\n').count();
            let column = if line == 1 { in_line + column } else { column };
            format!("{what} at line {} column {column}", lines + line)
        }
        _ => said,
    };
    NotRun::Undecodable(format!("not an event envelope in JSON: {said}").into())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn event(edit: impl Fn(&mut Value)) -> Bytes {
        let mut event = serde_json::json!({
            "event_id": "0191d3a0-0000-7000-8000-000000000001", "event_type": "Order.Created", "version": "1",
            "timestamp": "2026-01-31T12:00:00Z", "correlation_id": "0191d3a0-0000-7000-8000-000000000001",
            "data": { "order_id": 9007199254740993u64, "country": "Norway" },
        });
        edit(&mut event);
        serde_json::to_vec(&event).unwrap().into()
    }

    fn admitted(bytes: &Bytes) -> Result<Event, NotRun> {
        let mut registry = Registry::default();
        registry.add("Order.Created.v1", r#"{"properties":{"event_id":{"type":"string","format":"uuid"}}}"#).unwrap();
        let key = ["/data/nothing".to_owned(), "/data/order_id".to_owned()];
        let terms = AdmitOptions { wants: &|kind, _| kind != "Order.Paid", key: &key, payload_bytes_max: 4096 };
        admit(&registry, bytes, &terms)
    }

    fn refusal(bytes: &[u8]) -> String {
        match admitted(&Bytes::copy_from_slice(bytes)).unwrap_err() {
            NotRun::Undecodable(text) => format!("undecodable: {text}"),
            NotRun::Invalid(text) => format!("invalid: {text}"),
            NotRun::Unknown(text) => format!("unknown: {text}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn data_is_handed_on_byte_for_byte() {
        let bytes = Bytes::from(
            String::from_utf8(event(|_| ()).to_vec()).unwrap().replace("{\"order_id\"", "{ \"x\" : 1e2,\t\"order_id\""),
        );
        let event = admitted(&bytes).unwrap();
        assert!(event.data().starts_with(b"{ \"x\" : 1e2,\t\"order_id\":9007199254740993"));
        assert_eq!(event.envelope(), &bytes);
        assert_eq!(&**event.key(), "9007199254740993");
    }

    #[test]
    fn the_key_falls_back_to_the_envelope_then_to_the_id() {
        let without = event(|e| _ = e["data"].as_object_mut().unwrap().remove("order_id"));
        assert_eq!(&**admitted(&without).unwrap().key(), "0191d3a0-0000-7000-8000-000000000001");
        let keyed = event(|e| {
            e["data"].as_object_mut().unwrap().remove("order_id");
            e["key"] = "k".into();
        });
        assert_eq!(&**admitted(&keyed).unwrap().key(), "k");
    }

    #[test]
    fn numbers_are_one_key_if_they_are_one_number() {
        let key = |number: &str| {
            let text = String::from_utf8(event(|_| ()).to_vec()).unwrap().replace("9007199254740993", number);
            admitted(&text.into()).unwrap().key().to_string()
        };
        for (same, wanted) in [
            (&["17", "17.0", "1.7e1", "170e-1"][..], "17"),
            (&["100000000000000000001", "100000000000000000001.0"], "100000000000000000001"),
            (&["100000000000000000002"], "100000000000000000002"),
            (&["9007199254740993", "9007199254740993.0", "9007199254740.993e3"], "9007199254740993"),
            (&["18446744073709551615", "18446744073709551615.00"], "18446744073709551615"),
            (&["18446744073709551616"], "18446744073709551616"),
            (&["-9223372036854775808"], "-9223372036854775808"),
            (&["17.5", "17.50"], "17.5"),
            (&["0", "-0", "0.0", "0e7"], "0"),
            (&["1e-400", "10e-401"], "1e-400"),
            (&["1e300"], "1e300"),
        ] {
            for number in same {
                assert_eq!(key(number), wanted, "{number}");
            }
        }
    }

    #[test]
    fn a_timer_needs_no_schema_and_keeps_its_key() {
        let timer = event(|e| {
            e["event_type"] = TIMER_KIND.into();
            e["key"] = "k".into();
            e["attributes"] = serde_json::json!({ "timer": "unpaid" });
        });
        let set = admit_timer(&timer, 4096).unwrap();
        assert_eq!((&**set.key(), set.attribute("timer")), ("k", Some("unpaid")));
        assert_eq!(set.name().to_string(), "Tidemill.Timer.v1");
        assert!(matches!(admit_timer(&timer, 64), Err(NotRun::Undecodable(_))));
        let null = event(|e| e["data"] = Value::Null);
        assert_eq!(admit_timer(&null, 4096).unwrap().data(), b"null");
        assert_eq!(refusal(&null), "invalid: /data: missing");
        assert!(refusal(&timer).starts_with("invalid: /event_type: \"Tidemill.Timer\" is the host's own"));
    }

    /// Reaches `HOPS_MOST`.
    #[test]
    fn a_hop_count_that_no_host_wrote_counts_as_none() {
        let mut strict = Registry::default();
        let schema = r#"{"additionalProperties":false,"properties":{"event_id":{},"event_type":{},"version":{},"timestamp":{},
                         "correlation_id":{},"data":{}}}"#;
        strict.add("Order.Created.v1", schema).unwrap();
        let terms = AdmitOptions { wants: &|_, _| true, key: &[], payload_bytes_max: 4096 };
        for (written, hops) in [
            ("3", 3),
            ("0", 0),
            ("10000", 10_000),
            ("10001", 0),
            ("-1", 0),
            ("3.5", 0),
            ("1e300", 0),
            ("184467440737095516160000", 0),
            ("\"3\"", 0),
            ("null", 0),
            ("[[3]]", 0),
            ("{\"a\":3}", 0),
            ("7,\"tidemill_hops\":2", 2),
        ] {
            let text = String::from_utf8(event(|_| ()).to_vec()).unwrap();
            let text = text.replacen('{', &format!("{{\"tidemill_hops\":{written},"), 1);
            let event = admit(&strict, &Bytes::from(text), &terms).unwrap_or_else(|no| panic!("{written}: {no:?}"));
            assert_eq!(event.hops(), hops, "{written}");
        }
        assert_eq!(admit(&strict, &event(|_| ()), &terms).unwrap().hops(), 0);
    }

    #[test]
    fn every_kind_of_dirt_has_its_words() {
        for (bytes, said) in [
            (b"".to_vec(), "undecodable: the event is empty"),
            (b"\xff{}".to_vec(), "undecodable: not UTF-8: byte 0 is 0xff"),
            (b"\xef\xbb\xbf{}".to_vec(), "undecodable: the event begins with a byte order mark"),
            (b"[]".to_vec(), "undecodable: not an event envelope"),
            (b"{\"data\":1,\"data\":2}".to_vec(), "undecodable: not an event envelope in JSON: duplicate field"),
            (vec![b'['; 4000], "undecodable: not an event envelope"),
            (vec![b' '; 5000], "undecodable: the event has 5000 bytes; at most 4096 (payload_bytes_max)"),
            (b"{}".to_vec(), "invalid: /event_type: missing"),
            (
                event(|e| e["version"] = 1.into()).to_vec(),
                "invalid: /version: 1 should be the major version as a string",
            ),
            (event(|e| e["version"] = "01".into()).to_vec(), "invalid: /version: \"01\" is not a major version"),
            (event(|e| e["event_id"] = "nope".into()).to_vec(), "invalid: /event_id: \"nope\" is not a \"uuid\""),
            (event(|e| e["correlation_id"] = 7.into()).to_vec(), "invalid: /correlation_id: 7 is not a UUID"),
            (event(|e| e["attributes"] = 7.into()).to_vec(), "invalid: /attributes: must be an object of strings"),
            (event(|e| e["event_type"] = "Order.Lost".into()).to_vec(), "unknown: event_type \"Order.Lost\""),
            (event(|e| e["event_type"] = "Order.Paid".into()).to_vec(), "NotWanted"),
        ] {
            let found = refusal(&bytes);
            assert!(found.starts_with(said), "wanted {said}\n found {found}");
        }
        let nested = String::from_utf8(event(|_| ()).to_vec()).unwrap();
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(refusal(nested.replace("\"Norway\"", &deep).as_bytes()).contains("recursion limit"));
        assert!(refusal(nested.replace("\"Norway\"", "1e400").as_bytes()).contains("number out of range"));
        assert!(refusal(nested.replace("\"Norway\"", "\"\\ud800\"").as_bytes()).starts_with("undecodable"));
    }
}
