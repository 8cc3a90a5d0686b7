//! Keyed state: versions see to it that no write is built on a state that is no more.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::fixture::{Fixture, bodies, fresh};
use super::forms::*;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::{Delivery, Disposition, Effects, KeyState};
use tidemill_storage::{Backend, LOOK_UP_BYTES_MAX, Settled, SettlementEntry};

/// A commit that expects `key` at `version`.
fn keyed(delivery: Delivery, key: &str, version: u64, effects: Effects) -> SettlementEntry {
    SettlementEntry { state: Some((key.into(), version)), ..commit_with(delivery, effects) }
}

fn names(state: &KeyState) -> Vec<(&str, &[u8])> {
    state.values.iter().map(|(name, value)| (name.as_str(), &value[..])).collect()
}

pub(crate) async fn state_is_written_read_and_deleted(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    assert_eq!(fixture.state("k").await, KeyState::default(), "never written: version 0, no values");
    fixture.publish_count(3).await;
    let mut got = fixture.fetch(3).await.into_iter();
    let steps = [
        (writes(&[("a", Some("1")), ("b", Some("2"))]), vec![("a", &b"1"[..]), ("b", b"2")]),
        (writes(&[("b", Some("3")), ("c", Some(""))]), vec![("a", b"1"), ("b", b"3"), ("c", b"")]),
        (writes(&[("a", None), ("nothing", None)]), vec![("b", b"3"), ("c", b"")]),
    ];
    for (version, (effects, values)) in steps.into_iter().enumerate() {
        let delivery = got.next().expect("three were fetched");
        assert_eq!(fixture.settle_one(keyed(delivery, "k", version as u64, effects)).await, Settled::Committed);
        let state = fixture.state("k").await;
        assert_eq!((state.version, names(&state)), (version as u64 + 1, values), "unnamed values stay as they are");
    }
    let found =
        backend.look_up(&fixture.subscription, &[], &["x".into(), "k".into(), "k".into()]).await.expect("look_up");
    let versions: Vec<u64> = found.states.iter().map(|s| s.version).collect();
    assert_eq!(versions, [0, 3, 3], "answers come in the order of the question");
}

/// Reaches `LOOK_UP_BYTES_MAX`.
pub(crate) async fn states_are_looked_up_as_far_as_there_is_room(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let big = "x".repeat(LOOK_UP_BYTES_MAX / 2);
    fixture.publish_count(4).await;
    for (delivery, key) in fixture.fetch(4).await.into_iter().zip(["a", "b", "c", "d"]) {
        let written = if key == "b" { writes(&[("n", Some("1"))]) } else { writes(&[("n", Some(&big))]) };
        assert_eq!(fixture.settle_one(keyed(delivery, key, 0, written)).await, Settled::Committed);
    }
    let look_up = async |keys: &[&str]| -> Vec<usize> {
        let keys: Vec<Arc<str>> = keys.iter().map(|key| (*key).into()).collect();
        let found = backend.look_up(&fixture.subscription, &[Uuid::new_v4()], &keys).await.expect("look_up");
        assert_eq!(found.seen, [None], "the inbox is asked all the same");
        found.states.iter().map(KeyState::bytes).collect()
    };
    let size = big.len() + 1;
    assert_eq!(look_up(&["a", "b", "x"]).await, [size, 2, 0], "all that fit");
    assert_eq!(look_up(&["a", "b", "c", "x", "d"]).await, [size, 2, size], "none after the one that went beyond");
    assert_eq!(look_up(&["d", "x", "a", "b"]).await, [size, 0, size]);
}

pub(crate) async fn a_stale_state_version_stays_pending(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let out = fresh("out");
    fixture.publish(&["a", "b"]).await;
    let (a, b) = (fixture.fetch_one().await, fixture.fetch_one().await);
    assert_eq!(fixture.settle_one(keyed(a, "k", 0, writes(&[("n", Some("a"))]))).await, Settled::Committed);
    for wrong in [0, 2] {
        let effects = Effects { emits: vec![emit(&out, "x")], ..writes(&[("n", Some("b"))]) };
        assert_eq!(fixture.settle_one(keyed(copy(&b), "k", wrong, effects)).await, Settled::Stale);
    }
    assert_eq!(names(&fixture.state("k").await), [("n", &b"a"[..])]);
    assert!(bodies(&backend, &out).await.is_empty());
    assert_eq!(fixture.counters().await.pending, 1);
    assert_eq!(fixture.settle_one(keyed(b, "k", 1, writes(&[("n", Some("b"))]))).await, Settled::Committed);
}

