//! What a settlement is, and what becomes of its entries.

use std::sync::Arc;

use tidemill_core::model::delivery::{Delivery, Disposition, Subscription};
use tidemill_core::model::entry::PayloadHash;
use uuid::Uuid;

/// A batch to be settled: deliveries of one subscription, in flight at one consumer.
#[derive(Debug)]
pub struct Settlement {
    pub subscription: Subscription,
    pub consumer: Arc<str>,
    /// The digest of the plugin version that the outcomes come from.
    pub plugin: Arc<str>,
    /// Makes a lost reply safe: the same token is never settled twice.
    pub token: Uuid,
    pub entries: Vec<SettlementEntry>,
}

#[derive(Debug)]
pub struct SettlementEntry {
    pub delivery: Delivery,
    /// The event's id and the hash of its bytes, if it got as far as being an event.
    pub dedup_key: Option<(Uuid, PayloadHash)>,
    /// The key whose state was read, and the version that it had then (or will have through earlier entries of this
    /// settlement). `None`: the handler has no state.
    pub state: Option<(Arc<str>, u64)>,
    pub disposition: Disposition,
}

/// What became of one entry of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Committed,
    Skipped,
    Retried,
    Dead,
    /// In quarantine, to be run in isolation (`take_suspect`).
    Quarantined,
    /// The inbox held this very event: acked, effects dropped.
    Duplicate,
    /// The inbox held another event with this id: nothing was done, the delivery is still pending.
    Conflict,
    /// The state has another version by now: nothing was done, the delivery is still pending.
    Stale,
    /// Not pending under this consumer any more: nothing was done, another consumer may have it.
    Fenced,
    /// It would set more timers than may wait: nothing was done, the delivery is still pending.
    Full,
    /// Still pending, but for a host that wants it (`take_left`).
    Left,
    /// The hosts' wishes have changed: nothing was done, the delivery is still pending.
    Outdated,
}
