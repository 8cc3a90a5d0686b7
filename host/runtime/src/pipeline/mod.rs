//! One batch through the pipeline. What becomes of a delivery is decided in this folder and in `policy::disposition`.
//!
//! ```text
//! fetch -> admit (decode, route, validate) -> look up (seen? state) -> invoke -> decide -> settle
//!           CPU                               one round trip, only      CPU       pure     one round trip
//!                                             for handlers with state
//! ```

mod admission;
mod agreed;
mod kept;
mod key_locks;
mod settle;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::history::History;
use super::observe;
use super::observe::Meters;
pub use admission::Admissions;
pub use agreed::{Agreed, Agreement};
pub use kept::Kept;
pub(crate) use kept::{Due, RefusedSettlement};
pub use key_locks::{KeyLocks, Ticket};
pub use settle::redecide;
use tidemill_core::clock;
use tidemill_core::model::delivery::{Delivery, EntryId, KeyState, Queue, Subscription};
use tidemill_core::model::outcome::{NotRun, Outcome, Verdict};
use tidemill_core::policy::breaker::Tally;
use tidemill_core::policy::canary::CanaryPolicy;
use tidemill_core::policy::retry::RetryPolicy;
use tidemill_core::policy::route::Pattern;
use tidemill_process::fault;
use tidemill_process::tasks;
use tidemill_sandbox::Plugin;
use tidemill_sandbox::capability::ids::Ids;
use tidemill_sandbox::executor::Executor;
use tidemill_sandbox::executor::batch::{Called, GuestBatch, GuestCall, WarmInstances};
use tidemill_sandbox::versions::{ActiveVersions, CanaryComparison};
use tidemill_schema::Registry;
use tidemill_schema::event::Event;
use tidemill_storage::{Backend, CRASHES_MAX, Consume, Error, Settlement, SettlementEntry};

/// What every handler of this host shares.
pub struct HostContext {
    pub backend: Arc<dyn Backend>,
    pub schemas: Arc<Registry>,
    pub(crate) admissions: Admissions,
    pub executor: Arc<Executor>,
    pub consumer: Arc<str>,
    /// Batches hold it shared; an isolated delivery holds it exclusively.
    pub(crate) isolation_lock: tokio::sync::RwLock<()>,
    pub payload_bytes_max: usize,
    /// `idempotency.window`.
    pub inbox_window: Duration,
    pub meters: Arc<Meters>,
    /// What makes the ids of emitted events; set before the first batch is fetched.
    pub ids: OnceLock<Ids>,
}

/// A route bound to a plugin, with its policies.
pub struct Handler {
    pub name: Arc<str>,
    /// Taken once for each batch: a reload takes effect between two of them.
    pub serving: ArcSwap<ActiveVersions>,
    /// The versions that have served. Held while `serving` is changed, which `canary` alone does.
    pub(crate) history: Mutex<History>,
    pub events: Vec<Pattern>,
    pub key: Vec<String>,
    pub retry: RetryPolicy,
    /// How a new version is tried first; none = it serves everything at once.
    pub canary: Option<CanaryPolicy>,
    pub deadline: Duration,
    pub instance_events_max: u32,
    /// Calls of it that may be on the I/O pool at once.
    pub(crate) io_calls: Arc<Semaphore>,
}

impl Handler {
    /// Deliveries whose consumer may still be at work on them are left alone for this long: the time of a batch, of the
    /// call that is running when that is over, and of the settlement.
    pub(crate) fn lease(&self) -> Duration {
        self.deadline * 2 + Duration::from_secs(1)
    }

