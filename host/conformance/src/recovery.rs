//! Orphaned deliveries are reclaimed: after a lost reply by their owner, after a death by another consumer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::fixture::Fixture;
use super::forms::*;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::{Delivery, EntryId, Queue};
use tidemill_storage::{Backend, Settled};

const NO_LEASE: Duration = Duration::ZERO;

fn held<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> HashSet<(Queue, EntryId)> {
    deliveries.into_iter().map(|d| (d.queue, d.entry)).collect()
}

pub(crate) async fn own_pending_is_found_again_minus_what_is_held(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a", "b", "c"]).await;
    let got = fixture.fetch(3).await;
    let long = Duration::from_secs(3600);
    assert!(fixture.recover_once(&held(&got), long, 10).await.is_empty(), "everything is in flight");
    let mut found = fixture.recover_once(&held(&got[1..2]), long, 10).await;
    found.sort_by_key(|d| d.entry);
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), ["a", "c"], "no lease has to expire for its own");
    assert!(found.iter().all(|d| d.crashes == 0 && d.attempts == 0), "no crash is counted");
    let answers = fixture.settle(found.into_iter().map(commit).collect()).await;
    assert_eq!(answers, [Settled::Committed, Settled::Committed]);
    let found = fixture.recover_once(&HashSet::new(), long, 10).await;
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), ["b"], "what is settled is not found again");
}

pub(crate) async fn what_a_dead_consumer_held_is_recovered_with_a_crash_counted(backend: Arc<dyn Backend>) {
    let dead = Fixture::new(&backend).await;
    let heir = dead.consumer().await;
    dead.publish(&["a", "b"]).await;
    let lost = dead.fetch(2).await;
    dead.dies().await;
    let mut found = heir.recover(2).await;
    found.sort_by_key(|d| d.entry);
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), ["a", "b"]);
    assert!(found.iter().all(|d| (d.crashes, d.attempts) == (1, 0)), "a crash is not an attempt: {found:?}");
    assert!(found.iter().all(|d| d.queue == Queue::Stream && d.origin == d.entry));
    assert_eq!(heir.counters().await.pending, 2);
    let zombie = dead.settle(lost.into_iter().map(commit).collect()).await;
    assert_eq!(zombie, [Settled::Fenced, Settled::Fenced], "a zombie has lost them");
    let answers = heir.settle(found.into_iter().map(commit).collect()).await;
    assert_eq!(answers, [Settled::Committed, Settled::Committed]);
}

pub(crate) async fn crashes_add_up_and_survive_a_retry(backend: Arc<dyn Backend>) {
    let first = Fixture::new(&backend).await;
    first.publish(&["a"]).await;
    let _ = first.fetch_one().await;
    let mut owner = first;
    for crashes in 1..=2 {
        let heir = owner.consumer().await;
        owner.dies().await;
        assert_eq!(heir.recover(1).await[0].crashes, crashes);
        owner = heir;
    }
    let delivery = owner.recover(1).await.remove(0);
    assert_eq!((delivery.crashes, delivery.attempts), (2, 0), "reclaimed by its owner: no third crash");
    owner.settle_one(retry(delivery, Duration::ZERO, record(1, "x"))).await;
    owner.promote(1).await;
    let back = owner.fetch_one().await;
    assert_eq!((back.crashes, back.attempts), (2, 1), "two counts");
    let heir = owner.consumer().await;
    owner.dies().await;
    let delivery = heir.recover(1).await.remove(0);
    assert_eq!((delivery.queue, delivery.crashes, delivery.attempts), (Queue::Redelivery, 3, 1));
    assert_eq!(delivery.history, [record(1, "x")]);
    heir.settle_one(dead_letter(delivery, ReasonClass::Poison, None)).await;
    let letter = heir.dead().await.remove(0);
    assert_eq!((letter.crashes, letter.attempts), (3, 1));
}

pub(crate) async fn what_a_living_consumer_holds_is_left_alone(backend: Arc<dyn Backend>) {
    let owner = Fixture::new(&backend).await;
    let other = owner.consumer().await;
    owner.publish(&["a"]).await;
    let delivery = owner.fetch_one().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    for _ in 0..3 {
        let found = other.recover_once(&HashSet::new(), NO_LEASE, 10).await;
        assert!(found.is_empty(), "its owner lives, however long it takes: {found:?}");
    }
    assert_eq!(owner.settle_one(commit(delivery)).await, Settled::Committed);
}

