//! Dead letters when there is no room for more: which are evicted first, and how they are counted.

use std::sync::Arc;

use bytes::Bytes;

use super::fixture::Fixture;
use super::forms::*;
use super::{DEAD_LETTERS_BYTES_MAX, DEAD_LETTERS_MAX};
use tidemill_core::model::dead_letter::{AttemptRecord, DeadLetter, ReasonClass};
use tidemill_core::model::delivery::{Body, EntryId};
use tidemill_storage::{Backend, NewEntry, Operator, Settled, SubscriptionStatus, wire};

const MAX: usize = DEAD_LETTERS_MAX as usize;
/// Seven letters of this size fit, eight do not; in half of the bytes there is room for three.
const LARGE: usize = 140_000;

/// Publishes entries of that many bytes and makes dead letters of them, in one settlement.
async fn write_dead_letters(
    fixture: &Fixture,
    count: usize,
    bytes: usize,
    class: ReasonClass,
    record: Option<AttemptRecord>,
) {
    let body = Bytes::from(vec![b'x'; bytes]);
    let entries = vec![NewEntry { body, dedup_key: None }; count];
    fixture.backend.publish(&fixture.subscription.stream, &entries).await.expect("publish");
    let got = fixture.fetch(count).await;
    let answers = fixture.settle(got.into_iter().map(|d| dead_letter(d, class, record.clone())).collect()).await;
    assert!(answers.iter().all(|settled| *settled == Settled::Dead));
}

async fn ids(fixture: &Fixture) -> Vec<EntryId> {
    fixture.dead().await.iter().map(|letter| letter.id).collect()
}

/// The letters that are kept: those that ran, and the others. Checks the counters and the bounds.
async fn letters(fixture: &Fixture) -> (usize, usize) {
    let (dead, counters) = (fixture.dead().await, fixture.counters().await);
    let unrun = dead.iter().filter(|letter| !letter.reason.class.ran() && letter.history.is_empty()).count();
    let bytes: u64 = dead.iter().map(bytes_of).sum();
    assert_eq!(
        (counters.dead, counters.dead_unrun, counters.dead_bytes),
        (dead.len() as u64, unrun as u64, bytes),
        "{counters:?}"
    );
    assert!(counters.dead <= DEAD_LETTERS_MAX && counters.dead_bytes <= DEAD_LETTERS_BYTES_MAX, "{counters:?}");
    assert_eq!(counters.dropped, counters.evicted_ran + counters.evicted_unrun, "no call dropped any: {counters:?}");
    (dead.len() - unrun, unrun)
}

fn bytes_of(letter: &DeadLetter) -> u64 {
    let body = match &letter.body {
        Body::Event(bytes) => bytes.len(),
        other => panic!("an event was to come, not {other:?}"),
    };
    (body + letter.reason.text.len() + wire::write_history(&letter.history).len()) as u64
}

async fn evicted(fixture: &Fixture) -> (u64, u64) {
    let SubscriptionStatus { evicted_ran, evicted_unrun, .. } = fixture.counters().await;
    (evicted_ran, evicted_unrun)
}

pub(crate) async fn what_never_ran_goes_before_what_ran(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    write_dead_letters(&fixture, 3, 1, ReasonClass::Rejected, None).await;
    let oldest = ids(&fixture).await;
    write_dead_letters(&fixture, 5, 1, ReasonClass::Undecodable, None).await;
    write_dead_letters(&fixture, MAX - 8, 1, ReasonClass::Exhausted, Some(record(1, "no"))).await;
    assert_eq!((letters(&fixture).await, evicted(&fixture).await), ((MAX - 5, 5), (0, 0)), "as many as may lie here");
    write_dead_letters(&fixture, 2, 1, ReasonClass::Poison, None).await;
    assert_eq!((letters(&fixture).await, evicted(&fixture).await), ((MAX - 3, 3), (0, 2)));
    write_dead_letters(&fixture, 4, 1, ReasonClass::Rejected, None).await;
    assert_eq!(
        (letters(&fixture).await, evicted(&fixture).await),
        ((MAX, 0), (1, 5)),
        "those that ran may fill everything"
    );
    let left = ids(&fixture).await;
    assert!(!left.contains(&oldest[0]) && left.contains(&oldest[1]), "of those that ran the oldest goes first");
    write_dead_letters(&fixture, 7, 1, ReasonClass::Invalid, None).await;
    assert_eq!((letters(&fixture).await, evicted(&fixture).await), ((MAX, 0), (1, 12)), "they push out none that ran");
    assert_eq!(ids(&fixture).await, left);
}

pub(crate) async fn what_never_ran_has_half_at_most(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    write_dead_letters(&fixture, 2, 1, ReasonClass::Rejected, None).await;
    write_dead_letters(&fixture, MAX / 2, 1, ReasonClass::Unknown, None).await;
    let before = ids(&fixture).await;
    write_dead_letters(&fixture, 3, 1, ReasonClass::Conflict, None).await;
    assert_eq!((letters(&fixture).await, evicted(&fixture).await), ((2, MAX / 2), (0, 3)));
    let after = ids(&fixture).await;
    assert_eq!((&after[..2], &after[2..MAX / 2 - 1]), (&before[..2], &before[5..]), "the oldest of them go");
    write_dead_letters(&fixture, 3 * MAX, 1, ReasonClass::Undecodable, None).await;
    assert_eq!(letters(&fixture).await, (2, MAX / 2), "within one settlement too");
}

