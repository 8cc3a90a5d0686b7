//! A backend that refuses what a plugin asked for: the plugin is never called a second time for that, its neighbours are
//! settled, and what was decided takes effect once the cause is gone. Each call of the plugin is a request to a real
//! service, which counts them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill_storage::{Error, SubscriptionStatus};
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::service::Service;
use tidemill_testkit::world::{NO_RETRY, World};
use tokio::task::JoinHandle;

const VOLATILE: [&str; 4] = ["--save", "", "--appendonly", "no"];
/// The highest of all ids: the stream that has it takes no more entries.
const LAST_ID: &str = "18446744073709551615-18446744073709551615";
/// Longer than a host takes to look twice for what nobody holds: whatever would be run again is by then.
const TWO_LOOKS: Duration = Duration::from_secs(7);
/// What takes longer is stuck.
const STUCK: Duration = Duration::from_secs(90);
/// Beside its grants; its tables come behind.
const PATIENT: &str = "retry = { max = 0 }\ndeadline = \"20s\"\nbreaker = { failure_rate = 2 }";

/// A world whose guest asks the service and then emits, writes state, or does nothing else.
struct Scene {
    world: Arc<World>,
    service: Service,
}

struct Host {
    trigger: Arc<tidemill_runtime::shutdown::ShutdownTrigger>,
    task: JoinHandle<Result<(), Error>>,
}

impl Host {
    async fn stop(self) {
        self.trigger.trigger();
        self.task.await.expect("the host does not panic").expect("the host ends well");
    }
}

impl Scene {
    async fn new(url: &str) -> Self {
        let service = Service::start();
        let grants = format!("http = [\"* {}\"]\nsecrets = []", service.url("/*"));
        let mut world = World::of(&tidemill_testkit::guest("caller"), url, PATIENT, &grants).await;
        world.config.host.http_private = vec!["127.0.0.1/32".to_owned().into()];
        Self { world: Arc::new(world), service }
    }

    async fn ask(&self, what: &str, key: &str) {
        self.ask_at("/status/200", what, key).await;
    }

    async fn ask_at(&self, path: &str, what: &str, key: &str) {
        let mut data = json!({ "do": what, "method": "POST", "url": self.service.url(path) });
        if !key.is_empty() {
            data["key"] = key.into();
        }
        self.world.ask(data).await;
    }

    fn host(&self) -> Host {
        Self::host_of(self.world.clone())
    }

    fn host_of(world: Arc<World>) -> Host {
        let (trigger, shutdown) = tidemill_runtime::shutdown::ShutdownTrigger::new();
        let trigger = Arc::new(trigger);
        let turned = trigger.clone();
        Host { trigger, task: tokio::spawn(async move { world.host_until(turned, shutdown, false).await }) }
    }

