//! Redis that dies, restarts, loads, forgets its scripts, or takes its time.

use std::sync::Arc;
use std::time::Duration;

use tidemill_testkit::server::RedisServer;

use super::rig::Rig;

const ALWAYS: [&str; 6] = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];

async fn start(options: &[&str]) -> (RedisServer, Arc<Rig>) {
    let server = RedisServer::start(options);
    let rig = Rig::new(&server).await;
    (server, rig)
}

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_kill_9_under_load_with_fsync_always_loses_nothing() {
    let (mut server, rig) = start(&ALWAYS).await;
    let hosts = rig.hosts(2).await;
    let load = rig.load();
    for round in 0..6 {
        sleep_ms(500 + 70 * round).await;
        server.kill();
        sleep_ms(200 * (round % 3)).await;
        server.again();
    }
    load.stop().await;
    rig.settle_accounts(hosts).await;
}

/// The hosts have nothing to do and wait in XREADGROUP, then they have, and the server goes and comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_shutdown_and_start_while_blocked() {
    let (mut server, rig) = start(&ALWAYS).await;
    let hosts = rig.hosts(2).await;
    for round in 0..4 {
        sleep_ms(300).await;
        server.stop();
        sleep_ms(400 * (round % 3)).await;
        server.again();
        rig.put(60).await;
        rig.committed(60 * (round + 1)).await;
    }
    rig.settle_accounts(hosts).await;
}

/// While a server reads its files it answers LOADING to everything. `key-load-delay` makes it slow at that.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loading_is_waited_out() {
    let dump = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--aof-use-rdb-preamble", "yes"];
    // Microseconds for each key. Redis looks up from loading only now and then, so the load is slow and not deaf.
    let slow =
        ["--enable-debug-command", "yes", "--key-load-delay", "400", "--loading-process-events-interval-bytes", "1024"];
    let (mut server, rig) = start(&[&dump[..], &slow[..]].concat()).await;
    let hosts = rig.hosts(2).await;
    server.ask::<()>(&["DEBUG", "POPULATE", "8000", "filler", "64"]);
    server.ask::<String>(&["BGREWRITEAOF"]);
    while server.info("aof_rewrite_in_progress") != "0" || server.info("aof_rewrite_scheduled") != "0" {
        sleep_ms(20).await;
    }
    for round in 1..=2 {
        server.kill();
        server.again();
        let said = server.try_ask::<String>(&["GET", "k"]).err().and_then(|error| error.code().map(str::to_owned));
        assert_eq!(said.as_deref(), Some("LOADING"), "the server is not slow at loading");
        rig.put(60).await;
        rig.committed(60 * round).await;
    }
    rig.settle_accounts(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn script_flush_under_load() {
    let (server, rig) = start(&["--save", "", "--appendonly", "no"]).await;
    let hosts = rig.hosts(2).await;
    let load = rig.load();
    for _ in 0..40 {
        server.ask::<()>(&["SCRIPT", "FLUSH"]);
        sleep_ms(50).await;
    }
    load.stop().await;
    rig.settle_accounts(hosts).await;
}

/// The server accepts and does not answer; then a stranger's script holds it up, and it answers BUSY.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_redis_is_waited_for() {
    let (server, rig) = start(&["--save", "", "--appendonly", "no", "--busy-reply-threshold", "100"]).await;
    let hosts = rig.hosts(2).await;
    let load = rig.load();
    sleep_ms(500).await;
    server.ask::<()>(&["CLIENT", "PAUSE", "5000", "ALL"]);
    sleep_ms(5500).await;
    let busy = redis::Client::open(server.url()).unwrap();
    let script = tokio::task::spawn_blocking(move || {
        let mut connection = busy.get_connection().unwrap();
        redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut connection).unwrap_err().to_string()
    });
    sleep_ms(2500).await;
    server.ask::<()>(&["SCRIPT", "KILL"]);
    assert!(script.await.unwrap().contains("killed"));
    load.stop().await;
    rig.settle_accounts(hosts).await;
}
