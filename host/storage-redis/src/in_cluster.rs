//! The scripts on a server in cluster mode (docs/decisions/0035): it refuses a script that touches a key of another slot
//! than that of its keys. The stories of the contract run against it, and the checks of `doctor`.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tidemill_conformance::{STORIES, options};
use tidemill_core::model::backend_url::BackendUrl;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{Backend, Diagnose, Level, Membership, Start};
use uuid::Uuid;

use super::{Redis, link, script, server};

/// Stories that emit to another stream than that of their subscription, which is in another slot. An outbox will mend
/// them.
const NEED_AN_OUTBOX: &[&str] = &[
    "fetch_wakes_for_emitted_and_replayed_events",
    "a_commit_applies_emits_state_inbox_and_ack_together",
    "emits_keep_their_order",
    "the_same_token_is_settled_once",
    "a_stranger_is_fenced",
    "what_is_settled_is_fenced_for_a_second_token",
    "a_fenced_entry_does_not_spoil_its_batch",
    "a_large_settlement_is_settled_whole",
    "settlements_side_by_side_do_not_mix",
    "a_duplicate_drops_its_effects",
    "a_duplicate_within_one_settlement_drops_its_effects",
    "a_conflict_stays_pending",
    "a_stale_state_version_stays_pending",
    "a_broken_chain_makes_its_followers_stale",
    "a_timer_is_set_by_the_commit_and_comes_back_once",
];

/// How long a server may take to come up.
const START_MAX: Duration = Duration::from_secs(20);

/// One node that has all slots. It ends with the test.
struct Node {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = std::env::var("TIDEMILL_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        // Both held at once, so that they differ. The second one is for other nodes, and by default too high a number.
        let held = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [port, bus] = held.map(|free| free.local_addr().expect("its address").port());
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--cluster-port", &bus.to_string(), "--cluster-enabled", "yes"])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs");
        let node = Self { child, url: format!("redis://127.0.0.1:{port}"), _folder: folder };
        let mut connection = node.client().await;
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("ADDSLOTSRANGE").arg(0).arg(16383);
        let _: () = slots.query_async(&mut connection).await.expect("it takes all slots");
        node.until(async |node| {
            let mut info = redis::cmd("CLUSTER");
            let info: String = info.arg("INFO").query_async(&mut node.client().await).await.expect("CLUSTER INFO");
            info.contains("cluster_state:ok").then_some(())
        })
        .await;
        node
    }

    async fn client(&self) -> MultiplexedConnection {
        let client = redis::Client::open(&*self.url).expect("a good url");
        self.until(async |_| client.get_multiplexed_async_connection().await.ok()).await
    }

    async fn until<T>(&self, ready: impl AsyncFn(&Self) -> Option<T>) -> T {
        let give_up = Instant::now() + START_MAX;
        loop {
            if let Some(found) = ready(self).await {
                return found;
            }
            assert!(Instant::now() < give_up, "redis-server does not come up as a cluster");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Without the check that refuses a cluster.
    fn open(&self) -> Redis {
        let client = server::client(&BackendUrl::from(self.url.clone())).expect("a client");
        let at = link::address(&client);
        Redis::new(client, at, options(), false, Arc::default())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of the stories that failed, with what they said.
async fn failed_stories(backend: &Arc<dyn Backend>) -> Vec<(&'static str, String)> {
    let mut failed = Vec::new();
    for (name, story) in STORIES {
        let Err(error) = tokio::spawn(story(backend.clone())).await else { continue };
        let said = error.into_panic();
        let text = said.downcast_ref::<String>().cloned();
        failed.push((
            *name,
            text.or_else(|| said.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default(),
        ));
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_script_touches_a_key_of_another_slot() {
    let node = Node::start().await;
    let redis = Arc::new(node.open());
    let backend: Arc<dyn Backend> = redis.clone();
    let failed = failed_stories(&backend).await;
    let unexpected: Vec<_> =
        failed.iter().filter(|(name, said)| !NEED_AN_OUTBOX.contains(name) || !said.contains("CROSSSLOT")).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    assert_eq!(failed.len(), NEED_AN_OUTBOX.len(), "take out of the list what passes: {failed:?}");

    let subscription = Subscription { stream: format!("s%-{}", Uuid::new_v4()).into(), handler: "h".into() };
    redis.ensure_group(&subscription, Start::Beginning).await.expect("ensure_group");
    redis.heartbeat("host", Duration::from_secs(60), "").await.expect("heartbeat");
    // Where an entry in the middle is gone, those behind it are counted.
    let mut connection = node.client().await;
    for id in ["1-1", "2-1", "3-1"] {
        let mut add = redis::cmd("XADD");
        let _: String = add
            .arg(&*subscription.stream)
            .arg(id)
            .arg("event")
            .arg("{}")
            .query_async(&mut connection)
            .await
            .expect("XADD");
    }
    let _: u64 =
        redis::cmd("XDEL").arg(&*subscription.stream).arg("2-1").query_async(&mut connection).await.expect("XDEL");
    assert_eq!(redis.status(&subscription).await.expect("status").lag, 2);

    let findings = redis.diagnose(&[subscription], &[]).await.expect("diagnose");
    let bad = |name: &str| name == "rights" || name == "streams";
    let bad: Vec<_> = findings.iter().filter(|finding| finding.level == Level::Bad && bad(finding.check)).collect();
    assert!(bad.is_empty(), "{bad:#?}");

    let unknown = script::unknown_to(&mut connection).await;
    assert!(unknown.is_empty(), "these scripts were not run: {unknown:?}");
}
