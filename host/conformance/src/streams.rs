//! Streams from outside: publishing, reading, trimming.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::fixture::{Fixture, added, bodies, fresh};
use super::forms::*;
use tidemill_core::model::delivery::EntryId;
use tidemill_storage::{Backend, Bounds, Published, Settled};

pub(crate) async fn publish_knows_its_ids(backend: Arc<dyn Backend>) {
    let (stream, id) = (fresh("stream"), Uuid::new_v4());
    let publish = async |body: &str, hash| {
        backend.publish(&stream, &[new_entry(body, Some((id, hash)))]).await.expect("publish")[0]
    };
    added(&publish("a", THIS).await);
    assert_eq!(publish("a", THIS).await, Published::Duplicate);
    assert_eq!(publish("b", OTHER).await, Published::Conflict);
    assert_eq!(bodies(&backend, &stream).await, ["a"]);
    let unmarked = [new_entry("c", None), new_entry("c", None)];
    assert!(backend.publish(&stream, &unmarked).await.expect("publish").iter().map(added).is_sorted());
    assert_eq!(bodies(&backend, &stream).await, ["a", "c", "c"], "without a deduplication key nothing is checked");
}

pub(crate) async fn publish_knows_its_ids_within_one_call(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let entries = [
        new_entry("a", Some((one, THIS))),
        new_entry("a", Some((one, THIS))),
        new_entry("b", Some((two, THIS))),
        new_entry("x", Some((one, OTHER))),
        new_entry("c", None),
    ];
    let answers = backend.publish(&fixture.subscription.stream, &entries).await.expect("publish");
    let ids = [added(&answers[0]), added(&answers[2]), added(&answers[4])];
    assert_eq!((answers[1], answers[3]), (Published::Duplicate, Published::Conflict));
    assert!(ids[0] < ids[1] && ids[1] < ids[2], "ids grow: {ids:?}");
    assert_eq!(bodies(&backend, &fixture.subscription.stream).await, ["a", "b", "c"]);
    assert_eq!(fixture.counters().await.published, 3, "what was not added is not counted");
    assert!(backend.publish(&fixture.subscription.stream, &[]).await.expect("publish").is_empty());
}

pub(crate) async fn each_stream_has_its_own_ids(backend: Arc<dyn Backend>) {
    let id = Uuid::new_v4();
    for hash in [THIS, OTHER] {
        let stream = fresh("stream");
        added(&backend.publish(&stream, &[new_entry("a", Some((id, hash)))]).await.expect("publish")[0]);
    }
    // Nor does a producer's deduplication key say that a handler has handled the event.
    let fixture = Fixture::new(&backend).await;
    backend.publish(&fixture.subscription.stream, &[new_entry("a", Some((id, THIS)))]).await.expect("publish");
    assert_eq!(fixture.seen(id).await, None);
}

pub(crate) async fn entries_are_listed_in_pages(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let ids = fixture.publish_count(7).await;
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = backend.entries(&fixture.subscription.stream, after, 3).await.expect("entries");
        assert!(page.len() <= 3, "at most what was asked for");
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        listed.extend(page.into_iter().map(|(id, _)| id));
        assert!(listed.len() <= 7, "pages do not overlap: {listed:?}");
    }
    assert_eq!(listed, ids);
    assert!(backend.entries(&fresh("stream"), None, 10).await.expect("entries").is_empty());
    assert_eq!(fixture.counters().await.lag, 7, "looking takes nothing away");
}

/// How many go at once is the backend's affair (Redis trims whole nodes); what may go is not.
pub(crate) async fn trim_spares_what_a_group_has_not_finished(backend: Arc<dyn Backend>) {
    let fast = Fixture::new(&backend).await;
    let slow = fast.neighbour().await;
    let (stream, count) = (&fast.subscription.stream, 1000);
    let ids = fast.publish_count(count).await;
    let all = fast.fetch(count).await;
    fast.settle(all.into_iter().map(commit).collect()).await;
    assert_eq!(trim_once(&*backend, stream, Some(10), None).await, 0, "the slow group has read nothing");

    let mut got = slow.fetch(800).await;
    let oldest_pending = got.remove(700);
    slow.settle(got.into_iter().map(commit).collect()).await;
    let gone = trim_all(&backend, stream, Some(10), None).await;
    let left: Vec<EntryId> = listed(&backend, stream).await;
    assert!(gone > 0, "700 entries are finished, and only 10 are to stay");
    assert_eq!(left.len() as u64, count as u64 - gone, "it answers how many went");
    assert!(left.contains(&ids[700]) && left[..] == ids[gone as usize..], "only the oldest, and no pending one");

    assert_eq!(slow.settle_one(commit(oldest_pending)).await, Settled::Committed);
    let rest = slow.fetch(200).await;
    assert_eq!(rest.iter().map(|d| d.entry).collect::<Vec<_>>(), ids[800..], "nothing was lost to the slow group");
    for fixture in [&fast, &slow] {
        assert_eq!(fixture.counters().await.published, count as u64, "trimming changes no counters");
    }
}

pub(crate) async fn trim_by_age_spares_what_is_pending(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (stream, count) = (&fixture.subscription.stream, 1000);
    let ids = fixture.publish_count(count).await;
    let mut got = fixture.fetch(count).await;
    let pending = got.remove(900);
    fixture.settle(got.into_iter().map(commit).collect()).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(trim_once(&*backend, stream, None, Some(Duration::from_secs(3600))).await, 0, "none is that old");
    assert_eq!(trim_once(&*backend, stream, None, None).await, 0, "no limit, no trimming");
    let gone = trim_all(&backend, stream, None, Some(Duration::from_millis(1))).await;
    assert!(gone > 0 && gone <= 900, "{gone} went; 900 finished entries lie before the pending one");
    assert_eq!(listed(&backend, stream).await, ids[gone as usize..]);
    assert_eq!(fixture.settle_one(commit(pending)).await, Settled::Committed);
    assert_eq!(fixture.counters().await.committed, count as u64);
}

/// Streams that handlers emit to for others to read elsewhere must not grow for ever.
pub(crate) async fn a_stream_that_nobody_reads_is_trimmed(backend: Arc<dyn Backend>) {
    let stream = fresh("stream");
    let entries: Vec<_> = (0..1000).map(|n| new_entry(&n.to_string(), None)).collect();
    let ids: Vec<EntryId> = backend.publish(&stream, &entries).await.expect("publish").iter().map(added).collect();
    let gone = trim_all(&backend, &stream, Some(10), None).await;
    assert!(gone > 0 && gone <= 990, "{gone} of 1000 went, and 10 were to stay");
    assert_eq!(listed(&backend, &stream).await, ids[gone as usize..]);
}

async fn trim_once(backend: &dyn Backend, stream: &str, maxlen: Option<u64>, retention: Option<Duration>) -> u64 {
    let bounds = Bounds { maxlen, retention, ..Bounds::default() };
    backend.trim(stream, &bounds).await.expect("trim").removed
}

/// Trims until nothing more goes: one call may do a bounded part of the work.
async fn trim_all(backend: &Arc<dyn Backend>, stream: &str, maxlen: Option<u64>, retention: Option<Duration>) -> u64 {
    let mut gone = 0;
    loop {
        match trim_once(&**backend, stream, maxlen, retention).await {
            0 => return gone,
            some => gone += some,
        }
    }
}

async fn listed(backend: &Arc<dyn Backend>, stream: &str) -> Vec<EntryId> {
    backend.entries(stream, None, 10_000).await.expect("entries").into_iter().map(|(id, _)| id).collect()
}
