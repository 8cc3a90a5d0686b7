//! How much of a stream is kept, and what trimming it did; and how long a heartbeat may last.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

/// The longest TTL of a heartbeat. One that ends later than this from now was written before the clock was set back.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(120);

/// How much of a stream is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Entries at most.
    pub maxlen: Option<u64>,
    /// Age at most.
    pub retention: Option<Duration>,
    /// Hold to the bounds even if a group has not finished with what goes: it is lost to that group.
    pub overflow: Overflow,
    /// Handlers that read it. Where the group of one is missing, nothing is removed: it was lost, and what it has not
    /// finished is still needed.
    pub groups: Vec<Arc<str>>,
}

/// What happens to a stream that is over its bounds with entries that a group has not finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// The stream grows beyond its bounds.
    #[default]
    Keep,
    /// The entries go, and are lost to that group.
    Drop,
}

/// What trimming did, and what is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trimmed {
    pub removed: u64,
    /// Of those removed: entries that some group had not finished (`Overflow::Drop` only).
    pub lost: u64,
    pub length: u64,
    /// Age of the oldest entry that is left: the retention that the stream has in effect.
    pub oldest_age: Option<Duration>,
    /// Entries over the bounds that stay because a group has not finished them.
    pub held: u64,
}
