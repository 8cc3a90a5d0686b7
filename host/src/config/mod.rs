//! `tidemill.toml`: what was typed (this file), read with errors that name the key, the line and the nearest known key
//! (`read`), and held together as a whole (`check`).

pub mod check;
pub mod limits;
pub mod read;
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::policy::breaker::BreakerPolicy;
use crate::policy::retry::RetryPolicy;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub broker: Broker,
    #[serde(default)]
    pub schemas: Schemas,
    #[serde(default)]
    pub streams: BTreeMap<String, Stream>,
    #[serde(default)]
    pub handlers: BTreeMap<String, Handler>,
    /// Event type -> services. The same as `events` of those handlers.
    #[serde(default)]
    pub routing: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub idempotency: Idempotency,
    #[serde(default)]
    pub dead_letters: DeadLetters,
    #[serde(default)]
    pub host: Host,
    #[serde(default)]
    pub plugins: Plugins,
    pub http: Option<Http>,
    /// The folder of the file: relative paths in it start there.
    #[serde(skip)]
    pub folder: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    pub url: String,
}

impl Default for Broker {
    fn default() -> Self {
        Self { url: "sqlite:tidemill.db".to_owned() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schemas {
    pub path: PathBuf,
}

impl Default for Schemas {
    fn default() -> Self {
        Self { path: "schemas".into() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Patterns of the events that go to this stream; the first stream that matches takes an event.
    pub events: Vec<String>,
    /// Entries that the stream keeps at most, as far as every group has finished them.
    pub maxlen: Option<u64>,
    /// How long the stream keeps an entry, as far as every group has finished it.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub retention: Option<Duration>,
    /// What gives way when handlers do not keep up: the bounds, or entries that they have not finished.
    #[serde(default)]
    pub overflow: Overflow,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    #[default]
    Keep,
    Drop,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handler {
    pub plugin: PathBuf,
    /// `sha256:` and 64 hex digits: no other file than this one is loaded.
    pub digest: Option<String>,
    #[serde(default)]
    pub events: Vec<String>,
    #[serde(default)]
    pub start: Start,
    /// JSON pointers into the envelope; the first that holds a string or a number makes the key.
    #[serde(default, deserialize_with = "units::one_or_many")]
    pub key: Vec<String>,
    #[serde(default = "default_deadline", deserialize_with = "units::duration")]
    pub deadline: Duration,
    #[serde(default)]
    pub retry: Retry,
    #[serde(default)]
    pub breaker: Breaker,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default = "default_instance_events_max")]
    pub instance_events_max: u32,
    #[serde(default)]
    pub grants: Grants,
    /// Handed to the plugin as they are: text, numbers and booleans.
    #[serde(default, deserialize_with = "units::settings")]
    pub config: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    #[default]
    Beginning,
    New,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    pub max: u32,
    #[serde(deserialize_with = "units::duration")]
    pub base: Duration,
    pub factor: f64,
    #[serde(deserialize_with = "units::duration")]
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max: 3, base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(300) }
    }
}

impl Retry {
    pub fn policy(&self) -> RetryPolicy {
        RetryPolicy { max: self.max, base: self.base, factor: self.factor, cap: self.cap }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    pub failure_rate: f64,
    pub min_events: u32,
    #[serde(deserialize_with = "units::duration")]
    pub open_for: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failure_rate: 0.5, min_events: 20, open_for: Duration::from_secs(30) }
    }
}

impl Breaker {
    pub fn policy(&self) -> BreakerPolicy {
        BreakerPolicy { failure_rate: self.failure_rate, min_events: self.min_events, open_for: self.open_for }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub memory: ByteSize,
    pub emits: usize,
    pub emit_bytes: ByteSize,
    pub state: ByteSize,
    pub log_lines: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: limits::MEMORY,
            emits: limits::EMITS,
            emit_bytes: limits::EMIT_BYTES,
            state: limits::STATE,
            log_lines: limits::LOG_LINES,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Patterns of the event types that the plugin may emit. An empty list links `emit` and refuses every event.
    pub emit: Option<Vec<String>>,
    #[serde(default)]
    pub state: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Idempotency {
    #[serde(deserialize_with = "units::duration")]
    pub window: Duration,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { window: limits::INBOX_WINDOW }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetters {
    /// Whether `tidemill dead edit` may replay a letter with another body.
    pub edit: bool,
}

/// This process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Threads that call guests; 0 = one for each core.
    pub workers: usize,
    /// Deliveries that are fetched and settled together.
    pub batch: usize,
    pub payload_bytes_max: ByteSize,
    /// Dead letters that a handler keeps for a stream.
    pub dead_letters_max: u64,
    /// Where compiled plugins are kept; default: the user's cache folder.
    pub cache: Option<PathBuf>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            workers: 0,
            batch: limits::BATCH,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX,
            dead_letters_max: limits::DEAD_LETTERS,
            cache: None,
        }
    }
}

/// How components are taken in, whichever handler they are for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plugins {
    /// Public keys in the format of minisign. A signature beside a component must be by one of them.
    pub keys: Vec<PathBuf>,
    /// Whether a component without a signature is refused.
    pub require_signature: bool,
    /// The largest component.
    pub component_bytes_max: ByteSize,
    /// Compiled code that is kept in all, over all hosts that share the folder.
    pub cache_bytes_max: ByteSize,
    /// What compiling one component may take.
    pub compile_memory: ByteSize,
    #[serde(deserialize_with = "units::duration")]
    pub compile_cpu: Duration,
    #[serde(deserialize_with = "units::duration")]
    pub compile_wall: Duration,
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            require_signature: false,
            component_bytes_max: limits::COMPONENT_BYTES,
            cache_bytes_max: limits::CACHE_BYTES,
            compile_memory: limits::COMPILE_MEMORY,
            compile_cpu: limits::COMPILE_CPU,
            compile_wall: limits::COMPILE_WALL,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub listen: std::net::SocketAddr,
}

fn default_deadline() -> Duration {
    limits::DEADLINE
}

fn default_instance_events_max() -> u32 {
    limits::INSTANCE_EVENTS
}

impl Config {
    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// The patterns that a handler gets: its own `events` and what `[routing]` sends it.
    pub fn events_of(&self, handler: &str) -> Vec<&str> {
        let routed = self.routing.iter().filter(|(_, services)| services.iter().any(|service| service == handler));
        let own = self.handlers.get(handler).into_iter().flat_map(|handler| &handler.events);
        own.map(String::as_str).chain(routed.map(|(event, _)| event.as_str())).collect()
    }

    /// The broker's URL, with a relative SQLite file made to start at the configuration's folder.
    pub fn broker_url(&self) -> String {
        match self.broker.url.strip_prefix("sqlite:") {
            Some(":memory:") | None => self.broker.url.clone(),
            Some(file) => format!("sqlite:{}", self.path(Path::new(file)).display()),
        }
    }
}
