//! A power cut in the middle of a settlement: the append-only file ends at any of its bytes.
//!
//! A script's writes stand in that file as one block, MULTI .. EXEC. Redis cuts a torn command off when it starts and
//! goes on behind the open MULTI, so everything that is written later belongs to a block that has no beginning of its
//! own: the *next* start loses it, or brings half of the torn settlement back. Hosts therefore let a server that they
//! have not met yet rewrite its file before they settle anything on it. Here each cut is started on twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tidemill_core::model::delivery::{Delivery, Disposition, Effects, Emitted, Subscription, Timer};
use tidemill_storage::{self as storage, Backend, Error, NewEntry, Options, Settlement, SettlementEntry, Start};
use tidemill_testkit::server::RedisServer;
use uuid::Uuid;

/// Every so many bytes is one at which the file is cut: all of them, which takes about a minute. `TIDEMILL_AOF_STEP` sets
/// it for machines that have not that long.
const STEP: u64 = 1;
/// Servers at work at the same time.
const SIDE_BY_SIDE: usize = 4;
const SERVER: [&str; 8] =
    ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"];

/// How the work goes on after the first start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Later {
    /// As a host would: through the backend.
    Backend,
    /// The same, after a rewrite that we have asked for ourselves.
    Rewritten,
    /// By a script of our own, which settles as ours does and knows nothing of cuts.
    Raw,
}

/// A server's folder whose append-only file ends in one settlement, and where that begins.
struct Scene {
    folder: tempfile::TempDir,
    begins: u64,
    length: u64,
}

fn subscription(stream: &str) -> Subscription {
    Subscription { stream: stream.into(), handler: "h".into() }
}

async fn open(server: &RedisServer) -> Arc<dyn Backend> {
    server.client().await;
    let options = Options {
        inbox_window: Duration::from_secs(3600),
        dead_letters_max: 100,
        timers_max: 1000,
        ..Default::default()
    };
    tidemill::backends::open(&server.url(), options).await.expect("a backend")
}

/// Publishes and fetches one event of a subscription.
async fn fetch(backend: &dyn Backend, subscription: &Subscription) -> Delivery {
    let entry = NewEntry { body: Bytes::from_static(b"{}"), dedup_key: None };
    backend.publish(&subscription.stream, &[entry]).await.expect("published");
    let mut fetched = backend.fetch(subscription, "c", 8, Duration::from_millis(100)).await.expect("fetched");
    assert_eq!(fetched.deliveries.len(), 1);
    fetched.deliveries.remove(0)
}

