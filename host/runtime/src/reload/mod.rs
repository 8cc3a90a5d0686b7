//! What changes while the host runs: a version of a plugin (`plugins`), and the whole configuration (`settings`).

mod history;
pub mod plugins;
pub mod settings;
mod watch;
