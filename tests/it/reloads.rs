//! What serves can be replaced while events come in: plugins, settings, and the way back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidemill_core::limits::INSTANCE_IDLE_MAX;
use tidemill_runtime::consumer::WORKERS_PER_SUBSCRIPTION;
use tidemill_runtime::shutdown::ShutdownTrigger;
use tidemill_testkit::reload::{GOOD, Plan, REFUSES, Rig, run};
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::World;

/// No step of a story should take this long.
const STEP_MAX: Duration = Duration::from_secs(60);
/// Longer than the host takes to look at its files, whatever it hears: what has not come by then does not come.
const LOOKED: Duration = Duration::from_secs(5);

#[test]
fn versions_swap_under_load_and_the_counters_say_who_did_what() {
    let outcome = run(Plan { swaps: 5, per_second: 300, seed: 1 });
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert_eq!((outcome.first_ms.len(), outcome.refused), (5, 2), "{outcome}");
}

/// `tidemill ... --config` of this rig: exit code, stdout, stderr.
fn tidemill(rig: &Rig, args: &[&str]) -> (Option<i32>, String, String) {
    let out = tidemill_testkit::tidemill().args(args).arg("--config").arg(rig.ledger.config()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

fn post(rig: &Rig, path: &str) -> (u16, Value) {
    rig.ask("POST", path)
}

fn settings(rig: &Rig) -> Value {
    rig.get("/api/plugins")["settings"].clone()
}

#[track_caller]
fn until(rig: &Rig, wanted: impl Fn() -> bool) {
    let give_up = Instant::now() + STEP_MAX;
    while !wanted() {
        assert!(Instant::now() < give_up, "it does not come to that: {}", rig.get("/api/plugins"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reaches `GENERATIONS`.
#[test]
fn back_to_the_version_before_until_somebody_wants_it_otherwise() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let rig = Rig::new(&server);
    rig.put(&rig.version(GOOD[0]));
    let mut host = rig.ledger.host(None);
    host.wait_for_consumer();
    until(&rig, || rig.plugin()["generation"] == 1);
    let first = rig.plugin()["digest"].clone();
    let (code, _, said) = tidemill(&rig, &["plugin", "rollback", "ledger"]);
    assert!(code == Some(2) && said.contains("no version before this one"), "{said}");
    rig.put(&rig.version(GOOD[1]));
    until(&rig, || rig.plugin()["generation"] == 2);
    let second = rig.plugin()["digest"].clone();
    assert_eq!(rig.plugin()["how"], "file");

    let (code, said, _) = tidemill(&rig, &["plugin", "rollback", "ledger", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["digest"], &said["generation"]), (Some(0), &first, &json!(3)));
    std::thread::sleep(LOOKED);
    assert_eq!((&rig.plugin()["digest"], &rig.plugin()["how"]), (&first, &json!("rollback")), "the file is as it was");
    let (status, said) = post(&rig, "/api/reload");
    assert_eq!(status, 422, "other settings would bring it back: {said}");
    assert!(said["error"].as_str().unwrap().contains("or that was given up"), "{said}");

    let (code, said, _) = tidemill(&rig, &["plugin", "reload", "ledger"]);
    assert!(code == Some(0) && said.contains("serves now (generation 4)"), "{said}");
    assert_eq!(rig.plugin()["digest"], second);

    // Refused, and refused again when somebody asks.
    rig.put(&rig.version(REFUSES));
    until(&rig, || !rig.plugin()["refused"].is_null());
    let (code, _, said) = tidemill(&rig, &["plugin", "reload", "ledger"]);
    assert!(code == Some(2) && said.contains("lifecycle.init: as told") && said.contains("hint: "), "{said}");
    assert_eq!(rig.plugin()["digest"], second, "it serves on");
    for (edition, generation) in [(GOOD[0], 5), (GOOD[1], 6), (GOOD[0], 7), (GOOD[1], 8)] {
        rig.put(&rig.version(edition));
        until(&rig, || rig.plugin()["generation"] == generation);
    }
    assert_eq!(rig.plugin()["generations"].as_array().map(Vec::len), Some(3), "so many are kept: {}", rig.plugin());
}

#[test]
fn who_asks_wrongly_is_told_so() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let rig = Rig::new(&server);
    let (code, _, said) = tidemill(&rig, &["plugin", "reload", "ledger"]);
    assert!(code == Some(1) && said.contains("no host answers") && said.contains("hint: "), "{said}");
    rig.put(&rig.version(GOOD[0]));
    let mut host = rig.ledger.host(None);
    host.wait_for_consumer();
    until(&rig, || rig.plugin()["generation"] == 1);
    let (status, said) = post(&rig, "/api/plugins/nobody/reload");
    assert!(status == 404 && said["hint"] != "", "{said}");
    assert_eq!(post(&rig, "/api/plugins/ledger/rollback").0, 409);
    assert_eq!(
        post(&rig, "/api/plugins/ledger/reload"),
        (
            200,
            json!({
                "handler": "ledger", "generation": 1, "digest": rig.plugin()["digest"], "changed": false,
            })
        )
    );
    std::fs::write(rig.token(), "another token, which is none").unwrap();
    let (code, _, said) = tidemill(&rig, &["reload"]);
    assert!(code == Some(2) && said.contains("it holds no token") && said.contains("hint: "), "{said}");
    std::fs::remove_file(rig.token()).unwrap();
    let (code, _, said) = tidemill(&rig, &["reload"]);
    assert!(code == Some(2) && said.contains("there is no token at") && said.contains("hint: "), "{said}");
    let config = std::fs::read_to_string(rig.ledger.config()).unwrap();
    std::fs::write(rig.ledger.config(), config.split("[http]").next().unwrap()).unwrap();
    let (code, _, said) = tidemill(&rig, &["plugin", "reload", "ledger"]);
    assert!(code == Some(2) && said.contains("[http] is not configured"), "{said}");
}

#[test]
fn a_host_that_watches_nothing_reloads_when_asked() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let rig = Rig::new(&server);
    let config = std::fs::read_to_string(rig.ledger.config()).unwrap();
    std::fs::write(rig.ledger.config(), config + "\n[plugins]\nwatch = false\ngenerations = 1\n").unwrap();
    rig.put(&rig.version(GOOD[0]));
    let mut host = rig.ledger.host(None);
    host.wait_for_consumer();
    until(&rig, || rig.plugin()["generation"] == 1);
    rig.put(&rig.version(GOOD[1]));
    std::thread::sleep(LOOKED);
    assert_eq!(rig.plugin()["generation"], 1);
    assert_eq!(post(&rig, "/api/plugins/ledger/reload").0, 200);
    assert_eq!(rig.plugin()["generation"], 2);
    assert_eq!(post(&rig, "/api/plugins/ledger/rollback").0, 409, "generations = 1 keeps none");
}

#[test]
fn other_settings_are_taken_as_a_whole_or_not_at_all() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let rig = Rig::new(&server);
    rig.put(&rig.version(GOOD[0]));
    let mut host = rig.ledger.host(None);
    host.wait_for_consumer();
    let producer = rig.ledger.produce(&[], 200, 1);
    until(&rig, || settings(&rig)["generation"] == 1);
    let good = std::fs::read_to_string(rig.ledger.config()).unwrap();
    let change = |from: &str, to: &str| std::fs::write(rig.ledger.config(), good.replace(from, to)).unwrap();
    let refused = || settings(&rig)["refused"]["reason"].as_str().unwrap_or_default().to_owned();

    change("workers = 2", "workers = 3");
    until(&rig, || refused().contains("host.workers: from \"2\" to \"3\"\n  hint: this takes a restart"));
    change("Test.Entry.Posted\"]\n        key", "Test.Entry.Postad\"]\n        key");
    until(&rig, || refused().contains("Test.Entry.Posted"));
    assert_eq!(settings(&rig)["generation"], 1, "all goes on as before");

    // A handler more, whose plugin is not there yet: refused, and taken as soon as it is.
    let more = rig.file.with_file_name("more.wasm");
    let output = &rig.ledger.store.output;
    let handler = format!(
        "\n[handlers.more]\nplugin = \"{}\"\nevents = [\"Test.Entry.Posted\"]\nkey = \"/data/key\"\n[handlers.more.grants]\nemit = [\"Test.Entry.Booked\"]\nstate = true\n",
        more.display()
    );
    std::fs::write(rig.ledger.config(), format!("{good}{handler}")).unwrap();
    until(&rig, || refused().contains("more.wasm"));
    std::fs::write(&more, rig.version(GOOD[1])).unwrap();
    until(&rig, || settings(&rig)["generation"] == 2 && settings(&rig)["refused"].is_null());
    assert_eq!(rig.get("/api/plugins")["plugins"].as_array().unwrap().len(), 2, "on {output}");
    until(&rig, || rig.get("/api/status")["handlers"][1]["committed"].as_u64() > Some(0));

    // And gone again, by a signal.
    std::fs::write(rig.ledger.config(), &good).unwrap();
    host.signal("HUP");
    until(&rig, || rig.get("/api/plugins")["plugins"].as_array().unwrap().len() == 1);
    until(&rig, || rig.get("/api/status")["settings"] == settings(&rig)["generation"]);
    producer.stop();
    until(&rig, || rig.get("/api/status")["handlers"][0]["waiting"] == 0);
    host.signal("TERM");
    assert!(host.ends_within(STEP_MAX).is_some_and(|exit| exit.success()), "{}", host.said());
    assert!(!host.said().contains("suspect") && !host.said().contains("fenced"), "{}", host.said());
    assert!(!host.said().contains("cause=\"host-died\""), "no host has died");
}

/// What an old version leaves behind goes by this; and what nobody needs.
///
/// Reaches `INSTANCE_IDLE_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_nobody_calls_is_dropped() {
    let world = World::new("sqlite::memory:", "instance_events_max = 1000").await;
    let (trigger, shutdown) = ShutdownTrigger::new();
    let run = async {
        // An instance counts its calls, and each worker has one of its own.
        let counts = async |events: usize| -> Vec<i64> {
            loop {
                let emitted = world.emitted().await;
                if emitted.len() >= events {
                    return emitted.iter().filter_map(|event| event["data"]["n"].as_i64()).collect();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let warm = async |events: usize| counts(events).await.into_iter().filter(|n| *n == 2).count();
        let mut events = 0;
        while warm(events).await < WORKERS_PER_SUBSCRIPTION {
            assert!(events < 100, "not every worker has kept its instance: {:?}", counts(events).await);
            world.ask(json!({ "do": "remember" })).await;
            events += 1;
            // A worker that is quick keeps fetching until nothing comes for half a second; then it is the other one's turn.
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        tokio::time::sleep(INSTANCE_IDLE_MAX + Duration::from_secs(3)).await;
        world.ask(json!({ "do": "remember" })).await;
        assert_eq!(counts(events + 1).await.last(), Some(&1), "the last one has met a fresh instance");
        trigger.trigger();
    };
    let (host, ()) = tokio::join!(world.host_until(Arc::new(ShutdownTrigger::new().0), shutdown, false), run);
    host.unwrap();
}
