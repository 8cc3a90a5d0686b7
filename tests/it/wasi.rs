//! WASI is what a language's runtime asks for, and no way out of the sandbox: what is granted works within its bounds,
//! what is not granted is refused, and what nobody can be granted is not there.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidemill_testkit::world::{NO_RETRY, World, refusal_of};

const ALL: &str = r#"wasi = ["clocks", "random", "stdio"]"#;

/// A world whose handler is the guest `wasi-user`, with one worker, so that its events meet one instance.
async fn world(extra: &str) -> World {
    let mut world = World::with("sqlite::memory:", extra, ALL).await;
    world.config.host.workers = 1;
    world.config.handlers.get_mut("mischief").unwrap().plugin = tidemill_testkit::guest("wasi-user");
    world
}

/// What the guest emitted as `n`, for each of these events.
async fn answers(extra: &str, events: impl IntoIterator<Item = Value>) -> Vec<i64> {
    let world = world(extra).await;
    for event in events {
        world.ask(event).await;
    }
    world.run().await;
    assert_eq!(world.dead().await.len(), 0, "{:?}", world.dead().await);
    world.emitted().await.iter().map(|event| event["data"]["n"].as_i64().unwrap()).collect()
}

/// The words of the dead letter that this event became.
async fn refused(extra: &str, event: Value) -> String {
    let world = world(&format!("{NO_RETRY}\n{extra}")).await;
    world.ask(event).await;
    world.run().await;
    assert_eq!(world.emitted().await.len(), 0, "nothing leaves");
    world.only_dead().await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clocks_are_real() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let before = now();
    let said = answers("", [json!({ "do": "wall" }), json!({ "do": "monotonic" })]).await;
    assert!((before..=now()).contains(&said[0]), "{said:?}");
    assert!(said[1] >= 0, "time does not run backwards: {said:?}");
}

/// Reaches `WASI_RANDOM_BYTES`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_are_not_twice_the_same() {
    assert_eq!(answers("", [json!({ "do": "random", "bytes": 65_536 })]).await, [2]);
}

