//! From a file to a plugin that can be called: trust, inspect, manifest, compile in a child, cache, load.

pub mod cache;
pub mod compile;
pub mod compile_child;
pub mod inspect;
pub mod load;
pub mod manifest;
pub mod plugin;
pub mod trust;
