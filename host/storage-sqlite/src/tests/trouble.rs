//! A disk that is full: what was answered stays, what failed leaves nothing, and it goes on when there is room again.

use std::sync::Arc;

use super::{Folder, open};
use crate::Sqlite;
use crate::job::Durability;
use tidemill_storage::{Error, NewEntry, Streams};

/// SQLite refuses a page over the limit just as it does when the disk has none left.
async fn limit_pages(host: &Sqlite, pages: u32) {
    let ask = host
        .db
        .ask(Durability::Synced, "limit", move |tx| Ok(tx.number(&format!("PRAGMA max_page_count = {pages}"), [])?));
    ask.await.unwrap();
}

/// Four callers at once, so that some share a transaction with the one that fails. Answers how many got through.
async fn publish(host: &Arc<Sqlite>) -> usize {
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let host = host.clone();
            let entries = vec![NewEntry { body: vec![b'x'; 3000].into(), dedup_key: None }; 3];
            tokio::spawn(async move { host.publish("orders", &entries).await })
        })
        .collect();
    let mut got_through = 0;
    for caller in callers {
        match caller.await.unwrap() {
            Ok(answers) => got_through += answers.len(),
            Err(Error::Unavailable { cause, .. }) => {
                assert!(cause.contains("full") || cause.contains("half way"), "{cause}");
            }
            Err(other) => panic!("a full disk may have room again, but: {other}"),
        }
    }
    got_through
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_nothing_back_and_leaves_nothing_half_done() {
    let folder = Folder::new();
    let host = open(&folder.file("a.db")).await;
    limit_pages(&host, 100).await;
    let mut answered = 0;
    for _ in 0..20 {
        answered += publish(&host).await;
        assert_eq!(host.entries("orders", None, 1000).await.unwrap().len(), answered, "what was answered, and no more");
    }
    assert!(answered > 0 && answered < 240, "the disk did get full");
    limit_pages(&host, 100_000).await;
    assert_eq!(publish(&host).await, 12, "there is room again");
    assert_eq!(host.entries("orders", None, 1000).await.unwrap().len(), answered + 12);
}
