//! The wishes of hosts: no host skips an event that another one wants. And groups: created, existing, tended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Fixture, hangs_not};
use super::forms::*;
use tidemill_core::model::delivery::{Delivery, Disposition};
use tidemill_storage::{Backend, Group, Operator, Position, Settled, Start, Tended};

impl Fixture {
    async fn tend(&self, wish: &str) -> Tended {
        self.backend.tend(&self.subscription, &self.consumer, wish).await.expect("tend")
    }

    /// Takes what was left, which is not taken again for a while.
    async fn take_left(&self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        let all = async {
            while taken.len() < count {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let max = count - taken.len();
                taken.extend(self.backend.take_left(&self.subscription, &self.consumer, max).await.expect("take_left"));
            }
        };
        hangs_not("taking what was left", all).await;
        taken
    }
}

pub(crate) async fn a_group_is_made_once_and_never_begins_elsewhere(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a", "b"]).await;
    fixture.settle(fixture.fetch(1).await.into_iter().map(commit).collect()).await;
    assert_eq!(backend.ensure_group(&fixture.subscription, Start::New).await.expect("ensure_group"), Group::There);
    let begun =
        backend.begin_at(&fixture.subscription, Position::Beginning, &Operator::default()).await.expect("begin_at");
    assert!(!begun, "its position is known");
    assert_eq!(text(&fixture.fetch_one().await), "b");
}

pub(crate) async fn hosts_are_told_what_others_wish(backend: Arc<dyn Backend>) {
    let one = Fixture::new(&backend).await;
    let two = one.consumer().await;
    let first = one.tend("narrow").await;
    assert_eq!(one.tend("narrow").await.agreed, first.agreed, "the same wish changes nothing");
    assert_eq!(two.tend("narrow").await.agreed, first.agreed, "nor does it from another host");
    let wide = two.tend("wide").await;
    assert!(wide.agreed > first.agreed, "other wishes are another agreement");
    let seen = one.tend("narrow").await;
    assert_eq!(seen.agreed, wide.agreed);
    let mut wishes: Vec<_> = seen.wishes.iter().map(|wish| (&*wish.wish, &*wish.consumer, wish.alive)).collect();
    wishes.sort_unstable();
    assert_eq!(wishes, [("narrow", &*one.consumer, true), ("wide", &*two.consumer, true)]);
    two.dies().await;
    let listed = backend.wishes(&one.subscription).await.expect("wishes");
    let of_two =
        listed.iter().find(|wish| *wish.consumer == *two.consumer).expect("a dead host's wish stays for a while");
    assert!(!of_two.alive);
    let other = one.neighbour().await;
    assert_eq!(backend.wishes(&other.subscription).await.expect("wishes"), [], "each subscription has its own");
}

pub(crate) async fn what_nobody_wants_is_skipped_by_the_agreement_alone(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let before = fixture.tend("narrow").await.agreed;
    fixture.publish(&["a", "b", "c"]).await;
    let mut got = fixture.fetch(3).await.into_iter();
    let mut next = || got.next().expect("three were fetched");
    let (first, second) = (next(), next());
    let pass = |delivery, agreed| entry(delivery, Disposition::Pass { agreed });
    assert_eq!(fixture.settle_one(pass(first, before)).await, Settled::Skipped);
    let now = fixture.consumer().await.tend("wide").await.agreed;
    let answers = fixture.settle(vec![pass(copy(&second), before), commit(next())]).await;
    assert_eq!(answers, [Settled::Outdated, Settled::Committed], "another host may want it by now");
    assert_eq!(fixture.counters().await.pending, 1);
    assert_eq!(fixture.settle_one(pass(second, now)).await, Settled::Skipped);
    assert_eq!(fixture.counters().await.skipped, 2);
}

pub(crate) async fn what_is_left_waits_for_who_takes_it(backend: Arc<dyn Backend>) {
    let narrow = Fixture::new(&backend).await;
    let wide = narrow.consumer().await;
    let ids = narrow.publish(&["a", "b", "c"]).await;
    let mut got = narrow.fetch(3).await;
    let kept = got.remove(1);
    let left = got.into_iter().map(|delivery| entry(delivery, Disposition::Leave)).collect();
    assert_eq!(narrow.settle(left).await, [Settled::Left, Settled::Left]);
    let counters = narrow.counters().await;
    assert_eq!((counters.pending, counters.left, counters.skipped), (3, 2, 0), "{counters:?}");
    assert_eq!(narrow.tend("narrow").await.left, 2);
    let found = wide.recover_once(&HashSet::new(), Duration::from_millis(1), 10).await;
    assert!(found.is_empty(), "it is not orphaned: {found:?}");
    let taken = wide.take_left(2).await;
    assert_eq!(taken.iter().map(|delivery| delivery.entry).collect::<Vec<_>>(), [ids[0], ids[2]]);
    assert!(taken.iter().all(|delivery| delivery.crashes == 0 && delivery.attempts == 0), "{taken:?}");
    wide.settle(taken.into_iter().map(commit).collect()).await;
    narrow.settle_one(commit(kept)).await;
    let counters = narrow.counters().await;
    assert_eq!((counters.committed, counters.pending, counters.left), (3, 0, 0), "{counters:?}");
}

pub(crate) async fn looking_after_a_subscription_changes_no_counters(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["a", "b", "c"]).await;
    let mut got = fixture.fetch(2).await;
    let second = got.remove(1);
    fixture.settle_one(retry(got.remove(0), Duration::from_secs(3600), record(1, "later"))).await;
    for _ in 0..3 {
        let tended = fixture.tend("x").await;
        assert_eq!((tended.strayed, tended.repeated, tended.set_back), (0, 0, None), "{tended:?}");
    }
    fixture.settle(vec![commit(second), commit(fixture.fetch_one().await)]).await;
    let tended = fixture.tend("x").await;
    assert_eq!((tended.strayed, tended.repeated), (0, 0), "{tended:?}");
    let counters = fixture.counters().await;
    assert_eq!((counters.committed, counters.due, counters.strayed, counters.repeated), (2, 1, 0, 0), "{counters:?}");
}
