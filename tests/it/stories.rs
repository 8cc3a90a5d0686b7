//! What becomes of an event, by what the plugin does with it.

use bytes::Bytes;
use serde_json::json;
use tidemill_core::model::delivery::Body;
use tidemill_storage::Operator;
use tidemill_testkit::world::{NO_RETRY, QUICK, World, event};
use uuid::Uuid;

crate::on_both_backends! {
    async fn a_rejected_event_is_never_retried(url: &str) {
        let world = World::new(url, QUICK).await;
        world.ask(json!({ "do": "reject" })).await;
        world.run().await;
        let (letter, said) = world.only_dead().await;
        assert!(said.starts_with("rejected: "), "{said}");
        assert_eq!((letter.attempts, world.status().await.retried), (1, 0));
    }

    async fn a_failing_event_is_retried_three_times_and_then_dead(url: &str) {
        let world = World::new(url, QUICK).await;
        world.ask(json!({ "do": "retry" })).await;
        world.run().await;
        let (letter, said) = world.only_dead().await;
        assert!(said.starts_with("exhausted: 4 attempts failed, the last one: failed: "), "{said}");
        let attempts: Vec<u32> = letter.history.iter().map(|record| record.attempt).collect();
        assert_eq!((attempts, world.status().await.retried), (vec![1, 2, 3, 4], 3));
    }

    async fn a_retry_that_works_leaves_one_effect(url: &str) {
        let world = World::new(url, QUICK).await;
        world.ask(json!({ "do": "fail-until", "attempt": 3, "n": 7 })).await;
        world.run().await;
        assert_eq!(world.emitted().await.len(), 1);
        let status = world.status().await;
        assert_eq!((status.committed, status.retried, status.dead), (1, 2, 0));
    }

    async fn an_emitted_event_tells_where_it_comes_from(url: &str) {
        let world = World::new(url, QUICK).await;
        let id = world.ask(json!({ "do": "emit-many", "count": 2, "key": "k" })).await;
        world.run().await;
        let emitted = world.emitted().await;
        assert_eq!(emitted.len(), 2);
        let ids = world.ids().await;
        for (index, event) in emitted.iter().enumerate() {
            assert_eq!(event["event_id"], ids.of(id, "mischief", &index.to_string()).to_string());
            assert_eq!((&event["causation_id"], &event["source"], &event["key"]), (&json!(id), &json!("mischief"), &json!("k")));
            assert_eq!(event["correlation_id"], "0191d3a0-0000-7000-8000-00000000c0de");
        }
    }

    async fn a_trap_throws_every_effect_away(url: &str) {
        let world = World::new(url, NO_RETRY).await;
        world.ask(json!({ "do": "emit-then-trap", "key": "k" })).await;
        world.ask(json!({ "do": "state-then-trap", "key": "k" })).await;
        world.run().await;
        assert_eq!((world.dead().await.len(), world.emitted().await.len(), world.count("k").await), (2, 0, None));
    }

    async fn state_adds_up_over_batches_and_duplicates_do_not_count(url: &str) {
        let world = World::new(url, QUICK).await;
        for round in 0..300 {
            let key = ["a", "b", "c"][round % 3];
            let bytes = event(Uuid::new_v4(), json!({ "do": "state-count", "key": key })).to_string();
            world.put(bytes.clone()).await;
            if round % 10 == 0 {
                world.put(bytes).await;
            }
        }
        world.run().await;
        for key in ["a", "b", "c"] {
            assert_eq!(world.count(key).await, Some(json!(100)), "{key}");
        }
        let status = world.status().await;
        assert_eq!((status.committed, status.skipped, status.duplicates), (300, 30, 30));
    }

    async fn keys_with_large_states_take_turns(url: &str) {
        let limits = "limits = { state = \"9MiB\", state_total = \"9MiB\", hostcall_bytes = \"16MiB\" }";
        let world = World::new(url, &format!("{NO_RETRY}\n{limits}")).await;
        let keys = ["a", "b", "c", "d", "e", "f"];
        for key in keys {
            world.ask(json!({ "do": "state-big", "bytes": 8 << 20, "key": key })).await;
        }
        world.run().await;
        for round in 0..60 {
            world.ask(json!({ "do": "state-count", "key": keys[round % keys.len()] })).await;
        }
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.committed, status.retried, status.dead), (66, 0, 0), "{:?}", world.dead().await);
        for key in keys {
            assert_eq!(world.count(key).await, Some(json!(10)), "{key}");
        }
    }

    async fn two_hosts_share_the_work_and_nothing_counts_twice(url: &str) {
        let world = World::new(url, QUICK).await;
        for round in 0..600 {
            world.ask(json!({ "do": "state-count", "key": format!("k{}", round % 2) })).await;
        }
        tokio::join!(world.host(), world.host());
        assert_eq!((world.count("k0").await, world.count("k1").await), (Some(json!(300)), Some(json!(300))));
        assert_eq!(world.status().await.committed, 600);
    }

    async fn the_same_id_with_other_content_is_never_silent(url: &str) {
        let world = World::new(url, QUICK).await;
        let id = Uuid::new_v4();
        world.put(event(id, json!({ "do": "state-count", "key": "k" })).to_string()).await;
        world.run().await;
        world.put(event(id, json!({ "do": "state-count", "key": "other" })).to_string()).await;
        world.run().await;
        let (_, said) = world.only_dead().await;
        assert!(said.starts_with("conflict: another event with this event_id"), "{said}");
    }

    async fn dirt_ends_as_dead_letters_with_the_exact_bytes_and_the_loop_goes_on(url: &str) {
        let world = World::new(url, QUICK).await;
        let good = event(Uuid::new_v4(), json!({ "do": "ok" })).to_string();
        let rows: Vec<(Vec<u8>, &str)> = vec![
            (b"".to_vec(), "undecodable: the event is empty"),
            (b"nonsense".to_vec(), "undecodable: not an event envelope in JSON"),
            (b"\xff\xfe{}".to_vec(), "undecodable: not UTF-8: byte 0"),
            (good.replace("\"ok\"", &"[".repeat(100_000)).into_bytes(), "undecodable: "),
            (vec![b' '; 300_000], "undecodable: the event has 300000 bytes; at most 262144 (payload_bytes_max)"),
            (good.replace("\"ok\"", "1").into_bytes(), "invalid: /data/do: 1 is not of type \"string\""),
            (good.replace("2026-01-31T12:00:00Z", "2026-01-31T12:00:00").into_bytes(), "invalid: /timestamp: "),
            (good.replace("\"event_id\":\"", "\"event_id\":\"x").into_bytes(), "invalid: /event_id: "),
            (good.replace("Test.Thing.Asked", "Test.Thing.Asked.v1").into_bytes(), "skipped"),
            (good.replace("\"version\":\"1\"", "\"version\":\"2\"").into_bytes(), "unknown: Test.Thing.Asked has no version \"2\""),
        ];
        for (bytes, _) in &rows {
            world.put(bytes.clone()).await;
        }
        world.put(good).await;
        world.run().await;
        assert_eq!(world.status().await.committed, 1);
        let letters = world.dead().await;
        for (bytes, said) in rows.iter().filter(|(_, said)| *said != "skipped") {
            let letter = letters.iter().find(|letter| letter.body == Body::Event(Bytes::from(bytes.clone())));
            let letter = letter.unwrap_or_else(|| panic!("no dead letter with the bytes of: {said}"));
            let found = format!("{}: {}", letter.reason.class, letter.reason.text);
            assert!(found.starts_with(said), "wanted {said}\n found {found}");
        }
        assert_eq!(letters.len(), rows.len() - 1);
    }

    async fn a_dead_letter_can_be_replayed_and_then_works(url: &str) {
        let world = World::new(url, NO_RETRY).await;
        world.ask(json!({ "do": "fail-until", "attempt": 1, "n": 1 })).await;
        world.ask(json!({ "do": "retry" })).await;
        world.run().await;
        let (letter, _) = world.only_dead().await;
        assert_eq!(world.backend.replay(&world.subscription, &[letter.id], &Operator::default()).await.unwrap(), 1);
        assert_eq!(world.backend.replay(&world.subscription, &[letter.id], &Operator::default()).await.unwrap(), 0, "a second time there is nothing to replay");
        world.run().await;
        let (again, _) = world.only_dead().await;
        assert_eq!((again.origin, again.attempts), (letter.origin, 1));
    }

    async fn an_open_breaker_stops_fetching(url: &str) {
        let breaker = r#"breaker = { failure_rate = 0.5, min_events = 10, open_for = "1h" }"#;
        let world = World::new(url, &format!("{QUICK}\n{breaker}")).await;
        for _ in 0..1000 {
            world.ask(json!({ "do": "retry" })).await;
        }
        let host = tokio::time::timeout(std::time::Duration::from_secs(5), world.host()).await;
        assert!(host.is_err(), "with an open breaker it cannot become idle");
        let status = world.status().await;
        assert!(status.lag >= 500, "it went on fetching: {status:?}");
        assert_eq!(status.dead, 0, "dead letters fill up: {status:?}");
    }
}

/// A producer may XADD whatever fields it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_nonsense_fields_stops_nobody() {
    let url = tidemill_testkit::server::RedisServer::shared().url();
    let world = World::new(&url, QUICK).await;
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let fields: &[(&[u8], &[u8])] = &[(b"foo", b"\x00\xff"), (b"", b"")];
    let _: String = redis::cmd("XADD").arg(&world.asked).arg("*").arg(fields).query_async(&mut redis).await.unwrap();
    world.ask(json!({ "do": "ok" })).await;
    world.run().await;
    let (letter, said) = world.only_dead().await;
    assert!(said.starts_with("undecodable: the entry has no field \"event\"; its fields: foo"), "{said}");
    let kept: Vec<(Bytes, Bytes)> =
        fields.iter().map(|(n, v)| (Bytes::from_static(n), Bytes::from_static(v))).collect();
    assert_eq!((letter.body, world.status().await.committed), (Body::Fields(kept), 1));
}
