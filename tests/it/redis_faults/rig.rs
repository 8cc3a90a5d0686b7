//! A load on a world, the hosts that carry it, and the account at the end: what was asked for and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::proxy::Proxy;
use serde_json::json;
use tidemill_runtime::shutdown::{Shutdown, ShutdownTrigger};
use tidemill_schema::admit::payload_hash;
use tidemill_storage::{Error, NewEntry, SubscriptionStatus};
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::{QUICK, World, config, event};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Nothing here should take this long; what does is stuck.
pub(super) const STUCK: Duration = Duration::from_secs(90);
/// What a load puts in: so many events at a time, that often.
const PUT: usize = 20;
const PUT_EVERY: Duration = Duration::from_millis(40);
const KEYS: usize = 5;

pub(super) struct Rig {
    /// Reached directly, past the proxy.
    pub world: World,
    /// Between the hosts and the server.
    pub proxy: Proxy,
    asked: Mutex<Asked>,
}

/// What was published, and so what must come of it.
#[derive(Default, Clone)]
struct Asked {
    emits: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl Asked {
    fn total(&self) -> u64 {
        self.emits.len() as u64 + self.counts.values().sum::<u64>()
    }
}

impl Rig {
    pub(super) async fn new(server: &RedisServer) -> Arc<Self> {
        let proxy = Proxy::start(server.port).await;
        Arc::new(Self { world: World::new(&server.url(), QUICK).await, proxy, asked: Mutex::default() })
    }

