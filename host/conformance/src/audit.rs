//! Operator actions: each is done once, in one step with its audit record, and stays within its subscription.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::dead_letters::kill;
use super::fixture::{Fixture, fresh, hangs_not};
use super::forms::*;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::{Body, EntryId, Queue, Replayed, Subscription};
use tidemill_storage::{AUDIT_MAX, AuditRecord, Backend, Error, Operator, Pause};

fn act(who: &str, note: &str) -> Operator {
    Operator { name: who.into(), reason: note.into() }
}

async fn audit(fixture: &Fixture) -> Vec<AuditRecord> {
    fixture.backend.audit(&fixture.subscription, None, AUDIT_MAX + 1).await.expect("audit")
}

async fn pause(fixture: &Fixture, paused: bool, act: &Operator) {
    fixture.backend.set_paused(&fixture.subscription, paused, act).await.expect("set_paused");
}

pub(crate) async fn a_replay_is_linked_to_its_letter_and_counted(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let mut letter = kill(&fixture, 1).await[0];
    for times in 1..=3 {
        assert_eq!(backend.replay(&fixture.subscription, &[letter], &Operator::default()).await.expect("replay"), 1);
        let back = fixture.fetch_one().await;
        let link = Some(Replayed { letter, times });
        assert_eq!(back.replayed, link, "which letter it was, and how often it has been replayed");
        fixture.settle_one(retry(back, std::time::Duration::ZERO, record(1, "soon"))).await;
        fixture.promote(1).await;
        let back = fixture.fetch_one().await;
        assert_eq!(back.replayed, link, "a retry keeps the link");
        fixture.settle_one(dead_letter(back, ReasonClass::Exhausted, Some(record(2, "no")))).await;
        let dead = fixture.dead().await;
        assert_eq!((dead[0].replayed, dead[0].attempts), (link, 2), "so does a second dead letter");
        assert_eq!(dead[0].history.len(), 2 * times as usize, "the history of all its attempts");
        letter = dead[0].id;
    }
}

pub(crate) async fn one_letter_replayed_by_many_at_once_is_replayed_once(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let ids = kill(&fixture, 10).await;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (backend, subscription, ids) = (backend.clone(), fixture.subscription.clone(), ids.clone());
        tasks.spawn(async move { backend.replay(&subscription, &ids, &Operator::default()).await.expect("replay") });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<usize>(), 10, "each is replayed by one of them");
    let counters = fixture.counters().await;
    assert_eq!((counters.dead, counters.redelivery), (0, 10));
    let counted: u64 = audit(&fixture).await.iter().map(|record| record.count).sum();
    assert_eq!(counted, 10, "a call that came late left no record of what others did");
}

pub(crate) async fn dropped_letters_balance_the_counters(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let ids = kill(&fixture, 5).await;
    let some = [ids[0], ids[3], ids[0]];
    let dropped =
        async || backend.drop_dead(&fixture.subscription, &some, &Operator::default()).await.expect("drop_dead");
    assert_eq!(dropped().await, 2, "one that is named twice is dropped once");
    assert_eq!(dropped().await, 0, "they are gone");
    let counters = fixture.counters().await;
    assert_eq!((counters.published, counters.dead, counters.dropped, counters.waiting()), (5, 3, 2, 0));
    let left: Vec<EntryId> = fixture.dead().await.iter().map(|letter| letter.id).collect();
    assert_eq!(left, [ids[1], ids[2], ids[4]]);
    assert_eq!(
        backend.replay(&fixture.subscription, &some, &Operator::default()).await.expect("replay"),
        0,
        "gone for good"
    );
}

pub(crate) async fn an_edited_letter_comes_back_with_its_new_body(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let origin = fixture.publish(&["wrong"]).await[0];
    let first = fixture.fetch_one().await;
    fixture.settle_one(dead_letter(first, ReasonClass::Exhausted, Some(record(1, "no")))).await;
    let letter = fixture.dead().await[0].id;
    let body = Bytes::from_static(b"right \xff\0 \r\n");
    let edit = async |body: Bytes| {
        backend.edit_dead(&fixture.subscription, letter, body, &Operator::default()).await.expect("edit")
    };
    assert!(edit(body.clone()).await);
    assert!(!edit("late".into()).await, "it is gone already");
    let back = fixture.fetch_one().await;
    assert_eq!((back.queue, back.origin, &back.body), (Queue::Redelivery, origin, &Body::Event(body)));
    assert_eq!((back.attempts, back.crashes, back.history.len()), (0, 0, 1));
    assert_eq!(back.replayed, Some(Replayed { letter, times: 1 }), "an edit is a replay, too");
    fixture.settle_one(commit(back)).await;
    fixture.fetches_nothing().await;
    let counters = fixture.counters().await;
    assert_eq!((counters.published, counters.committed, counters.dead), (1, 1, 0));
}

