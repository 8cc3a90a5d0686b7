//! Dead letters: kept byte for byte for people, bounded, and replayed on request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::DEAD_LETTERS_MAX;
use super::fixture::{Fixture, added};
use super::forms::*;
use tidemill_core::model::dead_letter::{Reason, ReasonClass};
use tidemill_core::model::delivery::{Body, Disposition, EntryId, Queue};
use tidemill_storage::Operator;
use tidemill_storage::{Backend, NewEntry, Settled, Start};

pub(crate) async fn a_dead_letter_keeps_the_exact_bytes(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let body = Bytes::from_static(b"\xff\xfe not json \0 {\"n\":9007199254740993,\"a\":[]}\r\n");
    let entry = NewEntry { body: body.clone(), dedup_key: None };
    let origin = added(&backend.publish(&fixture.subscription.stream, &[entry]).await.expect("publish")[0]);
    let first = fixture.fetch_one().await;
    fixture.settle_one(retry(first, Duration::ZERO, record(1, "first"))).await;
    fixture.promote(1).await;
    let second = fixture.fetch_one().await;
    let reason = Reason { class: ReasonClass::Exhausted, text: "gave up: \"\u{1F30A}\"\n".into() };
    let disposition = Disposition::DeadLetter { reason: reason.clone(), record: Some(record(2, "second")) };
    assert_eq!(fixture.settle_one(super::forms::entry(second, disposition)).await, Settled::Dead);
    let dead = fixture.dead().await;
    assert_eq!(dead.len(), 1);
    let letter = &dead[0];
    assert_eq!((&letter.body, &letter.reason, letter.origin), (&Body::Event(body), &reason, origin));
    assert_eq!((letter.attempts, letter.crashes), (2, 0), "the last attempt counts too");
    assert_eq!(letter.history, [record(1, "first"), record(2, "second")]);
    assert!(letter.at_ms > 1_600_000_000_000, "when it died, in Unix milliseconds: {}", letter.at_ms);
}

pub(crate) async fn a_dead_letter_without_a_try_has_no_history(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(ReasonClass::ALL.len()).await;
    let got = fixture.fetch(ReasonClass::ALL.len()).await.into_iter().zip(ReasonClass::ALL);
    fixture.settle(got.map(|(d, class)| dead_letter(d, class, None)).collect()).await;
    let dead = fixture.dead().await;
    let classes: Vec<ReasonClass> = dead.iter().map(|letter| letter.reason.class).collect();
    assert_eq!(classes, ReasonClass::ALL, "every class is known again");
    assert!(dead.iter().all(|letter| letter.attempts == 0 && letter.history.is_empty()));
}

pub(crate) async fn dead_letters_are_listed_in_pages(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    kill(&fixture, 7).await;
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = backend.dead_letters(&fixture.subscription, after, 3).await.expect("dead_letters");
        assert!(page.len() <= 3, "at most what was asked for");
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        listed.extend(page.into_iter().map(|letter| letter.id));
        assert!(listed.len() <= 7, "pages do not overlap: {listed:?}");
    }
    assert_eq!(listed.len(), 7);
    assert!(listed.is_sorted(), "in the order of their ids: {listed:?}");
}

/// Reaches `DEAD_LETTERS`.
pub(crate) async fn dead_letters_are_bounded(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (max, over) = (DEAD_LETTERS_MAX as usize, 5);
    let oldest = kill(&fixture, over).await;
    kill(&fixture, max - over).await;
    assert_eq!(fixture.dead().await.len(), max, "as many as may lie here");
    kill(&fixture, over).await;
    let dead = fixture.dead().await;
    assert_eq!(dead.len(), max, "options say how many may lie here: open the backend with conformance::options()");
    assert!(dead.iter().all(|letter| !oldest.contains(&letter.id)), "the oldest go first");
    let counters = fixture.counters().await;
    assert_eq!((counters.dead, counters.dropped), (DEAD_LETTERS_MAX, over as u64));
    kill(&fixture, max + over).await;
    let counters = fixture.counters().await;
    assert_eq!(
        (counters.dead, counters.dropped),
        (DEAD_LETTERS_MAX, (max + 2 * over) as u64),
        "within one settlement too"
    );
}

