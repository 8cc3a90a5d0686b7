//! Settings that are rolled out host by host: hosts of unlike configuration beside each other, as processes, and routes that
//! are narrowed while something waits.

use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tidemill_conformance::options;
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::gaps::HEARTBEAT_TTL;
use tidemill_storage::{Backend, NewEntry, SubscriptionStatus};
use tidemill_testkit::ledger::host::Host;
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::event;
use uuid::Uuid;

/// What takes longer is stuck.
const STUCK: Duration = Duration::from_secs(120);
const NARROW: &str = r#"["Test.Thing.Asked"]"#;
const WIDE: &str = r#"["Test.Thing.Asked", "Test.Thing.Done"]"#;
const HOUR: &str = "1h";

/// Hosts on one backend, each with a configuration of its own.
struct Fleet {
    folder: tempfile::TempDir,
    url: String,
    subscription: Subscription,
    backend: Arc<dyn Backend>,
}

/// What differs between the configurations of a fleet.
#[derive(Clone, Copy)]
struct Settings {
    events: &'static str,
    key: &'static str,
    window: &'static str,
}

const OLD: Settings = Settings { events: NARROW, key: "/data/key", window: HOUR };

impl Fleet {
    async fn on_redis() -> Self {
        Self::new(tempfile::tempdir().unwrap(), RedisServer::shared().url()).await
    }

    async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("fleet.db").display());
        Self::new(folder, url).await
    }

    async fn new(folder: tempfile::TempDir, url: String) -> Self {
        let stream = format!("all-{}", Uuid::new_v4().simple());
        let subscription = Subscription { stream: stream.as_str().into(), handler: "mischief".into() };
        let backend = tidemill::backends::open(&url, options()).await.unwrap();
        Self { folder, url, subscription, backend }
    }

    fn file(&self, name: &str, settings: Settings) -> PathBuf {
        let Settings { events, key, window } = settings;
        let (stream, url) = (&self.subscription.stream, &self.url);
        let schemas = tidemill_testkit::root().join("tests/schemas");
        let plugin = tidemill_testkit::guest("mischief");
        let text = format!(
            r#"
            [backend]
            url = "{url}"
            [schemas]
            path = "{}"
            [streams."{stream}"]
            events = ["Test.Thing.*"]
            [idempotency]
            window = "{window}"
            [handlers.mischief]
            plugin = "{}"
            events = {events}
            key = "{key}"
            retry = {{ max = 3, base = "2s", factor = 1, cap = "2s" }}
            [handlers.mischief.grants]
            emit = ["Test.Thing.Done"]
            state = true
            timer = true
            "#,
            schemas.display(),
            plugin.display()
        );
        let file = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        file
    }

    fn host(&self, name: &str, settings: Settings) -> Host {
        let mut host =
            Host::start(&self.file(name, settings), &self.folder.path().join(format!("{name}.log")), &["run"], None);
        host.wait_for_consumer();
        host
    }

    fn command(&self, settings: Settings, args: &[&str]) -> Output {
        let mut command = tidemill_testkit::tidemill();
        command.args(args).arg("--config").arg(self.file("command", settings)).output().unwrap()
    }

    /// Publishes events of both kinds in turn, so many of each.
    async fn put_both(&self, count: usize) {
        for _ in 0..count {
            self.put("Test.Thing.Asked", json!({ "do": "state-count", "key": "k" })).await;
            self.put("Test.Thing.Done", json!({ "do": "state-count", "key": "k", "n": 1 })).await;
        }
    }

    async fn put(&self, kind: &str, data: serde_json::Value) {
        let mut event = event(Uuid::new_v4(), data);
        event["event_type"] = kind.into();
        self.publish(vec![event.to_string()]).await;
    }

    /// As any producer may: with no deduplication key.
    async fn publish(&self, events: Vec<String>) {
        let entry = |body: String| NewEntry { body: body.into(), dedup_key: None };
        let entries: Vec<NewEntry> = events.into_iter().map(entry).collect();
        self.backend.publish(&self.subscription.stream, &entries).await.unwrap();
    }

    async fn wait_for(&self, what: &str, wanted: impl Fn(&SubscriptionStatus) -> bool) -> SubscriptionStatus {
        let give_up = Instant::now() + STUCK;
        loop {
            let status = self.backend.status(&self.subscription).await;
            match &status {
                Ok(status) if wanted(status) => {
                    assert!(status.balances(), "{status:?}");
                    return *status;
                }
                _ => assert!(Instant::now() < give_up, "waited for {what}: {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn count(&self, key: &str) -> u64 {
        let states = self.backend.states(&self.subscription, None, 100).await.unwrap();
        let state = states.iter().find(|(name, _)| name == key);
        state.map_or(0, |(_, state)| serde_json::from_slice(&state.values["n"]).unwrap())
    }
}

fn stop(mut host: Host) {
    host.signal("TERM");
    assert!(host.ends_within(STUCK).is_some_and(|exit| exit.success()), "{}", host.said());
}

macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($fleet:ident: Fleet) $body:block)*) => {
        $($(#[$doc])* async fn $name($fleet: Fleet) $body)*
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Fleet::on_sqlite().await).await })*
        }
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Fleet::on_redis().await).await })*
        }
    };
}

