//! Which consumer gets what: groups, consumers, queues, waiting.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::fixture::{Fixture, added, fresh, hangs_not};
use super::forms::*;
use super::{FETCH_BYTES_MAX, PAYLOAD_BYTES_MAX};
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::{Body, Delivery, LARGE_PREFIX_BYTES, Large, Queue, Subscription};
use tidemill_storage::{Backend, ENTRY_FACTS_BYTES, Error, NewEntry, Operator, Settled, Start, SubscriptionStatus};

pub(crate) async fn what_is_published_is_fetched_in_order(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let ids = fixture.publish(&["a", "b", "c"]).await;
    assert!(ids.is_sorted() && ids[0] < ids[2], "ids grow: {ids:?}");
    let got = fixture.fetch(3).await;
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(got.iter().map(|d| d.entry).collect::<Vec<_>>(), ids, "fetch and publish speak of the same ids");
    for delivery in &got {
        assert_eq!(delivery.queue, Queue::Stream);
        assert_eq!(delivery.origin, delivery.entry, "on the stream an entry is its own origin");
        assert_eq!((delivery.attempts, delivery.crashes), (0, 0), "a new delivery has no history");
        assert!(delivery.history.is_empty());
    }
    assert_eq!(fixture.counters().await.pending, 3);
}

pub(crate) async fn two_handlers_each_get_every_entry(backend: Arc<dyn Backend>) {
    let one = Fixture::new(&backend).await;
    let two = one.neighbour().await;
    one.publish(&["a", "b"]).await;
    for fixture in [&one, &two] {
        let got = fixture.fetch(2).await;
        assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["a", "b"]);
    }
    let first = one.recover(2).await;
    one.settle(first.into_iter().map(commit).collect()).await;
    assert_eq!(two.counters().await.pending, 2, "what one handler settles is still the other's to do");
}

pub(crate) async fn an_entry_is_handed_to_one_consumer_only(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let count = 200;
    let published: HashSet<_> = fixture.publish_count(count).await.into_iter().collect();
    let mut readers = Vec::new();
    for _ in 0..4 {
        let fixture = fixture.consumer().await;
        readers.push(tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                let some = fixture
                    .backend
                    .fetch(&fixture.subscription, &fixture.consumer, 7, Duration::ZERO)
                    .await
                    .expect("fetch");
                if some.deliveries.is_empty() {
                    return got;
                }
                got.extend(some.deliveries.iter().map(|d| d.entry));
            }
        }));
    }
    let mut handed_out = Vec::new();
    for reader in readers {
        handed_out.extend(hangs_not("reading", reader).await.expect("reader"));
    }
    assert_eq!(handed_out.len(), count, "each entry is delivered once");
    assert_eq!(handed_out.into_iter().collect::<HashSet<_>>(), published);
    assert_eq!(fixture.counters().await.pending, count as u64);
}

/// Reaches `BATCH`.
pub(crate) async fn fetch_takes_no_more_than_asked(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    again(&fixture, 5).await;
    fixture.publish_count(5).await;
    let mut seen = HashSet::new();
    for _ in 0..10 {
        let delivery = fixture.fetch_one().await; // `fetch` checks the bound
        assert!(seen.insert((delivery.queue, delivery.entry)), "delivered twice: {delivery:?}");
    }
    fixture.fetches_nothing().await;
}

pub(crate) async fn fetch_waits_and_wakes(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.fetches_nothing().await;
    let waiting = spawn_fetch(&fixture).await;
    fixture.publish(&["at last"]).await;
    let got = hangs_not("a fetch that waits for a publish", waiting).await.expect("fetch");
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["at last"]);
}