    /// A lock whose holder panicked guards a plain list.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Context of one worker, on its own thread: what it needs to process batches, without waiting for other workers.
pub struct WorkerContext {
    pub context: Arc<HostContext>,
    pub handler: Arc<Handler>,
    pub subscription: Subscription,
    pub backend: Arc<dyn Consume>,
    pub warm: WarmInstances,
    /// What all workers of this subscription keep of what the backend refused.
    pub kept: Arc<Kept>,
    /// What hosts want of this subscription.
    pub(crate) agreed: Agreement,
}

impl WorkerContext {
    /// A settlement under a token of its own.
    fn settlement(&self, plugin: &Arc<str>, entries: Vec<SettlementEntry>) -> Settlement {
        Settlement {
            subscription: self.subscription.clone(),
            consumer: self.context.consumer.clone(),
            plugin: plugin.clone(),
            token: Uuid::new_v4(),
            entries,
        }
    }
}

/// What came of a batch.
#[derive(Default)]
pub struct BatchReport {
    /// To be run again, soon and by this host: they were deferred, or their state moved on. No attempt was counted.
    pub(crate) requeue: Vec<Delivery>,
    /// Not settled and not to be run again: the backend refused it, or something before it of the same state key.
    pub kept: Vec<(Queue, EntryId)>,
    /// For the breaker. What a canary did is left out: it is rolled back, the handler goes on.
    pub(crate) tally: Tally,
    /// Retries and timers: what is redelivered once it is due.
    pub(crate) delayed: usize,
    /// What two versions did, if two served.
    pub(crate) contest: Option<CanaryComparison>,
    /// Set aside, to be run alone.
    pub(crate) suspects: u64,
    /// Left for other hosts that want them.
    pub left: Vec<EntryId>,
    /// Hosts have agreed on something else: to be asked before anything is handled again.
    pub(crate) outdated: bool,
}

/// A delivery on its way: with its event if it has one, and its verdict as soon as there is one.
struct Item {
    delivery: Delivery,
    event: Option<Arc<Event>>,
    verdict: Option<Verdict>,
    state_version: Option<u64>,
    /// The version of the plugin that was called, and the time that it took.
    plugin: Option<Arc<Plugin>>,
    took: Duration,
}

impl Item {
    fn new(delivery: Delivery, event: Option<Arc<Event>>) -> Self {
        Self { delivery, event, verdict: None, state_version: None, plugin: None, took: Duration::ZERO }
    }

