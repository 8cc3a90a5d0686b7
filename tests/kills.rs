//! Hosts that are killed in the middle of everything: nothing is lost and nothing is doubled.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tidemill::backend::NewEntry;
use tidemill_tests::server::RedisServer;
use tidemill_tests::world::{QUICK, World, config, event};
use uuid::Uuid;

const KEYS: usize = 7;
const COUNTED: usize = 2000;
const EMITTED: usize = 2000;
const KILLS: u64 = 5;

async fn a_killed_host_loses_and_doubles_nothing(url: &str) {
    let mut world = World::new(url, QUICK).await;
    // The same configuration as a file, for a host that is a process of its own.
    let suffix = world.asked.trim_start_matches("asked-").to_owned();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidemill.toml");
    let schemas = format!("path = \"{}\"", tidemill_tests::root().join("tests/schemas").display());
    let text = config(url, &tidemill_tests::guest("mischief"), &suffix, QUICK, "")
        .replace("path = \"tests/schemas\"", &schemas);
    std::fs::write(&file, text).unwrap();
    world.source.handler = "mischief".into();
    let mut entries = Vec::new();
    for number in 0..COUNTED {
        entries.push(event(Uuid::new_v4(), json!({ "do": "state-count", "key": format!("k{}", number % KEYS) })));
    }
    for _ in 0..EMITTED {
        entries.push(event(Uuid::new_v4(), json!({ "do": "emit-many", "count": 1 })));
    }
    let entries: Vec<NewEntry> =
        entries.iter().map(|event| NewEntry { body: event.to_string().into(), mark: None }).collect();
    for part in entries.chunks(500) {
        world.backend.publish(&world.asked, part).await.unwrap();
    }
    for round in 0..KILLS {
        let mut host = start(&file);
        tokio::time::sleep(Duration::from_millis(120 + 60 * round)).await;
        host.kill().unwrap();
        host.wait().unwrap();
    }
    assert!(tokio::task::spawn_blocking(move || start(&file).wait()).await.unwrap().unwrap().success());
    let status = world.status().await;
    assert_eq!((status.committed, status.waiting(), status.dead), ((COUNTED + EMITTED) as u64, 0, 0), "{status:?}");
    for key in 0..KEYS {
        let wanted = (0..COUNTED).filter(|number| number % KEYS == key).count();
        assert_eq!(world.count(&format!("k{key}")).await, Some(json!(wanted)), "key k{key}");
    }
    let ids: Vec<String> = world.emitted().await.iter().map(|event| event["event_id"].to_string()).collect();
    let distinct: HashSet<&String> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (EMITTED, EMITTED));
}

fn start(file: &std::path::Path) -> std::process::Child {
    let mut command = tidemill_tests::tidemill();
    command.args(["run", "--until-idle", "--config"]).arg(file).env("RUST_LOG", "error").stdout(Stdio::null());
    command.spawn().expect("the host starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis() {
    a_killed_host_loses_and_doubles_nothing(&RedisServer::shared().url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    a_killed_host_loses_and_doubles_nothing(&format!("sqlite:{}", folder.path().join("kills.db").display())).await;
}
