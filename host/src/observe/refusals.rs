//! Facts about what the backend refuses to settle.

use super::metrics::process;
use crate::model::delivery::{EntryId, Source};

/// A batch is settled entry by entry, because it was refused as a whole.
pub fn batch_refused(source: &Source, entries: usize, reason: &str) {
    process().store_errors.add(&["settling"], 1);
    tracing::debug!(%source, entries, reason, "a settlement was refused; its entries are settled one by one");
}

/// The backend refuses to settle a delivery, or the one before it of the same state key. What was decided is kept, and sent
/// again; `is_new`: for a cause for which nothing else is kept.
pub fn settlement_refused(source: &Source, entry: EntryId, kept: usize, reason: &str, is_new: bool) {
    process().settlements_refused.add(&[&source.handler, &source.stream], 1);
    refused_kept(source, kept);
    tracing::debug!(%source, %entry, reason, "refused by itself");
    if is_new {
        warn_of_refusal(source, kept, reason, 1);
    }
}

/// How much of what the backend refused this host keeps.
pub fn refused_kept(source: &Source, count: usize) {
    process().refused_kept.set(&[&source.handler, &source.stream], count as f64);
}

/// What is kept for one cause was refused for the `times`th time. Said at the second, fourth, eighth.. of them.
pub fn refused_again(source: &Source, kept: usize, reason: &str, times: u64) {
    process().store_errors.add(&["settling"], 1);
    if times.is_power_of_two() {
        warn_of_refusal(source, kept, reason, times);
    }
}

fn warn_of_refusal(source: &Source, kept: usize, reason: &str, times: u64) {
    tracing::warn!(
        %source, kept, times, reason,
        "refused: the backend does not settle what was decided; it is kept and sent again, and no plugin is called for it"
    );
}
