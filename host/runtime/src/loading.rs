//! What the host and its commands make of a checked configuration: each handler's plugin with its permissions, its
//! subscriptions, and the streams that it may emit to.

use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;

use super::consumer::WORKERS_PER_SUBSCRIPTION;
use tidemill_config::check;
use tidemill_config::check::ConfigFinding;
use tidemill_config::{self as config, Config};
use tidemill_core::model::delivery::Subscription;
use tidemill_core::policy::route::StreamRoutes;
use tidemill_sandbox::capability::context::{Limits, Permissions};
use tidemill_sandbox::capability::http::Outbound;
use tidemill_sandbox::capability::log::LogRateLimit;
use tidemill_sandbox::capability::secrets;
use tidemill_sandbox::capability::secrets::{SecretSource, Secrets};
use tidemill_sandbox::component::compile::Compiler;
use tidemill_sandbox::component::load::ComponentReader;
use tidemill_sandbox::component::trust::Trust;
use tidemill_sandbox::{self as sandbox, Engine, Plugin};
use tidemill_schema::Registry;
use tidemill_storage::Start;

/// What the file says, checked: the schemas and the streams with it.
#[derive(Clone)]
pub struct Checked {
    pub schemas: Arc<Registry>,
    pub streams: Arc<StreamRoutes>,
    pub warnings: Vec<ConfigFinding>,
}

/// Loads plugins, at the start and whenever one changes.
pub struct Loader {
    engine: Engine,
    compiler: Compiler,
    intake: ComponentReader,
}

impl Loader {
    pub fn new(config: &Config) -> Result<Self, sandbox::Error> {
        // Each worker keeps one warm instance, and while it works there is another one before it drops that; the
        // threads of the I/O pool keep those of handlers that may make requests. Twice as many during a reload, when
        // the old version and the new one serve side by side.
        let waiting = config.handlers.values().filter(|handler| handler.grants.http.is_some()).count();
        let batch_workers = WORKERS_PER_SUBSCRIPTION * subscriptions(config).len();
        let kept = batch_workers + workers(config) + 1 + config.host.io_workers * waiting;
        let engine = Engine::new(2 * kept, guest_stack(config))?;
        Ok(Self { engine, compiler: Compiler::new(&cache(config), &config.plugins), intake: intake(config)? })
    }

    /// The plugin of this handler as its file is now.
    pub fn load(&self, config: &Config, checked: &Checked, name: &str) -> Result<Arc<Plugin>, sandbox::Error> {
        let handler = &config.handlers[name];
        let looked = self.intake.inspect(&config.path(&handler.plugin), handler.digest.as_deref(), name)?;
        Plugin::new(&self.engine, &self.compiler, looked, terms(config, name, handler, checked)?).map(Arc::new)
    }
}

/// The folder of compiled plugins.
pub fn cache(config: &Config) -> PathBuf {
    config.host.cache.as_ref().map_or_else(Compiler::default_folder, |folder| config.path(folder))
}

/// How components are read and trusted: what `plugin ls` needs, which compiles nothing.
pub fn intake(config: &Config) -> Result<ComponentReader, sandbox::Error> {
    let keys: Vec<_> = config.plugins.keys.iter().map(|key| (config.path(key), key.clone())).collect();
    let trust = Trust::open(&keys, config.plugins.require_signature)?;
    Ok(ComponentReader { bytes_max: config.plugins.component_bytes_max.as_u64(), trust })
}

