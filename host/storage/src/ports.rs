//! The ports: what callers ask of a backend, one trait for each kind of caller.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_core::model::dead_letter::DeadLetter;
use tidemill_core::model::delivery::{Delivery, EntryId, KeyState, Queue, Subscription};
use uuid::Uuid;

use crate::audit::{AuditRecord, HostInfo, Operator};
use crate::bounds::{Bounds, Trimmed};
use crate::error::Result;
use crate::fetched::{Fetched, LookUp, Recovered};
use crate::finding::Finding;
use crate::group::{Group, Pause, Position, Start, Tended, VersionCount, Wish};
use crate::published::{NewEntry, Promoted, Published};
use crate::settlement::{Settled, Settlement};
use crate::status::SubscriptionStatus;

/// Deliveries in, effects out: what a worker calls for each batch.
#[async_trait]
pub trait Consume: Send + Sync {
    /// Takes up to `max` new deliveries, from both queues, waiting up to `wait` for the first one; none if none came.
    /// They are then pending under `consumer`. To be called by one task per subscription and consumer. Never drop this
    /// future: entries that were delivered would be orphaned until `recover`.
    async fn fetch(&self, subscription: &Subscription, consumer: &str, max: usize, wait: Duration) -> Result<Fetched>;

    /// Reads the inbox for `ids` and the state of `keys`; answers have the same order. One round trip. Keys are read
    /// until their states are beyond `LOOK_UP_BYTES_MAX` together, and those after that are left out.
    async fn look_up(&self, subscription: &Subscription, ids: &[Uuid], keys: &[Arc<str>]) -> Result<LookUp>;

    /// Settles a batch: every entry by its disposition, all in one atomic step. Entries that do not fit any more
    /// (not pending under this consumer, other state version, known id) are left out, and the answer reports them.
    /// May be called again with the same token after an error: what was done is not done twice. (Where nothing was
    /// done, all being fenced, stale or in conflict, the answer may be another one later.) [`Error::Permanent`] means
    /// that nothing was done, because of one of the entries or the backend as a whole. A retry and a dead letter take
    /// attempts, crashes, history and link from the delivery as it is given here. A timer that a commit sets is a new
    /// delivery, which waits like a retry; it has the origin of the one that set it, but no attempts or history.
    async fn settle(&self, settlement: &Settlement) -> Result<Vec<Settled>>;

    /// Reclaims orphaned deliveries, up to `max` at a time: those pending under `consumer` that are not among `held` (a
    /// reply got lost, or was too large), those released by [`Membership::deregister`], and those of consumers whose
    /// heartbeat has expired and which have been idle for `lease`, with one more crash counted. Those with
    /// [`CRASHES_MAX`] crashes go into quarantine before any host reads them, and of those that several dead hosts had
    /// in flight only a few come at a time.
    async fn recover(
        &self,
        subscription: &Subscription,
        consumer: &str,
        held: &HashSet<(Queue, EntryId)>,
        lease: Duration,
        max: usize,
    ) -> Result<Recovered>;

    /// Moves one delivery out of quarantine to `consumer`, to be run in isolation. If the consumer dies with it, the
    /// recovered delivery reports that (`died_alone`).
    async fn take_suspect(&self, subscription: &Subscription, consumer: &str) -> Result<Option<Delivery>>;

    /// Moves up to `max` deliveries that were left for other hosts (`Disposition::Leave`) to `consumer`.
    async fn take_left(&self, subscription: &Subscription, consumer: &str, max: usize) -> Result<Vec<Delivery>>;

    /// The same port for one sequential task: over a connection of its own, which ends with the runtime that uses
    /// it. `None`: this one serves all tasks equally well.
    fn for_one_task(&self) -> Option<Arc<dyn Consume>> {
        None
    }
}

/// What lies on streams: appended, listed, trimmed.
#[async_trait]
pub trait Streams: Send + Sync {
    /// Appends events to a stream, in order. With a deduplication key, an id that this stream has seen within the inbox
    /// window is not appended again.
    async fn publish(&self, stream: &str, entries: &[NewEntry]) -> Result<Vec<Published>>;

    /// The events of a stream after `after`, at most `max`. For people and tests.
    async fn entries(&self, stream: &str, after: Option<EntryId>, max: usize) -> Result<Vec<(EntryId, Bytes)>>;

    /// Removes old entries from a stream: those over its bounds, but never one that a group has not finished, unless
    /// the bounds say so.
    async fn trim(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed>;
}

/// Groups and the hosts that read them: called now and then by the tasks of a host.
#[async_trait]
pub trait Membership: Send + Sync {
    /// Creates the group (and the stream) unless it exists: a new one at `start`, a lost one at its last position.
    async fn ensure_group(&self, subscription: &Subscription, start: Start) -> Result<Group>;

