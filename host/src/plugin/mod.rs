//! Plugins: from a component's bytes to calls into it.
//!
//! ```text
//! bytes --compile--> Component --manifest: what does it ask for?--> linker with just that --> Plugin (an InstancePre)
//! Plugin --invoke--> Live (a store and an instance, disposable) --handle(event)--> Outcome
//! ```

pub mod abi;
pub mod compile;
pub mod engine;
pub mod invoke;
pub mod lanes;
pub mod load;
pub mod serving;
pub mod workers;

pub use engine::Engine;
pub use load::Plugin;
pub use serving::Serving;

use std::path::PathBuf;

/// Why a plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("plugin of handler \"{handler}\": cannot read {}: {cause}\n  hint: build it first (cargo xtask guests) or mend [handlers.{handler}] plugin", path.display())]
    Unreadable { handler: String, path: PathBuf, cause: std::io::Error },
    #[error("plugin of handler \"{handler}\": {} is not a WebAssembly component: {what}", path.display())]
    NotAComponent { handler: String, path: PathBuf, what: String },
    #[error("plugin of handler \"{handler}\": {what}\n  hint: {hint}")]
    WrongWorld { handler: String, what: String, hint: String },
    #[error(
        "plugin of handler \"{handler}\" asks for capability \"{capability}\", which is not granted\n  hint: write `{example}` under [handlers.{handler}.grants]"
    )]
    NotGranted { handler: String, capability: &'static str, example: &'static str },
    #[error("plugin of handler \"{handler}\": secret \"{name}\": {what}\n  hint: {hint}")]
    Secret { handler: String, name: String, what: String, hint: String },
    #[error("cannot set up the plugin engine: {0}")]
    Engine(String),
}
