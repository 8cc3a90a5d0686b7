//! What is kept for a while expires after it, and not before: with a clock that the test sets.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use uuid::Uuid;

use crate::inbox::{Inbox, scope_of_stream};
use crate::tx::Tx;
use crate::{consumers, receipts};
use tidemill_storage::Settled;

const WINDOW: Duration = Duration::from_secs(100);
const START: i64 = 1_700_000_000_000;

fn database() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(include_str!("../schema.sql")).unwrap();
    conn
}

fn at<T>(conn: &Connection, second: i64, work: impl FnOnce(&mut Tx<'_>) -> T) -> T {
    let mut to_notify: Vec<Arc<str>> = Vec::new();
    work(&mut Tx::at(conn, START + second * 1000, &mut to_notify))
}

fn count(conn: &Connection, table: &str) -> i64 {
    conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Reaches `INBOX_WINDOW`.
#[test]
fn the_inbox_remembers_for_the_window_and_then_forgets() {
    let conn = database();
    for second in 0..1000 {
        at(&conn, second, |tx| {
            let inbox = Inbox::open(tx, 1, WINDOW).unwrap();
            assert_eq!(inbox.record(tx, Uuid::from_u128(second as u128), [1; 16]).unwrap(), None);
            for age in [0, 1, 50, 99, 100].into_iter().filter(|age| *age <= second) {
                let id = Uuid::from_u128((second - age) as u128);
                assert_eq!(inbox.find(tx, id).unwrap(), Some([1; 16]), "{age} s old at second {second}");
            }
        });
        assert!(count(&conn, "inbox_buckets") <= 4, "a lookup reads few buckets");
    }
    assert!(count(&conn, "inbox") <= 200, "what is older than one window and a half is gone");
}

#[test]
fn a_stream_and_a_handler_of_the_same_number_have_each_their_own_inbox() {
    let conn = database();
    at(&conn, 0, |tx| {
        let stream = Inbox::open(tx, scope_of_stream(1), WINDOW).unwrap();
        let handler = Inbox::open(tx, 1, WINDOW).unwrap();
        assert_eq!(stream.record(tx, Uuid::nil(), [1; 16]).unwrap(), None);
        assert_eq!(handler.record(tx, Uuid::nil(), [2; 16]).unwrap(), None);
        assert_eq!(stream.find(tx, Uuid::nil()).unwrap(), Some([1; 16]));
    });
}

/// Reaches `FORGET_MAX`.
#[test]
fn forgetting_is_done_in_bounded_steps() {
    let conn = database();
    at(&conn, 0, |tx| {
        let inbox = Inbox::open(tx, 1, WINDOW).unwrap();
        (0..2500).for_each(|n| assert_eq!(inbox.record(tx, Uuid::from_u128(n), [1; 16]).unwrap(), None));
    });
    for second in [200, 255] {
        at(&conn, second, |tx| Inbox::open(tx, 1, WINDOW).unwrap());
    }
    let mut left = Vec::new();
    for _ in 0..4 {
        at(&conn, 310, |tx| {
            let inbox = Inbox::open(tx, 1, WINDOW).unwrap();
            assert_eq!(inbox.find(tx, Uuid::from_u128(2499)).unwrap(), None, "forgotten before it is removed");
        });
        left.push(count(&conn, "inbox"));
    }
    assert_eq!(left, [1500, 500, 0, 0]);
}

#[test]
fn a_clock_that_is_set_back_forgets_nothing() {
    let conn = database();
    at(&conn, 0, |tx| Inbox::open(tx, 1, WINDOW).unwrap().record(tx, Uuid::nil(), [1; 16]).unwrap());
    for second in [3600, 0, -3600, 60] {
        // An hour ahead is longer than this window; what counts is that going back neither fails nor loses more.
        at(&conn, second, |tx| Inbox::open(tx, 1, Duration::from_secs(86_400)).unwrap().find(tx, Uuid::nil()).unwrap())
            .unwrap_or_else(|| panic!("forgotten at {second}"));
    }
}

/// Reaches `inbox::KEPT`.
#[test]
fn a_clock_that_is_put_ahead_forgets_nothing_within_the_window() {
    let conn = database();
    for second in [0, 50, 90] {
        at(&conn, second, |tx| {
            Inbox::open(tx, 1, WINDOW).unwrap().record(tx, Uuid::from_u128(second as u128), [1; 16]).unwrap()
        });
    }
    // 90 s after the first, by a clock that is three hours ahead; then it is put right.
    for second in [90 + 3 * 3600, 95] {
        for id in [0, 50, 90] {
            let found =
                at(&conn, second, |tx| Inbox::open(tx, 1, WINDOW).unwrap().find(tx, Uuid::from_u128(id)).unwrap());
            assert_eq!(found, Some([1; 16]), "{id} is forgotten at {second}");
        }
    }
}

#[test]
fn the_longest_window_of_those_who_write_counts() {
    let conn = database();
    let [short, long] = [Duration::from_secs(10), WINDOW];
    at(&conn, 0, |tx| Inbox::open(tx, 1, short).unwrap().record(tx, Uuid::nil(), [1; 16]).unwrap());
    at(&conn, 1, |tx| Inbox::open(tx, 1, long).unwrap().record(tx, Uuid::max(), [1; 16]).unwrap());
    for second in 2..90 {
        let found = at(&conn, second, |tx| Inbox::open(tx, 1, short).unwrap().find(tx, Uuid::max()).unwrap());
        assert_eq!(found, Some([1; 16]), "forgotten at {second}");
    }
    for second in 90..300 {
        at(&conn, second, |tx| Inbox::open(tx, 1, short).unwrap().find(tx, Uuid::max()).unwrap());
    }
    assert_eq!(count(&conn, "inbox"), 0, "and once no host has it any more, the shorter one counts");
}

/// Reaches `KEPT_FOR`.
#[test]
fn receipts_are_kept_for_ten_minutes_and_do_not_pile_up() {
    let conn = database();
    let token = |n: i64| Uuid::from_u128(n as u128);
    let answer = [Settled::Stale, Settled::Committed, Settled::Fenced];
    for second in 0..2000 {
        at(&conn, second, |tx| {
            receipts::keep(tx, token(second), &answer).unwrap();
            assert_eq!(receipts::find(tx, token((second - 599).max(0))).unwrap().as_deref(), Some(&answer[..]));
        });
    }
    assert!(count(&conn, "receipts") <= 605, "{}", count(&conn, "receipts"));
}

#[test]
fn the_dead_are_forgotten_when_nothing_of_them_is_left() {
    let conn = database();
    at(&conn, 0, |tx| {
        for name in ["gone", "holding"] {
            consumers::heartbeat(tx, name, Duration::from_secs(10), "").unwrap();
        }
        let holding = consumers::seek(tx, "holding").unwrap();
        tx.run(
            "INSERT INTO pending (subscription, queue, entry, consumer, delivered_ms, crashes) VALUES (1, 0, 1, ?1, 0, 0)",
            [holding],
        )
        .unwrap();
    });
    for (second, left) in [(60, 2), (3600, 2), (3620, 1)] {
        at(&conn, second, |tx| consumers::forget_some(tx).unwrap());
        assert_eq!(count(&conn, "consumers"), left, "at second {second}");
    }
}
