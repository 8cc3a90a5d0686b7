//! What the host and its commands make of a checked configuration: each handler's plugin with its permissions, its
//! subscriptions, and the streams that it may emit to.

use std::path::PathBuf;
use std::sync::Arc;

use super::consumer::WORKERS_PER_SUBSCRIPTION;
use tidemill_config::check::ConfigFinding;
use tidemill_config::{self as config, Config};
use tidemill_core::model::delivery::Subscription;
use tidemill_core::policy::route::StreamRoutes;
use tidemill_sandbox::capability::context::Permissions;
use tidemill_sandbox::capability::http::outbound::Outbound;
use tidemill_sandbox::capability::log_rate::LogRateLimit;
use tidemill_sandbox::capability::secret::{self, SecretSource, Secrets};
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
    Ok(Permissions {
        handler: name.into(),
        emit: handler.grants.emits(),
        asked_emit: None,
        state: handler.grants.state,
        timer: handler.grants.timer,
        wasi: handler.grants.wasi.clone(),
        http: handler
            .grants
            .requests()
            .map(|grants| Outbound::new(name, grants, config.networks(), handler.breaker.clone())),
        secrets: secrets(config, name, handler)?,
        config: handler.config.clone(),
        limits: handler.limits.clone(),
        payload_bytes_max: config.host.payload_bytes_max.as_u64() as usize,
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
        let value = secret::load(&place).map_err(|(what, hint)| sandbox::Error::Secret {
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
    let streams = config.stream_routes();
    let mut subscriptions = Vec::new();
    for (name, handler) in &config.handlers {
        let events = config.events_of(name);
        for stream in streams.overlapping(&events) {
            subscriptions.push((Subscription { stream: stream.clone(), handler: name.as_str().into() }, handler.start));
        }
    }
    subscriptions
}

/// The streams that handlers may emit to: what `doctor` looks at beside those that are read.
pub fn targets(config: &Config) -> Vec<Arc<str>> {
    let streams = config.stream_routes();
    let emitted: Vec<_> = config.handlers.values().filter_map(|handler| handler.grants.emits()).flatten().collect();
    streams.overlapping(&emitted).cloned().collect()
}
