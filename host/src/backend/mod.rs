//! Where streams, inboxes, state and dead letters live. Two traits, and two backends that pass the same exam
//! (`conformance`): SQLite for one machine, Redis for many.
//!
//! The contract, in short:
//! - a *subscription* is one handler (consumer group) on one stream; what one subscription does never shows in another;
//! - everything that a delivery changes, changes in [`DataPlane::settle`], whole or not at all;
//! - every time is the backend's own clock, never a host's; delays and leases go on evenly when it is set (`docs/decisions/0030`);
//! - an `Err` says that the backend could not do its work; it never says anything about an event.

pub mod acts;
pub mod bounds;
pub mod conformance;
pub mod findings;
pub mod group;
mod open;
mod options;
pub mod redis;
pub mod sqlite;
pub mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

pub use self::acts::{AUDIT_IDS_MAX, AUDIT_MAX, AuditRecord, HostInfo, Operator};
pub use self::bounds::{Bounds, HEARTBEAT_MAX, Overflow, Trimmed};
pub use self::findings::{Finding, Level};
pub use self::group::{Group, Pause, Position, Start, Tended, VERSIONS_MAX, VersionCount, Wish};
pub use self::open::{backup, diagnose_deeply, open, open_to_read};
pub use self::options::{ENTRY_FACTS_BYTES, Features, Options};
pub use self::sqlite::wait_until_closed;
use crate::model::dead_letter::DeadLetter;
use crate::model::delivery::{Delivery, Disposition, EntryId, KeyState, Queue, Subscription};
use crate::model::event::PayloadHash;

/// Hosts that may die with a delivery in hand before it is taken for the cause, set aside and run alone.
pub const CRASHES_MAX: u32 = 3;

/// What two or more dead hosts have had in hand counts for so many of a batch when it is taken over.
const CRASHED_WEIGHT: usize = 4;

/// Deliveries in, effects out. Called for each batch.
#[async_trait]
pub trait DataPlane: Send + Sync {
    /// Takes up to `max` new deliveries, from both queues, waiting up to `wait` for the first one; none if none came.
    /// They are then pending under `consumer`. To be called by one task per subscription and consumer, and never dropped
    /// half way: entries that were handed over would be lost to sight until `recover`.
    async fn fetch(&self, subscription: &Subscription, consumer: &str, max: usize, wait: Duration) -> Result<Fetched>;

    /// Reads the inbox for `ids` and the state of `keys`; answers have the same order. One round trip. Keys are read until
    /// their states are beyond `LOOK_UP_BYTES_MAX` together, and those after that are left out.
    async fn look_up(&self, subscription: &Subscription, ids: &[Uuid], keys: &[Arc<str>]) -> Result<LookUp>;

    /// Settles a batch: every entry by its disposition, all in one atomic step. Entries that do not fit any more
    /// (not pending under this consumer, other state version, known id) are left out, and the answer says so.
    /// May be called again with the same token after an error: what was done is not done twice. (Where nothing was
    /// done, all being fenced, stale or in conflict, the answer may be another one later.) [`Error::Refused`] says that
    /// nothing was done, and that what one of the entries asks for is the reason, or the backend as a whole. A retry and a dead letter take
    /// attempts, crashes, history and link from the delivery as it is given here. A timer that a commit sets is a delivery
    /// of its own, which waits like a retry; it has the origin of the one that set it, and a new account.
    async fn settle(&self, settlement: &Settlement) -> Result<Vec<Settled>>;

    /// Appends events to a stream, in order. With a deduplication key, an id that this stream has seen within the inbox window
    /// is not appended again.
    async fn publish(&self, stream: &str, entries: &[NewEntry]) -> Result<Vec<Published>>;

    /// Brings back what would otherwise be forgotten, up to `max` at a time: deliveries pending under `consumer` that
    /// are not among `held` (a reply got lost, or was too large), deliveries that were released by
    /// [`ControlPlane::leave`], and deliveries of consumers whose heartbeat has run out and which have been idle for
    /// `lease`, with one more crash on their account. Those with [`CRASHES_MAX`] on it go into quarantine before anybody
    /// reads them, and of those that have been in the hands of several dead hosts only a few come at a time.
    async fn recover(
        &self,
        subscription: &Subscription,
        consumer: &str,
        held: &HashSet<(Queue, EntryId)>,
        lease: Duration,
        max: usize,
    ) -> Result<Recovered>;

    /// Takes one delivery out of quarantine into the hands of `consumer`, to be run alone. Should the consumer die with
    /// it, whoever recovers it is told (`died_alone`).
    async fn take_suspect(&self, subscription: &Subscription, consumer: &str) -> Result<Option<Delivery>>;

    /// Takes up to `max` of what was left for others (`Disposition::Leave`) into the hands of `consumer`.
    async fn take_left(&self, subscription: &Subscription, consumer: &str, max: usize) -> Result<Vec<Delivery>>;

    /// The same data plane for one task that does one thing after the other: over a connection of its own, which ends with
    /// the runtime that it is used from. `None`: this one serves everybody equally well.
    fn for_one_task(&self) -> Option<Arc<dyn DataPlane>> {
        None
    }
}

