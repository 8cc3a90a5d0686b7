//! Times as the tables hold them: whole milliseconds.

use std::time::{Duration, SystemTime};

pub(crate) fn wall_ms() -> i64 {
    // A clock before 1970 is set wrongly, but it is no reason to stop.
    millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Milliseconds for SQL. What does not fit is as good as for ever.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
