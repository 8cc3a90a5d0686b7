//! What a host takes in one turn, what it takes of a component, and what a person is shown.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tidemill_config::read;
use tidemill_core::model::delivery::Disposition;
use tidemill_core::model::outcome::Outcome;
use tidemill_runtime::build;
use tidemill_sandbox::capability::ids::Ids;
use tidemill_sandbox::component::inspect::inspect;
use tidemill_sandbox::executor::batch;
use tidemill_sandbox::executor::batch::{GuestBatch, GuestCall, WarmInstances};
use tidemill_schema::admit::{AdmitOptions, admit};
use tidemill_storage::{Settlement, SettlementEntry, Start};
use tidemill_testkit::hostile_guests::guests;
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::{self, NO_RETRY, World};
use uuid::Uuid;
use wasm_encoder::{ComponentSection, ComponentSectionId, InstanceSection, ModuleArg, RawSection};

crate::on_both_backends! {
    /// Those beyond one turn are run in the next.
    ///
    /// Reaches `SUSPECTS_MAX`.
    async fn more_suspects_than_one_turn_takes_are_all_run(url: &str) {
        const COUNT: u64 = 51;
        let world = World::new(url, NO_RETRY).await;
        world.backend.ensure_group(&world.subscription, Start::Beginning).await.unwrap();
        for _ in 0..COUNT {
            world.ask(json!({ "do": "ok" })).await;
        }
        let mut got = Vec::new();
        while got.len() < COUNT as usize {
            got.extend(world.backend.fetch(&world.subscription, "me", 100, Duration::from_secs(10)).await.unwrap().deliveries);
        }
        let entry = |delivery| SettlementEntry { delivery, dedup_key: None, state: None, disposition: Disposition::Quarantine };
        let (subscription, consumer, plugin) = (world.subscription.clone(), "me".into(), "p".into());
        let entries = got.into_iter().map(entry).collect();
        let settlement = Settlement { subscription, consumer, plugin, token: Uuid::new_v4(), entries };
        world.backend.settle(&settlement).await.unwrap();
        assert_eq!(world.status().await.quarantined, COUNT);
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.quarantined, status.committed), (0, COUNT), "{status:?}");
    }

    /// Reaches `PROMOTE_MAX`.
    async fn more_retries_than_one_step_moves_all_come_back(url: &str) {
        const COUNT: u64 = 501;
        let retry = r#"retry = { max = 1, base = "0s", factor = 1, cap = "0s" }"#;
        let world = World::new(url, &format!("{retry}\nbreaker = {{ failure_rate = 2 }}")).await;
        for _ in 0..COUNT {
            world.ask(json!({ "do": "retry" })).await;
        }
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.retried, status.dead), (COUNT, COUNT), "{status:?}");
    }
}

/// Writes and timers alike. The call that goes beyond is the last one.
///
/// Reaches `BATCH_EFFECT_BYTES_MAX`.
#[test]
fn no_call_is_begun_when_the_effects_of_a_batch_are_many_bytes() {
    const MAX: usize = 16 << 20;
    const LARGE_TIMERS: &str = "limits = { timer_bytes = \"64KiB\" }";
    let text = world::config("sqlite::memory:", &tidemill_testkit::guest("mischief"), "x", LARGE_TIMERS, "");
    let config = read::parse(&text, "bounds.toml".as_ref(), tidemill_testkit::root(), &[]).unwrap();
    let checked = build::check(&config).unwrap();
    let plugin = build::plugins(&config, &checked).unwrap().all.remove(0);
    let terms = AdmitOptions { wants: &|_, _| true, key: &[], payload_bytes_max: 1 << 20 };
    let called = |data: &Value| -> Vec<usize> {
        let call = |_| {
            let bytes = Bytes::from(world::event(Uuid::new_v4(), data.clone()).to_string());
            GuestCall { event: Arc::new(admit(&checked.schemas, &bytes, &terms).unwrap()), attempt: 1 }
        };
        let job = GuestBatch {
            plugin: plugin.clone(),
            stream: "asked-x".into(),
            now: "2026-01-31T12:00:00.000Z".into(),
            ids: Ids::default(),
            calls: (0..100).map(call).collect(),
            states: Default::default(),
            deadline: Duration::from_secs(600),
            begun: Arc::default(),
            instance_events_max: 1,
            versions: 1,
        };
        let called = batch::run(&mut WarmInstances::default(), job).unwrap();
        let bytes = |outcome: &Outcome| match outcome {
            Outcome::Done(effects) => effects.bytes(),
            other => panic!("{other:?}"),
        };
        called.iter().map(|one| bytes(&one.outcome)).collect()
    };
    let big = "x".repeat(60_000);
    for data in [
        json!({ "do": "state-big", "bytes": 250_000 }),
        json!({ "do": "timer", "count": 16, "after_ms": 1000, "then": { "x": big } }),
    ] {
        let bytes = called(&data);
        let all: usize = bytes.iter().sum();
        assert!(bytes.len() < 100 && all >= MAX && all - bytes[bytes.len() - 1] < MAX, "{bytes:?}");
    }
    assert_eq!(called(&json!({ "do": "state-big", "bytes": 100_000 })).len(), 100, "less than that in all");
}

