//! What is told of deliveries that were found again, and of suspects.

use super::process;
use crate::model::delivery::{Delivery, EntryId, Lane, Source};

/// Went into quarantine before anybody read them.
pub fn quarantined(source: &Source, entries: &[(Lane, EntryId)]) {
    let count = entries.len();
    process().deliveries.add(&[&source.handler, &source.stream, "quarantined"], count as u64);
    let first = entries.first().map(|(_, entry)| entry.to_string());
    tracing::warn!(%source, count, first, "suspects: hosts died with them in hand; they will be run alone");
}

pub(super) const LOST: &str = "lost";
pub(super) const HOST_DIED: &str = "host-died";

/// Deliveries that were pending in nobody's hands. A crash on their account says that a host died with them.
pub fn recovered(source: &Source, found: &[Delivery]) {
    let died = found.iter().filter(|delivery| delivery.crashes > 0).count();
    for (cause, count) in [(HOST_DIED, died), (LOST, found.len() - died)] {
        process().recovered.add(&[&source.handler, &source.stream, cause], count as u64);
    }
    tracing::info!(%source, count = found.len(), "recovered deliveries that nobody held any more");
}

pub fn running_alone(source: &Source, suspect: &Delivery) {
    let (entry, crashes) = (suspect.entry, suspect.crashes);
    tracing::warn!(%source, %entry, crashes, "suspect: hosts died with it in hand; it is run alone");
}
