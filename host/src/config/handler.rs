//! `[handlers.NAME]`: a handler's plugin, its policies, its limits and its grants.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::{limits, units};
use crate::policy::breaker::BreakerPolicy;
use crate::policy::canary::CanaryPolicy;
use crate::policy::retry::RetryPolicy;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandlerConfig {
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
    pub retry: RetryConfig,
    #[serde(default)]
    pub breaker: BreakerConfig,
    /// How a new version of the plugin is tried first; without it, it serves everything at once.
    pub canary: Option<CanaryConfig>,
    #[serde(default)]
    pub limits: LimitsConfig,
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

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    #[default]
    Beginning,
    New,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    pub max: u32,
    #[serde(deserialize_with = "units::duration")]
    pub base: Duration,
    pub factor: f64,
    #[serde(deserialize_with = "units::duration")]
    pub cap: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { max: 3, base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(300) }
    }
}

impl RetryConfig {
    pub fn policy(&self) -> RetryPolicy {
        RetryPolicy { max: self.max, base: self.base, factor: self.factor, cap: self.cap }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    pub failure_rate: f64,
    pub min_events: u32,
    #[serde(deserialize_with = "units::duration")]
    pub open_for: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failure_rate: 0.5, min_events: 20, open_for: Duration::from_secs(30) }
    }
}

impl BreakerConfig {
    pub fn policy(&self) -> BreakerPolicy {
        BreakerPolicy { failure_rate: self.failure_rate, min_events: self.min_events, open_for: self.open_for }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryConfig {
    pub share: f64,
    pub min_events: u32,
    pub failure_rate: f64,
    pub slower: f64,
    #[serde(deserialize_with = "units::duration")]
    pub min_time: Duration,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self { share: 0.1, min_events: 200, failure_rate: 0.05, slower: 3.0, min_time: Duration::from_secs(300) }
    }
}

impl CanaryConfig {
    pub fn policy(&self) -> CanaryPolicy {
        let Self { share, min_events, failure_rate, slower, min_time } = *self;
        CanaryPolicy { share, min_events, failure_rate, slower, min_time }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
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
    /// By how many emits an event may have come about.
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

impl Default for LimitsConfig {
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
    pub emit: Option<Vec<String>>,
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
    pub http: Option<Vec<String>>,
    /// Names of `[handlers.NAME.secrets]` that the plugin may read.
    pub secrets: Option<Vec<String>>,
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

/// As it is written. (An enum's own reader would repeat a value that somebody has put in the place's place.)
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
