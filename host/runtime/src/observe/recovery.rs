//! Facts about reclaimed deliveries, and about suspects.

use super::metrics::process;
use tidemill_core::model::delivery::{Delivery, EntryId, Queue, Subscription};

/// Went into quarantine before any host read them.
pub fn quarantined(subscription: &Subscription, entries: &[(Queue, EntryId)]) {
    let count = entries.len();
    process().deliveries.add(&[&subscription.handler, &subscription.stream, "quarantined"], count as u64);
    let first = entries.first().map(|(_, entry)| entry.to_string());
    tracing::warn!(%subscription, count, first, "suspects: hosts crashed with them in flight; they run in isolation");
}

pub(super) const LOST: &str = "lost";
pub(super) const HOST_DIED: &str = "host-died";

/// Pending deliveries without a live consumer. A crash on their account says that a host died with them.
pub fn recovered(subscription: &Subscription, found: &[Delivery]) {
    let died = found.iter().filter(|delivery| delivery.crashes > 0).count();
    for (cause, count) in [(HOST_DIED, died), (LOST, found.len() - died)] {
        process().recovered.add(&[&subscription.handler, &subscription.stream, cause], count as u64);
    }
    tracing::info!(%subscription, count = found.len(), "reclaimed orphaned deliveries");
}

pub fn running_alone(subscription: &Subscription, suspect: &Delivery) {
    let (entry, crashes) = (suspect.entry, suspect.crashes);
    tracing::warn!(%subscription, %entry, crashes, "suspect: hosts crashed with it in flight; it runs in isolation");
}
