//! Why a plugin cannot be used, and what to do.

use std::path::PathBuf;

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
    #[error("plugin of handler \"{handler}\": {what}\n  hint: {hint}")]
    Compile { handler: String, what: String, hint: String },
    #[error("plugin of handler \"{handler}\": {what}\n  hint: {hint}")]
    NotTrusted { handler: String, what: String, hint: String },
    #[error("plugin of handler \"{handler}\": {what}\n  hint: {hint}")]
    Manifest { handler: String, what: String, hint: String },
    #[error("cannot use the key {}: {what}\n  hint: name the public key of a minisign pair in [plugins] keys", path.display())]
    Key { path: PathBuf, what: String },
    #[error("plugin of handler \"{handler}\": secret \"{name}\": {what}\n  hint: {hint}")]
    Secret { handler: String, name: String, what: String, hint: String },
    #[error("cannot set up the plugin engine: {0}")]
    Engine(String),
}
