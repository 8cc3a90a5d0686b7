//! `tidemill:plugin/logging`: bounded lines, joined to the attempt that they belong to. The last ones go into the record
//! of a failed attempt, so that whoever reads the dead letter sees what the plugin said.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::context::{Context, bytes_of, truncate};
use crate::abi::latest::tidemill::plugin::logging;
use crate::abi::latest::tidemill::plugin::logging::Level;
use tidemill_core::clock;
use tidemill_core::model::outcome::Truncation;

/// How many of an attempt's last lines are kept for its record.
const LINES_KEPT: usize = 10;

impl logging::Host for Context {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        self.enter()?;
        self.say(level, if context.is_empty() { message } else { format!("{context}: {message}") });
        Ok(())
    }
}

impl Context {
    /// Whether what is logged from now on is dropped.
    pub(super) fn log_is_full(&self) -> bool {
        self.attempt.log_lines > self.terms.limits.log_lines
    }

    /// One line of the attempt's log. While an instance starts there is no attempt: then it is the handler's.
    pub(super) fn say(&mut self, level: Level, mut line: String) {
        if self.log_is_full() {
            return;
        }
        let limits = &self.terms.limits;
        self.attempt.log_lines += 1;
        if self.attempt.log_lines > limits.log_lines {
            self.attempt.leave_out(Truncation::LogLines);
            let handler = &*self.terms.handler;
            if self.terms.log_gate.admits(clock::since_boot()) {
                tracing::warn!(target: "guest", handler, lines_max = limits.log_lines, "too many log lines; dropping the rest of this attempt");
            }
            return;
        }
        line = self.terms.secrets.redact(line);
        if line.len() > bytes_of(limits.log_bytes) {
            self.attempt.leave_out(Truncation::LogBytes);
            line = truncate(line, bytes_of(limits.log_bytes));
        }
        if self.terms.log_gate.admits(clock::since_boot()) {
            self.write(level, &line);
        } else {
            self.attempt.leave_out(Truncation::LogRate);
        }
        if self.attempt.log.len() == LINES_KEPT {
            self.attempt.log.remove(0);
        }
        self.attempt.log.push(line);
    }

    /// Writes a line into the host's own log.
    fn write(&self, level: Level, line: &str) {
        let handler = &*self.terms.handler;
        let event = self.attempt.event.as_ref().map(|event| tracing::field::display(event.id()));
        match level {
            Level::Trace => tracing::trace!(target: "guest", handler, event, "{line}"),
            Level::Debug => tracing::debug!(target: "guest", handler, event, "{line}"),
            Level::Info => tracing::info!(target: "guest", handler, event, "{line}"),
            Level::Warn => tracing::warn!(target: "guest", handler, event, "{line}"),
            Level::Error | Level::Critical => tracing::error!(target: "guest", handler, event, "{line}"),
        }
    }
}

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
    fn admits(&self, now: Duration) -> bool {
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
