//! Guests are strangers: whatever they do, they are stopped, others go on, and the record says what happened.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidemill_tests::world::{NO_RETRY, World, refusal_of};

/// Runs one misdeed between two good events; the dead letter's words.
async fn misdeed(extra: &str, data: Value) -> (World, String) {
    let world = World::new("sqlite::memory:", &format!("{NO_RETRY}\ndeadline = \"200ms\"\n{extra}")).await;
    world.ask(json!({ "do": "ok" })).await;
    world.ask(data).await;
    world.ask(json!({ "do": "ok" })).await;
    world.run().await;
    assert_eq!(world.status().await.committed, 2, "the neighbours go on");
    let (_, said) = world.only_dead().await;
    (world, said)
}

macro_rules! misdeeds {
    ($($name:ident: $data:tt, $extra:expr => $said:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (world, said) = misdeed($extra, json!($data)).await;
            assert!(said.contains($said), "wanted {}\n found {said}", $said);
            assert_eq!(world.emitted().await.len(), 0, "nothing leaves");
        })*
    };
}

misdeeds! {
    an_endless_loop_is_stopped_at_its_deadline: { "do": "loop" }, "" => "deadline: stopped after its deadline of 200ms";
    a_memory_bomb_hits_its_bound: { "do": "memory" }, "" => "memory: the guest asked for";
    a_stack_overflow_is_a_crash: { "do": "stack" }, "" => "stack: call stack exhausted";
    a_trap_is_a_crash: { "do": "trap" }, "" => "trap: ";
    too_many_emits_hit_their_bound: { "do": "emit-many", "count": 1000, "stubborn": true }, "" => "limit: emit: an attempt may emit 256 events (limits.emits)";
    a_forbidden_event_is_refused: { "do": "emit-forbidden" }, "" => "Forbidden.Thing.Done.v1 is not among the grants";
    a_forbidden_event_is_refused_even_if_the_guest_goes_on: { "do": "emit-forbidden", "stubborn": true }, "" => "rejected: emit: Forbidden.Thing.Done.v1";
    an_invalid_event_is_refused: { "do": "emit-invalid", "stubborn": true }, "" => "rejected: emit: Test.Thing.Done.v1: /data/n";
    too_much_state_hits_its_bound: { "do": "state-big", "bytes": 300_000, "stubborn": true, "key": "k" }, "" => "limit: state: an attempt may write 262144 bytes (limits.state)";
    too_many_timers_hit_their_bound: { "do": "timer", "count": 20, "stubborn": true, "after_ms": 10 }, "" => "limit: timer: an attempt may set 16 timers (limits.timers)";
    limits_timers_bounds_the_timers: { "do": "timer", "count": 2, "stubborn": true }, "limits = { timers = 1 }" => "limit: timer: an attempt may set 1 timers (limits.timers)";
    a_timer_with_too_much_data_is_refused: { "do": "timer", "then": { "x": "x".repeat(70_000) } }, "" => "limit: timer: the data has 70008 bytes; at most 65536 (limits.timer_bytes)";
    limits_timer_bytes_bounds_the_data: { "do": "timer", "then": { "x": "x" }, "stubborn": true }, "limits = { timer_bytes = \"8B\" }" => "at most 8 (limits.timer_bytes)";
    a_timer_too_far_away_is_refused: { "do": "timer", "after_ms": 7_776_000_001u64, "stubborn": true }, "" => "rejected: timer: \"again\" in 2months";
    limits_timer_wait_bounds_how_far_away_it_is: { "do": "timer", "after_ms": 1001, "stubborn": true }, "limits = { timer_wait = \"1s\" }" => "at most 1s (limits.timer_wait)";
    a_timer_whose_data_is_no_json_is_refused: { "do": "timer-raw", "raw": "1},\"data\":{", "stubborn": true }, "" => "rejected: timer: the data of \"raw\" is not JSON";
    a_timer_whose_data_is_too_deep_is_refused: { "do": "timer-raw", "raw": "[".repeat(200) + &"]".repeat(200), "stubborn": true }, "" => "rejected: timer: \"raw\": not an event envelope in JSON: recursion limit";
    a_long_reason_is_cut: { "do": "return-big", "bytes": 1_000_000 }, "" => "...";
    a_reason_beyond_all_bounds_is_a_limit: { "do": "return-big", "bytes": 20_000_000 }, "" => "limit: it handed the host more than 8388608 bytes in one call";
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_flood_is_cut_and_the_event_commits() {
    let world = World::new("sqlite::memory:", NO_RETRY).await;
    world.ask(json!({ "do": "log-flood", "count": 100_000 })).await;
    world.run().await;
    assert_eq!(world.status().await.committed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_drops_the_instance_and_what_it_remembered() {
    let world = World::new("sqlite::memory:", &format!("{NO_RETRY}\ninstance_events_max = 1000\n")).await;
    for what in ["remember", "remember", "trap", "remember"] {
        world.ask(json!({ "do": what })).await;
        world.run().await;
    }
    // Each run has workers of its own, so what an instance remembers shows only within one run.
    for what in ["remember", "remember", "trap", "remember", "remember"] {
        world.ask(json!({ "do": what, "key": "same" })).await;
    }
    let before = world.emitted().await.len();
    world.run().await;
    let counts: Vec<i64> =
        world.emitted().await[before..].iter().map(|event| event["data"]["n"].as_i64().unwrap()).collect();
    assert_eq!(counts, [1, 2, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_events_max_bounds_what_an_instance_can_remember() {
    let world = World::new(
        "sqlite::memory:",
        "instance_events_max = 2\n[host]\nworkers = 1".replace("[host]\nworkers = 1", "").trim(),
    )
    .await;
    for _ in 0..5 {
        world.ask(json!({ "do": "remember" })).await;
    }
    world.run().await;
    let mut counts: Vec<i64> = world.emitted().await.iter().map(|event| event["data"]["n"].as_i64().unwrap()).collect();
    counts.sort_unstable();
    assert!(counts.iter().all(|count| *count <= 2), "{counts:?}");
}

/// A component from its text form.
fn component(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("plugin.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path
}

const GRANTS: &str = "emit = [\"Test.Thing.Done\"]\nstate = true";

#[test]
fn a_plugin_that_is_not_there_is_refused_with_what_to_do() {
    let said = refusal_of("no/such.wasm".into(), GRANTS);
    assert!(
        said.contains("cannot read") && said.contains("no/such.wasm") && said.contains("hint: build it first"),
        "{said}"
    );
}

#[test]
fn what_is_not_a_component_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let core = component(folder.path(), "(module)");
    assert!(refusal_of(core, GRANTS).contains("it is a core module"));
    let text = folder.path().join("text.wasm");
    std::fs::write(&text, "hello").unwrap();
    assert!(refusal_of(text, GRANTS).contains("is not a WebAssembly component"));
}

#[test]
fn a_component_of_another_world_is_refused_in_the_words_of_the_worlds() {
    let folder = tempfile::tempdir().unwrap();
    let said = refusal_of(component(folder.path(), "(component)"), GRANTS);
    assert!(said.contains("does not export tidemill:plugin/handler@0.1.1; it exports nothing"), "{said}");
    let newer = r#"(component (instance $i) (export "tidemill:plugin/handler@0.9.0" (instance $i)))"#;
    let said = refusal_of(component(folder.path(), newer), GRANTS);
    assert!(said.contains("it is built for tidemill:plugin 0.9.0; this host speaks 0.1.0, 0.1.1"), "{said}");
    let hollow = r#"(component (instance $i) (export "tidemill:plugin/handler@0.1.0" (instance $i)))"#;
    let said = refusal_of(component(folder.path(), hollow), GRANTS);
    assert!(said.contains("does not fit the world handler-plugin"), "{said}");
}

#[test]
fn an_import_that_the_host_does_not_offer_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"(component
        (import "wasi:sockets/tcp@0.2.0" (instance))
        (instance $i) (export "tidemill:plugin/handler@0.1.0" (instance $i)))"#;
    let said = refusal_of(component(folder.path(), text), GRANTS);
    assert!(said.contains("it imports \"wasi:sockets/tcp@0.2.0\", which this host does not offer"), "{said}");
}

/// The denial of each capability that needs a grant.
#[test]
fn a_capability_that_is_not_granted_is_not_linked() {
    let mischief = || tidemill_tests::guest("mischief");
    let said = refusal_of(mischief(), "emit = [\"Test.Thing.Done\"]");
    assert!(
        said.contains("asks for capability \"state\", which is not granted")
            && said.contains("[handlers.mischief.grants]"),
        "{said}"
    );
    let said = refusal_of(mischief(), GRANTS);
    assert!(said.contains("asks for capability \"timer\", which is not granted"), "{said}");
    let said = refusal_of(mischief(), "state = true");
    assert!(said.contains("asks for capability \"emit\", which is not granted"), "{said}");
}

/// A grant without event types links `emit` and refuses every event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_grant_refuses_every_event() {
    let mut world = World::new("sqlite::memory:", NO_RETRY).await;
    world.config.handlers.get_mut("mischief").unwrap().grants.emit = Some(Vec::new());
    world.ask(json!({ "do": "emit-many", "count": 1 })).await;
    world.run().await;
    assert!(world.only_dead().await.1.contains("is not among the grants"));
}