    /// Publishes events, half of which emit and half of which count in their key's state. Each batch is sent until it
    /// is said to be there: the stream's own inbox keeps it from being there twice.
    pub(super) async fn put(&self, count: usize) {
        let (mut entries, mut asked) = (Vec::new(), Asked::default());
        for number in 0..count {
            let (id, key) = (Uuid::new_v4(), format!("k{}", number % KEYS));
            let data = if number % 2 == 0 {
                asked.emits.push(id.to_string());
                json!({ "do": "emit-many", "count": 1, "key": key })
            } else {
                *asked.counts.entry(key.clone()).or_default() += 1;
                json!({ "do": "state-count", "key": key })
            };
            let body = event(id, data).to_string();
            entries.push(NewEntry { dedup_key: Some((id, payload_hash(body.as_bytes()))), body: body.into() });
        }
        let give_up = Instant::now() + STUCK;
        while let Err(error) = self.world.backend.publish(&self.world.asked, &entries).await {
            assert!(error.is_transient() && Instant::now() < give_up, "cannot publish: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut all = self.asked.lock().unwrap();
        all.emits.extend(asked.emits);
        asked.counts.into_iter().for_each(|(key, count)| *all.counts.entry(key).or_default() += count);
    }

    /// Publishes on and on, until it is stopped.
    pub(super) fn load(self: &Arc<Self>) -> Load {
        let (rig, on) = (self.clone(), Arc::new(AtomicBool::new(true)));
        let going_on = on.clone();
        let task = tokio::spawn(async move {
            while going_on.load(Ordering::Relaxed) {
                rig.put(PUT).await;
                tokio::time::sleep(PUT_EVERY).await;
            }
        });
        Load { on, task }
    }

    /// Starts hosts behind the proxy, and waits until they fetch.
    pub(super) async fn hosts(&self, count: usize) -> Hosts {
        self.hosts_by(&self.proxy.url(), count).await
    }

    pub(super) async fn hosts_by(&self, url: &str, count: usize) -> Hosts {
        let (trigger, shutdown) = ShutdownTrigger::new();
        let trigger = Arc::new(trigger);
        let mut tasks = Vec::new();
        for _ in 0..count {
            // Each has connections of its own.
            let world = self.world.by(url).await;
            let (trigger, shutdown): (Arc<ShutdownTrigger>, Shutdown) = (trigger.clone(), shutdown.clone());
            tasks.push(tokio::spawn(async move { world.host_until(trigger, shutdown, false).await }));
        }
        self.fetching(count).await;
        Hosts { trigger, tasks }
    }

    /// Waits until so many hosts wait for entries: none is to be heard of before.
    pub(super) async fn fetching(&self, hosts: usize) {
        let client = redis::Client::open(self.world.config.backend.url.expose()).expect("a good url");
        let mut redis = client.get_multiplexed_async_connection().await.expect("a connection");
        let give_up = Instant::now() + STUCK;
        loop {
            let info: String = redis::cmd("INFO").arg("clients").query_async(&mut redis).await.unwrap_or_default();
            let blocked = info.lines().find_map(|line| line.strip_prefix("blocked_clients:")?.parse().ok());
            if blocked.unwrap_or(0) >= hosts {
                return;
            }
            assert!(Instant::now() < give_up, "the hosts do not fetch: {info}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the counters say so.
    pub(super) async fn wait_for(
        &self,
        what: &str,
        wanted: impl Fn(&SubscriptionStatus) -> bool,
    ) -> SubscriptionStatus {
        let give_up = Instant::now() + STUCK;
        loop {
            let status = self.world.backend.status(&self.world.subscription).await;
            match &status {
                Ok(status) if wanted(status) => return *status,
                _ => assert!(Instant::now() < give_up, "waited for {what}: {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until so many events are committed.
    pub(super) async fn committed(&self, count: u64) {
        self.wait_for("commits", |status| status.committed >= count).await;
    }

    /// Waits until nothing waits any more, stops the hosts, and counts.
    pub(super) async fn settle_accounts(&self, hosts: Hosts) {
        let total = self.total();
        self.wait_for("the end", |status| status.published >= total && status.waiting() == 0).await;
        hosts.stop().await;
        self.check().await;
    }

    pub(super) fn total(&self) -> u64 {
        self.asked.lock().unwrap().total()
    }

    /// One effect for each event that was published, and no attempt burned.
    pub(super) async fn check(&self) {
        let asked = self.asked.lock().unwrap().clone();
        let status = self.world.status().await;
        let found = (status.published, status.committed, status.skipped, status.retried, status.dead, status.dropped);
        assert_eq!(found, (asked.total(), asked.total(), 0, 0, 0, 0), "{status:?}");
        let mut causes: HashMap<String, usize> = HashMap::new();
        for emitted in self.emitted().await {
            *causes.entry(emitted).or_default() += 1;
        }
        let lost: Vec<_> = asked.emits.iter().filter(|id| !causes.contains_key(*id)).collect();
        let doubled: Vec<_> = causes.iter().filter(|(_, times)| **times > 1).collect();
        assert!(lost.is_empty() && doubled.is_empty(), "lost: {lost:?}\ndoubled: {doubled:?}");
        assert_eq!(causes.len(), asked.emits.len(), "events came out that nobody asked for");
        for (key, count) in &asked.counts {
            assert_eq!(self.world.count(key).await, Some(json!(count)), "the state of {key}");
        }
    }

    /// The causes of all events that came out.
    pub(super) async fn emitted(&self) -> Vec<String> {
        let (mut causes, mut after) = (Vec::new(), None);
        loop {
            let page = self.world.backend.entries(&self.world.done, after, 5000).await.expect("entries");
            let Some((last, _)) = page.last() else { return causes };
            after = Some(*last);
            for (_, bytes) in &page {
                let event: serde_json::Value = serde_json::from_slice(bytes).expect("an emitted event is JSON");
                causes.push(event["causation_id"].as_str().expect("a cause").to_owned());
            }
        }
    }
}

pub(super) struct Load {
    on: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Load {
    pub(super) async fn stop(self) {
        self.on.store(false, Ordering::Relaxed);
        self.task.await.expect("the load");
    }
}

pub(super) struct Hosts {
    trigger: Arc<ShutdownTrigger>,
    tasks: Vec<JoinHandle<Result<(), Error>>>,
}

impl Hosts {
    pub(super) async fn stop(self) {
        self.trigger.trigger();
        for task in self.tasks {
            task.await.expect("the host does not panic").expect("the host ends well");
        }
    }
}

/// A host that is a process of its own, for what can only be seen from outside.
pub(super) struct Process {
    child: Child,
    folder: tempfile::TempDir,
}

impl Process {
    pub(super) fn start(world: &World, url: &str, log: &str) -> Self {
        let suffix = world.asked.trim_start_matches("asked-");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidemill.toml");
        let schemas = format!("path = \"{}\"", tidemill_testkit::root().join("tests/schemas").display());
        let text = config(url, &tidemill_testkit::guest("mischief"), suffix, QUICK, "");
        std::fs::write(&file, text.replace("path = \"tests/schemas\"", &schemas)).unwrap();
        let said = File::create(folder.path().join("said")).unwrap();
        let mut command = tidemill_testkit::tidemill();
        command.args(["run", "--config"]).arg(&file).env("RUST_LOG", log);
        let child = command.stdout(Stdio::null()).stderr(said).spawn().expect("the host starts");
        Self { child, folder }
    }

    pub(super) fn said(&self) -> String {
        let path: PathBuf = self.folder.path().join("said");
        std::fs::read_to_string(path).unwrap()
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}
