//! The command `tidemill`: the commands, and the one place that knows every backend.

pub mod backends;
pub mod cli;
