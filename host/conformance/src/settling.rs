//! One settlement: whole or not at all, once, and only by the owner of its deliveries.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::fixture::{Fixture, bodies, fresh, hangs_not};
use super::forms::*;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::{Disposition, Effects};
use tidemill_storage::{Backend, Settled, SettlementEntry, SubscriptionStatus};

pub(crate) async fn settled_is_not_fetched_again(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a", "b", "c", "d"]).await;
    let mut got = fixture.fetch(4).await.into_iter();
    let mut next = || got.next().expect("four were fetched");
    let entries = vec![
        commit(next()),
        entry(next(), Disposition::Skip { duplicate: false }),
        retry(next(), Duration::from_secs(3600), record(1, "later")),
        dead_letter(next(), ReasonClass::Rejected, None),
    ];
    let answers = fixture.settle(entries).await;
    assert_eq!(answers, [Settled::Committed, Settled::Skipped, Settled::Retried, Settled::Dead]);
    fixture.fetches_nothing().await;
    assert!(fixture.recover_once(&Default::default(), Duration::ZERO, 10).await.is_empty(), "settled is not pending");
    let counters = fixture.counters().await;
    assert_eq!((counters.committed, counters.skipped, counters.due, counters.dead, counters.retried), (1, 1, 1, 1, 1));
    assert_eq!((counters.pending, counters.lag, counters.duplicates), (0, 0, 0));
}

pub(crate) async fn a_commit_applies_emits_state_inbox_and_ack_together(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (id, out) = (Uuid::new_v4(), fresh("out"));
    fixture.publish(&["a"]).await;
    let delivery = fixture.fetch_one().await;
    let effects = Effects { emits: vec![emit(&out, "x"), emit(&out, "y")], ..writes(&[("n", Some("1"))]) };
    let entry =
        SettlementEntry { dedup_key: Some((id, THIS)), state: Some(("k".into(), 0)), ..commit_with(delivery, effects) };
    assert_eq!(fixture.settle_one(entry).await, Settled::Committed);
    assert_eq!(bodies(&backend, &out).await, ["x", "y"]);
    let state = fixture.state("k").await;
    assert_eq!((state.version, &state.values["n"][..]), (1, &b"1"[..]));
    assert_eq!(fixture.seen(id).await, Some(THIS));
    assert_eq!((fixture.counters().await.committed, fixture.counters().await.pending), (1, 0));
}

pub(crate) async fn emits_keep_their_order(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (left, right) = (fresh("left"), fresh("right"));
    fixture.publish(&["a", "b"]).await;
    let entries = fixture.fetch(2).await.into_iter().map(|delivery| {
        let name = |side: &str, n: u32| format!("{}{side}{n}", text(&delivery));
        let emits = (0..3).flat_map(|n| [emit(&left, &name("l", n)), emit(&right, &name("r", n))]).collect();
        commit_with(delivery, Effects { emits, ..Effects::default() })
    });
    fixture.settle(entries.collect()).await;
    assert_eq!(bodies(&backend, &left).await, ["al0", "al1", "al2", "bl0", "bl1", "bl2"]);
    assert_eq!(bodies(&backend, &right).await, ["ar0", "ar1", "ar2", "br0", "br1", "br2"]);
}

pub(crate) async fn the_same_token_is_settled_once(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (out, token, id) = (fresh("out"), Uuid::new_v4(), Uuid::new_v4());
    fixture.publish(&["a", "b", "c", "d"]).await;
    let got = fixture.fetch(4).await;
    let entries = || {
        vec![
            SettlementEntry { dedup_key: Some((id, THIS)), ..commit_with(copy(&got[0]), emits(&out, &["x"])) },
            SettlementEntry { dedup_key: Some((id, THIS)), ..commit_with(copy(&got[1]), emits(&out, &["y"])) },
            retry(copy(&got[2]), Duration::from_secs(3600), record(1, "later")),
            dead_letter(copy(&got[3]), ReasonClass::Rejected, Some(record(1, "no"))),
        ]
    };
    let first = fixture.try_settle(token, entries()).await.expect("settle");
    assert_eq!(first, [Settled::Committed, Settled::Duplicate, Settled::Retried, Settled::Dead]);
    let counters = fixture.counters().await;
    for _ in 0..2 {
        let again = fixture.try_settle(token, entries()).await.expect("settle again");
        assert_eq!(again, first, "the same token has the same answer");
    }
    assert_eq!(bodies(&backend, &out).await, ["x"], "what was emitted once is not emitted twice");
    // Other hosts may come meanwhile, where all of them are counted.
    let after = fixture.counters().await;
    let (consumers, oldest_age) = (after.consumers, after.oldest_age);
    assert_eq!(after, SubscriptionStatus { consumers, oldest_age, ..counters }, "nothing was counted twice");
}

