//! Which versions serve a handler: the one place that changes that, and the history with it.
//!
//! A canary is a new version that serves some of the keys, is judged after each batch, and is then promoted or rolled back.
//! Each step is one exchange of what serves the handler; batches on their way finish on what they began with. Each host
//! tries and judges for itself.

use std::sync::Arc;
use std::time::Instant;

use super::history::How;
use super::observe;
use super::pipeline::Handler;
use tidemill_core::policy::canary::Decision;
use tidemill_sandbox::versions::{CanaryComparison, CanaryVersion};
use tidemill_sandbox::{ActiveVersions, Plugin};

/// Puts a new version in place: as a canary if the handler is configured to try one, else for everything at once. A
/// canary that was being tried gives way to it. Answers the number of the generation that serves the rest.
pub fn publish(handler: &Handler, plugin: &Arc<Plugin>, how: How) -> u64 {
    let mut history = handler.history();
    let serving = handler.serving.load_full();
    if let Some(canary) = &serving.canary {
        observe::canary_replaced(&handler.name, &canary.plugin.digest);
    }
    let Some(policy) = &handler.canary else {
        handler.serving.store(Arc::new(ActiveVersions::only(plugin.clone())));
        return history.push(plugin.clone(), how);
    };
    let canary = Some(CanaryVersion::new(plugin.clone(), policy, Instant::now()));
    handler.serving.store(Arc::new(ActiveVersions { stable: serving.stable.clone(), canary }));
    observe::canary_began(&handler.name, &plugin.digest, policy.share);
    history.numbers()
}

/// Puts the version before in place, as a generation of its own. What is taken back is the canary, if one is being tried.
/// None, and nothing changed: there is no version before.
pub(crate) fn roll_back(handler: &Handler) -> Option<(Arc<Plugin>, u64)> {
    let mut history = handler.history();
    let serving = handler.serving.load_full();
    let plugin = match &serving.canary {
        Some(canary) => {
            observe::canary_replaced(&handler.name, &canary.plugin.digest);
            serving.stable.clone()
        }
        None => history.step_back()?,
    };
    handler.serving.store(Arc::new(ActiveVersions::only(plugin.clone())));
    let generation = history.push(plugin.clone(), How::Rollback);
    Some((plugin, generation))
}

/// Records a batch that two versions have served, and acts on what the judge says of it.
pub fn note(handler: &Handler, contest: &CanaryComparison) {
    let CanaryComparison { serving, stable, canary: round } = contest;
    let Some(canary) = &serving.canary else { return };
    let now = Instant::now();
    let mut trial = canary.trial();
    let decision = trial.record(now, stable, round);
    let facts = trial.facts(now);
    drop(trial);
    observe::canary_served(&handler.name, round.good, round.bad);
    if decision == Decision::Wait {
        return;
    }
    let mut history = handler.history();
    // Another batch, or another version, may have come first: then this canary serves no more, and its end is told.
    if !Arc::ptr_eq(&handler.serving.load(), serving) {
        return;
    }
    let serve = |plugin: &Arc<Plugin>| handler.serving.store(Arc::new(ActiveVersions::only(plugin.clone())));
    match decision {
        Decision::Wait => {}
        Decision::Promote => {
            serve(&canary.plugin);
            let generation = history.push(canary.plugin.clone(), How::Canary);
            observe::canary_promoted(&handler.name, &canary.plugin.digest, generation, &facts);
        }
        Decision::RollBack(reason) => {
            serve(&serving.stable);
            observe::canary_rolled_back(&handler.name, &canary.plugin.digest, reason, &facts);
        }
    }
}
