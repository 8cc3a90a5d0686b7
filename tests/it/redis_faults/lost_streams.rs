//! A stream that is deleted, flushed or renamed under load: what it held is lost, the loss is said, work goes on.

use std::time::Duration;

use tidemill_storage::{Group, NewEntry, Start};
use tidemill_testkit::server::RedisServer;
use tidemill_testkit::world::World;

use super::rig::{Process, Rig};

/// How long the host's log is watched, and how much it may complain in that time.
const WATCHED_S: usize = 5;
const ERRORS_A_SECOND_MAX: usize = 2;

/// A real host under load, whose stream is lost in this way; then new events have to go through.
async fn lost_by(command: impl Fn(&Rig) -> Vec<String>) {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let rig = Rig::new(&server).await;
    let hosts = [1, 2].map(|_| Process::start(&rig.world, &server.url(), "warn"));
    rig.fetching(2).await;
    let load = rig.load();
    rig.committed(200).await;
    noted(&rig, &server).await;
    let before: Vec<usize> = hosts.iter().map(|host| host.said().lines().count()).collect();
    server.ask::<redis::Value>(&command(&rig).iter().map(String::as_str).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_secs(WATCHED_S as u64)).await;
    load.stop().await;
    let logs: Vec<String> = hosts.iter().map(Process::said).collect();
    for (log, before) in logs.iter().zip(before) {
        let new = log.lines().count() - before;
        assert!(new <= WATCHED_S * ERRORS_A_SECOND_MAX, "{new} lines in {WATCHED_S} s:\n{log}");
    }
    assert!(logs.iter().any(|log| log.contains("stream lost")), "nobody says that the stream is lost:\n{logs:?}");
    // What is put in now is handled, by both hosts' group.
    let known = rig.world.backend.status(&rig.world.subscription).await.expect("the group is there again");
    let emitted = rig.emitted().await.len();
    rig.put(200).await;
    let status = rig.wait_for("new events", |status| status.committed >= known.committed + 200).await;
    let status = if status.waiting() > 0 { rig.wait_for("the end", |s| s.waiting() == 0).await } else { status };
    assert_eq!((status.retried, status.dead), (0, 0), "{status:?}");
    assert!(status.balances(), "{status:?}");
    assert!(rig.emitted().await.len() >= emitted + 100);
    let mut causes = rig.emitted().await;
    let all = causes.len();
    causes.sort_unstable();
    causes.dedup();
    assert_eq!(causes.len(), all, "some effects came out twice");
}

/// Waits until a position behind the beginning is noted. Before that, a host that was handed out nothing cannot tell a stream
/// from its successor: it says that the group was destroyed, and begins at the same place.
async fn noted(rig: &Rig, server: &RedisServer) {
    let position = format!("{{{}}}:tm:position:mischief", rig.world.asked);
    for _ in 0..600 {
        let last: Option<String> = server.ask(&["HGET", &position, "last"]);
        if last.is_some_and(|last| last != "0-0") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no position is noted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_is_deleted_under_load() {
    lost_by(|rig| vec!["DEL".to_owned(), rig.world.asked.clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_is_flushed_under_load() {
    lost_by(|_| vec!["FLUSHALL".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_is_renamed_under_load() {
    lost_by(|rig| vec!["RENAME".to_owned(), rig.world.asked.clone(), format!("{}-old", rig.world.asked)]).await;
}

/// The position was noted when nothing had been handed out yet, and what is recreated begins behind it: what this host
/// remembers tells that it is another stream.
#[tokio::test]
async fn a_stream_that_is_lost_before_its_position_is_noted_again() {
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let world = World::with(&server.url(), "", "").await;
    let (backend, subscription) = (&world.backend, &world.subscription);
    let put = async || {
        let entries = [(); 3].map(|()| NewEntry { body: "{}".into(), dedup_key: None });
        backend.publish(&world.asked, &entries).await.unwrap();
    };
    backend.ensure_group(subscription, Start::Beginning).await.unwrap();
    backend.tend(subscription, "me", "{}").await.unwrap();
    put().await;
    assert_eq!(backend.fetch(subscription, "me", 10, Duration::ZERO).await.unwrap().deliveries.len(), 3);
    server.ask::<redis::Value>(&["DEL", &world.asked]);
    // Ids are times: what comes now has later ones.
    tokio::time::sleep(Duration::from_millis(5)).await;
    put().await;
    assert_eq!(backend.ensure_group(subscription, Start::Beginning).await.unwrap(), Group::New);
    assert_eq!(backend.status(subscription).await.unwrap().repeated, 0);
}
