//! What is opened, and what is refused and left as it was.

use super::{Folder, open};
use crate::backend::conformance::options;
use crate::backend::sqlite::Sqlite;
use crate::backend::{ControlPlane, DataPlane, Error, NewEntry, Operator, Published, Start};
use crate::model::delivery::Subscription;

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
async fn a_newer_layout_is_refused_with_what_to_do() {
    let folder = Folder::new();
    drop(open(&folder.file("a.db")).await);
    let conn = rusqlite::Connection::open(folder.path("a.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    let text = refusal(&folder.file("a.db")).await;
    assert!(text.contains("version 99") && text.contains("a newer one"), "{text}");
}

/// Makes a file of layout 4 of one of layout 5.
const BACK_TO_4: &str = "
    DROP TABLE clock; DROP TABLE ids_key; DROP TRIGGER subscription_stays; DROP TABLE wishes;
    ALTER TABLE subscriptions DROP COLUMN agreed; ALTER TABLE subscriptions DROP COLUMN strayed;
    ALTER TABLE subscriptions DROP COLUMN repeated; ALTER TABLE subscriptions DROP COLUMN seen_last;
    ALTER TABLE subscriptions DROP COLUMN tended_ms;
    ALTER TABLE inbox_buckets DROP COLUMN window_ms; ALTER TABLE inbox_buckets DROP COLUMN ended_ms;
    ALTER TABLE inbox_buckets DROP COLUMN over;
    PRAGMA user_version = 4;";

/// Makes a file of layout 3 of one of layout 4.
const BACK_TO_3: &str = "
    DROP TRIGGER dead_comes; DROP TRIGGER dead_goes; DROP INDEX dead_by_class;
    ALTER TABLE dead DROP COLUMN ran; ALTER TABLE dead DROP COLUMN bytes;
    ALTER TABLE subscriptions DROP COLUMN letters; ALTER TABLE subscriptions DROP COLUMN letters_bytes;
    ALTER TABLE subscriptions DROP COLUMN unrun; ALTER TABLE subscriptions DROP COLUMN unrun_bytes;
    ALTER TABLE subscriptions DROP COLUMN evicted_ran; ALTER TABLE subscriptions DROP COLUMN evicted_unrun;
    PRAGMA user_version = 3;";

#[tokio::test]
async fn the_clock_of_a_file_of_layout_4_begins_no_earlier_than_its_entries() {
    let folder = Folder::new();
    let day_ahead = crate::clock::now_ms() as i64 + 86_400_000;
    drop(open(&folder.file("a.db")).await);
    let conn = rusqlite::Connection::open(folder.path("a.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    conn.execute_batch(BACK_TO_4).unwrap();
    let sql = "INSERT INTO entries (stream, at_ms, kind, body) VALUES (1, ?1, 0, x'00')";
    conn.execute(sql, [day_ahead]).unwrap();
    let sqlite = open(&folder.file("a.db")).await;
    sqlite.publish("s", &[NewEntry { body: "x".into(), dedup_key: None }]).await.unwrap();
    let newest: i64 =
        conn.query_row("SELECT max(at_ms) FROM entries WHERE body = x'78'", [], |row| row.get(0)).unwrap();
    assert!((day_ahead..day_ahead + 600_000).contains(&newest), "{newest} and {day_ahead}");
}

#[tokio::test]
async fn the_letters_in_a_file_of_layout_3_are_counted() {
    let folder = Folder::new();
    let subscription = Subscription { stream: "s".into(), handler: "h".into() };
    open(&folder.file("a.db")).await.ensure_group(&subscription, Start::Beginning).await.unwrap();
    let conn = rusqlite::Connection::open(folder.path("a.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    conn.execute_batch(BACK_TO_4).unwrap();
    conn.execute_batch(BACK_TO_3).unwrap();
    for (class, history) in [("unknown", "[]"), ("rejected", "[]"), ("conflict", "[1]")] {
        let sql =
            "INSERT INTO dead (subscription, at_ms, class, reason, origin, kind, body, attempts, crashes, history)
                   VALUES (1, 1, ?1, 'ä', 1, 0, x'00ff00', 0, 0, ?2)";
        conn.execute(sql, (class, history)).unwrap();
    }
    // They were published, too.
    conn.execute_batch("UPDATE streams SET added = 3; UPDATE subscriptions SET delivered = 3").unwrap();
    drop(conn);
    let sqlite = open(&folder.file("a.db")).await;
    let status = sqlite.status(&subscription).await.unwrap();
    assert_eq!((status.dead, status.dead_unrun, status.dead_bytes), (3, 1, 3 * (3 + 2) + 2 + 2 + 3), "{status:?}");
    let letters = sqlite.dead_letters(&subscription, None, 10).await.unwrap();
    sqlite.drop_dead(&subscription, &[letters[0].id, letters[2].id], &Operator::default()).await.unwrap();
    let status = sqlite.status(&subscription).await.unwrap();
    assert_eq!((status.dead, status.dead_unrun, status.dead_bytes, status.dropped), (1, 0, 7, 2), "{status:?}");
}

#[tokio::test]
async fn what_a_file_of_layout_4_remembers_is_known() {
    let folder = Folder::new();
    let entry = || [NewEntry { body: "x".into(), dedup_key: Some((uuid::Uuid::nil(), [1; 16])) }];
    open(&folder.file("a.db")).await.publish("s", &entry()).await.unwrap();
    let conn = rusqlite::Connection::open(folder.path("a.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    conn.execute_batch(BACK_TO_4).unwrap();
    drop(conn);
    let sqlite = open(&folder.file("a.db")).await;
    assert_eq!(sqlite.publish("s", &entry()).await.unwrap(), [Published::Duplicate]);
    let subscription = Subscription { stream: "s".into(), handler: "h".into() };
    sqlite.ensure_group(&subscription, Start::Beginning).await.unwrap();
    assert_eq!(sqlite.tend(&subscription, "me", "{}").await.unwrap().wishes.len(), 1);
}

#[tokio::test]
async fn a_file_of_layout_2_is_made_one_of_today() {
    let folder = Folder::new();
    drop(open(&folder.file("a.db")).await);
    let conn = rusqlite::Connection::open(folder.path("a.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    conn.execute_batch(BACK_TO_4).unwrap();
    conn.execute_batch(BACK_TO_3).unwrap();
    let back = "DROP INDEX due_timers; ALTER TABLE subscriptions DROP COLUMN timers; DROP TABLE versions; PRAGMA user_version = 2";
    conn.execute_batch(back).unwrap();
    drop(conn);
    let subscription = Subscription { stream: "s".into(), handler: "h".into() };
    let sqlite = open(&folder.file("a.db")).await;
    sqlite.ensure_group(&subscription, Start::Beginning).await.unwrap();
    assert_eq!(sqlite.status(&subscription).await.unwrap().timers, 0);
}

#[tokio::test]
async fn an_empty_file_is_a_new_database() {
    let folder = Folder::new();
    std::fs::write(folder.path("a.db"), "").unwrap();
    open(&folder.file("a.db")).await.publish("s", &[NewEntry { body: "x".into(), dedup_key: None }]).await.unwrap();
}
