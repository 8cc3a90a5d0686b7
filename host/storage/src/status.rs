//! The counters of a subscription.

use std::time::Duration;

/// `run --until-idle` does not wait for timers that are further away than this.
pub const IDLE_TIMER_HORIZON: Duration = Duration::from_secs(60);

/// Counters of one subscription. They balance: `published + timers + repeated = committed + skipped + dead + dropped +
/// strayed + waiting`, where waiting is `lag + pending + due + redelivery`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Entries of the stream since the group's start.
    pub published: u64,
    /// Timers that were set: deliveries without a published entry.
    pub timers: u64,
    pub committed: u64,
    /// Acked without effects: not wanted, or a duplicate.
    pub skipped: u64,
    /// Of those skipped: duplicates.
    pub duplicates: u64,
    /// Times that a delivery was scheduled for a retry.
    pub retried: u64,
    /// Dead letters that are kept now.
    pub dead: u64,
    /// Of those dead: letters that never ran, see [`Options::dead_letters_max`](crate::Options::dead_letters_max).
    pub dead_unrun: u64,
    /// The bytes of those dead: body, reason and history. On Redis, letters of an older version are counted once the
    /// next letters have come.
    pub dead_bytes: u64,
    /// Dead letters that a person dropped or that the bounds evicted, and entries that were trimmed unread
    /// (`Overflow::Drop`).
    pub dropped: u64,
    /// Of those dropped: letters that the bounds evicted, those that ran and those that did not.
    pub evicted_ran: u64,
    pub evicted_unrun: u64,
    /// Entries that another program removed without settlement; known once all is fetched.
    pub strayed: u64,
    /// Deliveries that came twice: another program moved the group back, or it had been lost.
    pub repeated: u64,
    /// Not fetched yet.
    pub lag: u64,
    /// In flight (both queues).
    pub pending: u64,
    /// Waiting for their time: retries and timers.
    pub due: u64,
    /// Of those due: timers whose time is further away than [`IDLE_TIMER_HORIZON`].
    pub far: u64,
    /// Due again, not yet fetched.
    pub redelivery: u64,
    /// Of those pending: quarantined because hosts crashed with them, to be run in isolation.
    pub quarantined: u64,
    /// Of those pending: left for hosts that want them.
    pub left: u64,
    /// Age of the oldest pending delivery, since its entry was added to its queue.
    pub oldest_pending_age: Option<Duration>,
    /// Settlements that broke off half way. Has to be 0; a backend with transactions has none.
    pub torn: u64,
    /// Consumers of the group, dead ones included. On SQLite: those that are live or have pending deliveries.
    pub consumers: u64,
    /// Age of the oldest entry that waits in `lag` or `pending`.
    pub oldest_age: Option<Duration>,
}

impl SubscriptionStatus {
    pub fn waiting(&self) -> u64 {
        self.lag + self.pending + self.due + self.redelivery
    }

    pub fn balances(&self) -> bool {
        let gone = self.committed + self.skipped + self.dead + self.dropped + self.strayed;
        self.published + self.timers + self.repeated == gone + self.waiting()
    }
}
