//! Which version of a handler's plugin serves which event: one for all, or, while a canary is tried, two by key.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::Plugin;
use crate::model::event::Event;

/// What serves a handler at this moment. Immutable: a reload puts another one in its place, between two batches.
#[derive(Clone)]
pub struct Serving {
    pub stable: Arc<Plugin>,
    pub canary: Option<Canary>,
}

/// A version that is tried on some of the keys.
#[derive(Clone)]
pub struct Canary {
    pub plugin: Arc<Plugin>,
    /// The share of the keys, 0 to 1.
    pub share: f64,
}

impl Serving {
    pub fn only(plugin: Arc<Plugin>) -> Self {
        Self { stable: plugin, canary: None }
    }

    /// The plugins that serve: the stable one first.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        std::iter::once(&self.stable).chain(self.canary.iter().map(|canary| &canary.plugin))
    }

    pub fn for_event(&self, event: &Event) -> &Arc<Plugin> {
        self.for_key(event.key())
    }

    /// All events of a key meet the same version, so that one version's state is not mixed with another's.
    pub fn for_key(&self, key: &str) -> &Arc<Plugin> {
        match &self.canary {
            Some(canary) if place(key) < canary.share => &canary.plugin,
            _ => &self.stable,
        }
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