pub(crate) async fn who_did_what_is_written_down_in_order(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let ids = kill(&fixture, 4).await;
    backend.replay(&fixture.subscription, &ids[..2], &act("ada@one", "all of \"x\"\n\u{1F30A}")).await.expect("replay");
    backend.drop_dead(&fixture.subscription, &ids[2..3], &act("bob@two", "")).await.expect("drop_dead");
    backend.edit_dead(&fixture.subscription, ids[3], "e".into(), &act("", "why")).await.expect("edit_dead");
    pause(&fixture, true, &act("ada@one", "a deploy")).await;
    pause(&fixture, false, &act("bob@two", "it is over")).await;
    let records = audit(&fixture).await;
    let said: Vec<_> =
        records.iter().map(|r| (&*r.verb, r.count, r.ids.clone(), &*r.operator.name, &*r.operator.reason)).collect();
    let wanted = [
        ("replay", 2, ids[..2].to_vec(), "ada@one", "all of \"x\"\n\u{1F30A}"),
        ("drop", 1, vec![ids[2]], "bob@two", ""),
        ("edit", 1, vec![ids[3]], "", "why"),
        ("pause", 0, vec![], "ada@one", "a deploy"),
        ("resume", 0, vec![], "bob@two", "it is over"),
    ];
    assert_eq!(said, wanted);
    assert!(records.is_sorted_by_key(|record| record.id) && records.is_sorted_by_key(|record| record.at_ms));
    assert!(records[0].at_ms > 1_600_000_000_000, "Unix milliseconds: {}", records[0].at_ms);
    let (mut paged, mut after) = (Vec::new(), None);
    while let [.., last] = &backend.audit(&fixture.subscription, after, 2).await.expect("audit")[..] {
        after = Some(last.id);
        paged.push(last.id);
    }
    assert_eq!(paged, [records[1].id, records[3].id, records[4].id], "pages do not overlap");
}

pub(crate) async fn an_act_on_nothing_leaves_no_record(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let nobody = Subscription { stream: fresh("stream").into(), handler: fresh("handler").into() };
    for subscription in [&fixture.subscription, &nobody] {
        for ids in [&[][..], &[EntryId(1, 1)]] {
            assert_eq!(backend.replay(subscription, ids, &Operator::default()).await.expect("replay"), 0);
            assert_eq!(backend.drop_dead(subscription, ids, &Operator::default()).await.expect("drop_dead"), 0);
        }
        assert!(
            !backend.edit_dead(subscription, EntryId(1, 1), "e".into(), &Operator::default()).await.expect("edit_dead")
        );
        assert!(backend.audit(subscription, None, 10).await.expect("audit").is_empty());
    }
    pause(&fixture, false, &Operator::default()).await;
    assert!(audit(&fixture).await.is_empty(), "it was not paused");
    let refused = backend.set_paused(&nobody, true, &Operator::default()).await;
    assert!(matches!(refused, Err(Error::GroupGone { .. })), "there is nothing to pause: {refused:?}");
    assert_eq!(backend.paused(&[nobody]).await.expect("paused"), [Pause::No]);
}

/// Many calls pause and resume at once. Some change nothing; each of the others writes a record.
///
/// Reaches `AUDIT_MAX`.
pub(crate) async fn audit_records_are_bounded(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    pause(&fixture, true, &act("first", "")).await;
    let first = audit(&fixture).await[0].id;
    hangs_not("filling the audit", async {
        while backend.audit(&fixture.subscription, None, 1).await.expect("audit")[0].id == first {
            let mut tasks = JoinSet::new();
            for n in 0..500 {
                let (backend, subscription) = (backend.clone(), fixture.subscription.clone());
                tasks.spawn(async move { backend.set_paused(&subscription, n % 2 == 1, &Operator::default()).await });
            }
            tasks.join_all().await.into_iter().for_each(|done| done.expect("set_paused"));
        }
    })
    .await;
    let records = audit(&fixture).await;
    assert_eq!(records.len(), AUDIT_MAX, "as many as may be, and no more");
    assert!(records.is_sorted_by_key(|record| record.id));
}

pub(crate) async fn a_pause_stays_until_it_is_ended(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let flag =
        async || backend.paused(std::slice::from_ref(&fixture.subscription)).await.expect("paused")[0] == Pause::Asked;
    assert!(!flag().await, "it is not paused");
    for _ in 0..2 {
        pause(&fixture, true, &Operator::default()).await;
        assert!(flag().await);
    }
    fixture.publish(&["a"]).await;
    backend.ensure_group(&fixture.subscription, tidemill_storage::Start::Beginning).await.expect("ensure_group");
    assert!(flag().await, "a host that starts does not end it");
    let delivery = fixture.fetch_one().await;
    fixture.settle_one(commit(delivery)).await;
    assert!(flag().await, "hosts obey it: the backend still serves any fetch");
    pause(&fixture, false, &Operator::default()).await;
    assert!(!flag().await);
    assert_eq!(audit(&fixture).await.len(), 2, "pausing twice is one record");
    fixture.counters().await;
}

pub(crate) async fn acts_on_one_subscription_do_not_show_in_another(backend: Arc<dyn Backend>) {
    let one = Fixture::new(&backend).await;
    let two = one.neighbour().await;
    let elsewhere = Fixture::new(&backend).await;
    let ids = kill(&one, 3).await;
    let theirs = kill(&two, 3).await;
    pause(&one, true, &Operator::default()).await;
    let subscriptions = [&two, &one, &elsewhere, &one].map(|fixture| fixture.subscription.clone());
    let flags = backend.paused(&subscriptions).await.expect("paused");
    assert_eq!(flags, [Pause::No, Pause::Asked, Pause::No, Pause::Asked], "in the order of the question");
    assert!(backend.paused(&[]).await.expect("paused").is_empty());
    backend.drop_dead(&one.subscription, &ids[..1], &Operator::default()).await.expect("drop_dead");
    assert_eq!(
        backend.drop_dead(&elsewhere.subscription, &ids[1..2], &Operator::default()).await.expect("drop_dead"),
        0
    );
    let edited = backend.edit_dead(&elsewhere.subscription, ids[2], "e".into(), &Operator::default()).await;
    assert!(!edited.expect("edit_dead"), "another subscription's letter");
    assert_eq!((audit(&one).await.len(), audit(&two).await.len(), audit(&elsewhere).await.len()), (2, 0, 0));
    let counters = two.counters().await;
    assert_eq!((counters.dead, counters.dropped), (3, 0));
    assert_eq!(two.dead().await.iter().map(|letter| letter.id).collect::<Vec<_>>(), theirs);
}
