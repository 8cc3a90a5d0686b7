//! The plugin interfaces, one file for each line of versions of `wit/`. The rest of the host uses `latest`.

pub(crate) mod v0_1;

pub(crate) use v0_1 as latest;

/// The package of the plugin interfaces, and the versions of it that this host supports, oldest first.
pub(crate) const PACKAGE: &str = "tidemill:plugin";
pub const VERSIONS: &[&str] = &["0.1.0", "0.1.1"];
