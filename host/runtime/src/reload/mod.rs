//! What changes while the host runs: a version of a plugin (`plugins`), and the whole configuration (`settings`).

pub mod plugins;
pub mod settings;
mod watch;
