//! What a shadow run holds, with bounds that are small enough for a test.

use super::*;
use tidemill_core::model::delivery::{Disposition, Effects};
use tidemill_core::model::outcome::Crash;
use tidemill_schema::Registry;
use tidemill_storage::{NewEntry, Options, Settled, Settlement, SettlementEntry, Start};
use tidemill_storage_sqlite::Sqlite;

/// A subscription, and its stream with an event of 1000 bytes for each of these keys.
async fn scene(keys: &[&str]) -> (Arc<dyn Backend>, Subscription, Vec<(EntryId, Arc<Event>)>) {
    let backend = Sqlite::open(":memory:", Options::default()).await.unwrap();
    let backend: Arc<dyn Backend> = Arc::new(backend);
    let subscription = Subscription { stream: "s".into(), handler: "h".into() };
    backend.ensure_group(&subscription, Start::Beginning).await.unwrap();
    let mut schemas = Registry::default();
    schemas.add("User.Created.v1", "{}").unwrap();
    let mut events = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let id = Uuid::from_u128(at as u128 + 1);
        let start = format!(
            r#"{{"event_id":"{id}","event_type":"User.Created","version":"1","timestamp":"t","correlation_id":"{id}","key":"{key}","data":""#
        );
        let body = Bytes::from(format!("{start}{}\"}}", "x".repeat(998 - start.len())));
        assert_eq!(body.len(), 1000);
        let terms = AdmitOptions { wants: &|_, _| true, key: &[], payload_bytes_max: 1000 };
        events.push((EntryId(at as u64 + 1, 0), Arc::new(admit(&schemas, &body, &terms).unwrap())));
        backend.publish("s", &[NewEntry { body, dedup_key: None }]).await.unwrap();
    }
    (backend, subscription, events)
}

/// Reaches `shadow::EVENT_BYTES_MAX`.
#[tokio::test]
async fn the_oldest_events_are_left_out_where_there_is_no_room() {
    let (backend, subscription, _) = scene(&["a", "b", "c"]).await;
    for (last, bytes_max, wanted) in [(10, 3000, &[1, 2, 3][..]), (10, 2999, &[2, 3]), (1, 3000, &[3])] {
        let kept = last_entries(&*backend, &subscription, last, bytes_max).await.unwrap();
        assert_eq!(kept.iter().map(|(entry, _)| entry.0).collect::<Vec<_>>(), wanted);
    }
}

/// Reaches `shadow::STATE_BYTES_MAX`.
#[tokio::test]
async fn states_that_have_no_room_are_refused() {
    let (backend, subscription, events) = scene(&["a", "b", "c"]).await;
    let fetched = backend.fetch(&subscription, "me", 3, Duration::from_secs(10)).await.unwrap();
    let entry = |(delivery, (_, event)): (_, &(EntryId, Arc<Event>))| {
        let mut effects = Effects::default();
        effects.writes.insert("n".to_owned(), Some(Bytes::from(vec![b'x'; 99])));
        SettlementEntry {
            delivery,
            dedup_key: None,
            state: Some((event.key().clone(), 0)),
            disposition: Disposition::Commit(effects),
        }
    };
    let entries = fetched.deliveries.into_iter().zip(&events).map(entry).collect();
    let token = Uuid::new_v4();
    let settlement =
        Settlement { subscription: subscription.clone(), consumer: "me".into(), plugin: "p".into(), token, entries };
    assert_eq!(backend.settle(&settlement).await.unwrap(), [Settled::Committed; 3]);
    assert_eq!(states_of(&*backend, &subscription, &events, 300).await.unwrap().len(), 3);
    let refused = states_of(&*backend, &subscription, &events, 299).await.unwrap_err().to_string();
    assert!(refused.contains("the state of the keys of h on s takes more than"), "{refused}");
}

/// Reaches `SHOWN_MAX`.
#[tokio::test]
async fn so_many_differences_are_shown_and_all_are_counted() {
    let (_, subscription, events) = scene(&["a"]).await;
    let (entry, event) = &events[0];
    let (mut report, crashed) = (ShadowReport::new(), CallResult::crashed(Crash::Trap, "no".to_owned()));
    let mut done = CallResult::crashed(Crash::Trap, String::new());
    done.outcome = Outcome::Done(Effects::default());
    for count in 1..=SHOWN_MAX + 1 {
        report.add(&subscription, *entry, event, &done, &crashed);
        assert_eq!((report.different, report.differences.len()), (count as u64, count.min(SHOWN_MAX)));
    }
}
