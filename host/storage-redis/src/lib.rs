//! Redis 7.0 or newer (or Valkey) as the backend: streams and consumer groups, and Lua scripts where several things
//! have to happen at once.
//!
//! | file | what |
//! |---|---|
//! | `keys` | the name of every key |
//! | `link`, `aof_guard`, `replies` | connections, the check before their first write, how much of a reply is held |
//! | `error`, `value`, `script` | what errors mean, answers taken apart, scripts |
//! | `server` | what a server must be before it is used |
//! | `record` | how deliveries are written down and read |
//! | `settle`, `fetch`, `publish`, `recover`, `takeover` | the ports `Consume` and `Streams` |
//! | `witness` | what this host observed of time, however the server's clock is set |
//! | `groups`, `promote`, `inspect`, `admin` | the ports `Membership`, `Admin` and `Diagnose` |
//! | `doctor`, `doctor_versions`, `doctor_acl`, `doctor_streams` | the checks of `doctor` |
//! | `in_cluster` | a test: every script on a server in cluster mode |
//!
//! Commands share one connection. Each reader has one of its own, because a read that waits holds up what is behind it.
//! A task that does one thing after the other reads and settles over the same one ([`Consume::for_one_task`]).

mod admin;
mod aof_guard;
mod doctor;
mod doctor_acl;
mod doctor_streams;
mod doctor_versions;
mod error;
mod fetch;
mod groups;
#[cfg(test)]
mod in_cluster;
mod inspect;
mod keys;
mod link;
mod promote;
mod publish;
mod reclaimed;
mod record;
mod recover;
mod replies;
mod script;
mod server;
mod settle;
mod takeover;
mod value;
mod witness;

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};
use uuid::Uuid;

use link::Link;
use replies::ReplyBounds;
use script::ScriptCall;
use tidemill_core::model::backend_url::BackendUrl;
use tidemill_core::model::dead_letter::DeadLetter;
use tidemill_core::model::delivery::{Delivery, EntryId, KeyState, Queue, Subscription};
use tidemill_storage::{
    Admin, AuditRecord, Bounds, Consume, Diagnose, Fetched, Finding, Group, HostInfo, LookUp, Membership, NewEntry,
    Operator, Options, Pause, Position, Promoted, Published, Recovered, Result, Settled, Settlement, Start, Streams,
    SubscriptionStatus, Tended, Trimmed, VersionCount, Wish,
};
use witness::Witness;

pub struct Redis {
    client: redis::Client,
    /// For people: host and port.
    at: String,
    options: Options,
    link: Arc<Link>,
    /// No command waits behind a read: readers share the link.
    one_task: bool,
    /// For heartbeats, which do not wait for the AOF guard.
    pulse: Link,
    readers: fetch::Readers,
    witness: Arc<Witness>,
    /// How far the groups have been read, by the last `tend` or the last fetch since: this tells a group that was lost
    /// with all that was noted of it from one that never was, and a stream that was made anew from the one of the note.
    handed_out: Mutex<HashMap<Subscription, EntryId>>,
}

impl Redis {
    /// Connects and checks that the server is fit. An absent server is an error at once: the caller tries again.
    pub async fn open(url: &BackendUrl, options: Options) -> Result<Self> {
        let client = server::client(url)?;
        let at = link::address(&client);
        let redis = Self::new(client, at, options, false, Arc::default());
        server::check(&redis.link, &redis.at).await?;
        Ok(redis)
    }

    fn new(client: redis::Client, at: String, options: Options, one_task: bool, witness: Arc<Witness>) -> Self {
        let bounds = reply_bounds(&options);
        let link = Arc::new(Link::gated(client.clone(), bounds));
        let pulse = Link::pulse(client.clone(), bounds);
        let (readers, handed_out) = (fetch::Readers::default(), Mutex::default());
        Self { client, at, options, link, one_task, pulse, readers, witness, handed_out }
    }

