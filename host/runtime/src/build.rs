//! From a configuration to a host that is ready to run: schemas, streams, plugins, handlers, backend. Everything that
//! is wrong is found here, before the first event.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use bytesize::ByteSize;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::consumer::{Consumer, WORKERS_PER_SUBSCRIPTION};
use super::exposed;
use super::history::History;
use super::host::Host;
use super::janitor::StreamBounds;
use super::observe;
use super::observe::Meters;
use super::patience::START_WAIT_MAX;
use super::pipeline::{Admissions, Handler, HostContext};
use super::reload::plugins::Reloader;
use tidemill_config::check;
use tidemill_config::check::ConfigFinding;
use tidemill_config::{self as config, Config};
use tidemill_core::model::delivery::Subscription;
use tidemill_core::policy::breaker::Breaker;
use tidemill_core::policy::route::StreamRoutes;
use tidemill_sandbox::capability::context::{Limits, Permissions};
use tidemill_sandbox::capability::http::Outbound;
use tidemill_sandbox::capability::log::LogRateLimit;
use tidemill_sandbox::capability::secrets;
use tidemill_sandbox::capability::secrets::{SecretSource, Secrets};
use tidemill_sandbox::component::compile::Compiler;
use tidemill_sandbox::component::load::ComponentReader;
use tidemill_sandbox::component::trust::Trust;
use tidemill_sandbox::executor::Executor;
use tidemill_sandbox::{self as sandbox, ActiveVersions, Engine, Plugin, engine};
use tidemill_schema::{Registry, registry};
use tidemill_storage::{self as storage, Backend, Bounds, Start};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Schemas(Vec<registry::Error>),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<ConfigFinding>),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plugins(Vec<sandbox::Error>),
    #[error(transparent)]
    Backend(#[from] storage::Error),
    #[error("cannot start the worker threads: {0}")]
    Workers(#[from] std::io::Error),
}

/// What the file says, checked: the schemas and the streams with it.
#[derive(Clone)]
pub struct Checked {
    pub schemas: Arc<Registry>,
    pub streams: Arc<StreamRoutes>,
    pub warnings: Vec<ConfigFinding>,
}

pub fn check(config: &Config) -> Result<Checked, Error> {
    let schemas = Registry::load(&config.path(&config.schemas.path)).map_err(Error::Schemas)?;
    let (mut warnings, errors): (Vec<_>, Vec<_>) =
        check::check(config, &schemas).into_iter().partition(|finding| finding.warning);
    if !errors.is_empty() {
        return Err(Error::Config(errors));
    }
    warnings.extend(exposed::findings(config));
    Ok(Checked { schemas: Arc::new(schemas), streams: Arc::new(check::streams(config)), warnings })
}

/// Loads plugins, at the start and whenever one changes.
pub struct Loader {
    engine: Engine,
    compiler: Compiler,
    intake: ComponentReader,
}

/// Every handler's plugin, and what loaded them.
pub struct Plugins {
    pub loader: Loader,
    pub all: Vec<Arc<Plugin>>,
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

/// Loads every handler's plugin. All are tried, so that one call names all that is wrong.
pub fn plugins(config: &Config, checked: &Checked) -> Result<Plugins, Error> {
    let loader = Loader::new(config).map_err(|error| Error::Plugins(vec![error]))?;
    let mut errors = Vec::new();
    let mut all = Vec::new();
    for name in config.handlers.keys() {
        match loader.load(config, checked, name) {
            Ok(plugin) => all.push(plugin),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(Plugins { loader, all }) } else { Err(Error::Plugins(errors)) }
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
fn guest_stack(config: &Config) -> usize {
    config.plugins.stack.as_u64() as usize
}

/// Guests that may compute at once: as configured, or one for each core.
fn workers(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if config.host.workers == 0 { cores() } else { config.host.workers }
}

/// Puts the host together: the first of this process.
pub fn host(config: &Config, checked: &Checked, plugins: Plugins, backend: Arc<dyn Backend>) -> Result<Host, Error> {
    let executor =
        Executor::start(workers(config), config.host.io_workers, engine::thread_stack_bytes(guest_stack(config)))?;
    let shared = Shared { backend, executor: Arc::new(executor), meters: Arc::default() };
    Ok(assemble(config, checked, plugins, shared, None))
}

/// The host that follows when the settings change: it goes on with what the one before has.
pub fn next(config: &Config, checked: &Checked, plugins: Plugins, context: &HostContext, before: &Reloader) -> Host {
    let HostContext { backend, executor, meters, .. } = context;
    let shared = Shared { backend: backend.clone(), executor: executor.clone(), meters: meters.clone() };
    assemble(config, checked, plugins, shared, Some(before))
}

/// What a process has one of.
struct Shared {
    backend: Arc<dyn Backend>,
    executor: Arc<Executor>,
    meters: Arc<Meters>,
}

fn assemble(config: &Config, checked: &Checked, plugins: Plugins, shared: Shared, before: Option<&Reloader>) -> Host {
    let Shared { backend, executor, meters } = shared;
    let mut admissions = Admissions::default();
    for plugin in &plugins.all {
        for stream in checked.streams.overlapping(&check::patterns(&config.events_of(&plugin.handler))) {
            admissions.add(stream, &config.handlers[&*plugin.handler].key);
        }
    }
    let context = Arc::new(HostContext {
        backend,
        schemas: checked.schemas.clone(),
        admissions,
        executor,
        consumer: format!("{}-{}", host_name(), Uuid::new_v4().simple()).into(),
        payload_bytes_max: config.host.payload_bytes_max.as_u64() as usize,
        inbox_window: config.idempotency.window,
        meters,
        isolation_lock: tokio::sync::RwLock::default(),
        ids: OnceLock::new(),
    });
    let mut handlers = Vec::new();
    let mut consumers = Vec::new();
    for plugin in plugins.all {
        let name = plugin.handler.clone();
        let wanted = &config.handlers[&*name];
        if wanted.grants.http.is_some() {
            observe::may_request(&name);
        }
        let generations = before.map_or(0, |before| before.generations(&name));
        let handler = Arc::new(handler(config, wanted, plugin, generations));
        handlers.push(handler.clone());
        let breaker = Arc::new(Mutex::new(Breaker::new(wanted.breaker.clone())));
        for stream in checked.streams.overlapping(&handler.events) {
            let subscription = Subscription { stream: stream.clone(), handler: name.clone() };
            let (context, handler, breaker) = (context.clone(), handler.clone(), breaker.clone());
            consumers.push(Arc::new(Consumer::new(
                context,
                handler,
                subscription,
                wanted.start,
                config.host.batch,
                breaker,
            )));
        }
    }
    let groups = |name: &str| {
        let readers = consumers.iter().filter(|consumer| *consumer.subscription.stream == *name);
        readers.map(|consumer| consumer.subscription.handler.clone()).collect()
    };
    let streams = config.streams.iter().map(|(name, stream)| {
        let (maxlen, retention, overflow) = (stream.maxlen, stream.retention, stream.overflow);
        StreamBounds { name: name.clone(), bounds: Bounds { maxlen, retention, overflow, groups: groups(name) } }
    });
    let reloader = Reloader::new(config.clone(), checked.clone(), plugins.loader, handlers);
    let start_wait = before.is_none().then_some(START_WAIT_MAX);
    let (targets, reloader) = (targets(config), Arc::new(reloader));
    Host { streams: streams.collect(), targets, context, consumers, reloader, start_wait }
}

/// `generations`: how many versions have served it before these settings.
fn handler(config: &Config, wanted: &config::HandlerConfig, plugin: Arc<Plugin>, generations: u64) -> Handler {
    let history = History::new(plugin.clone(), generations, config.plugins.generations);
    observe::plugin_generation(&plugin.handler, history.numbers());
    Handler {
        name: plugin.handler.clone(),
        events: check::patterns(&config.events_of(&plugin.handler)),
        key: wanted.key.clone(),
        retry: wanted.retry.clone(),
        canary: wanted.canary.clone(),
        deadline: wanted.deadline,
        instance_events_max: wanted.instance_events_max,
        io_calls: Arc::new(Semaphore::new(wanted.limits.io_calls)),
        serving: ArcSwap::from_pointee(ActiveVersions::only(plugin)),
        history: Mutex::new(history),
    }
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

/// The readable part of consumer names and audit records; the UUID after it makes it unique.
pub fn host_name() -> String {
    let name = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/etc/hostname")).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}
