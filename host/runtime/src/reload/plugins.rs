//! Hot reload of plugins: a new version is loaded beside the one that serves, and takes its place between two batches.
//!
//! ```text
//! file changed, reload asked for --> load aside: verify, compile, world, grants, trial instance, lifecycle.init
//!      refused: log, count, remember; the old one serves on
//!      good:    publish --> one pointer --> each batch that begins from now on
//! rollback --> publish the version before
//! ```

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::history::{History, How, RejectedVersion};
use super::watch::{self, Stamp};
use crate::build::{Checked, Loader};
use crate::canary;
use crate::observe;
use crate::pipeline::Handler;
use tidemill_config::Config;
use tidemill_core::clock;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_sandbox::{self as sandbox, ActiveVersions, Plugin};

/// Why something that was asked for was not done. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("there is no handler \"{0}\"\n  hint: GET /api/plugins lists them")]
    NoHandler(String),
    #[error(
        "handler \"{0}\" has no version before this one\n  hint: this host keeps [plugins] generations of them, from its last start or settings on"
    )]
    NothingBefore(String),
    #[error(transparent)]
    Plugin(#[from] sandbox::Error),
    #[error("the settings are refused:\n{0}")]
    Settings(String),
    #[error("the host is ending")]
    Ending,
}

/// The plugins of one generation of settings.
pub struct Reloader {
    pub config: Config,
    checked: Checked,
    loader: Loader,
    slots: Vec<Slot>,
}

/// A handler and the versions that it has had.
struct Slot {
    handler: Arc<Handler>,
    file: PathBuf,
    history: Mutex<History>,
    /// Held while a version is loaded and published: one at a time.
    reload_lock: tokio::sync::Mutex<Option<Stamp>>,
}

/// What came of a reload.
pub struct Taken {
    pub generation: u64,
    pub digest: Arc<str>,
    /// False: the file holds what serves already.
    pub changed: bool,
}

impl Reloader {
    /// `before`: the reloader of the settings before these, whose numbers go on.
    pub fn new(
        config: Config,
        checked: Checked,
        loader: Loader,
        handlers: Vec<Arc<Handler>>,
        before: Option<&Self>,
    ) -> Self {
        let slots = handlers.into_iter().map(|handler| {
            let numbers =
                before.and_then(|before| before.slot(&handler.name).ok()).map_or(0, |slot| slot.history().numbers());
            let history = History::new(handler.serving.load().stable.clone(), numbers, config.plugins.generations);
            observe::plugin_generation(&handler.name, history.numbers());
            let file = config.path(&config.handlers[&*handler.name].plugin);
            Slot { handler, file, history: Mutex::new(history), reload_lock: tokio::sync::Mutex::default() }
        });
        Self { slots: slots.collect(), config, checked, loader }
    }

    /// The plugin in the handler's file, now. What was refused or rolled back before is tried again.
    pub async fn reload(self: &Arc<Self>, name: &str) -> Result<Taken, ReloadError> {
        let slot = self.slot(name)?;
        let _guard = slot.reload_lock.lock().await;
        slot.catch_up();
        Ok(self.take(slot, How::Request).await?)
    }

    /// Back to the version before. The one that served is not taken from its file again before that changes.
    pub async fn rollback(&self, name: &str) -> Result<Taken, ReloadError> {
        let slot = self.slot(name)?;
        let _guard = slot.reload_lock.lock().await;
        slot.catch_up();
        let serving = slot.handler.serving.load_full();
        let before = match &serving.canary {
            // What is taken back is the version that is being tried.
            Some(canary) => {
                observe::canary_replaced(name, &canary.plugin.digest);
                Some(serving.stable.clone())
            }
            None => slot.history().step_back(),
        };
        let plugin = before.ok_or_else(|| ReloadError::NothingBefore(name.to_owned()))?;
        slot.handler.serving.store(Arc::new(ActiveVersions::only(plugin.clone())));
        let generation = slot.history().push(plugin.clone(), How::Rollback);
        observe::reloaded(name, &plugin.digest, generation, "rolled-back", std::time::Duration::ZERO);
        Ok(Taken { generation, digest: plugin.digest.clone(), changed: true })
    }

