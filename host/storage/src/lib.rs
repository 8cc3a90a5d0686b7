//! Where streams, inboxes, state and dead letters live. Two traits, and two backends that pass the same conformance
//! suite (`conformance`): SQLite for one machine, Redis for many.
//!
//! The contract, in short:
//! - a *subscription* is one handler (consumer group) on one stream; what one subscription does never shows in another;
//! - everything that a delivery changes, changes in [`Consume::settle`], whole or not at all;
//! - times are by the backend's clock, never a host's; setting it changes no delay or lease (`docs/decisions/0030`);
//! - an `Err` means that the backend failed; it is never about an event.

mod audit;
mod bounds;
pub mod finding;
pub mod group;
mod options;
mod ports;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

pub use crate::audit::{AUDIT_IDS_MAX, AUDIT_MAX, AuditRecord, HostInfo, Operator};
pub use crate::bounds::{Bounds, HEARTBEAT_MAX, Overflow, Trimmed};
pub use crate::finding::{Finding, Level};
pub use crate::group::{Group, Pause, Position, Start, Tended, VERSIONS_MAX, VersionCount, Wish};
pub use crate::options::{ENTRY_FACTS_BYTES, Options};
pub use crate::ports::{Admin, Backend, Consume, Diagnose, Membership, Streams};
use tidemill_core::model::delivery::{Delivery, Disposition, EntryId, KeyState, Queue, Subscription};
use tidemill_core::model::entry::PayloadHash;

/// Hosts that may crash with a delivery in flight before it is a suspect: quarantined and run in isolation.
pub const CRASHES_MAX: u32 = 3;

/// A delivery that two or more crashed hosts had in flight counts for so many of a batch when it is reclaimed.
pub const CRASHED_WEIGHT: usize = 4;

/// States that one look-up reads, in bytes of names and values: the key that goes beyond that is the last one read.
pub const LOOK_UP_BYTES_MAX: usize = 16 << 20;

/// What the inbox and the state hold, in the order of the question.
#[derive(Debug, Default)]
pub struct LookUp {
    pub seen: Vec<Option<PayloadHash>>,
    /// Of the first keys, at least one; of the others it was not read (`LOOK_UP_BYTES_MAX`).
    pub states: Vec<KeyState>,
}

/// What was fetched.
#[derive(Debug, Default)]
pub struct Fetched {
    pub deliveries: Vec<Delivery>,
    /// More was delivered than fits ([`Options::fetch_bytes_max`]): [`Consume::recover`] returns the rest.
    pub more: bool,
}

/// What was reclaimed.
#[derive(Debug, Default)]
pub struct Recovered {
    pub deliveries: Vec<Delivery>,
    /// There is more to reclaim.
    pub more: bool,
    /// Deliveries of dead consumers that this call moved into quarantine.
    pub quarantined: Vec<(Queue, EntryId)>,
    /// How many are in quarantine.
    pub suspects: u64,
}

/// For so long a host's crash counts against what it had in flight; then the count restarts.
pub const CRASH_WINDOW: Duration = Duration::from_secs(72 * 3600);

/// `run --until-idle` does not wait for timers that are further away than this.
pub const IDLE_TIMER_HORIZON: Duration = Duration::from_secs(60);

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

/// An event for a stream. With a `dedup_key`, the stream's own inbox is checked first.
#[derive(Debug, Clone)]
pub struct NewEntry {
    pub body: Bytes,
    pub dedup_key: Option<(Uuid, PayloadHash)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Added(EntryId),
    /// This very event is on the stream.
    Duplicate,
    /// Another event with this id is on the stream; this one was not added.
    Conflict,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promoted {
    pub moved: usize,
    pub next_in: Option<Duration>,
}

/// Counters of one subscription. They balance: `published + timers + repeated = committed + skipped + dead + dropped +
/// strayed + waiting`, where waiting is `lag + pending + due + redelivery`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Entries of the stream since the group's start.
    pub published: u64,
    /// Timers that were set: deliveries without a published entry.
    pub timers: u64,
    pub committed: u64,
    /// Acked without effects: not wanted, or a duplicate.
    pub skipped: u64,
    /// Of those skipped: duplicates.
    pub duplicates: u64,
    /// Times that a delivery was scheduled for a retry.
    pub retried: u64,
    /// Dead letters that are kept now.
    pub dead: u64,
    /// Of those dead: letters that never ran, see [`Options::dead_letters_max`].
    pub dead_unrun: u64,
    /// The bytes of those dead: body, reason and history. On Redis, letters of an older version are counted once the
    /// next letters have come.
    pub dead_bytes: u64,
    /// Dead letters that a person dropped or that the bounds evicted, and entries that were trimmed unread
    /// (`Overflow::Drop`).
    pub dropped: u64,
    /// Of those dropped: letters that the bounds evicted, those that ran and those that did not.
    pub evicted_ran: u64,
    pub evicted_unrun: u64,
    /// Entries that another program removed without settlement; known once all is fetched.
    pub strayed: u64,
    /// Deliveries that came twice: another program moved the group back, or it had been lost.
    pub repeated: u64,
    /// Not fetched yet.
    pub lag: u64,
    /// In flight (both queues).
    pub pending: u64,
    /// Waiting for their time: retries and timers.
    pub due: u64,
    /// Of those due: timers whose time is further away than [`IDLE_TIMER_HORIZON`].
    pub far: u64,
    /// Due again, not yet fetched.
    pub redelivery: u64,
    /// Of those pending: quarantined because hosts crashed with them, to be run in isolation.
    pub quarantined: u64,
    /// Of those pending: left for hosts that want them.
    pub left: u64,
    /// Age of the oldest pending delivery, since its entry was added to its queue.
    pub oldest_pending_age: Option<Duration>,
    /// Settlements that broke off half way. Has to be 0; a backend with transactions has none.
    pub torn: u64,
    /// Consumers of the group, dead ones included. On SQLite: those that are live or have pending deliveries.
    pub consumers: u64,
    /// Age of the oldest entry that waits in `lag` or `pending`.
    pub oldest_age: Option<Duration>,
}

impl SubscriptionStatus {
    pub fn waiting(&self) -> u64 {
        self.lag + self.pending + self.due + self.redelivery
    }

    pub fn balances(&self) -> bool {
        let gone = self.committed + self.skipped + self.dead + self.dropped + self.strayed;
        self.published + self.timers + self.repeated == gone + self.waiting()
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// What a backend could not do. Callers differ only in whether trying again may help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Away, busy, full, restarting: worth trying again.
    #[error("{what}: {cause}")]
    Unavailable { what: String, cause: String },
    /// The stream or the group is gone: it was deleted, or the data was lost.
    #[error(
        "{subscription}: the stream or its group is gone\n  hint: a host recreates it where it was, or reports it lost"
    )]
    GroupGone { subscription: String },
    /// The SQLite file was deleted or replaced: what is written now would be lost with the old one.
    #[error("{0}")]
    Replaced(String),
    /// Wrong address, wrong version, wrong rights, wrong type of a key: a retry is no use.
    #[error("{0}")]
    Permanent(String),
}

impl Error {
    /// The server has no memory left for this write; for another one it may have.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Unavailable { cause, .. } if cause.starts_with("OOM"))
    }

    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Permanent(_) | Self::Replaced(_))
    }
}
