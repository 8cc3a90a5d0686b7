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

mod backup;
mod bell;
mod beside;
mod consumers;
mod dead;
mod desk;
mod error;
mod examine;
mod fetch;
mod hands;
mod inbox;
mod job;
mod lookup;
mod open;
mod open_to_read;
mod pack;
mod parcel;
mod plan;
mod receipts;
mod recover;
mod retries;
mod room;
mod settle;
mod sources;
mod state;
mod status;
mod steady;
mod streams;
mod tend;
#[cfg(test)]
mod tests;
mod tx;
mod versions;
mod worker;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

pub use self::backup::backup;
pub(super) use self::examine::check_file;
use self::job::Access;
use self::tx::Tx;
use self::worker::Db;
pub use self::worker::wait_until_closed;
use super::{
    Act, AuditRecord, Bounds, ControlPlane, DataPlane, Features, Fetched, Finding, Group, HostNote, LookUp, NewEntry,
    Options, Pause, Place, Promoted, Published, Recovered, Result, Settled, Settlement, SourceStatus, Start, Tended,
    Trimmed, VersionBook, Wish,
};
use crate::model::dead_letter::DeadLetter;
use crate::model::delivery::{Delivery, EntryId, KeyState, Lane, Source};

pub struct Sqlite {
    db: Db,
    options: Options,
    in_memory: bool,
}

impl Sqlite {
    /// Opens or makes the file; `:memory:` is a database that nobody else sees and that ends with this value.
    pub async fn open(file: &str, options: Options) -> Result<Self> {
        let place = open::Place::parse(file)?;
        let in_memory = place.is_memory();
        Ok(Self { db: Db::start(place).await?, options, in_memory })
    }

    /// Opens a file to read it. What has to be made or brought up to date first is opened to be written.
    pub async fn open_to_read(file: &str, options: Options) -> Result<Self> {
        let place = open::Place::parse(file)?.only_read();
        let in_memory = place.is_memory();
        Ok(Self { db: Db::start(place).await?, options, in_memory })
    }

    /// Appends an entry without the field `event`, as a stranger might. Who publishes events has no use for it.
    pub async fn publish_fields(&self, stream: &str, fields: &[(Bytes, Bytes)]) -> Result<EntryId> {
        let (stream, fields) = (Arc::from(stream), fields.to_vec());
        self.db.ask(Access::Keep, "publish", move |tx| streams::publish_fields(tx, stream, &fields)).await
    }
}

#[async_trait]
impl DataPlane for Sqlite {
    async fn fetch(&self, source: &Source, consumer: &str, max: usize, wait: Duration) -> Result<Fetched> {
        let others_write = !self.in_memory;
        let deliveries = fetch::fetch(&self.db, source, consumer, max, wait, others_write, &self.options).await?;
        // What there is no room for is not handed over.
        Ok(Fetched { deliveries, more: false })
    }

    async fn look_up(&self, source: &Source, ids: &[Uuid], keys: &[Arc<str>]) -> Result<LookUp> {
        let (source, ids, keys) = (source.clone(), ids.to_vec(), keys.to_vec());
        self.db.ask(Access::Look, "look up", move |tx| lookup::look_up(tx, &source, &ids, &keys)).await
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Vec<Settled>> {
        if settlement.entries.is_empty() {
            return Ok(Vec::new());
        }
        let (plan, options) = (plan::Plan::of(settlement), self.options.clone());
        self.db.ask(Access::Keep, "settle", move |tx| settle::settle(tx, plan, &options)).await
    }

    async fn publish(&self, stream: &str, entries: &[NewEntry]) -> Result<Vec<Published>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let (stream, entries, window) = (Arc::from(stream), entries.to_vec(), self.options.inbox_window);
        self.db.ask(Access::Keep, "publish", move |tx| streams::publish(tx, stream, &entries, window)).await
    }

    async fn recover(
        &self,
        source: &Source,
        consumer: &str,
        held: &HashSet<(Lane, EntryId)>,
        lease: Duration,
        max: usize,
    ) -> Result<Recovered> {
        let (source, consumer, held, options) =
            (source.clone(), consumer.to_owned(), held.clone(), self.options.clone());
        let work = move |tx: &mut Tx<'_>| recover::recover(tx, &source, &consumer, &held, lease, max, &options);
        self.db.ask(Access::Note, "recover", work).await
    }

    async fn take_suspect(&self, source: &Source, consumer: &str) -> Result<Option<Delivery>> {
        let (source, consumer, options) = (source.clone(), consumer.to_owned(), self.options.clone());
        let work = move |tx: &mut Tx<'_>| recover::take_suspect(tx, &source, &consumer, &options);
        self.db.ask(Access::Note, "take a suspect", work).await
    }

    async fn take_left(&self, source: &Source, consumer: &str, max: usize) -> Result<Vec<Delivery>> {
        let (source, consumer, options) = (source.clone(), consumer.to_owned(), self.options.clone());
        let work = move |tx: &mut Tx<'_>| recover::take_left(tx, &source, &consumer, max, &options);
        self.db.ask(Access::Note, "take what was left", work).await
    }
}

#[async_trait]
impl ControlPlane for Sqlite {
    fn features(&self) -> Features {
        Features { durable: !self.in_memory, shared: false }
    }

    async fn describe(&self) -> Result<String> {
        let place = self.db.place().to_owned();
        self.db.ask(Access::Look, "describe", move |tx| open::describe(tx, &place)).await
    }

    async fn size_bytes(&self) -> Result<u64> {
        self.db.ask(Access::Look, "ask for the size", open::size_bytes).await
    }

