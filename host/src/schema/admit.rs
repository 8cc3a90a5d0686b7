//! Admission: the only way from bytes to an `Event`. Decode the envelope, ask whether it is wanted, validate it.

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::registry::Registry;
use crate::model::event::{Event, PayloadHash};
use crate::model::name::{EventName, TIMER_KIND, is_reserved, parse_version};
use crate::model::outcome::Refusal;

/// What must be known before an event is validated: what it is, and where its `data` lies.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// A `null` that is there is a value, too.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What a handler wants to know of events.
pub struct Terms<'a> {
    /// Whether the handler's routes ask for this kind and version.
    pub wants: &'a dyn Fn(&str, u32) -> bool,
    /// JSON pointers into the envelope; the first that holds a string or a number makes the key.
    pub key: &'a [String],
    pub payload_bytes_max: usize,
}

/// Decodes the event of a timer. The host wrote it, so it has no schema, and every handler wants its own. The key is that
/// of the delivery which set the timer, whatever pointers the handler has.
pub fn admit_timer(bytes: &Bytes, payload_bytes_max: usize) -> Result<Event, Refusal> {
    let terms = Terms { wants: &|_, _| true, key: &[], payload_bytes_max };
    let head = head_of(bytes, payload_bytes_max)?;
    let envelope: Value = serde_json::from_slice(bytes).map_err(|error| undecodable(bytes, &error))?;
    let data = head.data.ok_or_else(|| missing("data"))?;
    build(bytes, &envelope, data, &EventName { kind: TIMER_KIND.into(), version: 1 }, &terms)
}

/// Decodes, routes and validates. A refusal carries the words for the dead letter.
pub fn admit(registry: &Registry, bytes: &Bytes, terms: &Terms<'_>) -> Result<Event, Refusal> {
    let head = head_of(bytes, terms.payload_bytes_max)?;
    let kind = text_member("event_type", head.event_type, "a string such as \"Order.Created\"")?;
    let version = text_member("version", head.version, "the major version as a string, such as \"1\"")?;
    let Some(version) = parse_version(&version) else {
        return Err(Refusal::Invalid(format!(
            "/version: \"{version}\" is not a major version (hint: \"1\", \"2\", ...)"
        )));
    };
    if !(terms.wants)(&kind, version) {
        return Err(Refusal::NotWanted);
    }
    if is_reserved(&kind) {
        return Err(Refusal::Invalid(format!(
            "/event_type: \"{kind}\" is the host's own, and nobody else publishes it"
        )));
    }
    let schema = registry.find(&kind, version)?;
    // Serde's own limit of 128 levels stops JSON that is too deep, here and above.
    let envelope: Value = serde_json::from_slice(bytes).map_err(|error| undecodable(bytes, &error))?;
    schema.check(&envelope)?;
    let data = head.data.filter(|data| data.get() != "null").ok_or_else(|| missing("data"))?;
    build(bytes, &envelope, data, &schema.name, terms)
}