pub(crate) async fn a_stale_entry_leaves_no_mark(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let id = Uuid::new_v4();
    fixture.publish(&["a", "a"]).await;
    let (a, b) = (fixture.fetch_one().await, fixture.fetch_one().await);
    let dedup_key = Some((id, THIS));
    let stale = SettlementEntry { dedup_key, ..keyed(copy(&a), "k", 7, Effects::default()) };
    assert_eq!(fixture.settle_one(stale).await, Settled::Stale);
    assert_eq!(fixture.seen(id).await, None);
    // Not within one settlement either: the second one is the first that is committed.
    let stale = SettlementEntry { dedup_key, ..keyed(a, "k", 7, Effects::default()) };
    let answers = fixture.settle(vec![stale, SettlementEntry { dedup_key, ..commit(b) }]).await;
    assert_eq!(answers, [Settled::Stale, Settled::Committed]);
}

/// A retry, dead letter or skip writes no state, so it cannot overwrite a newer one.
pub(crate) async fn only_a_commit_depends_on_the_state_version(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(3).await;
    let mut got = fixture.fetch(3).await.into_iter();
    let mut next = || got.next().expect("three were fetched");
    let entries = [
        entry(next(), Disposition::Skip { duplicate: false }),
        retry(next(), Duration::from_secs(3600), record(1, "later")),
        dead_letter(next(), ReasonClass::Rejected, None),
    ];
    let answers = fixture
        .settle(entries.into_iter().map(|e| SettlementEntry { state: Some(("k".into(), 7)), ..e }).collect())
        .await;
    assert_eq!(answers, [Settled::Skipped, Settled::Retried, Settled::Dead]);
}

pub(crate) async fn reading_state_does_not_raise_its_version(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(4).await;
    let mut got = fixture.fetch(4).await.into_iter();
    let mut next = || got.next().expect("four were fetched");
    let entries = vec![
        keyed(next(), "k", 0, Effects::default()),
        keyed(next(), "k", 0, writes(&[("n", Some("1"))])),
        keyed(next(), "k", 1, Effects::default()),
        keyed(next(), "k", 0, Effects::default()),
    ];
    let answers = fixture.settle(entries).await;
    assert_eq!(answers, [Settled::Committed, Settled::Committed, Settled::Committed, Settled::Stale]);
    assert_eq!(fixture.state("k").await.version, 1);
}

pub(crate) async fn a_chain_on_one_key_commits_in_one_settlement(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let count = 50;
    fixture.publish_count(count).await;
    let chain = fixture.fetch(count).await.into_iter().enumerate().map(|(n, delivery)| {
        // Two keys in turns: each has its own chain.
        let key = if n % 2 == 0 { "even" } else { "odd" };
        let value = n.to_string();
        keyed(delivery, key, n as u64 / 2, writes(&[("last", Some(&value)), (&format!("at {}", n % 6), Some("x"))]))
    });
    assert!(fixture.settle(chain.collect()).await.iter().all(|s| *s == Settled::Committed));
    for (key, last, seen) in [("even", "48", ["at 0", "at 2", "at 4"]), ("odd", "49", ["at 1", "at 3", "at 5"])] {
        let state = fixture.state(key).await;
        assert_eq!((state.version, &state.values["last"][..]), (25, last.as_bytes()));
        let rest: Vec<&str> = state.values.keys().map(String::as_str).filter(|name| *name != "last").collect();
        assert_eq!(rest, seen);
    }
}

pub(crate) async fn a_broken_chain_makes_its_followers_stale(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let (id, out) = (Uuid::new_v4(), fresh("out"));
    fixture.publish(&["first", "again", "follower", "last", "free"]).await;
    let mut got = fixture.fetch(5).await.into_iter();
    let mut next = || got.next().expect("five were fetched");
    let effects = |n: &str| Effects { emits: vec![emit(&out, n)], ..writes(&[("n", Some(n))]) };
    let dedup_key = Some((id, THIS));
    let entries = vec![
        SettlementEntry { dedup_key, ..keyed(next(), "k", 0, effects("first")) },
        SettlementEntry { dedup_key, ..keyed(next(), "k", 1, effects("again")) }, // a duplicate: it does not write after all
        keyed(next(), "k", 2, effects("follower")),
        keyed(next(), "k", 3, effects("last")),
        keyed(next(), "free", 0, effects("free")),
    ];
    let answers = fixture.settle(entries).await;
    use Settled::*;
    assert_eq!(answers, [Committed, Duplicate, Stale, Stale, Committed]);
    assert_eq!(bodies(&backend, &out).await, ["first", "free"]);
    let state = fixture.state("k").await;
    assert_eq!((state.version, names(&state)), (1, vec![("n", &b"first"[..])]));
    assert_eq!(fixture.counters().await.pending, 2);
}

