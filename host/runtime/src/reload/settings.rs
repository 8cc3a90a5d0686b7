//! Settings (the configuration and the schemas) while the host runs. Others take the place of those that run as a whole
//! or not at all.
//!
//! ```text
//! tidemill.toml or a schema changed, SIGHUP, POST /api/reload
//!   --> read, check, load all plugins --> refused: every finding is logged; all goes on as before
//!                                     `-> taken: the host drains and deregisters, as at its end; the next one begins
//! ```
//! Connection, workers, HTTP and counters stay. The next host has a consumer name of its own, so what the one before
//! still held is released when it deregisters, and reclaimed with no crash counted.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::plugins::{ReloadError, Reloader};
use super::watch;
use super::watch::FileWatcher;
use crate::history::RejectedVersion;
use crate::host::Host;
use crate::observe;
use crate::patience::Patience;
use crate::pipeline::HostContext;
use crate::shutdown::{Shutdown, ShutdownTrigger};
use crate::{agreement, build, loading};
use tidemill_config::Config;
use tidemill_core::clock;
use tidemill_core::model::delivery::Subscription;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_storage::Error;

/// Reads the configuration as the command line says.
pub type ConfigReader = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What the configuration says under a key, to be compared and shown.
type ConfigValue = fn(&Config) -> String;

/// What is fixed for the life of a process, and how it is written.
const FIXED: &[(&str, ConfigValue)] = &[
    ("backend.url", |config| config.backend_url().to_string()),
    ("http.listen", |config| config.http.as_ref().map(|http| http.listen.to_string()).unwrap_or_default()),
    ("http.token_file", |config| config.token_file().display().to_string()),
    ("host.workers", |config| config.host.workers.to_string()),
    ("host.io_workers", |config| config.host.io_workers.to_string()),
    ("host.timers_max", |config| config.host.timers_max.to_string()),
    ("plugins.stack", |config| config.plugins.stack.to_string()),
    ("host.dead_letters_max", |config| config.host.dead_letters_max.to_string()),
    ("host.dead_letters_bytes_max", |config| config.host.dead_letters_bytes_max.to_string()),
    ("idempotency.window", |config| format!("{:?}", config.idempotency.window)),
];

/// One generation of settings.
pub struct Settings {
    pub number: u64,
    pub since_ms: u64,
    pub reloader: Arc<Reloader>,
    pub subscriptions: Vec<Subscription>,
    context: Arc<HostContext>,
}

impl Settings {
    fn of(host: &Host, number: u64) -> Arc<Self> {
        observe::settings_generation(number);
        let subscriptions =
            loading::subscriptions(&host.reloader.config).into_iter().map(|(subscription, _)| subscription).collect();
        let (reloader, context) = (host.reloader.clone(), host.context.clone());
        Arc::new(Self { number, since_ms: clock::now_ms(), reloader, subscriptions, context })
    }
}

/// Control of the settings and plugins of a running host.
pub struct Control {
    now: ArcSwap<Settings>,
    read: ConfigReader,
    file: PathBuf,
    next: mpsc::Sender<Next>,
    /// Held while other settings are tried: one at a time.
    reload_lock: tokio::sync::Mutex<FileDigests>,
    refused: Mutex<Option<RejectedVersion>>,
}

/// What the files held when they were read last, whatever came of that.
pub struct FileDigests {
    config: Option<String>,
    /// The schemas; and the plugins of settings that were refused, for one of them may have been the reason.
    rest: Vec<(PathBuf, Option<String>)>,
}

impl FileDigests {
    pub fn of(file: &Path, config: &Config) -> Self {
        let schemas = config.path(&config.schemas.path);
        let digest = watch::digest_of_all(&schemas);
        Self { config: watch::digest_of(file), rest: vec![(schemas, digest)] }
    }

    /// The same files as they are now.
    async fn again(&self, file: &Path) -> Self {
        let (file, paths) = (file.to_owned(), self.rest.iter().map(|(path, _)| path.clone()).collect());
        let read = move || Self { config: watch::digest_of(&file), rest: digests(paths) };
        tasks::blocking(Task::Digest, read).await.unwrap_or(Self { config: None, rest: Vec::new() })
    }
}

