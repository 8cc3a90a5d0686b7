//! Facts about what the backend refuses to settle.

use super::metrics::process;
use tidemill_core::model::delivery::{EntryId, Subscription};

/// A batch is settled entry by entry, because it was refused as a whole.
pub fn batch_refused(subscription: &Subscription, entries: usize, reason: &str) {
    process().store_errors.add(&["settling"], 1);
    tracing::debug!(%subscription, entries, reason, "a settlement was refused; its entries are settled one by one");
}

/// The backend refuses to settle a delivery, or the one before it of the same state key. What was decided is kept, and sent
/// again; `is_new`: for a cause for which nothing else is kept.
pub fn settlement_refused(subscription: &Subscription, entry: EntryId, kept: usize, reason: &str, is_new: bool) {
    process().settlements_refused.add(&[&subscription.handler, &subscription.stream], 1);
    refused_kept(subscription, kept);
    tracing::debug!(%subscription, %entry, reason, "refused by itself");
    if is_new {
        warn_of_refusal(subscription, kept, reason, 1);
    }
}

/// How much of what the backend refused this host keeps.
pub fn refused_kept(subscription: &Subscription, count: usize) {
    process().refused_kept.set(&[&subscription.handler, &subscription.stream], count as f64);
}

/// What is kept for one cause was refused for the `times`th time. Said at the second, fourth, eighth.. of them.
pub fn refused_again(subscription: &Subscription, kept: usize, reason: &str, times: u32) {
    process().store_errors.add(&["settling"], 1);
    if times.is_power_of_two() {
        warn_of_refusal(subscription, kept, reason, times);
    }
}

fn warn_of_refusal(subscription: &Subscription, kept: usize, reason: &str, times: u32) {
    tracing::warn!(
        %subscription, kept, times, reason,
        "refused: the backend does not settle what was decided; it is kept and sent again, and no plugin is called for it"
    );
}
