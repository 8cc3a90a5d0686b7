//! Bounds of streams: what trimming reports, and what happens when handlers do not keep up.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Fixture, fresh};
use super::forms::*;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::Body;
use tidemill_storage::{Backend, Bounds, Level, Overflow, Settled, Start, Trimmed};

const COUNT: usize = 1000;

pub(crate) async fn trimming_tells_what_is_left(backend: Arc<dyn Backend>) {
    let nothing = trim(&backend, &fresh("stream"), &at_most(10)).await;
    assert_eq!(nothing, Trimmed::default(), "a stream that is not there");
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(COUNT).await;
    let got = fixture.fetch(COUNT).await;
    fixture.settle(got.into_iter().map(commit).collect()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let trimmed = trim(&backend, &fixture.subscription.stream, &at_most(10)).await;
    assert_eq!((trimmed.removed, trimmed.length), (COUNT as u64 - 10, 10), "{trimmed:?}");
    assert_eq!((trimmed.lost, trimmed.held), (0, 0), "all was finished: {trimmed:?}");
    assert!(trimmed.oldest_age.is_some_and(|age| age >= Duration::from_millis(10)), "{trimmed:?}");
    let emptied = trim(&backend, &fixture.subscription.stream, &at_most(0)).await;
    assert_eq!((emptied.length, emptied.oldest_age), (0, None));
}

pub(crate) async fn what_is_held_over_the_bounds_is_counted(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let stream = &fixture.subscription.stream;
    fixture.publish_count(COUNT).await;
    let trimmed = trim(&backend, stream, &at_most(10)).await;
    assert_eq!((trimmed.removed, trimmed.length, trimmed.held), (0, 1000, 990), "nothing is read: {trimmed:?}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let trimmed = trim(&backend, stream, &younger_than(Duration::from_millis(1))).await;
    assert_eq!((trimmed.removed, trimmed.held), (0, 1000), "all are too old: {trimmed:?}");
    let young = trim(&backend, stream, &younger_than(Duration::from_secs(3600))).await;
    assert_eq!(young.held, 0, "none is too old: {young:?}");
    let mut got = fixture.fetch(500).await;
    let oldest = got.remove(0);
    fixture.settle(got.into_iter().map(commit).collect()).await;
    assert_eq!(trim(&backend, stream, &at_most(10)).await.held, 990, "the very first is in flight");
    fixture.settle_one(commit(oldest)).await;
    let trimmed = trim(&backend, stream, &at_most(10)).await;
    assert_eq!((trimmed.removed, trimmed.length, trimmed.held), (500, 500, 490), "{trimmed:?}");
}

/// Three groups that stand at different places: each has lost what it had not read, and its counters say so.
pub(crate) async fn overflow_drop_is_counted(backend: Arc<dyn Backend>) {
    let fast = Fixture::new(&backend).await;
    let (slow, idle) = (fast.neighbour().await, fast.neighbour().await);
    let stream = &fast.subscription.stream;
    let ids = fast.publish_count(COUNT).await;
    for (fixture, count) in [(&fast, COUNT), (&slow, 300)] {
        let got = fixture.fetch(count).await;
        fixture.settle(got.into_iter().map(commit).collect()).await;
    }
    let bounds = Bounds { overflow: Overflow::Drop, ..at_most(100) };
    let trimmed = trim(&backend, stream, &bounds).await;
    assert_eq!((trimmed.removed, trimmed.lost, trimmed.length, trimmed.held), (900, 900, 100, 0), "{trimmed:?}");
    for (fixture, dropped, lag) in [(&fast, 0, 0), (&slow, 600, 100), (&idle, 900, 100)] {
        let counters = fixture.counters().await;
        assert_eq!((counters.published, counters.dropped, counters.lag), (COUNT as u64, dropped, lag), "{counters:?}");
    }
    for fixture in [&slow, &idle] {
        let rest = fixture.fetch(100).await;
        assert_eq!(rest.iter().map(|d| d.entry).collect::<Vec<_>>(), ids[900..], "what was not dropped comes");
        fixture.settle(rest.into_iter().map(commit).collect()).await;
        assert_eq!(fixture.counters().await.waiting(), 0);
    }
    let again = trim(&backend, stream, &bounds).await;
    assert_eq!((again.removed, again.lost), (0, 0), "nothing is counted twice: {again:?}");
    let late = Fixture::on(&backend, stream, Start::Beginning).await;
    assert_eq!(late.counters().await.published, 100, "what was trimmed before its start does not concern a group");
}

pub(crate) async fn overflow_drop_by_age_spares_the_young(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(50).await;
    let bounds = |retention| Bounds { overflow: Overflow::Drop, ..younger_than(retention) };
    let young = trim(&backend, &fixture.subscription.stream, &bounds(Duration::from_secs(3600))).await;
    assert_eq!((young.removed, young.lost), (0, 0), "{young:?}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let old = trim(&backend, &fixture.subscription.stream, &bounds(Duration::from_millis(1))).await;
    assert_eq!((old.removed, old.lost, old.length), (50, 50, 0), "{old:?}");
    let counters = fixture.counters().await;
    assert_eq!((counters.dropped, counters.lag, counters.published), (50, 0, 50), "{counters:?}");
    fixture.publish(&["next"]).await;
    assert_eq!(text(&fixture.fetch_one().await), "next", "the group goes on");
    fixture.counters().await;
}

/// A delivery in flight includes its body.
pub(crate) async fn what_is_dropped_in_a_living_hand_is_settled(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(20).await;
    let got = fixture.fetch(10).await;
    let bounds = Bounds { overflow: Overflow::Drop, ..at_most(0) };
    let trimmed = trim(&backend, &fixture.subscription.stream, &bounds).await;
    assert_eq!((trimmed.removed, trimmed.lost), (20, 20), "10 were in flight, 10 not read: {trimmed:?}");
    let counters = fixture.counters().await;
    assert_eq!((counters.dropped, counters.pending, counters.lag), (10, 10, 0), "{counters:?}");
    let entries = got.into_iter().enumerate().map(|(n, delivery)| match n {
        0 => retry(delivery, Duration::ZERO, record(1, "soon")),
        _ => commit(delivery),
    });
    let answers = fixture.settle(entries.collect()).await;
    assert_eq!((answers[0], answers[9]), (Settled::Retried, Settled::Committed));
    fixture.promote(1).await;
    assert_eq!(fixture.fetch_one().await.body, Body::Event("0".into()), "a redelivery has its body");
    assert_eq!(fixture.counters().await.committed, 9);
}

pub(crate) async fn what_is_dropped_in_a_dead_hand_is_recorded(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(5).await;
    let dying = fixture.consumer().await;
    let _ = dying.fetch(5).await; // lost: its consumer dies
    let bounds = Bounds { overflow: Overflow::Drop, ..at_most(0) };
    assert_eq!(trim(&backend, &fixture.subscription.stream, &bounds).await.lost, 5);
    dying.dies().await;
    // One backend delivers what has no body, the other dead-letters it at once: in the end each is a dead letter.
    let give_up = tokio::time::Instant::now() + Duration::from_secs(60);
    while fixture.counters().await.dead < 5 {
        assert!(tokio::time::Instant::now() < give_up, "they are forgotten: {:?}", fixture.counters().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let held = std::collections::HashSet::new();
        let found = fixture.recover_once(&held, Duration::from_millis(1), 10).await;
        fixture.settle(found.into_iter().map(|d| dead_letter(d, ReasonClass::Undecodable, None)).collect()).await;
    }
    let counters = fixture.counters().await;
    assert_eq!((counters.dead, counters.waiting(), counters.dropped), (5, 0, 0), "{counters:?}");
    assert_eq!(counters.dead_unrun, 5, "they never ran, whichever side dead-lettered them: {counters:?}");
}

pub(crate) async fn examining_changes_nothing(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(5).await;
    let held = fixture.fetch(2).await;
    let before = fixture.counters().await;
    let found = backend
        .diagnose(std::slice::from_ref(&fixture.subscription), &[fresh("target").into()])
        .await
        .expect("diagnose");
    let after = fixture.counters().await;
    assert_eq!((after.lag, after.pending), (before.lag, before.pending));
    for finding in &found {
        assert_eq!(finding.level > Level::Good, !finding.hint.is_empty(), "only problems have a hint: {finding:?}");
    }
    let wrong = found.iter().filter(|finding| finding.level == Level::Bad);
    let wrong: Vec<_> = wrong.filter(|finding| finding.check != "durability").collect();
    assert!(wrong.is_empty(), "nothing is wrong here but how it is kept: {wrong:?}");
    let strange = found.iter().find(|f| f.check == "groups" && f.text.contains(&*fixture.subscription.handler));
    assert!(strange.is_none(), "the group is known: {strange:?}");
    fixture.settle(held.into_iter().map(commit).collect()).await;
}

fn at_most(maxlen: u64) -> Bounds {
    Bounds { maxlen: Some(maxlen), ..Bounds::default() }
}

fn younger_than(retention: Duration) -> Bounds {
    Bounds { retention: Some(retention), ..Bounds::default() }
}

/// Until nothing more goes: one call may do a bounded part of the work.
async fn trim(backend: &Arc<dyn Backend>, stream: &str, bounds: &Bounds) -> Trimmed {
    let mut all = Trimmed::default();
    loop {
        let some = backend.trim(stream, bounds).await.expect("trim");
        all = Trimmed { removed: all.removed + some.removed, lost: all.lost + some.lost, ..some };
        if some.removed == 0 {
            return all;
        }
    }
}
