//! Guests are strangers: whatever they do, they are stopped, others go on, and the record says what happened.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidemill_testkit::hostile_guests::guests;
use tidemill_testkit::world::{NO_RETRY, World, refusal_of};

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
    // Reaches `DEADLINE`.
    an_endless_loop_is_stopped_at_its_deadline: { "do": "loop" }, "" => "deadline: stopped after its deadline of 200ms";
    // Reaches `MEMORY`.
    a_memory_bomb_hits_its_bound: { "do": "memory" }, "" => "memory: the guest asked for";
    a_stack_overflow_is_a_crash: { "do": "stack" }, "" => "stack: call stack exhausted";
    a_trap_is_a_crash: { "do": "trap" }, "" => "trap: ";
    // Reaches `EMITS`.
    too_many_emits_hit_their_bound: { "do": "emit-many", "count": 1000, "stubborn": true }, "" => "emits: emit: an attempt may emit 256 events (limits.emits)";
    a_forbidden_event_is_refused: { "do": "emit-forbidden" }, "" => "Forbidden.Thing.Done.v1 is not among the grants";
    a_forbidden_event_is_refused_even_if_the_guest_goes_on: { "do": "emit-forbidden", "stubborn": true }, "" => "rejected: emit: Forbidden.Thing.Done.v1";
    an_invalid_event_is_refused: { "do": "emit-invalid", "stubborn": true }, "" => "rejected: emit: Test.Thing.Done.v1: /data/n";
    // Reaches `STATE`.
    too_much_state_hits_its_bound: { "do": "state-big", "bytes": 300_000, "stubborn": true, "key": "k" }, "" => "state-bytes: state: an attempt may write 262144 bytes (limits.state)";
    // Reaches `TIMERS`.
    too_many_timers_hit_their_bound: { "do": "timer", "count": 20, "stubborn": true, "after_ms": 10 }, "" => "timers: timer: an attempt may set 16 timers (limits.timers)";
    limits_timers_bounds_the_timers: { "do": "timer", "count": 2, "stubborn": true }, "limits = { timers = 1 }" => "timers: timer: an attempt may set 1 timers (limits.timers)";
    // Reaches `TIMER_BYTES`.
    a_timer_with_too_much_data_is_refused: { "do": "timer", "then": { "x": "x".repeat(70_000) } }, "" => "timer-bytes: timer: the data has 70008 bytes; at most 4096 (limits.timer_bytes)";
    limits_timer_bytes_bounds_the_data: { "do": "timer", "then": { "x": "x" }, "stubborn": true }, "limits = { timer_bytes = \"8B\" }" => "at most 8 (limits.timer_bytes)";
    // Reaches `TIMER_WAIT`.
    a_timer_too_far_away_is_refused: { "do": "timer", "after_ms": 7_776_000_001u64, "stubborn": true }, "" => "rejected: timer: \"again\" in 2months";
    limits_timer_wait_bounds_how_far_away_it_is: { "do": "timer", "after_ms": 1001, "stubborn": true }, "limits = { timer_wait = \"1s\" }" => "at most 1s (limits.timer_wait)";
    a_timer_whose_data_is_no_json_is_refused: { "do": "timer-raw", "raw": "1},\"data\":{", "stubborn": true }, "" => "rejected: timer: the data of \"raw\" is not JSON";
    a_timer_whose_data_is_too_deep_is_refused: { "do": "timer-raw", "raw": "[".repeat(200) + &"]".repeat(200), "stubborn": true }, "" => "rejected: timer: \"raw\": not an event envelope in JSON: recursion limit";
    a_long_reason_is_cut: { "do": "return-big", "bytes": 1_000_000 }, "" => "...";
    // Reaches `HOSTCALL_BYTES`.
    a_reason_beyond_all_bounds_is_a_limit: { "do": "return-big", "bytes": 20_000_000 }, "" => "hostcall-bytes: it handed the host more than 8388608 bytes in one call";
}

