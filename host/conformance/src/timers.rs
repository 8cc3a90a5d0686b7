//! Timers are set by a commit, wait, and are delivered on the redelivery queue, without a published entry.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::TIMERS_MAX;
use super::fixture::{Fixture, fresh};
use super::forms::*;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::{Body, Delivery, Disposition, Effects, Queue, Timer};
use tidemill_storage::{Backend, Operator, Settled, SettlementEntry};

const SOON: Duration = Duration::from_millis(50);
const HOUR: Duration = Duration::from_secs(3600);

fn timer(after: Duration, body: &str) -> Timer {
    Timer { after, body: Bytes::copy_from_slice(body.as_bytes()) }
}

fn timers(after: Duration, bodies: &[&str]) -> Effects {
    Effects { timers: bodies.iter().map(|body| timer(after, body)).collect(), ..Effects::default() }
}

fn is_timer(delivery: &Delivery, body: &str) -> bool {
    delivery.body == Body::Timer(Bytes::copy_from_slice(body.as_bytes()))
}

pub(crate) async fn a_timer_is_set_by_the_commit_and_comes_back_once(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let other = fixture.neighbour().await;
    let origin = fixture.publish(&["a"]).await[0];
    let effects = Effects { emits: vec![emit(&fresh("out"), "x")], ..timers(SOON, &["t"]) };
    let both = Effects { writes: writes(&[("n", Some("1"))]).writes, ..effects };
    let entry = SettlementEntry {
        dedup_key: Some((Uuid::new_v4(), THIS)),
        state: Some(("k".into(), 0)),
        ..commit_with(fixture.fetch_one().await, both)
    };
    assert_eq!(fixture.settle_one(entry).await, Settled::Committed);
    let counters = fixture.counters().await;
    assert_eq!((counters.published, counters.timers, counters.committed, counters.due, counters.far), (1, 1, 1, 1, 0));
    fixture.promote(1).await;
    let counters = fixture.counters().await;
    assert_eq!((counters.due, counters.redelivery), (0, 1));
    let back = fixture.fetch_one().await;
    assert!(is_timer(&back, "t"), "{back:?}");
    assert_eq!((back.queue, back.origin, back.attempts, back.crashes), (Queue::Redelivery, origin, 0, 0));
    assert!(back.history.is_empty() && back.replayed.is_none(), "it has its own history: {back:?}");
    assert_eq!(fixture.settle_one(commit(back)).await, Settled::Committed);
    let counters = fixture.counters().await;
    assert_eq!((counters.published, counters.timers, counters.committed, counters.waiting()), (1, 1, 2, 0));
    assert_eq!(fixture.promote_once(10).await, Default::default(), "it comes once");
    fixture.fetches_nothing().await;
    assert_eq!(other.promote_once(10).await, Default::default(), "it is no other handler's");
}

pub(crate) async fn what_does_not_commit_sets_no_timer(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let stranger = fixture.consumer().await;
    let id = Uuid::new_v4();
    fixture.publish(&["first", "again", "other", "stale", "fenced"]).await;
    let mut got = fixture.fetch(5).await.into_iter();
    let mut next = || commit_with(got.next().expect("five were fetched"), timers(SOON, &["t"]));
    fixture.settle_one(SettlementEntry { dedup_key: Some((id, THIS)), ..next() }).await;
    assert_eq!(fixture.settle_one(SettlementEntry { dedup_key: Some((id, THIS)), ..next() }).await, Settled::Duplicate);
    assert_eq!(fixture.settle_one(SettlementEntry { dedup_key: Some((id, OTHER)), ..next() }).await, Settled::Conflict);
    assert_eq!(fixture.settle_one(SettlementEntry { state: Some(("k".into(), 7)), ..next() }).await, Settled::Stale);
    assert_eq!(stranger.settle_one(next()).await, Settled::Fenced);
    let counters = fixture.counters().await;
    assert_eq!((counters.timers, counters.due), (1, 1), "only the first one was committed");
}

pub(crate) async fn a_settlement_sent_again_sets_no_timer_twice(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let token = Uuid::new_v4();
    fixture.publish(&["a"]).await;
    let delivery = fixture.fetch_one().await;
    for _ in 0..3 {
        let entry = commit_with(copy(&delivery), timers(HOUR, &["t", "t"]));
        assert_eq!(fixture.try_settle(token, vec![entry]).await.expect("settle"), [Settled::Committed]);
        let counters = fixture.counters().await;
        assert_eq!((counters.timers, counters.due), (2, 2), "equal timers are two, and set once");
    }
}