fn head_of(bytes: &Bytes, payload_bytes_max: usize) -> Result<Head<'_>, Refusal> {
    if bytes.len() > payload_bytes_max {
        let size = bytes.len();
        return Err(Refusal::Undecodable(format!(
            "the event has {size} bytes; at most {payload_bytes_max} (payload_bytes_max) are allowed"
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| undecodable(bytes, &error))
}

/// The schema has been obeyed; what a lenient schema did not ask for is asked for here.
fn build(
    bytes: &Bytes,
    envelope: &Value,
    data: &RawValue,
    name: &EventName,
    terms: &Terms<'_>,
) -> Result<Event, Refusal> {
    let id = uuid_member(envelope, "event_id")?.ok_or_else(|| missing("event_id"))?;
    let correlation_id = uuid_member(envelope, "correlation_id")?.ok_or_else(|| missing("correlation_id"))?;
    let time = envelope.get("timestamp").and_then(Value::as_str).ok_or_else(|| missing("timestamp"))?;
    let start = data.get().as_ptr() as usize - bytes.as_ptr() as usize;
    Ok(Event {
        data: start..start + data.get().len(),
        hash: payload_hash(bytes),
        bytes: bytes.clone(),
        name: name.clone(),
        id,
        time: time.into(),
        correlation_id,
        causation_id: uuid_member(envelope, "causation_id")?,
        key: key_of(envelope, terms.key).unwrap_or_else(|| id.to_string()).into(),
        attributes: attributes(envelope)?,
    })
}

/// The first 128 bits of the SHA-256 of an event's bytes.
pub fn payload_hash(bytes: &[u8]) -> PayloadHash {
    let mut hash = PayloadHash::default();
    hash.copy_from_slice(&Sha256::digest(bytes)[..16]);
    hash
}

fn key_of(envelope: &Value, pointers: &[String]) -> Option<String> {
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    pointers
        .iter()
        .find_map(|pointer| envelope.pointer(pointer).and_then(text))
        .or_else(|| envelope.get("key").and_then(text))
}

fn attributes(envelope: &Value) -> Result<Vec<(String, String)>, Refusal> {
    let Some(attributes) = envelope.get("attributes") else { return Ok(Vec::new()) };
    let wrong = || Refusal::Invalid("/attributes: must be an object of strings".to_owned());
    let members = attributes.as_object().ok_or_else(wrong)?;
    members.iter().map(|(name, value)| Ok((name.clone(), value.as_str().ok_or_else(wrong)?.to_owned()))).collect()
}

fn uuid_member(envelope: &Value, member: &str) -> Result<Option<Uuid>, Refusal> {
    let Some(value) = envelope.get(member) else { return Ok(None) };
    let parsed = value.as_str().and_then(|text| Uuid::try_parse(text).ok());
    parsed.map(Some).ok_or_else(|| Refusal::Invalid(format!("/{member}: {value} is not a UUID")))
}

fn text_member(member: &str, raw: Option<&RawValue>, wanted: &str) -> Result<String, Refusal> {
    let raw = raw.ok_or_else(|| missing(member))?.get();
    serde_json::from_str(raw).map_err(|_| {
        let shown = &raw[..raw.floor_char_boundary(60)];
        Refusal::Invalid(format!("/{member}: {shown} should be {wanted}"))
    })
}

fn missing(member: &str) -> Refusal {
    Refusal::Invalid(format!("/{member}: missing"))
}

fn undecodable(bytes: &[u8], error: &serde_json::Error) -> Refusal {
    if let Err(error) = std::str::from_utf8(bytes) {
        return Refusal::Undecodable(format!(
            "not UTF-8: byte {} is 0x{:02x}",
            error.valid_up_to(),
            bytes[error.valid_up_to()]
        ));
    }
    if bytes.is_empty() {
        return Refusal::Undecodable("the event is empty".to_owned());
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Refusal::Undecodable(
            "the event begins with a byte order mark (hint: write UTF-8 without it)".to_owned(),
        );
    }
    Refusal::Undecodable(format!("not an event envelope in JSON: {error}"))
}

#[cfg(test)]
mod tests {
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

    fn admitted(bytes: &Bytes) -> Result<Event, Refusal> {
        let mut registry = Registry::default();
        registry.add("Order.Created.v1", r#"{"properties":{"event_id":{"type":"string","format":"uuid"}}}"#).unwrap();
        let key = ["/data/nothing".to_owned(), "/data/order_id".to_owned()];
        let terms = Terms { wants: &|kind, _| kind != "Order.Paid", key: &key, payload_bytes_max: 4096 };
        admit(&registry, bytes, &terms)
    }

    fn refusal(bytes: &[u8]) -> String {
        match admitted(&Bytes::copy_from_slice(bytes)).unwrap_err() {
            Refusal::Undecodable(text) => format!("undecodable: {text}"),
            Refusal::Invalid(text) => format!("invalid: {text}"),
            Refusal::Unknown(text) => format!("unknown: {text}"),
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
    fn a_timer_needs_no_schema_and_keeps_its_key() {
        let timer = event(|e| {
            e["event_type"] = TIMER_KIND.into();
            e["key"] = "k".into();
            e["attributes"] = serde_json::json!({ "timer": "unpaid" });
        });
        let set = admit_timer(&timer, 4096).unwrap();
        assert_eq!((&**set.key(), set.attribute("timer")), ("k", Some("unpaid")));
        assert_eq!(set.name().to_string(), "Tidemill.Timer.v1");
        assert!(matches!(admit_timer(&timer, 64), Err(Refusal::Undecodable(_))));
        let null = event(|e| e["data"] = Value::Null);
        assert_eq!(admit_timer(&null, 4096).unwrap().data(), b"null");
        assert_eq!(refusal(&null), "invalid: /data: missing");
        assert!(refusal(&timer).starts_with("invalid: /event_type: \"Tidemill.Timer\" is the host's own"));
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
