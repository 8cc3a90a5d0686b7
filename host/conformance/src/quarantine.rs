//! Deliveries without an owner: released by a deregistered host, and suspects to be run in isolation.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Fixture, hangs_not};
use super::forms::*;
use tidemill_core::model::delivery::{Delivery, Disposition, EntryId, Queue};
use tidemill_storage::{Backend, CRASHES_MAX, Recovered, Settled};

async fn recover(fixture: &Fixture, max: usize) -> Recovered {
    fixture
        .backend
        .recover(&fixture.subscription, &fixture.consumer, &HashSet::new(), Duration::ZERO, max)
        .await
        .expect("recover")
}

/// The first result: one consumer at a time may reclaim.
async fn recover_some(fixture: &Fixture, held: &HashSet<(Queue, EntryId)>, max: usize) -> Recovered {
    let some = async {
        loop {
            let found =
                fixture.backend.recover(&fixture.subscription, &fixture.consumer, held, Duration::ZERO, max).await;
            let found = found.expect("recover");
            if !found.deliveries.is_empty() || !found.quarantined.is_empty() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    hangs_not("recover", some).await
}

/// How many suspects `recover` reports, when there is nothing to recover.
async fn suspects(fixture: &Fixture) -> u64 {
    let found = recover(fixture, 10).await;
    assert!(found.deliveries.is_empty(), "nothing was to be recovered: {found:?}");
    found.suspects
}

async fn take_suspect(fixture: &Fixture) -> Option<Delivery> {
    fixture.backend.take_suspect(&fixture.subscription, &fixture.consumer).await.expect("take_suspect")
}

async fn set_aside(fixture: &Fixture, delivery: Delivery) {
    assert_eq!(fixture.settle_one(entry(delivery, Disposition::Quarantine)).await, Settled::Quarantined);
}

pub(crate) async fn what_is_released_goes_to_whoever_comes_next_with_no_crash(backend: Arc<dyn Backend>) {
    let leaving = Fixture::new(&backend).await;
    let heir = leaving.consumer().await;
    leaving.publish(&["a", "b"]).await;
    let a = leaving.fetch_one().await;
    leaving.settle_one(retry(a, Duration::ZERO, record(1, "x"))).await;
    leaving.promote(1).await;
    let got = leaving.fetch(2).await;
    let subscriptions = [leaving.subscription.clone()];
    assert_eq!(backend.deregister(&leaving.consumer, &subscriptions).await.expect("release"), 2);
    assert_eq!(heir.counters().await.pending, 2);
    // A delivery that its owner released needs no lease to expire.
    let found = heir.recover_once(&HashSet::new(), Duration::from_secs(3600), 10).await;
    let mut told: Vec<_> = found.iter().map(|d| (text(d), d.attempts, d.crashes, d.died_alone)).collect();
    told.sort_unstable();
    assert_eq!(told, [("a", 1, 0, false), ("b", 0, 0, false)]);
    let late = leaving.settle(got.into_iter().map(commit).collect()).await;
    assert_eq!(late, [Settled::Fenced, Settled::Fenced], "the deregistered consumer has lost it");
    let answers = heir.settle(found.into_iter().map(commit).collect()).await;
    assert_eq!(answers, [Settled::Committed, Settled::Committed]);
    assert_eq!(
        backend.deregister(&leaving.consumer, &subscriptions).await.expect("release"),
        0,
        "there was nothing left"
    );
}

pub(crate) async fn a_suspect_is_set_aside_until_it_is_taken(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let other = fixture.consumer().await;
    fixture.publish(&["a", "b"]).await;
    for delivery in fixture.fetch(2).await {
        set_aside(&fixture, delivery).await;
    }
    fixture.fetches_nothing().await;
    assert_eq!(suspects(&fixture).await, 2, "only `take_suspect` delivers them");
    assert_eq!((fixture.counters().await.pending, fixture.counters().await.committed), (2, 0));
    let a = take_suspect(&other).await.expect("a suspect");
    assert_eq!((text(&a), a.attempts, a.crashes, a.died_alone), ("a", 0, 0, false));
    assert_eq!(fixture.settle_one(commit(copy(&a))).await, Settled::Fenced, "the other consumer owns it");
    assert_eq!(other.settle_one(commit(a)).await, Settled::Committed);
    let b = take_suspect(&other).await.expect("another");
    set_aside(&other, b).await;
    let b = take_suspect(&fixture).await.expect("the same again");
    assert_eq!(text(&b), "b");
    assert!(take_suspect(&fixture).await.is_none());
    assert_eq!(fixture.settle_one(commit(b)).await, Settled::Committed);
}

pub(crate) async fn who_dies_with_a_suspect_died_alone(backend: Arc<dyn Backend>) {
    let first = Fixture::new(&backend).await;
    let (second, third) = (first.consumer().await, first.consumer().await);
    first.publish(&["a"]).await;
    let _ = first.fetch_one().await;
    first.dies().await;
    let found = second.recover(1).await.remove(0);
    assert_eq!((found.crashes, found.died_alone), (1, false), "it was not known to be a suspect");
    set_aside(&second, found).await;
    let suspect = take_suspect(&second).await.expect("a suspect");
    assert_eq!((suspect.crashes, suspect.died_alone), (1, false));
    second.dies().await;
    let found = third.recover(1).await.remove(0);
    assert_eq!((found.crashes, found.died_alone), (2, true));
    assert_eq!(third.settle_one(commit(found)).await, Settled::Committed);
}

pub(crate) async fn who_leaves_with_a_suspect_has_not_died(backend: Arc<dyn Backend>) {
    let first = Fixture::new(&backend).await;
    let (second, third) = (first.consumer().await, first.consumer().await);
    first.publish(&["a"]).await;
    let delivery = first.fetch_one().await;
    set_aside(&first, delivery).await;
    let _ = take_suspect(&first).await.expect("a suspect");
    assert_eq!(
        backend.deregister(&first.consumer, std::slice::from_ref(&first.subscription)).await.expect("release"),
        1
    );
    let _ = second.recover(1).await;
    second.dies().await;
    let found = third.recover(1).await.remove(0);
    assert_eq!((found.crashes, found.died_alone), (1, false), "it was run among others when the second one died");
}

/// Consumers one after the other, each of which dies with what it has recovered. Returns the one that comes after.
async fn dies_with_all(first: Fixture, count: usize, deaths: usize) -> Fixture {
    let _ = first.fetch(count).await;
    let mut last = first;
    for death in 1..deaths {
        last.dies().await;
        last = last.consumer().await;
        let got = last.recover(count).await;
        assert!(got.iter().all(|delivery| delivery.crashes == death as u32));
    }
    last.dies().await;
    last.consumer().await
}

/// Reaches `CRASHES_MAX`.
pub(crate) async fn what_the_third_host_died_with_is_set_aside_unread(backend: Arc<dyn Backend>) {
    let first = Fixture::new(&backend).await;
    let id = first.publish(&["a"]).await[0];
    let heir = dies_with_all(first, 1, CRASHES_MAX as usize).await;
    let found = recover_some(&heir, &HashSet::new(), 10).await;
    assert_eq!((found.deliveries.len(), found.quarantined, found.suspects), (0, vec![(Queue::Stream, id)], 1));
    heir.fetches_nothing().await;
    let suspect = take_suspect(&heir).await.expect("a suspect");
    assert_eq!((text(&suspect), suspect.crashes, suspect.died_alone), ("a", CRASHES_MAX, false));
    assert_eq!(heir.settle_one(commit(suspect)).await, Settled::Committed);
}

pub(crate) async fn what_two_hosts_died_with_comes_a_few_at_a_time(backend: Arc<dyn Backend>) {
    const COUNT: usize = 32;
    let first = Fixture::new(&backend).await;
    first.publish_count(COUNT).await;
    let heir = dies_with_all(first, COUNT, 2).await;
    let (mut held, mut most) = (HashSet::new(), 0);
    while held.len() < COUNT {
        let found = recover_some(&heir, &held, COUNT).await;
        most = most.max(found.deliveries.len());
        assert!(found.more || held.len() + found.deliveries.len() == COUNT, "the others are forgotten");
        assert!(found.deliveries.iter().all(|delivery| delivery.crashes == 2));
        held.extend(found.deliveries.iter().map(|delivery| (delivery.queue, delivery.entry)));
    }
    assert!(most <= COUNT / 4, "{most} came at once");
}
