//! The counters: each entry that was published is in exactly one place.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::DEAD_LETTERS_MAX;
use super::fixture::{Fixture, fresh};
use super::forms::*;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::Disposition;
use tidemill_storage::Operator;
use tidemill_storage::{Backend, Bounds, Settled, SettlementEntry, Start, VERSIONS_MAX};

/// A mix of everything, on a stream that two handlers read and one writes to. `Fixture::counters` checks the balance.
pub(crate) async fn the_counters_balance(backend: Arc<dyn Backend>) {
    let one = Fixture::new(&backend).await;
    let two = one.neighbour().await;
    let id = Uuid::new_v4();
    one.publish_count(5).await;
    let late = Fixture::on(&backend, &one.subscription.stream, Start::New).await;
    one.publish_count(55).await;
    for round in 0..6 {
        for fixture in [&one, &two] {
            let heir = fixture.consumer().await;
            let _ = heir.fetch(2).await; // lost: its consumer dies
            heir.dies().await;
            let entries = fixture.fetch(10).await.into_iter().enumerate().map(|(n, d)| match n {
                0 => SettlementEntry { dedup_key: Some((id, THIS)), ..commit(d) }, // a duplicate from the second round on
                1 => SettlementEntry { dedup_key: Some((id, OTHER)), ..commit(d) }, // a conflict
                2 => SettlementEntry { state: Some(("k".into(), 99)), ..commit(d) }, // stale
                3 => entry(d, Disposition::Skip { duplicate: false }),
                4 => retry(d, Duration::ZERO, record(1, "soon")),
                5 => retry(d, Duration::from_secs(3600), record(1, "much later")),
                6 => entry(d, Disposition::Quarantine),
                7 => dead_letter(d, ReasonClass::Rejected, Some(record(1, "no"))),
                8 => commit_with(d, emits(&one.subscription.stream, &["to itself"])),
                _ => commit(d),
            });
            let answers = fixture.settle(entries.collect()).await;
            assert_eq!((answers[1], answers[2]), (Settled::Conflict, Settled::Stale));
            fixture.counters().await;
            let mut found = fixture.recover(4).await; // two that were lost, two that were left pending
            let suspect = backend.take_suspect(&fixture.subscription, &fixture.consumer).await.expect("take_suspect");
            found.push(suspect.expect("one lies in quarantine"));
            let answers = fixture.settle(found.into_iter().map(commit).collect()).await;
            assert!(answers.iter().all(|s| *s == Settled::Committed));
            fixture.promote(1).await;
            if round % 2 == 1 {
                let letter = fixture.dead().await[0].id;
                assert_eq!(
                    backend.replay(&fixture.subscription, &[letter], &Operator::default()).await.expect("replay"),
                    1
                );
            }
            fixture.counters().await;
        }
    }
    late.counters().await;
    overflow(&one).await;
    trim(&backend, &[&one, &two, &late]).await;
}

/// More dead letters than may lie here.
async fn overflow(fixture: &Fixture) {
    fixture.publish_count(DEAD_LETTERS_MAX as usize + 1).await;
    let got = fixture.fetch(DEAD_LETTERS_MAX as usize + 1).await;
    fixture.settle(got.into_iter().map(|d| dead_letter(d, ReasonClass::Rejected, None)).collect()).await;
    let counters = fixture.counters().await;
    assert!(counters.dropped > 0 && counters.dead == DEAD_LETTERS_MAX, "{counters:?}");
}

/// Everything is taken to its end, and the stream is emptied.
async fn trim(backend: &Arc<dyn Backend>, desks: &[&Fixture]) {
    for fixture in desks {
        let counters = fixture.counters().await;
        let rest = fixture.fetch((counters.lag + counters.redelivery) as usize).await;
        fixture.settle(rest.into_iter().map(commit).collect()).await;
        let counters = fixture.counters().await;
        assert_eq!((counters.lag, counters.redelivery, counters.pending), (0, 0, 0), "{counters:?}");
        assert_eq!(counters.waiting(), counters.due);
    }
    let bounds = Bounds { maxlen: Some(0), ..Bounds::default() };
    while backend.trim(&desks[0].subscription.stream, &bounds).await.expect("trim").removed > 0 {}
    for fixture in desks {
        fixture.counters().await;
    }
}

