//! Builders for stories: entries of a settlement, effects, records.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use tidemill_core::model::dead_letter::{AttemptRecord, Reason, ReasonClass};
use tidemill_core::model::delivery::{Body, Delivery, Disposition, Effects, Emitted};
use tidemill_core::model::entry::PayloadHash;
use tidemill_storage::{NewEntry, SettlementEntry};

pub(crate) const THIS: PayloadHash = [0x11; 16];
pub(crate) const OTHER: PayloadHash = [0x22; 16];

pub(crate) fn new_entry(body: &str, dedup_key: Option<(Uuid, PayloadHash)>) -> NewEntry {
    NewEntry { body: Bytes::copy_from_slice(body.as_bytes()), dedup_key }
}

pub(crate) fn text(delivery: &Delivery) -> &str {
    match &delivery.body {
        Body::Event(bytes) | Body::Timer(bytes) => std::str::from_utf8(bytes).expect("stories publish text"),
        Body::Fields(_) | Body::Large(_) => panic!("an event was to come, not {:?}", delivery.body),
    }
}

/// `Delivery` is deliberately not `Clone`; a story that settles twice needs a second one all the same.
pub(crate) fn copy(d: &Delivery) -> Delivery {
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

pub(crate) fn entry(delivery: Delivery, disposition: Disposition) -> SettlementEntry {
    SettlementEntry { delivery, dedup_key: None, state: None, disposition }
}

pub(crate) fn commit(delivery: Delivery) -> SettlementEntry {
    entry(delivery, Disposition::Commit(Effects::default()))
}

pub(crate) fn commit_with(delivery: Delivery, effects: Effects) -> SettlementEntry {
    entry(delivery, Disposition::Commit(effects))
}

pub(crate) fn retry(delivery: Delivery, after: Duration, record: AttemptRecord) -> SettlementEntry {
    entry(delivery, Disposition::Retry { after, record })
}

pub(crate) fn dead_letter(delivery: Delivery, class: ReasonClass, record: Option<AttemptRecord>) -> SettlementEntry {
    entry(delivery, Disposition::DeadLetter { reason: Reason { class, text: format!("because {class}") }, record })
}

pub(crate) fn emit(stream: &str, body: &str) -> Emitted {
    Emitted { stream: stream.into(), body: Bytes::copy_from_slice(body.as_bytes()) }
}

pub(crate) fn emits(stream: &str, bodies: &[&str]) -> Effects {
    Effects { emits: bodies.iter().map(|body| emit(stream, body)).collect(), ..Effects::default() }
}

pub(crate) fn writes(pairs: &[(&str, Option<&str>)]) -> Effects {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let writes = pairs.iter().map(|(name, value)| (name.to_string(), value.map(bytes))).collect();
    Effects { writes, ..Effects::default() }
}

pub(crate) fn record(attempt: u32, reason: &str) -> AttemptRecord {
    AttemptRecord {
        attempt,
        at_ms: 1_700_000_000_000 + u64::from(attempt),
        class: "failed".into(),
        reason: reason.into(),
        plugin: "0123456789ab".into(),
        log: vec![format!("log of {attempt}"), "second \"line\" \u{1F30A}".into()],
    }
}