pub(crate) async fn fetch_wakes_for_emitted_and_replayed_events(backend: Arc<dyn Backend>) {
    let from = Fixture::new(&backend).await;
    let to = Fixture::new(&backend).await;
    from.publish(&["a"]).await;
    let delivery = from.fetch_one().await;
    let waiting = spawn_fetch(&to).await;
    from.settle_one(commit_with(delivery, emits(&to.subscription.stream, &["emitted"]))).await;
    let got = hangs_not("a fetch that waits for an emitted event", waiting).await.expect("fetch");
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["emitted"]);

    to.settle(got.into_iter().map(|d| dead_letter(d, ReasonClass::Rejected, None)).collect()).await;
    let waiting = spawn_fetch(&to).await;
    let letter = to.dead().await.remove(0);
    assert_eq!(backend.replay(&to.subscription, &[letter.id], &Operator::default()).await.expect("replay"), 1);
    let got = hangs_not("a fetch that waits for a replayed event", waiting).await.expect("fetch");
    assert_eq!((got[0].queue, text(&got[0])), (Queue::Redelivery, "emitted"));
}

pub(crate) async fn fetch_wakes_for_what_is_due_again(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a"]).await;
    let delivery = fixture.fetch_one().await;
    fixture.settle_one(retry(delivery, Duration::ZERO, record(1, "once more"))).await;
    let waiting = spawn_fetch(&fixture).await;
    fixture.promote(1).await;
    let got = hangs_not("a fetch that waits for a retry", waiting).await.expect("fetch");
    assert_eq!((got[0].queue, text(&got[0])), (Queue::Redelivery, "a"));
}

/// A fetch that would wait for an hour, and has begun to.
async fn spawn_fetch(fixture: &Fixture) -> tokio::task::JoinHandle<Vec<Delivery>> {
    let (backend, subscription, consumer) =
        (fixture.backend.clone(), fixture.subscription.clone(), fixture.consumer.clone());
    let wait = Duration::from_secs(3600);
    let fetch =
        tokio::spawn(async move { backend.fetch(&subscription, &consumer, 10, wait).await.expect("fetch").deliveries });
    tokio::time::sleep(Duration::from_millis(50)).await;
    fetch
}

pub(crate) async fn both_queues_are_served(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    again(&fixture, 20).await;
    fixture.publish_count(20).await;
    let mut queues = Vec::new();
    while queues.len() < 40 {
        let got = fixture
            .backend
            .fetch(&fixture.subscription, &fixture.consumer, 10, Duration::from_secs(1))
            .await
            .expect("fetch");
        let got = got.deliveries;
        assert!(!got.is_empty(), "40 wait, but after {} nothing came", queues.len());
        queues.extend(got.iter().map(|d| d.queue));
    }
    let span = |queue| (queues.iter().position(|l| *l == queue), queues.iter().rposition(|l| *l == queue));
    let ((input, input_end), (again, again_end)) = (span(Queue::Stream), span(Queue::Redelivery));
    assert!(input < again_end, "the stream waited until redelivery was empty");
    assert!(again < input_end, "redelivery waited until the stream was empty");
}

/// Puts `count` deliveries on the redelivery queue.
async fn again(fixture: &Fixture, count: usize) {
    fixture.publish_count(count).await;
    let got = fixture.fetch(count).await;
    let retries = got.into_iter().map(|d| retry(d, Duration::ZERO, record(1, "later")));
    assert!(fixture.settle(retries.collect()).await.iter().all(|s| *s == Settled::Retried));
    fixture.promote(count).await;
}

pub(crate) async fn a_subscription_without_a_group_says_so(backend: Arc<dyn Backend>) {
    let subscription = Subscription { stream: fresh("stream").into(), handler: fresh("handler").into() };
    let answer = backend.fetch(&subscription, "nobody", 1, Duration::ZERO).await;
    assert!(matches!(answer, Err(Error::GroupGone { .. })), "no group: {answer:?}");
    backend.publish(&subscription.stream, &[new_entry("a", None)]).await.expect("a stream needs no group");
    let answer = backend.fetch(&subscription, "nobody", 1, Duration::ZERO).await;
    assert!(matches!(answer, Err(Error::GroupGone { .. })), "a stream, but no group: {answer:?}");
}