// Every key of `[handlers.NAME.limits]`: what its default lets through is stopped by a smaller one.
misdeeds! {
    the_key_memory_has_its_effect: { "do": "memory", "count": 8 }, "limits = { memory = \"4MiB\" }" => "memory: the guest asked for";
    the_key_hostcall_bytes_has_its_effect: { "do": "state-big", "bytes": 100_000, "key": "k" }, "limits = { hostcall_bytes = \"64KiB\" }" => "hostcall-bytes: it handed the host more than 65536 bytes";
    // Reaches `HOST_CALLS`.
    the_key_host_calls_has_its_effect: { "do": "log-flood", "count": 60 }, "limits = { host_calls = 50 }" => "host-calls: it called the host more than 50 times";
    the_key_emits_has_its_effect: { "do": "emit-many", "count": 3 }, "limits = { emits = 2 }" => "emits: emit: an attempt may emit 2 events";
    // Reaches `EMIT_BYTES`.
    the_key_emit_bytes_has_its_effect: { "do": "emit-many", "count": 3, "stubborn": true }, "limits = { emit_bytes = \"800B\" }" => "emit-bytes: emit: an attempt may emit and set timers of 800 bytes";
    the_key_state_has_its_effect: { "do": "state-big", "bytes": 200, "stubborn": true, "key": "k" }, "limits = { state = \"100B\" }" => "state-bytes: state: an attempt may write 100 bytes";
    the_key_state_total_has_its_effect: { "do": "state-big", "bytes": 200, "stubborn": true, "key": "k" }, "limits = { state_total = \"100B\" }" => "state-total: state: a key may hold 100 bytes";
    deleting_counts_as_writing: { "do": "state-delete-many", "count": 2, "key": "k" }, "limits = { state = \"300B\" }" => "state-bytes: state: an attempt may write 300 bytes";
}

/// The same event, with a default that lets it through and with a key that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_small_key_stops_the_default_lets_through() {
    let small = json!([
        { "do": "memory", "count": 8 }, { "do": "state-big", "bytes": 100_000, "key": "k" },
        { "do": "log-flood", "count": 60 }, { "do": "emit-many", "count": 3 },
        { "do": "state-delete-many", "count": 2, "key": "k" }, { "do": "stack", "count": 5000 },
    ]);
    let world = World::new("sqlite::memory:", NO_RETRY).await;
    for data in small.as_array().unwrap() {
        world.ask(data.clone()).await;
    }
    world.run().await;
    assert_eq!(world.status().await.committed, 6, "{:?}", world.dead().await);
}

/// Reaches `TABLES` and `HANDLES`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_tables_and_handles_have_their_effect() {
    for (plugin, extra, wanted) in [
        (
            guests::table_bomb(),
            "limits = { tables = 5000 }",
            "table: the guest asked for 5001 elements of tables; its limit is 5000",
        ),
        (guests::hoard_of_handles(), "limits = { handles = 7 }", "handles: it held more than 7 handles"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugin.wasm");
        std::fs::write(&path, plugin).unwrap();
        let world = World::of(&path, "sqlite::memory:", &format!("{NO_RETRY}\n{extra}"), "").await;
        world.ask(json!({ "do": "ok" })).await;
        world.run().await;
        let said = world.only_dead().await.1;
        assert!(said.contains(wanted), "wanted {wanted}\n found {said}");
    }
}

/// What a key holds counts over all of its events, and what is overwritten counts no more.
///
/// Reaches `STATE_TOTAL`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_a_key_is_bounded_as_a_whole() {
    let extra = format!("{NO_RETRY}\nlimits = {{ state_total = \"1000B\" }}");
    let world = World::new("sqlite::memory:", &extra).await;
    for data in [
        json!({ "do": "state-count", "key": "k" }),
        json!({ "do": "state-big", "bytes": 900, "key": "k" }),
        json!({ "do": "state-big", "bytes": 990, "key": "k" }),
        json!({ "do": "state-big", "bytes": 996, "key": "k" }),
        json!({ "do": "state-big", "bytes": 900, "key": "other" }),
    ] {
        world.ask(data).await;
        world.run().await;
    }
    let (letter, said) = world.only_dead().await;
    assert!(said.contains("state-total: ") && format!("{:?}", letter.body).contains("996"), "{said}");
    assert_eq!(world.status().await.committed, 4);
}

