//! Plugins: from a component's bytes to calls into it.
//!
//! ```text
//! bytes --trust: its origin--inspect, manifest: its permissions--> compile in a child --> linker with just that --> Plugin (an InstancePre)
//! Plugin --invoke--> Instance (a store and an instance, disposable) --handle(event)--> Outcome
//! ```

pub mod abi;
pub mod capability;
pub mod component;
pub mod engine;
mod error;
pub mod executor;
pub mod versions;
pub mod worlds;

pub use component::plugin::Plugin;
pub use engine::Engine;
pub use error::Error;
pub use versions::ActiveVersions;
