//! Events for a stream, and deliveries whose time has come.

use std::time::Duration;

use bytes::Bytes;
use tidemill_core::model::delivery::EntryId;
use tidemill_core::model::entry::PayloadHash;
use uuid::Uuid;

/// An event for a stream. With a `dedup_key`, the stream's own inbox is checked first.
#[derive(Debug, Clone)]
pub struct NewEntry {
    pub body: Bytes,
    pub dedup_key: Option<(Uuid, PayloadHash)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Added(EntryId),
    /// This very event is on the stream.
    Duplicate,
    /// Another event with this id is on the stream; this one was not added.
    Conflict,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promoted {
    pub moved: usize,
    pub next_in: Option<Duration>,
}
