//! A Redis whose memory is full, and one that takes rights away while hosts are at work.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use tidemill_storage::NewEntry;
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::event;
use uuid::Uuid;

use super::rig::{Process, Rig, STUCK};

const VOLATILE: [&str; 4] = ["--save", "", "--appendonly", "no"];

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Lets no more memory be taken, for as long as the server takes this seriously.
async fn fill(server: &RedisServer) {
    server.config_set("maxmemory", "1mb");
    while server.try_ask::<()>(&["SET", "k", "v"]).is_ok() {
        sleep_ms(10).await;
    }
}

/// Settlements with effects wait, what hosts have in hand stays bounded, nobody counts an attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn maxmemory_pauses_reading_and_drains_after() {
    let server = RedisServer::start(&VOLATILE);
    let rig = Rig::new(&server).await;
    let hosts = rig.hosts(2).await;
    rig.put(6000).await;
    let load = rig.load();
    for round in 1..=3 {
        rig.committed(300 * round).await;
        fill(&server).await;
        let before = rig.world.status().await;
        sleep_ms(2000).await;
        let after = rig.world.status().await;
        assert_eq!((after.committed, after.retried, after.dead), (before.committed, 0, 0), "{after:?}");
        assert!(after.lag > 0 && after.pending <= 1024, "reading went on: {after:?}");
        server.config_set("maxmemory", "0");
    }
    load.stop().await;
    rig.settle_accounts(hosts).await;
}

fn used(server: &RedisServer) -> usize {
    let info: String = server.ask(&["INFO", "memory"]);
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
}

/// A batch that the memory has no room for is no reason to keep what needs hardly any.
/// Reaches `settle::FULL_MAX`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_has_room_is_settled_while_a_batch_has_none() {
    let server = RedisServer::start(&VOLATILE);
    let rig = Rig::new(&server).await;
    for n in 0..80 {
        let data = match n % 2 {
            0 => json!({ "do": "state-big", "bytes": 200_000, "key": format!("k{n}") }),
            _ => json!({ "do": "ok", "key": format!("k{n}") }),
        };
        rig.world.put(event(Uuid::new_v4(), data).to_string()).await;
    }
    // Room for some of the forty, but not for their settlement in one piece.
    server.config_set("maxmemory", &(used(&server) + 4_000_000).to_string());
    let hosts = rig.hosts(1).await;
    rig.wait_for("the small ones", |status| status.committed > 40).await;
    let status = rig.world.status().await;
    assert!(status.pending > 0 && status.retried + status.dead == 0, "{status:?}");
    server.config_set("maxmemory", "0");
    let status = rig.wait_for("all", |status| status.committed == 80).await;
    assert!(status.balances() && status.retried + status.dead == 0, "{status:?}");
    hosts.stop().await;
}

/// XINFO STREAM copies the first and the last entry, which may be large: of a stream whose groups are in order it is not asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_entry_that_is_done_with_is_not_read_again() {
    let server = RedisServer::start(&VOLATILE);
    let rig = Rig::new(&server).await;
    let hosts = rig.hosts(1).await;
    server.ask::<()>(&["XADD", &rig.world.asked, "*", "event", &"z".repeat(40 << 20)]);
    rig.wait_for("the dead letter", |status| status.dead == 1).await;
    let mut monitor = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    rig.put(100).await;
    rig.wait_for("what comes after it", |status| status.committed == 100 && status.balances()).await;
    // Longer than it is between many looks of each task.
    sleep_ms(10_000).await;
    monitor.shutdown(Shutdown::Write).unwrap();
    let mut said = Vec::new();
    monitor.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said);
    let asked = |what: &str| said.matches(&format!("\"XINFO\" \"{what}\" \"{}\"", rig.world.asked)).count();
    // The janitor may have looked at it, as it does once an hour.
    assert!(asked("GROUPS") > 8 && asked("STREAM") <= 1, "{} of {}", asked("STREAM"), asked("GROUPS"));
    hosts.stop().await;
}

/// What only leaves needs no memory: entries that the handler does not want are acked though the memory is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acks_go_on_when_the_memory_is_full() {
    let server = RedisServer::start(&VOLATILE);
    let rig = Rig::new(&server).await;
    let other = event(Uuid::new_v4(), json!({})).to_string().replace("Test.Thing.Asked", "Test.Thing.Other");
    for _ in 0..200 {
        rig.world.put(other.clone()).await;
    }
    let hosts = rig.hosts(1).await;
    fill(&server).await;
    // Longer than it is between two looks at what others left: they must not stop the reading either.
    sleep_ms(5000).await;
    let entries = vec![NewEntry { body: other.into(), dedup_key: None }; 200];
    server.config_set("maxmemory", "0");
    rig.world.backend.publish(&rig.world.asked, &entries).await.unwrap();
    server.config_set("maxmemory", "1mb");
    assert!(server.try_ask::<()>(&["SET", "k", "v"]).is_err(), "the memory is not full");
    rig.wait_for("the acks", |status| status.skipped == 400 && status.waiting() == 0).await;
    server.config_set("maxmemory", "0");
    hosts.stop().await;
}

/// The user of the hosts loses a right that settling needs, under load, and gets it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_acl_that_loses_a_right_pauses_and_loses_nothing() {
    let server = RedisServer::start(&VOLATILE);
    let rig = Rig::new(&server).await;
    server.user("worker", &["~*", "&*", "+@all"]);
    let url = format!("redis://worker:pw@127.0.0.1:{}", rig.proxy.port);
    let hosts = rig.hosts_by(&url, 2).await;
    let process = Process::start(&rig.world, &url, "warn");
    rig.fetching(3).await;
    let load = rig.load();
    rig.committed(100).await;
    for right in ["xadd", "xack", "evalsha", "hset", "xreadgroup"] {
        server.ask::<()>(&["ACL", "SETUSER", "worker", &format!("-{right}")]);
        // What emits nothing needs no XADD, and goes on; all else stands still, once what was on its way is through.
        let give_up = Instant::now() + STUCK;
        loop {
            let (before, emitted) = (rig.world.status().await, rig.emitted().await.len());
            sleep_ms(1500).await;
            let (after, dead) = (rig.world.status().await, rig.world.dead().await);
            assert_eq!((after.retried, dead.len()), (0, 0), "-{right}: {after:?} {dead:?}");
            let goes_on = after.committed > before.committed;
            if rig.emitted().await.len() == emitted && goes_on == (right == "xadd") {
                break;
            }
            assert!(Instant::now() < give_up, "-{right}: {before:?} {after:?}");
        }
        server.ask::<()>(&["ACL", "SETUSER", "worker", &format!("+{right}")]);
        // What was kept meanwhile goes out under load, before the next right is lost.
        rig.committed(rig.total()).await;
    }
    load.stop().await;
    assert!(process.said().contains("ACL SETUSER: allow"), "nobody says what to do:\n{}", process.said());
    println!("{} lines in the log of one host", process.said().lines().count());
    rig.settle_accounts(hosts).await;
}
