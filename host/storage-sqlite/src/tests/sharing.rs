//! One file shared by several processes: each `open` here stands for one.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use uuid::Uuid;

use super::{Folder, open};
use tidemill_core::model::delivery::{Body, Disposition, Effects, Subscription};
use tidemill_storage::{
    Consume, Diagnose, Error, Membership, NewEntry, Published, Settled, Settlement, SettlementEntry, Start, Streams,
};

fn subscription() -> Subscription {
    Subscription { stream: "orders".into(), handler: "billing".into() }
}

fn event(text: &str) -> NewEntry {
    NewEntry { body: text.to_owned().into(), dedup_key: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_hears_of_another_process() {
    let folder = Folder::new();
    let (host, cli) = (open(&folder.file("a.db")).await, open(&folder.file("a.db")).await);
    host.ensure_group(&subscription(), Start::Beginning).await.unwrap();
    let reader = host.clone();
    let waiting = tokio::spawn(async move { reader.fetch(&subscription(), "me", 10, Duration::from_secs(3600)).await });
    tokio::time::sleep(Duration::from_millis(120)).await;
    cli.publish("orders", &[event("a")]).await.unwrap();
    let got = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it wakes").unwrap().unwrap();
    assert_eq!(got.deliveries.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_share_the_work() {
    let folder = Folder::new();
    let file = folder.file("a.db");
    let (count, hosts) = (400, 4);
    let opening: Vec<_> = (0..hosts)
        .map(|_| {
            tokio::spawn({
                let file = file.clone();
                async move { open(&file).await }
            })
        })
        .collect();
    let mut working = Vec::new();
    for (n, host) in opening.into_iter().enumerate() {
        let host = host.await.expect("all may make the file at once");
        host.ensure_group(&subscription(), Start::Beginning).await.unwrap();
        working.push(tokio::spawn(async move {
            let consumer: Arc<str> = format!("host-{n}").into();
            host.heartbeat(&consumer, Duration::from_secs(600), "").await.unwrap();
            for n in 0..count / hosts {
                let id = Uuid::from_u128(n as u128); // the same ids from every process
                let entry = NewEntry { dedup_key: Some((id, [1; 16])), ..event("x") };
                let answer = host.publish("orders", &[entry, event("y")]).await.unwrap();
                assert!(matches!(answer[..], [Published::Added(_) | Published::Duplicate, Published::Added(_)]));
                let got = host.fetch(&subscription(), &consumer, 3, Duration::ZERO).await.unwrap();
                let entries = got.deliveries.into_iter().map(|delivery| SettlementEntry {
                    delivery,
                    dedup_key: None,
                    state: None,
                    disposition: Disposition::Commit(Effects::default()),
                });
                let (token, entries) = (Uuid::new_v4(), entries.collect());
                let settlement = Settlement {
                    subscription: subscription(),
                    consumer: consumer.clone(),
                    plugin: "v1".into(),
                    token,
                    entries,
                };
                let answers = host.settle(&settlement).await.unwrap();
                assert!(answers.iter().all(|settled| *settled == Settled::Committed));
            }
            host
        }));
    }
    for host in working {
        let counters = host.await.expect("no host fails").status(&subscription()).await.unwrap();
        assert!(counters.balances(), "{counters:?}");
    }
    let counters = open(&file).await.status(&subscription()).await.unwrap();
    assert_eq!(counters.published as usize, count + count / hosts, "those with a dedup key once, the others each");
    assert_eq!(counters.published, counters.committed + counters.lag);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_the_file_locked_may_try_again() {
    let folder = Folder::new();
    let host = open(&folder.file("a.db")).await;
    let other = Connection::open(folder.path("a.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    host.entries("orders", None, 1).await.expect("reading needs no lock");
    let error = host.publish("orders", &[event("a")]).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable { what, cause } if what.contains("publish") && cause.contains("locked")),
        "{error}"
    );
    assert!(error.is_transient());
    other.execute_batch("ROLLBACK").unwrap();
    host.publish("orders", &[event("a")]).await.expect("and then it works");
    assert_eq!(host.entries("orders", None, 10).await.unwrap().len(), 1, "the failed one left nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_a_stranger_deleted_is_handed_out_without_fields() {
    let folder = Folder::new();
    let host = open(&folder.file("a.db")).await;
    host.ensure_group(&subscription(), Start::Beginning).await.unwrap();
    host.publish("orders", &[event("a")]).await.unwrap();
    assert_eq!(host.fetch(&subscription(), "me", 1, Duration::ZERO).await.unwrap().deliveries.len(), 1);
    let stranger = Connection::open(folder.path("a.db")).unwrap();
    stranger.busy_timeout(Duration::from_secs(5)).unwrap();
    stranger.execute("DELETE FROM entries", []).unwrap();
    let found = host.recover(&subscription(), "me", &Default::default(), Duration::ZERO, 10).await.unwrap();
    assert_eq!(found.deliveries.iter().map(|delivery| &delivery.body).collect::<Vec<_>>(), [&Body::Fields(Vec::new())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_that_fails_does_not_spoil_its_neighbours() {
    let host = open(":memory:").await;
    let nobody = Subscription { stream: "none".into(), handler: "none".into() };
    let mut asking = Vec::new();
    for n in 0..40 {
        let (host, nobody) = (host.clone(), nobody.clone());
        asking.push(tokio::spawn(async move {
            if n % 2 == 0 {
                host.publish("orders", &[event("a")]).await.map(drop)
            } else {
                host.fetch(&nobody, "me", 1, Duration::ZERO).await.map(drop)
            }
        }));
    }
    for (n, answer) in asking.into_iter().enumerate() {
        match answer.await.unwrap() {
            Ok(()) => assert_eq!(n % 2, 0),
            Err(error) => assert!(n % 2 == 1 && matches!(error, Error::GroupGone { .. }), "{error}"),
        }
    }
    assert_eq!(host.entries("orders", None, 100).await.unwrap().len(), 20);
}
