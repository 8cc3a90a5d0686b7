//! Hot reload of plugins: a new version is loaded beside the one that serves, and takes its place between two batches.
//!
//! ```text
//! file changed, reload asked for --> load aside: verify, compile, world, grants, trial instance, lifecycle.init
//!      refused: log, count, remember; the old one serves on
//!      good:    publish --> one pointer --> each batch that begins from now on
//! rollback --> publish the version before
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::watch::{self, Stamp};
use crate::canary;
use crate::history::{How, RejectedVersion};
use crate::loading::{Checked, Loader};
use crate::observe;
use crate::pipeline::Handler;
use tidemill_config::Config;
use tidemill_core::clock;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;
use tidemill_sandbox as sandbox;

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

/// A handler and the file of its plugin.
struct Slot {
    handler: Arc<Handler>,
    file: PathBuf,
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
    pub fn new(config: Config, checked: Checked, loader: Loader, handlers: Vec<Arc<Handler>>) -> Self {
        let slots = handlers.into_iter().map(|handler| {
            let file = config.path(&config.handlers[&*handler.name].plugin);
            Slot { handler, file, reload_lock: tokio::sync::Mutex::default() }
        });
        Self { slots: slots.collect(), config, checked, loader }
    }

    /// How many versions have served this handler since this host began.
    pub(crate) fn generations(&self, name: &str) -> u64 {
        self.slot(name).map_or(0, |slot| slot.handler.history().numbers())
    }

    /// The plugin in the handler's file, now. What was refused or rolled back before is tried again.
    pub async fn reload(self: &Arc<Self>, name: &str) -> Result<Taken, ReloadError> {
        let slot = self.slot(name)?;
        let _guard = slot.reload_lock.lock().await;
        Ok(self.take(slot, How::Request).await?)
    }

    /// Back to the version before. The one that served is not taken from its file again before that changes.
    pub async fn rollback(&self, name: &str) -> Result<Taken, ReloadError> {
        let slot = self.slot(name)?;
        let _guard = slot.reload_lock.lock().await;
        let rolled_back = canary::roll_back(&slot.handler);
        let (plugin, generation) = rolled_back.ok_or_else(|| ReloadError::NothingBefore(name.to_owned()))?;
        observe::reloaded(name, &plugin.digest, generation, "rolled-back", std::time::Duration::ZERO);
        Ok(Taken { generation, digest: plugin.digest.clone(), changed: true })
    }

    /// Looks at the files of all plugins, and takes what is new.
    pub async fn look(self: &Arc<Self>) {
        for slot in &self.slots {
            let mut seen = slot.reload_lock.lock().await;
            let stamp = Stamp::of(&slot.file);
            // A file that is away for a moment is being replaced; one that stays away changes nothing.
            if stamp.is_none() || (stamp == *seen && stamp.as_ref().is_some_and(Stamp::is_settled)) {
                continue;
            }
            *seen = stamp;
            let file = slot.file.clone();
            let digest = tasks::blocking(Task::Digest, move || watch::digest_of(&file)).await.ok().flatten();
            if digest.is_none() || digest == slot.handler.history().considered {
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
                slot.handler.history().considered = Some(plugin.digest.to_string());
                slot.handler.history().refused = None;
                let now = slot.handler.serving.load_full();
                if now.versions().any(|version| version.digest == plugin.digest) {
                    let generation = slot.handler.history().now().map_or(0, |now| now.number);
                    observe::reload_unneeded(&name, &plugin.digest);
                    return Ok(Taken { generation, digest: plugin.digest.clone(), changed: false });
                }
                let generation = canary::publish(&slot.handler, &plugin, how);
                observe::reloaded(&name, &plugin.digest, generation, "loaded", begun.elapsed());
                Ok(Taken { generation, digest: plugin.digest.clone(), changed: true })
            }
            Err(error) => {
                observe::reload_refused(&name, &error.to_string());
                let mut history = slot.handler.history();
                history.considered = digest.clone().or(history.considered.take());
                history.refused = Some(RejectedVersion { at_ms: clock::now_ms(), digest, reason: error.to_string() });
                Err(error)
            }
        }
    }

    /// Handlers that serve another version than the one in their files: it is still being tried, or it was given up.
    pub(crate) fn behind_their_files(&self) -> impl Iterator<Item = &str> {
        let behind =
            |slot: &&Slot| slot.handler.serving.load().canary.is_some() || slot.handler.history().gave_up_the_file();
        self.slots.iter().filter(behind).map(|slot| &*slot.handler.name)
    }

    /// The files to watch.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.slots.iter().map(|slot| &slot.file)
    }

    pub fn to_json(&self) -> Value {
        let plugins = self.slots.iter().map(|slot| {
            let mut value = slot.handler.history().to_json();
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
