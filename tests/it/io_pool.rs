//! The I/O pool: calls that wait hold up nobody but themselves.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::shutdown::ShutdownTrigger;
use tidemill_testkit::service::Service;
use tidemill_testkit::world::{NO_RETRY, World};

/// No wait of a story should take this long.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn open_loopback(world: &mut World) {
    world.config.host.http_private = vec!["127.0.0.1/32".to_owned().into()];
}

async fn until_committed(world: &World, handler: &str, count: u64) {
    let subscription = Subscription { stream: world.subscription.stream.clone(), handler: handler.into() };
    let committed = async {
        // There is no status before the host has made its group.
        while !world.backend.status(&subscription).await.is_ok_and(|status| status.committed >= count) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, committed).await.unwrap_or_else(|_| panic!("{handler} has not committed {count}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_goes_on_while_all_calls_of_another_hang() {
    let service = Service::start();
    let caller = tidemill_testkit::guest("caller");
    let tables = format!(
        "[handlers.caller]\nplugin = \"{}\"\nevents = [\"Test.Thing.Asked\"]\ndeadline = \"60s\"\n\
         [handlers.caller.grants]\nemit = []\nstate = true\nsecrets = []\nhttp = [\"* {}\"]",
        caller.display(),
        service.url("/*"),
    );
    let mut world = World::with("sqlite::memory:", NO_RETRY, &tables).await;
    open_loopback(&mut world);
    (world.config.host.workers, world.config.host.io_workers) = (1, 2);
    for _ in 0..200 {
        world.ask(json!({ "do": "ok", "url": service.url("/hang") })).await;
    }
    let (trigger, shutdown) = ShutdownTrigger::new();
    let trigger = Arc::new(trigger);
    let all = async {
        until_committed(&world, "mischief", 200).await;
        // The calls of the other one hang all this time: not one of them has had an answer.
        while service.asked().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((service.asked().len(), service.answered()), (2, 0), "as many as there are threads");
        service.release();
        until_committed(&world, "caller", 200).await;
        trigger.trigger();
    };
    let (ran, ()) = tokio::join!(world.host_until(trigger.clone(), shutdown, false), all);
    ran.expect("a run");
}

/// How many requests were at the service at once, of 12 events.
async fn peak(extra: &str, io_workers: usize) -> usize {
    let service = Service::start();
    let grants = format!("secrets = []\nhttp = [\"* {}\"]", service.url("/*"));
    let mut world = World::of(
        &tidemill_testkit::guest("caller"),
        "sqlite::memory:",
        &format!("deadline = \"60s\"\n{extra}"),
        &grants,
    )
    .await;
    open_loopback(&mut world);
    world.config.host.io_workers = io_workers;
    for _ in 0..12 {
        world.ask(json!({ "do": "ok", "url": service.url("/nap") })).await;
    }
    world.run().await;
    assert_eq!(world.status().await.committed, 12);
    service.peak()
}

/// Reaches `IO_CALLS` and `IO_WORKERS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_a_batch_run_side_by_side_within_their_bounds() {
    assert_eq!(peak("", 1).await, 1, "host.io_workers");
    assert!(peak("limits = { io_calls = 2 }", 8).await <= 2, "limits.io_calls");
    assert!(peak("", 8).await > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_key_see_what_those_before_them_wrote() {
    let service = Service::start();
    let grants = format!("secrets = []\nhttp = [\"* {}\"]", service.url("/*"));
    let mut world = World::of(&tidemill_testkit::guest("caller"), "sqlite::memory:", NO_RETRY, &grants).await;
    open_loopback(&mut world);
    for number in 0..40 {
        let key = format!("k{}", number % 4);
        world.ask(json!({ "do": "call-count", "key": key, "url": service.url("/status/200") })).await;
    }
    world.run().await;
    for key in ["k0", "k1", "k2", "k3"] {
        assert_eq!(world.count(key).await, Some(json!(10)), "{key}");
    }
    assert_eq!((world.status().await.committed, service.asked().len()), (40, 40));
}
