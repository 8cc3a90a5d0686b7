//! What another program does to the file: a group's row stays, and what does not add up is counted.

use super::{Folder, open};
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{Consume, Diagnose, Membership, NewEntry, Start, Streams};

#[tokio::test]
async fn the_row_of_a_group_cannot_be_deleted() {
    let folder = Folder::new();
    let subscription = Subscription { stream: "s".into(), handler: "h".into() };
    let sqlite = open(&folder.file("a.db")).await;
    sqlite.ensure_group(&subscription, Start::Beginning).await.unwrap();
    let conn = rusqlite::Connection::open(folder.path("a.db")).unwrap();
    conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    let said = conn.execute("DELETE FROM subscriptions", []).unwrap_err().to_string();
    assert!(said.contains("it is not deleted"), "{said}");
    assert!(sqlite.status(&subscription).await.is_ok());
}

#[tokio::test]
async fn what_strangers_do_to_the_rows_is_counted() {
    let deeds = [
        ("DELETE FROM pending WHERE entry = 1", (1, 0)),
        ("UPDATE subscriptions SET last_id = 6", (2, 0)),
        ("DELETE FROM entries WHERE id > 4", (2, 0)),
        ("UPDATE subscriptions SET seen_last = 99", (0, 0)),
    ];
    for (deed, (strayed, repeated)) in deeds {
        let folder = Folder::new();
        let subscription = Subscription { stream: "s".into(), handler: "h".into() };
        let sqlite = open(&folder.file("a.db")).await;
        sqlite.ensure_group(&subscription, Start::Beginning).await.unwrap();
        let entry = || NewEntry { body: "x".into(), dedup_key: None };
        sqlite.publish("s", &[entry(), entry(), entry(), entry(), entry(), entry()]).await.unwrap();
        let got = sqlite.fetch(&subscription, "me", 4, std::time::Duration::ZERO).await.unwrap().deliveries;
        assert_eq!(got.len(), 4);
        let conn = rusqlite::Connection::open(folder.path("a.db")).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        conn.execute(deed, []).unwrap();
        // The count waits until all is fetched.
        sqlite.fetch(&subscription, "me", 4, std::time::Duration::ZERO).await.unwrap();
        let tended = sqlite.tend(&subscription, "me", "{}").await.unwrap();
        assert_eq!((tended.strayed, tended.repeated), (strayed, repeated), "{deed}");
        assert_eq!(tended.set_back.is_some(), deed.contains("seen_last"), "{deed}");
        let status = sqlite.status(&subscription).await.unwrap();
        assert!(status.balances() && status.lag == 0 && status.strayed == strayed, "{deed}: {status:?}");
    }
}
