//! What is fetched, reclaimed and looked up before a batch runs.

use std::time::Duration;

use tidemill_core::model::delivery::{Delivery, EntryId, KeyState, Queue};
use tidemill_core::model::entry::PayloadHash;

/// Hosts that may crash with a delivery in flight before it is a suspect: quarantined and run in isolation.
pub const CRASHES_MAX: u32 = 3;

/// A delivery that two or more crashed hosts had in flight counts for so many of a batch when it is reclaimed.
pub const CRASHED_WEIGHT: usize = 4;

/// States that one look-up reads, in bytes of names and values: the key that goes beyond that is the last one read.
pub const LOOK_UP_BYTES_MAX: usize = 16 << 20;

/// What the inbox and the state hold, in the order of the question.
#[derive(Debug, Default)]
pub struct LookUp {
    pub seen: Vec<Option<PayloadHash>>,
    /// Of the first keys, at least one; of the others it was not read (`LOOK_UP_BYTES_MAX`).
    pub states: Vec<KeyState>,
}

/// What was fetched.
#[derive(Debug, Default)]
pub struct Fetched {
    pub deliveries: Vec<Delivery>,
    /// More was delivered than fits ([`Options::fetch_bytes_max`](crate::Options::fetch_bytes_max)): [`Consume::recover`](crate::Consume::recover) returns the rest.
    pub more: bool,
}

/// What was reclaimed.
#[derive(Debug, Default)]
pub struct Recovered {
    pub deliveries: Vec<Delivery>,
    /// There is more to reclaim.
    pub more: bool,
    /// Deliveries of dead consumers that this call moved into quarantine.
    pub quarantined: Vec<(Queue, EntryId)>,
    /// How many are in quarantine.
    pub suspects: u64,
}

/// For so long a host's crash counts against what it had in flight; then the count restarts.
pub const CRASH_WINDOW: Duration = Duration::from_secs(72 * 3600);