/// So that a language's hash tables do the same again; another delivery gets others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn insecure_randomness_belongs_to_the_delivery() {
    let world = world(r#"retry = { max = 1, base = "10ms", factor = 1, cap = "10ms" }"#).await;
    world.ask(json!({ "do": "insecure" })).await;
    world.ask(json!({ "do": "insecure" })).await;
    world.run().await;
    let letters = world.dead().await;
    let said: Vec<Vec<&str>> =
        letters.iter().map(|letter| letter.history.iter().map(|attempt| &*attempt.reason).collect()).collect();
    assert_eq!((said.len(), said[0].len()), (2, 2), "{said:?}");
    assert!(said.iter().all(|tries| tries[0] == tries[1]), "the same at the second try: {said:?}");
    assert_ne!(said[0], said[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_wait_is_a_wait() {
    let waits = [json!({ "do": "sleep", "ms": 1, "count": 1 }), json!({ "do": "poll", "ms": 1, "count": 3 })];
    assert_eq!(answers("deadline = \"10s\"", waits).await, [1, 3]);
}

macro_rules! bounds {
    ($($name:ident: $event:tt, $extra:expr => $said:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let said = refused($extra, json!($event)).await;
            assert!(said.contains($said), "wanted {}\n found {said}", $said);
        })*
    };
}

bounds! {
    a_long_wait_is_not_begun: { "do": "sleep", "ms": 3_600_000, "count": 1 }, "" => "wasi-wait: wasi:io/poll: it would wait 3600.0s; an attempt may wait 10ms in all (WASI_WAIT)";
    a_long_poll_is_not_begun: { "do": "poll", "ms": 3_600_000, "count": 2 }, "" => "wasi-wait: wasi:io/poll: it would wait 3600.0s";
    a_wait_for_ever_is_not_begun: { "do": "sleep", "ms": u64::MAX, "count": 1 }, "" => "wasi-wait: wasi:io/poll: it would wait";
    // Reaches `WASI_WAIT`.
    many_short_waits_are_one_long_one: { "do": "sleep", "ms": 1, "count": 1000 }, "deadline = \"10s\"" => "wasi-wait: wasi:io/poll: it would wait";
    a_wait_ends_with_the_deadline: { "do": "sleep", "ms": 9, "count": 1 }, "deadline = \"4ms\"" => "deadline: stopped after its deadline";
    an_endless_poll_list_is_refused: { "do": "poll", "ms": 0, "count": 1025 }, "limits = { handles = 5000 }" => "handles: wasi:io/poll: a list of 1025; 1 to 1024 (WASI_HANDLES) can be polled";
    // Reaches `WASI_HANDLES`.
    handles_are_bounded: { "do": "leak", "count": 1025 }, "limits = { handles = 5000 }" => "handles: wasi: an instance may hold 1024 handles (WASI_HANDLES)";
    random_bytes_at_once_are_bounded: { "do": "random", "bytes": 65_537 }, "" => "wasi-bytes: wasi:random: it asked for 65537 bytes; at most 65536 (WASI_RANDOM_BYTES)";
    an_exit_is_a_trap: { "do": "exit" }, "" => "trap: it called wasi:cli/exit with ok; a handler returns";
}

/// Reaches `WASI_HANDLES_KEPT`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_leaks_handles_is_replaced() {
    const REUSED: &str = "instance_events_max = 100";
    let leak = |count: u32| (0..3).map(move |_| json!({ "do": "leak", "count": count, "key": "same" }));
    assert_eq!(answers(REUSED, leak(20)).await, [1, 2, 3], "60 handles may stay open");
    assert_eq!(answers(REUSED, leak(40)).await, [1, 2, 1], "80 may not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_in_the_log() {
    let world = world(NO_RETRY).await;
    world.ask(json!({ "do": "print", "text": "a line\nand no end" })).await;
    world.ask(json!({ "do": "print", "text": "x".repeat(5000) })).await;
    world.run().await;
    let letters = world.dead().await;
    assert_eq!(letters[0].history[0].log, ["a line", "a line", "and no end", "and no end"]);
    let long = format!("{}...", "x".repeat(2048));
    assert_eq!(letters[1].history[0].log, [long.clone(), long], "a line has its bound");
}

/// Reaches `PERMIT_BYTES`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_zeroes_may_be_written_at_once() {
    assert!(refused("", json!({ "do": "zeroes", "bytes": 65_536 })).await.contains("printed"));
    let said = refused("", json!({ "do": "zeroes", "bytes": 65_537 })).await;
    assert!(said.contains("wasi-bytes: wasi:io/streams: 65537 zeroes at once; at most 65536 may be written"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_print_is_cut_and_the_event_commits() {
    assert_eq!(answers("deadline = \"10s\"", [json!({ "do": "print-flood", "count": 2_000 })]).await, [2_000]);
}

/// The denial of files, of variables, of arguments and of standard input: they are empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_nothing_around_a_guest() {
    assert_eq!(answers("", [json!({ "do": "surroundings" })]).await, [0]);
}

/// The denial of clocks, random and stdio.
#[test]
fn what_is_not_granted_is_not_linked() {
    let said = |wasi: &str| {
        let grants = format!("emit = [\"Test.Thing.Done\"]\nwasi = [{wasi}]");
        refusal_of(tidemill_testkit::guest("wasi-user"), &grants)
    };
    for (grants, missing) in [
        (r#""random", "stdio""#, "wasi-clocks"),
        (r#""clocks", "stdio""#, "wasi-random"),
        (r#""clocks", "random""#, "wasi-stdio"),
        ("", "wasi-io"),
    ] {
        let said = said(grants);
        assert!(said.contains(&format!("asks for capability \"{missing}\", which is not granted")), "{said}");
        assert!(said.contains("write `wasi = ["), "{said}");
    }
}

/// The denial of what cannot be granted.
#[test]
fn the_network_is_not_there() {
    for (import, said_of_it) in [
        ("wasi:sockets/tcp@0.2.0", "which this host does not offer"),
        ("wasi:sockets/ip-name-lookup@0.2.6", "which this host does not offer"),
        ("wasi:http/outgoing-handler@0.2.6", "which this host does not offer"),
        ("wasi:clocks/timezone@0.2.6", "which this host does not offer"),
        ("wasi:clocks/wall-clock@0.3.0", "this host speaks 0.2.0 and later 0.2s"),
        ("wasi:clocks/wall-clock@0.2.0-rc-2023-11-10", "this host speaks 0.2.0 and later 0.2s"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let said = refusal_of(importing(folder.path(), import), &format!("state = true\n{ALL}"));
        assert!(said.contains(&format!("it imports \"{import}\"")) && said.contains(said_of_it), "{said}");
    }
}

/// A component that imports this and is nothing else.
fn importing(folder: &std::path::Path, import: &str) -> PathBuf {
    let text = format!(
        r#"(component (import "{import}" (instance)) (instance $i) (export "tidemill:plugin/handler@0.1.0" (instance $i)))"#
    );
    let path = folder.join("plugin.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path
}
