//! A primary with a replica: failing over, and a primary that is cut off.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tidemill_testkit::server::RedisServer;

use super::rig::Rig;

const VOLATILE: [&str; 4] = ["--save", "", "--appendonly", "no"];

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Replication is asynchronous: what the primary said last may be lost with it. But it is lost whole: the replica holds
/// a prefix of what happened, in which state, emitted events, inbox and acks agree; and what it does not know as settled
/// is handled again there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn failover_to_a_replica_keeps_prefixes_whole() {
    let mut primary = RedisServer::start(&VOLATILE);
    let replica = RedisServer::start(&VOLATILE);
    replica.replica_of(&primary);
    let rig = Rig::new(&primary).await;
    let hosts = rig.hosts(2).await;
    let load = rig.load();
    sleep_ms(2000).await;
    load.stop().await;
    rig.put(400).await;
    sleep_ms(100).await;
    primary.kill();
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    rig.proxy.lead_to(replica.port);
    rig.proxy.cut();

    let there = rig.world.by(&replica.url()).await;
    let published = there.backend.entries(&there.asked, None, 100_000).await.unwrap();
    let give_up = std::time::Instant::now() + super::rig::STUCK;
    while there.backend.status(&there.subscription).await.unwrap().waiting() > 0 {
        assert!(std::time::Instant::now() < give_up, "{:?}", there.backend.status(&there.subscription).await);
        sleep_ms(50).await;
    }
    hosts.stop().await;
    let status = there.status().await;
    assert_eq!((status.committed, status.retried, status.dead), (published.len() as u64, 0, 0), "{status:?}");
    let (mut emits, mut counts) = (HashSet::new(), BTreeMap::<String, u64>::new());
    for (_, bytes) in &published {
        let event: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let key = event["data"]["key"].as_str().unwrap().to_owned();
        if event["data"]["do"] == "emit-many" {
            emits.insert(event["event_id"].as_str().unwrap().to_owned());
        } else {
            *counts.entry(key).or_default() += 1;
        }
    }
    let mut causes: HashMap<String, usize> = HashMap::new();
    for (_, bytes) in there.backend.entries(&there.done, None, 100_000).await.unwrap() {
        let event: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        *causes.entry(event["causation_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!(causes.values().all(|times| *times == 1), "doubled: {causes:?}");
    assert_eq!(causes.into_keys().collect::<HashSet<_>>(), emits);
    for (key, count) in counts {
        assert_eq!(there.count(&key).await, Some(serde_json::json!(count)), "the state of {key}");
    }
    assert!(published.len() > 100, "only {} events reached the replica: nothing was tried", published.len());
}

/// With `min-replicas-to-write 1` a primary whose replica is gone takes no writes: what it would take could be lost to
/// the other side of the split. The hosts wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_primary_cut_off_with_min_replicas_refuses() {
    let primary = RedisServer::start(&VOLATILE);
    let mut replica = RedisServer::start(&VOLATILE);
    replica.replica_of(&primary);
    let rig = Rig::new(&primary).await;
    let hosts = rig.hosts(2).await;
    rig.put(200).await;
    rig.committed(200).await;
    primary.config_set("min-replicas-max-lag", "1");
    primary.config_set("min-replicas-to-write", "1");
    let load = rig.load();
    sleep_ms(500).await;
    replica.kill();
    // The primary is to notice.
    while primary.info("min_slaves_good_slaves") != "0" {
        sleep_ms(50).await;
    }
    let refused = primary.try_ask::<()>(&["SET", "k", "v"]).unwrap_err();
    assert_eq!(refused.code(), Some("NOREPLICAS"));
    let before = rig.world.status().await;
    sleep_ms(3000).await;
    let after = rig.world.status().await;
    assert_eq!((after.committed, after.retried, after.dead), (before.committed, 0, 0), "{after:?}");
    replica.again();
    replica.replica_of(&primary);
    load.stop().await;
    rig.settle_accounts(hosts).await;
}
