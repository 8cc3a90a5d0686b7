//! The counters of every handler, gathered from the backend: what `status`, the API and the demo show.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::heartbeat::HostReport;
use super::loading;
use tidemill_config::Config;
use tidemill_core::clock;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{Backend, Error, Pause, SubscriptionStatus, VersionCount};

/// A handler's streams.
pub type StatusRows = BTreeMap<String, Vec<StatusRow>>;

pub struct StatusRow {
    pub subscription: Subscription,
    /// The counters; none where the handler has not been started yet.
    pub status: Option<SubscriptionStatus>,
    /// Nothing is fetched until it is resumed.
    pub paused: bool,
    /// Its group was lost, and its position is unknown: nothing is fetched until an operator says where to begin.
    pub lost: bool,
}

pub async fn collect(backend: &dyn Backend, subscriptions: &[Subscription]) -> Result<StatusRows, Error> {
    let mut rows = StatusRows::new();
    let paused = backend.paused(subscriptions).await?;
    for (subscription, pause) in subscriptions.iter().zip(paused) {
        let (paused, lost) = (pause != Pause::No, pause == Pause::Lost);
        let status = match backend.status(subscription).await {
            Ok(status) => Some(status),
            Err(Error::GroupGone { .. }) => None,
            Err(error) => return Err(error),
        };
        rows.entry(subscription.handler.to_string()).or_default().push(StatusRow {
            subscription: subscription.clone(),
            status,
            paused,
            lost,
        });
    }
    Ok(rows)
}

