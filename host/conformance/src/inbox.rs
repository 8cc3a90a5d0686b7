//! The inbox: a committed event is recognised by its id, and its hash separates duplicates from conflicts.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::fixture::{Fixture, bodies, fresh};
use super::forms::*;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::{Disposition, Effects};
use tidemill_storage::{Backend, Settled, SettlementEntry};

pub(crate) async fn a_commit_is_remembered(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (first, second, never) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    fixture.publish(&["a", "b"]).await;
    let dedup_keys = [(first, THIS), (second, OTHER)];
    let got = fixture.fetch(2).await;
    fixture
        .settle(
            got.into_iter()
                .zip(dedup_keys)
                .map(|(d, dedup_key)| SettlementEntry { dedup_key: Some(dedup_key), ..commit(d) })
                .collect(),
        )
        .await;
    let found = backend.look_up(&fixture.subscription, &[second, never, first, second], &[]).await.expect("look_up");
    assert_eq!(found.seen, [Some(OTHER), None, Some(THIS), Some(OTHER)], "answers come in the order of the question");
}

pub(crate) async fn a_duplicate_drops_its_effects(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (id, out) = (Uuid::new_v4(), fresh("out"));
    fixture.publish(&["a", "a"]).await;
    for (delivery, want) in fixture.fetch(2).await.into_iter().zip([Settled::Committed, Settled::Duplicate]) {
        let version = fixture.state("k").await.version;
        let effects = Effects { emits: vec![emit(&out, "x")], ..writes(&[("n", Some("1"))]) };
        let state = Some(("k".into(), version));
        assert_eq!(
            fixture
                .settle_one(SettlementEntry { dedup_key: Some((id, THIS)), state, ..commit_with(delivery, effects) })
                .await,
            want
        );
    }
    assert_eq!(bodies(&backend, &out).await, ["x"]);
    assert_eq!(fixture.state("k").await.version, 1);
    let counters = fixture.counters().await;
    assert_eq!(
        (counters.committed, counters.skipped, counters.duplicates, counters.pending),
        (1, 1, 1, 0),
        "acked all the same"
    );
}

pub(crate) async fn a_duplicate_within_one_settlement_drops_its_effects(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (id, out) = (Uuid::new_v4(), fresh("out"));
    fixture.publish(&["a", "a", "a"]).await;
    let entries = fixture.fetch(3).await.into_iter();
    let entries =
        entries.map(|d| SettlementEntry { dedup_key: Some((id, THIS)), ..commit_with(d, emits(&out, &["x"])) });
    let answers = fixture.settle(entries.collect()).await;
    assert_eq!(answers, [Settled::Committed, Settled::Duplicate, Settled::Duplicate]);
    assert_eq!(bodies(&backend, &out).await, ["x"]);
    assert_eq!(fixture.counters().await.duplicates, 2);
}

pub(crate) async fn a_conflict_stays_pending(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (id, out) = (Uuid::new_v4(), fresh("out"));
    fixture.publish(&["a", "b"]).await;
    let (a, b) = (fixture.fetch_one().await, fixture.fetch_one().await);
    assert_eq!(
        fixture.settle_one(SettlementEntry { dedup_key: Some((id, THIS)), ..commit(a) }).await,
        Settled::Committed
    );
    let other = SettlementEntry { dedup_key: Some((id, OTHER)), ..commit_with(copy(&b), emits(&out, &["x"])) };
    assert_eq!(fixture.settle_one(other).await, Settled::Conflict);
    assert!(bodies(&backend, &out).await.is_empty());
    assert_eq!(fixture.seen(id).await, Some(THIS), "the first one stays the first");
    assert_eq!(fixture.counters().await.pending, 1);
    let verdict = SettlementEntry { dedup_key: Some((id, OTHER)), ..dead_letter(b, ReasonClass::Conflict, None) };
    assert_eq!(fixture.settle_one(verdict).await, Settled::Dead, "and the host dead-letters it");
    assert_eq!(fixture.counters().await.dead, 1);
}

pub(crate) async fn a_conflict_within_one_settlement_stays_pending(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let id = Uuid::new_v4();
    fixture.publish(&["a", "b", "a"]).await;
    let entries = fixture.fetch(3).await.into_iter().zip([THIS, OTHER, THIS]);
    let answers = fixture
        .settle(entries.map(|(d, hash)| SettlementEntry { dedup_key: Some((id, hash)), ..commit(d) }).collect())
        .await;
    assert_eq!(answers, [Settled::Committed, Settled::Conflict, Settled::Duplicate]);
    assert_eq!(fixture.counters().await.pending, 1);
}

pub(crate) async fn only_a_commit_marks_the_inbox(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let id = Uuid::new_v4();
    fixture.publish(&["a", "a", "a", "a", "a"]).await;
    let mut got = fixture.fetch(5).await.into_iter();
    let mut next = || got.next().expect("five were fetched");
    let entries = [
        entry(next(), Disposition::Skip { duplicate: false }),
        retry(next(), Duration::from_secs(3600), record(1, "later")),
        dead_letter(next(), ReasonClass::Rejected, None),
        entry(next(), Disposition::Quarantine),
    ];
    fixture.settle(entries.into_iter().map(|e| SettlementEntry { dedup_key: Some((id, OTHER)), ..e }).collect()).await;
    assert_eq!(fixture.seen(id).await, None);
    let last = SettlementEntry { dedup_key: Some((id, THIS)), ..commit(next()) };
    assert_eq!(fixture.settle_one(last).await, Settled::Committed, "this id was not committed before");
}

pub(crate) async fn each_handler_has_its_own_inbox(backend: Arc<dyn Backend>) {
    let one = Fixture::new(&backend).await;
    let two = one.neighbour().await;
    let id = Uuid::new_v4();
    one.publish(&["a"]).await;
    for fixture in [&one, &two] {
        assert_eq!(fixture.seen(id).await, None);
        let delivery = fixture.fetch_one().await;
        assert_eq!(
            fixture.settle_one(SettlementEntry { dedup_key: Some((id, THIS)), ..commit(delivery) }).await,
            Settled::Committed
        );
    }
}

/// The first attempt was committed, but its reply was lost: the state read since may be anything.
pub(crate) async fn a_duplicate_is_a_duplicate_whatever_its_state_version(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let id = Uuid::new_v4();
    fixture.publish(&["a", "a"]).await;
    for (delivery, want) in fixture.fetch(2).await.into_iter().zip([Settled::Committed, Settled::Duplicate]) {
        let effects = writes(&[("n", Some("1"))]);
        let entry = SettlementEntry {
            dedup_key: Some((id, THIS)),
            state: Some(("k".into(), 0)),
            ..commit_with(delivery, effects)
        };
        assert_eq!(fixture.settle_one(entry).await, want);
    }
    assert_eq!(fixture.state("k").await.version, 1);
}