/// The versions fit by accident: another entry raised the key by as much as the first entry was to raise it.
pub(crate) async fn a_chain_whose_first_entry_is_stale_is_stale_throughout(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish(&["other", "first", "second", "third"]).await;
    let mut got = fixture.fetch(4).await.into_iter();
    let mut next = || got.next().expect("four were fetched");
    let other = keyed(next(), "k", 0, writes(&[("n", Some("other"))]));
    let chain: Vec<SettlementEntry> =
        (0..3).map(|version| keyed(next(), "k", version, writes(&[("n", Some("chain"))]))).collect();
    assert_eq!(fixture.settle_one(other).await, Settled::Committed);
    assert_eq!(fixture.settle(chain).await, [Settled::Stale; 3]);
    let state = fixture.state("k").await;
    assert_eq!((state.version, names(&state)), (1, vec![("n", &b"other"[..])]));
}

pub(crate) async fn each_handler_has_its_own_state(backend: Arc<dyn Backend>) {
    let one = Fixture::new(&backend).await;
    let two = one.neighbour().await;
    one.publish(&["a"]).await;
    for (fixture, value) in [(&one, "one"), (&two, "two")] {
        assert_eq!(fixture.state("k").await.version, 0);
        let entry = keyed(fixture.fetch_one().await, "k", 0, writes(&[("n", Some(value))]));
        assert_eq!(fixture.settle_one(entry).await, Settled::Committed);
    }
    assert_eq!(names(&one.state("k").await), [("n", &b"one"[..])]);
    assert_eq!(names(&two.state("k").await), [("n", &b"two"[..])]);
}

/// Else a slow writer that read version 1 could come after a delete and a new beginning, and be taken for current.
pub(crate) async fn deleting_the_last_value_keeps_the_version(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    fixture.publish_count(3).await;
    let mut got = fixture.fetch(3).await.into_iter();
    let mut next = || got.next().expect("three were fetched");
    let set = writes(&[("n", Some("1"))]);
    assert_eq!(fixture.settle_one(keyed(next(), "k", 0, set.clone())).await, Settled::Committed);
    assert_eq!(fixture.settle_one(keyed(next(), "k", 1, writes(&[("n", None)]))).await, Settled::Committed);
    let state = fixture.state("k").await;
    assert_eq!((state.version, state.values.len()), (2, 0));
    assert_eq!(fixture.settle_one(keyed(next(), "k", 0, set)).await, Settled::Stale);
}

pub(crate) async fn states_are_listed_in_the_order_of_their_keys(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let keys = ["b", "a", "aa", "c", "B", "ä", "a b"];
    fixture.publish_count(keys.len()).await;
    let got = fixture.fetch(keys.len()).await.into_iter().zip(keys);
    fixture.settle(got.map(|(d, key)| keyed(d, key, 0, writes(&[("key", Some(key))]))).collect()).await;
    let mut sorted = keys;
    sorted.sort_unstable(); // by bytes
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = backend.states(&fixture.subscription, after.as_deref(), 3).await.expect("states");
        assert!(page.len() <= 3, "at most what was asked for");
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, state) in page {
            assert_eq!((state.version, names(&state)), (1, vec![("key", key.as_bytes())]));
            listed.push(key);
        }
        assert!(listed.len() <= keys.len(), "pages do not overlap: {listed:?}");
    }
    assert_eq!(listed, sorted);
}

pub(crate) async fn odd_keys_and_names_are_kept_apart(backend: Arc<dyn Backend>) {
    let fixture = Fixture::new(&backend).await;
    let keys = ["", " ", "{a}", "a:b", "a", "a\0b", "line\nbreak", "*", "?[x]", "\u{1F30A}", "'; DROP TABLE state"];
    fixture.publish_count(keys.len()).await;
    let got = fixture.fetch(keys.len()).await.into_iter().zip(keys);
    let entries = got.map(|(d, key)| keyed(d, key, 0, writes(&[(key, Some(key)), ("version", Some("mine"))])));
    assert!(fixture.settle(entries.collect()).await.iter().all(|s| *s == Settled::Committed));
    for key in keys {
        let state = fixture.state(key).await;
        assert_eq!((state.version, state.values.len()), (1, 2), "state of the key {key:?}");
        assert_eq!((&state.values[key][..], &state.values["version"][..]), (key.as_bytes(), &b"mine"[..]));
    }
}