pub(crate) async fn waiting_has_an_age(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    assert_eq!(fixture.counters().await.oldest_age, None, "nothing waits");
    fixture.publish(&["a"]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let age = fixture.counters().await.oldest_age.expect("it waits in the stream");
    assert!(age >= Duration::from_millis(10), "it has waited for 20 ms at least, not {age:?}");
    let delivery = fixture.fetch_one().await;
    let older = fixture.counters().await.oldest_age.expect("it is in flight");
    assert!(older >= age, "delivery does not make it younger: {older:?} after {age:?}");
    fixture.publish(&["b"]).await;
    let oldest = fixture.counters().await.oldest_age.expect("two wait");
    assert!(oldest >= older, "the oldest counts, not the newest: {oldest:?} after {older:?}");
    fixture.settle(vec![commit(delivery), commit(fixture.fetch_one().await)]).await;
    assert_eq!(fixture.counters().await.oldest_age, None, "nothing waits any more");
}

pub(crate) async fn a_duplicate_is_counted_as_skipped(backend: Arc<dyn Backend>) {
    let fixture = Fixture::on(&backend, &fresh("stream"), Start::Beginning).await;
    let id = Uuid::new_v4();
    fixture.publish_count(5).await;
    let got = fixture.fetch(5).await.into_iter().enumerate();
    let entries = got.map(|(n, d)| match n {
        4 => entry(d, Disposition::Skip { duplicate: false }),
        _ => SettlementEntry { dedup_key: Some((id, THIS)), ..commit(d) },
    });
    fixture.settle(entries.collect()).await;
    let counters = fixture.counters().await;
    assert_eq!((counters.committed, counters.skipped, counters.duplicates, counters.waiting()), (1, 4, 3, 0));
}

pub(crate) async fn what_is_in_flight_has_an_age_of_its_own(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let in_flight = async || fixture.counters().await.oldest_pending_age;
    fixture.publish(&["a"]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(in_flight().await, None, "it is not in flight yet");
    let delivery = fixture.fetch_one().await;
    let age = in_flight().await.expect("one is in flight");
    assert!(age >= Duration::from_millis(10), "its age counts since it was added, not since it was fetched: {age:?}");
    fixture.settle_one(retry(delivery, Duration::ZERO, record(1, "x"))).await;
    assert_eq!(in_flight().await, None, "it waits, not in flight");
    fixture.promote(1).await;
    let back = fixture.fetch_one().await;
    let again = in_flight().await.expect("one is in flight on the other queue");
    fixture.publish(&["b"]).await;
    let _ = fixture.fetch_one().await;
    let oldest = in_flight().await.expect("two are in flight");
    assert!(oldest >= again, "the oldest counts, on whatever queue: {oldest:?} after {again:?}");
    fixture.settle_one(commit(back)).await;
    assert!(in_flight().await.is_some(), "one is left");
}

pub(crate) async fn consumers_are_counted(backend: Arc<dyn Backend>) {
    let one = Fixture::new(&backend).await;
    let two = one.consumer().await;
    one.publish(&["a", "b"]).await;
    let (_a, _b) = (one.fetch_one().await, two.fetch_one().await);
    let counters = one.counters().await;
    assert!(counters.consumers >= 2, "two have deliveries in flight: {counters:?}");
    // Released deliveries have no owner, which does not count as a consumer.
    assert_eq!(backend.deregister(&one.consumer, std::slice::from_ref(&one.subscription)).await.expect("release"), 1);
    let after = one.counters().await;
    assert!(after.quarantined == 0 && after.pending == 2, "{after:?}");
    two.dies().await;
    let counters = one.counters().await;
    assert!(counters.consumers >= 1, "a dead one with pending deliveries is still one: {counters:?}");
}

pub(crate) async fn the_secret_for_ids_is_made_once(backend: Arc<dyn Backend>) {
    let first = backend.ids_key([1; 32]).await.expect("a secret");
    assert_eq!(backend.ids_key([2; 32]).await.expect("a secret"), first, "later hosts have the same");
}

pub(crate) async fn a_backend_has_a_size(backend: Arc<dyn Backend>) {
    let size = backend.size_bytes().await.expect("size_bytes");
    assert!(size > 0, "it holds the streams of all other stories");
}

pub(crate) async fn each_version_of_a_plugin_has_its_counter(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let counters = async || {
        let found = fixture.versions().await;
        found.into_iter().map(|counter| (counter.digest, counter.committed)).collect::<Vec<_>>()
    };
    assert_eq!(counters().await, [], "nothing is committed");
    fixture.publish_count(12).await;
    for (digest, count) in [("old", 3), ("new", 2), ("old", 1), ("", 1)] {
        let entries = fixture.fetch(count).await.into_iter().map(commit).collect();
        fixture.settle_twice_by(digest, entries).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let known = [("new".to_owned(), 2), ("old".to_owned(), 4)];
    assert_eq!(counters().await, known, "the newest first; what has no version is not listed");
    // What is not committed is no version's work.
    let rest = fixture.fetch(3).await.into_iter().enumerate().map(|(n, delivery)| match n {
        0 => entry(delivery, Disposition::Skip { duplicate: false }),
        1 => retry(delivery, Duration::from_secs(3600), record(1, "later")),
        _ => dead_letter(delivery, ReasonClass::Rejected, None),
    });
    fixture.try_settle_by("new", Uuid::new_v4(), rest.collect()).await.expect("settle");
    assert_eq!(counters().await, known);
    assert_eq!(fixture.neighbour().await.versions().await, [], "each handler has its own");
}

/// Reaches `VERSIONS_MAX`.
pub(crate) async fn the_counters_of_old_versions_become_one(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let versions = VERSIONS_MAX + 3;
    fixture.publish_count(versions).await;
    for (number, delivery) in fixture.fetch(versions).await.into_iter().enumerate() {
        let digest = format!("v{number}");
        fixture.try_settle_by(&digest, Uuid::new_v4(), vec![commit(delivery)]).await.expect("settle");
        // The backend's clock has to have moved on, so that it is plain which one is older.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let found = fixture.versions().await;
    assert_eq!(found.len(), VERSIONS_MAX + 1, "and one for all that are older");
    assert_eq!(found.first().map(|counter| counter.digest.clone()), Some(format!("v{}", versions - 1)));
    let older = found.iter().find(|counter| counter.digest.is_empty()).expect("the older ones");
    assert_eq!(older.committed, 3, "v0 to v2");
    assert_eq!(found.iter().map(|counter| counter.committed).sum::<u64>(), fixture.counters().await.committed);
}
