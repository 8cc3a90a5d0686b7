//! The backend for one machine: a SQLite file that several processes may share, or `:memory:` for tests.
//!
//! ```text
//! callers ──jobs──► the one thread that owns the connection ──one transaction for all that wait──► the file
//!    ▲                                                                                               │
//!    └──────────────────────────── answers, once the transaction has been committed ◄────────────────┘
//! ```
//! An fsync costs more than a batch of SQL, so whatever waits for the thread is committed together (`worker`). Each job
//! is one function of a file here that is named like what it does. Nothing is cached between jobs: another process may
//! have written meanwhile, and `BEGIN IMMEDIATE` makes sure that what a job reads is still so when it writes.

mod admin;
mod backup;
mod beside;
mod clock_row;
mod consumers;
mod dead;
mod delayed;
mod doctor;
mod error;
mod fence;
mod fetch;
mod inbox;
mod job;
mod location;
mod lookup;
mod millis;
mod open;
mod open_to_read;
mod pack;
mod plan;
mod receipts;
mod recover;
mod room;
mod row;
mod settle;
mod state;
mod status;
mod steady;
mod streams;
mod subscriptions;
mod tend;
#[cfg(test)]
mod tests;
mod tx;
mod versions;
mod wakeups;
mod worker;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

pub use crate::backup::backup;
pub use crate::doctor::check_file;
use crate::job::Durability;
use crate::tx::Tx;
use crate::worker::Db;
pub use crate::worker::wait_until_closed;
use tidemill_core::model::dead_letter::DeadLetter;
use tidemill_core::model::delivery::{Delivery, EntryId, KeyState, Queue, Subscription};
use tidemill_storage::{
    Admin, AuditRecord, Bounds, Consume, Diagnose, Fetched, Finding, Group, HostInfo, LookUp, Membership, NewEntry,
    Operator, Options, Pause, Position, Promoted, Published, Recovered, Result, Settled, Settlement, Start, Streams,
    SubscriptionStatus, Tended, Trimmed, VersionCount, Wish,
};

pub struct Sqlite {
    db: Db,
    options: Options,
    in_memory: bool,
}

impl Sqlite {
    /// Opens or creates the file; `:memory:` is a private database that ends with this value.
    pub async fn open(file: &str, options: Options) -> Result<Self> {
        let place = location::FileLocation::parse(file)?;
        let in_memory = place.is_memory();
        Ok(Self { db: Db::start(place).await?, options, in_memory })
    }

    /// Opens a file to read it. One that has to be created first is opened for writing.
    pub async fn open_to_read(file: &str, options: Options) -> Result<Self> {
        let place = location::FileLocation::parse(file)?.only_read();
        let in_memory = place.is_memory();
        Ok(Self { db: Db::start(place).await?, options, in_memory })
    }

    /// Appends an entry without the field `event`, as another program might. Publishers of events do not need it.
    #[cfg(test)]
    pub(crate) async fn publish_fields(&self, stream: &str, fields: &[(Bytes, Bytes)]) -> Result<EntryId> {
        let (stream, fields) = (Arc::from(stream), fields.to_vec());
        self.db.ask(Durability::Synced, "publish", move |tx| streams::publish_fields(tx, stream, &fields)).await
    }
}

#[async_trait]
impl Consume for Sqlite {
    async fn fetch(&self, subscription: &Subscription, consumer: &str, max: usize, wait: Duration) -> Result<Fetched> {
        let others_write = !self.in_memory;
        let deliveries = fetch::fetch(&self.db, subscription, consumer, max, wait, others_write, &self.options).await?;
        // What does not fit is not delivered.
        Ok(Fetched { deliveries, more: false })
    }