    /// Runs one command; `subject` is the subscription or the stream that it is about.
    async fn run(&self, cmd: &Cmd, subject: &(dyn Display + Sync)) -> Result<Value> {
        self.link.send(cmd).await.map_err(|error| error::meaning(&self.at, subject, &error))
    }

    /// Runs several commands in one round trip.
    async fn run_all(&self, commands: &Pipeline, subject: &(dyn Display + Sync)) -> Result<Vec<Value>> {
        self.link.send_all(commands).await.map_err(|error| error::meaning(&self.at, subject, &error))
    }

    /// Runs a call of a script, and makes the script known to the server first if it is not.
    async fn run_script(&self, call: &ScriptCall, subject: &(dyn Display + Sync)) -> Result<Value> {
        self.run_script_on(&self.link, call, subject).await
    }

    async fn run_script_on(&self, link: &Link, call: &ScriptCall, subject: &(dyn Display + Sync)) -> Result<Value> {
        let mut answer = link.send(&call.cmd).await;
        if answer.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
            answer = link.send(&call.script.load()).await;
            if answer.is_ok() {
                answer = link.send(&call.cmd).await;
            }
        }
        answer.map_err(|error| error::meaning(&self.at, subject, &error))
    }

    fn inbox_window_ms(&self) -> u64 {
        inbox_window_ms(&self.options)
    }
}

fn reply_bounds(options: &Options) -> ReplyBounds {
    ReplyBounds { entry_bytes: options.entry_bytes_max(), reply_bytes: options.fetch_bytes_max }
}

/// Never zero: buckets are numbered by it.
fn inbox_window_ms(options: &Options) -> u64 {
    u64::try_from(options.inbox_window.as_millis()).unwrap_or(u64::MAX).clamp(1, MS_MAX)
}

/// Lua counts in doubles, which are exact up to 2^53. No time or delay here needs more than a thousand years.
const MS_MAX: u64 = 1000 * 365 * 24 * 3600 * 1000;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(MS_MAX)
}

#[async_trait]
impl Consume for Redis {
    async fn fetch(&self, subscription: &Subscription, consumer: &str, max: usize, wait: Duration) -> Result<Fetched> {
        self.fetch_batch(subscription, consumer, max, wait).await
    }

    async fn look_up(&self, subscription: &Subscription, ids: &[Uuid], keys: &[Arc<str>]) -> Result<LookUp> {
        self.read_inbox_and_state(subscription, ids, keys).await
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Vec<Settled>> {
        self.settle_batch(settlement).await
    }

    async fn recover(
        &self,
        subscription: &Subscription,
        consumer: &str,
        held: &HashSet<(Queue, EntryId)>,
        lease: Duration,
        max: usize,
    ) -> Result<Recovered> {
        self.recover_some(subscription, consumer, held, lease, max).await
    }

    async fn take_suspect(&self, subscription: &Subscription, consumer: &str) -> Result<Option<Delivery>> {
        self.take_from_quarantine(subscription, consumer).await
    }

    async fn take_left(&self, subscription: &Subscription, consumer: &str, max: usize) -> Result<Vec<Delivery>> {
        self.take_what_was_left(subscription, consumer, max).await
    }

    fn for_one_task(&self) -> Option<Arc<dyn Consume>> {
        let witness = self.witness.clone();
        Some(Arc::new(Self::new(self.client.clone(), self.at.clone(), self.options.clone(), true, witness)))
    }
}

#[async_trait]
impl Streams for Redis {
    async fn publish(&self, stream: &str, entries: &[NewEntry]) -> Result<Vec<Published>> {
        self.publish_all(stream, entries).await
    }

    async fn entries(&self, stream: &str, after: Option<EntryId>, max: usize) -> Result<Vec<(EntryId, Bytes)>> {
        self.list_entries(stream, after, max).await
    }

    async fn trim(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed> {
        self.trim_stream(stream, bounds).await
    }
}

#[async_trait]
impl Membership for Redis {
    async fn ensure_group(&self, subscription: &Subscription, start: Start) -> Result<Group> {
        self.make_group(subscription, start, None).await
    }