/// What the operator lets a handler do.
pub fn terms(
    config: &Config,
    name: &str,
    handler: &config::HandlerConfig,
    checked: &Checked,
) -> Result<Permissions, sandbox::Error> {
    let emit = handler.grants.emit.as_ref();
    Ok(Permissions {
        handler: name.into(),
        emit: emit.map(|texts| check::patterns(&texts.iter().map(String::as_str).collect::<Vec<_>>())),
        asked_emit: None,
        state: handler.grants.state,
        timer: handler.grants.timer,
        wasi: handler.grants.wasi.clone(),
        http: handler.grants.http.as_ref().map(|grants| {
            let grants = grants.iter().filter_map(|text| text.parse().ok()).collect();
            Outbound::new(name, grants, check::networks(config), handler.breaker.clone())
        }),
        secrets: secrets(config, name, handler)?,
        config: handler.config.clone(),
        limits: handler_limits(config, &handler.limits),
        log_gate: LogRateLimit::new(handler.limits.log_lines_per_second),
        schemas: checked.schemas.clone(),
        streams: checked.streams.clone(),
    })
}

/// The values of a handler's secrets, read from where the configuration says.
fn secrets(config: &Config, name: &str, handler: &config::HandlerConfig) -> Result<Secrets, sandbox::Error> {
    let mut values = std::collections::BTreeMap::new();
    for (secret, from) in &handler.secrets {
        let place = match from {
            config::SecretFrom::Env(variable) => SecretSource::Env(variable.clone()),
            config::SecretFrom::File(path) => SecretSource::File(config.path(path)),
        };
        let value = secrets::load(&place).map_err(|(what, hint)| sandbox::Error::Secret {
            handler: name.to_owned(),
            name: secret.clone(),
            what,
            hint,
        })?;
        values.insert(secret.clone(), value);
    }
    let readable = handler.grants.secrets.as_ref().map(|names| names.iter().cloned().collect());
    Ok(Secrets::new(values, readable))
}

fn handler_limits(config: &Config, limits: &config::LimitsConfig) -> Limits {
    let bytes = |size: ByteSize| size.as_u64() as usize;
    Limits {
        memory_bytes_max: bytes(limits.memory),
        table_elements_max: limits.tables,
        handles_max: limits.handles,
        host_calls_max: limits.host_calls,
        emits_max: limits.emits,
        hops_max: limits.hops,
        emit_bytes_max: bytes(limits.emit_bytes),
        payload_bytes_max: bytes(config.host.payload_bytes_max),
        state_bytes_max: bytes(limits.state),
        state_total_bytes_max: bytes(limits.state_total),
        timers_max: limits.timers,
        timer_bytes_max: bytes(limits.timer_bytes),
        timer_wait_max: limits.timer_wait,
        http_requests_max: limits.http_requests,
        http_request_bytes_max: bytes(limits.http_request_bytes),
        http_response_bytes_max: bytes(limits.http_response_bytes),
        log_lines_max: limits.log_lines,
        log_bytes_max: bytes(limits.log_bytes),
        hostcall_bytes_max: bytes(limits.hostcall_bytes),
    }
}

/// The stack of guests, in bytes.
pub(crate) fn guest_stack(config: &Config) -> usize {
    config.plugins.stack.as_u64() as usize
}

/// Guests that may compute at once: as configured, or one for each core.
pub(crate) fn workers(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if config.host.workers == 0 { cores() } else { config.host.workers }
}

/// The subscriptions of all handlers: what `status`, `dead` and `state` look at, no plugin needed.
pub fn subscriptions(config: &Config) -> Vec<(Subscription, Start)> {
    let streams = check::streams(config);
    let mut subscriptions = Vec::new();
    for (name, handler) in &config.handlers {
        let events = check::patterns(&config.events_of(name));
        for stream in streams.overlapping(&events) {
            subscriptions.push((Subscription { stream: stream.clone(), handler: name.as_str().into() }, handler.start));
        }
    }
    subscriptions
}

/// The streams that handlers may emit to: what `doctor` looks at beside those that are read.
pub fn targets(config: &Config) -> Vec<Arc<str>> {
    let streams = check::streams(config);
    let grants = config.handlers.values().filter_map(|handler| handler.grants.emit.as_ref()).flatten();
    let emitted = check::patterns(&grants.map(String::as_str).collect::<Vec<_>>());
    streams.overlapping(&emitted).cloned().collect()
}
