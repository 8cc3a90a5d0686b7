//! A consumer: one handler on one stream. A few identical workers; each one loops: fetch a batch, process it. While one
//! worker's batch is in the plugin or being settled, another one fetches.

mod fetch;
pub(crate) mod resend;
mod run;
mod suspects;
mod taking;
pub(crate) mod tend;
mod worker;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

use super::agreement::Wanted;
use super::gaps::gaps;
use super::observe;
use super::pipeline::{Agreement, Handler, HostContext, Kept, KeyLocks};
use taking::Taking;
use tidemill_core::model::delivery::{Delivery, EntryId, Queue, Subscription};
use tidemill_core::policy::backoff::Backoff;
use tidemill_core::policy::breaker::Breaker;
use tidemill_storage::{Group, Settlement, SettlementEntry, Start};

/// How long a fetch waits for something to come; stopping waits no longer either.
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// After a backend error.
const BACKEND_BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), last: Duration::from_secs(5) };
/// Another worker would hardly be awake by then: one that is done so soon may keep the fetch lock. The first call that
/// takes longer holds up what comes after it; from then on, another worker fetches meanwhile.
const QUICK: Duration = Duration::from_millis(2);

/// Batches of one consumer that may be on their way at once.
pub const WORKERS_PER_SUBSCRIPTION: usize = 2;

/// What the worker that holds the fetch lock goes by.
struct FetchState {
    /// When to look next for deliveries of dead hosts.
    recover_at: Instant,
    /// Fetches in a row that failed.
    failed: u32,
}

pub struct Consumer {
    pub context: Arc<HostContext>,
    pub handler: Arc<Handler>,
    pub subscription: Subscription,
    pub start: Start,
    pub batch: usize,
    pub breaker: Arc<Mutex<Breaker>>,
    /// Notified when a retry was scheduled or a timer set, so that the scheduler looks at once when it is due.
    pub delayed: Notify,
    /// An operator has paused it (`pause` keeps this up to date).
    pub paused: AtomicBool,
    /// Of these: because the position of its group is unknown.
    pub(crate) lost_position: AtomicBool,
    /// What hosts want of this subscription (`agreement` keeps this up to date).
    pub(crate) agreed: Agreement,
    /// Held while fetching or recovering, so that one worker does it at a time.
    fetch_state: tokio::sync::Mutex<FetchState>,
    key_locks: KeyLocks,
    /// The last batch was delivered within [`QUICK`].
    quick: AtomicBool,
    /// A reply with deliveries may have been lost: recovery runs before the next fetch.
    recovers_first: AtomicBool,
    /// In-flight deliveries of this host: fetched and not settled.
    in_flight: Mutex<HashSet<(Queue, EntryId)>>,
    /// Of those, what no worker is working on: it goes into the next batches.
    requeued: Mutex<Vec<Delivery>>,
    busy: AtomicUsize,
    /// What the backend refused to settle. In flight as well, and with no worker.
    kept: Arc<Kept>,
    /// Batches in a row that could not be delivered.
    failed_batches: AtomicU32,
    taking: Mutex<Taking>,
    /// [`gaps`] at the last check whether other hosts keep the state by other keys.
    gaps_seen: AtomicU64,
    /// From when on to run suspects; none if nothing lies in quarantine, as far as is known here.
    suspects: Mutex<Option<Instant>>,
}

impl Consumer {
    pub fn new(
        context: Arc<HostContext>,
        handler: Arc<Handler>,
        subscription: Subscription,
        start: Start,
        batch: usize,
        breaker: Arc<Mutex<Breaker>>,
    ) -> Self {
        Self {
            context,
            handler,
            subscription,
            start,
            batch,
            breaker,
            delayed: Notify::new(),
            paused: AtomicBool::new(false),
            lost_position: AtomicBool::new(false),
            agreed: Agreement::default(),
            fetch_state: tokio::sync::Mutex::new(FetchState { recover_at: Instant::now(), failed: 0 }),
            key_locks: KeyLocks::default(),
            quick: AtomicBool::new(false),
            recovers_first: AtomicBool::new(false),
            in_flight: Mutex::default(),
            requeued: Mutex::default(),
            busy: AtomicUsize::new(0),
            kept: Arc::default(),
            failed_batches: AtomicU32::new(0),
            taking: Mutex::default(),
            gaps_seen: AtomicU64::new(gaps()),
            suspects: Mutex::default(),
        }
    }

    /// Whether this host has in-flight deliveries of this subscription.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0 || !lock(&self.requeued).is_empty()
    }

    /// How many deliveries are in flight on this host.
    pub fn in_flight(&self) -> usize {
        lock(&self.in_flight).len()
    }

    /// What the backend refuses to settle: how much of it this host keeps, and in which words the oldest was refused.
    pub fn refused(&self) -> (usize, Option<Arc<str>>) {
        (self.kept.count(), self.kept.reason())
    }

    /// A settlement of one delivery, under a token of its own.
    fn settlement(&self, plugin: &Arc<str>, entry: SettlementEntry) -> Settlement {
        Settlement {
            subscription: self.subscription.clone(),
            consumer: self.context.consumer.clone(),
            plugin: plugin.clone(),
            token: Uuid::new_v4(),
            entries: vec![entry],
        }
    }

    pub(crate) fn breaker_name(&self) -> &'static str {
        lock(&self.breaker).name()
    }

    /// What this host wants of the subscription.
    pub fn wanted(&self) -> Wanted {
        Wanted::of(&self.handler, self.context.inbox_window)
    }

    pub(crate) fn gaps_seen(&self) -> u64 {
        self.gaps_seen.load(Ordering::Relaxed)
    }

    pub(crate) fn saw_gaps(&self, gaps: u64) {
        self.gaps_seen.store(gaps, Ordering::Relaxed);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(crate) async fn make_group_again(&self) {
        match self.context.backend.ensure_group(&self.subscription, self.start).await {
            Ok(Group::Lost) => {
                self.paused.store(true, Ordering::Relaxed);
                if !self.lost_position.swap(true, Ordering::Relaxed) {
                    observe::position_lost(&self.subscription);
                }
            }
            Ok(group) => observe::group_remade(&self.subscription, group),
            Err(error) => observe::task_trouble("making the group again", &error),
        }
    }
}

/// A lock whose holder panicked guards plain sets and lists, which are as good as before.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
