//! Retries leave the stream, wait for their time, and are redelivered with their attempts, crashes and history.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::Fixture;
use super::forms::*;
use tidemill_core::model::dead_letter::{AttemptRecord, ReasonClass};
use tidemill_core::model::delivery::Queue;
use tidemill_storage::wire;
use tidemill_storage::wire::HISTORY_BYTES_MAX;
use tidemill_storage::{Backend, Settled};

const SOON: Duration = Duration::from_millis(50);

pub(crate) async fn a_retry_comes_back_with_its_history_when_it_is_due(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let origin = fixture.publish(&["a"]).await[0];
    let delivery = fixture.fetch_one().await;
    assert_eq!(fixture.settle_one(retry(delivery, SOON, record(1, "no luck"))).await, Settled::Retried);
    let counters = fixture.counters().await;
    assert_eq!((counters.retried, counters.due, counters.pending), (1, 1, 0));
    fixture.promote(1).await;
    let counters = fixture.counters().await;
    assert_eq!((counters.due, counters.redelivery), (0, 1));
    let back = fixture.fetch_one().await;
    assert_eq!((back.queue, back.origin, text(&back)), (Queue::Redelivery, origin, "a"));
    assert_eq!((back.attempts, back.crashes), (1, 0));
    assert_eq!(back.history, [record(1, "no luck")], "the whole record is redelivered");
    let counters = fixture.counters().await;
    assert_eq!((counters.redelivery, counters.pending), (0, 1));
    assert_eq!(fixture.settle_one(commit(back)).await, Settled::Committed);
    let counters = fixture.counters().await;
    assert_eq!((counters.published, counters.committed, counters.waiting()), (1, 1, 0));
    fixture.fetches_nothing().await;
}

pub(crate) async fn a_retry_is_not_promoted_before_its_time(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    assert_eq!(fixture.promote_once(10).await, Default::default(), "nothing waits");
    fixture.publish(&["a", "b"]).await;
    let (a, b) = (fixture.fetch_one().await, fixture.fetch_one().await);
    let hour = Duration::from_secs(3600);
    fixture.settle(vec![retry(a, 2 * hour, record(1, "x")), retry(b, hour, record(1, "x"))]).await;
    let promoted = fixture.promote_once(10).await;
    assert_eq!(promoted.moved, 0);
    let next_in = promoted.next_in.expect("something waits for its time");
    assert!(next_in <= hour && next_in > hour / 2, "the nearest is due in an hour, not in {next_in:?}");
    fixture.fetches_nothing().await;
    assert_eq!(fixture.counters().await.due, 2);
}

pub(crate) async fn a_retry_comes_back_again_and_again(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let origin = fixture.publish(&["a"]).await[0];
    let mut history = Vec::new();
    for attempt in 1..=4 {
        let delivery = fixture.fetch_one().await;
        assert_eq!((delivery.attempts, delivery.origin), (attempt - 1, origin));
        assert_eq!(delivery.history, history);
        let record = record(attempt, &format!("failed the {attempt}. time: \"\u{0}\\ {{}} ä"));
        history.push(record.clone());
        assert_eq!(fixture.settle_one(retry(delivery, Duration::ZERO, record)).await, Settled::Retried);
        fixture.promote(1).await;
    }
    assert_eq!(fixture.fetch_one().await.history, history);
    let counters = fixture.counters().await;
    assert_eq!((counters.published, counters.retried, counters.pending), (1, 4, 1));
}

pub(crate) async fn a_long_history_keeps_its_ends(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a"]).await;
    let mut delivery = fixture.fetch_one().await;
    delivery.attempts = 1999;
    delivery.history = (1..2000).map(|attempt| record(attempt, "no luck")).collect();
    fixture.settle_one(retry(delivery, Duration::ZERO, record(2000, "no luck"))).await;
    fixture.promote(1).await;
    let back = fixture.fetch_one().await;
    let kept: Vec<u32> = back.history.iter().map(|record| record.attempt).collect();
    assert_eq!(kept, (1..=20).chain(1981..=2000).collect::<Vec<_>>());
    assert_eq!(back.attempts, 2000);
    let large = AttemptRecord { log: vec!["x".repeat(2048); 10], ..record(2001, &"y".repeat(4096)) };
    fixture.settle_one(dead_letter(back, ReasonClass::Exhausted, Some(large.clone()))).await;
    let letter = fixture.dead().await.remove(0);
    assert_eq!((letter.attempts, letter.history.len()), (2001, 40));
    assert_eq!(letter.history.last(), Some(&large), "the last attempt is whole");
    assert!(wire::write_history(&letter.history).len() <= HISTORY_BYTES_MAX);
}

pub(crate) async fn promotion_is_bounded(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(10).await;
    let got = fixture.fetch(10).await;
    fixture.settle(got.into_iter().map(|d| retry(d, Duration::ZERO, record(1, "x"))).collect()).await;
    let mut moved = 0;
    while moved < 10 {
        let promoted = fixture.promote_once(4).await;
        assert!(promoted.moved <= 4, "at most 4 were asked for");
        moved += promoted.moved;
        if moved < 10 {
            assert!(promoted.next_in.is_some(), "{} still wait", 10 - moved);
        }
    }
    assert_eq!(fixture.promote_once(4).await, Default::default());
    assert_eq!(fixture.counters().await.redelivery, 10);
}

pub(crate) async fn a_retry_belongs_to_its_own_handler(backend: Arc<dyn Backend>) {
    let one = Fixture::new(&backend).await;
    let two = one.neighbour().await;
    one.publish(&["a"]).await;
    let (mine, theirs) = (one.fetch_one().await, two.fetch_one().await);
    one.settle_one(retry(mine, Duration::ZERO, record(1, "x"))).await;
    assert_eq!(two.promote_once(10).await, Default::default());
    one.promote(1).await;
    two.fetches_nothing().await;
    assert_eq!(one.fetch_one().await.attempts, 1);
    assert_eq!(two.settle_one(commit(theirs)).await, Settled::Committed);
    let counters = two.counters().await;
    assert_eq!((counters.retried, counters.committed, counters.waiting()), (0, 1, 0));
}
