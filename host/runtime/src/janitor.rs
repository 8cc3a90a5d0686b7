//! The janitor: keeps streams within their bounds, and looks once in a while whether the backend is still what it has
//! to be. It reports what leaks, and dead letters that their bounds have cost; nothing but entries that are over the
//! bounds is ever removed here. (Dead consumers go while their deliveries are recovered.)

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::observe;
use super::shutdown::Shutdown;
use tidemill_core::model::delivery::Subscription;
use tidemill_process::fault;
use tidemill_process::tasks;
use tidemill_storage::{Backend, Bounds, Error, Level, SubscriptionStatus, Trimmed};

const TRIM_EVERY: Duration = Duration::from_secs(10);
/// The same warning about a stream comes at most this often.
const WARN_EVERY: Duration = Duration::from_secs(600);
/// How often dead letters that are lost are looked for. They are reported together.
const LETTERS_EVERY: Duration = Duration::from_secs(60);
const EXAMINE_EVERY: Duration = Duration::from_secs(3600);
/// The first look. Not at once: what a host needs to start was looked at when it opened the backend.
const EXAMINE_FIRST: Duration = Duration::from_secs(60);
/// What of an examination is said while the host runs: what may have changed since it began, or fills the memory.
/// The rest is for `doctor`.
const WATCHED: [&str; 6] = ["eviction", "file modes", "groups", "persistence", "stream ids", "streams"];

/// A stream with its bounds.
pub(crate) struct StreamBounds {
    pub name: String,
    pub bounds: Bounds,
}

/// What the janitor looks after.
pub(crate) struct Janitor {
    pub backend: Arc<dyn Backend>,
    pub subscriptions: Vec<Subscription>,
    pub streams: Vec<StreamBounds>,
    /// The streams that handlers may emit to.
    pub targets: Vec<Arc<str>>,
}

pub(crate) async fn run(janitor: Arc<Janitor>, mut shutdown: Shutdown) {
    let mut warned: Vec<Option<Instant>> = vec![None; janitor.streams.len()];
    let mut examine_at = Instant::now() + EXAMINE_FIRST;
    let (mut letters_at, mut evicted) = (Instant::now(), Evicted::new());
    loop {
        tasks::tick();
        for (stream, warned) in janitor.streams.iter().zip(&mut warned) {
            trim(&*janitor.backend, stream, warned).await;
        }
        if Instant::now() >= letters_at {
            letters_at = Instant::now() + LETTERS_EVERY;
            look_at_letters(&janitor, &mut evicted).await;
        }
        if Instant::now() >= examine_at {
            examine_at = Instant::now() + EXAMINE_EVERY;
            diagnose(&janitor).await;
        }
        tasks::idle();
        if shutdown.sleep(TRIM_EVERY).await {
            return;
        }
    }
}

/// How many letters of each subscription had gone because of their bounds: of those that ran, and of the others.
type Evicted = HashMap<Subscription, (u64, u64)>;

async fn look_at_letters(janitor: &Janitor, evicted: &mut Evicted) {
    for subscription in &janitor.subscriptions {
        tasks::alive();
        match janitor.backend.status(subscription).await {
            Ok(status) => {
                if let Some((ran, never_ran)) = newly_evicted(evicted, subscription, &status) {
                    observe::letters::evicted(subscription, ran, never_ran);
                }
            }
            // The next fetch recreates it.
            Err(Error::GroupGone { .. }) => {}
            Err(error) => observe::task_trouble("janitor", &error),
        }
    }
}

/// What has gone since the last look. What went before the first one, another host may have reported.
fn newly_evicted(
    evicted: &mut Evicted,
    subscription: &Subscription,
    status: &SubscriptionStatus,
) -> Option<(u64, u64)> {
    let now = (status.evicted_ran, status.evicted_unrun);
    let before = evicted.insert(subscription.clone(), now).unwrap_or(now);
    let new = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
    (new != (0, 0)).then_some(new)
}

async fn trim(backend: &dyn Backend, stream: &StreamBounds, warned: &mut Option<Instant>) {
    tasks::alive();
    fault::point("trimming");
    let trimmed = backend.trim(&stream.name, &stream.bounds).await;
    fault::point("trimmed");
    match trimmed {
        Ok(trimmed) => {
            observe::trimmed(&stream.name, &trimmed);
            if is_due(*warned, WARN_EVERY) && warn(stream, &trimmed) {
                *warned = Some(Instant::now());
            }
        }
        Err(error) => observe::task_trouble("janitor", &error),
    }
}

/// Says what is odd about the length of a stream; false if nothing is.
fn warn(stream: &StreamBounds, trimmed: &Trimmed) -> bool {
    if trimmed.held > 0 {
        observe::stream_held(&stream.name, trimmed.held);
    }
    let short = short_retention(&stream.bounds, trimmed);
    if let Some((asked, effective)) = short {
        observe::retention_short(&stream.name, asked, effective);
    }
    trimmed.held > 0 || short.is_some()
}

/// The retention that was asked for and the one in effect, if `maxlen` leaves less than half of it.
fn short_retention(bounds: &Bounds, trimmed: &Trimmed) -> Option<(Duration, Duration)> {
    let (maxlen, asked) = (bounds.maxlen?, bounds.retention?);
    let effective = trimmed.oldest_age?;
    // A stream that is not full yet is only young.
    (trimmed.length >= maxlen && effective < asked / 2).then_some((asked, effective))
}

async fn diagnose(janitor: &Janitor) {
    match janitor.backend.diagnose(&janitor.subscriptions, &janitor.targets).await {
        Ok(findings) => {
            let watched = |check| WATCHED.contains(&check);
            let wrong = findings.iter().filter(|finding| finding.level > Level::Good && watched(finding.check));
            wrong.for_each(observe::examined);
        }
        Err(error) => observe::task_trouble("janitor", &error),
    }
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_went_are_told_once() {
        let subscription = Subscription { stream: "s".into(), handler: "h".into() };
        let mut evicted = Evicted::new();
        let mut look = |evicted_ran, evicted_unrun| {
            let status = SubscriptionStatus { evicted_ran, evicted_unrun, ..SubscriptionStatus::default() };
            newly_evicted(&mut evicted, &subscription, &status)
        };
        assert_eq!(look(5, 7), None, "they went before this host began");
        assert_eq!((look(6, 7), look(6, 7), look(8, 10)), (Some((1, 0)), None, Some((2, 3))));
        assert_eq!(look(0, 0), None, "the counters were reset");
    }

    #[test]
    fn a_full_stream_that_is_too_young_is_told() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let bounds = Bounds { maxlen: Some(100), retention: Some(hours(10)), ..Bounds::default() };
        let at = |length, age| Trimmed { length, oldest_age: Some(age), ..Trimmed::default() };
        assert_eq!(short_retention(&bounds, &at(100, hours(1))), Some((hours(10), hours(1))));
        assert_eq!(short_retention(&bounds, &at(99, hours(1))), None, "not full: only young");
        assert_eq!(short_retention(&bounds, &at(100, hours(6))), None, "short, but not much");
        assert_eq!(short_retention(&Bounds { maxlen: None, ..bounds }, &at(100, hours(1))), None);
    }
}