    async fn look_up(&self, subscription: &Subscription, ids: &[Uuid], keys: &[Arc<str>]) -> Result<LookUp> {
        let (subscription, ids, keys) = (subscription.clone(), ids.to_vec(), keys.to_vec());
        self.db.ask(Durability::ReadOnly, "look up", move |tx| lookup::look_up(tx, &subscription, &ids, &keys)).await
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Vec<Settled>> {
        if settlement.entries.is_empty() {
            return Ok(Vec::new());
        }
        let (plan, options) = (plan::SettleBatch::of(settlement), self.options.clone());
        self.db.ask(Durability::Synced, "settle", move |tx| settle::settle(tx, plan, &options)).await
    }

    async fn recover(
        &self,
        subscription: &Subscription,
        consumer: &str,
        held: &HashSet<(Queue, EntryId)>,
        lease: Duration,
        max: usize,
    ) -> Result<Recovered> {
        let (subscription, consumer, held, options) =
            (subscription.clone(), consumer.to_owned(), held.clone(), self.options.clone());
        let work = move |tx: &mut Tx<'_>| recover::recover(tx, &subscription, &consumer, &held, lease, max, &options);
        self.db.ask(Durability::Relaxed, "recover", work).await
    }

    async fn take_suspect(&self, subscription: &Subscription, consumer: &str) -> Result<Option<Delivery>> {
        let (subscription, consumer, options) = (subscription.clone(), consumer.to_owned(), self.options.clone());
        let work = move |tx: &mut Tx<'_>| recover::take_suspect(tx, &subscription, &consumer, &options);
        self.db.ask(Durability::Relaxed, "take a suspect", work).await
    }

    async fn take_left(&self, subscription: &Subscription, consumer: &str, max: usize) -> Result<Vec<Delivery>> {
        let (subscription, consumer, options) = (subscription.clone(), consumer.to_owned(), self.options.clone());
        let work = move |tx: &mut Tx<'_>| recover::take_left(tx, &subscription, &consumer, max, &options);
        self.db.ask(Durability::Relaxed, "take what was left", work).await
    }
}

#[async_trait]
impl Streams for Sqlite {
    async fn publish(&self, stream: &str, entries: &[NewEntry]) -> Result<Vec<Published>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let (stream, entries, window) = (Arc::from(stream), entries.to_vec(), self.options.inbox_window);
        self.db.ask(Durability::Synced, "publish", move |tx| streams::publish(tx, stream, &entries, window)).await
    }

    async fn entries(&self, stream: &str, after: Option<EntryId>, max: usize) -> Result<Vec<(EntryId, Bytes)>> {
        let stream = stream.to_owned();
        self.db.ask(Durability::ReadOnly, "list entries", move |tx| streams::entries(tx, &stream, after, max)).await
    }

    async fn trim(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed> {
        Ok(streams::trim(&self.db, stream, bounds).await?)
    }
}

#[async_trait]
impl Membership for Sqlite {
    async fn ensure_group(&self, subscription: &Subscription, start: Start) -> Result<Group> {
        let subscription = subscription.clone();
        self.db.ask(Durability::Synced, "ensure group", move |tx| subscriptions::ensure(tx, &subscription, start)).await
    }

    async fn tend(&self, subscription: &Subscription, consumer: &str, wish: &str) -> Result<Tended> {
        let (subscription, consumer, wish) = (subscription.clone(), consumer.to_owned(), wish.to_owned());
        self.db.ask(Durability::Relaxed, "tend", move |tx| tend::tend(tx, &subscription, &consumer, &wish)).await
    }

    async fn wishes(&self, subscription: &Subscription) -> Result<Vec<Wish>> {
        let subscription = subscription.clone();
        self.db.ask(Durability::ReadOnly, "list wishes", move |tx| tend::wishes(tx, &subscription)).await
    }

    async fn heartbeat(&self, consumer: &str, ttl: Duration, note: &str) -> Result<()> {
        let (consumer, note) = (consumer.to_owned(), note.to_owned());
        self.db.ask(Durability::Relaxed, "heartbeat", move |tx| consumers::heartbeat(tx, &consumer, ttl, &note)).await
    }

    async fn hosts(&self, subscriptions: &[Subscription]) -> Result<Vec<HostInfo>> {
        let subscriptions = subscriptions.to_vec();
        self.db.ask(Durability::ReadOnly, "list hosts", move |tx| consumers::hosts(tx, &subscriptions)).await
    }

    async fn deregister(&self, consumer: &str, _subscriptions: &[Subscription]) -> Result<u64> {
        let consumer = consumer.to_owned();
        self.db.ask(Durability::Relaxed, "deregister", move |tx| consumers::deregister(tx, &consumer)).await
    }

    async fn ids_key(&self, fresh: [u8; 32]) -> Result<[u8; 32]> {
        self.db.ask(Durability::Synced, "read the id key", move |tx| subscriptions::ids_key(tx, fresh)).await
    }