pub(crate) async fn a_stranger_is_fenced(backend: Arc<dyn Backend>) {
    let owner = Fixture::new(&backend).await;
    let stranger = owner.consumer().await;
    let (out, id) = (fresh("out"), Uuid::new_v4());
    owner.publish(&["a"]).await;
    let delivery = owner.fetch_one().await;
    let effects = Effects { emits: vec![emit(&out, "x")], ..writes(&[("n", Some("1"))]) };
    let stolen = SettlementEntry {
        dedup_key: Some((id, THIS)),
        state: Some(("k".into(), 0)),
        ..commit_with(copy(&delivery), effects)
    };
    assert_eq!(stranger.settle_one(stolen).await, Settled::Fenced);
    for disposition in [
        Disposition::Skip { duplicate: false },
        retry(copy(&delivery), Duration::ZERO, record(1, "no")).disposition,
        dead_letter(copy(&delivery), ReasonClass::Rejected, None).disposition,
    ] {
        assert_eq!(stranger.settle_one(entry(copy(&delivery), disposition)).await, Settled::Fenced);
    }
    assert!(bodies(&backend, &out).await.is_empty(), "a fenced commit emits nothing");
    assert_eq!((owner.state("k").await.version, owner.seen(id).await), (0, None), "and writes nothing");
    let counters = owner.counters().await;
    assert_eq!((counters.pending, counters.due, counters.dead, counters.skipped), (1, 0, 0, 0));
    assert_eq!(owner.settle_one(commit(delivery)).await, Settled::Committed, "the owner still has it");
}

pub(crate) async fn what_is_settled_is_fenced_for_a_second_token(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let out = fresh("out");
    fixture.publish(&["a"]).await;
    let delivery = fixture.fetch_one().await;
    assert_eq!(fixture.settle_one(commit_with(copy(&delivery), emits(&out, &["x"]))).await, Settled::Committed);
    assert_eq!(fixture.settle_one(commit_with(delivery, emits(&out, &["y"]))).await, Settled::Fenced);
    assert_eq!(bodies(&backend, &out).await, ["x"]);
}

pub(crate) async fn a_fenced_entry_does_not_spoil_its_batch(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let other = fixture.consumer().await;
    let out = fresh("out");
    fixture.publish(&["a", "b", "c"]).await;
    let (a, b, c) = (fixture.fetch_one().await, other.fetch_one().await, fixture.fetch_one().await);
    let entries = [copy(&a), copy(&b), copy(&c)].map(|d| {
        let effects = emits(&out, &[text(&d)]);
        commit_with(d, effects)
    });
    let answers = fixture.settle(entries.into()).await;
    assert_eq!(answers, [Settled::Committed, Settled::Fenced, Settled::Committed], "b lies between the batch's own");
    assert_eq!(bodies(&backend, &out).await, ["a", "c"]);
    assert_eq!(other.settle_one(commit(b)).await, Settled::Committed);
}

pub(crate) async fn answers_come_in_the_order_of_the_entries(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a", "b", "c", "d", "e"]).await;
    let got = fixture.fetch(5).await;
    // Not the order in which they were fetched, and one of them twice.
    let entries = vec![
        dead_letter(copy(&got[4]), ReasonClass::Invalid, None),
        commit(copy(&got[1])),
        entry(copy(&got[3]), Disposition::Quarantine),
        commit(copy(&got[1])),
        retry(copy(&got[0]), Duration::from_secs(3600), record(1, "later")),
        entry(copy(&got[2]), Disposition::Skip { duplicate: false }),
    ];
    let answers = fixture.settle(entries).await;
    use Settled::*;
    assert_eq!(answers, [Dead, Committed, Quarantined, Fenced, Retried, Skipped]);
    let counters = fixture.counters().await;
    assert_eq!((counters.committed, counters.pending), (1, 1));
    assert!(fixture.settle(Vec::new()).await.is_empty(), "an empty settlement is no error");
}

pub(crate) async fn a_large_settlement_is_settled_whole(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (count, out) = (1000, fresh("out"));
    fixture.publish_count(count).await;
    let got = fixture.fetch(count).await;
    let entries = got.into_iter().map(|d| {
        let effects = emits(&out, &[text(&d)]);
        SettlementEntry { dedup_key: Some((Uuid::new_v4(), THIS)), ..commit_with(d, effects) }
    });
    let answers = fixture.settle(entries.collect()).await;
    assert!(answers.iter().all(|s| *s == Settled::Committed));
    assert_eq!(bodies(&backend, &out).await.len(), count);
    assert_eq!(fixture.counters().await.committed, count as u64);
}

pub(crate) async fn settlements_side_by_side_do_not_mix(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (count, out) = (120, fresh("out"));
    fixture.publish_count(count).await;
    let mut writers = Vec::new();
    for _ in 0..6 {
        let fixture = fixture.consumer().await;
        let got = fixture.fetch(count / 6).await;
        let out = out.clone();
        writers.push(tokio::spawn(async move {
            for delivery in got {
                let effects = emits(&out, &[text(&delivery)]);
                assert_eq!(fixture.settle_one(commit_with(delivery, effects)).await, Settled::Committed);
            }
        }));
    }
    for writer in writers {
        hangs_not("settling", writer).await.expect("every settlement does its own work");
    }
    let mut emitted: Vec<usize> = bodies(&backend, &out)
        .await
        .iter()
        .map(|b| std::str::from_utf8(b).expect("text").parse().expect("number"))
        .collect();
    emitted.sort_unstable();
    assert_eq!(emitted, (0..count).collect::<Vec<_>>(), "each commit emits once");
    assert_eq!(fixture.counters().await.committed, count as u64);
}