/// 5,000 calls deep, which the default bears (see above).
///
/// Reaches `STACK` and `HOST_STACK_BYTES`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_stack_has_its_effect() {
    let deep = json!({ "do": "stack", "count": 5000 });
    let world = World::with("sqlite::memory:", NO_RETRY, "[plugins]\nstack = \"64KiB\"").await;
    world.ask(deep).await;
    world.run().await;
    assert!(world.only_dead().await.1.contains("stack: call stack exhausted"));
    // A large one has threads that can bear it.
    let deeper = json!({ "do": "stack", "count": 150_000 });
    let world = World::with("sqlite::memory:", NO_RETRY, "[plugins]\nstack = \"16MiB\"").await;
    world.ask(deeper).await;
    world.ask(json!({ "do": "stack" })).await;
    world.run().await;
    assert_eq!(world.status().await.committed, 1);
    assert!(world.only_dead().await.1.contains("stack: call stack exhausted"));
}

/// Whoever reads the dead letter sees where the guest was, and what it last said, as far as the limits let it speak.
///
/// Reaches `LINES_KEPT`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_tells_the_names_of_functions_and_the_last_lines() {
    let last_words = async |extra: &str| {
        let world = World::new("sqlite::memory:", &format!("{NO_RETRY}\n{extra}")).await;
        world.ask(json!({ "do": "log-then-trap", "count": 30, "bytes": 20 })).await;
        world.run().await;
        let mut letter = world.only_dead().await.0;
        letter.history.remove(0)
    };
    let record = last_words("").await;
    for name in ["unreachable", "panicking::panic_fmt", "mischief.wasm!tidemill:plugin/handler@0.1.1#handle"] {
        assert!(record.reason.contains(name), "wanted {name}\n found {}", record.reason);
    }
    let lines: Vec<String> = (20..30).map(|n| format!("line {n} {}", "x".repeat(20))).collect();
    assert_eq!(record.log, lines);
    let record = last_words("limits = { log_lines = 4, log_bytes = \"8B\" }").await;
    assert_eq!(record.log, ["line 0 x...", "line 1 x...", "line 2 x...", "line 3 x..."]);
}

/// Each attempt that reaches a limit counts once, under the handler and the limit; also where the host only cuts.
///
/// Reaches `LOG_LINES` and `LOG_LINE_BYTES`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_reached_are_counted() {
    let name = format!("counted-{}", uuid::Uuid::new_v4().simple());
    let second = format!(
        "[handlers.{name}]\nplugin = \"{}\"\nevents = [\"Test.Thing.Asked\"]\ndeadline = \"200ms\"\n{NO_RETRY}\n\
         limits = {{ log_lines_per_second = 20 }}\n\
         [handlers.{name}.grants]\nemit = [\"Test.Thing.Done\"]\nstate = true\ntimer = true",
        tidemill_testkit::guest("mischief").display()
    );
    let world = World::with("sqlite::memory:", NO_RETRY, &second).await;
    for data in [
        json!({ "do": "emit-many", "count": 300, "stubborn": true }),
        json!({ "do": "loop" }),
        json!({ "do": "log-flood", "count": 300 }),
        json!({ "do": "log-flood", "count": 300 }),
        json!({ "do": "log-then-trap", "count": 1, "bytes": 5000 }),
        json!({ "do": "return-big", "bytes": 5000 }),
    ] {
        world.ask(data).await;
    }
    world.run().await;
    let text = tidemill_runtime::observe::metrics::render(|_| {});
    let count = |limit: &str| {
        let labels = format!("tidemill_limits_reached_total{{handler=\"{name}\",limit=\"{limit}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&labels));
        line.unwrap_or_else(|| panic!("no line {labels}\n{text}")).parse::<u64>().unwrap()
    };
    let counts = ["emits", "deadline", "log-lines", "log-bytes", "reason-bytes", "memory"].map(count);
    assert_eq!(counts, [1, 1, 2, 1, 1, 0]);
    assert!(count("log-rate") >= 1, "100 lines of an attempt are more than 20 a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_flood_is_cut_and_the_event_commits() {
    let world = World::new("sqlite::memory:", NO_RETRY).await;
    world.ask(json!({ "do": "log-flood", "count": 9_000 })).await;
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

/// Reaches `INSTANCE_EVENTS`.
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
    let mischief = || tidemill_testkit::guest("mischief");
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
