//! How a run makes what it hands to a backend, and words what came of it.

use tidemill_core::model::dead_letter::AttemptRecord;
use tidemill_core::model::delivery::{Delivery, Disposition, Effects};
use tidemill_core::model::entry::PayloadHash;
use tidemill_storage::{Settled, SettlementEntry};
use uuid::Uuid;

use super::steps::Mark;

pub(super) fn mark_of(dedup_key: Mark) -> (Uuid, PayloadHash) {
    (Uuid::from_u128(dedup_key.id.into()), [u8::from(dedup_key.other_hash); 16])
}

pub(super) fn record(attempt: u32) -> AttemptRecord {
    let (class, reason, plugin) = ("failed".into(), "no luck".into(), "0123456789ab".into());
    AttemptRecord { attempt, at_ms: u64::from(attempt), class, reason, plugin, log: vec![] }
}

/// `Delivery` is deliberately not `Clone`; who acts on what is out of date needs a second one all the same.
pub(super) fn copy(d: &Delivery) -> Delivery {
    let (body, history) = (d.body.clone(), d.history.clone());
    Delivery {
        queue: d.queue,
        entry: d.entry,
        origin: d.origin,
        body,
        attempts: d.attempts,
        crashes: d.crashes,
        died_alone: d.died_alone,
        isolated: d.isolated,
        history,
        replayed: d.replayed,
    }
}

pub(super) fn names(deliveries: &[Delivery]) -> String {
    let name = |d: &Delivery| format!("{:?} {} ({} attempts, {} crashes)", d.queue, d.entry, d.attempts, d.crashes);
    deliveries.iter().map(name).collect::<Vec<_>>().join(", ")
}

pub(super) fn tell_settled((entry, answer): (&SettlementEntry, &Settled)) -> String {
    let SettlementEntry { delivery, dedup_key, state, disposition } = entry;
    let dedup_key =
        dedup_key.map(|(id, hash)| format!(" as event {} hash {}", id.as_u128(), hash[0])).unwrap_or_default();
    let state = state.as_ref().map(|(key, version)| format!(" on {key} version {version}")).unwrap_or_default();
    let does = match disposition {
        Disposition::Commit(Effects { emits, writes, timers }) => {
            format!("Commit({} emits, writes {writes:?}, timers {timers:?})", emits.len())
        }
        Disposition::Retry { after, .. } => format!("Retry(after {after:?})"),
        Disposition::DeadLetter { reason, record } => format!("DeadLetter({}, {})", reason.class, record.is_some()),
        other => format!("{other:?}"),
    };
    format!("         {:?} {}{dedup_key}{state}: {does} -> {answer:?}", delivery.queue, delivery.entry)
}
