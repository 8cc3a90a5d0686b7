//! The fixture of a story: a fresh stream, one handler, one consumer, and helpers for what they do.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use tidemill_core::model::dead_letter::DeadLetter;
use tidemill_core::model::delivery::{Delivery, EntryId, KeyState, Queue, Subscription};
use tidemill_core::model::entry::PayloadHash;
use tidemill_storage::{
    self as storage, Backend, HEARTBEAT_MAX, NewEntry, Promoted, Published, Settled, Settlement, SettlementEntry,
    Start, SubscriptionStatus, VersionCount,
};

/// Far beyond any real answer: a call that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

pub(crate) struct Fixture {
    pub backend: Arc<dyn Backend>,
    pub subscription: Subscription,
    pub consumer: Arc<str>,
}

impl Fixture {
    /// A stream of its own with one group, read from the beginning, and a live consumer.
    pub(crate) async fn new(backend: &Arc<dyn Backend>) -> Self {
        Self::on(backend, &fresh("stream"), Start::Beginning).await
    }

    pub(crate) async fn on(backend: &Arc<dyn Backend>, stream: &str, start: Start) -> Self {
        let subscription = Subscription { stream: stream.into(), handler: fresh("handler").into() };
        backend.ensure_group(&subscription, start).await.expect("ensure_group");
        let fixture = Self { backend: backend.clone(), subscription, consumer: "".into() };
        fixture.consumer().await
    }

    /// Another handler on the same stream.
    pub(crate) async fn neighbour(&self) -> Self {
        Self::on(&self.backend, &self.subscription.stream, Start::Beginning).await
    }

    /// Another consumer of the same handler.
    pub(crate) async fn consumer(&self) -> Self {
        let consumer: Arc<str> = fresh("consumer").into();
        self.backend.heartbeat(&consumer, HEARTBEAT_MAX, "").await.expect("heartbeat");
        Self { backend: self.backend.clone(), subscription: self.subscription.clone(), consumer }
    }

