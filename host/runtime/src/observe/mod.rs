//! Facts. One function for each: it counts, and it logs what a person would want to read. No `info!` stands beside it.
//!
//! `metrics` is the table of what is counted; `meters` measures exactly, for the demo and the benches.

mod groups;
pub(crate) mod letters;
mod life;
pub mod log_text;
pub mod log_writer;
mod meters;
pub mod metrics;
mod recovery;
mod refusals;

use std::time::Duration;

pub use groups::{
    differs, group_remade, left_paused, left_timers, paused, position_lost, replaced, resumed, set_back, still_waiting,
    strangers, unreached,
};
pub use life::{backend_is_back, left_without_leave, no_thread, start_waits, task_trouble};
pub use meters::Meters;
use metrics::process;
use recovery::{HOST_DIED, LOST};
pub use recovery::{quarantined, recovered, running_alone};
pub use refusals::{batch_refused, refused_again, refused_kept, settlement_refused};
use tidemill_core::clock;
use tidemill_core::model::dead_letter::{AttemptRecord, Reason, ReasonClass};
use tidemill_core::model::delivery::{Delivery, Disposition, Subscription};
use tidemill_core::model::outcome::{Crash, Truncation};
use tidemill_core::policy::canary;
use tidemill_sandbox::capability::http::RESULTS as HTTP_RESULTS;
use tidemill_sandbox::capability::http::outbound::SentRequest;
use tidemill_storage::{Error, Finding, Level, Published, Settled, SettlementEntry, Trimmed};

pub(crate) fn host_started(consumer: &str, backend: &str, subscriptions: usize) {
    process().build_info.set(&[env!("CARGO_PKG_VERSION")], 1.0);
    process().host_start_time.set(&[], clock::now_ms() as f64 / 1000.0);
    tracing::info!(consumer, backend, subscriptions, "host started");
}

pub(crate) fn host_stopped(consumer: &str) {
    tracing::info!(consumer, "host stopped");
}

/// What a delivery can come to, as the label `result` says it.
const RESULTS: [&str; 12] = [
    "committed",
    "skipped",
    "retried",
    "dead",
    "quarantined",
    "duplicate",
    "conflict",
    "stale",
    "fenced",
    "full",
    "left",
    "outdated",
];

/// This host begins with a subscription. Its counters stand at 0 from now on: a rate needs a first value, and an alert on what
/// should never happen needs something to look at.
pub(crate) fn subscription_opened(subscription: &Subscription) {
    let (handler, stream, process) = (&*subscription.handler, &*subscription.stream, process());
    RESULTS.iter().for_each(|result| process.deliveries.add(&[handler, stream, result], 0));
    ReasonClass::ALL.iter().for_each(|class| process.dead_letters.add(&[handler, stream, class.as_str()], 0));
    for cause in [LOST, HOST_DIED] {
        process.recovered.add(&[handler, stream, cause], 0);
    }
    let limits = Crash::ALL.iter().filter(|crash| crash.is_limit()).map(|crash| crash.as_str());
    for limit in limits.chain(Truncation::ALL.iter().map(|cut| cut.as_str())) {
        process.limits_reached.add(&[handler, limit], 0);
    }
    process.stream_lost.add(&[handler, stream], 0);
    process.settlements_refused.add(&[handler, stream], 0);
    process.refused_kept.set(&[handler, stream], 0.0);
    process.breaker_opened.add(&[handler], 0);
    CANARY_ENDS.iter().for_each(|end| process.canary_ended.add(&[handler, end], 0));
    process.canary_share.set(&[handler], 0.0);
}

/// Events were given to a stream, and this became of each of them.
pub fn published(stream: &str, answers: &[Published], took: Duration) {
    let mut counts = Counts::default();
    for answer in answers {
        counts.add(match answer {
            Published::Added(_) => "added",
            Published::Duplicate => "duplicate",
            Published::Conflict => "conflict",
        });
    }
    counts.each(|result, count| process().published.add(&[stream, result], count));
    process().publish_seconds.saw(&[stream], took);
}

