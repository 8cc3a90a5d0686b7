//! The conformance suite, and what is SQLite's own: files, other processes, expiry.

mod files;
mod forgetting;
mod sharing;
mod strangers;
mod trouble;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::Sqlite;
use tidemill_conformance::{foreign_fields_are_kept, options};
use tidemill_storage::{Backend, Diagnose};

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tidemill-sqlite-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.0).join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn open(file: &str) -> Arc<Sqlite> {
    Arc::new(Sqlite::open(file, options()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_foreign_fields_are_kept() {
    let sqlite = open(":memory:").await;
    foreign_fields_are_kept(sqlite.clone(), async |stream, fields| {
        sqlite.publish_fields(stream, fields).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_file_foreign_fields_are_kept() {
    let folder = Folder::new();
    let sqlite = open(&folder.file("a.db")).await;
    foreign_fields_are_kept(sqlite.clone(), async |stream, fields| {
        sqlite.publish_fields(stream, fields).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn it_describes_where_it_is() {
    let folder = Folder::new();
    let file = open(&folder.file("a.db")).await;
    assert!(file.describe().await.unwrap().contains("a.db"));
}

/// The conformance stories share one backend, so this shows that they can run at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn the_stories_of_the_exam_do_not_disturb_each_other() {
    let backend: Arc<dyn Backend> = open(":memory:").await;
    let stories = tidemill_conformance::STORIES.iter();
    let running: Vec<_> = stories.map(|(name, story)| (name, tokio::spawn(story(backend.clone())))).collect();
    for (name, story) in running {
        assert!(story.await.is_ok(), "{name} failed beside the others");
    }
}
