//! Somebody else with access to the same Redis: acks, trims, moves groups, deletes consumers and entries, and gives out
//! ids of the future.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use serde_json::json;
use tidemill_storage::Start;
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::event;
use uuid::Uuid;

use super::rig::Rig;

async fn start() -> (RedisServer, Arc<Rig>) {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let rig = Rig::new(&server).await;
    (server, rig)
}

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// What is pending under a group's consumers: (id, consumer).
fn pending(server: &RedisServer, rig: &Rig) -> Vec<(String, String)> {
    let rows: Vec<(String, String, i64, i64)> =
        server.ask(&["XPENDING", &rig.world.asked, "mischief", "-", "+", "10000"]);
    rows.into_iter().map(|(id, consumer, _, _)| (id, consumer)).collect()
}

/// Whether the group has passed the last entry of the stream.
fn at_the_end(server: &RedisServer, stream: &str) -> bool {
    let last: Vec<(String, Value)> = server.ask(&["XREVRANGE", stream, "+", "-", "COUNT", "1"]);
    let groups: Vec<HashMap<String, Value>> = server.ask(&["XINFO", "GROUPS", stream]);
    let delivered = |group: &HashMap<String, Value>| match &group["last-delivered-id"] {
        Value::BulkString(id) => String::from_utf8_lossy(id).into_owned(),
        other => panic!("{other:?}"),
    };
    groups.len() == 1 && last.first().is_some_and(|(id, _)| *id == delivered(&groups[0]))
}

/// Under load a stranger deletes consumers with everything in their worker, acks what is pending, and sets the group back
/// to the beginning. What was acked for the hosts is lost, as the stranger wanted; nothing has two effects, the hosts go
/// on, and later events are whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stranger_trims_acks_moves_the_group_and_deletes_the_consumer() {
    let (server, rig) = start().await;
    let hosts = rig.hosts(2).await;
    let load = rig.load();
    let stream = rig.world.asked.clone();
    for round in 0..12 {
        sleep_ms(150).await;
        match round % 4 {
            0 => {
                for (id, _) in pending(&server, &rig) {
                    server.ask::<Value>(&["XACK", &stream, "mischief", &id]);
                }
            }
            1 => {
                for (_, consumer) in pending(&server, &rig) {
                    server.ask::<Value>(&["XGROUP", "DELCONSUMER", &stream, "mischief", &consumer]);
                }
            }
            2 => server.ask::<()>(&["XGROUP", "SETID", &stream, "mischief", "0"]),
            _ => drop(server.ask::<Value>(&["XTRIM", &stream, "MAXLEN", "200"])),
        }
    }
    load.stop().await;
    // After a trim and a move nobody can tell from the counters what is still to come: the group's own end tells.
    let give_up = std::time::Instant::now() + super::rig::STUCK;
    while !(at_the_end(&server, &stream) && pending(&server, &rig).is_empty()) {
        assert!(std::time::Instant::now() < give_up, "the hosts do not come to the end");
        sleep_ms(100).await;
    }
    let before = rig.world.backend.status(&rig.world.subscription).await.unwrap();
    assert_eq!((before.retried, before.dead), (0, 0), "{before:?}");
    let emitted = rig.emitted().await.len();
    rig.put(200).await;
    rig.committed(before.committed + 200).await;
    hosts.stop().await;
    let mut causes = rig.emitted().await;
    assert_eq!(causes.len(), emitted + 100, "later events are whole");
    causes.sort_unstable();
    causes.dedup();
    assert_eq!(causes.len(), emitted + 100, "some effects came out twice");
}

/// An entry is handed over, its host dies, and somebody deletes the entry: its bytes are gone, that it was there is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pending_entry_without_body_is_recorded() {
    let (server, rig) = start().await;
    let world = &rig.world;
    world.backend.ensure_group(&world.subscription, Start::Beginning).await.unwrap();
    rig.put(3).await;
    let fetched = world.backend.fetch(&world.subscription, "gone", 4, Duration::ZERO).await.unwrap().deliveries;
    assert_eq!(fetched.len(), 2);
    let body_less = fetched[0].entry.to_string();
    server.ask::<Value>(&["XDEL", &world.asked, &body_less]);
    let hosts = rig.hosts(1).await;
    rig.wait_for("the entry's record", |status| status.dead == 1 && status.waiting() == 0).await;
    hosts.stop().await;
    let (letter, said) = world.only_dead().await;
    assert_eq!(letter.origin.to_string(), body_less);
    assert!(said.starts_with("undecodable: the entry was deleted from the stream before it was handled"), "{said}");
    assert_eq!(world.status().await.committed, 2);
}

/// Clocks cannot be turned here without being root. What they would leave behind can: entries whose ids lie a day in the
/// future (a primary whose clock was ahead), and then ones with the server's own time behind them, which Redis gives the
/// next id instead. Times of retries are the server's, so a host's clock has no say in them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ids_a_day_ahead_do_no_harm() {
    let (server, rig) = start().await;
    let world = &rig.world;
    let hosts = rig.hosts(2).await;
    rig.put(50).await;
    rig.committed(50).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let future = format!("{}-0", now + 24 * 3600 * 1000);
    let body = event(Uuid::new_v4(), json!({ "do": "ok" })).to_string();
    server.ask::<Value>(&["XADD", &world.asked, &future, "event", &body]);
    rig.committed(51).await;
    // All ids from here on lie in the future, too.
    rig.put(100).await;
    rig.committed(151).await;
    world.ask(json!({ "do": "retry" })).await;
    rig.wait_for("the dead letter", |status| status.dead == 1).await;
    hosts.stop().await;
    let status = world.status().await;
    assert_eq!((status.committed, status.skipped, status.retried), (151, 0, 3), "{status:?}");
    let mut causes = rig.emitted().await;
    causes.sort_unstable();
    causes.dedup();
    assert_eq!(causes.len(), 75);
}