/// Groups, time, and the view from outside. Called now and then.
#[async_trait]
pub trait ControlPlane: Send + Sync {
    fn features(&self) -> Features;

    /// One line about the backend for people: kind, version, where.
    async fn describe(&self) -> Result<String>;

    /// How large it is: memory that Redis uses, whoever uses it, or the pages of the SQLite file.
    async fn size_bytes(&self) -> Result<u64>;

    /// Makes the group (and the stream) unless it is there: a new one where `start` says, one that was lost where it was.
    async fn ensure_group(&self, subscription: &Subscription, start: Start) -> Result<Group>;

    /// Makes a group whose position is lost begin here. `false`: it is not lost, and nothing was done.
    async fn begin_at(&self, subscription: &Subscription, place: Position, act: &Operator) -> Result<bool>;

    /// Looks after a subscription: says what the host `consumer` wishes, notes how far the group has come (it is made anew
    /// there), and counters what strangers have done to it.
    async fn tend(&self, subscription: &Subscription, consumer: &str, wish: &str) -> Result<Tended>;

    /// What hosts wish of a subscription.
    async fn wishes(&self, subscription: &Subscription) -> Result<Vec<Wish>>;

    /// Says that `consumer` lives, and what it has to tell of itself (`note`, see [`Self::hosts`]); it counts as dead
    /// when this has not been said for `ttl`, [`HEARTBEAT_MAX`] at most.
    async fn heartbeat(&self, consumer: &str, ttl: Duration, note: &str) -> Result<()>;

    /// The consumers of these subscriptions that live, each once, with the note of its last beat. There may be more of them:
    /// those of other subscriptions in the same backend.
    async fn hosts(&self, subscriptions: &[Subscription]) -> Result<Vec<HostInfo>>;

    /// Takes leave: releases what is pending under the consumer, for whoever recovers next and with no crash counted,
    /// removes the consumer from `subscriptions` and ends the heartbeat. Answers how many deliveries were released.
    async fn deregister(&self, consumer: &str, subscriptions: &[Subscription]) -> Result<u64>;

    /// The secret by which emitted events get ids that nobody else can tell: it lies with the data. `fresh` if there is none.
    async fn ids_key(&self, fresh: [u8; 32]) -> Result<[u8; 32]>;

    /// Moves retries and timers that are due to the redelivery queue, at most `max`. Answers how many, and in how long the next is due.
    async fn promote(&self, subscription: &Subscription, max: usize) -> Result<Promoted>;

    async fn status(&self, subscription: &Subscription) -> Result<SubscriptionStatus>;

    /// How much each version of the plugin has committed, the newest first. Counted by the settlement itself; of versions
    /// beyond the newest `VERSIONS_MAX` only the sum is kept, under no digest.
    async fn committed_by(&self, subscription: &Subscription) -> Result<Vec<VersionCount>>;

