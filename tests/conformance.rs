//! Both backends sit the same exam.

use std::sync::Arc;

use tidemill::backend::conformance::{STORIES, options};
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
