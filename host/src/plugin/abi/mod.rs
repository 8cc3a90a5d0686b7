//! The plugin interfaces, one file for each frozen version of `wit/`. `latest` is what the rest of the house speaks.

pub mod v0_1_0;

pub use v0_1_0 as latest;

/// The package of the plugin interfaces, and the versions of it that this host speaks.
pub const PACKAGE: &str = "tidemill:plugin";
pub const VERSIONS: &[&str] = &["0.1.0"];
