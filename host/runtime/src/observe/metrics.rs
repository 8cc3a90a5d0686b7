//! The metrics: each one is a row of a table here, and nothing is counted that has none. `docs/guides/metrics.md` shows
//! the same rows, and a test compares them.
//!
//! Labels come from the configuration (handlers, streams) or are words of this program, so there is a bound to them.
//! Never from an event.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::TypedMetric;
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::log_writer;
use tidemill_process::tasks::panics;

pub type Gauge = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;

/// Upper bounds of the buckets of every histogram, in seconds: from a plugin that adds two numbers to the longest
/// deadline, in steps of about 2.
const BUCKETS_S: [f64; 22] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// What a metric is called, and what it says.
#[derive(Debug, Clone, Copy)]
pub struct MetricRow {
    /// As it stands in the answer of `/metrics`; a histogram's lines have `_bucket`, `_sum` and `_count` behind it.
    pub name: &'static str,
    /// `Counter`, `Gauge`, `Histogram`.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub says: &'static str,
}

/// What can stand in a row: how it begins.
pub trait Kind: EncodeMetric + TypedMetric + Clone + Debug + Send + Sync + 'static {
    fn new() -> Self;
}

impl Kind for Counter {
    fn new() -> Self {
        Self::default()
    }
}

impl Kind for Gauge {
    fn new() -> Self {
        Self::default()
    }
}

impl Kind for Histogram {
    fn new() -> Self {
        Self::new(BUCKETS_S)
    }
}

type Labels = Vec<(&'static str, String)>;

/// One row's metrics, by the values of its labels.
pub struct Of<M: Kind> {
    family: Family<Labels, M, fn() -> M>,
    labels: &'static [&'static str],
}

impl<M: Kind> Of<M> {
    fn register(registry: &mut Registry, row: &MetricRow) -> Self {
        let family = Family::new_with_constructor(M::new as fn() -> M);
        // The library adds what a counter's name ends with.
        registry.register(row.name.trim_end_matches("_total"), row.says, family.clone());
        Self { family, labels: row.labels }
    }

    /// The metric with these values, in the order of the row's labels. To be asked once a batch, not once an event: it
    /// writes the values down to look for them.
    pub fn with(&self, values: &[&str]) -> M {
        debug_assert_eq!(values.len(), self.labels.len(), "a value for each of the labels {:?}", self.labels);
        let labels: Labels =
            self.labels.iter().zip(values).map(|(label, value)| (*label, (*value).to_owned())).collect();
        self.family.get_or_create_owned(&labels)
    }
}

impl Of<Counter> {
    pub fn add(&self, values: &[&str], count: u64) {
        self.with(values).inc_by(count);
    }
}

impl Of<Gauge> {
    pub fn set(&self, values: &[&str], number: f64) {
        self.with(values).set(number);
    }
}

impl Of<Histogram> {
    pub(crate) fn saw(&self, values: &[&str], took: Duration) {
        self.with(values).observe(took.as_secs_f64());
    }
}

