//! The checker itself is put to the proof: it must find what was made wrong, and nothing in what is right.

use std::collections::BTreeMap;

use serde_json::json;
use tidemill_testkit::checker::{Counters, Dead, Found, Input, Terms, judge};

/// Spoils what was found.
type Wrong = fn(&mut Found);

/// Four inputs: two on one key, one that fails once, one that is rejected.
fn inputs() -> BTreeMap<u64, Input> {
    let row = |n: u64, mode: &str, fail_times| {
        let (id, key) = (format!("00000000-0000-0000-0000-{n:012}"), "k".to_owned());
        (n, Input { id, key, amount: 10, mode: mode.to_owned(), fail_times, sent: 1, acknowledged: 1 })
    };
    BTreeMap::from([row(1, "ok", 0), row(2, "ok", 0), row(3, "fail", 1), row(4, "reject", 0)])
}

fn booked(n: u64, count: u64, sum: i64, attempt: u64) -> Vec<u8> {
    let data = json!({ "n": n, "key": "k", "amount": 10, "count": count, "sum": sum, "attempt": attempt });
    let cause = format!("00000000-0000-0000-0000-{n:012}");
    json!({ "event_id": format!("emitted by {n}"), "causation_id": cause, "data": data }).to_string().into_bytes()
}

/// What those inputs come to.
fn right() -> Found {
    let body = br#"{"event_id":"00000000-0000-0000-0000-000000000004"}"#.to_vec();
    let dead = Dead { class: "rejected".to_owned(), text: String::new(), body, attempts: 1, crashes: 0 };
    Found {
        emitted: vec![booked(1, 1, 10, 1), booked(2, 2, 20, 1), booked(3, 3, 30, 2)],
        dead: vec![dead],
        state: BTreeMap::from([("k".to_owned(), (3, 30))]),
        counters: Counters { published: 4, committed: 3, retried: 1, ..Counters::default() },
        ..Found::default()
    }
}

#[test]
fn the_checker_is_content_with_what_is_right() {
    assert_eq!(judge(&inputs(), &right(), Terms::default()).violations, Vec::<String>::new());
}

#[test]
fn the_checker_finds_each_thing_that_is_wrong() {
    let wrongs: [(&str, Wrong); 9] = [
        ("lost", |found| drop(found.emitted.pop())),
        ("emitted twice", |found| found.emitted.push(booked(1, 4, 40, 1))),
        ("doubled", |found| found.dead[0].body = br#"{"event_id":"00000000-0000-0000-0000-000000000001"}"#.to_vec()),
        ("emitted from nowhere", |found| found.emitted.push(booked(9, 4, 40, 1))),
        ("committed at attempt 3", |found| found.emitted[2] = booked(3, 3, 30, 3)),
        ("dead without need", |found| found.dead[0].class = "poison".to_owned()),
        ("by replay", |found| found.emitted[1] = booked(2, 2, 30, 1)),
        ("its state is", |found| found.state.extend([("k".to_owned(), (2, 20))])),
        ("counters", |found| found.counters.retried = 2),
    ];
    for (said, spoil) in wrongs {
        let mut found = right();
        spoil(&mut found);
        let report = judge(&inputs(), &found, Terms::default());
        assert!(report.violations.iter().any(|violation| violation.contains(said)), "{said}: {report}");
    }
}
