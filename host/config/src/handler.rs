//! `[handlers.NAME]`: a handler's plugin, its policies, its limits and its grants.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use tidemill_storage::Start;

use super::parsed::{self, Parsed};
use tidemill_core::limits;
use tidemill_core::policy::breaker::BreakerPolicy;
use tidemill_core::policy::canary::CanaryPolicy;
use tidemill_core::policy::outbound::Grant;
use tidemill_core::policy::retry::RetryPolicy;
use tidemill_core::policy::route::Pattern;
use tidemill_core::units;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandlerConfig {
    pub plugin: PathBuf,
    /// `sha256:` and 64 hex digits: no other file than this one is loaded.
    pub digest: Option<String>,
    #[serde(default)]
    pub events: Vec<Parsed<Pattern>>,
    #[serde(default)]
    pub start: Start,
    /// JSON pointers into the envelope; the first that holds a string or a number makes the key.
    #[serde(default, deserialize_with = "units::one_or_many")]
    pub key: Vec<String>,
    #[serde(default = "default_deadline", deserialize_with = "units::duration")]
    pub deadline: Duration,
    #[serde(default)]
    pub retry: RetryPolicy,
    #[serde(default)]
    pub breaker: BreakerPolicy,
    /// The canary of a new plugin version; without it, a new version gets all events at once.
    pub canary: Option<CanaryPolicy>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default = "default_instance_events_max")]
    pub instance_events_max: u32,
    #[serde(default)]
    pub grants: Grants,
    /// Where the values of its secrets come from, by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretFrom>,
    /// Handed to the plugin as they are: text, numbers and booleans.
    #[serde(default, deserialize_with = "units::settings")]
    pub config: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub memory: ByteSize,
    /// Elements of all tables.
    pub tables: usize,
    /// Bytes that cross from the guest to the host in one call.
    pub hostcall_bytes: ByteSize,
    pub host_calls: u32,
    /// Handles of resources.
    pub handles: usize,
    pub emits: usize,
    pub emit_bytes: ByteSize,
    /// The most emits that may lead to one event.
    pub hops: u32,
    /// What one attempt may write.
    pub state: ByteSize,
    /// What one key may hold.
    pub state_total: ByteSize,
    pub timers: usize,
    pub timer_bytes: ByteSize,
    #[serde(deserialize_with = "units::duration")]
    pub timer_wait: Duration,
    pub log_lines: u32,
    /// Lines that all attempts together write into the host's log.
    pub log_lines_per_second: u32,
    /// Bytes of one line.
    pub log_bytes: ByteSize,
    pub http_requests: u32,
    pub http_request_bytes: ByteSize,
    pub http_response_bytes: ByteSize,
    /// Calls of a plugin with `http` that may run at once.
    pub io_calls: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: limits::MEMORY,
            tables: limits::TABLES,
            hostcall_bytes: limits::HOSTCALL_BYTES,
            host_calls: limits::HOST_CALLS,
            handles: limits::HANDLES,
            emits: limits::EMITS,
            emit_bytes: limits::EMIT_BYTES,
            hops: limits::HOPS,
            state: limits::STATE,
            state_total: limits::STATE_TOTAL,
            timers: limits::TIMERS,
            timer_bytes: limits::TIMER_BYTES,
            timer_wait: limits::TIMER_WAIT,
            log_lines: limits::LOG_LINES,
            log_lines_per_second: limits::LOG_LINES_PER_SECOND,
            log_bytes: limits::LOG_LINE_BYTES,
            http_requests: limits::HTTP_REQUESTS,
            http_request_bytes: limits::HTTP_REQUEST_BYTES,
            http_response_bytes: limits::HTTP_RESPONSE_BYTES,
            io_calls: limits::IO_CALLS,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Patterns of the event types that the plugin may emit. An empty list links `emit` and refuses every event.
    pub emit: Option<Vec<Parsed<Pattern>>>,
    #[serde(default)]
    pub state: bool,
    /// Whether the plugin may have itself called again later.
    #[serde(default)]
    pub timer: bool,
    /// The parts of WASI that the plugin may use, for toolchains that import it.
    #[serde(default)]
    pub wasi: Vec<WasiGrant>,
    /// Requests that the plugin may make, such as `POST https://api.example.com/v1/*`. An empty list links `http` and
    /// refuses every request.
    pub http: Option<Vec<Parsed<Grant>>>,
    /// Names of `[handlers.NAME.secrets]` that the plugin may read.
    pub secrets: Option<Vec<String>>,
}

impl Grants {
    /// The event types that the plugin may emit; none = it has no `emit` at all.
    pub fn emits(&self) -> Option<Vec<Pattern>> {
        self.emit.as_ref().map(parsed::values)
    }

    /// Where its requests may go; none = it has no `http` at all.
    pub fn requests(&self) -> Option<Vec<Grant>> {
        self.http.as_ref().map(parsed::values)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WasiGrant {
    Clocks,
    Random,
    Stdio,
}

/// Where the value of a secret is found: never in this file.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "SecretPlace")]
pub enum SecretFrom {
    Env(String),
    File(PathBuf),
}

/// As it is written. (An enum's own reader would repeat a secret that was put here by mistake.)
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "{ env = \"VARIABLE\" } or { file = \"PATH\" }: a secret itself never stands in this file"
)]
struct SecretPlace {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl TryFrom<SecretPlace> for SecretFrom {
    type Error = &'static str;

    fn try_from(place: SecretPlace) -> Result<Self, Self::Error> {
        match (place.env, place.file) {
            (Some(variable), None) => Ok(Self::Env(variable)),
            (None, Some(path)) => Ok(Self::File(path)),
            _ => Err("a secret comes from one place: { env = \"VARIABLE\" } or { file = \"PATH\" }"),
        }
    }
}

fn default_deadline() -> Duration {
    limits::DEADLINE
}

fn default_instance_events_max() -> u32 {
    limits::INSTANCE_EVENTS
}
