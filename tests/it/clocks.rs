//! The wall clock is set while hosts work: the server's on Redis, the machine's on SQLite. Nothing comes early or waits for
//! hours, nobody is taken for dead, and what the dead left is found.

use std::collections::HashSet;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tidemill_core::model::delivery::{Delivery, Subscription};
use tidemill_runtime::gaps::HEARTBEAT_TTL;
use tidemill_runtime::shutdown::ShutdownTrigger;
use tidemill_storage::{Backend, Bounds, Error, NewEntry, Options, Overflow, Start, SubscriptionStatus};
use tidemill_testkit::clock::Clock;
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::{self, World, event};
use uuid::Uuid;

const HOURS: Duration = Duration::from_secs(3 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Long past any honest answer, and far less than any step of a clock here.
const SOON: Duration = Duration::from_secs(60);
/// Long enough for what is wrong to show: the scheduler looks every second.
const WHILE: Duration = Duration::from_secs(4);
const ONE_RETRY: &str = "retry = { max = 1 }";

async fn waits_for(
    backend: &Arc<dyn Backend>,
    subscription: &Subscription,
    what: &str,
    is_so: impl Fn(&SubscriptionStatus) -> bool,
) {
    let give_up = Instant::now() + SOON;
    loop {
        let status = match backend.status(subscription).await {
            // A host makes it when it starts.
            Err(Error::GroupGone { .. }) => SubscriptionStatus::default(),
            status => status.expect("status"),
        };
        if is_so(&status) {
            assert!(status.balances(), "{status:?}");
            return;
        }
        assert!(Instant::now() < give_up, "{what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A world whose server goes by a clock, with a host at work in it.
async fn on_redis(story: impl AsyncFn(&World, &Clock)) {
    let clock = Arc::new(Clock::new());
    let server = RedisServer::start_by(&clock, &["--save", "", "--appendonly", "no"]);
    let world = Arc::new(World::new(&server.url(), ONE_RETRY).await);
    let (trigger, shutdown) = ShutdownTrigger::new();
    let trigger = Arc::new(trigger);
    let host = tokio::spawn({
        let (world, trigger) = (world.clone(), trigger.clone());
        async move { world.host_until(trigger, shutdown, false).await }
    });
    world.ask(json!({ "do": "ok" })).await;
    waits_for(&world.backend, &world.subscription, "the host is at work", |status| status.committed == 1).await;
    story(&world, &clock).await;
    trigger.trigger();
    host.await.expect("no panic").expect("a run");
}

async fn until(world: &World, what: &str, is_so: impl Fn(&SubscriptionStatus) -> bool) {
    waits_for(&world.backend, &world.subscription, what, is_so).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_waits_for_its_own_delay_when_the_server_s_clock_is_put_back() {
    on_redis(async |world, clock| {
        world.ask(json!({ "do": "retry-after", "after_ms": 1500 })).await;
        until(world, "the retry waits", |status| status.due == 1).await;
        clock.behind(HOURS);
        until(world, "the retry has come", |status| status.dead == 1).await;
        // And once more, on the clock that was put back, and put right again.
        world.ask(json!({ "do": "retry-after", "after_ms": 1500 })).await;
        until(world, "the second retry waits", |status| status.due == 1 || status.dead == 2).await;
        clock.right();
        until(world, "the second retry has come", |status| status.dead == 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_retry_and_no_timer_comes_early_when_the_server_s_clock_is_put_forward() {
    on_redis(async |world, clock| {
        world.ask(json!({ "do": "retry-after", "after_ms": 3_600_000 })).await;
        world.ask(json!({ "do": "timer", "after_ms": 3_600_000, "then": { "do": "ok" } })).await;
        until(world, "both wait", |status| status.due == 2).await;
        tokio::time::sleep(WHILE).await;
        clock.ahead(HOURS);
        tokio::time::sleep(WHILE).await;
        until(world, "both wait still", |status| (status.due, status.redelivery, status.dead) == (2, 0, 0)).await;
        // What is put off from now on waits for its own delay, too; so it does when the clock is put right.
        world.ask(json!({ "do": "retry-after", "after_ms": 1500 })).await;
        until(world, "a quick one has come", |status| status.dead == 1).await;
        world.ask(json!({ "do": "retry-after", "after_ms": 1500 })).await;
        until(world, "another one waits", |status| status.due == 3 || status.dead == 2).await;
        clock.right();
        until(world, "it has come", |status| status.dead == 2).await;
        assert_eq!(world.status().await.due, 2, "the others wait still");
    })
    .await;
}

fn options() -> Options {
    tidemill_conformance::options()
}

/// Two consumers of one subscription on a server that goes by a clock: each has its own backend, as hosts have.
struct Pair {
    clock: Arc<Clock>,
    server: RedisServer,
    subscription: Subscription,
    one: Arc<dyn Backend>,
    other: Arc<dyn Backend>,
}

impl Pair {
    async fn new() -> Self {
        let clock = Arc::new(Clock::new());
        let server = RedisServer::start_by(&clock, &["--save", "", "--appendonly", "no"]);
        let subscription = Subscription { stream: "s".into(), handler: "h".into() };
        let one = tidemill::backends::open(&server.url(), options()).await.expect("a backend");
        let other = tidemill::backends::open(&server.url(), options()).await.expect("a backend");
        one.ensure_group(&subscription, Start::Beginning).await.expect("a group");
        Self { clock, server, subscription, one, other }
    }

    /// An event in the hands of the one.
    async fn in_flight(&self) -> Delivery {
        let entry = NewEntry { body: "x".into(), dedup_key: None };
        self.one.publish("s", &[entry]).await.expect("published");
        let got = self.one.fetch(&self.subscription, "one", 1, SOON).await.expect("fetched");
        got.deliveries.into_iter().next().expect("one delivery")
    }

    async fn recovered(&self, lease: Duration) -> usize {
        let none = HashSet::new();
        self.other.recover(&self.subscription, "other", &none, lease, 10).await.expect("recover").deliveries.len()
    }
}

/// Reaches `HEARTBEAT_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_host_held_is_found_when_the_server_s_clock_is_put_back() {
    let pair = Pair::new().await;
    pair.one.heartbeat("one", HEARTBEAT_TTL, "").await.expect("beat");
    let _held = pair.in_flight().await;
    // It had looked after what others left, too: that is a lease of its own.
    let none = HashSet::new();
    pair.one.recover(&pair.subscription, "one", &none, SOON, 10).await.expect("recover");
    assert!((1..=3000).contains(&pair.server.ask::<i64>(&["PTTL", "{s}:tm:reclaimer:h"])));
    pair.clock.behind(HOURS);
    assert!(pair.server.ask::<i64>(&["PTTL", "{tm}:host:one"]) > 3_600_000, "its heartbeat would last for hours");
    let give_up = Instant::now() + 2 * SOON;
    while pair.recovered(Duration::from_secs(1)).await == 0 {
        assert!(Instant::now() < give_up, "what the dead host held is in nobody's hands");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_taken_for_dead_when_the_server_s_clock_is_put_forward() {
    let pair = Pair::new().await;
    pair.one.heartbeat("one", HEARTBEAT_TTL, "").await.expect("beat");
    let _held = pair.in_flight().await;
    let lease = Duration::from_secs(1);
    assert_eq!(pair.recovered(lease).await, 0);
    pair.clock.ahead(HOURS);
    assert_eq!(pair.server.ask::<i64>(&["EXISTS", "{tm}:host:one"]), 0, "its heartbeat has run out");
    assert_eq!(pair.recovered(lease).await, 0, "it had no time to say that it lives");
    let since = Instant::now();
    while since.elapsed() < HEARTBEAT_TTL + Duration::from_secs(2) {
        pair.one.heartbeat("one", HEARTBEAT_TTL, "").await.expect("beat");
        assert_eq!(pair.recovered(lease).await, 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Now it falls silent.
    let give_up = Instant::now() + SOON;
    while pair.recovered(lease).await == 0 {
        assert!(Instant::now() < give_up, "a dead host is found all the same");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Reaches `STEP_MS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wrong_clock_alone_drops_nothing_that_is_not_finished() {
    let pair = Pair::new().await;
    let _held = pair.in_flight().await;
    let bounds = Bounds { retention: Some(Duration::from_secs(3600)), overflow: Overflow::Drop, ..Bounds::default() };
    pair.clock.ahead(HOURS);
    let trimmed = pair.one.trim("s", &bounds).await.expect("trim");
    assert_eq!((trimmed.removed, trimmed.lost, trimmed.length), (0, 0, 1), "the server's clock is wrong");
    pair.clock.right();
    pair.server.ask::<String>(&["XADD", "old", "1000-0", "event", "x"]);
    let trimmed = pair.one.trim("old", &bounds).await.expect("trim");
    assert_eq!((trimmed.removed, trimmed.length), (1, 0), "both clocks say that it is old");
}

/// A host as a process that goes by a clock, on a SQLite file.
struct OnFile {
    clock: Clock,
    folder: tempfile::TempDir,
    backend: Arc<dyn Backend>,
    subscription: Subscription,
    suffix: String,
}

impl OnFile {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let suffix = Uuid::new_v4().simple().to_string();
        let url = format!("sqlite:{}", folder.path().join("clock.db").display());
        let schemas = tidemill_testkit::root().join("tests/schemas");
        let text = world::config(&url, &tidemill_testkit::guest("mischief"), &suffix, ONE_RETRY, "");
        let text = text.replace("tests/schemas", &schemas.display().to_string());
        std::fs::write(folder.path().join("t.toml"), text).expect("written");
        let backend = tidemill::backends::open(&url, options()).await.expect("a backend");
        let subscription = Subscription { stream: format!("asked-{suffix}").into(), handler: "mischief".into() };
        Self { clock: Clock::new(), folder, backend, subscription, suffix }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = tidemill_testkit::tidemill();
        self.clock.of(&mut command);
        command.args(args).arg("--config").arg(self.folder.path().join("t.toml")).env("NO_COLOR", "1");
        command.stdin(Stdio::null());
        command
    }

    fn host(&self) -> Running {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        Running(self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().expect("a host"))
    }

    async fn put(&self, event: &serde_json::Value) {
        let entry = NewEntry { body: event.to_string().into(), dedup_key: None };
        self.backend.publish(&format!("asked-{}", self.suffix), &[entry]).await.expect("published");
    }

    async fn until(&self, what: &str, is_so: impl Fn(&SubscriptionStatus) -> bool) {
        waits_for(&self.backend, &self.subscription, what, is_so).await;
    }

    fn doctor(&self) -> String {
        let told = self.command(&["doctor"]).output().expect("doctor runs");
        String::from_utf8_lossy(&told.stdout).into_owned()
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_all_goes_on_evenly_when_the_machine_s_clock_is_set() {
    let file = OnFile::new().await;
    file.backend.ensure_group(&file.subscription, Start::Beginning).await.expect("a group");
    // Somebody has died with a delivery in hand, by the right clock.
    let once = event(Uuid::new_v4(), json!({ "do": "ok" }));
    file.put(&once).await;
    file.backend.heartbeat("ghost", Duration::from_millis(1), "").await.expect("beat");
    let got = file.backend.fetch(&file.subscription, "ghost", 1, SOON).await.expect("fetched");
    assert_eq!(got.deliveries.len(), 1);
    file.clock.behind(DAY);
    let host = file.host();
    file.until("what the dead one held is done", |status| status.committed == 1).await;
    file.put(&event(Uuid::new_v4(), json!({ "do": "retry-after", "after_ms": 3_600_000 }))).await;
    file.until("a retry waits", |status| status.due == 1).await;
    file.clock.ahead(DAY);
    tokio::time::sleep(WHILE).await;
    file.put(&once).await;
    file.until("the window holds", |status| status.duplicates == 1 && status.committed == 1).await;
    file.put(&event(Uuid::new_v4(), json!({ "do": "retry-after", "after_ms": 1500 }))).await;
    file.until("a second retry waits", |status| status.due == 2 || status.dead == 1).await;
    file.clock.behind(DAY);
    file.until("it has come", |status| status.dead == 1).await;
    file.until("the first one waits still", |status| status.due == 1).await;
    // The next heartbeat notes it.
    let give_up = Instant::now() + SOON;
    while !file.doctor().contains("this machine's clock was put back by") {
        assert!(Instant::now() < give_up, "{}", file.doctor());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(host);
    let _next = file.host();
    file.put(&once).await;
    file.until("the next host knows the window", |status| status.duplicates == 2).await;
}