    /// Dead letters after `after` in order of their ids, at most `max`.
    async fn dead_letters(
        &self,
        subscription: &Subscription,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>>;

    /// Puts dead letters back on the redelivery queue of their own handler, with their history, but no attempts on their account, one
    /// more replay, and a link to the letter. Answers how many there were. One that is gone already is not replayed again.
    async fn replay(&self, subscription: &Subscription, ids: &[EntryId], act: &Operator) -> Result<usize>;

    /// Removes dead letters for good; they count as dropped. Answers how many there were.
    async fn drop_dead(&self, subscription: &Subscription, ids: &[EntryId], act: &Operator) -> Result<usize>;

    /// Replays one dead letter with another body. `false`: it is gone already.
    async fn edit_dead(&self, subscription: &Subscription, id: EntryId, body: Bytes, act: &Operator) -> Result<bool>;

    /// Stops (or lets go on) the fetching of a subscription, on every host, until it is said otherwise.
    async fn set_paused(&self, subscription: &Subscription, paused: bool, act: &Operator) -> Result<()>;

    /// Which of these subscriptions are paused, in the order of the question.
    async fn paused(&self, subscriptions: &[Subscription]) -> Result<Vec<Pause>>;

    /// What people did to a subscription, after `after` in the order of time, at most `max`. The newest `AUDIT_MAX` are kept.
    async fn audit(&self, subscription: &Subscription, after: Option<EntryId>, max: usize) -> Result<Vec<AuditRecord>>;

    /// The state of keys after `after` in the order of their names, at most `max`.
    async fn states(
        &self,
        subscription: &Subscription,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, KeyState)>>;

    /// Removes old entries from a stream: those over its bounds, but never one that a group has not finished, unless
    /// the bounds say so.
    async fn trim(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed>;

    /// Looks whether the backend keeps what Tidemill promises on it: its settings, known bugs, rights, clock, and what
    /// leaks; and whether the streams of these subscriptions can be read, and `targets`, which are emitted to, take more.
    /// Changes nothing that stays. Without subscriptions: only what has nothing to do with streams.
    async fn diagnose(&self, subscriptions: &[Subscription], targets: &[Arc<str>]) -> Result<Vec<Finding>>;

    /// The events of a stream after `after`, at most `max`. For people and tests.
    async fn entries(&self, stream: &str, after: Option<EntryId>, max: usize) -> Result<Vec<(EntryId, Bytes)>>;
}

pub trait Backend: DataPlane + ControlPlane {}
impl<T: DataPlane + ControlPlane> Backend for T {}

/// States that one look-up reads, in bytes of names and values: with the key that takes it beyond that it reads no more.
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
    /// More was handed over than there was room for ([`Options::fetch_bytes_max`]): [`DataPlane::recover`] brings it.
    pub more: bool,
}

/// What was brought back.
#[derive(Debug, Default)]
pub struct Recovered {
    pub deliveries: Vec<Delivery>,
    /// There is more to bring back.
    pub more: bool,
    /// Deliveries of the dead that have just gone into quarantine.
    pub quarantined: Vec<(Queue, EntryId)>,
    /// How many lie in quarantine.
    pub suspects: u64,
}

/// For so long a host's death counts against what it had in hand; then the count begins anew.
pub const CRASH_WINDOW: Duration = Duration::from_secs(72 * 3600);

/// A timer that is further away than this is nothing that a host waits for to end (`run --until-idle`).
pub const IDLE_TIMER_HORIZON: Duration = Duration::from_secs(60);

/// A batch on its way to be settled: deliveries of one subscription, in one consumer's hands.
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
    /// Set aside, to be run alone (`take_suspect`).
    Quarantined,
    /// The inbox held this very event: acked, effects dropped.
    Duplicate,
    /// The inbox held another event with this id: nothing was done, the delivery is still pending.
    Conflict,
    /// The state has another version by now: nothing was done, the delivery is still pending.
    Stale,
    /// Not pending under this consumer any more: nothing was done, it is somebody else's.
    Fenced,
    /// It would set more timers than may wait: nothing was done, the delivery is still pending.
    Full,
    /// Still pending, but for a host that wants it (`take_left`).
    Left,
    /// Hosts wish other things by now: nothing was done, the delivery is still pending.
    Outdated,
}

/// An event for a stream. With a `dedup_key`, the stream's own inbox is asked first.
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

/// The counters of one subscription. They balance: `published + timers + repeated = committed + skipped + dead + dropped + strayed +
/// waiting`, where waiting is `lag + pending + due + redelivery`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Entries of the stream that are this group's business: all since the group's start.
    pub published: u64,
    /// Timers that were set: deliveries that nobody published.
    pub timers: u64,
    pub committed: u64,
    /// Acked without effects: not wanted, or a duplicate.
    pub skipped: u64,
    /// Of those skipped: duplicates.
    pub duplicates: u64,
    /// Times that a delivery was put off for another try.
    pub retried: u64,
    /// Dead letters that lie here now.
    pub dead: u64,
    /// Of those dead: letters that never ran, see [`Options::dead_letters_max`].
    pub dead_unrun: u64,
    /// The bytes of those dead: body, reason and history. On Redis, letters of an older version are counted once the next
    /// letters have come.
    pub dead_bytes: u64,
    /// Dead letters that somebody dropped or that went because of the bounds, and entries that went unread
    /// (`Overflow::Drop`).
    pub dropped: u64,
    /// Of those dropped: letters that ran, and letters that did not, which went because of the bounds.
    pub evicted_ran: u64,
    pub evicted_unrun: u64,
    /// Entries that went with no settlement, by a stranger's hand; known once all is fetched.
    pub strayed: u64,
    /// Deliveries that came once more: a stranger moved the group back, or it had been lost.
    pub repeated: u64,
    /// Not yet fetched by anybody.
    pub lag: u64,
    /// In some consumer's hands (both queues).
    pub pending: u64,
    /// Waiting for their time: retries and timers.
    pub due: u64,
    /// Of those due: timers whose time is further away than `FAR`.
    pub far: u64,
    /// Due again, not yet fetched.
    pub redelivery: u64,
    /// Of those pending: set aside because hosts died with them, to be run alone.
    pub quarantined: u64,
    /// Of those pending: left for hosts that want them.
    pub left: u64,
    /// Age of the oldest delivery in a consumer's hands, since its entry was added to its queue.
    pub oldest_pending_age: Option<Duration>,
    /// Settlements that broke off half way. Has to be 0; a backend with transactions has none.
    pub torn: u64,
    /// Consumers that the group knows, dead ones included. On SQLite: those that live, or have something in hand.
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
    /// The stream or the group is gone: somebody deleted it, or the data was lost.
    #[error(
        "{subscription}: the stream or its group is gone\n  hint: a host makes it anew where it was, or says that a person has to tell where"
    )]
    GroupGone { subscription: String },
    /// The SQLite file was deleted, or another one put in its place: what is written now would be lost with the old one.
    #[error("{0}")]
    Replaced(String),
    /// Wrong address, wrong version, wrong rights, wrong type of a key: trying again is no use.
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
