//! A plugin has itself called again later: set with the commit, once, under the same key, and by nobody else.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::Body;
use tidemill_runtime::shutdown::ShutdownTrigger;
use tidemill_storage::Operator;
use tidemill_testkit::world::{NO_RETRY, QUICK, World, event};
use uuid::Uuid;

crate::on_both_backends! {
    async fn a_timer_comes_back_with_the_key_of_the_delivery(url: &str) {
        let world = World::new(url, QUICK).await;
        let timer = json!({ "do": "timer", "count": 2, "after_ms": 30, "key": "k", "then": { "do": "state-count", "key": "x" } });
        world.ask(timer).await;
        world.run().await;
        assert_eq!((world.count("k").await, world.count("x").await), (Some(json!(2)), None), "the data's key is not asked");
        let status = world.status().await;
        assert_eq!((status.published, status.timers, status.committed, status.waiting()), (1, 2, 3, 0));
    }

    async fn the_event_of_a_timer_tells_where_it_comes_from(url: &str) {
        let world = World::new(url, QUICK).await;
        let id = world.ask(json!({ "do": "timer", "key": "k", "then": { "do": "tell-timer" } })).await;
        world.run().await;
        let emitted = world.emitted().await;
        assert_eq!(emitted.len(), 1);
        let timer = world.ids().await.of(id, "mischief", "timer-0").to_string();
        assert_eq!((&emitted[0]["causation_id"], &emitted[0]["key"]), (&json!(timer), &json!("k")));
        assert_eq!(emitted[0]["correlation_id"], "0191d3a0-0000-7000-8000-00000000c0de");
        assert_eq!(emitted[0]["attributes"], json!({ "timer": "again" }));
    }

    async fn a_timer_sets_the_next_one(url: &str) {
        let world = World::new(url, QUICK).await;
        let last = json!({ "do": "state-count" });
        let second = json!({ "do": "timer", "after_ms": 5, "then": last });
        let first = json!({ "do": "timer", "after_ms": 5, "then": second });
        world.ask(json!({ "do": "timer", "key": "k", "then": first })).await;
        world.run().await;
        assert_eq!((world.count("k").await, world.status().await.timers), (Some(json!(1)), 3));
    }

    async fn an_attempt_that_fails_sets_no_timer(url: &str) {
        let world = World::new(url, NO_RETRY).await;
        world.ask(json!({ "do": "timer-then-trap" })).await;
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.timers, status.dead, status.committed), (0, 1, 0));
    }

    async fn an_event_that_is_sent_twice_sets_its_timer_once(url: &str) {
        let world = World::new(url, QUICK).await;
        let bytes = event(Uuid::new_v4(), json!({ "do": "timer", "key": "k", "then": { "do": "state-count" } })).to_string();
        world.put(bytes.clone()).await;
        world.put(bytes).await;
        world.run().await;
        assert_eq!((world.count("k").await, world.status().await.timers), (Some(json!(1)), 1));
    }

    async fn a_timer_dies_and_is_replayed_as_a_timer(url: &str) {
        let world = World::new(url, QUICK).await;
        world.ask(json!({ "do": "timer", "key": "k", "then": { "do": "retry" } })).await;
        world.run().await;
        let (letter, said) = world.only_dead().await;
        assert!(said.starts_with("exhausted: 4 attempts failed"), "{said}");
        assert!(matches!(&letter.body, Body::Timer(_)), "{letter:?}");
        assert_eq!(world.backend.replay(&world.subscription, &[letter.id], &Operator::default()).await.unwrap(), 1);
        world.run().await;
        let (again, said) = world.only_dead().await;
        assert!(said.starts_with("exhausted: 4 attempts failed"), "it was handled again: {said}");
        assert_eq!(again.replayed.map(|replayed| replayed.times), Some(1));
    }

    async fn a_forged_timer_is_not_wanted(url: &str) {
        let world = World::new(url, QUICK).await;
        world.put(forged()).await;
        world.run().await;
        let status = world.status().await;
        assert_eq!((status.skipped, status.dead, status.committed), (1, 0, 0));
    }

    /// Neither on the stream, nor by way of a dead letter.
    async fn a_forged_timer_is_refused_by_who_wants_everything(url: &str) {
        let mut world = World::new(url, QUICK).await;
        world.config.handlers.get_mut("mischief").unwrap().events = vec!["*".to_owned().into()];
        world.put(forged()).await;
        world.run().await;
        let (letter, said) = world.only_dead().await;
        assert!(said.starts_with("invalid: /event_type: \"Tidemill.Timer\" is the host's own"), "{said}");
        assert_eq!(world.backend.replay(&world.subscription, &[letter.id], &Operator::default()).await.unwrap(), 1);
        world.run().await;
        let (again, _) = world.only_dead().await;
        assert_eq!((again.reason.class, world.count("k").await), (ReasonClass::Invalid, None));
    }

    async fn a_run_until_idle_leaves_what_is_far_away(url: &str) {
        let world = World::new(url, QUICK).await;
        world.ask(json!({ "do": "timer", "after_ms": 3_600_000 })).await;
        world.ask(json!({ "do": "timer", "after_ms": 200, "key": "k", "then": { "do": "state-count" } })).await;
        world.run().await;
        let status = world.status().await;
        assert_eq!((world.count("k").await, status.due, status.far), (Some(json!(1)), 1, 1), "{status:?}");
    }

    async fn a_plugin_whose_timers_set_timers_is_bounded(url: &str) {
        let mut world = World::new(url, NO_RETRY).await;
        world.config.host.timers_max = 40;
        let world = world.by(url).await;
        world.ask(json!({ "do": "timer-bomb" })).await;
        let (trigger, shutdown) = ShutdownTrigger::new();
        let trigger = Arc::new(trigger);
        let host = world.host_until(trigger.clone(), shutdown, false);
        let look = async {
            loop {
                if let Ok(status) = world.backend.status(&world.subscription).await {
                    // The first one is on the stream.
                    assert!(status.due + status.redelivery + status.pending <= 41, "{status:?}");
                    assert!(status.balances(), "{status:?}");
                    if status.dead >= 20 {
                        break;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            trigger.trigger();
        };
        let both = async { tokio::join!(host, look).0 };
        tokio::time::timeout(Duration::from_secs(100), both).await.expect("it meets its bound").expect("a run");
    }

    async fn host_timers_max_bounds_what_waits(url: &str) {
        let mut world = World::new(url, NO_RETRY).await;
        world.config.host.timers_max = 2;
        let world = world.by(url).await;
        for _ in 0..3 {
            world.ask(json!({ "do": "timer", "after_ms": 3_600_000 })).await;
        }
        world.run().await;
        let (_, said) = world.only_dead().await;
        assert!(said.contains("timers-waiting: timer: too many timers wait (host.timers_max)"), "{said}");
        assert_eq!(world.status().await.timers, 2);
    }
}

fn forged() -> String {
    let mut forged = event(Uuid::new_v4(), json!({ "do": "state-count" }));
    forged["event_type"] = "Tidemill.Timer".into();
    forged["key"] = "k".into();
    forged["attributes"] = json!({ "timer": "again" });
    forged.to_string()
}
