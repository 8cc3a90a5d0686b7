//! What a backend needs to know of the configuration.

use std::time::Duration;

use tidemill_core::limits;

/// What an entry may have beside its event, in bytes.
pub const ENTRY_FACTS_BYTES: usize = 56 << 10;

/// What a backend needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the inbox remembers at least (`idempotency.window`).
    pub inbox_window: Duration,
    /// How many dead letters a subscription keeps at most. Those that never ran (by `ReasonClass::ran`, and no attempt
    /// is on record) have half of it at most and are evicted first; then the oldest.
    pub dead_letters_max: u64,
    /// Their bytes at most, in the same way: body, reason and history of each, as they are stored.
    pub dead_letters_bytes_max: u64,
    /// How many timers of a subscription may wait (`host.timers_max`); see [`Settled::Full`](super::Settled::Full).
    pub timers_max: u64,
    /// What the timers of all subscriptions of the configuration may take together, in bytes: for `doctor`.
    pub timers_bytes: u64,
    /// The largest event, in bytes (`host.payload_bytes_max`). An entry above that and [`ENTRY_FACTS_BYTES`] is never
    /// held whole: it comes as [`Body::Large`](tidemill_core::model::delivery::Body).
    pub payload_bytes_max: usize,
    /// What one fetch or recovery delivers at most, in bytes (a share of `host.fetch_bytes_max`). A single entry is
    /// always delivered.
    pub fetch_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inbox_window: limits::INBOX_WINDOW,
            dead_letters_max: limits::DEAD_LETTERS,
            dead_letters_bytes_max: limits::DEAD_LETTERS_BYTES.as_u64(),
            timers_max: limits::TIMERS_WAITING,
            timers_bytes: 0,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX.as_u64() as usize,
            fetch_bytes_max: limits::FETCH_BYTES.as_u64() as usize,
        }
    }
}

impl Options {
    /// Names and values of an entry that is held whole, in bytes.
    pub fn entry_bytes_max(&self) -> usize {
        self.payload_bytes_max.saturating_add(ENTRY_FACTS_BYTES)
    }
}
