//! Publishing: enrich, then validate, then put on the stream that takes the type. (Validating first could never pass:
//! enrichment adds what the schemas require.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::observe;
use tidemill_core::clock;
use tidemill_core::model::entry::PayloadHash;
use tidemill_core::model::outcome::NotRun;
use tidemill_core::model::plain_text::PlainText;
use tidemill_core::policy::route::StreamRoutes;
use tidemill_schema::Registry;
use tidemill_schema::admit::{AdmitOptions, admit, payload_hash};
use tidemill_schema::event::Event;
use tidemill_storage::{Backend, Error, NewEntry, Published};

/// Events that go to the backend in one call.
pub const PUBLISH_BATCH: usize = 500;

pub struct Publisher {
    pub backend: Arc<dyn Backend>,
    pub schemas: Arc<Registry>,
    pub streams: Arc<StreamRoutes>,
    pub payload_bytes_max: usize,
}

/// An event that is ready to be put on its stream.
#[derive(Debug)]
pub struct Ready {
    pub stream: Arc<str>,
    pub event: Event,
    /// Of what the producer wrote. What is added differs each time, and must not make the same event another one.
    given: PayloadHash,
}

/// Why an event is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", event_id.as_ref().map(|id| format!("event {id}: ")).unwrap_or_default())]
pub struct PublishError {
    pub event_id: Option<String>,
    pub reason: String,
}

/// What may be missing before enrichment.
#[derive(Deserialize)]
struct Stamps<'a> {
    #[serde(borrow)]
    event_id: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    correlation_id: Option<&'a RawValue>,
}

impl Publisher {
    /// Enriches and validates one event. What the producer wrote stays as it is, byte for byte.
    pub fn prepare(&self, bytes: &[u8]) -> Result<Ready, PublishError> {
        self.admitted(bytes).inspect_err(|_| observe::publish_refused())
    }

    fn admitted(&self, bytes: &[u8]) -> Result<Ready, PublishError> {
        let event_id = event_id(bytes);
        let refused = |reason: String| PublishError { event_id: event_id.clone(), reason };
        let enriched = enrich(bytes);
        let terms = AdmitOptions { wants: &|_, _| true, key: &[], payload_bytes_max: self.payload_bytes_max };
        let words = |refusal| match refusal {
            NotRun::Undecodable(text) | NotRun::Invalid(text) | NotRun::Unknown(text) => text.into(),
            other => format!("{other:?}"),
        };
        let event = admit(&self.schemas, &enriched, &terms).map_err(|refusal| {
            // The place of a mistake is told as it is in what the producer wrote.
            let own = match refusal {
                NotRun::Undecodable(_) if enriched.len() != bytes.len() => {
                    admit(&self.schemas, &Bytes::copy_from_slice(bytes), &terms).err()
                }
                _ => None,
            };
            refused(words(own.filter(|own| matches!(own, NotRun::Undecodable(_))).unwrap_or(refusal)))
        })?;
        let written = bytes.trim_ascii();
        let given = if enriched.len() == written.len() { event.hash() } else { payload_hash(written) };
        let name = event.name();
        let stream = self.streams.find(&name.kind, name.version).cloned();
        let stream = stream.ok_or_else(|| refused(format!("no stream takes {name} (hint: [streams.NAME] events)")))?;
        Ok(Ready { stream, event, given })
    }

    /// Puts events on their streams; answers come in the same order. The order within each stream is kept.
    pub async fn publish(&self, ready: Vec<Ready>) -> Result<Vec<Published>, Error> {
        let mut by_stream: BTreeMap<Arc<str>, (Vec<usize>, Vec<NewEntry>)> = BTreeMap::new();
        for (index, ready) in ready.iter().enumerate() {
            let (indices, entries) = by_stream.entry(ready.stream.clone()).or_default();
            indices.push(index);
            let dedup_key = Some((ready.event.id(), ready.given));
            entries.push(NewEntry { body: ready.event.envelope().clone(), dedup_key });
        }
        let mut answers = vec![Published::Duplicate; ready.len()];
        for (stream, (indices, entries)) in by_stream {
            for (index, answer) in indices.into_iter().zip(self.put(&stream, &entries).await?) {
                answers[index] = answer;
            }
        }
        Ok(answers)
    }

    async fn put(&self, stream: &str, entries: &[NewEntry]) -> Result<Vec<Published>, Error> {
        let begun = Instant::now();
        let answers = self.backend.publish(stream, entries).await;
        match &answers {
            Ok(answers) => observe::published(stream, answers, begun.elapsed()),
            Err(_) => observe::publish_failed(stream, entries.len()),
        }
        answers
    }
}

/// Adds the stamps that are missing in front of the first member: an id (UUIDv7), the time, and, since a root event
/// correlates to itself, the id once more.
fn enrich(bytes: &[u8]) -> Bytes {
    let Ok(stamps) = serde_json::from_slice::<Stamps>(bytes) else { return Bytes::copy_from_slice(bytes) };
    let id = match stamps.event_id {
        Some(raw) => raw.get().to_owned(),
        None => format!("\"{}\"", Uuid::now_v7()),
    };
    let mut added = String::new();
    if stamps.event_id.is_none() {
        added.push_str(&format!("\"event_id\":{id},"));
    }
    if stamps.timestamp.is_none() {
        added.push_str(&format!("\"timestamp\":\"{}\",", clock::now_rfc3339()));
    }
    if stamps.correlation_id.is_none() {
        added.push_str(&format!("\"correlation_id\":{id},"));
    }
    let text = bytes.trim_ascii();
    match text.strip_prefix(b"{") {
        Some(rest) if !added.is_empty() => {
            // An empty object has no first member to stand in front of.
            let added = if rest.trim_ascii_start().starts_with(b"}") { added.trim_end_matches(',') } else { &added };
            Bytes::from([b"{", added.as_bytes(), rest].concat())
        }
        _ => Bytes::copy_from_slice(text),
    }
}

fn event_id(bytes: &[u8]) -> Option<String> {
    let stamps: Stamps = serde_json::from_slice(bytes).ok()?;
    // It need not be a UUID.
    let id: String = serde_json::from_str(stamps.event_id?.get()).ok()?;
    Some(PlainText::from(id).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added_and_the_rest_is_left_alone() {
        let enriched = enrich(br#"  {"event_type":"A.B", "data":{ "x":1.0 }}"#);
        let text = std::str::from_utf8(&enriched).unwrap();
        assert!(text.ends_with(r#""event_type":"A.B", "data":{ "x":1.0 }}"#), "{text}");
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(value["event_id"], value["correlation_id"]);
        assert!(value["timestamp"].as_str().unwrap().ends_with('Z'));
        let complete = br#"{"event_id":"a","timestamp":"b","correlation_id":"c"}"#;
        assert_eq!(&enrich(complete)[..], complete);
        assert!(serde_json::from_slice::<serde_json::Value>(&enrich(b"{ }")).is_ok());
        assert_eq!(&enrich(b"not json")[..], b"not json");
    }
}