    fn refused(delivery: Delivery, refusal: NotRun) -> Self {
        Self { verdict: Some(Err(refusal)), ..Self::new(delivery, None) }
    }
}

/// Takes a batch through. Until its dispositions are decided, any failure of the backend is an error, and the deliveries stay
/// pending. After that only a lost group or a replaced backend is one: settlements that are refused are kept, and the plugin
/// is not called again. The report lists what is kept also with an error.
pub async fn deliver(
    worker: &mut WorkerContext,
    batch: Vec<Delivery>,
    ticket: Ticket<'_>,
    report: &mut BatchReport,
) -> Result<(), Error> {
    let begun = Instant::now();
    let agreed = worker.agreed.load_full();
    let mut items = admission::admitted(&worker.context, &worker.handler, &agreed, &worker.subscription, batch);
    let serving = worker.handler.serving.load_full();
    let (mut states, mut _guard) = (HashMap::new(), None);
    if serving.has_state() {
        report.requeue = take_repeated(&mut items);
        let keys = items.iter().filter_map(|item| Some(item.event.as_ref()?.key().clone())).collect();
        _guard = Some(tasks::waits(ticket.lock(keys)).await);
        report.kept = worker.kept.hold_back(&mut items);
        states = look_up(worker, &mut items).await?;
        // First of all: what repeats one of them must not go before it.
        report.requeue.splice(..0, take_unread(&mut items, &states));
    } else {
        drop(ticket);
    }
    let versions = states.iter().map(|(key, state)| (key.clone(), state.version)).collect();
    invoke(worker, &serving, &mut items, states).await?;
    report.requeue.extend(take_hasty(&mut items, &versions));
    settle::settle(worker, &serving, items, report).await?;
    observe::batch_done(&worker.context.meters, &worker.subscription, begun.elapsed());
    Ok(())
}

/// Whether it is too dangerous to run. What hosts died with runs in isolation once; if one dies then, it is the cause.
fn suspicion(delivery: &Delivery) -> Option<NotRun> {
    let crashes = delivery.crashes;
    if delivery.died_alone {
        return Some(NotRun::Poison(
            format!("{crashes} hosts crashed with it in flight, the last one in isolation").into(),
        ));
    }
    (crashes >= CRASHES_MAX && !delivery.isolated).then_some(NotRun::Suspect)
}

/// Takes out what repeats an event of this very batch: it goes into the next one, where the inbox knows the first.
fn take_repeated(items: &mut Vec<Item>) -> Vec<Delivery> {
    let mut seen = HashSet::new();
    let repeats = |item: &mut Item| item.event.as_ref().is_some_and(|event| !seen.insert(event.id()));
    items.extract_if(.., repeats).map(|item| item.delivery).collect()
}

/// Takes out what goes by a key whose state was not read: it goes into a later batch, as all of that key does. The key
/// of the oldest is always read, so every batch gets further.
fn take_unread(items: &mut Vec<Item>, states: &HashMap<Arc<str>, KeyState>) -> Vec<Delivery> {
    let unread = |item: &mut Item| {
        item.verdict.is_none() && item.event.as_ref().is_some_and(|event| !states.contains_key(event.key()))
    };
    items.extract_if(.., unread).map(|item| item.delivery).collect()
}

/// Takes out what failed after reading uncommitted state: an event before it in this batch wrote it, and may yet not
/// be committed. It is run again on what then is there.
fn take_hasty(items: &mut Vec<Item>, versions: &HashMap<Arc<str>, u64>) -> Vec<Delivery> {
    let hasty = |item: &mut Item| {
        let failed = matches!(&item.verdict, Some(Ok(outcome)) if !matches!(outcome, Outcome::Done(_)));
        let there = item.event.as_ref().and_then(|event| versions.get(event.key())).copied();
        failed && item.state_version.is_some() && item.state_version != there
    };
    items.extract_if(.., hasty).map(|item| item.delivery).collect()
}

/// Asks the inbox and reads the state of the keys in the batch, the oldest event's first, as far as there is room.
async fn look_up(worker: &WorkerContext, items: &mut [Item]) -> Result<HashMap<Arc<str>, KeyState>, Error> {
    let waiting: Vec<&mut Item> = items.iter_mut().filter(|item| item.verdict.is_none()).collect();
    let events: Vec<Arc<Event>> = waiting.iter().filter_map(|item| item.event.clone()).collect();
    if events.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = events.iter().map(|event| event.id()).collect();
    let mut known = HashSet::with_capacity(events.len());
    let keys: Vec<Arc<str>> =
        events.iter().map(|event| event.key()).filter(|key| known.insert(*key)).cloned().collect();
    let begun = Instant::now();
    let found = worker.backend.look_up(&worker.subscription, &ids, &keys).await?;
    observe::looked_up(&worker.subscription, begun.elapsed());
    for ((item, event), seen) in waiting.into_iter().zip(&events).zip(found.seen) {
        item.verdict = match seen {
            Some(hash) if hash == event.hash() => Some(Err(NotRun::Duplicate)),
            Some(_) => Some(Err(NotRun::Conflict)),
            None => None,
        };
    }
    Ok(keys.into_iter().zip(found.states).collect())
}

/// Runs the plugin on every event that has no verdict yet. Some may be left without one: the batch's time was up.
async fn invoke(
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
    let called: Vec<Option<Called>> = match answer.ok_or_else(|| trouble("the host is ending".to_owned()))? {
        Ok(called) => called,
        // The stable version must not stand still for that.
        Err(cause) if serving.is_canary(plugin) => items.iter().map(|_| Some(Called::crashed(cause.clone()))).collect(),
        Err(cause) => return Err(trouble(cause)),
    };
    fault::point("plugin-returned");
    let begun = || called.iter().flatten();
    observe::called(&context.meters, subscription, begun().map(|called| called.took));
    observe::limits_reached(subscription, begun().flat_map(Called::limits));
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