pub(crate) async fn replay_goes_to_its_own_handler_only_and_once(backend: Arc<dyn Backend>) {
    let one = Fixture::new(&backend).await;
    let two = one.neighbour().await;
    let ids = kill(&one, 3).await;
    let got = two.fetch(3).await;
    two.settle(got.into_iter().map(commit).collect()).await;
    let twice = [ids[0], ids[2], ids[0]];
    assert_eq!(
        backend.replay(&one.subscription, &twice, &Operator::default()).await.expect("replay"),
        2,
        "one that is named twice is replayed once"
    );
    assert_eq!(
        backend.replay(&one.subscription, &twice, &Operator::default()).await.expect("replay"),
        0,
        "they are gone already"
    );
    assert_eq!(
        backend.replay(&two.subscription, &[ids[1]], &Operator::default()).await.expect("replay"),
        0,
        "another handler's letter"
    );
    let counters = one.counters().await;
    assert_eq!((counters.dead, counters.redelivery), (1, 2));
    two.fetches_nothing().await;
    assert_eq!(one.dead().await.iter().map(|letter| letter.id).collect::<Vec<_>>(), [ids[1]]);
    let back = one.fetch(2).await;
    one.settle(back.into_iter().map(commit).collect()).await;
    one.fetches_nothing().await;
    let counters = one.counters().await;
    assert_eq!((counters.committed, counters.dead, counters.waiting()), (2, 1, 0));
}

pub(crate) async fn a_replayed_letter_starts_afresh_and_can_die_again(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let origin = fixture.publish(&["a"]).await[0];
    let first = fixture.fetch_one().await;
    fixture.settle_one(dead_letter(first, ReasonClass::Exhausted, Some(record(1, "no")))).await;
    for _ in 0..2 {
        let letter = fixture.dead().await.remove(0);
        assert_eq!((letter.origin, letter.attempts), (origin, 1));
        assert_eq!(backend.replay(&fixture.subscription, &[letter.id], &Operator::default()).await.expect("replay"), 1);
        let back = fixture.fetch_one().await;
        assert_eq!((back.queue, back.origin, text(&back)), (Queue::Redelivery, origin, "a"));
        assert_eq!((back.attempts, back.crashes), (0, 0), "its attempts and crashes are 0");
        fixture.settle_one(dead_letter(back, ReasonClass::Exhausted, Some(record(1, "no")))).await;
    }
    let counters = fixture.counters().await;
    assert_eq!((counters.published, counters.dead, counters.waiting()), (1, 1, 0), "one entry is one dead letter");
}

/// Publishes `count` entries and makes dead letters of them; answers with the letters' ids.
pub(super) async fn kill(fixture: &Fixture, count: usize) -> Vec<EntryId> {
    fixture.publish_count(count).await;
    let got = fixture.fetch(count).await;
    let answers = fixture.settle(got.into_iter().map(|d| dead_letter(d, ReasonClass::Rejected, None)).collect()).await;
    assert!(answers.iter().all(|s| *s == Settled::Dead));
    let mut ids: Vec<EntryId> = fixture.dead().await.iter().rev().take(count).map(|letter| letter.id).collect();
    ids.reverse();
    ids
}

pub(super) async fn foreign_fields_are_kept<F>(backend: Arc<dyn Backend>, put: F)
where
    F: AsyncFn(&str, &[(Bytes, Bytes)]),
{
    let fixture = Fixture::on(&backend, &super::fixture::fresh("stream"), Start::Beginning).await;
    let pair = |name: &'static [u8], value: &'static [u8]| (Bytes::from_static(name), Bytes::from_static(value));
    let fields =
        vec![pair(b"type", b"Order.Created"), pair(b"payload", b"\xff\0{"), pair(b"", b""), pair(b"type", b"twice")];
    put(&fixture.subscription.stream, &fields).await;
    fixture.publish(&["an event"]).await;
    let delivery = fixture.fetch_one().await;
    assert_eq!(delivery.body, Body::Fields(fields.clone()), "all fields, in their order, untouched");
    fixture.settle_one(retry(delivery, Duration::ZERO, record(1, "x"))).await;
    fixture.promote(1).await;
    let mut rest = fixture.fetch(2).await;
    rest.sort_by_key(|d| d.queue == Queue::Stream);
    let delivery = rest.remove(0);
    assert_eq!(delivery.body, Body::Fields(fields.clone()), "a retry keeps them");
    fixture.settle_one(dead_letter(delivery, ReasonClass::Undecodable, None)).await;
    let letter = fixture.dead().await.remove(0);
    assert_eq!(letter.body, Body::Fields(fields.clone()), "a dead letter keeps them");
    backend.replay(&fixture.subscription, &[letter.id], &Operator::default()).await.expect("replay");
    assert_eq!(fixture.fetch_one().await.body, Body::Fields(fields), "a replay keeps them");
    fixture.counters().await;
}
