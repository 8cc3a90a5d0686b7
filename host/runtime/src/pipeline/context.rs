//! What a batch is run with, and what it reports.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::agreed::Agreement;
use super::kept::Kept;
use super::recent::Admissions;
use crate::history::History;
use crate::observe::Meters;
use tidemill_core::model::delivery::{Delivery, EntryId, Queue, Subscription};
use tidemill_core::policy::breaker::Tally;
use tidemill_core::policy::canary::CanaryPolicy;
use tidemill_core::policy::retry::RetryPolicy;
use tidemill_core::policy::route::Pattern;
use tidemill_sandbox::capability::ids::Ids;
use tidemill_sandbox::executor::Executor;
use tidemill_sandbox::executor::batch::WarmInstances;
use tidemill_sandbox::versions::{ActiveVersions, CanaryComparison};
use tidemill_schema::Registry;
use tidemill_storage::{Backend, Consume, Settlement, SettlementEntry};

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
    pub(super) fn settlement(&self, plugin: &Arc<str>, entries: Vec<SettlementEntry>) -> Settlement {
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