/// An event was not even tried to be published. Most of those have no stream, so the label is empty for all.
pub(crate) fn publish_refused() {
    process().published.add(&["", "refused"], 1);
}

/// The backend failed to take these events. Some of them may be there all the same: the caller publishes them again.
pub(crate) fn publish_failed(stream: &str, events: usize) {
    process().published.add(&[stream, "failed"], events as u64);
    process().store_errors.add(&["publishing"], 1);
}

pub fn fetched(subscription: &Subscription, count: usize, took: Duration) {
    // An empty answer says how long the host was ready to wait, and nothing of the backend.
    if count > 0 {
        process().fetch_seconds.saw(&[&subscription.handler, &subscription.stream], took);
    }
}

pub(crate) fn looked_up(subscription: &Subscription, took: Duration) {
    process().look_up_seconds.saw(&[&subscription.handler, &subscription.stream], took);
}

/// The plugin was called once for each of these.
pub fn called(meters: &Meters, subscription: &Subscription, took: impl Iterator<Item = Duration> + Clone) {
    let histogram = process().call_seconds.with(&[&subscription.handler, &subscription.stream]);
    took.clone().for_each(|took| histogram.observe(took.as_secs_f64()));
    Meters::record(&meters.call_us, took);
}

/// Limits that attempts reached: those that stopped the plugin, and those beyond which something was left out.
pub(crate) fn limits_reached<'a>(subscription: &Subscription, limits: impl Iterator<Item = &'a str>) {
    let mut counts = Counts::default();
    limits.for_each(|limit| counts.add(limit));
    counts.each(|limit, count| process().limits_reached.add(&[&subscription.handler, limit], count));
}

/// A plugin's requests to others.
pub fn requested<'a>(handler: &str, sent: impl Iterator<Item = &'a SentRequest>) {
    for SentRequest { result, took } in sent {
        process().http_requests.add(&[handler, result], 1);
        process().http_request_seconds.saw(&[handler], *took);
    }
}

/// This host begins with a handler that may make requests: their counters stand at 0 from now on.
pub(crate) fn may_request(handler: &str) {
    HTTP_RESULTS.iter().for_each(|result| process().http_requests.add(&[handler, result], 0));
}

pub(crate) fn batch_done(meters: &Meters, subscription: &Subscription, took: Duration) {
    process().batch_seconds.saw(&[&subscription.handler, &subscription.stream], took);
    Meters::record(&meters.batch_us, std::iter::once(took));
}

/// The backend has settled a batch: what was decided for each entry, and what became of it.
pub fn settled(meters: &Meters, subscription: &Subscription, settled: &[(SettlementEntry, Settled)], took: Duration) {
    tracing::debug!(%subscription, entries = settled.len(), "settled");
    let (mut by_result, mut by_reason, mut by_class) = (Counts::default(), Counts::default(), Counts::default());
    for (entry, result) in settled {
        by_result.add(name_of(*result, &entry.disposition));
        match (result, &entry.disposition) {
            (Settled::Retried, Disposition::Retry { after, record }) => {
                by_class.add(&record.class);
                retried(subscription, &entry.delivery, *after, record);
            }
            (Settled::Dead, Disposition::DeadLetter { reason, record }) => {
                by_reason.add(reason.class.as_str());
                record.iter().for_each(|record| by_class.add(&record.class));
                dead_lettered(subscription, &entry.delivery, reason);
            }
            _ => {}
        }
    }
    let (handler, stream, process) = (&*subscription.handler, &*subscription.stream, process());
    by_result.each(|result, count| {
        process.deliveries.add(&[handler, stream, result], count);
        match result {
            "fenced" => tracing::warn!(%subscription, count, "fenced: another host has reclaimed these deliveries"),
            "full" => tracing::warn!(%subscription, count, "full: the limit of timers is reached (host.timers_max)"),
            "stale" | "duplicate" => tracing::debug!(%subscription, count, result, "settled without effects"),
            _ => {}
        }
    });
    by_reason.each(|reason, count| process.dead_letters.add(&[handler, stream, reason], count));
    by_class.each(|class, count| process.attempts_failed.add(&[handler, stream, class], count));
    process.settle_seconds.saw(&[handler, stream], took);
    Meters::record(&meters.settle_us, std::iter::once(took));
}