/// Settles with effects of every kind; asks again as long as the server wants to be waited for.
async fn settle(backend: &dyn Backend, subscription: &Subscription, delivery: Delivery) {
    let emitted =
        |n: u8| Emitted { stream: format!("out-{}", subscription.stream).into(), body: Bytes::from(vec![n; 20]) };
    let writes = BTreeMap::from([("a".into(), Some(Bytes::from("one"))), ("b".into(), Some(Bytes::from("two")))]);
    let timer = Timer { after: Duration::from_secs(3600), body: Bytes::from_static(b"{}") };
    let effects = Effects { emits: vec![emitted(b'1'), emitted(b'2')], writes, timers: vec![timer] };
    let entry = SettlementEntry {
        delivery,
        dedup_key: Some((Uuid::new_v4(), [7; 16])),
        state: Some(("k".into(), 0)),
        disposition: Disposition::Commit(effects),
    };
    let settlement = Settlement {
        subscription: subscription.clone(),
        consumer: "c".into(),
        plugin: "v1".into(),
        token: Uuid::new_v4(),
        entries: vec![entry],
    };
    loop {
        match backend.settle(&settlement).await {
            Ok(settled) => return assert_eq!(settled, [storage::Settled::Committed]),
            Err(Error::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn scene() -> Scene {
    let mut server = RedisServer::start(&SERVER);
    let backend = open(&server).await;
    for stream in ["first", "later"] {
        backend.ensure_group(&subscription(stream), Start::Beginning).await.unwrap();
    }
    // The first settlement on this server is not the one to look at: a rewrite may come before it.
    let warm = subscription("warm");
    backend.ensure_group(&warm, Start::Beginning).await.unwrap();
    let delivery = fetch(&*backend, &warm).await;
    settle(&*backend, &warm, delivery).await;
    let delivery = fetch(&*backend, &subscription("first")).await;
    let aof = newest(server.folder());
    let begins = fs::metadata(&aof).unwrap().len();
    settle(&*backend, &subscription("first"), delivery).await;
    let bytes = fs::read(&aof).unwrap();
    server.kill();
    let block = String::from_utf8_lossy(&bytes[begins as usize..]).into_owned();
    assert!(block.contains("MULTI\r\n") && block.ends_with("EXEC\r\n") && block.contains("XACK"), "{block}");
    let folder = tempfile::tempdir().unwrap();
    copy(server.folder(), folder.path());
    Scene { folder, begins, length: bytes.len() as u64 - begins }
}

/// The append-only file that is being written to.
fn newest(folder: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(folder.join("appendonlydir")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max_by_key(|path| sequence(path)).unwrap()
}

/// `appendonly.aof.12.incr.aof` -> 12
fn sequence(path: &Path) -> u64 {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    name.split('.').find_map(|part| part.parse().ok()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("appendonlydir")).unwrap();
    for file in fs::read_dir(from.join("appendonlydir")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join("appendonlydir").join(file.file_name())).unwrap();
    }
}

/// The traces that a settlement leaves, one by one: is it there?
async fn traces(redis: &mut MultiplexedConnection, stream: &str) -> Vec<bool> {
    let key = |what: &str| format!("{{{stream}}}:tm:{what}:h");
    let ask = async |redis: &mut MultiplexedConnection, command: &[&str]| {
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        cmd.query_async::<Value>(redis).await.unwrap_or(Value::Nil)
    };
    let state = ask(redis, &["HMGET", &(key("state") + ":k"), "v", "=a", "=b"]).await;
    let Value::Array(fields) = state else { panic!("{state:?}") };
    let mut found: Vec<bool> = fields.iter().map(|field| *field != Value::Nil).collect();
    found.push(ask(redis, &["ZSCORE", &key("keys"), "k"]).await != Value::Nil);
    found.push(ask(redis, &["XLEN", &format!("out-{stream}")]).await == Value::Int(2));
    found.push(ask(redis, &["HGET", &key("stats"), "committed"]).await == Value::BulkString(b"1".to_vec()));
    found.push(ask(redis, &["KEYS", &(key("seen").replace(['{', '}'], "?") + ":*")]).await != Value::Array(vec![]));
    found.push(ask(redis, &["ZCARD", &key("timers")]).await == Value::Int(1));
    found.push(ask(redis, &["HLEN", &(key("due") + ":body")]).await == Value::Int(1));
    found.push(ask(redis, &["HGET", &key("stats"), "timers"]).await == Value::BulkString(b"1".to_vec()));
    let pending = ask(redis, &["XPENDING", stream, "h"]).await;
    found.push(matches!(pending, Value::Array(rows) if rows.first() == Some(&Value::Int(0))));
    found
}

/// Cuts at one byte, starts, writes, kills, starts again. Says what is wrong, if anything is.
async fn cut_at(scene: &Scene, offset: u64, later: Later) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    copy(scene.folder.path(), folder.path());
    let file = fs::File::options().write(true).open(newest(folder.path())).unwrap();
    file.set_len(scene.begins + offset).unwrap();
    drop(file);
    let mut server = RedisServer::start_in(folder, &SERVER);
    let first = traces(&mut server.client().await, "first").await;
    write_later(&server, later).await;
    server.kill();
    server.again();
    let mut redis = server.client().await;
    let again = traces(&mut redis, "first").await;
    let written = match later {
        Later::Raw => vec![server.ask::<String>(&["GET", "raw"]) == "2"],
        _ => traces(&mut redis, "later").await,
    };
    let whole = |traces: &[bool]| traces.iter().all(|there| *there);
    let gone = |traces: &[bool]| !traces.iter().any(|there| *there);
    if first != again || !(whole(&again) || gone(&again)) {
        return Some(format!("byte {offset}: torn: {first:?} at the first start, {again:?} at the second"));
    }
    (!whole(&written)).then(|| format!("byte {offset}: later writes are lost: {written:?}"))
}

async fn write_later(server: &RedisServer, later: Later) {
    match later {
        Later::Raw => {
            let script = "redis.call('SET', 'raw', '1') redis.call('INCR', 'raw') return 1";
            server.ask::<i64>(&["EVAL", script, "1", "raw"]);
        }
        Later::Backend => settle_later(server).await,
        Later::Rewritten => {
            server.ask::<String>(&["BGREWRITEAOF"]);
            while server.info("aof_rewrite_in_progress") != "0" || server.info("aof_rewrite_scheduled") != "0" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            settle_later(server).await;
        }
    }
}

async fn settle_later(server: &RedisServer) {
    let (backend, subscription) = (open(server).await, subscription("later"));
    let delivery = fetch(&*backend, &subscription).await;
    settle(&*backend, &subscription, delivery).await;
}

/// Cuts at every `step`th byte and at the last; how many there were, and what is wrong.
async fn cut_all(later: Later, step: u64) -> (u64, Vec<String>) {
    let scene = Arc::new(scene().await);
    let next = Arc::new(AtomicU64::new(0));
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..SIDE_BY_SIDE {
        let (scene, next, wrong) = (scene.clone(), next.clone(), wrong.clone());
        workers.spawn(async move {
            loop {
                let offset = next.fetch_add(step, Ordering::Relaxed);
                if offset >= scene.length + step {
                    break;
                }
                if let Some(found) = cut_at(&scene, offset.min(scene.length), later).await {
                    wrong.lock().unwrap().push(found);
                }
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("a worker");
    }
    let wrong = wrong.lock().unwrap().clone();
    println!("{} bytes, cut at every {step}: {} torn or lost", scene.length, wrong.len());
    (scene.length, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_aof_cut_at_every_byte_of_a_settlement_is_whole_or_gone() {
    let step = std::env::var("TIDEMILL_AOF_STEP").ok().and_then(|text| text.parse().ok()).unwrap_or(STEP);
    let (length, wrong) = cut_all(Later::Backend, step).await;
    assert!(length > 500, "a settlement of {length} bytes is not the one that was meant");
    assert!(wrong.is_empty(), "{} cuts are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the gate does, done by hand: it is the rewrite that helps.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rewrite_by_hand_makes_the_cut_whole() {
    let (_, wrong) = cut_all(Later::Rewritten, 23).await;
    assert!(wrong.is_empty(), "{} cuts are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Shows that the cut does harm where nobody sees to it, so that the first test can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_the_gate_the_same_cut_tears() {
    let (_, wrong) = cut_all(Later::Raw, 23).await;
    if wrong.is_empty() && !RedisServer::shared().info("valkey_version").is_empty() {
        return println!("no cut does harm: this Valkey drops an open MULTI when it loads");
    }
    println!("{}", wrong.join("\n"));
    assert!(!wrong.is_empty(), "no cut does harm: this test has lost its point");
}
