//! `tidemill:plugin/logging`: bounded lines, joined to the attempt that they belong to. The last ones go into the record
//! of a failed attempt, so that whoever reads the dead letter sees what the plugin said.

use super::context::Context;
use crate::plugin::abi::latest::tidemill::plugin::logging::{self, Level};

/// How many of an attempt's last lines are kept for its record.
const LINES_KEPT: usize = 10;

impl logging::Host for Context {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let limits = &self.terms.limits;
        self.attempt.log_lines += 1;
        if self.attempt.log_lines > limits.log_lines_max {
            if self.attempt.log_lines == limits.log_lines_max + 1 {
                let handler = &*self.terms.handler;
                tracing::warn!(target: "guest", handler, lines_max = limits.log_lines_max, "the plugin logs too much; the rest of this attempt is cut");
            }
            return Ok(());
        }
        let mut line = if context.is_empty() { message } else { format!("{context}: {message}") };
        if line.len() > limits.log_bytes_max {
            line.truncate(line.floor_char_boundary(limits.log_bytes_max));
            line.push_str("...");
        }
        let handler = &*self.terms.handler;
        // None while `lifecycle.init` runs.
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
        Ok(())
    }
}
