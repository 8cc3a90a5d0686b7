//! A settlement in the form in which it goes to the thread: owned, and with everything that is work for the CPU alone
//! (packing, histories as JSON) done before.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::parcel::{Parcel, lane_number, number};
use super::tx::millis;
use crate::backend::{Entry, Settlement};
use crate::model::dead_letter::Reason;
use crate::model::delivery::{Disposition, Effects, Emitted, Subscription, Timer};
use crate::model::event::PayloadHash;

pub struct Plan {
    pub subscription: Subscription,
    pub consumer: Arc<str>,
    pub plugin: Arc<str>,
    pub token: Uuid,
    pub steps: Vec<Step>,
}

pub struct Step {
    pub place: Place,
    pub mark: Option<(Uuid, PayloadHash)>,
    pub state: Option<(Arc<str>, u64)>,
    pub deed: Deed,
}

/// Where a delivery lies: number of the lane (0 or 1), row in it.
pub type Place = (i64, i64);

pub enum Deed {
    /// Timers: in how many ms, and what then comes.
    Commit {
        emits: Vec<Emitted>,
        writes: BTreeMap<String, Option<Bytes>>,
        timers: Vec<(i64, Parcel)>,
    },
    Skip {
        duplicate: bool,
    },
    Retry {
        after_ms: i64,
        parcel: Parcel,
    },
    DeadLetter {
        reason: Reason,
        parcel: Parcel,
    },
    Quarantine,
    /// Skip, if this is still what hosts have agreed on.
    Pass {
        agreed: u64,
    },
    Leave,
}

impl Plan {
    pub fn of(settlement: &Settlement) -> Self {
        Self {
            subscription: settlement.subscription.clone(),
            consumer: settlement.consumer.clone(),
            plugin: settlement.plugin.clone(),
            token: settlement.token,
            steps: settlement.entries.iter().map(step).collect(),
        }
    }
}

fn step(entry: &Entry) -> Step {
    let delivery = &entry.delivery;
    let deed = match &entry.disposition {
        Disposition::Commit(Effects { emits, writes, timers }) => {
            let timer = |timer: &Timer| (millis(timer.after), Parcel::of_timer(delivery.origin, timer));
            let timers = timers.iter().map(timer).collect();
            Deed::Commit { emits: emits.clone(), writes: writes.clone(), timers }
        }
        Disposition::Skip { duplicate } => Deed::Skip { duplicate: *duplicate },
        Disposition::Retry { after, record } => {
            Deed::Retry { after_ms: millis(*after), parcel: Parcel::of(delivery, Some(record)) }
        }
        Disposition::DeadLetter { reason, record } => {
            Deed::DeadLetter { reason: reason.clone(), parcel: Parcel::of(delivery, record.as_ref()) }
        }
        Disposition::Quarantine => Deed::Quarantine,
        Disposition::Pass { agreed } => Deed::Pass { agreed: *agreed },
        Disposition::Leave => Deed::Leave,
    };
    let place = (lane_number(delivery.lane), number(delivery.entry));
    Step { place, mark: entry.mark, state: entry.state.clone(), deed }
}