    /// Looks at the files of all plugins, and takes what is new.
    pub async fn look(self: &Arc<Self>) {
        for slot in &self.slots {
            let mut seen = slot.reload_lock.lock().await;
            slot.catch_up();
            let stamp = Stamp::of(&slot.file);
            // A file that is away for a moment is being replaced; one that stays away changes nothing.
            if stamp.is_none() || (stamp == *seen && stamp.as_ref().is_some_and(Stamp::is_settled)) {
                continue;
            }
            *seen = stamp;
            let file = slot.file.clone();
            let digest = tasks::blocking(Task::Digest, move || watch::digest_of(&file)).await.ok().flatten();
            if digest.is_none() || digest == slot.history().considered {
                continue;
            }
            // The reason is logged, counted and kept where a person looks.
            let _ = self.take(slot, How::File).await;
        }
    }

    /// Loads what is in the file and publishes it. The caller holds the slot's `reload_lock`.
    async fn take(self: &Arc<Self>, slot: &Slot, how: How) -> Result<Taken, sandbox::Error> {
        let (name, begun) = (slot.handler.name.clone(), Instant::now());
        let (this, handler) = (self.clone(), name.clone());
        let load = move || {
            let digest = watch::digest_of(&this.config.path(&this.config.handlers[&*handler].plugin));
            (digest, this.loader.load(&this.config, &this.checked, &handler))
        };
        let loaded = tasks::blocking(Task::Load, load).await;
        let (digest, loaded) =
            loaded.unwrap_or_else(|error| (None, Err(sandbox::Error::Engine(format!("loading it: {error}")))));
        match loaded {
            Ok(plugin) => {
                slot.history().considered = Some(plugin.digest.to_string());
                slot.history().refused = None;
                let now = slot.handler.serving.load_full();
                if now.versions().any(|version| version.digest == plugin.digest) {
                    let generation = slot.history().now().map_or(0, |now| now.number);
                    observe::reload_unneeded(&name, &plugin.digest);
                    return Ok(Taken { generation, digest: plugin.digest.clone(), changed: false });
                }
                let generation = slot.publish(plugin.clone(), how);
                observe::reloaded(&name, &plugin.digest, generation, "loaded", begun.elapsed());
                Ok(Taken { generation, digest: plugin.digest.clone(), changed: true })
            }
            Err(error) => {
                observe::reload_refused(&name, &error.to_string());
                let mut history = slot.history();
                history.considered = digest.clone().or(history.considered.take());
                history.refused = Some(RejectedVersion { at_ms: clock::now_ms(), digest, reason: error.to_string() });
                Err(error)
            }
        }
    }

    /// Handlers that serve another version than the one in their files: it is still being tried, or it was given up.
    pub(crate) fn behind_their_files(&self) -> impl Iterator<Item = &str> {
        let behind = |slot: &&Slot| slot.handler.serving.load().canary.is_some() || slot.history().gave_up_the_file();
        self.slots.iter().filter(behind).map(|slot| &*slot.handler.name)
    }

    /// The files to watch.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.slots.iter().map(|slot| &slot.file)
    }

    pub fn to_json(&self) -> Value {
        let plugins = self.slots.iter().map(|slot| {
            let mut value = slot.history().to_json();
            value["handler"] = (&*slot.handler.name).into();
            value["file"] = slot.file.display().to_string().into();
            let serving = slot.handler.serving.load();
            value["canary"] = serving
                .canary
                .as_ref()
                .map(|canary| json!({ "digest": &*canary.plugin.digest, "share": canary.share }))
                .into();
            value
        });
        plugins.collect()
    }

    fn slot(&self, name: &str) -> Result<&Slot, ReloadError> {
        let slot = self.slots.iter().find(|slot| &*slot.handler.name == name);
        slot.ok_or_else(|| ReloadError::NoHandler(name.to_owned()))
    }
}

impl Slot {
    /// From now on this version serves every batch that begins; where a canary is configured, some keys of each.
    fn publish(&self, plugin: Arc<Plugin>, how: How) -> u64 {
        canary::publish(&self.handler, &plugin);
        let mut history = self.history();
        if self.handler.canary.is_some() { history.numbers() } else { history.push(plugin, how) }
    }

    /// A canary that was promoted has become a generation. The caller holds the slot's `reload_lock`.
    fn catch_up(&self) {
        let stable = self.handler.serving.load().stable.clone();
        let mut history = self.history();
        if history.now().is_none_or(|now| now.plugin.digest != stable.digest) {
            let generation = history.push(stable, How::Canary);
            observe::plugin_generation(&self.handler.name, generation);
        }
    }

    /// A lock whose holder panicked guards a plain list.
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
