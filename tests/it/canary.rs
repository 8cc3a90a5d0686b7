//! A new version of a plugin on some of the keys: what becomes of it, and of the events that it meets.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidemill_runtime::canary::publish;
use tidemill_runtime::history::How;
use tidemill_testkit::beside::{ask, host, run, world};
use tidemill_testkit::world::World;

/// Tries it on half of the keys, and judges soon.
const SOON: &str = r#"canary = { share = 0.5, min_events = 40, min_time = "0s" }"#;
const RETRY: &str = r#"retry = { max = 1, base = "10ms", factor = 1, cap = "10ms" }"#;
const NO_RETRY: &str = r#"retry = { max = 0, base = "10ms", cap = "10ms" }"#;

/// Every event took effect once, by whichever version, and none is a dead letter.
async fn assert_nothing_lost(world: &World, events: u64) {
    let status = world.status().await;
    assert_eq!((status.committed, status.dead, status.dropped), (events, 0, 0), "{status:?}");
    let mut causes: Vec<Value> = world.emitted().await.iter().map(|event| event["causation_id"].clone()).collect();
    causes.sort_by_key(Value::to_string);
    causes.dedup();
    assert_eq!(causes.len() as u64, events, "each event has led to one of its own");
    let states = world.backend.states(&world.subscription, None, 1000).await.unwrap();
    let counted: u64 =
        states.iter().map(|(_, state)| String::from_utf8_lossy(&state.values["n"]).parse::<u64>().unwrap()).sum();
    assert_eq!(counted, events, "each event was counted once");
}

crate::on_both_backends! {
    async fn a_canary_that_always_fails_costs_no_event(url: &str) {
        for (edition, retry) in [("fail", RETRY), ("fail", NO_RETRY), ("trap", NO_RETRY), ("deny", RETRY), ("deny", NO_RETRY)] {
            let world = world(url, &format!("{SOON}\n{retry}")).await;
            ask(&world, 400, 200).await;
            let trial = run(&world, edition).await;
            assert!(trial.rolled_back(), "{edition}: {:?}", trial.facts);
            assert_eq!(trial.facts.canary.good, 0, "{edition}");
            assert!(trial.facts.canary.bad < 200, "{edition}: it was found out late: {:?}", trial.facts);
            assert_nothing_lost(&world, 400).await;
        }
    }

    async fn a_failing_canary_does_not_open_the_breaker(url: &str) {
        let breaker = r#"breaker = { failure_rate = 0.1, min_events = 5, open_for = "1h" }"#;
        let canary = r#"canary = { share = 0.9 }"#;
        let world = world(url, &format!("{canary}\n{RETRY}\n{breaker}")).await;
        ask(&world, 200, 100).await;
        let trial = run(&world, "fail").await;
        assert!(trial.rolled_back(), "{:?}", trial.facts);
        assert_nothing_lost(&world, 200).await;
    }

    async fn a_canary_that_does_well_is_promoted(url: &str) {
        let world = world(url, SOON).await;
        ask(&world, 600, 600).await;
        let trial = run(&world, "emit").await;
        assert!(trial.promoted(), "{:?}", trial.facts);
        assert_eq!(trial.how, "canary", "it is a generation as soon as it is promoted");
        assert_nothing_lost(&world, 600).await;
        let last = world.emitted().await.into_iter().rev().take(100);
        assert!(last.into_iter().all(|event| event["data"]["n"].as_u64().unwrap() % 2 == 1), "an old version went on");
    }

    async fn a_slow_canary_is_rolled_back(url: &str) {
        let world = world(url, r#"canary = { share = 0.5, min_events = 1000 }"#).await;
        ask(&world, 400, 400).await;
        let trial = run(&world, "slow").await;
        assert!(trial.rolled_back(), "{:?}", trial.facts);
        assert_nothing_lost(&world, 400).await;
    }

    async fn a_key_meets_one_version_and_the_share_is_kept(url: &str) {
        let world = world(url, r#"canary = { share = 0.2, min_events = 1, min_time = "1h" }"#).await;
        ask(&world, 1000, 500).await;
        let trial = run(&world, "emit").await;
        assert!(trial.after.canary.is_some() && trial.ended.is_none(), "an hour is not over");
        let mut versions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for event in world.emitted().await {
            let version = event["data"]["n"].as_u64().unwrap() % 2;
            versions.entry(event["key"].to_string()).or_default().push(version);
        }
        assert!(versions.values().all(|met| met.iter().all(|version| *version == met[0])), "{versions:?}");
        let new = versions.values().filter(|met| met[0] == 1).count();
        assert!((50..150).contains(&new), "{new} of 500 keys met the canary");
    }

    async fn within_the_margin_failures_are_borne(url: &str) {
        let canary = r#"canary = { share = 0.5, failure_rate = 0.9, min_events = 100, min_time = "0s" }"#;
        let world = world(url, &format!("{canary}\n{RETRY}")).await;
        ask(&world, 200, 200).await;
        let trial = run(&world, "some").await;
        assert!(trial.after.canary.is_some(), "{:?}", trial.facts);
        assert!(trial.facts.canary.bad > 0);
        assert_nothing_lost(&world, 200).await;
    }

    async fn without_a_canary_a_new_version_serves_everything_at_once(url: &str) {
        let world = world(url, "").await;
        ask(&world, 50, 50).await;
        let trial = run(&world, "emit").await;
        assert!(trial.before.canary.is_none());
        assert!(world.emitted().await.iter().all(|event| event["data"]["n"].as_u64().unwrap() % 2 == 1));
    }
}

/// The counters of the attempts say whose doing a failure was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_of_an_attempt_names_the_canary() {
    let canary = r#"canary = { share = 1.0 }"#;
    let mut world = world("sqlite::memory:", &format!("{canary}\n{NO_RETRY}")).await;
    // What the stable version denies as well is a dead letter in the end.
    let deny = tidemill_testkit::edition("deny");
    world.config.handlers.get_mut("mischief").unwrap().plugin = deny.to_path_buf();
    world.ask(json!({ "do": "", "n": 1 })).await;
    let trial = run(&world, "fail").await;
    let (letter, said) = world.only_dead().await;
    assert!(said.starts_with("rejected: "), "{said}");
    let by: Vec<(&str, &str)> =
        letter.history.iter().map(|record| (record.class.as_str(), record.plugin.as_str())).collect();
    let tried = trial.before.canary.as_ref().unwrap().plugin.digest.clone();
    assert_eq!(by, [("failed", &*tried), ("rejected", &*trial.before.stable.digest)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_version_takes_the_place_of_a_canary() {
    let world = world("sqlite::memory:", "canary = { share = 0.25 }").await;
    let (host, editions) = host(&world, &["fail", "emit"]);
    let handler = &host.consumers[0].handler;
    let stable = handler.serving.load().stable.clone();
    for edition in &editions {
        publish(handler, edition, How::File);
        let serving = handler.serving.load();
        let canary = serving.canary.as_ref().unwrap();
        assert_eq!((&canary.plugin.digest, canary.share), (&edition.digest, 0.25));
        assert_eq!(
            (&serving.stable.digest, canary.trial().facts(std::time::Instant::now()).canary.calls),
            (&stable.digest, 0)
        );
    }
}
