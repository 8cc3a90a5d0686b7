//! One batch through the pipeline. What becomes of a delivery is decided in this folder and in `policy::disposition`.
//!
//! ```text
//! fetch -> admit (decode, route, validate) -> look up (seen? state) -> invoke -> decide -> settle
//!           CPU                               one round trip, only      CPU       pure     one round trip
//!                                             for handlers with state
//! ```

mod admission;
mod agreed;
mod invoke;
mod kept;
mod key_locks;
mod set_aside;
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
use tidemill_core::model::delivery::{Delivery, EntryId, KeyState, Queue, Subscription};
use tidemill_core::model::outcome::{NotRun, Verdict};
use tidemill_core::policy::breaker::Tally;
use tidemill_core::policy::canary::CanaryPolicy;
use tidemill_core::policy::retry::RetryPolicy;
use tidemill_core::policy::route::Pattern;
use tidemill_process::tasks;
use tidemill_sandbox::Plugin;
use tidemill_sandbox::capability::ids::Ids;
use tidemill_sandbox::executor::Executor;
use tidemill_sandbox::executor::batch::WarmInstances;
use tidemill_sandbox::versions::{ActiveVersions, CanaryComparison};
use tidemill_schema::Registry;
use tidemill_schema::event::Event;
use tidemill_storage::{Backend, Consume, Error, Settlement, SettlementEntry};

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
        report.requeue = set_aside::take_repeated(&mut items);
        let keys = items.iter().filter_map(|item| Some(item.event.as_ref()?.key().clone())).collect();
        _guard = Some(tasks::waits(ticket.lock(keys)).await);
        report.kept = worker.kept.hold_back(&mut items);
        states = look_up(worker, &mut items).await?;
        // First of all: what repeats one of them must not go before it.
        report.requeue.splice(..0, set_aside::take_unread(&mut items, &states));
    } else {
        drop(ticket);
    }
    let versions = states.iter().map(|(key, state)| (key.clone(), state.version)).collect();
    invoke::invoke(worker, &serving, &mut items, states).await?;
    report.requeue.extend(set_aside::take_hasty(&mut items, &versions));
    settle::settle(worker, &serving, items, report).await?;
    observe::batch_done(&worker.context.meters, &worker.subscription, begun.elapsed());
    Ok(())
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