struct Next {
    host: Host,
    /// Whether it has begun; or why the backend refuses it.
    begun: oneshot::Sender<Result<(), Error>>,
}

fn digests(paths: Vec<PathBuf>) -> Vec<(PathBuf, Option<String>)> {
    let digest = |path: PathBuf| {
        let digest = watch::digest_of_all(&path);
        (path, digest)
    };
    paths.into_iter().map(digest).collect()
}

/// Hosts to come, one for each change of the settings.
pub struct NextHosts(mpsc::Receiver<Next>);

impl Control {
    /// `seen`: the files that `host` was built from.
    pub fn new(host: &Host, file: PathBuf, seen: FileDigests, read: ConfigReader) -> (Arc<Self>, NextHosts) {
        let (next, following) = mpsc::channel(1);
        let now = ArcSwap::new(Settings::of(host, 1));
        let control =
            Self { now, read, file, next, reload_lock: tokio::sync::Mutex::new(seen), refused: Mutex::default() };
        (Arc::new(control), NextHosts(following))
    }

    pub fn now(&self) -> Arc<Settings> {
        self.now.load_full()
    }

    /// Reads the settings, checks them, loads their plugins, and starts a host with them. Returns once that has
    /// begun.
    pub async fn reload(&self) -> Result<u64, ReloadError> {
        let mut seen = self.reload_lock.lock().await;
        *seen = seen.again(&self.file).await;
        self.take(&mut seen).await
    }

    /// The same, if the files have changed since they were read last.
    async fn look(&self) {
        let mut seen = self.reload_lock.lock().await;
        let again = seen.again(&self.file).await;
        // A file that is away for a moment is being replaced.
        if again.config.is_none() || (again.config == seen.config && again.rest == seen.rest) {
            return;
        }
        *seen = again;
        // The reason is logged, counted and kept where a person looks.
        let _ = self.take(&mut seen).await;
    }

    async fn take(&self, seen: &mut FileDigests) -> Result<u64, ReloadError> {
        match self.prepare(seen).await {
            Ok(host) => {
                let (begun, beginning) = oneshot::channel();
                self.next.send(Next { host, begun }).await.map_err(|_| ReloadError::Ending)?;
                if let Err(error) = beginning.await.map_err(|_| ReloadError::Ending)? {
                    return Err(self.refuse(error.to_string()));
                }
                *self.refused() = None;
                seen.rest.truncate(1);
                let number = self.now().number;
                observe::settings_taken(number);
                Ok(number)
            }
            Err(reason) => Err(self.refuse(reason)),
        }
    }

    fn refuse(&self, reason: String) -> ReloadError {
        observe::settings_refused(&reason);
        *self.refused() = Some(RejectedVersion { at_ms: clock::now_ms(), digest: None, reason: reason.clone() });
        ReloadError::Settings(reason)
    }

    /// A host with the settings as they are in their files. Nothing of it runs yet.
    async fn prepare(&self, seen: &mut FileDigests) -> Result<Host, String> {
        let now = self.now();
        let config = (self.read)()?;
        // Looked at before they are loaded: what changes from here on is seen as a change.
        let plugins = config.handlers.values().map(|handler| config.path(&handler.plugin));
        let files = std::iter::once(config.path(&config.schemas.path)).chain(plugins).collect();
        seen.rest = tasks::blocking(Task::Digest, move || digests(files)).await.unwrap_or_default();
        let findings = fixed(&now.reloader, &config);
        if !findings.is_empty() {
            return Err(findings.join("\n"));
        }
        let build = move || {
            let checked = build::check(&config)?;
            let plugins = build::plugins(&config, &checked)?;
            Ok(build::next(&config, &checked, plugins, &now.context, &now.reloader))
        };
        let built = tasks::blocking(Task::Load, build).await.map_err(|error| error.to_string())?;
        let host = built.map_err(|error: build::Error| error.to_string())?;
        for consumer in &host.consumers {
            let own = &self.now().context.consumer;
            match agreement::look(&*host.context.backend, &consumer.subscription, &consumer.wanted(), own).await {
                Err(error) if !error.is_transient() => return Err(error.to_string()),
                // Looked at once more when it begins.
                _ => {}
            }
        }
        Ok(host)
    }