    /// Looks after a subscription: declares the wish of the host `consumer`, saves the group's position (a lost group
    /// is recreated there), and counts what other programs have done to it.
    async fn tend(&self, subscription: &Subscription, consumer: &str, wish: &str) -> Result<Tended>;

    /// What hosts wish of a subscription.
    async fn wishes(&self, subscription: &Subscription) -> Result<Vec<Wish>>;

    /// Writes the heartbeat of `consumer` and its report (`note`, see [`Self::hosts`]); a consumer without a heartbeat
    /// for `ttl`, [`HEARTBEAT_MAX`] at most, counts as dead.
    async fn heartbeat(&self, consumer: &str, ttl: Duration, note: &str) -> Result<()>;

    /// The live consumers of these subscriptions, each once, with the report of its last heartbeat. The list may
    /// include those of other subscriptions in the same backend.
    async fn hosts(&self, subscriptions: &[Subscription]) -> Result<Vec<HostInfo>>;

    /// Releases what is pending under the consumer, for the next recovery and with no crash counted, removes the
    /// consumer from `subscriptions` and ends the heartbeat. Returns how many deliveries were released.
    async fn deregister(&self, consumer: &str, subscriptions: &[Subscription]) -> Result<u64>;

    /// The secret that makes ids of emitted events unguessable: it is stored with the data. `fresh` if there is none.
    async fn ids_key(&self, fresh: [u8; 32]) -> Result<[u8; 32]>;

    /// Moves at most `max` due retries and timers to the redelivery queue. Returns how many, and when the next is due.
    async fn promote(&self, subscription: &Subscription, max: usize) -> Result<Promoted>;
}

/// What an operator does, with an audit record in the same step: dead letters, pausing, positions; and state to look at.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Dead letters after `after` in order of their ids, at most `max`.
    async fn dead_letters(
        &self,
        subscription: &Subscription,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>>;

    /// Moves dead letters to the redelivery queue of their own handler, with their history, no attempts or crashes, one
    /// more replay, and a link to the letter. Returns how many there were. One that is gone is not replayed again.
    async fn replay(&self, subscription: &Subscription, ids: &[EntryId], act: &Operator) -> Result<usize>;

    /// Removes dead letters for good; they count as dropped. Answers how many there were.
    async fn drop_dead(&self, subscription: &Subscription, ids: &[EntryId], act: &Operator) -> Result<usize>;

    /// Replays one dead letter with another body. `false`: it is gone already.
    async fn edit_dead(&self, subscription: &Subscription, id: EntryId, body: Bytes, act: &Operator) -> Result<bool>;

    /// Pauses or resumes consumption of a subscription, on all hosts, until the next call.
    async fn set_paused(&self, subscription: &Subscription, paused: bool, act: &Operator) -> Result<()>;

    /// Which of these subscriptions are paused, in the order of the question.
    async fn paused(&self, subscriptions: &[Subscription]) -> Result<Vec<Pause>>;

    /// Sets the position of a group whose position is lost. `false`: it is not lost, and nothing was done.
    async fn begin_at(&self, subscription: &Subscription, place: Position, act: &Operator) -> Result<bool>;

    /// What people did to a subscription, after `after` in the order of time, at most `max`. The last `AUDIT_MAX` stay.
    async fn audit(&self, subscription: &Subscription, after: Option<EntryId>, max: usize) -> Result<Vec<AuditRecord>>;

    /// The state of keys after `after` in the order of their names, at most `max`.
    async fn states(
        &self,
        subscription: &Subscription,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, KeyState)>>;
}

/// The view from outside: counters, size, findings. Changes nothing.
#[async_trait]
pub trait Diagnose: Send + Sync {
    /// One line about the backend for people: kind, version, where.
    async fn describe(&self) -> Result<String>;

    /// How large it is: all memory that the Redis server uses, or the pages of the SQLite file.
    async fn size_bytes(&self) -> Result<u64>;

    async fn status(&self, subscription: &Subscription) -> Result<SubscriptionStatus>;

    /// How much each version of the plugin has committed, the newest first. Counted by the settlement itself; of
    /// versions beyond the newest `VERSIONS_MAX` only the sum is kept, under no digest.
    async fn committed_by(&self, subscription: &Subscription) -> Result<Vec<VersionCount>>;

    /// Diagnoses the backend: settings, known bugs, rights, clock, and leaks; and whether the streams of these
    /// subscriptions can be read, and `targets`, which are emitted to, accept more. Changes nothing that stays. Without
    /// subscriptions: only what does not concern streams.
    async fn diagnose(&self, subscriptions: &[Subscription], targets: &[Arc<str>]) -> Result<Vec<Finding>>;
}

/// All of them: what a host needs.
pub trait Backend: Consume + Streams + Membership + Admin + Diagnose {}
impl<T: Consume + Streams + Membership + Admin + Diagnose> Backend for T {}
