//! What is opened, and what is refused and left as it was.

use super::{Folder, open};
use crate::Sqlite;
use tidemill_conformance::options;
use tidemill_storage::{Error, Membership, NewEntry, Streams};

async fn refusal(file: &str) -> String {
    match Sqlite::open(file, options()).await {
        Err(Error::Permanent(text)) => text,
        Err(other) => panic!("{file} was to be refused for good, but: {other}"),
        Ok(_) => panic!("{file} was to be refused, but it was opened"),
    }
}

#[tokio::test]
async fn what_is_written_is_there_after_reopening() {
    let folder = Folder::new();
    for round in 1..=3 {
        let sqlite = open(&folder.file("a.db")).await;
        sqlite.publish("s", &[NewEntry { body: "x".into(), dedup_key: None }]).await.unwrap();
        assert_eq!(sqlite.entries("s", None, 10).await.unwrap().len(), round);
    }
}

#[tokio::test]
async fn a_path_that_cannot_be_is_refused_by_name() {
    let folder = Folder::new();
    let text = refusal(&folder.file("missing/a.db")).await;
    assert!(text.contains("missing/a.db") && text.contains("there is no folder") && text.contains("hint:"), "{text}");
    std::fs::write(folder.path("file"), "x").unwrap();
    assert!(refusal(&folder.file("file/a.db")).await.contains("there is no folder"));
    std::fs::create_dir(folder.path("sub")).unwrap();
    assert!(refusal(&folder.file("sub")).await.contains("this is a folder"));
    assert!(refusal("").await.contains("names no file"));
}

#[tokio::test]
async fn a_path_is_a_path_whatever_its_characters() {
    let folder = Folder::new();
    let name = "file:odd?mode=memory #1 ä.db";
    open(&folder.file(name)).await.heartbeat("me", std::time::Duration::ZERO, "").await.unwrap();
    assert!(folder.path(name).is_file());
}

#[tokio::test]
async fn another_program_s_file_is_refused_and_left_alone() {
    let folder = Folder::new();
    let text = "not a database at all, but quite long enough to have a header of 100 bytes ".repeat(20);
    std::fs::write(folder.path("text"), &text).unwrap();
    assert!(refusal(&folder.file("text")).await.contains("hint:"));
    assert_eq!(std::fs::read_to_string(folder.path("text")).unwrap(), text);

    let conn = rusqlite::Connection::open(folder.path("theirs.db")).unwrap();
    conn.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(conn);
    let before = std::fs::read(folder.path("theirs.db")).unwrap();
    assert!(refusal(&folder.file("theirs.db")).await.contains("another program's database"));
    assert_eq!(std::fs::read(folder.path("theirs.db")).unwrap(), before);
}

#[tokio::test]
async fn another_layout_is_refused_with_what_to_do() {
    let folder = Folder::new();
    drop(open(&folder.file("a.db")).await);
    let conn = rusqlite::Connection::open(folder.path("a.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    for version in [5, 99] {
        conn.pragma_update(None, "user_version", version).unwrap();
        let text = refusal(&folder.file("a.db")).await;
        assert!(text.contains(&format!("version {version}")) && text.contains("a new file"), "{text}");
    }
}

#[tokio::test]
async fn an_empty_file_is_a_new_database() {
    let folder = Folder::new();
    std::fs::write(folder.path("a.db"), "").unwrap();
    open(&folder.file("a.db")).await.publish("s", &[NewEntry { body: "x".into(), dedup_key: None }]).await.unwrap();
}

/// Hosts that are started together: whoever sees the file half set up, or the log of one that closes, takes it for ours.
/// One that finds it locked asks again, as a host does.
#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_new_file_is_opened_by_many_at_once() {
    let folder = Folder::new();
    for round in 0..60 {
        let file = folder.file(&format!("{round}.db"));
        let openers = (0..6).map(|opener| {
            let file = file.clone();
            tokio::spawn(async move {
                for _ in 0..3 {
                    let opened = match opener % 3 {
                        0 => Sqlite::open_to_read(&file, options()).await,
                        _ => Sqlite::open(&file, options()).await,
                    };
                    opened.unwrap_or_else(|error| panic!("round {round}: {error}"));
                }
            })
        });
        for opener in openers.collect::<Vec<_>>() {
            opener.await.unwrap();
        }
        open(&file).await.heartbeat("me", std::time::Duration::ZERO, "").await.unwrap();
    }
}