pub(crate) async fn a_letter_with_an_attempt_on_record_has_run(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    write_dead_letters(&fixture, MAX / 2 + 3, 1, ReasonClass::Conflict, Some(record(1, "no"))).await;
    assert_eq!(letters(&fixture).await, (MAX / 2 + 3, 0), "whatever it died of in the end");
    write_dead_letters(&fixture, MAX, 1, ReasonClass::Conflict, None).await;
    assert_eq!(letters(&fixture).await, (MAX / 2 + 3, MAX - MAX / 2 - 3));
}

/// Reaches `DEAD_LETTERS_BYTES`.
pub(crate) async fn dead_letters_are_bounded_by_their_bytes(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    write_dead_letters(&fixture, 7, LARGE, ReasonClass::Exhausted, Some(record(1, "no"))).await;
    let before = ids(&fixture).await;
    assert_eq!((letters(&fixture).await, evicted(&fixture).await), ((7, 0), (0, 0)));
    write_dead_letters(&fixture, 2, LARGE, ReasonClass::Rejected, None).await;
    assert_eq!((letters(&fixture).await, evicted(&fixture).await), ((7, 0), (2, 0)));
    assert_eq!(ids(&fixture).await[..5], before[2..], "the oldest go");
    write_dead_letters(&fixture, 3, 1, ReasonClass::Rejected, None).await;
    assert_eq!(letters(&fixture).await, (10, 0), "small ones fit in");
    write_dead_letters(&fixture, 1, LARGE, ReasonClass::Invalid, None).await;
    assert_eq!(
        (letters(&fixture).await, evicted(&fixture).await),
        ((10, 0), (2, 1)),
        "what never ran pushes out nothing"
    );
    write_dead_letters(&fixture, 9, LARGE, ReasonClass::Rejected, None).await;
    assert_eq!(letters(&fixture).await, (7, 0), "within one settlement too");
}

pub(crate) async fn what_never_ran_has_half_of_the_bytes(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    write_dead_letters(&fixture, 2, 1, ReasonClass::Rejected, None).await;
    write_dead_letters(&fixture, 5, LARGE, ReasonClass::Undecodable, None).await;
    assert_eq!((letters(&fixture).await, evicted(&fixture).await), ((2, 3), (0, 2)));
    write_dead_letters(&fixture, 1, 2 * LARGE, ReasonClass::Unknown, None).await;
    assert_eq!((letters(&fixture).await, evicted(&fixture).await), ((2, 2), (0, 4)), "as many as it needs room");
    write_dead_letters(&fixture, 1, DEAD_LETTERS_BYTES_MAX as usize / 2, ReasonClass::Undecodable, None).await;
    assert_eq!(
        (letters(&fixture).await, evicted(&fixture).await),
        ((2, 0), (0, 7)),
        "one that is too large goes as well"
    );
}

pub(crate) async fn what_is_dropped_and_replayed_leaves_the_account(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    for round in 1..=3 {
        write_dead_letters(&fixture, 3, LARGE, ReasonClass::Undecodable, None).await;
        write_dead_letters(&fixture, 4, LARGE, ReasonClass::Rejected, None).await;
        let counters = fixture.counters().await;
        assert_eq!(
            (counters.dead, counters.dead_unrun, counters.evicted_ran + counters.evicted_unrun),
            (7, 3, 0),
            "round {round}"
        );
        let letters = ids(&fixture).await;
        let (act, subscription) = (Operator::default(), &fixture.subscription);
        assert_eq!(
            backend.drop_dead(subscription, &[letters[0], letters[3], letters[0]], &act).await.expect("drop"),
            2
        );
        assert_eq!(fixture.counters().await.dead_unrun, 2);
        assert_eq!(backend.replay(subscription, &[letters[1], letters[4], letters[5]], &act).await.expect("replay"), 3);
        assert_eq!(fixture.counters().await.dead_unrun, 1);
        assert!(backend.edit_dead(subscription, letters[6], Bytes::from_static(b"new"), &act).await.expect("edit"));
        let back = fixture.fetch(4).await;
        fixture.settle(back.into_iter().map(commit).collect()).await;
        let left: u64 = fixture.dead().await.iter().map(bytes_of).sum();
        let counters = fixture.counters().await;
        assert_eq!((counters.dead, counters.dead_unrun, counters.dead_bytes), (1, 1, left), "{counters:?}");
        assert_eq!(backend.drop_dead(subscription, &letters, &act).await.expect("drop"), 1);
        let counters = fixture.counters().await;
        assert_eq!((counters.dead, counters.dead_unrun, counters.dead_bytes), (0, 0, 0), "{counters:?}");
    }
}
