//! Calls the plugin: the events of a batch that have no verdict yet, each by the version that serves its key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::context::WorkerContext;
use super::item::Item;
use crate::observe;
use tidemill_core::clock;
use tidemill_core::model::delivery::KeyState;
use tidemill_core::model::outcome::Crash;
use tidemill_process::fault;
use tidemill_sandbox::Plugin;
use tidemill_sandbox::executor::batch::{GuestBatch, GuestCall};
use tidemill_sandbox::versions::ActiveVersions;
use tidemill_sandbox::worlds::handler::CallResult;
use tidemill_storage::Error;

/// Runs the plugin on every event that has no verdict yet. Some may be left without one: the batch's time was up.
pub(super) async fn invoke(
    worker: &mut WorkerContext,
    serving: &ActiveVersions,
    items: &mut [Item],
    mut states: HashMap<Arc<str>, KeyState>,
) -> Result<(), Error> {
    // A canary has first tries only: what failed, by whatever version, goes to the stable one. The other events of such a
    // key go with it, so that in one batch one version alone uses a key's state.
    let retries = items.iter().filter(|item| item.delivery.attempts > 0);
    let steady: HashSet<Arc<str>> = retries.filter_map(|item| Some(item.event.as_ref()?.key().clone())).collect();
    for plugin in serving.versions() {
        let by_key = |key: &Arc<str>| if steady.contains(key) { &serving.stable } else { serving.for_key(key) };
        let serves = |key: &Arc<str>| Arc::ptr_eq(by_key(key), plugin);
        let wanted = |item: &Item| item.verdict.is_none() && item.event.as_ref().is_some_and(|e| serves(e.key()));
        let mine: Vec<&mut Item> = items.iter_mut().filter(|item| wanted(item)).collect();
        let state = states.extract_if(|key, _| serves(key)).collect();
        call(worker, serving, plugin, mine, state).await?;
    }
    Ok(())
}

/// Calls one version of the plugin with the events that it serves.
async fn call(
    worker: &mut WorkerContext,
    serving: &ActiveVersions,
    plugin: &Arc<Plugin>,
    items: Vec<&mut Item>,
    states: HashMap<Arc<str>, KeyState>,
) -> Result<(), Error> {
    let calls: Vec<GuestCall> = items
        .iter()
        .filter_map(|item| Some(GuestCall { event: item.event.clone()?, attempt: item.delivery.attempts + 1 }))
        .collect();
    if calls.is_empty() {
        return Ok(());
    }
    let WorkerContext { context, handler, subscription, warm, .. } = worker;
    let job = GuestBatch {
        plugin: plugin.clone(),
        stream: subscription.stream.clone(),
        now: clock::now_rfc3339(),
        ids: context.ids.get().copied().unwrap_or_default(),
        calls,
        states,
        deadline: handler.deadline,
        begun: Arc::default(),
        instance_events_max: handler.instance_events_max,
        versions: serving.versions().count(),
    };
    let trouble = |cause| Error::Unavailable { what: format!("plugin of {}", handler.name), cause };
    let answer = context.executor.run(job, warm, &handler.io_calls).await;
    let called: Vec<Option<CallResult>> = match answer.ok_or_else(|| trouble("the host is ending".to_owned()))? {
        Ok(called) => called,
        // The stable version must not stand still for that.
        Err(cause) if serving.is_canary(plugin) => {
            items.iter().map(|_| Some(CallResult::crashed(Crash::Trap, cause.clone()))).collect()
        }
        Err(cause) => return Err(trouble(cause)),
    };
    fault::point("plugin-returned");
    let begun = || called.iter().flatten();
    observe::called(&context.meters, subscription, begun().map(|called| called.took));
    observe::limits_reached(subscription, begun().flat_map(CallResult::limits));
    observe::requested(&handler.name, begun().flat_map(|called| &called.sent));
    for (item, called) in items.into_iter().zip(called) {
        let Some(called) = called else { continue };
        item.verdict = Some(Ok(called.outcome));
        item.state_version = called.state_version;
        item.plugin = Some(plugin.clone());
        item.took = called.took;
    }
    Ok(())
}
