//! Canaries: a new version serves some of the keys, is judged after each batch, and is then promoted or rolled back.
//! Each step is one exchange of what serves the handler; batches on their way finish on what they began with.
//!
//! Each host tries and judges for itself.

use std::sync::Arc;
use std::time::Instant;

use super::observe;
use super::pipeline::Handler;
use tidemill_core::policy::canary::Decision;
use tidemill_sandbox::versions::{CanaryComparison, CanaryVersion};
use tidemill_sandbox::{ActiveVersions, Plugin};

/// Puts a new version in place: as a canary if the handler is configured to try one, else for everything at once. A
/// canary that was being tried gives way to it.
pub fn publish(handler: &Handler, plugin: &Arc<Plugin>) {
    let now = Instant::now();
    let next = |serving: &Arc<ActiveVersions>| match &handler.canary {
        Some(policy) => ActiveVersions {
            stable: serving.stable.clone(),
            canary: Some(CanaryVersion::new(plugin.clone(), policy, now)),
        },
        None => ActiveVersions::only(plugin.clone()),
    };
    let before = handler.serving.rcu(next);
    if let Some(canary) = &before.canary {
        observe::canary_replaced(&handler.name, &canary.plugin.digest);
    }
    if let Some(policy) = &handler.canary {
        observe::canary_began(&handler.name, &plugin.digest, policy.share);
    }
}

/// Takes note of a batch that two versions have served, and acts on what the judge says of it.
pub fn note(handler: &Handler, contest: &CanaryComparison) {
    let CanaryComparison { serving, stable, canary: round } = contest;
    let Some(canary) = &serving.canary else { return };
    let now = Instant::now();
    let mut trial = canary.trial();
    let decision = trial.record(now, stable, round);
    let facts = trial.facts(now);
    drop(trial);
    observe::canary_served(&handler.name, round.good, round.bad);
    let next = match decision {
        Decision::Wait => return,
        Decision::Promote => canary.plugin.clone(),
        Decision::RollBack(_) => serving.stable.clone(),
    };
    // Another batch, or another version, may have come first: then this canary serves no more, and its end is told.
    let before = handler.serving.compare_and_swap(serving, Arc::new(ActiveVersions::only(next)));
    if !Arc::ptr_eq(&before, serving) {
        return;
    }
    match decision {
        Decision::RollBack(reason) => {
            observe::canary_rolled_back(&handler.name, &canary.plugin.digest, reason, &facts);
        }
        _ => observe::canary_promoted(&handler.name, &canary.plugin.digest, &facts),
    }
}
