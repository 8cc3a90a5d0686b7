//! Both backends sit the same exam.

use std::sync::Arc;
use std::time::Duration;

use tidemill_conformance::{STORIES, foreign_fields_are_kept, options};
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{Backend, NewEntry, Start};
use tidemill_testkit::server::RedisServer;
use uuid::Uuid;

/// Runs every story and names all that failed.
async fn exam(backend: Arc<dyn Backend>) {
    let mut failed = Vec::new();
    for (name, story) in STORIES {
        if tokio::spawn(story(backend.clone())).await.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{} of {} stories failed: {failed:?}", failed.len(), STORIES.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_in_memory_passes_the_exam() {
    exam(tidemill::backends::open("sqlite::memory:", options()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_on_disk_passes_the_exam() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("exam.db").display());
    exam(tidemill::backends::open(&url, options()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_passes_the_exam() {
    exam(tidemill::backends::open(&RedisServer::shared().url(), options()).await.unwrap()).await;
}

/// Not in the list: only a client of Redis can give deliveries to whom it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_counts_what_is_in_quarantine_and_not_the_names_for_nobody() {
    let url = RedisServer::shared().url();
    let backend = tidemill::backends::open(&url, options()).await.unwrap();
    let subscription = Subscription { stream: format!("q-{}", Uuid::new_v4().simple()).into(), handler: "h".into() };
    backend.ensure_group(&subscription, Start::Beginning).await.unwrap();
    let entry = |body: &'static str| NewEntry { body: body.into(), dedup_key: None };
    backend.publish(&subscription.stream, &[entry("a"), entry("b"), entry("c")]).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(
            backend.fetch(&subscription, "me", 3 - got.len(), Duration::from_secs(10)).await.unwrap().deliveries,
        );
    }
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    for (delivery, name) in got.iter().zip(["(quarantine)", "(released)", "(quarantine)"]) {
        let mut claim = redis::cmd("XCLAIM");
        claim.arg(&*subscription.stream).arg("h").arg(name).arg(0).arg(delivery.entry.to_string()).arg("JUSTID");
        let _: Vec<String> = claim.query_async(&mut connection).await.unwrap();
    }
    let status = backend.status(&subscription).await.unwrap();
    assert_eq!((status.pending, status.quarantined, status.consumers), (3, 2, 1), "{status:?}");
    assert!(status.balances() && status.oldest_pending_age.is_some(), "{status:?}");
}

/// A full server must not make hosts look dead, or they would take each other's deliveries over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_hears_a_heartbeat_while_its_memory_is_full() {
    let server = RedisServer::start(&["--save", ""]);
    let backend = tidemill::backends::open(&server.url(), options()).await.unwrap();
    let mut connection = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut full = redis::cmd("CONFIG");
    let _: () = full.arg("SET").arg("maxmemory").arg("1").query_async(&mut connection).await.unwrap();
    let refused = backend.publish("s", &[NewEntry { body: "a".into(), dedup_key: None }]).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("OOM")), "the server is full");
    for note in ["first", "second"] {
        backend.heartbeat("host", Duration::from_secs(120), note).await.unwrap();
        let hosts = backend.hosts(&[]).await.unwrap();
        assert_eq!((hosts.len(), &*hosts[0].report), (1, note));
    }
}

/// Not in the list: only a client of Redis can put an entry without the field `event` on a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_foreign_fields() {
    let url = RedisServer::shared().url();
    let client = redis::Client::open(url.clone()).unwrap();
    let put = async |stream: &str, fields: &[(bytes::Bytes, bytes::Bytes)]| {
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut add = redis::cmd("XADD");
        add.arg(stream).arg("*");
        fields.iter().for_each(|(name, value)| _ = add.arg(&name[..]).arg(&value[..]));
        let _: String = add.query_async(&mut connection).await.unwrap();
    };
    foreign_fields_are_kept(tidemill::backends::open(&url, options()).await.unwrap(), put).await;
}