/// One of [`RESULTS`]. A duplicate is one, whether the look-up or the settlement has found it.
fn name_of(result: Settled, disposition: &Disposition) -> &'static str {
    match result {
        Settled::Skipped if matches!(disposition, Disposition::Skip { duplicate: true }) => "duplicate",
        Settled::Committed => "committed",
        Settled::Skipped => "skipped",
        Settled::Retried => "retried",
        Settled::Dead => "dead",
        Settled::Quarantined => "quarantined",
        Settled::Duplicate => "duplicate",
        Settled::Conflict => "conflict",
        Settled::Stale => "stale",
        Settled::Fenced => "fenced",
        Settled::Full => "full",
        Settled::Left => "left",
        Settled::Outdated => "outdated",
    }
}

fn retried(subscription: &Subscription, delivery: &Delivery, after: Duration, record: &AttemptRecord) {
    let AttemptRecord { attempt, class, reason, .. } = record;
    let reason = logged(reason);
    tracing::info!(%subscription, entry = %delivery.entry, attempt, ?after, class, reason, "will be tried again");
}

fn dead_lettered(subscription: &Subscription, delivery: &Delivery, reason: &Reason) {
    let (class, reason) = (reason.class, logged(&reason.text));
    tracing::warn!(%subscription, entry = %delivery.entry, %class, reason, "dead letter");
}

/// What the log has of a reason, in bytes: the whole of it is in the record.
const LOGGED_REASON_BYTES: usize = 1024;

fn logged(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(LOGGED_REASON_BYTES)]
}

/// How many deliveries of a subscription this process has committed since it began.
pub fn committed(subscription: &Subscription) -> u64 {
    process().deliveries.with(&[&subscription.handler, &subscription.stream, "committed"]).get()
}

pub fn released(count: u64) {
    tracing::info!(count, "released in-flight deliveries for other consumers");
}

pub(crate) fn backend_trouble(doing: &str, subscription: &Subscription, error: &Error, retry_in: Duration) {
    process().store_errors.add(&[doing], 1);
    tracing::warn!(%subscription, %error, ?retry_in, "backend error while {doing}; trying again");
}

pub fn breaker_changed(handler: &str, state: &str) {
    breaker_is(handler, state);
    if state == "open" {
        process().breaker_opened.add(&[handler], 1);
    }
    tracing::warn!(handler, state, "circuit breaker");
}

/// Another version of a plugin serves: `loaded`, `rolled-back`.
pub fn reloaded(handler: &str, digest: &str, generation: u64, result: &str, took: Duration) {
    process().plugin_reloads.add(&[handler, result], 1);
    process().plugin_reload_seconds.saw(&[handler], took);
    plugin_generation(handler, generation);
    tracing::info!(handler, digest, generation, result, ?took, "another version of the plugin serves");
}

pub(crate) fn plugin_generation(handler: &str, generation: u64) {
    process().plugin_generation.set(&[handler], generation as f64);
}

pub(crate) fn reload_unneeded(handler: &str, digest: &str) {
    process().plugin_reloads.add(&[handler, "same"], 1);
    tracing::info!(handler, digest, "the plugin's file holds the version that serves");
}

pub(crate) fn reload_refused(handler: &str, reason: &str) {
    process().plugin_reloads.add(&[handler, "refused"], 1);
    tracing::error!(handler, reason, "plugin reload rejected, keeping the previous version");
}

pub(crate) fn settings_generation(generation: u64) {
    process().settings_generation.set(&[], generation as f64);
}

pub(crate) fn settings_taken(generation: u64) {
    process().settings_reloads.add(&["taken"], 1);
    tracing::info!(generation, "configuration reloaded");
}

pub fn settings_refused(reason: &str) {
    process().settings_reloads.add(&["refused"], 1);
    tracing::error!(reason, "configuration reload rejected, keeping the previous configuration");
}

/// Looked at with each heartbeat: a breaker becomes half-open by time alone.
pub(crate) fn breaker_is(handler: &str, state: &str) {
    let number = match state {
        "closed" => 0.0,
        "half-open" => 1.0,
        _ => 2.0,
    };
    process().breaker_state.set(&[handler], number);
}