    async fn ensure_group(&self, source: &Source, start: Start) -> Result<Group> {
        let source = source.clone();
        self.db.ask(Access::Keep, "make a group", move |tx| sources::ensure(tx, &source, start)).await
    }

    /// A group is never lost here.
    async fn begin_at(&self, _source: &Source, _place: Place, _act: &Act) -> Result<bool> {
        Ok(false)
    }

    async fn tend(&self, source: &Source, consumer: &str, wish: &str) -> Result<Tended> {
        let (source, consumer, wish) = (source.clone(), consumer.to_owned(), wish.to_owned());
        self.db.ask(Access::Note, "tend", move |tx| tend::tend(tx, &source, &consumer, &wish)).await
    }

    async fn wishes(&self, source: &Source) -> Result<Vec<Wish>> {
        let source = source.clone();
        self.db.ask(Access::Look, "list wishes", move |tx| tend::wishes(tx, &source)).await
    }

    async fn beat(&self, consumer: &str, ttl: Duration, note: &str) -> Result<()> {
        let (consumer, note) = (consumer.to_owned(), note.to_owned());
        self.db.ask(Access::Note, "beat", move |tx| consumers::beat(tx, &consumer, ttl, &note)).await
    }

    async fn hosts(&self, sources: &[Source]) -> Result<Vec<HostNote>> {
        let sources = sources.to_vec();
        self.db.ask(Access::Look, "list hosts", move |tx| consumers::hosts(tx, &sources)).await
    }

    async fn leave(&self, consumer: &str, _sources: &[Source]) -> Result<u64> {
        let consumer = consumer.to_owned();
        self.db.ask(Access::Note, "leave", move |tx| consumers::leave(tx, &consumer)).await
    }

    async fn ids_key(&self, fresh: [u8; 32]) -> Result<[u8; 32]> {
        self.db.ask(Access::Keep, "keep a secret", move |tx| sources::ids_key(tx, fresh)).await
    }

    async fn promote(&self, source: &Source, max: usize) -> Result<Promoted> {
        let source = source.clone();
        self.db.ask(Access::Note, "promote", move |tx| retries::promote(tx, &source, max)).await
    }

    async fn status(&self, source: &Source) -> Result<SourceStatus> {
        let source = source.clone();
        self.db.ask(Access::Look, "status", move |tx| status::status(tx, &source)).await
    }

    async fn committed_by(&self, source: &Source) -> Result<Vec<VersionBook>> {
        let source = source.clone();
        self.db.ask(Access::Look, "books of plugin versions", move |tx| versions::list(tx, &source)).await
    }

    async fn dead_letters(&self, source: &Source, after: Option<EntryId>, max: usize) -> Result<Vec<DeadLetter>> {
        let source = source.clone();
        self.db.ask(Access::Look, "list dead letters", move |tx| dead::list(tx, &source, after, max)).await
    }

    async fn replay(&self, source: &Source, ids: &[EntryId], act: &Act) -> Result<usize> {
        let (source, ids, act) = (source.clone(), ids.to_vec(), act.clone());
        self.db.ask(Access::Keep, "replay", move |tx| desk::replay(tx, &source, &ids, &act)).await
    }

    async fn drop_dead(&self, source: &Source, ids: &[EntryId], act: &Act) -> Result<usize> {
        let (source, ids, act) = (source.clone(), ids.to_vec(), act.clone());
        self.db.ask(Access::Keep, "drop dead letters", move |tx| desk::drop_dead(tx, &source, &ids, &act)).await
    }

    async fn edit_dead(&self, source: &Source, id: EntryId, body: Bytes, act: &Act) -> Result<bool> {
        let (source, act) = (source.clone(), act.clone());
        self.db.ask(Access::Keep, "edit a dead letter", move |tx| desk::edit(tx, &source, id, &body, &act)).await
    }

    async fn set_paused(&self, source: &Source, paused: bool, act: &Act) -> Result<()> {
        let (source, act) = (source.clone(), act.clone());
        self.db.ask(Access::Keep, "pause or resume", move |tx| desk::set_paused(tx, &source, paused, &act)).await
    }

    async fn paused(&self, sources: &[Source]) -> Result<Vec<Pause>> {
        let sources = sources.to_vec();
        self.db.ask(Access::Look, "ask what is paused", move |tx| desk::paused(tx, &sources)).await
    }

    async fn audit(&self, source: &Source, after: Option<EntryId>, max: usize) -> Result<Vec<AuditRecord>> {
        let source = source.clone();
        self.db.ask(Access::Look, "list audit records", move |tx| desk::audit(tx, &source, after, max)).await
    }

    async fn states(&self, source: &Source, after: Option<&str>, max: usize) -> Result<Vec<(String, KeyState)>> {
        let (source, after) = (source.clone(), after.map(str::to_owned));
        self.db.ask(Access::Look, "list states", move |tx| state::list(tx, &source, after.as_deref(), max)).await
    }

    async fn trim(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed> {
        streams::trim(&self.db, stream, bounds).await
    }

    async fn examine(&self, sources: &[Source], _targets: &[Arc<str>]) -> Result<Vec<Finding>> {
        let (sources, options) = (sources.to_vec(), self.options.clone());
        let file = (!self.in_memory).then(|| self.db.place().to_owned());
        self.db.ask(Access::Look, "examine", move |tx| examine::examine(tx, &sources, file, &options)).await
    }

    async fn entries(&self, stream: &str, after: Option<EntryId>, max: usize) -> Result<Vec<(EntryId, Bytes)>> {
        let stream = stream.to_owned();
        self.db.ask(Access::Look, "list entries", move |tx| streams::entries(tx, &stream, after, max)).await
    }
}
