//! The plugin interfaces, one file for each line of versions of `wit/`. `latest` is what the rest of the house speaks.

pub mod v0_1;

pub use v0_1 as latest;

/// The package of the plugin interfaces, and the versions of it that this host speaks, oldest first.
pub const PACKAGE: &str = "tidemill:plugin";
pub const VERSIONS: &[&str] = &["0.1.0", "0.1.1"];