pub(crate) async fn a_dead_consumer_s_lease_is_waited_for(backend: Arc<dyn Backend>) {
    let dead = Fixture::new(&backend).await;
    let heir = dead.consumer().await;
    dead.publish(&["a"]).await;
    let _ = dead.fetch_one().await;
    dead.dies().await;
    for _ in 0..3 {
        let found = heir.recover_once(&HashSet::new(), Duration::from_secs(3600), 10).await;
        assert!(found.is_empty(), "the lease has not run out: {found:?}");
    }
    assert_eq!(heir.recover(1).await[0].crashes, 1, "what was left alone counts no crash");
}

pub(crate) async fn recovery_finds_the_redelivery_queue_too(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a"]).await;
    let delivery = fixture.fetch_one().await;
    fixture.settle_one(retry(delivery, Duration::ZERO, record(1, "x"))).await;
    fixture.promote(1).await;
    fixture.publish(&["b"]).await;
    let got = fixture.fetch(2).await;
    let again = got.iter().find(|d| d.queue == Queue::Redelivery).expect("one on each queue");
    let found = fixture.recover_once(&held(got.iter().filter(|d| d.queue == Queue::Stream)), NO_LEASE, 10).await;
    assert_eq!(held(&found), held([again]));
    let found = &found[0];
    assert_eq!((text(found), found.attempts, found.origin), ("a", 1, again.origin));
    assert_eq!(found.history, [record(1, "x")]);
}

pub(crate) async fn recovery_is_bounded(backend: Arc<dyn Backend>) {
    let dead = Fixture::new(&backend).await;
    let heir = dead.consumer().await;
    dead.publish_count(10).await;
    let _ = dead.fetch(10).await;
    dead.dies().await;
    let (mut mine, mut total) = (HashSet::new(), 0);
    while total < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let found = heir.recover_once(&mine, NO_LEASE, 3).await; // checks the bound
        total += found.len();
        mine.extend(held(&found));
    }
    assert_eq!(mine.len(), 10, "none is recovered twice");
}

pub(crate) async fn who_takes_leave_is_dead_at_once(backend: Arc<dyn Backend>) {
    let leaving = Fixture::new(&backend).await;
    let heir = leaving.consumer().await;
    let elsewhere = Fixture::new(&backend).await;
    leaving.publish(&["a", "b"]).await;
    let (a, b) = (leaving.fetch_one().await, leaving.fetch_one().await);
    assert_eq!(leaving.settle_one(commit(a)).await, Settled::Committed);
    let subscriptions = [leaving.subscription.clone(), elsewhere.subscription.clone()];
    backend.deregister(&leaving.consumer, &subscriptions).await.expect("deregister");
    assert_eq!(heir.counters().await.pending, 1, "what it held is not forgotten");
    let found = heir.recover(1).await.remove(0);
    assert_eq!(text(&found), text(&b));
    assert_eq!(heir.settle_one(commit(found)).await, Settled::Committed);
    backend.deregister(&leaving.consumer, &subscriptions).await.expect("deregistering twice is no error");
}

pub(crate) async fn a_host_is_listed_with_its_note_while_it_lives(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let told = async |consumer: &str| {
        let hosts = backend.hosts(std::slice::from_ref(&fixture.subscription)).await.expect("hosts");
        let mut notes = hosts.into_iter().filter(|host| host.consumer == consumer).map(|host| host.report);
        let note = notes.next();
        assert_eq!(notes.next(), None, "each host is listed once");
        note
    };
    // It has never read anything, and is known all the same.
    assert_eq!(told(&fixture.consumer).await.as_deref(), Some(""));
    for note in [r#"{"n":1}"#, r#"{"n":2,"text":"\u00e9 \"quoted\""}"#] {
        backend.heartbeat(&fixture.consumer, Duration::from_secs(120), note).await.expect("heartbeat");
        assert_eq!(told(&fixture.consumer).await.as_deref(), Some(note));
    }
    let other = fixture.consumer().await;
    other.dies().await;
    assert_eq!(told(&other.consumer).await, None, "its heartbeat has expired");
    backend.heartbeat(&other.consumer, Duration::from_secs(120), "back").await.expect("heartbeat");
    assert_eq!(told(&other.consumer).await.as_deref(), Some("back"), "it was only slow");
    backend.deregister(&other.consumer, std::slice::from_ref(&fixture.subscription)).await.expect("deregister");
    assert_eq!(told(&other.consumer).await, None, "it has deregistered");
    assert!(told(&fixture.consumer).await.is_some(), "and no other consumer with it");
}
