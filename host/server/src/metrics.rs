//! `GET /metrics`: what this process has counted, and what the backend says at this moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use tidemill_core::model::delivery::Subscription;
use tidemill_runtime::observe::metrics;
use tidemill_runtime::observe::metrics::render;
use tidemill_runtime::{heartbeat, status};
use tidemill_storage::{Backend, Error, SubscriptionStatus};

/// The content type of OpenMetrics text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The backend is asked once in this time, however many scrape.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The backend's last answer: also that there was none.
#[derive(Default)]
pub(crate) struct Gauges(Mutex<Option<(Instant, Option<Arc<Answer>>)>>);

struct Answer {
    size_bytes: u64,
    hosts: usize,
    /// Whether its position is lost, and which it is: such a one has no counters.
    lost: Vec<(bool, Subscription)>,
    /// Whether it is paused, which it is, its counters.
    subscriptions: Vec<(bool, Subscription, SubscriptionStatus)>,
}

impl Gauges {
    pub(crate) async fn text(&self, backend: &dyn Backend, subscriptions: &[Subscription]) -> String {
        let answer = self.answer(backend, subscriptions).await;
        render(|gauges| fill(gauges, answer.as_deref()))
    }

    async fn answer(&self, backend: &dyn Backend, subscriptions: &[Subscription]) -> Option<Arc<Answer>> {
        // A scrape that comes while another one asks waits for the same answer.
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < ASK_EVERY
        {
            return answer.clone();
        }
        let asked = tokio::time::timeout(super::ANSWER_MAX, ask(backend, subscriptions)).await;
        let answer = match asked {
            Ok(Ok(answer)) => Some(Arc::new(answer)),
            // `tidemill_backend_up 0` says it; the log would say it with each scrape.
            Ok(Err(_)) | Err(_) => None,
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

async fn ask(backend: &dyn Backend, subscriptions: &[Subscription]) -> Result<Answer, Error> {
    let rows = status::collect(backend, subscriptions).await?;
    let rows: Vec<status::StatusRow> = rows.into_values().flatten().collect();
    let lost = rows.iter().map(|row| (row.lost, row.subscription.clone())).collect();
    let started = rows.into_iter().filter_map(|row| Some((row.paused, row.subscription, row.status?)));
    Ok(Answer {
        lost,
        size_bytes: backend.size_bytes().await?,
        hosts: heartbeat::hosts(backend, subscriptions).await?.len(),
        subscriptions: started.collect(),
    })
}

fn fill(gauges: &metrics::Backend, answer: Option<&Answer>) {
    gauges.up.set(&[], f64::from(u8::from(answer.is_some())));
    let Some(answer) = answer else { return };
    gauges.size.set(&[], answer.size_bytes as f64);
    gauges.hosts.set(&[], answer.hosts as f64);
    for (lost, subscription) in &answer.lost {
        gauges.position_lost.set(&[&subscription.handler, &subscription.stream], f64::from(u8::from(*lost)));
    }
    for (paused, subscription, status) in &answer.subscriptions {
        let labels: &[&str] = &[&subscription.handler, &subscription.stream];
        let counters = [
            ("published", status.published),
            ("timers", status.timers),
            ("committed", status.committed),
            ("skipped", status.skipped),
            ("duplicates", status.duplicates),
            ("retried", status.retried),
            ("dropped", status.dropped),
            ("strayed", status.strayed),
            ("repeated", status.repeated),
        ];
        for (counter, count) in counters {
            gauges.entries.add(&[&subscription.handler, &subscription.stream, counter], count);
        }
        for (ran, count) in [("yes", status.evicted_ran), ("no", status.evicted_unrun)] {
            gauges.dead_evicted.add(&[&subscription.handler, &subscription.stream, ran], count);
        }
        for (gauge, count) in [
            (&gauges.lag, status.lag),
            (&gauges.pending, status.pending),
            (&gauges.due, status.due),
            (&gauges.redelivery, status.redelivery),
            (&gauges.dead, status.dead),
            (&gauges.dead_unrun, status.dead_unrun),
            (&gauges.dead_bytes, status.dead_bytes),
            (&gauges.quarantined, status.quarantined),
            (&gauges.left, status.left),
            (&gauges.consumers, status.consumers),
            (&gauges.torn, status.torn),
            (&gauges.balanced, u64::from(status.balances())),
            (&gauges.paused, u64::from(*paused)),
        ] {
            gauge.set(labels, count as f64);
        }
        gauges.oldest_unprocessed.set(labels, status.oldest_age.unwrap_or_default().as_secs_f64());
        gauges.oldest_pending.set(labels, status.oldest_pending_age.unwrap_or_default().as_secs_f64());
    }
}