/// What can become of a canary, as the label `result` says it.
const CANARY_ENDS: [&str; 4] = ["promoted", "failing", "slow", "replaced"];

/// A new version begins to serve some of the keys.
pub(crate) fn canary_began(handler: &str, plugin: &str, share: f64) {
    process().canary_share.set(&[handler], share);
    tracing::info!(handler, plugin, share, "canary: the new version serves a share of the keys");
}

/// First tries of a canary in one batch.
pub fn canary_served(handler: &str, good: u32, bad: u32) {
    process().canary_events.add(&[handler, "good"], u64::from(good));
    process().canary_events.add(&[handler, "bad"], u64::from(bad));
}

pub(crate) fn canary_promoted(handler: &str, plugin: &str, generation: u64, facts: &canary::CanarySnapshot) {
    canary_ended(handler, "promoted");
    plugin_generation(handler, generation);
    let canary::CanarySnapshot { age, stable, canary } = facts;
    tracing::info!(handler, plugin, generation, ?age, %canary, %stable, "canary promoted: the new version serves everything");
}

pub(crate) fn canary_rolled_back(
    handler: &str,
    plugin: &str,
    reason: canary::RollbackReason,
    facts: &canary::CanarySnapshot,
) {
    let reason = match reason {
        canary::RollbackReason::Failing => "failing",
        canary::RollbackReason::Slow => "slow",
    };
    canary_ended(handler, reason);
    let canary::CanarySnapshot { age, stable, canary } = facts;
    tracing::error!(handler, plugin, reason, ?age, %canary, %stable, "canary rolled back: the stable version serves everything");
}

/// Another version came before it was judged.
pub(crate) fn canary_replaced(handler: &str, plugin: &str) {
    canary_ended(handler, "replaced");
    tracing::info!(handler, plugin, "canary replaced by another version before it was judged");
}

fn canary_ended(handler: &str, result: &str) {
    process().canary_ended.add(&[handler, result], 1);
    process().canary_share.set(&[handler], 0.0);
}

pub fn trimmed(stream: &str, trimmed: &Trimmed) {
    let process = process();
    process.trimmed.add(&[stream], trimmed.removed);
    process.trimmed_unfinished.add(&[stream], trimmed.lost);
    process.stream_length.set(&[stream], trimmed.length as f64);
    process.retention_effective.set(&[stream], trimmed.oldest_age.unwrap_or_default().as_secs_f64());
    if trimmed.lost > 0 {
        tracing::warn!(
            stream,
            count = trimmed.lost,
            "trimmed entries that a group had not finished: they are lost to it"
        );
    }
    tracing::debug!(stream, count = trimmed.removed, "trimmed");
}

pub(crate) fn stream_held(stream: &str, held: u64) {
    tracing::warn!(
        stream,
        held,
        "the stream is {held} entries over its bounds because handler groups have not finished them"
    );
}

pub(crate) fn retention_short(stream: &str, asked: Duration, effective: Duration) {
    tracing::warn!(
        stream,
        ?asked,
        ?effective,
        "maxlen cuts the retention short: the oldest entry is younger than asked"
    );
}

/// What the janitor's check of the backend has found.
pub fn examined(finding: &Finding) {
    let Finding { level, check, text, hint } = finding;
    match level {
        Level::Good => tracing::debug!(check, "{text}"),
        Level::Warning => tracing::warn!(check, hint, "{text}"),
        Level::Bad => tracing::error!(check, hint, "{text}"),
    }
}

/// A few names, and how often each of them came: a metric is looked for once for all of a batch.
#[derive(Default)]
struct Counts<'a>(Vec<(&'a str, u64)>);

impl<'a> Counts<'a> {
    fn add(&mut self, name: &'a str) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => self.0.push((name, 1)),
        }
    }

    fn each(self, mut then: impl FnMut(&str, u64)) {
        self.0.into_iter().for_each(|(name, count)| then(name, count));
    }
}

#[cfg(test)]
mod tests;