pub(crate) async fn making_a_group_twice_changes_nothing(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a", "b"]).await;
    let first = fixture.fetch_one().await;
    for start in [Start::New, Start::Beginning] {
        fixture.backend.ensure_group(&fixture.subscription, start).await.expect("ensure_group");
    }
    let counters = fixture.counters().await;
    assert_eq!((counters.published, counters.pending, counters.lag), (2, 1, 1));
    assert_eq!(text(&fixture.fetch_one().await), "b");
    assert_eq!(fixture.settle_one(commit(first)).await, Settled::Committed);
}

pub(crate) async fn start_new_skips_history(backend: Arc<dyn Backend>) {
    let old = Fixture::new(&backend).await;
    old.publish(&["a", "b", "c"]).await;
    let new = Fixture::on(&backend, &old.subscription.stream, Start::New).await;
    new.fetches_nothing().await;
    let counters = new.counters().await;
    let nothing = SubscriptionStatus { consumers: counters.consumers, ..SubscriptionStatus::default() };
    assert_eq!(counters, nothing, "history does not concern this group");
    new.publish(&["d"]).await;
    assert_eq!(text(&new.fetch_one().await), "d");
    assert_eq!(new.counters().await.published, 1);
    let late = old.neighbour().await;
    assert_eq!(late.fetch(4).await.len(), 4, "a group that starts at the beginning gets it all");
    assert_eq!(late.counters().await.published, 4);
}

pub(crate) async fn binary_payloads_survive(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let every_byte: Bytes = (0..=255u8).chain((0..=255).rev()).collect();
    let payloads = [every_byte, Bytes::from_static(b"\0"), Bytes::new(), Bytes::from(vec![b'x'; 300_000])];
    for body in &payloads {
        let entry = NewEntry { body: body.clone(), dedup_key: None };
        added(&fixture.backend.publish(&fixture.subscription.stream, &[entry]).await.expect("publish")[0]);
    }
    let got = fixture.fetch(payloads.len()).await;
    for (delivery, body) in got.iter().zip(&payloads) {
        assert!(delivery.body == Body::Event(body.clone()), "a payload of {} bytes changed on its way", body.len());
    }
    let retries = got.into_iter().map(|d| retry(d, Duration::ZERO, record(1, "once more")));
    fixture.settle(retries.collect()).await;
    fixture.promote(payloads.len()).await;
    let mut back = fixture.fetch(payloads.len()).await;
    back.sort_by_key(|d| d.origin);
    for (delivery, body) in back.iter().zip(&payloads) {
        assert!(delivery.body == Body::Event(body.clone()), "a payload of {} bytes changed by a retry", body.len());
    }
}

/// Reaches `PAYLOAD_BYTES_MAX`, `ENTRY_FACTS_BYTES`, `LARGE_PREFIX_BYTES` and `PIECE_BYTES`.
pub(crate) async fn what_is_too_large_is_told_by_its_beginning_and_its_hash(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let body = |bytes: usize| Bytes::from_iter((0..bytes).map(|at| b'a' + (at % 23) as u8));
    let bodies = [body(PAYLOAD_BYTES_MAX), body(PAYLOAD_BYTES_MAX + ENTRY_FACTS_BYTES + 1), body(3)];
    let entries = bodies.clone().map(|body| NewEntry { body, dedup_key: None });
    backend.publish(&fixture.subscription.stream, &entries).await.expect("publish");
    let mut got = fixture.fetch(3).await;
    got.sort_by_key(|delivery| delivery.origin);
    let large = Body::Large(Large {
        event: true,
        prefix: bodies[1].slice(..LARGE_PREFIX_BYTES),
        bytes: bodies[1].len() as u64,
        sha256: Sha256::digest(&bodies[1]).into(),
    });
    let same = |delivery: &Delivery, body: &Body| assert!(delivery.body == *body, "{} changed", delivery.origin);
    same(&got[0], &Body::Event(bodies[0].clone()));
    same(&got[1], &large);
    same(&got[2], &Body::Event(bodies[2].clone()));
    let entries = got.into_iter().map(|delivery| dead_letter(delivery, ReasonClass::Undecodable, None)).collect();
    assert_eq!(fixture.settle(entries).await, [Settled::Dead; 3]);
    let letters = fixture.dead().await;
    assert!(letters.iter().any(|letter| letter.body == large), "a dead letter keeps what is known of it");
    let id = letters.iter().find(|letter| letter.body == large).map(|letter| letter.id).expect("a letter");
    backend.replay(&fixture.subscription, &[id], &Operator::default()).await.expect("replay");
    same(&fixture.fetch_one().await, &large);
}

