//! What producers should never send, schemas that should never be written, and floods of what is allowed: a clear
//! verdict each time, and the next event has its turn.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidemill_core::model::delivery::{Body, LARGE_PREFIX_BYTES, Large};
use tidemill_schema::{Json, Registry};
use tidemill_storage::Operator;
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::{NO_RETRY, QUICK, World, event};
use uuid::Uuid;

/// A good event with this in place of the value of `data.x`.
fn with_x(x: &str) -> Vec<u8> {
    let text = event(Uuid::new_v4(), json!({ "do": "ok", "x": 0 })).to_string();
    text.replace("\"x\":0", &format!("\"x\":{x}")).into_bytes()
}

/// Each bad input, and how its dead letter begins; an empty text: it is good after all, and commits.
fn inputs() -> Vec<(Vec<u8>, &'static str)> {
    let mut bom = b"\xef\xbb\xbf".to_vec();
    bom.extend(with_x("1"));
    let mut broken = with_x("\"?\"");
    let at = broken.iter().position(|byte| *byte == b'?').unwrap();
    broken[at] = 0xff;
    let same_twice =
        String::from_utf8(with_x("1")).unwrap().replace("\"version\":\"1\"", "\"version\":\"1\",\"version\":\"1\"");
    // Many members whose names differ in the last letters only: what a hash flood is made of, as far as one can
    // without knowing the host's random seed.
    let members: Vec<String> = (0..15_000).map(|n| format!("\"aaaaaa{n:06}\":0")).collect();
    vec![
        (with_x(&format!("\"{}\"", "y".repeat(300_000))), "undecodable: the event has 3"),
        (broken, "undecodable: not UTF-8: byte"),
        (with_x("\"\\ud800\""), "undecodable: not an event envelope in JSON"),
        (bom, "undecodable: the event begins with a byte order mark"),
        (same_twice.into_bytes(), "undecodable: not an event envelope in JSON: duplicate field"),
        (with_x("1e400"), "undecodable: not an event envelope in JSON: number out of range"),
        (
            with_x(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
            "undecodable: not an event envelope in JSON: recursion limit",
        ),
        (with_x("9007199254740993"), ""),
        (with_x("{\"k\":1,\"k\":2}"), ""),
        (with_x(&format!("{{{}}}", members.join(","))), ""),
    ]
}

async fn have_their_verdicts(world: &World) {
    world.ask(json!({ "do": "ok" })).await;
    world.run().await;
    let (inputs, letters) = (inputs(), world.dead().await);
    let good = inputs.iter().filter(|(_, said)| said.is_empty()).count() as u64;
    assert_eq!(world.status().await.committed, good + 1);
    let bad: Vec<_> = inputs.iter().filter(|(_, said)| !said.is_empty()).collect();
    assert_eq!(letters.len(), bad.len());
    for (letter, (bytes, said)) in letters.iter().zip(bad) {
        let found = format!("{}: {}", letter.reason.class, letter.reason.text);
        assert!(found.starts_with(said), "wanted {said}\n found {found}");
        let Body::Event(kept) = &letter.body else { panic!("{said}: the letter has no bytes") };
        // All but the event's own id, which is another one each time that the list is made.
        assert_eq!(kept.len(), bytes.len(), "{said}: not the same bytes");
    }
    assert_eq!(world.status().await.retried, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_inputs_get_a_clear_verdict_in_bounded_time() {
    let world = World::new("sqlite::memory:", QUICK).await;
    let inputs = inputs();
    for (bytes, _) in &inputs {
        world.put(bytes.clone()).await;
    }
    have_their_verdicts(&world).await;
    for (bytes, said) in inputs.iter().filter(|(_, said)| !said.is_empty()) {
        let kept = Body::Event(Bytes::from(bytes.clone()));
        assert!(world.dead().await.iter().any(|letter| letter.body == kept), "{said}: the bytes are not kept");
    }
}

/// The same by XADD, as any producer may; and entries far above the bound, of which only so much is held as tells them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_entries_get_a_clear_verdict_in_bounded_time() {
    let server = RedisServer::shared();
    let world = World::new(&server.url(), QUICK).await;
    let mut redis = server.client().await;
    for (bytes, _) in inputs() {
        let mut add = redis::cmd("XADD");
        add.arg(&world.asked).arg("*").arg("event").arg(bytes);
        add.query_async::<String>(&mut redis).await.unwrap();
    }
    have_their_verdicts(&world).await;
    let before = world.dead().await.len();
    let many = (0..100_000).map(|number| (format!("f{number}"), "v".to_owned())).collect();
    let long = |letter: &str| (letter.to_owned(), letter.repeat(4_000_000));
    let event = String::from_utf8(with_x(&format!("\"{}\"", "y".repeat(3_000_000)))).unwrap();
    let entries: [Vec<(String, String)>; 3] =
        [many, vec![long("a"), long("b"), long("c")], vec![("event".to_owned(), event.clone())]];
    for fields in &entries {
        let mut add = redis::cmd("XADD");
        add.arg(&world.asked).arg("*").arg(fields);
        add.query_async::<String>(&mut redis).await.unwrap();
    }
    world.ask(json!({ "do": "ok" })).await;
    let committed = world.status().await.committed;
    world.run().await;
    assert_eq!(world.status().await.committed, committed + 1, "the next event has its turn");
    let part = |part: &String| format!("{}:{part},", part.len());
    let packed =
        |fields: &Vec<(String, String)>| fields.iter().flat_map(|(n, v)| [part(n), part(v)]).collect::<String>();
    let expected = [(false, packed(&entries[0])), (false, packed(&entries[1])), (true, event)];
    let letters = world.dead().await.split_off(before);
    assert_eq!(letters.len(), expected.len());
    for (letter, (event, text)) in letters.iter().zip(expected) {
        let large = Large {
            event,
            prefix: Bytes::copy_from_slice(&text.as_bytes()[..LARGE_PREFIX_BYTES]),
            bytes: text.len() as u64,
            sha256: Sha256::digest(&text).into(),
        };
        let said = format!(
            "the {} has {large}; at most 262144 (host.payload_bytes_max)",
            ["entry", "event"][usize::from(event)]
        );
        assert!(letter.reason.text.starts_with(&said), "{}", letter.reason.text);
        assert!(letter.body == Body::Large(large), "{said}: something else is kept");
        assert!(letter.reason.text.ends_with(&format!("as entry {})", letter.origin)), "{}", letter.reason.text);
    }
}

/// What costs more than it should is refused when it is loaded, or is harmless when it runs.
#[test]
fn schema_bombs_are_refused_or_bounded() {
    let refused = |text: &str| Registry::default().add("Test.Made.v1", text).expect_err("a bomb is loaded");
    assert!(refused(r#"{"$ref": "http://127.0.0.1:1/x.json"}"#).contains("leaves the file"));
    assert!(refused(&format!(r#"{{"oneOf":[{}]}}"#, vec!["{}"; 10_000].join(","))).contains("subschemas_max"));
    assert!(refused(&format!(r#"{{"pattern":"{}"}}"#, "^([a-z]{1,1000}[0-9]){1,1000}$")).contains("pattern"));
    let mut registry = Registry::default();
    registry.add("Test.Regex.v1", r#"{"properties":{"x":{"pattern":"^(a|aa)+$"}}}"#).unwrap();
    let catastrophic = format!(r#"{{"x":"{}!"}}"#, "a".repeat(100_000));
    assert!(
        registry.get("Test.Regex", 1).unwrap().check(&Json::read(&catastrophic).unwrap(), catastrophic.len()).is_err()
    );
    let recursive =
        r##"{"definitions":{"n":{"properties":{"n":{"$ref":"#/definitions/n"}}}},"$ref":"#/definitions/n"}"##;
    registry.add("Test.Recursive.v1", recursive).unwrap();
    let deep = format!("{}{{}}{}", r#"{"n":"#.repeat(100), "}".repeat(100));
    assert!(registry.get("Test.Recursive", 1).unwrap().check(&Json::read(&deep).unwrap(), deep.len()).is_ok());
}

#[test]
fn a_schema_of_another_draft_is_refused_with_file_place_and_hint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Test.Made.v1.json");
    std::fs::write(&path, r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","prefixItems":[]}"#).unwrap();
    let errors = Registry::load(folder.path()).unwrap_err();
    let said = errors.iter().map(ToString::to_string).collect::<String>();
    let wanted = format!(
        "schema {}: /$schema: \"https://json-schema.org/draft/2020-12/schema\" is not read: a file is of one draft, 4, 6 or 7\n  hint: ",
        path.display()
    );
    assert!(said.starts_with(&wanted), "{said}");
    std::fs::write(&path, r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#).unwrap();
    assert!(Registry::load(folder.path()).is_ok());
}

/// A schema is taken away while its events wait, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_gone_makes_dead_letters_that_can_be_replayed() {
    let mut world = World::new("sqlite::memory:", NO_RETRY).await;
    world.ask(json!({ "do": "ok" })).await;
    let folder = tempfile::tempdir().unwrap();
    let all = tidemill_testkit::root().join("tests/schemas");
    let keep = |name: &str| std::fs::copy(all.join(name), folder.path().join(name)).unwrap();
    keep("Test.Thing.Done.v1.json");
    // Another version is there: the route is still a good one.
    let text = std::fs::read_to_string(all.join("Test.Thing.Asked.v1.json")).unwrap();
    std::fs::write(folder.path().join("Test.Thing.Asked.v2.json"), text).unwrap();
    let there = std::mem::replace(&mut world.config.schemas.path, Path::new(folder.path()).to_owned());
    world.run().await;
    let (letter, said) = world.only_dead().await;
    assert!(said.starts_with("unknown: Test.Thing.Asked has no version \"1\""), "{said}");
    world.config.schemas.path = there;
    assert_eq!(world.backend.replay(&world.subscription, &[letter.id], &Operator::default()).await.unwrap(), 1);
    world.run().await;
    let status = world.status().await;
    assert_eq!((status.committed, status.dead), (1, 0));
}

async fn put_many(world: &World, data: &Value, count: usize) {
    for _ in 0..count {
        world.ask(data.clone()).await;
    }
}

crate::on_both_backends! {
    async fn the_same_id_a_thousand_times_has_one_effect(url: &str) {
        let world = World::new(url, QUICK).await;
        let bytes = event(Uuid::new_v4(), json!({ "do": "state-count", "key": "k" })).to_string();
        for _ in 0..3 {
            for _ in 0..334 {
                world.put(bytes.clone()).await;
            }
            // Two hosts now, and two others in the next round.
            tokio::join!(world.host(), world.host());
        }
        assert_eq!(world.count("k").await, Some(json!(1)));
        let status = world.status().await;
        assert_eq!((status.committed, status.duplicates, status.retried, status.dead), (1, 1001, 0, 0), "{status:?}");
    }

    /// The inbox remembers for one window at least. How much longer differs: Redis forgets after two windows, SQLite
    /// when later commits have closed the bucket and the window has gone by since. Here both have happened.
    async fn after_the_window_it_is_processed_again(url: &str) {
        let world = World::with(url, QUICK, "[idempotency]\nwindow = \"2s\"").await;
        let bytes = event(Uuid::new_v4(), json!({ "do": "state-count", "key": "k" })).to_string();
        world.put(bytes.clone()).await;
        world.run().await;
        world.put(bytes.clone()).await;
        world.run().await;
        let within = world.count("k").await;
        // Where nothing came for a while, the clock may have been put ahead: then some more is remembered.
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(2_100)).await;
            world.ask(json!({ "do": "state-count", "key": "other" })).await;
            world.run().await;
        }
        world.put(bytes).await;
        world.run().await;
        assert_eq!((within, world.count("k").await), (Some(json!(1)), Some(json!(2))));
    }

    /// All of them are due in the same moment; what comes in fresh is not to stand behind them.
    async fn a_storm_of_retries_due_at_once_leaves_fresh_traffic_alive(url: &str) {
        // So many that it has not blown over when the fresh ones come, also on a machine that is busy.
        const STORM: usize = 20_000;
        const FRESH: usize = 200;
        let breaker = r#"breaker = { failure_rate = 1.0, min_events = 1000000, open_for = "1s" }"#;
        let world = World::new(url, &format!("retry = {{ max = 1, base = \"1ms\", factor = 1, cap = \"1ms\" }}\n{breaker}")).await;
        put_many(&world, &json!({ "do": "retry-after", "after_ms": 30_000 }), STORM).await;
        let host = world.host();
        let watch = async {
            while world.backend.status(&world.subscription).await.map_or(true, |status| status.due < STORM as u64) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            while world.backend.status(&world.subscription).await.unwrap().due == STORM as u64 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            put_many(&world, &json!({ "do": "ok" }), FRESH).await;
            while world.backend.status(&world.subscription).await.unwrap().committed < FRESH as u64 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            world.backend.status(&world.subscription).await.unwrap()
        };
        let (at_the_time, ()) = tokio::join!(watch, host);
        let status = world.status().await;
        assert_eq!((status.committed, status.dead, status.retried), (FRESH as u64, STORM as u64, STORM as u64));
        assert!(at_the_time.dead < STORM as u64, "the fresh events came last: {at_the_time:?}");
    }

    /// A guest may ask for any time; what is stored is a time that can be.
    async fn after_a_hundred_years_or_negative_is_clamped(url: &str) {
        let world = World::new(url, QUICK).await;
        let century = 100_u64 * 365 * 24 * 3600 * 1000;
        for after in [century, u64::MAX] {
            world.ask(json!({ "do": "retry-after", "after_ms": after })).await;
        }
        world.ask(json!({ "do": "retry-after", "after_ms": 0 })).await;
        let host = tokio::time::timeout(Duration::from_secs(3), world.host()).await;
        assert!(host.is_err(), "two retries wait: the host does not become idle");
        let next = world.backend.promote(&world.subscription, 10).await.unwrap().next_in.expect("two wait");
        assert!(next <= Duration::from_secs(7 * 24 * 3600), "due in {next:?}");
        let status = world.status().await;
        assert_eq!((status.due, status.dead), (2, 1), "{status:?}");
    }
}
