//! `tidemill.toml`: what was typed (this file), read with errors that name the key, the line and the nearest known key
//! (`read`), and held together as a whole (`check`).

pub mod check;
mod handler;
mod parsed;
pub mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::{IpNet, Ipv6Net};
use serde::Deserialize;
use tidemill_core::{limits, units};
use tidemill_storage::Overflow;

pub use handler::{Grants, HandlerConfig, Limits, SecretFrom, WasiGrant};
pub use parsed::Parsed;
use tidemill_core::model::backend_url::BackendUrl;
use tidemill_core::policy::address::Networks;
use tidemill_core::policy::route::{Pattern, StreamRoutes};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub backend: BackendConfig,
    #[serde(default)]
    pub schemas: SchemasConfig,
    #[serde(default)]
    pub streams: BTreeMap<String, StreamConfig>,
    #[serde(default)]
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// Event type -> services. The same as `events` of those handlers.
    #[serde(default)]
    pub routing: BTreeMap<Parsed<Pattern>, Vec<String>>,
    #[serde(default)]
    pub idempotency: Idempotency,
    #[serde(default)]
    pub dead_letters: DeadLetters,
    #[serde(default)]
    pub host: HostConfig,
    #[serde(default)]
    pub plugins: PluginsConfig,
    pub http: Option<HttpConfig>,
    /// The folder of the file: relative paths in it start there.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The file itself.
    #[serde(skip)]
    pub file: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    pub url: BackendUrl,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self { url: "sqlite:tidemill.db".into() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemasConfig {
    pub path: PathBuf,
}

impl Default for SchemasConfig {
    fn default() -> Self {
        Self { path: "schemas".into() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// Patterns of the events that go to this stream; the first stream that matches takes an event.
    pub events: Vec<Parsed<Pattern>>,
    /// Entries that the stream keeps at most, as far as every group has finished them.
    pub maxlen: Option<u64>,
    /// How long the stream keeps an entry, as far as every group has finished it.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub retention: Option<Duration>,
    /// What gives way when handlers do not keep up: the bounds, or entries that they have not finished.
    #[serde(default)]
    pub overflow: Overflow,
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
pub struct HostConfig {
    /// Threads that call guests; 0 = one for each core.
    pub workers: usize,
    /// Threads that call guests which block on other services (`http`).
    pub io_workers: usize,
    /// Networks besides the public internet that requests of plugins may go to, such as `10.1.0.0/16`.
    pub http_private: Vec<Parsed<IpNet>>,
    /// Prefixes of IPv6 behind which a NAT64 gateway of this network translates to IPv4.
    pub(crate) http_nat64: Vec<Parsed<Ipv6Net>>,
    /// Deliveries that are fetched and settled together.
    pub batch: usize,
    pub payload_bytes_max: ByteSize,
    /// What is fetched and not settled, of all streams together.
    pub fetch_bytes_max: ByteSize,
    /// Dead letters that a handler keeps for a stream.
    pub dead_letters_max: u64,
    /// The bytes of those.
    pub dead_letters_bytes_max: ByteSize,
    /// Timers that may wait for a handler on a stream.
    pub timers_max: u64,
    /// Where compiled plugins are kept; default: the user's cache folder.
    pub cache: Option<PathBuf>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            workers: 0,
            io_workers: limits::IO_WORKERS,
            http_private: Vec::new(),
            http_nat64: Vec::new(),
            batch: limits::BATCH,
            payload_bytes_max: limits::PAYLOAD_BYTES_MAX,
            fetch_bytes_max: limits::FETCH_BYTES,
            dead_letters_max: limits::DEAD_LETTERS,
            dead_letters_bytes_max: limits::DEAD_LETTERS_BYTES,
            timers_max: limits::TIMERS_WAITING,
            cache: None,
        }
    }
}

/// How components are loaded, for all handlers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginsConfig {
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
    /// The stack of a guest.
    pub stack: ByteSize,
    /// Whether plugins, this file and the schemas are reloaded when their files change.
    pub watch: bool,
    /// Versions of a plugin that are kept for `tidemill plugin rollback`, the active one included.
    pub generations: usize,
}

impl Default for PluginsConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            require_signature: false,
            component_bytes_max: limits::COMPONENT_BYTES,
            cache_bytes_max: limits::CACHE_BYTES,
            compile_memory: limits::COMPILE_MEMORY,
            compile_cpu: limits::COMPILE_CPU,
            compile_wall: limits::COMPILE_WALL,
            stack: limits::STACK,
            watch: true,
            generations: limits::GENERATIONS,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    pub listen: std::net::SocketAddr,
    /// The file of the API's token; the host creates it if it is missing.
    pub token_file: Option<PathBuf>,
}

impl Config {
    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Where the token of the API lies: as configured, or beside the configuration.
    pub fn token_file(&self) -> PathBuf {
        let set = self.http.as_ref().and_then(|http| http.token_file.as_deref());
        self.path(set.unwrap_or(Path::new("tidemill.token")))
    }

    /// The patterns that a handler gets: its own `events` and what `[routing]` sends it.
    pub fn events_of(&self, handler: &str) -> Vec<Pattern> {
        parsed::values(self.events_written(handler))
    }

    fn events_written<'a>(&'a self, handler: &'a str) -> impl Iterator<Item = &'a Parsed<Pattern>> {
        let routed = self.routing.iter().filter(move |(_, services)| services.iter().any(|service| service == handler));
        let own = self.handlers.get(handler).into_iter().flat_map(|handler| &handler.events);
        own.chain(routed.map(|(event, _)| event))
    }

    /// The streams and what they take.
    pub fn stream_routes(&self) -> StreamRoutes {
        let row = |(name, stream): (&String, &StreamConfig)| (name.as_str().into(), parsed::values(&stream.events));
        StreamRoutes { rows: self.streams.iter().map(row).collect() }
    }

    /// The networks that requests of plugins may go to besides the public internet, and the NAT64 prefixes.
    pub fn networks(&self) -> Networks {
        Networks { open: parsed::values(&self.host.http_private), nat64: parsed::values(&self.host.http_nat64) }
    }

    /// The backend's URL, with a relative SQLite file made to start at the configuration's folder.
    pub fn backend_url(&self) -> BackendUrl {
        match self.backend.url.sqlite_file() {
            Some(":memory:" | "") | None => self.backend.url.clone(),
            Some(file) => format!("sqlite:{}", self.path(Path::new(file)).display()).into(),
        }
    }
}