macro_rules! metrics {
    ($(#[$doc:meta])* $table:ident $rows:ident $($field:ident: $kind:ident $name:literal [$($label:ident)*] $says:literal)*) => {
        pub const $rows: &[MetricRow] = &[$(
            MetricRow { name: $name, kind: stringify!($kind), labels: &[$(stringify!($label)),*], says: $says }
        ),*];

        $(#[$doc])*
        pub struct $table {
            $(pub $field: Of<$kind>,)*
        }

        impl $table {
            pub(crate) fn register(registry: &mut Registry) -> Self {
                let mut rows = $rows.iter();
                let mut row = || rows.next().expect("there is a row for each field: both come from one list");
                Self { $($field: Of::register(registry, row()),)* }
            }
        }
    };
}

metrics! {
    /// What this process has counted and measured.
    Process PROCESS_ROWS

    published: Counter "tidemill_published_total" [stream result] "Events given to this process to be published"
    publish_seconds: Histogram "tidemill_publish_seconds" [stream] "Time for one call that publishes a batch"
    deliveries: Counter "tidemill_deliveries_total" [handler stream result] "Deliveries settled, by what became of them"
    dead_letters: Counter "tidemill_dead_letters_total" [handler stream reason] "Dead letters written, by reason"
    attempts_failed: Counter "tidemill_attempts_failed_total" [handler stream class] "Attempts that failed, by how they ended"
    limits_reached: Counter "tidemill_limits_reached_total" [handler limit] "Attempts that reached a limit, by limit; some are stopped by it, of others something is left out"
    recovered: Counter "tidemill_recovered_total" [handler stream cause] "Orphaned deliveries that were reclaimed, by cause"
    call_seconds: Histogram "tidemill_call_seconds" [handler stream] "Time for one call of a plugin"
    batch_seconds: Histogram "tidemill_batch_seconds" [handler stream] "Time for one batch, from fetched to settled"
    fetch_seconds: Histogram "tidemill_fetch_seconds" [handler stream] "Time for one fetch that found something, with its wait for the first entry"
    look_up_seconds: Histogram "tidemill_look_up_seconds" [handler stream] "Time for one query of inbox and state"
    settle_seconds: Histogram "tidemill_settle_seconds" [handler stream] "Time for one settlement, resending included"
    store_errors: Counter "tidemill_store_errors_total" [doing] "Calls that the backend failed"
    settlements_refused: Counter "tidemill_settlements_refused_total" [handler stream] "Deliveries that the backend refused to settle"
    refused_kept: Gauge "tidemill_refused_kept" [handler stream] "Deliveries that this host keeps because the backend refuses to settle them"
    stream_lost: Counter "tidemill_stream_lost_total" [handler stream] "Times that a stream or its group was gone and was recreated"
    http_requests: Counter "tidemill_http_requests_total" [handler result] "HTTP requests of plugins, by what came of them"
    http_request_seconds: Histogram "tidemill_http_request_seconds" [handler] "Time for one request of a plugin, to the end of its answer"
    breaker_state: Gauge "tidemill_breaker_state" [handler] "Circuit breaker: 0 closed, 1 half-open, 2 open"
    breaker_opened: Counter "tidemill_breaker_opened_total" [handler] "Times that the circuit breaker opened"
    canary_share: Gauge "tidemill_canary_share" [handler] "Share of the keys that a canary serves; 0 while there is none"
    canary_events: Counter "tidemill_canary_events_total" [handler result] "First tries of canaries, by how they ended"
    canary_ended: Counter "tidemill_canary_ended_total" [handler result] "Canaries that ended, by what became of them"
    trimmed: Counter "tidemill_trimmed_total" [stream] "Entries trimmed by this host's janitor"
    trimmed_unfinished: Counter "tidemill_trimmed_unfinished_total" [stream] "Of those trimmed: entries that a group had not finished"
    stream_length: Gauge "tidemill_stream_length" [stream] "Entries on the stream, as this host's janitor last saw it"
    retention_effective: Gauge "tidemill_retention_effective_seconds" [stream] "Age of the oldest entry on the stream, as this host's janitor last saw it"
    plugin_reloads: Counter "tidemill_plugin_reloads_total" [handler result] "Times that another version of a plugin was tried, by what came of it"
    plugin_reload_seconds: Histogram "tidemill_plugin_reload_seconds" [handler] "Time from the begin of a reload until the new version served"
    plugin_generation: Gauge "tidemill_plugin_generation" [handler] "How many versions have served the handler since this host began"
    settings_reloads: Counter "tidemill_settings_reloads_total" [result] "Reloads of the configuration, by what came of it"
    settings_generation: Gauge "tidemill_settings_generation" [] "How many configurations have been active since this host began"
    panics: Counter "tidemill_panics_total" [task] "Panics of this process, by the task or thread that they happened in"
    log_lines_lost: Counter "tidemill_log_lines_lost_total" [cause] "Log lines that could not be written, or for which there was no room"
    build_info: Gauge "tidemill_build_info" [version] "Always 1; the version is in the label"
    host_start_time: Gauge "tidemill_host_start_time_seconds" [] "Unix time at which this process began"
}

metrics! {
    /// What the backend reports when `/metrics` is scraped; for all hosts together.
    Backend BACKEND_ROWS

    up: Gauge "tidemill_backend_up" [] "1 if the backend answered this scrape, else 0"
    size: Gauge "tidemill_backend_size_bytes" [] "Size of the backend: memory used by Redis, pages of the SQLite file"
    hosts: Gauge "tidemill_hosts" [] "Live hosts"
    entries: Counter "tidemill_entries_total" [handler stream counter] "The counters: entries by what became of them, over all hosts and restarts"
    lag: Gauge "tidemill_lag" [handler stream] "Entries not yet fetched"
    pending: Gauge "tidemill_pending" [handler stream] "In-flight (pending) deliveries"
    due: Gauge "tidemill_due" [handler stream] "Scheduled retries and timers, not yet due"
    redelivery: Gauge "tidemill_redelivery" [handler stream] "Retries and timers that are due and replayed dead letters, not yet fetched"
    dead: Gauge "tidemill_dead" [handler stream] "Dead letters stored now"
    dead_unrun: Gauge "tidemill_dead_unrun" [handler stream] "Of those dead: letters of events that no plugin was given"
    dead_bytes: Gauge "tidemill_dead_bytes" [handler stream] "Bytes of the dead letters stored now"
    dead_evicted: Counter "tidemill_dead_evicted_total" [handler stream ran] "Dead letters evicted because of their bounds, by whether their event had run"
    quarantined: Gauge "tidemill_quarantined" [handler stream] "Of those pending: set aside because hosts crashed on them"
    left: Gauge "tidemill_left" [handler stream] "Of those pending: left for hosts with other events that want them"
    oldest_unprocessed: Gauge "tidemill_oldest_unprocessed_age_seconds" [handler stream] "Age of the oldest entry that is not settled; 0 if there is none"
    oldest_pending: Gauge "tidemill_oldest_pending_age_seconds" [handler stream] "Age of the oldest in-flight entry; 0 if there is none"
    consumers: Gauge "tidemill_consumers" [handler stream] "Consumers that the group knows"
    torn: Gauge "tidemill_torn" [handler stream] "Settlements that broke off half way: has to be 0"
    balanced: Gauge "tidemill_counters_balanced" [handler stream] "1 if every entry published is in exactly one place, else 0"
    paused: Gauge "tidemill_paused" [handler stream] "1 while an operator has paused it, else 0"
    position_lost: Gauge "tidemill_position_lost" [handler stream] "1 while nothing is fetched because the group was lost and its position is unknown, else 0"
}

struct Counted {
    registry: Registry,
    metrics: Process,
}

/// One for the process. Tests and benches run several hosts in one: their counts add up.
static COUNTED: LazyLock<Counted> = LazyLock::new(|| {
    let mut registry = Registry::default();
    let metrics = Process::register(&mut registry);
    Counted { registry, metrics }
});

pub(super) fn process() -> &'static Process {
    &COUNTED.metrics
}

/// What is counted where no metric may be reached: in a panic, and by the log writer.
fn fill_own() {
    let set = |counter: Counter, count| counter.inner().store(count, std::sync::atomic::Ordering::Relaxed);
    panics().for_each(|(task, count)| set(process().panics.with(&[task]), count));
    log_writer::lost().into_iter().for_each(|(cause, count)| set(process().log_lines_lost.with(&[cause]), count));
}

/// All metrics in OpenMetrics text. `fill` writes down what the backend reports at this moment.
pub fn render(fill: impl FnOnce(&Backend)) -> String {
    fill_own();
    let mut registry = Registry::default();
    fill(&Backend::register(&mut registry));
    let mut text = String::new();
    let written = encode_registry(&mut text, &COUNTED.registry)
        .and_then(|()| encode_registry(&mut text, &registry))
        .and_then(|()| encode_eof(&mut text));
    written.expect("writing to a String does not fail");
    text
}
