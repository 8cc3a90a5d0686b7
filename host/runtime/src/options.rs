//! What the configuration says to the backend.

use super::consumer::WORKERS_PER_SUBSCRIPTION;
use super::loading::subscriptions;
use tidemill_config::Config;
use tidemill_storage::{ENTRY_FACTS_BYTES, Options};

pub fn backend_options(config: &Config) -> Options {
    Options {
        inbox_window: config.idempotency.window,
        dead_letters_max: config.host.dead_letters_max,
        dead_letters_bytes_max: config.host.dead_letters_bytes_max.as_u64(),
        timers_max: config.host.timers_max,
        timers_bytes: timers_bytes(config),
        payload_bytes_max: config.host.payload_bytes_max.as_u64() as usize,
        fetch_bytes_max: fetch_bytes(config),
    }
}

const TIMER_ENVELOPE_BYTES: u64 = 1024;

/// With the envelope around each timer's data.
fn timers_bytes(config: &Config) -> u64 {
    let all = subscriptions(config);
    let handlers = all.iter().filter_map(|(subscription, _)| config.handlers.get(&*subscription.handler));
    let each = handlers.filter(|of| of.grants.timer).map(|of| of.limits.timer_bytes.as_u64() + TIMER_ENVELOPE_BYTES);
    config.host.timers_max.saturating_mul(each.sum())
}

/// What one worker may fetch at once. Each has one batch in flight at a time, so all together keep within the bound;
/// but each needs room for one event.
fn fetch_bytes(config: &Config) -> usize {
    let workers = WORKERS_PER_SUBSCRIPTION * subscriptions(config).len().max(1);
    let share = config.host.fetch_bytes_max.as_u64() as usize / workers;
    share.max(config.host.payload_bytes_max.as_u64() as usize + ENTRY_FACTS_BYTES)
}
