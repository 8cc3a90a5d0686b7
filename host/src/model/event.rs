//! An event: the envelope that a producer wrote, decoded once, and then known to be valid.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::name::EventName;

/// A hash of an event's exact bytes: the first 128 bits of its SHA-256. It tells a repeated event from another event
/// that bears the same id.
pub type PayloadHash = [u8; 16];

/// A valid event. Only schema admission (`schema::Registry::admit`) makes one, so nobody asks "is it valid?" again.
#[derive(Debug)]
pub struct Event {
    pub(crate) bytes: Bytes,
    pub(crate) data: Range<usize>,
    pub(crate) hash: PayloadHash,
    pub(crate) name: EventName,
    pub(crate) id: Uuid,
    pub(crate) time: Box<str>,
    pub(crate) correlation_id: Uuid,
    pub(crate) causation_id: Option<Uuid>,
    pub(crate) key: Arc<str>,
    pub(crate) attributes: Vec<(String, String)>,
}

impl Event {
    pub fn id(&self) -> Uuid {
        self.id
    }
    pub fn name(&self) -> &EventName {
        &self.name
    }
    /// What state and ordering go by: the handler's `key` pointer, else the envelope's `key`, else the event id.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }
    /// RFC 3339, as the producer wrote it.
    pub fn time(&self) -> &str {
        &self.time
    }
    pub fn correlation_id(&self) -> Uuid {
        self.correlation_id
    }
    pub fn causation_id(&self) -> Option<Uuid> {
        self.causation_id
    }
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
    /// The whole envelope, byte for byte.
    pub fn envelope(&self) -> &Bytes {
        &self.bytes
    }
    /// The member `data`, byte for byte.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.data.clone()]
    }
    pub fn hash(&self) -> PayloadHash {
        self.hash
    }
}
