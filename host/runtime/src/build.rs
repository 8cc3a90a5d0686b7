//! From a configuration to a host that is ready to run: schemas, streams, plugins, handlers, backend. Everything that
//! is wrong is found here, before the first event.

use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::consumer::Consumer;
use super::exposed;
use super::history::History;
use super::host::Host;
use super::janitor::{Janitor, StreamBounds};
use super::loading::{Checked, Loader, guest_stack, targets, workers};
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
use tidemill_sandbox::executor::Executor;
use tidemill_sandbox::{self as sandbox, ActiveVersions, Plugin, engine};
use tidemill_schema::{Registry, registry};
use tidemill_storage::{self as storage, Backend, Bounds};

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

pub fn check(config: &Config) -> Result<Checked, Error> {
    let schemas = Registry::load(&config.path(&config.schemas.path)).map_err(Error::Schemas)?;
    let (mut warnings, errors): (Vec<_>, Vec<_>) =
        check::check(config, &schemas).into_iter().partition(|finding| finding.warning);
    if !errors.is_empty() {
        return Err(Error::Config(errors));
    }
    warnings.extend(exposed::findings(config));
    Ok(Checked { schemas: Arc::new(schemas), streams: Arc::new(config.stream_routes()), warnings })
}

/// Every handler's plugin, and what loaded them.
pub struct Plugins {
    pub loader: Loader,
    pub all: Vec<Arc<Plugin>>,
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
        for stream in checked.streams.overlapping(&config.events_of(&plugin.handler)) {
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
    let janitor = Janitor {
        backend: context.backend.clone(),
        subscriptions: consumers.iter().map(|consumer| consumer.subscription.clone()).collect(),
        streams: streams.collect(),
        targets: targets(config),
    };
    Host { janitor: Arc::new(janitor), context, consumers, reloader: Arc::new(reloader), start_wait }
}

/// `generations`: how many versions have served it before these settings.
fn handler(config: &Config, wanted: &config::HandlerConfig, plugin: Arc<Plugin>, generations: u64) -> Handler {
    let history = History::new(plugin.clone(), generations, config.plugins.generations);
    observe::plugin_generation(&plugin.handler, history.numbers());
    Handler {
        name: plugin.handler.clone(),
        events: config.events_of(&plugin.handler),
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

/// The readable part of consumer names and audit records; the UUID after it makes it unique.
pub fn host_name() -> String {
    let name = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/etc/hostname")).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}