pub(crate) async fn timers_come_in_the_order_of_their_time(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a"]).await;
    let at = |ms, body| timer(Duration::from_millis(ms), body);
    let mut set = vec![at(40, "late"), at(0, "early"), at(20, "middle")];
    // Of one time: in the order in which they were set.
    let many: Vec<String> = (0..12).map(|n| format!("many {n}")).collect();
    set.extend(many.iter().map(|body| at(60, body)));
    let effects = Effects { timers: set, ..Effects::default() };
    fixture.settle_one(commit_with(fixture.fetch_one().await, effects)).await;
    fixture.promote(15).await;
    let came = fixture.fetch(15).await;
    let wanted = ["early", "middle", "late"].into_iter().chain(many.iter().map(String::as_str));
    assert_eq!(came.iter().map(text).collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
}

pub(crate) async fn a_timer_is_not_promoted_before_its_time(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a", "b"]).await;
    let (a, b) = (fixture.fetch_one().await, fixture.fetch_one().await);
    fixture.settle(vec![commit_with(a, timers(HOUR, &["t"])), retry(b, 2 * HOUR, record(1, "x"))]).await;
    let promoted = fixture.promote_once(10).await;
    let next_in = promoted.next_in.expect("two wait for their time");
    assert!(promoted.moved == 0 && next_in <= HOUR && next_in > HOUR / 2, "the timer is due first, not {promoted:?}");
    let counters = fixture.counters().await;
    assert_eq!((counters.due, counters.far), (2, 1), "a retry is never far away");
}

pub(crate) async fn a_timer_is_retried_and_dies_as_a_timer(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a"]).await;
    fixture.settle_one(commit_with(fixture.fetch_one().await, timers(Duration::ZERO, &["t"]))).await;
    fixture.promote(1).await;
    let back = fixture.fetch_one().await;
    assert_eq!(fixture.settle_one(retry(back, HOUR, record(1, "busy"))).await, Settled::Retried);
    let counters = fixture.counters().await;
    assert_eq!(
        (counters.timers, counters.due, counters.far, counters.retried),
        (1, 1, 0, 1),
        "now it waits as a retry"
    );
    fixture.publish(&["b"]).await;
    fixture.settle_one(commit_with(fixture.fetch_one().await, timers(Duration::ZERO, &["u"]))).await;
    fixture.promote(1).await;
    let back = fixture.fetch_one().await;
    fixture.settle_one(retry(back, Duration::ZERO, record(1, "busy"))).await;
    fixture.promote(1).await;
    let back = fixture.fetch_one().await;
    assert!(is_timer(&back, "u") && back.attempts == 1, "{back:?}");
    fixture.settle_one(dead_letter(back, ReasonClass::Exhausted, Some(record(2, "busy")))).await;
    let letter = fixture.dead().await.remove(0);
    assert_eq!(letter.body, Body::Timer("u".into()));
    let act = Operator::default();
    assert!(backend.edit_dead(&fixture.subscription, letter.id, "v".into(), &act).await.expect("edit"));
    let back = fixture.fetch_one().await;
    assert!(is_timer(&back, "v") && back.attempts == 0, "an edited timer is one: {back:?}");
    assert_eq!(fixture.settle_one(entry(back, Disposition::Skip { duplicate: false })).await, Settled::Skipped);
    // What was no timer does not become one, whatever it says.
    fixture.publish(&["c"]).await;
    fixture.settle_one(dead_letter(fixture.fetch_one().await, ReasonClass::Rejected, None)).await;
    let letter = fixture.dead().await.remove(0).id;
    assert!(backend.edit_dead(&fixture.subscription, letter, "w".into(), &act).await.expect("edit"));
    assert_eq!(fixture.fetch_one().await.body, Body::Event("w".into()));
    fixture.counters().await;
}

pub(crate) async fn a_timer_survives_the_host_that_set_it(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let heir = fixture.consumer().await;
    fixture.publish(&["a"]).await;
    fixture.settle_one(commit_with(fixture.fetch_one().await, timers(Duration::ZERO, &["t"]))).await;
    fixture.promote(1).await;
    let _ = fixture.fetch_one().await; // lost: its consumer dies
    fixture.dies().await;
    let found = heir.recover(1).await.remove(0);
    assert!(is_timer(&found, "t") && found.crashes == 1, "{found:?}");
    assert_eq!(heir.settle_one(commit(found)).await, Settled::Committed);
    assert_eq!(heir.counters().await.waiting(), 0);
}

/// Reaches `TIMERS_WAITING`.
pub(crate) async fn timers_are_bounded(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let bodies: Vec<String> = (0..TIMERS_MAX).map(|n| n.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let id = Uuid::new_v4();
    fixture.publish(&["a", "b", "c", "d"]).await;
    let mut got = fixture.fetch(4).await.into_iter();
    let mut next = || got.next().expect("four were fetched");
    let (a, b, c, d) = (next(), next(), next(), next());
    let answers = fixture
        .settle(vec![
            commit_with(a, timers(Duration::ZERO, &bodies[1..])),
            SettlementEntry { dedup_key: Some((id, THIS)), ..commit_with(copy(&b), timers(HOUR, &["x", "y"])) },
            commit_with(c, timers(HOUR, &["z"])),
            commit(d),
        ])
        .await;
    use Settled::{Committed, Full};
    assert_eq!(answers, [Committed, Full, Committed, Committed], "there is room for one more, not for two");
    assert_eq!(fixture.seen(id).await, None, "what was not committed leaves no dedup key");
    let counters = fixture.counters().await;
    assert_eq!((counters.timers, counters.due, counters.pending), (TIMERS_MAX, TIMERS_MAX, 1));
    // What is due and not fetched yet has not left.
    fixture.promote(bodies.len() - 1).await;
    assert_eq!(fixture.settle_one(commit_with(copy(&b), timers(HOUR, &["x"]))).await, Full);
    let came = fixture.fetch(bodies.len() - 1).await;
    fixture.settle(came.into_iter().map(commit).collect()).await;
    let entry = SettlementEntry { dedup_key: Some((id, THIS)), ..commit_with(b, timers(HOUR, &["x", "y"])) };
    assert_eq!(fixture.settle_one(entry).await, Committed);
    assert_eq!(fixture.counters().await.timers, TIMERS_MAX + 2);
}
