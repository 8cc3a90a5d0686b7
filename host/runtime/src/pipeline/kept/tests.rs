//! Lines, chains, and what is given up.

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use tidemill_core::model::dead_letter::AttemptRecord;
use tidemill_core::model::delivery::{Body, Disposition, Effects, Emitted, Subscription, Timer};
use tidemill_storage::{Settlement, SettlementEntry};

/// A commit of entry `number` that emits to `target` and writes the state of `key`, if these are not empty.
fn refused(number: u64, target: &str, key: &str) -> RefusedSettlement {
    let delivery = Delivery::first(Queue::Stream, EntryId(number, 0), Body::Event(Bytes::from_static(b"{}")));
    let mut effects = Effects::default();
    if !target.is_empty() {
        effects.emits.push(Emitted { stream: target.into(), body: Bytes::from_static(b"{}") });
    }
    if !key.is_empty() {
        effects.writes.insert("n".to_owned(), Some(Bytes::from_static(b"1")));
    }
    let state = (!key.is_empty()).then(|| (key.into(), number));
    let entries = vec![SettlementEntry { delivery, dedup_key: None, state, disposition: Disposition::Commit(effects) }];
    let subscription = Subscription { stream: "s".into(), handler: "h".into() };
    let settlement =
        Settlement { subscription, consumer: "c".into(), plugin: "p".into(), token: Uuid::new_v4(), entries };
    RefusedSettlement::new(settlement, false)
}

fn number(refused: &RefusedSettlement) -> u64 {
    refused.settlement.entries[0].delivery.entry.0
}

/// What is tried next, whenever that is due.
fn take(kept: &Kept) -> (RefusedSettlement, Due) {
    kept.hurry();
    kept.take(Instant::now()).expect("something is kept")
}

#[test]
fn only_the_head_of_each_cause_is_tried_until_it_goes_through() {
    let kept = Kept::default();
    for n in 0..10 {
        let is_new = kept.keep(refused(n, if n < 5 { "a" } else { "b" }, ""), "no");
        assert_eq!(is_new, n == 0 || n == 5);
    }
    assert!(kept.take(Instant::now()).is_none(), "nothing is due at once");
    kept.hurry();
    for n in [0, 5] {
        let (refused, due) = kept.take(Instant::now()).expect("a head");
        assert_eq!((number(&refused), due.give_up), (n, false));
        assert_eq!(kept.refused(refused, due, "no"), 2);
    }
    assert!(kept.take(Instant::now()).is_none(), "each cause was tried once");
    let (first, due) = take(&kept);
    assert_eq!(number(&first), 0);
    assert!(kept.settled(due, false).is_empty());
    let (second, due) = kept.take(Instant::now()).expect("the next follows at once");
    assert_eq!((number(&second), kept.count()), (1, 9));
    kept.settled(due, false);
}

#[test]
fn a_chain_stays_together_and_in_order() {
    let kept = Kept::default();
    kept.keep(refused(1, "a", "k"), "no");
    kept.keep(refused(2, "a", ""), "no");
    kept.keep(refused(3, "", "k"), "it waits");
    assert!(kept.has("k") && !kept.has("other"));
    // Another cause, which the second has not: the chain leaves the line.
    let (first, due) = take(&kept);
    kept.refused(first, due, "something else");
    let (second, due) = kept.take(Instant::now()).expect("the second is due");
    assert_eq!(number(&second), 2);
    kept.settled(due, false);
    for n in [1, 3] {
        let (refused, due) = take(&kept);
        assert_eq!(number(&refused), n);
        kept.settled(due, false);
    }
    assert!(!kept.has("k") && kept.count() == 0);
}

#[test]
fn what_is_behind_a_broken_chain_goes_on() {
    let kept = Kept::default();
    for n in 1..4 {
        kept.keep(refused(n, "a", "k"), "no");
    }
    kept.keep(refused(4, "a", "other"), "no");
    let (_, due) = take(&kept);
    let freed: Vec<u64> = kept.settled(due, true).iter().map(|delivery| delivery.entry.0).collect();
    assert_eq!((freed, kept.count(), kept.has("k")), (vec![2, 3], 1, false));
}