    async fn tend(&self, subscription: &Subscription, consumer: &str, wish: &str) -> Result<Tended> {
        self.look_after(subscription, consumer, wish, groups::POSITION_EVERY).await
    }

    async fn wishes(&self, subscription: &Subscription) -> Result<Vec<Wish>> {
        self.list_wishes(subscription).await
    }

    async fn heartbeat(&self, consumer: &str, ttl: Duration, note: &str) -> Result<()> {
        self.say_alive(consumer, ttl, note).await
    }

    async fn hosts(&self, _subscriptions: &[Subscription]) -> Result<Vec<HostInfo>> {
        self.list_hosts().await
    }

    async fn deregister(&self, consumer: &str, subscriptions: &[Subscription]) -> Result<u64> {
        self.deregister_consumer(consumer, subscriptions).await
    }

    async fn ids_key(&self, fresh: [u8; 32]) -> Result<[u8; 32]> {
        self.find_or_keep_key(fresh).await
    }

    async fn promote(&self, subscription: &Subscription, max: usize) -> Result<Promoted> {
        self.promote_due(subscription, max).await
    }
}

#[async_trait]
impl Admin for Redis {
    async fn dead_letters(
        &self,
        subscription: &Subscription,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>> {
        self.list_dead(subscription, after, max).await
    }

    async fn replay(&self, subscription: &Subscription, ids: &[EntryId], act: &Operator) -> Result<usize> {
        self.replay_letters(subscription, ids, act).await
    }

    async fn drop_dead(&self, subscription: &Subscription, ids: &[EntryId], act: &Operator) -> Result<usize> {
        self.drop_letters(subscription, ids, act).await
    }

    async fn edit_dead(&self, subscription: &Subscription, id: EntryId, body: Bytes, act: &Operator) -> Result<bool> {
        self.edit_letter(subscription, id, body, act).await
    }

    async fn set_paused(&self, subscription: &Subscription, paused: bool, act: &Operator) -> Result<()> {
        self.pause_or_resume(subscription, paused, act).await
    }

    async fn paused(&self, subscriptions: &[Subscription]) -> Result<Vec<Pause>> {
        self.which_are_paused(subscriptions).await
    }

    async fn begin_at(&self, subscription: &Subscription, place: Position, act: &Operator) -> Result<bool> {
        Ok(self.make_group(subscription, Start::Beginning, Some((place, act))).await? != Group::There)
    }

    async fn audit(&self, subscription: &Subscription, after: Option<EntryId>, max: usize) -> Result<Vec<AuditRecord>> {
        self.list_audit(subscription, after, max).await
    }

    async fn states(
        &self,
        subscription: &Subscription,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, KeyState)>> {
        self.list_states(subscription, after, max).await
    }
}

#[async_trait]
impl Diagnose for Redis {
    async fn describe(&self) -> Result<String> {
        server::describe(&self.link, &self.at).await
    }

    async fn size_bytes(&self) -> Result<u64> {
        server::size_bytes(&self.link, &self.at).await
    }

    async fn status(&self, subscription: &Subscription) -> Result<SubscriptionStatus> {
        self.read_counters(subscription).await
    }

    async fn committed_by(&self, subscription: &Subscription) -> Result<Vec<VersionCount>> {
        self.read_versions(subscription).await
    }

    async fn diagnose(&self, subscriptions: &[Subscription], targets: &[Arc<str>]) -> Result<Vec<Finding>> {
        self.diagnose_server(subscriptions, targets).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches `MS_MAX`.
    #[test]
    fn times_are_exact_in_the_numbers_of_scripts() {
        let longest = Duration::from_millis(MS_MAX);
        assert_eq!(millis(longest), MS_MAX);
        assert_eq!([millis(longest + Duration::from_millis(1)), millis(Duration::MAX)], [MS_MAX; 2]);
        // Added to any time of today: 2^53 is far.
        assert_eq!((2 * MS_MAX + 1) as f64 as u64, 2 * MS_MAX + 1);
    }
}
