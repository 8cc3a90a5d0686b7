//! Which version of a handler's plugin serves which event: one for all, or, while a canary is tried, two by key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::component::plugin::Plugin;
use tidemill_core::model::outcome::Verdict;
use tidemill_core::policy::canary::{BatchStats, CanaryPolicy, CanaryStats};

/// The set of active versions of a handler. Immutable: a reload puts another one in its place, between two batches.
#[derive(Clone)]
pub struct ActiveVersions {
    pub stable: Arc<Plugin>,
    pub canary: Option<CanaryVersion>,
}

/// A version that is tried on some of the keys.
#[derive(Clone)]
pub struct CanaryVersion {
    pub plugin: Arc<Plugin>,
    /// The share of the keys, 0 to 1.
    pub share: f64,
    /// What is known of it so far. Batches that began under it record here, also when another one has taken its place.
    trial: Arc<Mutex<CanaryStats>>,
}

impl CanaryVersion {
    pub fn new(plugin: Arc<Plugin>, policy: &CanaryPolicy, now: Instant) -> Self {
        let trial = Arc::new(Mutex::new(CanaryStats::new(policy.clone(), now)));
        Self { plugin, share: policy.share, trial }
    }

    /// A holder that panicked left plain counts behind, which are as good as before.
    pub fn trial(&self) -> MutexGuard<'_, CanaryStats> {
        self.trial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the stable version and the canary did in one batch.
pub struct CanaryComparison {
    pub serving: Arc<ActiveVersions>,
    pub stable: BatchStats,
    pub canary: BatchStats,
}

impl CanaryComparison {
    pub fn new(serving: Arc<ActiveVersions>) -> Self {
        Self { serving, stable: BatchStats::default(), canary: BatchStats::default() }
    }

    pub fn add(&mut self, by_canary: bool, verdict: &Verdict, attempts: u32, took: Duration) {
        let round = if by_canary { &mut self.canary } else { &mut self.stable };
        round.add(verdict, attempts, took);
    }
}

impl ActiveVersions {
    pub fn only(plugin: Arc<Plugin>) -> Self {
        Self { stable: plugin, canary: None }
    }

    /// The plugins that serve: the stable one first.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        std::iter::once(&self.stable).chain(self.canary.iter().map(|canary| &canary.plugin))
    }

    /// All events of a key meet the same version, so that one version's state is not mixed with another's.
    pub fn for_key(&self, key: &str) -> &Arc<Plugin> {
        match &self.canary {
            Some(canary) if place(key) < canary.share => &canary.plugin,
            _ => &self.stable,
        }
    }

    pub fn is_canary(&self, plugin: &Arc<Plugin>) -> bool {
        self.canary.as_ref().is_some_and(|canary| Arc::ptr_eq(&canary.plugin, plugin))
    }

    /// Whether any of them reads or writes state.
    pub fn has_state(&self) -> bool {
        self.versions().any(|plugin| plugin.has_state())
    }
}

/// The key's place in 0..1, the same on every host of this version.
fn place(key: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as f64 / (u64::MAX as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spread_evenly() {
        let low = (0..10_000).filter(|number| place(&number.to_string()) < 0.1).count();
        assert!((900..1100).contains(&low), "{low} of 10,000 keys lie in the first tenth");
    }
}
