//! The forms that lie on every desk: entries of a settlement, effects, records, filled in for stories.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::backend::{NewEntry, SettlementEntry};
use crate::model::dead_letter::{AttemptRecord, Reason, ReasonClass};
use crate::model::delivery::{Body, Delivery, Disposition, Effects, Emitted};
use crate::model::event::PayloadHash;

pub const THIS: PayloadHash = [0x11; 16];
pub const OTHER: PayloadHash = [0x22; 16];

pub fn new_entry(body: &str, dedup_key: Option<(Uuid, PayloadHash)>) -> NewEntry {
    NewEntry { body: Bytes::copy_from_slice(body.as_bytes()), dedup_key }
}

pub fn text(delivery: &Delivery) -> &str {
    match &delivery.body {
        Body::Event(bytes) | Body::Timer(bytes) => std::str::from_utf8(bytes).expect("stories publish text"),
        Body::Fields(_) | Body::Large(_) => panic!("an event was to come, not {:?}", delivery.body),
    }
}

/// `Delivery` is deliberately not `Clone`; a story that settles twice needs a second one all the same.
pub fn copy(d: &Delivery) -> Delivery {
    Delivery {
        queue: d.queue,
        entry: d.entry,
        origin: d.origin,
        body: d.body.clone(),
        attempts: d.attempts,
        crashes: d.crashes,
        died_alone: d.died_alone,
        isolated: d.isolated,
        history: d.history.clone(),
        replayed: d.replayed,
    }
}

pub fn entry(delivery: Delivery, disposition: Disposition) -> SettlementEntry {
    SettlementEntry { delivery, dedup_key: None, state: None, disposition }
}

pub fn commit(delivery: Delivery) -> SettlementEntry {
    entry(delivery, Disposition::Commit(Effects::default()))
}

pub fn commit_with(delivery: Delivery, effects: Effects) -> SettlementEntry {
    entry(delivery, Disposition::Commit(effects))
}

pub fn retry(delivery: Delivery, after: Duration, record: AttemptRecord) -> SettlementEntry {
    entry(delivery, Disposition::Retry { after, record })
}

pub fn dead_letter(delivery: Delivery, class: ReasonClass, record: Option<AttemptRecord>) -> SettlementEntry {
    entry(delivery, Disposition::DeadLetter { reason: Reason { class, text: format!("because {class}") }, record })
}

pub fn emit(stream: &str, body: &str) -> Emitted {
    Emitted { stream: stream.into(), body: Bytes::copy_from_slice(body.as_bytes()) }
}

pub fn emits(stream: &str, bodies: &[&str]) -> Effects {
    Effects { emits: bodies.iter().map(|body| emit(stream, body)).collect(), ..Effects::default() }
}

pub fn writes(pairs: &[(&str, Option<&str>)]) -> Effects {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let writes = pairs.iter().map(|(name, value)| (name.to_string(), value.map(bytes))).collect();
    Effects { writes, ..Effects::default() }
}

pub fn record(attempt: u32, reason: &str) -> AttemptRecord {
    AttemptRecord {
        attempt,
        at_ms: 1_700_000_000_000 + u64::from(attempt),
        class: "failed".into(),
        reason: reason.into(),
        plugin: "0123456789ab".into(),
        log: vec![format!("log of {attempt}"), "second \"line\" \u{1F30A}".into()],
    }
}