    /// The consumer's heartbeat expires, as if its process had died.
    pub(crate) async fn dies(&self) {
        self.backend.heartbeat(&self.consumer, Duration::from_millis(1), "").await.expect("heartbeat");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    pub(crate) async fn publish(&self, bodies: &[&str]) -> Vec<EntryId> {
        let entries: Vec<NewEntry> =
            bodies.iter().map(|b| NewEntry { body: Bytes::copy_from_slice(b.as_bytes()), dedup_key: None }).collect();
        let answers = self.backend.publish(&self.subscription.stream, &entries).await.expect("publish");
        assert_eq!(answers.len(), bodies.len(), "publish answers for every entry");
        answers.iter().map(added).collect()
    }

    pub(crate) async fn publish_count(&self, count: usize) -> Vec<EntryId> {
        let bodies: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        self.publish(&bodies.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Exactly `count` deliveries, however many calls it takes.
    pub(crate) async fn fetch(&self, count: usize) -> Vec<Delivery> {
        let mut got = Vec::new();
        let all = async {
            while got.len() < count {
                let max = count - got.len();
                let wait = Duration::from_secs(1);
                let some = self.backend.fetch(&self.subscription, &self.consumer, max, wait).await.expect("fetch");
                let count = some.deliveries.len();
                assert!(count <= max, "fetch delivered {count} where at most {max} were asked for");
                got.extend(some.deliveries);
                if some.more {
                    let held = got.iter().map(|delivery: &Delivery| (delivery.queue, delivery.entry)).collect();
                    let lease = Duration::from_secs(3600);
                    let left = self.backend.recover(&self.subscription, &self.consumer, &held, lease, max - count);
                    got.extend(left.await.expect("recover").deliveries);
                }
            }
        };
        if tokio::time::timeout(HANGS, all).await.is_err() {
            panic!("{count} deliveries were to come on {}, but only {} came", self.subscription, got.len());
        }
        got
    }

    pub(crate) async fn fetch_one(&self) -> Delivery {
        self.fetch(1).await.remove(0)
    }

    pub(crate) async fn fetches_nothing(&self) {
        let wait = Duration::from_millis(20);
        let got = self.backend.fetch(&self.subscription, &self.consumer, 10, wait).await.expect("fetch");
        let got = got.deliveries;
        assert!(got.is_empty(), "nothing was to come on {}, but this came: {got:?}", self.subscription);
    }

    pub(crate) async fn try_settle(&self, token: Uuid, entries: Vec<SettlementEntry>) -> storage::Result<Vec<Settled>> {
        self.try_settle_by("v1", token, entries).await
    }

    /// As the work of this version of the plugin.
    pub(crate) async fn try_settle_by(
        &self,
        plugin: &str,
        token: Uuid,
        entries: Vec<SettlementEntry>,
    ) -> storage::Result<Vec<Settled>> {
        let settlement = Settlement {
            subscription: self.subscription.clone(),
            consumer: self.consumer.clone(),
            plugin: plugin.into(),
            token,
            entries,
        };
        self.backend.settle(&settlement).await
    }

    /// The reply gets lost, and the very same settlement is sent again.
    pub(crate) async fn settle_twice_by(&self, plugin: &str, entries: Vec<SettlementEntry>) {
        let (subscription, consumer) = (self.subscription.clone(), self.consumer.clone());
        let settlement = Settlement { subscription, consumer, plugin: plugin.into(), token: Uuid::new_v4(), entries };
        for _ in 0..2 {
            self.backend.settle(&settlement).await.expect("settle");
        }
    }

    /// What each version of the plugin has committed.
    pub(crate) async fn versions(&self) -> Vec<VersionCount> {
        self.backend.committed_by(&self.subscription).await.expect("committed_by")
    }

    pub(crate) async fn settle(&self, entries: Vec<SettlementEntry>) -> Vec<Settled> {
        let count = entries.len();
        let answers = self.try_settle(Uuid::new_v4(), entries).await.expect("settle");
        assert_eq!(answers.len(), count, "settle answers for every entry");
        answers
    }

    pub(crate) async fn settle_one(&self, entry: SettlementEntry) -> Settled {
        self.settle(vec![entry]).await[0]
    }

    /// The counters, which have to balance at any time.
    pub(crate) async fn counters(&self) -> SubscriptionStatus {
        let counters = self.backend.status(&self.subscription).await.expect("status");
        assert!(counters.balances(), "the counters of {} do not balance: {counters:?}", self.subscription);
        counters
    }

    pub(crate) async fn state(&self, key: &str) -> KeyState {
        let found = self.backend.look_up(&self.subscription, &[], &[key.into()]).await.expect("look_up");
        assert_eq!((found.seen.len(), found.states.len()), (0, 1), "look_up answers what was asked");
        found.states.into_iter().next().expect("counted above")
    }

    pub(crate) async fn seen(&self, id: Uuid) -> Option<PayloadHash> {
        let found = self.backend.look_up(&self.subscription, &[id], &[]).await.expect("look_up");
        assert_eq!((found.seen.len(), found.states.len()), (1, 0), "look_up answers what was asked");
        found.seen[0]
    }

    /// Promotes until `count` were moved: what is due by the backend's clock may take a moment.
    pub(crate) async fn promote(&self, count: usize) {
        let mut moved = 0;
        let all = async {
            while moved < count {
                let Promoted { moved: now, next_in } = self.promote_once(count - moved).await;
                moved += now;
                if now == 0 {
                    assert!(next_in.is_some(), "something waits for its time, and promote does not know when");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        hangs_not("promote", all).await;
    }

    pub(crate) async fn promote_once(&self, max: usize) -> Promoted {
        self.backend.promote(&self.subscription, max).await.expect("promote")
    }

    pub(crate) async fn recover_once(
        &self,
        held: &HashSet<(Queue, EntryId)>,
        lease: Duration,
        max: usize,
    ) -> Vec<Delivery> {
        let found = self
            .backend
            .recover(&self.subscription, &self.consumer, held, lease, max)
            .await
            .expect("recover")
            .deliveries;
        assert!(found.len() <= max, "recover delivered {} where at most {max} were asked for", found.len());
        found
    }

    /// Exactly `count` lost or orphaned deliveries. What comes is held from then on.
    pub(crate) async fn recover(&self, count: usize) -> Vec<Delivery> {
        let (mut found, mut held) = (Vec::new(), HashSet::new());
        let all = async {
            while found.len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
                for delivery in self.recover_once(&held, Duration::from_millis(1), count - found.len()).await {
                    assert!(held.insert((delivery.queue, delivery.entry)), "recovered twice: {delivery:?}");
                    found.push(delivery);
                }
            }
        };
        hangs_not("recover", all).await;
        found
    }

    pub(crate) async fn dead(&self) -> Vec<DeadLetter> {
        self.backend.dead_letters(&self.subscription, None, 1000).await.expect("dead_letters")
    }
}

/// The events on a stream, oldest first.
pub(crate) async fn bodies(backend: &Arc<dyn Backend>, stream: &str) -> Vec<Bytes> {
    let entries = backend.entries(stream, None, 10_000).await.expect("entries");
    entries.into_iter().map(|(_, body)| body).collect()
}

pub(crate) async fn hangs_not<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HANGS, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not come to an end"),
    }
}

/// A name that no other story and no earlier run uses.
pub(crate) fn fresh(what: &str) -> String {
    format!("{what}-{}", Uuid::new_v4().simple())
}

pub(crate) fn added(answer: &Published) -> EntryId {
    match answer {
        Published::Added(id) => *id,
        other => panic!("the entry was to be added, but: {other:?}"),
    }
}