/// Streams that a handler read once and does not reach any more, by its settings, where something of it waits or lies as a
/// dead letter: no host runs that.
pub async fn unreached(
    backend: &dyn Backend,
    config: &Config,
) -> Result<Vec<(Subscription, SubscriptionStatus)>, Error> {
    let read: Vec<Subscription> =
        loading::subscriptions(config).into_iter().map(|(subscription, _)| subscription).collect();
    let mut found = Vec::new();
    for handler in config.handlers.keys() {
        for stream in config.streams.keys() {
            let subscription = Subscription { stream: stream.as_str().into(), handler: handler.as_str().into() };
            if read.contains(&subscription) {
                continue;
            }
            match backend.status(&subscription).await {
                Ok(status) if status.waiting() + status.dead > 0 => found.push((subscription, status)),
                // A stream that is none, or that this user may not read, is not the handler's either.
                Ok(_) | Err(Error::GroupGone { .. } | Error::Permanent(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// The counters of a handler over all its streams.
pub fn total(streams: &[StatusRow]) -> SubscriptionStatus {
    let mut total = SubscriptionStatus::default();
    for status in streams.iter().filter_map(|row| row.status.as_ref()) {
        total.published += status.published;
        total.timers += status.timers;
        total.committed += status.committed;
        total.skipped += status.skipped;
        total.duplicates += status.duplicates;
        total.retried += status.retried;
        total.dead += status.dead;
        total.dead_unrun += status.dead_unrun;
        total.dead_bytes += status.dead_bytes;
        total.dropped += status.dropped;
        total.evicted_ran += status.evicted_ran;
        total.evicted_unrun += status.evicted_unrun;
        total.strayed += status.strayed;
        total.repeated += status.repeated;
        total.lag += status.lag;
        total.pending += status.pending;
        total.due += status.due;
        total.far += status.far;
        total.redelivery += status.redelivery;
        total.quarantined += status.quarantined;
        total.left += status.left;
        total.torn += status.torn;
        total.oldest_pending_age = total.oldest_pending_age.max(status.oldest_pending_age);
        total.consumers = total.consumers.max(status.consumers);
        total.oldest_age = total.oldest_age.max(status.oldest_age);
    }
    total
}

/// What the live hosts report of one handler, taken together.
#[derive(Debug, Default, PartialEq)]
pub struct HandlerSummary {
    /// Hosts that have this handler; 0: none reports on it.
    pub hosts: usize,
    /// The worst of them.
    pub breaker: String,
    /// The sum of them.
    pub rate: f64,
    pub in_flight: usize,
    /// Kept because the backend refuses to settle it, and the words of one refusal.
    pub refused: usize,
    pub refusal: String,
    /// Each digest once: more than one while hosts are being replaced.
    pub plugins: Vec<String>,
}

pub fn told(hosts: &[HostReport], handler: &str) -> HandlerSummary {
    let severity = |breaker: &str| ["closed", "half-open", "open"].iter().position(|name| *name == breaker);
    let mut told = HandlerSummary::default();
    for note in hosts.iter().flat_map(|host| &host.handlers).filter(|note| note.handler == handler) {
        told.hosts += 1;
        told.rate += note.rate;
        told.in_flight += note.in_flight;
        told.refused += note.refused;
        if told.refusal.is_empty() {
            told.refusal = note.refusal.clone();
        }
        if told.breaker.is_empty() || severity(&note.breaker) > severity(&told.breaker) {
            told.breaker = note.breaker.clone();
        }
        if !told.plugins.contains(&note.plugin) {
            told.plugins.push(note.plugin.clone());
        }
    }
    told
}

/// Adds to each handler of [`to_json`] what each version of its plugin has committed, the newest first.
pub async fn add_versions(
    status: &mut Value,
    backend: &dyn Backend,
    subscriptions: &[Subscription],
) -> Result<(), Error> {
    for handler in status["handlers"].as_array_mut().into_iter().flatten() {
        let mut versions: Vec<VersionCount> = Vec::new();
        for subscription in subscriptions.iter().filter(|subscription| handler["handler"] == *subscription.handler) {
            for counter in backend.committed_by(subscription).await? {
                match versions.iter_mut().find(|known| known.digest == counter.digest) {
                    Some(known) => {
                        known.committed += counter.committed;
                        known.since_ms = known.since_ms.min(counter.since_ms);
                    }
                    None => versions.push(counter),
                }
            }
        }
        versions.sort_by_key(|counter| std::cmp::Reverse(counter.since_ms));
        let rows = versions.iter().map(|counter| {
            let since = (counter.since_ms > 0).then(|| clock::rfc3339(counter.since_ms));
            json!({ "digest": counter.digest, "committed": counter.committed, "since": since })
        });
        handler["committed_by"] = rows.collect();
    }
    Ok(())
}

pub fn to_json(backend: &str, rows: &StatusRows, hosts: &[HostReport]) -> Value {
    let handlers: Vec<Value> = rows
        .iter()
        .map(|(handler, streams)| {
            let mut value = counters(&total(streams));
            value["handler"] = handler.as_str().into();
            let told = told(hosts, handler);
            value["hosts"] = told.hosts.into();
            value["rate"] = (told.hosts > 0).then_some(told.rate).into();
            value["breaker"] = (told.hosts > 0).then_some(told.breaker).into();
            value["in_flight"] = told.in_flight.into();
            value["refused"] = told.refused.into();
            value["refusal"] = (told.refused > 0).then_some(told.refusal).into();
            value["plugins"] = told.plugins.into();
            value["started"] = streams.iter().all(|row| row.status.is_some()).into();
            value["paused"] = streams.iter().all(|row| row.paused).into();
            value["position_lost"] = streams.iter().any(|row| row.lost).into();
            let streams = streams.iter().map(|row| {
                let mut value = row.status.as_ref().map(counters).unwrap_or_else(|| json!({}));
                value["stream"] = (&*row.subscription.stream).into();
                value["paused"] = row.paused.into();
                value["position_lost"] = row.lost.into();
                value
            });
            value["streams"] = streams.collect();
            value
        })
        .collect();
    json!({ "backend": backend, "hosts": hosts, "handlers": handlers })
}

fn counters(status: &SubscriptionStatus) -> Value {
    json!({
        "published": status.published, "timers": status.timers, "committed": status.committed, "skipped": status.skipped,
        "duplicates": status.duplicates, "retried": status.retried, "dead": status.dead, "dead_unrun": status.dead_unrun,
        "dead_bytes": status.dead_bytes, "dropped": status.dropped, "evicted_ran": status.evicted_ran,
        "evicted_unrun": status.evicted_unrun, "strayed": status.strayed, "repeated": status.repeated,
        "waiting": status.waiting(), "lag": status.lag, "pending": status.pending, "due": status.due, "redelivery": status.redelivery,
        "quarantined": status.quarantined, "left": status.left, "torn": status.torn, "consumers": status.consumers,
        "oldest_pending_age_ms": status.oldest_pending_age.map(|age| age.as_millis() as u64),
        "oldest_age_ms": status.oldest_age.map(|age| age.as_millis() as u64), "balanced": status.balances(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::HandlerReport;

    #[test]
    fn what_hosts_tell_is_taken_together() {
        let host = |breaker: &str, plugin: &str, rate| HostReport {
            handlers: vec![HandlerReport {
                handler: "a".into(),
                breaker: breaker.into(),
                plugin: plugin.into(),
                rate,
                in_flight: 3,
                refused: 2,
                refusal: plugin.into(),
            }],
            ..HostReport::default()
        };
        let hosts = [host("closed", "old", 1.5), host("open", "new", 2.0), host("half-open", "new", 0.5)];
        let plugins = vec!["old".to_owned(), "new".to_owned()];
        assert_eq!(
            told(&hosts, "a"),
            HandlerSummary {
                hosts: 3,
                breaker: "open".into(),
                rate: 4.0,
                in_flight: 9,
                refused: 6,
                refusal: "old".into(),
                plugins
            }
        );
        assert_eq!(told(&hosts, "b"), HandlerSummary::default());
    }
}
