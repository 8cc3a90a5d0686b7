//! One settlement that was refused by itself: what it takes to keep it, and what it depends on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tidemill_core::model::dead_letter::AttemptRecord;
use tidemill_core::model::delivery::Disposition;
use tidemill_storage::{Settlement, SettlementEntry};

/// A settlement of one entry, refused by itself.
#[derive(Debug)]
pub struct RefusedSettlement {
    pub settlement: Settlement,
    /// A canary decided it.
    pub canary: bool,
    pub(super) since: Instant,
    pub(super) bytes: usize,
}

impl RefusedSettlement {
    pub fn new(settlement: Settlement, canary: bool) -> Self {
        let bytes = settlement.entries.iter().map(bytes_of).sum();
        Self { settlement, canary, since: Instant::now(), bytes }
    }

    /// The state key whose version this depends on.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.settlement.entries.iter().find_map(chain_key)
    }

    /// The streams that it emits to.
    pub(super) fn targets(&self) -> Vec<Arc<str>> {
        let mut targets = BTreeSet::new();
        for entry in &self.settlement.entries {
            if let Disposition::Commit(effects) = &entry.disposition {
                targets.extend(effects.emits.iter().map(|emitted| emitted.stream.clone()));
            }
        }
        targets.into_iter().collect()
    }
}

/// The state key of an entry that is stale if the state is another one by then.
pub(crate) fn chain_key(entry: &SettlementEntry) -> Option<&Arc<str>> {
    let commits = matches!(entry.disposition, Disposition::Commit(_));
    entry.state.as_ref().filter(|_| commits).map(|(key, _)| key)
}

fn bytes_of(entry: &SettlementEntry) -> usize {
    let asked = match &entry.disposition {
        Disposition::Commit(effects) => effects.bytes(),
        Disposition::Retry { record, .. } => record.bytes(),
        Disposition::DeadLetter { reason, record } => {
            reason.text.len() + record.as_ref().map_or(0, AttemptRecord::bytes)
        }
        Disposition::Skip { .. } | Disposition::Pass { .. } | Disposition::Leave | Disposition::Quarantine => 0,
    };
    entry.delivery.bytes() + asked
}
