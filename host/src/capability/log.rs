//! `tidemill:plugin/logging`: bounded lines, joined to the attempt that they belong to. The last ones go into the record
//! of a failed attempt, so that whoever reads the dead letter sees what the plugin said.

use super::context::Context;
use crate::plugin::abi::latest::tidemill::plugin::logging::{self, Level};

/// How many of an attempt's last lines are kept for its record.
const LINES_KEPT: usize = 10;

impl logging::Host for Context {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        self.say(level, if context.is_empty() { message } else { format!("{context}: {message}") });
        Ok(())
    }
}

impl Context {
    /// Whether what is logged from now on is dropped.
    pub(super) fn log_is_full(&self) -> bool {
        self.attempt.log_lines > self.terms.limits.log_lines_max
    }

    /// One line of the attempt's log. While an instance starts there is no attempt: then it is the handler's.
    pub(super) fn say(&mut self, level: Level, mut line: String) {
        let limits = &self.terms.limits;
        if self.log_is_full() {
            return;
        }
        self.attempt.log_lines += 1;
        if self.log_is_full() {
            let handler = &*self.terms.handler;
            tracing::warn!(target: "guest", handler, lines_max = limits.log_lines_max, "the plugin logs too much; the rest of this attempt is cut");
            return;
        }
        if line.len() > limits.log_bytes_max {
            line.truncate(line.floor_char_boundary(limits.log_bytes_max));
            line.push_str("...");
        }
        let handler = &*self.terms.handler;
        let event = self.attempt.event.as_ref().map(|event| tracing::field::display(event.id()));
        match level {
            Level::Trace => tracing::trace!(target: "guest", handler, event, "{line}"),
            Level::Debug => tracing::debug!(target: "guest", handler, event, "{line}"),
            Level::Info => tracing::info!(target: "guest", handler, event, "{line}"),
            Level::Warn => tracing::warn!(target: "guest", handler, event, "{line}"),
            Level::Error | Level::Critical => tracing::error!(target: "guest", handler, event, "{line}"),
        }
        if self.attempt.log.len() == LINES_KEPT {
            self.attempt.log.remove(0);
        }
        self.attempt.log.push(line);
    }
}