/// A good plugin with more in it: instances of these modules, so many of each. Nothing of the plugin's own uses them.
fn with(base: &[u8], modules: &[(&str, usize)]) -> Vec<u8> {
    let (mut component, mut index) = (base.to_vec(), inspect(base).unwrap().core_modules);
    for (module, count) in modules {
        let module = wat::parse_str(module).unwrap();
        RawSection { id: ComponentSectionId::CoreModule as u8, data: &module }.append_to_component(&mut component);
        let mut instances = InstanceSection::new();
        for _ in 0..*count {
            instances.instantiate(index, std::iter::empty::<(&str, ModuleArg)>());
        }
        instances.append_to_component(&mut component);
        index += 1;
    }
    component
}

/// Reaches `MEMORIES_MAX`, `TABLES_MAX` and `CORE_INSTANCES_MAX`.
#[test]
fn a_component_has_so_many_memories_tables_and_core_instances() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plugin.wasm");
    let load = |wasm: &[u8]| {
        std::fs::write(&path, wasm).unwrap();
        let text = world::config("sqlite::memory:", &path, "x", "", "");
        let cache = ("TIDEMILL__HOST__CACHE".to_owned(), folder.path().join("cache").display().to_string());
        let config = read::parse(&text, "bounds.toml".as_ref(), tidemill_testkit::root(), &[cache]).unwrap();
        let checked = build::check(&config).unwrap();
        build::plugins(&config, &checked).map(drop).map_err(|error| error.to_string())
    };
    let base = guests::stack_bomb();
    let found = inspect(&base).unwrap();
    assert_eq!((found.memories, found.core_instances), (1, 1), "what the plugin has by itself");
    let (memory, table, four, none) = ("(module (memory 1))", "(module (table 1 funcref))", FOUR_TABLES, "(module)");
    for (most, beyond, said) in [
        (&[(memory, 7)][..], &[(memory, 8)][..], "memor"),
        (&[(four, 10)], &[(four, 10), (table, 1)], "table"),
        (&[(none, 39)], &[(none, 40)], "instance"),
    ] {
        assert_eq!(load(&with(&base, most)), Ok(()), "{said}");
        let refused = load(&with(&base, beyond)).unwrap_err();
        assert!(refused.contains(said), "wanted {said}\n found {refused}");
    }
}

const FOUR_TABLES: &str = "(module (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref))";

/// Reaches `state::NAME_BYTES_MAX` and `timer::NAME_BYTES_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_values_and_of_timers_have_a_bound() {
    for what in ["state-name", "timer-name"] {
        let world = World::new("sqlite::memory:", NO_RETRY).await;
        world.ask(json!({ "do": what, "bytes": 256 })).await;
        world.ask(json!({ "do": what, "bytes": 257, "stubborn": true })).await;
        world.run().await;
        assert_eq!(world.status().await.committed, 1);
        let said = world.only_dead().await.1;
        assert!(said.contains("a name has 1 to 256 bytes, not 257"), "{said}");
    }
}

/// Reaches `context::REASON_BYTES_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reason_is_whole_up_to_its_bound() {
    for (bytes, wanted) in [(4096, "x".repeat(4096)), (4097, "x".repeat(4096) + "...")] {
        let world = World::new("sqlite::memory:", NO_RETRY).await;
        world.ask(json!({ "do": "return-big", "bytes": bytes })).await;
        world.run().await;
        assert_eq!(world.only_dead().await.0.reason.text, wanted);
    }
}

/// Reaches `FIELD_NAME_BYTES`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_name_of_a_field_the_beginning_is_said() {
    let server = RedisServer::shared();
    for (bytes, said) in [(60, 60), (61, 60)] {
        let world = World::new(&server.url(), NO_RETRY).await;
        server.ask::<String>(&["XADD", &world.asked, "*", &"n".repeat(bytes), "value"]);
        world.run().await;
        let text = world.only_dead().await.0.reason.text;
        assert!(text.ends_with(&format!("its fields: {}", "n".repeat(said))), "{text}");
    }
}

/// Reaches `ANSWER_BYTES_MAX`.
#[test]
fn the_answer_of_a_host_that_is_asked_has_a_bound() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidemill.toml");
    let schemas = tidemill_testkit::root().join("tests/schemas");
    let listen = listener.local_addr().unwrap();
    let text = format!("[schemas]\npath = \"{}\"\n[http]\nlisten = \"{listen}\"\n", schemas.display());
    std::fs::write(&file, text).unwrap();
    for (bytes, taken) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let answers = || {
            let (stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            assert!(lines.take_while(|line| !line.is_empty()).count() > 1, "a request");
            let body = format!(r#"{{"generation":7}}{}"#, " ".repeat(bytes - 16));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n");
            // Who has read enough closes the connection.
            let _ = (&stream).write_all(&[head, body].concat().into_bytes());
        };
        let output = std::thread::scope(|scope| {
            scope.spawn(answers);
            tidemill_testkit::tidemill().arg("reload").arg("--config").arg(&file).output().unwrap()
        });
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.success(), said.contains("(generation 7)")), (taken, taken), "{said}");
    }
}