/// Reaches `FETCH_BYTES`.
pub(crate) async fn fetch_is_bounded_in_bytes_and_loses_nothing(backend: Arc<dyn Backend>) {
    const COUNT: usize = 20;
    let fixture = Fixture::new(&backend).await;
    let entries: Vec<NewEntry> =
        (0..COUNT).map(|n| NewEntry { body: vec![b'a' + n as u8; 900_000].into(), dedup_key: None }).collect();
    backend.publish(&fixture.subscription.stream, &entries).await.expect("publish");
    let (mut held, mut bodies) = (HashSet::new(), BTreeSet::new());
    while held.len() < COUNT {
        let fetched = backend.fetch(&fixture.subscription, &fixture.consumer, 64, Duration::ZERO).await.expect("fetch");
        let (mut more, mut got) = (fetched.more, fetched.deliveries);
        assert!(!got.is_empty() || more || held.is_empty(), "{} of {COUNT} came", held.len());
        loop {
            let bytes: usize = got.iter().map(|delivery| delivery.body.bytes()).sum();
            assert!(bytes <= FETCH_BYTES_MAX, "{bytes} bytes came at once");
            for delivery in got {
                assert!(held.insert((delivery.queue, delivery.entry)), "{} came twice", delivery.entry);
                let Body::Event(bytes) = &delivery.body else { panic!("{delivery:?}") };
                assert!(bytes.len() == 900_000 && bytes.iter().all(|byte| *byte == bytes[0]));
                bodies.insert(bytes[0]);
            }
            if !more {
                break;
            }
            let lease = Duration::from_secs(3600);
            let found =
                backend.recover(&fixture.subscription, &fixture.consumer, &held, lease, 64).await.expect("recover");
            assert!(!found.deliveries.is_empty() || !found.more, "no end of it");
            (more, got) = (found.more, found.deliveries);
        }
    }
    assert_eq!((bodies.len(), fixture.counters().await.pending), (COUNT, COUNT as u64));
}

/// A redelivery has its records with it.
///
/// Reaches `FETCH_BYTES`.
pub(crate) async fn what_comes_back_is_bounded_with_its_records(backend: Arc<dyn Backend>) {
    const COUNT: usize = 100;
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(COUNT).await;
    let long = "x".repeat(50_000);
    let retries = fixture.fetch(COUNT).await.into_iter().map(|d| retry(d, Duration::ZERO, record(1, &long)));
    fixture.settle(retries.collect()).await;
    fixture.promote(COUNT).await;
    let (mut held, mut calls) = (HashSet::new(), 0);
    while held.len() < COUNT {
        let fetched =
            backend.fetch(&fixture.subscription, &fixture.consumer, COUNT, Duration::ZERO).await.expect("fetch");
        let (mut more, mut got) = (fetched.more, fetched.deliveries);
        assert!(!got.is_empty() || more, "{} of {COUNT} came", held.len());
        loop {
            let bytes: usize = got.iter().map(Delivery::bytes).sum();
            assert!(bytes <= FETCH_BYTES_MAX, "{bytes} bytes came at once");
            calls += 1;
            held.extend(got.iter().map(|delivery| (delivery.queue, delivery.entry)));
            if !more {
                break;
            }
            let lease = Duration::from_secs(3600);
            let found =
                backend.recover(&fixture.subscription, &fixture.consumer, &held, lease, COUNT).await.expect("recover");
            assert!(!found.deliveries.is_empty() || !found.more, "no end of it");
            (more, got) = (found.more, found.deliveries);
        }
    }
    assert!(calls > 1, "so many bytes have no room in one call");
}
