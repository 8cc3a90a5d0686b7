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

/// The same of a time in the past.
pub fn rfc3339(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(String::new, |time| format!("{time:.3}"))
}
