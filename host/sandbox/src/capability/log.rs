//! `tidemill:plugin/logging`: bounded lines, joined to the attempt that they belong to. The last ones go into the record
//! of a failed attempt, so that whoever reads the dead letter sees what the plugin said.

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
