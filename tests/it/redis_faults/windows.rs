//! The inbox in Redis: windows that differ between hosts, a clock that was ahead, and what an older version wrote.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Value;
use tidemill_conformance::options;
use tidemill_core::model::delivery::{Disposition, Effects, Subscription};
use tidemill_storage::{Backend, NewEntry, Options, Published, Settled, Settlement, SettlementEntry, Start};
use tidemill_testkit::server::RedisServer;
use uuid::Uuid;

const HASH: [u8; 16] = [7; 16];
const HOUR_MS: u64 = 3_600_000;

struct Inbox {
    server: &'static RedisServer,
    subscription: Subscription,
}

impl Inbox {
    async fn new() -> Self {
        let stream = format!("windows-{}", Uuid::new_v4().simple());
        let inbox = Self {
            server: RedisServer::shared(),
            subscription: Subscription { stream: stream.as_str().into(), handler: "h".into() },
        };
        inbox.with(HOUR_MS).await.ensure_group(&inbox.subscription, Start::Beginning).await.unwrap();
        inbox
    }

    /// As a host with this window.
    async fn with(&self, window_ms: u64) -> Arc<dyn Backend> {
        let options = Options { inbox_window: Duration::from_millis(window_ms), ..options() };
        tidemill::backends::open(&self.server.url(), options).await.unwrap()
    }

    async fn commit(&self, backend: &dyn Backend, id: Uuid) -> Settled {
        let entry = NewEntry { body: "x".into(), dedup_key: None };
        backend.publish(&self.subscription.stream, &[entry]).await.unwrap();
        let delivery = loop {
            let some = backend.fetch(&self.subscription, "me", 1, Duration::from_secs(1)).await.unwrap().deliveries;
            if let Some(delivery) = some.into_iter().next() {
                break delivery;
            }
        };
        let disposition = Disposition::Commit(Effects::default());
        let entries = vec![SettlementEntry { delivery, dedup_key: Some((id, HASH)), state: None, disposition }];
        let (consumer, plugin) = ("me".into(), "".into());
        let settlement =
            Settlement { subscription: self.subscription.clone(), consumer, plugin, token: Uuid::new_v4(), entries };
        backend.settle(&settlement).await.unwrap()[0]
    }

    async fn publish(&self, backend: &dyn Backend, id: Uuid) -> Published {
        let entry = NewEntry { body: "x".into(), dedup_key: Some((id, HASH)) };
        backend.publish(&self.subscription.stream, &[entry]).await.unwrap()[0]
    }

    fn base(&self, what: &str) -> String {
        format!("{{{}}}:tm:{what}", self.subscription.stream)
    }

    /// Writes a deduplication key as a host would whose server's clock is off by so many windows; `listed`: of this version.
    fn marked(&self, what: &str, id: Uuid, off: i64, listed: bool) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let number = (now / HOUR_MS).saturating_add_signed(off);
        let (base, mut connection) = (self.base(what), redis::Client::open(self.server.url()).unwrap());
        let mut set = redis::cmd("HSET");
        let _: Value = set
            .arg(format!("{base}:{number}"))
            .arg(id.as_bytes().as_slice())
            .arg(HASH.as_slice())
            .query(&mut connection)
            .unwrap();
        if listed {
            self.server.ask::<Value>(&["HSET", &base, &number.to_string(), &HOUR_MS.to_string()]);
        }
    }
}

/// Windows that are a multiple of each other, and that are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_know_what_others_with_another_window_committed() {
    let inbox = Inbox::new().await;
    let windows = [HOUR_MS, 2 * HOUR_MS, HOUR_MS / 7, HOUR_MS + 1];
    for first in windows {
        let id = Uuid::new_v4();
        assert_eq!(inbox.commit(&*inbox.with(first).await, id).await, Settled::Committed);
        for second in windows {
            let backend = inbox.with(second).await;
            let found = backend.look_up(&inbox.subscription, &[id], &[]).await.unwrap();
            assert_eq!(found.seen, [Some(HASH)], "committed under {first}, asked under {second}");
            assert_eq!(inbox.commit(&*backend, id).await, Settled::Duplicate);
        }
        let id = Uuid::new_v4();
        assert!(matches!(inbox.publish(&*inbox.with(first).await, id).await, Published::Added(_)));
        for second in windows {
            assert_eq!(inbox.publish(&*inbox.with(second).await, id).await, Published::Duplicate);
        }
    }
}

/// The server's clock was three hours ahead, and three behind, and is right now.
///
/// Reaches `common::KEPT`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_while_the_clock_was_wrong_is_known_when_it_is_right() {
    let inbox = Inbox::new().await;
    let backend = inbox.with(HOUR_MS).await;
    for off in [3, -3] {
        let (committed, published) = (Uuid::new_v4(), Uuid::new_v4());
        inbox.marked("seen:h", committed, off, true);
        inbox.marked("ids", published, off, true);
        let found = backend.look_up(&inbox.subscription, &[committed], &[]).await.unwrap();
        assert_eq!(found.seen, [Some(HASH)], "{off} windows off");
        assert_eq!(inbox.commit(&*backend, committed).await, Settled::Duplicate, "{off} windows off");
        assert_eq!(inbox.publish(&*backend, published).await, Published::Duplicate, "{off} windows off");
        // The first commit of a window tidies up: what the clock alone calls over is not all forgotten.
        assert_eq!(inbox.commit(&*backend, Uuid::new_v4()).await, Settled::Committed);
        assert_eq!(inbox.commit(&*backend, committed).await, Settled::Duplicate, "{off} windows off");
    }
}

/// The version before kept no list of its buckets, and may still write beside this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_older_version_remembered_is_known() {
    let inbox = Inbox::new().await;
    let backend = inbox.with(HOUR_MS).await;
    for off in [-1, 0] {
        let id = Uuid::new_v4();
        inbox.marked("seen:h", id, off, false);
        assert_eq!(inbox.commit(&*backend, id).await, Settled::Duplicate, "{off}");
        assert_eq!(inbox.commit(&*backend, Uuid::new_v4()).await, Settled::Committed);
        assert_eq!(inbox.commit(&*backend, id).await, Settled::Duplicate, "{off}, after a commit of this one");
    }
}

/// What is over is removed as time goes on, and all that is left has a time to live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_that_are_over_are_removed() {
    let inbox = Inbox::new().await;
    // Old ones, the last of them just before this one, as if it had gone evenly.
    for off in -6..=-1 {
        inbox.marked("seen:h", Uuid::new_v4(), off, true);
    }
    let backend = inbox.with(HOUR_MS).await;
    assert_eq!(inbox.commit(&*backend, Uuid::new_v4()).await, Settled::Committed);
    let keys: Vec<String> = inbox.server.ask(&["KEYS", &format!("{}:*", inbox.base("seen:h"))]);
    let listed: Vec<String> = inbox.server.ask(&["HKEYS", &inbox.base("seen:h")]);
    assert_eq!((keys.len(), listed.len()), (2, 2), "this window and the one before: {keys:?} {listed:?}");
    let ttl: i64 = inbox.server.ask(&["PTTL", &inbox.base("seen:h")]);
    assert!(ttl > 2 * HOUR_MS as i64, "{ttl}");
}
