//! The host's clocks. The wall clock is for people and for the envelopes of emitted events: it may be set at any time, so
//! nothing is decided by it. The time since the machine was started cannot be set; decisions about time go by that, or by
//! the backend's own clock (docs/decisions/0030).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The time since this machine was started, in which it slept counted: it is the same for all processes and goes evenly,
/// whatever the wall clock is set to.
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let id = rustix::time::ClockId::Boottime;
    // Elsewhere the time that the machine slept is missing.
    #[cfg(not(target_os = "linux"))]
    let id = rustix::time::ClockId::Monotonic;
    Duration::try_from(rustix::time::clock_gettime(id)).unwrap_or_default()
}

/// Which start of the machine [`since_boot`] counts from; empty where the system does not tell.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
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
