//! Facts. One function for each: it counts, and it logs what a person would want to read. No `info!` stands beside it.

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::backend::{Error, Settled};
use crate::model::dead_letter::Reason;
use crate::model::delivery::{Delivery, Source};

/// Durations are kept with two significant digits, up to ten minutes.
const TOP_US: u64 = 600_000_000;

/// What this process has measured since it began.
pub struct Meters {
    /// One call into a guest.
    pub call_us: Mutex<Histogram<u64>>,
    /// One batch, from fetched to settled.
    pub batch_us: Mutex<Histogram<u64>>,
    /// One settlement, the backend's part alone.
    pub settle_us: Mutex<Histogram<u64>>,
}

impl Default for Meters {
    fn default() -> Self {
        // The bounds are constants that the histogram accepts.
        let histogram = || Mutex::new(Histogram::new_with_max(TOP_US, 2).expect("valid bounds"));
        Self { call_us: histogram(), batch_us: histogram(), settle_us: histogram() }
    }
}

impl Meters {
    pub fn record(meter: &Mutex<Histogram<u64>>, took: impl Iterator<Item = Duration>) {
        if let Ok(mut histogram) = meter.lock() {
            for took in took {
                histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(TOP_US).min(TOP_US));
            }
        }
    }

    /// The value in microseconds that this share of the measurements stays below; 0 if there are none.
    pub fn quantile(meter: &Mutex<Histogram<u64>>, quantile: f64) -> u64 {
        meter.lock().map_or(0, |histogram| histogram.value_at_quantile(quantile))
    }
}

pub fn host_started(consumer: &str, backend: &str, sources: usize) {
    tracing::info!(consumer, backend, sources, "host started");
}

pub fn host_stopped(consumer: &str) {
    tracing::info!(consumer, "host stopped");
}

pub fn settled(source: &Source, results: &[Settled]) {
    tracing::debug!(%source, entries = results.len(), "settled");
    for (what, level_warn) in [(Settled::Fenced, true), (Settled::Stale, false), (Settled::Duplicate, false)] {
        let count = results.iter().filter(|result| **result == what).count();
        match (count, level_warn) {
            (0, _) => {}
            (_, true) => tracing::warn!(%source, count, "fenced: another host has taken these deliveries over"),
            (_, false) => tracing::debug!(%source, count, ?what, "settled without effects"),
        }
    }
}

pub fn retried(source: &Source, delivery: &Delivery, after: Duration, class: &str, reason: &str) {
    tracing::info!(%source, entry = %delivery.entry, attempt = delivery.attempts + 1, ?after, class, reason, "will be tried again");
}

pub fn dead_lettered(source: &Source, delivery: &Delivery, reason: &Reason) {
    tracing::warn!(%source, entry = %delivery.entry, class = %reason.class, reason = %reason.text, "dead letter");
}

pub fn recovered(source: &Source, count: usize) {
    tracing::info!(%source, count, "recovered deliveries that nobody held any more");
}

pub fn group_remade(source: &Source) {
    tracing::error!(%source, "stream lost: the stream or its group was gone and has been made anew; what it held is lost");
}

pub fn backend_trouble(doing: &str, source: &Source, error: &Error, retry_in: Duration) {
    tracing::warn!(%source, %error, ?retry_in, "backend trouble while {doing}; nothing is lost, trying again");
}

pub fn task_trouble(task: &str, error: &Error) {
    tracing::warn!(task, %error, "backend trouble");
}

pub fn breaker_changed(handler: &str, state: &str) {
    tracing::warn!(handler, state, "circuit breaker");
}

pub fn trimmed(stream: &str, count: u64) {
    tracing::debug!(stream, count, "trimmed");
}

pub fn paused(source: &Source) {
    tracing::warn!(%source, "paused: nothing is fetched until somebody resumes it");
}

pub fn resumed(source: &Source) {
    tracing::info!(%source, "resumed");
}

pub fn left_paused(source: &Source, waiting: u64) {
    tracing::warn!(%source, waiting, "idle but for what is paused");
}
