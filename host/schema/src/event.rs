//! An event: the envelope that a producer wrote, decoded once, and then known to be valid.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use tidemill_core::model::entry::PayloadHash;
use tidemill_core::model::name::EventName;

/// The member of an envelope in which the host writes how many events an emitted one goes back on, each emitted by a
/// handler of the one before. What was published from outside has none.
pub const HOPS_MEMBER: &str = "tidemill_hops";
/// The most that `limits.hops` can be: no host writes more.
pub const HOPS_MOST: u32 = 10_000;

/// A valid event, as one handler sees it. Only admission (`schema::admit`) makes one, so it is never validated again.
#[derive(Debug)]
pub struct Event {
    pub(crate) facts: Arc<EventParts>,
    pub(crate) key: Arc<str>,
}

/// What is the same for all handlers.
#[derive(Debug)]
pub(crate) struct EventParts {
    pub bytes: Bytes,
    pub data: Range<usize>,
    pub hash: PayloadHash,
    pub name: EventName,
    pub id: Uuid,
    pub time: Box<str>,
    pub correlation_id: Uuid,
    pub causation_id: Option<Uuid>,
    pub attributes: Vec<(String, String)>,
    pub hops: u32,
}

impl Event {
    pub fn id(&self) -> Uuid {
        self.facts.id
    }
    pub fn name(&self) -> &EventName {
        &self.facts.name
    }
    /// What state and ordering go by: the handler's `key` pointer, else the envelope's `key`, else the event id.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }
    /// RFC 3339, as the producer wrote it.
    pub fn time(&self) -> &str {
        &self.facts.time
    }
    pub fn correlation_id(&self) -> Uuid {
        self.facts.correlation_id
    }
    pub fn causation_id(&self) -> Option<Uuid> {
        self.facts.causation_id
    }
    /// How many emits led to it; 0: it came from outside. See [`HOPS_MEMBER`].
    pub fn hops(&self) -> u32 {
        self.facts.hops
    }
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.facts.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
    /// What the attributes take of memory beside the envelope, in bytes, about: they are copies.
    pub fn attributes_bytes(&self) -> usize {
        let texts = self.facts.attributes.iter().map(|(name, value)| name.len() + value.len());
        texts.sum::<usize>() + std::mem::size_of_val(&self.facts.attributes[..])
    }
    /// The whole envelope, byte for byte.
    pub fn envelope(&self) -> &Bytes {
        &self.facts.bytes
    }
    /// The member `data`, byte for byte.
    pub fn data(&self) -> &[u8] {
        &self.facts.bytes[self.facts.data.clone()]
    }
    pub fn hash(&self) -> PayloadHash {
        self.facts.hash
    }
}
