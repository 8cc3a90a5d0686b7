//! The host's clock, for people and for the envelopes of emitted events. Decisions about time are the backend's.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Now in UTC, RFC 3339 with milliseconds: `2026-01-31T12:00:00.123Z`.
pub fn now_rfc3339() -> Arc<str> {
    format!("{:.3}", jiff::Timestamp::now()).into()
}
