//! One batch of a consumer, and what the consumer makes of it.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{BACKEND_BACKOFF, Consumer, QUICK, lock, tend};
use crate::canary;
use crate::observe;
use crate::pipeline::{BatchReport, Ticket, WorkerContext, deliver};
use tidemill_core::model::delivery::{Delivery, EntryId, Queue};

impl Consumer {
    /// If the batch could not be delivered: how long to wait before the next one.
    pub(super) async fn run(
        &self,
        worker: &mut WorkerContext,
        batch: Vec<Delivery>,
        ticket: Ticket<'_>,
    ) -> Result<(), Duration> {
        let begun = Instant::now();
        let mut running = InFlight::new(self, &batch);
        let mut report = BatchReport::default();
        let delivered = deliver(worker, batch, ticket, &mut report).await;
        self.quick.store(begun.elapsed() < QUICK, Ordering::Relaxed);
        // What is no longer in flight here and still pending is found again by `recover`.
        running.stays.extend(report.kept.iter().copied());
        let mut result = Ok(());
        match delivered {
            Ok(()) => {
                self.failed_batches.store(0, Ordering::Relaxed);
                self.note(&report);
                running.stays.extend(report.requeue.iter().map(|delivery| (delivery.queue, delivery.entry)));
                // Before what is outdated is handled again.
                if report.outdated {
                    // What cannot be asked now is said, and asked again soon.
                    let _ = tend::ask(self).await;
                }
                lock(&self.requeued).extend(report.requeue);
            }
            Err(error) => {
                let failed = self.failed_batches.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                let wait = BACKEND_BACKOFF.wait(failed);
                observe::backend_trouble("delivering", &self.subscription, &error, wait);
                self.recovers_first.store(true, Ordering::Relaxed);
                result = Err(wait);
            }
        }
        result
    }

    fn note(&self, report: &BatchReport) {
        let mut breaker = lock(&self.breaker);
        if breaker.record(Instant::now(), report.tally) {
            observe::breaker_changed(&self.handler.name, breaker.name());
        }
        if let Some(contest) = &report.contest {
            canary::note(&self.handler, contest);
        }
        if report.suspects > 0 {
            self.expect_suspects();
        }
        if !report.left.is_empty() {
            lock(&self.taking).left(&report.left, Instant::now());
        }
        if report.delayed > 0 {
            self.delayed.notify_one();
        }
    }
}

/// A batch that is being run. Whatever becomes of it: what does not stay in flight is forgotten, so that it can be found again.
struct InFlight<'a> {
    consumer: &'a Consumer,
    ids: Vec<(Queue, EntryId)>,
    /// What stays in flight though its batch is over.
    stays: HashSet<(Queue, EntryId)>,
}

impl<'a> InFlight<'a> {
    fn new(consumer: &'a Consumer, batch: &[Delivery]) -> Self {
        consumer.busy.fetch_add(1, Ordering::Relaxed);
        let ids = batch.iter().map(|delivery| (delivery.queue, delivery.entry)).collect();
        Self { consumer, ids, stays: HashSet::new() }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut in_flight = lock(&self.consumer.in_flight);
        for id in self.ids.iter().filter(|id| !self.stays.contains(*id)) {
            in_flight.remove(id);
        }
        drop(in_flight);
        if std::thread::panicking() {
            self.consumer.recovers_first.store(true, Ordering::Relaxed);
        }
        self.consumer.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
