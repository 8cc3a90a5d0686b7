//! What the bounds of dead letters have cost.

use tidemill_core::model::delivery::Subscription;

/// Dead letters that went because of their bounds since this was last said, whichever host wrote them: of those that ran,
/// and of those that never did.
pub(crate) fn evicted(subscription: &Subscription, ran: u64, never_ran: u64) {
    if ran > 0 {
        tracing::warn!(
            %subscription,
            ran,
            never_ran,
            "dead letters were lost: there are more than host.dead_letters_max or host.dead_letters_bytes_max allows"
        );
    } else {
        tracing::info!(
            %subscription,
            never_ran,
            "dead letters of events that never ran were evicted: they had half of their bounds"
        );
    }
}
