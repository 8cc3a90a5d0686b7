//! Both backends sit the same exam.

use std::sync::Arc;

use tidemill::backend::conformance::{STORIES, foreign_fields_are_kept, options};
use tidemill::backend::{self, Backend};
use tidemill_tests::server::RedisServer;

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
    exam(backend::open("sqlite::memory:", options()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_on_disk_passes_the_exam() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("exam.db").display());
    exam(backend::open(&url, options()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_passes_the_exam() {
    exam(backend::open(&RedisServer::shared().url(), options()).await.unwrap()).await;
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
    foreign_fields_are_kept(backend::open(&url, options()).await.unwrap(), put).await;
}