on_both! {
    /// The narrow host reads half of what only the wide one wants, and leaves it.
    async fn a_wider_host_beside_a_narrow_one_skips_nothing(fleet: Fleet) {
        let narrow = fleet.host("narrow", OLD);
        let wide = fleet.host("wide", Settings { events: WIDE, ..OLD });
        fleet.put_both(100).await;
        let status = fleet.wait_for("all to be committed", |status| status.committed == 200).await;
        assert_eq!((status.skipped, status.dead, status.waiting()), (0, 0, 0), "{status:?}");
        assert_eq!(fleet.count("k").await, 200);
        stop(narrow);
        stop(wide);
    }

    /// What only a dead host wants waits for the one that follows it; what nobody wants after an orderly end is skipped.
    async fn what_the_wider_host_wants_waits_while_it_is_away(fleet: Fleet) {
        let narrow = fleet.host("narrow", OLD);
        let mut wide = fleet.host("wide", Settings { events: WIDE, ..OLD });
        wide.kill();
        fleet.put_both(20).await;
        fleet.wait_for("what it wanted to be left", |status| status.left == 20 && status.committed == 20).await;
        let wide = fleet.host("wide again", Settings { events: WIDE, ..OLD });
        fleet.wait_for("it to be handled", |status| status.committed == 40 && status.waiting() == 0).await;
        stop(wide);
        fleet.put_both(20).await;
        let status = fleet.wait_for("the rest to be skipped", |status| status.waiting() == 0).await;
        assert_eq!((status.committed, status.skipped), (60, 20), "{status:?}");
        stop(narrow);
    }

    async fn hosts_with_unlike_windows_do_nothing_twice(fleet: Fleet) {
        let one = fleet.host("one", OLD);
        let two = fleet.host("two", Settings { window: "2h", ..OLD });
        let events: Vec<String> =
            (0..50).map(|_| event(Uuid::new_v4(), json!({ "do": "state-count", "key": "k" })).to_string()).collect();
        for round in 1..=4 {
            fleet.publish(events.clone()).await;
            fleet.wait_for("the round", |status| status.committed + status.duplicates == 50 * round).await;
        }
        let status = fleet.wait_for("the end", |status| status.waiting() == 0).await;
        assert_eq!((status.committed, status.duplicates), (50, 150), "{status:?}");
        assert_eq!(fleet.count("k").await, 50);
        let doctor = fleet.command(OLD, &["doctor", "--json"]);
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(said.contains("idempotency.window is 1h here, and a live host has 2h"), "{said}");
        stop(one);
        stop(two);
    }

    /// One state must not lie under two keys.
    async fn a_host_with_another_key_is_refused_while_one_with_the_old_lives(fleet: Fleet) {
        let old = fleet.host("old", OLD);
        let other = Settings { key: "/data/other", ..OLD };
        let log = fleet.folder.path().join("other.log");
        let mut refused = Host::start(&fleet.file("other", other), &log, &["run"], None);
        let exit = refused.ends_within(STUCK).expect("it ends");
        let said = refused.said();
        assert!(!exit.success() && said.contains("handlers.mischief.key is [/data/other]"), "{said}");
        assert!(said.contains("stop the hosts with the old key first"), "{said}");
        fleet.put("Test.Thing.Asked", json!({ "do": "state-count", "key": "k" })).await;
        fleet.wait_for("the old one to go on", |status| status.committed == 1).await;
        stop(old);
        stop(fleet.host("next", other));
    }

    /// It was taken for dead, and rightly so: what follows it must not find it at work again.
    async fn a_host_that_comes_to_again_beside_one_with_another_key_ends(fleet: Fleet) {
        let mut old = fleet.host("old", OLD);
        fleet.put("Test.Thing.Asked", json!({ "do": "state-count", "key": "k" })).await;
        fleet.wait_for("the old one to work", |status| status.committed == 1).await;
        old.signal("STOP");
        tokio::time::sleep(HEARTBEAT_TTL + Duration::from_secs(1)).await;
        let next = fleet.host("next", Settings { key: "/data/other", ..OLD });
        old.signal("CONT");
        let exit = old.ends_within(STUCK).expect("it ends");
        let said = old.said();
        assert!(!exit.success() && said.contains("another live host keeps the state"), "{said}");
        stop(next);
    }

    /// A retry and a dead letter of a kind that the handler wants no more: both are run all the same.
    async fn a_route_narrowed_while_retries_and_letters_wait_loses_none(fleet: Fleet) {
        let wide = fleet.host("wide", Settings { events: WIDE, ..OLD });
        fleet.put("Test.Thing.Done", json!({ "do": "reject", "n": 1 })).await;
        fleet.put("Test.Thing.Done", json!({ "do": "fail-until", "attempt": 3, "n": 1 })).await;
        fleet.wait_for("a letter and a retry", |status| status.dead == 1 && status.retried == 1).await;
        stop(wide);
        let run = || fleet.command(OLD, &["run", "--until-idle"]);
        let said = run();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        // The plugin has told of it by an event of the kind that nobody wants.
        let status = fleet.wait_for("the retry", |status| status.waiting() == 0).await;
        assert_eq!((status.committed, status.retried, status.dead, status.skipped), (1, 2, 1, 1), "{status:?}");
        let replayed = fleet.command(OLD, &["dead", "replay", "--all", "--yes"]);
        assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
        run();
        let letters = fleet.backend.dead_letters(&fleet.subscription, None, 10).await.unwrap();
        let said: Vec<String> = letters.iter().map(|letter| format!("{:?}", letter.reason)).collect();
        assert_eq!(letters.len(), 1, "{said:?}");
        assert!(said[0].contains("as told") && letters[0].replayed.is_some(), "it ran once more: {said:?}");
    }

    /// What was skipped while nobody wanted it is nobody's: the same events once more, published by hand, are handled.
    async fn a_route_that_is_widened_later_is_not_told_that_it_knows_what_was_skipped(fleet: Fleet) {
        let narrow = fleet.host("narrow", OLD);
        let mut events = [event(Uuid::new_v4(), json!({ "do": "state-count", "key": "k", "n": 1 }))];
        events[0]["event_type"] = "Test.Thing.Done".into();
        let events: Vec<String> = events.iter().map(ToString::to_string).collect();
        fleet.publish(events.clone()).await;
        fleet.wait_for("it to be skipped", |status| status.skipped == 1).await;
        stop(narrow);
        let wide = fleet.host("wide", Settings { events: WIDE, ..OLD });
        fleet.publish(events).await;
        let status = fleet.wait_for("it to be handled", |status| status.committed == 1).await;
        assert_eq!(status.duplicates, 0, "{status:?}");
        stop(wide);
    }
}

/// Only files can be taken away from under a host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_that_is_replaced_or_deleted_ends_the_host() {
    for replaced in [true, false] {
        let fleet = Fleet::on_sqlite().await;
        let mut host = fleet.host("host", OLD);
        fleet.put("Test.Thing.Asked", json!({ "do": "ok" })).await;
        fleet.wait_for("it to work", |status| status.committed == 1).await;
        let file = fleet.folder.path().join("fleet.db");
        if replaced {
            std::fs::copy(&file, file.with_extension("new")).unwrap();
            std::fs::rename(file.with_extension("new"), &file).unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        let exit = host.ends_within(STUCK).unwrap_or_else(|| panic!("it goes on:\n{}", host.said()));
        let said = host.said();
        let what = if replaced { "another file was put in its place" } else { "it was deleted" };
        assert!(!exit.success() && said.contains(what) && said.contains("the host ends"), "{said}");
        assert!(replaced || !file.exists(), "no new one is made");
    }
}