    async fn wait_for(&self, what: &str, wanted: impl Fn(&SubscriptionStatus) -> bool) -> SubscriptionStatus {
        let give_up = Instant::now() + STUCK;
        loop {
            match self.world.backend.status(&self.world.subscription).await {
                Ok(status) if wanted(&status) => return status,
                status => assert!(Instant::now() < give_up, "waited for {what}: {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn calls(&self) -> usize {
        self.service.asked().len()
    }

    /// The numbers that were told, in the order of the stream.
    async fn told(&self) -> Vec<i64> {
        self.world.emitted().await.iter().map(|event| event["data"]["n"].as_i64().expect("a number")).collect()
    }

    /// What this host says that it keeps.
    fn kept(&self) -> f64 {
        let metrics = tidemill_runtime::observe::metrics::render(|_| {});
        let row = format!("tidemill_refused_kept{{handler=\"mischief\",stream=\"{}\"}} ", self.world.asked);
        let found = metrics.lines().find_map(|line| line.strip_prefix(&row)?.parse().ok());
        found.unwrap_or_else(|| panic!("no {row} in\n{metrics}"))
    }

    /// Five events whose emits are refused, among ten that emit nothing. Nothing is called twice, the ten are committed;
    /// once `mend` has done its work, the five are, too, with no second call.
    async fn refused_until(&self, mend: impl AsyncFnOnce()) {
        for number in 0..15 {
            self.ask(if number % 3 == 0 { "call" } else { "ok" }, "").await;
        }
        let host = self.host();
        self.wait_for("the neighbours", |status| status.committed == 10).await;
        tokio::time::sleep(TWO_LOOKS).await;
        let status = self.world.status().await;
        let found = (status.committed, status.pending, status.retried, status.dead);
        assert_eq!(found, (10, 5, 0, 0), "{status:?}");
        assert_eq!((self.calls(), self.kept()), (15, 5.0), "each was called once");
        mend().await;
        self.wait_for("what was kept", |status| status.waiting() == 0).await;
        host.stop().await;
        let status = self.world.status().await;
        assert_eq!((status.committed, status.retried, status.dead), (15, 0, 0), "{status:?}");
        assert_eq!((self.calls(), self.told().await), (15, vec![200; 5]), "and no second time");
        assert_eq!(self.kept(), 0.0);
    }
}

fn exhaust(server: &RedisServer, stream: &str) {
    server.ask::<String>(&["XADD", stream, LAST_ID, "event", "x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_exhausted_target_delays_only_what_emitted_to_it() {
    let server = RedisServer::start(&VOLATILE);
    let scene = Scene::new(&server.url()).await;
    exhaust(&server, &scene.world.done);
    scene.refused_until(async || server.ask::<()>(&["DEL", &scene.world.done])).await;
}

/// Then no entry tells of it, and adding one fails in the middle of a settlement.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_target_whose_last_entry_was_deleted_delays_only_what_emitted_to_it() {
    let server = RedisServer::start(&VOLATILE);
    let scene = Scene::new(&server.url()).await;
    exhaust(&server, &scene.world.done);
    server.ask::<()>(&["XDEL", &scene.world.done, LAST_ID]);
    scene.refused_until(async || server.ask::<()>(&["DEL", &scene.world.done])).await;
    assert_eq!(scene.world.status().await.torn, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_target_of_the_wrong_type_delays_only_what_emitted_to_it() {
    let server = RedisServer::start(&VOLATILE);
    let scene = Scene::new(&server.url()).await;
    server.ask::<()>(&["SET", &scene.world.done, "no stream"]);
    scene.refused_until(async || server.ask::<()>(&["DEL", &scene.world.done])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_target_that_may_not_be_written_delays_only_what_emitted_to_it() {
    let server = RedisServer::start(&VOLATILE);
    let mut scene = Scene::new(&server.url()).await;
    let rights = ["~asked-*", "~{asked-*", "~{tm}:*", "&*", "+@all"];
    let url = server.user("worker", &rights);
    let mut world = scene.world.by(&url).await;
    // Looking is done by another user, who may.
    world.config.backend.url = url.into();
    scene.world = Arc::new(world);
    let looks = Arc::new(scene.world.by(&server.url()).await);
    let scene = Looked { scene, looks };
    scene.refused_until(&server).await;
}

/// A scene whose host has other rights than who looks.
struct Looked {
    scene: Scene,
    looks: Arc<World>,
}

impl Looked {
    async fn refused_until(self, server: &RedisServer) {
        let Self { scene, looks } = self;
        for what in ["call", "ok", "ok", "call"] {
            scene.ask(what, "").await;
        }
        let host = scene.host();
        scene.wait_for("the neighbours", |status| status.committed == 2).await;
        tokio::time::sleep(TWO_LOOKS).await;
        let status = scene.world.status().await;
        assert_eq!((status.committed, status.pending, status.dead), (2, 2, 0), "{status:?}");
        assert_eq!((scene.calls(), scene.kept()), (4, 2.0), "each was called once");
        server.ask::<()>(&["ACL", "SETUSER", "worker", "~*"]);
        scene.wait_for("what was kept", |status| status.waiting() == 0).await;
        host.stop().await;
        assert_eq!((scene.calls(), looks.emitted().await.len()), (4, 2), "and no second time");
    }
}

/// A trigger stands in for whatever makes the file refuse: root may write to files that nobody may.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sqlite_file_that_refuses_delays_only_what_it_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.db");
    let scene = Scene::new(&format!("sqlite:{}", file.display())).await;
    let sqlite = |sql: &str| {
        let conn = rusqlite::Connection::open(&file).unwrap();
        conn.busy_timeout(Duration::from_secs(10)).unwrap();
        conn.execute_batch(sql).unwrap();
    };
    sqlite(&format!(
        "CREATE TRIGGER closed BEFORE INSERT ON entries
         WHEN NEW.stream = (SELECT id FROM streams WHERE name = '{}')
         BEGIN SELECT RAISE(ABORT, 'closed'); END",
        scene.world.done
    ));
    scene.refused_until(async || sqlite("DROP TRIGGER closed")).await;
}

/// The events of one key see each other's state, also where one in the middle is refused: in one batch, and in later ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_order_of_a_key_holds_behind_what_was_refused() {
    let server = RedisServer::start(&VOLATILE);
    let scene = Scene::new(&server.url()).await;
    exhaust(&server, &scene.world.done);
    let of_k = ["call-count", "count-tell", "call-count", "count-tell"].map(|what| (what, "k"));
    for (what, key) in of_k.into_iter().chain([("call-count", "other"); 2]) {
        scene.ask(what, key).await;
    }
    let host = scene.host();
    scene.wait_for("the first of k, and the other key", |status| status.committed == 3).await;
    scene.ask("call-count", "k").await;
    scene.ask("call-count", "other").await;
    scene.wait_for("the other key", |status| status.committed == 4).await;
    tokio::time::sleep(TWO_LOOKS).await;
    let status = scene.world.status().await;
    assert_eq!((status.committed, status.pending), (4, 4), "{status:?}");
    assert_eq!((scene.calls(), scene.kept()), (7, 4.0), "four of k, three of the other; the fifth of k waits");
    server.ask::<()>(&["DEL", &scene.world.done]);
    scene.wait_for("what was kept", |status| status.waiting() == 0).await;
    host.stop().await;
    assert_eq!((scene.calls(), scene.told().await), (8, vec![2, 4]), "only the fifth was called");
    let counts = (scene.world.count("k").await, scene.world.count("other").await);
    assert_eq!(counts, (Some(json!(5)), Some(json!(3))));
}

/// There is a bound to what is kept. The oldest go as dead letters of a class of their own, and can be replayed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn beyond_the_bound_the_oldest_become_dead_letters() {
    let server = RedisServer::start(&VOLATILE);
    let world = Arc::new(World::new(&server.url(), &format!("{NO_RETRY}\nbreaker = {{ failure_rate = 2 }}")).await);
    exhaust(&server, &world.done);
    for _ in 0..1100 {
        world.ask(json!({ "do": "emit-many", "count": 1 })).await;
    }
    let host = Scene::host_of(world.clone());
    let give_up = Instant::now() + STUCK;
    loop {
        let status = world.backend.status(&world.subscription).await.unwrap_or_default();
        if (status.lag, status.pending, status.dead) == (0, 1000, 100) {
            break;
        }
        assert!(Instant::now() < give_up, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let letters = world.dead().await;
    let said = format!("{}: {}", letters[0].reason.class, letters[0].reason.text);
    assert!(said.starts_with("refused: the backend refused what it would have committed: "), "{said}");
    assert!(said.contains("takes no more entries") && said.contains("; hint: "), "{said}");
    server.ask::<()>(&["DEL", &world.done]);
    while world.status().await.waiting() > 0 {
        assert!(Instant::now() < give_up, "{:?}", world.status().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    host.stop().await;
    let status = world.status().await;
    assert_eq!((status.committed, status.dead, world.emitted_count().await), (1000, 100, 1000), "{status:?}");
}

/// The breaker opens when the backend refuses all, so that no more is called for it, and closes when it does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_breaker_opens_only_when_every_settlement_is_refused() {
    let server = RedisServer::start(&VOLATILE);
    let breaker = "breaker = { failure_rate = 0.5, min_events = 10, open_for = \"1h\" }";
    for neighbours in [true, false] {
        let mut world = World::new(&server.url(), &format!("{NO_RETRY}\n{breaker}")).await;
        world.config.host.batch = 20;
        let world = Arc::new(world);
        exhaust(&server, &world.done);
        for number in 0..200 {
            let emits = !neighbours || number % 2 == 0;
            let data: Value = if emits { json!({ "do": "emit-many", "count": 1 }) } else { json!({ "do": "ok" }) };
            world.ask(data).await;
        }
        let host = Scene::host_of(world.clone());
        tokio::time::sleep(Duration::from_secs(4)).await;
        let status = world.status().await;
        match neighbours {
            true => assert_eq!((status.committed, status.pending, status.lag), (100, 100, 0), "{status:?}"),
            false => {
                assert!(status.pending <= 60 && status.lag >= 140, "the fetching stops: {status:?}");
                let subscriptions = [world.subscription.clone()];
                let hosts = tidemill_runtime::heartbeat::hosts(&*world.backend, &subscriptions).await.unwrap();
                let note = hosts.iter().flat_map(|host| &host.handlers).find(|note| note.refused > 0).expect("a note");
                assert_eq!((&*note.breaker, note.refused as u64), ("open", status.pending), "{note:?}");
                assert!(note.refusal.contains("takes no more entries"), "{note:?}");
            }
        }
        server.ask::<()>(&["DEL", &world.done]);
        let give_up = Instant::now() + STUCK;
        while world.status().await.waiting() > 0 {
            assert!(Instant::now() < give_up, "{:?}", world.status().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        host.stop().await;
    }
}

/// A full memory is no refusal: the settlement waits, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_memory_calls_nothing_twice() {
    let server = RedisServer::start(&VOLATILE);
    let scene = Scene::new(&server.url()).await;
    scene.ask_at("/hang", "call", "").await;
    for _ in 0..4 {
        scene.ask("call", "").await;
    }
    let host = scene.host();
    let give_up = Instant::now() + STUCK;
    while scene.calls() == 0 {
        assert!(Instant::now() < give_up, "nothing was called");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.config_set("maxmemory", "1mb");
    scene.service.release();
    tokio::time::sleep(TWO_LOOKS).await;
    assert_eq!((scene.world.status().await.committed, scene.calls()), (0, 5));
    server.config_set("maxmemory", "0");
    scene.wait_for("all", |status| status.committed == 5).await;
    host.stop().await;
    assert_eq!((scene.calls(), scene.told().await.len()), (5, 5), "each was called once");
}

/// Who ends with something kept leaves it pending, and says nothing that is not so: the next host runs it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_host_that_ends_leaves_what_it_kept_to_the_next() {
    let server = RedisServer::start(&VOLATILE);
    let scene = Scene::new(&server.url()).await;
    exhaust(&server, &scene.world.done);
    scene.ask("call", "").await;
    let host = scene.host();
    scene.wait_for("the fetch", |status| status.pending == 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    host.stop().await;
    assert_eq!((scene.world.status().await.waiting(), scene.calls()), (1, 1));
    server.ask::<()>(&["DEL", &scene.world.done]);
    scene.world.run().await;
    assert_eq!((scene.calls(), scene.told().await), (2, vec![200]), "a call of the next host, one effect");
}
