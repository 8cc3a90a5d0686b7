//! A settlement in the form in which it goes to the thread: owned, and with everything that is work for the CPU alone
//! (packing, histories as JSON) done before.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::millis::millis;
use super::row::{DeliveryRow, number, queue_number};
use tidemill_core::model::dead_letter::Reason;
use tidemill_core::model::delivery::{Disposition, Effects, Emitted, Subscription, Timer};
use tidemill_core::model::entry::PayloadHash;
use tidemill_storage::{Settlement, SettlementEntry};

pub(crate) struct SettleBatch {
    pub subscription: Subscription,
    pub consumer: Arc<str>,
    pub plugin: Arc<str>,
    pub token: Uuid,
    pub steps: Vec<SettleOp>,
}

pub(crate) struct SettleOp {
    pub place: RowKey,
    pub dedup_key: Option<(Uuid, PayloadHash)>,
    pub state: Option<(Arc<str>, u64)>,
    pub deed: OpKind,
}

/// Where a delivery lies: number of the queue (0 or 1), row in it.
pub(crate) type RowKey = (i64, i64);

pub(crate) enum OpKind {
    /// Timers: in how many ms, and what then comes.
    Commit {
        emits: Vec<Emitted>,
        writes: BTreeMap<String, Option<Bytes>>,
        timers: Vec<(i64, DeliveryRow)>,
    },
    Skip {
        duplicate: bool,
    },
    Retry {
        after_ms: i64,
        parcel: DeliveryRow,
    },
    DeadLetter {
        reason: Reason,
        parcel: DeliveryRow,
    },
    Quarantine,
    /// Skip, if this is still what hosts have agreed on.
    Pass {
        agreed: u64,
    },
    Leave,
}

impl SettleBatch {
    pub(crate) fn of(settlement: &Settlement) -> Self {
        Self {
            subscription: settlement.subscription.clone(),
            consumer: settlement.consumer.clone(),
            plugin: settlement.plugin.clone(),
            token: settlement.token,
            steps: settlement.entries.iter().map(step).collect(),
        }
    }
}

fn step(entry: &SettlementEntry) -> SettleOp {
    let delivery = &entry.delivery;
    let deed = match &entry.disposition {
        Disposition::Commit(Effects { emits, writes, timers }) => {
            let timer = |timer: &Timer| (millis(timer.after), DeliveryRow::of_timer(delivery.origin, timer));
            let timers = timers.iter().map(timer).collect();
            OpKind::Commit { emits: emits.clone(), writes: writes.clone(), timers }
        }
        Disposition::Skip { duplicate } => OpKind::Skip { duplicate: *duplicate },
        Disposition::Retry { after, record } => {
            OpKind::Retry { after_ms: millis(*after), parcel: DeliveryRow::of(delivery, Some(record)) }
        }
        Disposition::DeadLetter { reason, record } => {
            OpKind::DeadLetter { reason: reason.clone(), parcel: DeliveryRow::of(delivery, record.as_ref()) }
        }
        Disposition::Quarantine => OpKind::Quarantine,
        Disposition::Pass { agreed } => OpKind::Pass { agreed: *agreed },
        Disposition::Leave => OpKind::Leave,
    };
    let place = (queue_number(delivery.queue), number(delivery.entry));
    SettleOp { place, dedup_key: entry.dedup_key, state: entry.state.clone(), deed }
}
