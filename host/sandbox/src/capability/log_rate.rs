//! How many lines a handler writes into the host's log in one second.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Bounds what all instances of a handler write into the host's log in one second. The records of attempts have their
/// last lines all the same.
#[derive(Debug)]
pub struct LogRateLimit {
    lines_max: u32,
    second: AtomicU64,
    lines: AtomicU32,
}

impl LogRateLimit {
    pub fn new(lines_max: u32) -> Self {
        Self { lines_max, second: AtomicU64::new(0), lines: AtomicU32::new(0) }
    }

    /// Whether one more line may be written, so long after the machine was started.
    pub(super) fn admits(&self, now: Duration) -> bool {
        let second = now.as_secs();
        // Two threads at the turn of a second may let some more lines through, which does not matter.
        if self.second.swap(second, Relaxed) != second {
            self.lines.store(0, Relaxed);
        }
        self.lines.fetch_add(1, Relaxed) < self.lines_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches `LOG_LINES_PER_SECOND`.
    #[test]
    fn each_second_has_its_lines() {
        let gate = LogRateLimit::new(2);
        let admitted = [1000, 1400, 1900, 2000, 2001, 2999].map(|ms| gate.admits(Duration::from_millis(ms)));
        assert_eq!(admitted, [true, true, false, true, true, false]);
    }
}
