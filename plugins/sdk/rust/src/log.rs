//! Log lines. The host adds the handler, the event and the attempt, so a line says only what is new.
//!
//! ```no_run
//! # use tidemill_sdk::log;
//! log::info("a new customer");
//! log::warn(format!("only {} left", 3));
//! ```

use crate::bindings::tidemill::plugin::logging::{self, Level};

pub fn debug(line: impl AsRef<str>) {
    write(Level::Debug, line.as_ref());
}

pub fn info(line: impl AsRef<str>) {
    write(Level::Info, line.as_ref());
}

pub fn warn(line: impl AsRef<str>) {
    write(Level::Warn, line.as_ref());
}

pub fn error(line: impl AsRef<str>) {
    write(Level::Error, line.as_ref());
}

fn write(level: Level, line: &str) {
    logging::log(level, "", line);
}