/// Reaches `REFUSED_KEPT_MAX`.
#[test]
fn beyond_the_bound_the_oldest_is_given_up_and_what_cannot_be_is_tried_later() {
    let kept = Kept::default();
    for n in 0..=REFUSED_KEPT_MAX as u64 {
        assert!(kept.has_room(), "there is room for {n} and one more");
        kept.keep(refused(n, "a", ""), "no");
    }
    assert!(!kept.has_room());
    let (oldest, due) = kept.take(Instant::now()).expect("one too many");
    assert_eq!((number(&oldest), due.give_up), (0, true));
    kept.refused(oldest, due, "not even that");
    assert!(kept.take(Instant::now()).is_none() && !kept.has_room());
    let (oldest, due) = take(&kept);
    assert_eq!((number(&oldest), due.give_up), (0, true));
    kept.settled(due, true);
    assert!(kept.has_room());
}

/// Bodies, effects, and the records of attempts: those of the past and the one that was to be written.
///
/// Reaches `REFUSED_KEPT_BYTES_MAX`.
#[test]
fn what_is_kept_is_bounded_in_bytes_whatever_they_are() {
    const PART: usize = REFUSED_KEPT_BYTES_MAX / 4;
    let bytes = |count: usize| Bytes::from(vec![b'x'; count]);
    let record = |count: usize| AttemptRecord {
        attempt: 1,
        at_ms: 0,
        class: "failed".into(),
        reason: "x".repeat(count / 2),
        plugin: "p".into(),
        log: vec!["x".repeat(count - count / 2)],
    };
    let with = |change: &dyn Fn(&mut SettlementEntry)| {
        let mut settlement = refused(0, "", "").settlement;
        change(&mut settlement.entries[0]);
        RefusedSettlement::new(settlement, false)
    };
    let effects = |change: &dyn Fn(&mut Effects)| {
        with(&|entry| {
            entry.delivery.body = Body::Event(Bytes::new());
            let mut effects = Effects::default();
            change(&mut effects);
            entry.disposition = Disposition::Commit(effects);
        })
    };
    let forms: [&dyn Fn(usize) -> RefusedSettlement; 6] = [
        &|count| with(&|entry| entry.delivery.body = Body::Event(bytes(count))),
        &|count| effects(&|effects| effects.emits.push(Emitted { stream: "s".into(), body: bytes(count) })),
        &|count| effects(&|effects| drop(effects.writes.insert("n".into(), Some(bytes(count - 1))))),
        &|count| effects(&|effects| effects.timers.push(Timer { after: Duration::ZERO, body: bytes(count) })),
        &|count| {
            with(&|entry| {
                entry.delivery.body = Body::Event(Bytes::new());
                entry.delivery.history = vec![record(count)];
            })
        },
        &|count| {
            with(&|entry| {
                entry.delivery.body = Body::Event(Bytes::new());
                entry.disposition = Disposition::Retry { after: Duration::ZERO, record: record(count) };
            })
        },
    ];
    for (at, form) in forms.iter().enumerate() {
        let kept = Kept::default();
        (0..4).for_each(|_| _ = kept.keep(form(PART), "no"));
        assert!(kept.has_room(), "form {at}: all that there is room for");
        kept.keep(form(1), "no");
        assert!(!kept.has_room(), "form {at}");
        let (_, due) = kept.take(Instant::now()).expect("one too many");
        assert!(due.give_up);
        kept.settled(due, false);
        assert!(kept.has_room(), "form {at}: it counts no more");
    }
}

/// Reaches `REFUSED_KEPT_AGE_MAX`.
#[test]
fn what_was_kept_for_long_is_given_up() {
    let kept = Kept::default();
    kept.keep(refused(1, "a", ""), "no");
    let (first, due) = take(&kept);
    let last = first.since + REFUSED_KEPT_AGE_MAX;
    kept.refused(first, due, "no");
    let (first, due) = kept.take(last).expect("it is due");
    assert!(!due.give_up);
    kept.refused(first, due, "no");
    let (_, due) = kept.take(last + Duration::from_nanos(1)).expect("it is due");
    assert!(due.give_up);
}