    async fn promote(&self, subscription: &Subscription, max: usize) -> Result<Promoted> {
        let subscription = subscription.clone();
        self.db.ask(Durability::Relaxed, "promote", move |tx| delayed::promote(tx, &subscription, max)).await
    }
}

#[async_trait]
impl Admin for Sqlite {
    async fn dead_letters(
        &self,
        subscription: &Subscription,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>> {
        let subscription = subscription.clone();
        self.db
            .ask(Durability::ReadOnly, "list dead letters", move |tx| dead::list(tx, &subscription, after, max))
            .await
    }

    async fn replay(&self, subscription: &Subscription, ids: &[EntryId], act: &Operator) -> Result<usize> {
        let (subscription, ids, act) = (subscription.clone(), ids.to_vec(), act.clone());
        self.db.ask(Durability::Synced, "replay", move |tx| admin::replay(tx, &subscription, &ids, &act)).await
    }

    async fn drop_dead(&self, subscription: &Subscription, ids: &[EntryId], act: &Operator) -> Result<usize> {
        let (subscription, ids, act) = (subscription.clone(), ids.to_vec(), act.clone());
        self.db
            .ask(Durability::Synced, "drop dead letters", move |tx| admin::drop_dead(tx, &subscription, &ids, &act))
            .await
    }

    async fn edit_dead(&self, subscription: &Subscription, id: EntryId, body: Bytes, act: &Operator) -> Result<bool> {
        let (subscription, act) = (subscription.clone(), act.clone());
        self.db
            .ask(Durability::Synced, "edit a dead letter", move |tx| admin::edit(tx, &subscription, id, &body, &act))
            .await
    }

    async fn set_paused(&self, subscription: &Subscription, paused: bool, act: &Operator) -> Result<()> {
        let (subscription, act) = (subscription.clone(), act.clone());
        self.db
            .ask(Durability::Synced, "pause or resume", move |tx| admin::set_paused(tx, &subscription, paused, &act))
            .await
    }

    async fn paused(&self, subscriptions: &[Subscription]) -> Result<Vec<Pause>> {
        let subscriptions = subscriptions.to_vec();
        self.db.ask(Durability::ReadOnly, "list paused", move |tx| admin::paused(tx, &subscriptions)).await
    }

    /// A group is never lost here.
    async fn begin_at(&self, _subscription: &Subscription, _place: Position, _act: &Operator) -> Result<bool> {
        Ok(false)
    }

    async fn audit(&self, subscription: &Subscription, after: Option<EntryId>, max: usize) -> Result<Vec<AuditRecord>> {
        let subscription = subscription.clone();
        self.db
            .ask(Durability::ReadOnly, "list audit records", move |tx| admin::audit(tx, &subscription, after, max))
            .await
    }

    async fn states(
        &self,
        subscription: &Subscription,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, KeyState)>> {
        let (subscription, after) = (subscription.clone(), after.map(str::to_owned));
        self.db
            .ask(Durability::ReadOnly, "list states", move |tx| state::list(tx, &subscription, after.as_deref(), max))
            .await
    }
}

#[async_trait]
impl Diagnose for Sqlite {
    async fn describe(&self) -> Result<String> {
        let place = self.db.place().to_owned();
        self.db.ask(Durability::ReadOnly, "describe", move |tx| open::describe(tx, &place)).await
    }

    async fn size_bytes(&self) -> Result<u64> {
        self.db.ask(Durability::ReadOnly, "read the size", open::size_bytes).await
    }

    async fn status(&self, subscription: &Subscription) -> Result<SubscriptionStatus> {
        let subscription = subscription.clone();
        self.db.ask(Durability::ReadOnly, "status", move |tx| status::status(tx, &subscription)).await
    }

    async fn committed_by(&self, subscription: &Subscription) -> Result<Vec<VersionCount>> {
        let subscription = subscription.clone();
        self.db
            .ask(Durability::ReadOnly, "counters of plugin versions", move |tx| versions::list(tx, &subscription))
            .await
    }

    async fn diagnose(&self, subscriptions: &[Subscription], _targets: &[Arc<str>]) -> Result<Vec<Finding>> {
        let (subscriptions, options) = (subscriptions.to_vec(), self.options.clone());
        let file = (!self.in_memory).then(|| self.db.place().to_owned());
        self.db
            .ask(Durability::ReadOnly, "diagnose", move |tx| doctor::diagnose(tx, &subscriptions, file, &options))
            .await
    }
}
