//! What is told of groups: lost, made anew, moved by strangers; and of hosts that want unlike things.

use super::process;
use crate::backend::{Error, Group, IDLE_TIMER_HORIZON, SubscriptionStatus};
use crate::model::delivery::{EntryId, Subscription};

/// It was gone, and this came of making it anew. It is counted once for each time, whichever host does it.
pub fn group_remade(subscription: &Subscription, group: Group) {
    match group {
        // Another host was faster.
        Group::There => {}
        Group::Lost => {}
        Group::New => {
            process().stream_lost.add(&[&subscription.handler, &subscription.stream], 1);
            tracing::error!(%subscription, "stream lost: it has been made anew; what it held is lost");
        }
        Group::Restored => {
            process().stream_lost.add(&[&subscription.handler, &subscription.stream], 1);
            tracing::error!(
                %subscription,
                "group lost: somebody has destroyed it; it goes on where it was, and what was in hand comes once more"
            );
        }
    }
}

/// Nothing is fetched until a person says where to begin.
pub fn position_lost(subscription: &Subscription) {
    process().stream_lost.add(&[&subscription.handler, &subscription.stream], 1);
    let handler = &subscription.handler;
    tracing::error!(
        %subscription,
        "group lost, and where it was is not known well enough: nothing is fetched until somebody says where to begin: \
         `tidemill plugin resume {handler} --from ..` (see docs/guides/rolling-changes.md)"
    );
}

pub fn paused(subscription: &Subscription) {
    tracing::warn!(%subscription, "paused: nothing is fetched until somebody resumes it");
}

pub fn resumed(subscription: &Subscription) {
    tracing::info!(%subscription, "resumed");
}

/// Somebody has moved the group back (XGROUP SETID, or made it anew at another place).
pub fn set_back(subscription: &Subscription, from: EntryId) {
    tracing::warn!(
        %subscription,
        %from,
        "the group was moved back by somebody else: what lies behind comes again, and only what the inbox still \
         remembers (idempotency.window) is told apart"
    );
}

/// What did not add up in the counters, by the hands of others.
pub fn strangers(subscription: &Subscription, strayed: u64, repeated: u64) {
    if strayed > 0 {
        tracing::warn!(
            %subscription,
            count = strayed,
            "entries went with no settlement: somebody else has acknowledged, deleted or trimmed them, or moved the group on"
        );
    }
    if repeated > 0 {
        tracing::warn!(%subscription, count = repeated, "deliveries came once more: the group was lost, or moved back");
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
        "the handler's events do not reach this stream any more: what waits there is kept, and nobody runs it"
    );
}

/// The SQLite file was deleted or replaced: the host ends.
pub fn replaced(error: &Error) {
    tracing::error!(%error, "the backend is another one by now: the host ends");
}

/// What `run --until-idle` waits for, said while it does.
pub fn still_waiting(subscription: &Subscription, status: &SubscriptionStatus) {
    let SubscriptionStatus { lag, pending, redelivery: again, due, far, .. } = status;
    let put_off = due.saturating_sub(*far);
    tracing::info!(%subscription, new = lag + again, in_hand = pending, put_off, "not idle yet");
}

pub fn left_timers(subscription: &Subscription, timers: u64) {
    tracing::warn!(%subscription, timers, "idle but for timers that are more than {IDLE_TIMER_HORIZON:?} away; the next host waits for them");
}

pub fn left_paused(subscription: &Subscription, waiting: u64) {
    tracing::warn!(%subscription, waiting, "idle but for what is paused");
}