    /// Watches the files until it is time to stop.
    pub async fn watch(self: Arc<Self>, mut shutdown: Shutdown) {
        let mut ears = FileWatcher::listening();
        loop {
            let now = self.now();
            let rest: Vec<PathBuf> = self.reload_lock.lock().await.rest.iter().map(|(path, _)| path.clone()).collect();
            ears.listen(now.reloader.files().chain(&rest).chain([&self.file]).map(PathBuf::as_path));
            if ears.wait(&mut shutdown).await {
                return;
            }
            if now.reloader.config.plugins.watch {
                self.look().await;
                self.now().reloader.look().await;
            }
        }
    }

    pub fn to_json(&self) -> Value {
        let now = self.now();
        let refused = self
            .refused()
            .as_ref()
            .map(|refused| json!({ "at": clock::rfc3339(refused.at_ms), "reason": refused.reason }));
        json!({
            "settings": { "generation": now.number, "since": clock::rfc3339(now.since_ms), "refused": refused },
            "plugins": now.reloader.to_json(),
        })
    }

    /// A lock whose holder panicked guards a plain value.
    fn refused(&self) -> MutexGuard<'_, Option<RejectedVersion>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What these settings would change that cannot be changed now.
fn fixed(running: &Reloader, config: &Config) -> Vec<String> {
    let mut findings = Vec::new();
    for (key, value) in FIXED {
        let (before, after) = (value(&running.config), value(config));
        if before != after {
            findings.push(format!("{key}: from \"{before}\" to \"{after}\"\n  hint: this takes a restart of the host"));
        }
    }
    let (before, after) = (running.config.backend_url(), config.backend_url());
    if before != after && before.to_string() == after.to_string() {
        let what = format!("backend.url: what is not shown of {after} is another one, such as the password");
        findings.push(format!("{what}\n  hint: this takes a restart of the host"));
    }
    for name in running.behind_their_files() {
        findings.push(format!(
            "handlers.{name}.plugin: its file holds a version that is still being tried as a canary, or that was given up\n  \
             hint: put the version that you want there, or `tidemill plugin reload {name}`"
        ));
    }
    findings
}

/// Runs a host, and the ones that follow it, until `shutdown` is set, or until nothing waits any more if `until_idle`.
pub async fn run(
    mut host: Host,
    control: Arc<Control>,
    mut following: NextHosts,
    trigger: Arc<ShutdownTrigger>,
    mut shutdown: Shutdown,
    until_idle: bool,
) -> Result<(), Error> {
    loop {
        let (stop, stopped) = ShutdownTrigger::new();
        let stop = Arc::new(stop);
        let mut running = std::pin::pin!(host.run(stop.clone(), stopped.clone(), until_idle));
        let next = loop {
            tokio::select! {
                ended = &mut running => {
                    trigger.trigger();
                    return ended;
                }
                () = shutdown.wait() => break None,
                next = following.0.recv() => {
                    let Some(Next { host, begun }) = next else { break None };
                    // While the one before still works: what the backend refuses is then no more than that.
                    let mut patience = Patience::new(None, stopped.clone());
                    let made = tokio::select! {
                        ended = &mut running => {
                            trigger.trigger();
                            return ended;
                        }
                        () = shutdown.wait() => break None,
                        made = host.make_groups(&mut patience) => made,
                    };
                    match made {
                        Ok(_) => break Some((host, begun)),
                        Err(error) => {
                            let _ = begun.send(Err(error)); // the caller may be gone
                        }
                    }
                }
            }
        };
        stop.trigger();
        running.await?;
        let Some((following, begun)) = next else { return Ok(()) };
        control.now.store(Settings::of(&following, control.now().number + 1));
        let _ = begun.send(Ok(()));
        host = following;
    }
}
