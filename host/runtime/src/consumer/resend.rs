//! Sends again what the backend refused, until it is settled: no plugin is called for that. What there is no room or time
//! to keep any longer is given up: a dead letter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Consumer, lock};
use crate::observe;
use crate::pipeline::{Due, RefusedSettlement, redecide};
use crate::shutdown::Shutdown;
use tidemill_core::model::delivery::Delivery;
use tidemill_core::policy::breaker::Tally;
use tidemill_core::policy::disposition::given_up;
use tidemill_process::tasks;
use tidemill_storage::{Error, Settled, SettlementEntry};

/// How long to sleep when nothing is kept: keeping something wakes this task.
const NOTHING: Duration = Duration::from_secs(60);

/// One for each consumer, beside its workers, which never wait for it.
pub(crate) async fn run(consumer: Arc<Consumer>, mut shutdown: Shutdown) {
    loop {
        tasks::tick();
        let wait = consumer.resend().await;
        tasks::idle();
        let is_ending = tokio::select! {
            is_ending = shutdown.sleep(wait) => is_ending,
            () = consumer.kept.changed() => false,
        };
        if is_ending {
            // What cannot be settled even now stays pending: the host that reclaims it runs it again.
            tasks::alive();
            consumer.kept.hurry();
            consumer.resend().await;
            return;
        }
    }
}

/// Whether it was to write its state, and did not.
fn breaks(entry: &SettlementEntry, settled: Settled) -> bool {
    settled != Settled::Committed && entry.disposition.writes()
}

impl Consumer {
    /// Sends all that is due. Answers how long to wait for the next.
    async fn resend(&self) -> Duration {
        while let Some((refused, due)) = self.kept.take(Instant::now()) {
            self.send_again(refused, due).await;
            observe::refused_kept(&self.subscription, self.kept.count());
        }
        self.kept.next_due().map_or(NOTHING, |due| due.saturating_duration_since(Instant::now()))
    }

    /// Under the token of the first time: should it have been settled after all, its receipt says so, or it is fenced.
    async fn send_again(&self, refused: RefusedSettlement, due: Due) {
        tasks::alive();
        let begun = Instant::now();
        match self.context.backend.settle(&refused.settlement).await {
            Ok(results) => {
                let (plugin, canary) = (refused.settlement.plugin.clone(), refused.canary);
                let settled: Vec<_> = refused.settlement.entries.into_iter().zip(results).collect();
                observe::settled(&self.context.meters, &self.subscription, &settled, begun.elapsed());
                let freed = self.kept.settled(due, settled.iter().any(|(entry, settled)| breaks(entry, *settled)));
                for (entry, settled) in settled {
                    self.close(&plugin, canary, entry, settled);
                }
                self.go_on(freed);
            }
            Err(Error::Permanent(reason)) if due.give_up => self.give_up(refused, due, &reason).await,
            Err(Error::Permanent(reason)) => self.keep_on(refused, due, &reason),
            Err(error) => {
                let wait = self.kept.unanswered(refused, &due);
                observe::backend_trouble("settling", &self.subscription, &error, wait);
                // Nothing else may notice: workers with no room for more do not fetch.
                if matches!(error, Error::GroupGone { .. }) {
                    self.make_group_again().await;
                }
            }
        }
    }

    /// It was refused once more. Its effects are dropped; a person may replay it once the cause is gone.
    async fn give_up(&self, mut refused: RefusedSettlement, due: Due, reason: &str) {
        let mut decided = None;
        if let [entry] = &mut refused.settlement.entries[..]
            && let Some(disposition) = given_up(&entry.disposition, reason)
        {
            decided = Some(std::mem::replace(&mut entry.disposition, disposition));
        }
        let token = std::mem::replace(&mut refused.settlement.token, Uuid::new_v4());
        let begun = Instant::now();
        let error = match self.context.backend.settle(&refused.settlement).await {
            Ok(results) => {
                let settled: Vec<_> = refused.settlement.entries.into_iter().zip(results).collect();
                observe::settled(&self.context.meters, &self.subscription, &settled, begun.elapsed());
                let freed = self.kept.settled(due, true);
                for (entry, _) in settled {
                    self.let_go(&entry.delivery);
                }
                return self.go_on(freed);
            }
            Err(error) => error,
        };
        // Not even that: it stays as it was decided.
        refused.settlement.token = token;
        if let ([entry], Some(decided)) = (&mut refused.settlement.entries[..], decided) {
            entry.disposition = decided;
        }
        self.keep_on(refused, due, &error.to_string());
    }

    fn keep_on(&self, refused: RefusedSettlement, due: Due, reason: &str) {
        let times = self.kept.refused(refused, due, reason);
        observe::refused_again(&self.subscription, self.kept.count(), reason, times);
    }

    /// Does what is left to do after it was settled.
    fn close(&self, plugin: &Arc<str>, canary: bool, entry: SettlementEntry, settled: Settled) {
        self.note_settled();
        match settled {
            Settled::Stale | Settled::Outdated => return self.go_on(vec![entry.delivery]),
            Settled::Conflict | Settled::Full => {
                let redecided = redecide(&self.handler, plugin, canary, entry.delivery, settled);
                return redecided.into_iter().for_each(|entry| {
                    self.kept.keep_for_now(RefusedSettlement::new(self.settlement(plugin, entry), canary))
                });
            }
            Settled::Quarantined => self.expect_suspects(),
            Settled::Retried => self.delayed.notify_one(),
            Settled::Committed if entry.disposition.timers() > 0 => self.delayed.notify_one(),
            _ => {}
        }
        self.let_go(&entry.delivery);
    }

    /// The backend does settle: a breaker that counts what was refused is reset.
    fn note_settled(&self) {
        let mut breaker = lock(&self.breaker);
        if breaker.record(Instant::now(), Tally { settled: 1, ..Tally::default() }) {
            observe::breaker_changed(&self.handler.name, breaker.name());
        }
    }

    fn let_go(&self, delivery: &Delivery) {
        lock(&self.in_flight).remove(&(delivery.queue, delivery.entry));
    }

    /// What is to be handled goes into the next batches; it stays in flight.
    fn go_on(&self, freed: Vec<Delivery>) {
        lock(&self.requeued).extend(freed);
    }
}
