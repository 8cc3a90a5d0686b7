//! Facts about groups: lost, recreated, moved by other programs; and about hosts with unlike settings.

use super::metrics::process;
use tidemill_core::model::delivery::{EntryId, Subscription};
use tidemill_storage::{Error, Group, IDLE_TIMER_HORIZON, SubscriptionStatus};

/// It was gone, and this came of recreating it. It is counted once for each time, whichever host does it.
pub fn group_remade(subscription: &Subscription, group: Group) {
    match group {
        // Another host was faster.
        Group::There => {}
        Group::Lost => {}
        Group::New => {
            process().stream_lost.add(&[&subscription.handler, &subscription.stream], 1);
            tracing::error!(%subscription, "stream lost: it was recreated; the entries it held are lost");
        }
        Group::Restored => {
            process().stream_lost.add(&[&subscription.handler, &subscription.stream], 1);
            tracing::error!(
                %subscription,
                "group lost: it was destroyed; it resumes at its last position, in-flight deliveries are redelivered"
            );
        }
    }
}

/// Nothing is fetched until an operator says where to begin.
pub fn position_lost(subscription: &Subscription) {
    process().stream_lost.add(&[&subscription.handler, &subscription.stream], 1);
    let handler = &subscription.handler;
    tracing::error!(
        %subscription,
        "group lost, and its position is not known well enough: nothing is fetched until you say where to begin: \
         `tidemill plugin resume {handler} --from ..` (see docs/guides/rolling-changes.md)"
    );
}

pub fn paused(subscription: &Subscription) {
    tracing::warn!(%subscription, "paused: nothing is fetched until it is resumed");
}

pub fn resumed(subscription: &Subscription) {
    tracing::info!(%subscription, "resumed");
}

/// Another program has moved the group back (XGROUP SETID, or recreated it at another place).
pub fn set_back(subscription: &Subscription, from: EntryId) {
    tracing::warn!(
        %subscription,
        %from,
        "the group was moved back by another program: later entries are redelivered, and only those that the inbox \
         still remembers (idempotency.window) are known as duplicates"
    );
}

/// What other programs have changed, by the counters.
pub fn strangers(subscription: &Subscription, strayed: u64, repeated: u64) {
    if strayed > 0 {
        tracing::warn!(
            %subscription,
            count = strayed,
            "entries went with no settlement: another program has acknowledged, deleted or trimmed them, or moved the \
             group on"
        );
    }
    if repeated > 0 {
        tracing::warn!(%subscription, count = repeated, "deliveries repeated: the group was lost, or moved back");
    }
}

/// Hosts that serve one handler have unlike settings.
pub fn differs(subscription: &Subscription, what: &str, theirs: &str, ours: &str) {
    tracing::warn!(%subscription, what, theirs, ours, "another host has other settings for this handler");
}

/// Something of a handler lies on a stream that it does not read any more.
pub fn unreached(subscription: &Subscription, status: &SubscriptionStatus) {
    let (waiting, unread, dead) = (status.waiting() - status.lag, status.lag, status.dead);
    tracing::warn!(
        %subscription,
        waiting,
        unread,
        dead,
        "the handler's events do not reach this stream any more: what waits there is kept, and no host runs it"
    );
}

/// The SQLite file was deleted or replaced: the host ends.
pub fn replaced(error: &Error) {
    tracing::error!(%error, "the backend was replaced: the host ends");
}

/// What `run --until-idle` waits for, said while it does.
pub fn still_waiting(subscription: &Subscription, status: &SubscriptionStatus) {
    let SubscriptionStatus { lag, pending, redelivery, due, far, .. } = status;
    let delayed = due.saturating_sub(*far);
    tracing::info!(%subscription, new = lag + redelivery, in_flight = pending, delayed, "not idle yet");
}

pub fn left_timers(subscription: &Subscription, timers: u64) {
    tracing::warn!(%subscription, timers, "idle but for timers that are more than {IDLE_TIMER_HORIZON:?} away; the next host waits for them");
}

pub fn left_paused(subscription: &Subscription, waiting: u64) {
    tracing::warn!(%subscription, waiting, "idle but for what is paused");
}
