//! Where a worker's next batch comes from: what is requeued, what a dead host held, what was left for this one, or the queues.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{BACKEND_BACKOFF, Consumer, FETCH_WAIT, FetchState, lock, tend};
use crate::gaps::gaps;
use crate::observe;
use crate::shutdown::Shutdown;
use tidemill_core::model::delivery::Delivery;
use tidemill_process::fault;
use tidemill_storage::{Consume, Error};

/// How often to look for deliveries of dead hosts.
const RECOVER_EVERY: Duration = Duration::from_secs(2);
impl Consumer {
    /// Others took this host for dead, and it has not checked since what they do.
    fn is_out_of_touch(&self) -> bool {
        self.gaps_seen() != gaps()
    }

    /// The next batch. If it fails: how long to wait.
    pub(super) async fn fetch(
        &self,
        backend: &dyn Consume,
        fetch_state: &mut FetchState,
        max: usize,
        shutdown: &Shutdown,
    ) -> Result<Vec<Delivery>, Duration> {
        if shutdown.is_set() || self.is_paused() {
            return Ok(Vec::new());
        }
        match self.fetch_or_recover(backend, fetch_state, max).await {
            // It was on its way when this host was stopped, say. It stays pending, and recovery finds it.
            Ok(batch) if !batch.is_empty() && self.is_out_of_touch() => {
                self.recovers_first.store(true, Ordering::Relaxed);
                Ok(Vec::new())
            }
            Ok(batch) => {
                if !batch.is_empty() {
                    fault::point("fetched");
                }
                fetch_state.failed = 0;
                let mut in_flight = lock(&self.in_flight);
                in_flight.extend(batch.iter().map(|delivery| (delivery.queue, delivery.entry)));
                Ok(batch)
            }
            Err(error) => {
                fetch_state.failed = fetch_state.failed.saturating_add(1);
                let wait = BACKEND_BACKOFF.wait(fetch_state.failed);
                // Recovery finds whatever the broken connection had delivered.
                self.recovers_first.store(true, Ordering::Relaxed);
                observe::backend_trouble("fetching", &self.subscription, &error, wait);
                if matches!(error, Error::GroupGone { .. }) {
                    self.make_group_again().await;
                }
                Err(wait)
            }
        }
    }

    pub(super) fn take_requeued(&self, max: usize) -> Vec<Delivery> {
        let mut requeued = lock(&self.requeued);
        let count = requeued.len().min(max);
        requeued.drain(..count).collect()
    }

    async fn fetch_or_recover(
        &self,
        backend: &dyn Consume,
        fetch_state: &mut FetchState,
        max: usize,
    ) -> Result<Vec<Delivery>, Error> {
        let consumer = &*self.context.consumer;
        if self.is_out_of_touch() {
            tend::ask(self).await?;
        }
        if self.recovers_first.swap(false, Ordering::Relaxed) || Instant::now() >= fetch_state.recover_at {
            fetch_state.recover_at = Instant::now() + RECOVER_EVERY;
            let in_flight = lock(&self.in_flight).clone();
            fault::point("recovering");
            let found = backend.recover(&self.subscription, consumer, &in_flight, self.handler.lease(), max).await?;
            if found.suspects > 0 {
                self.expect_suspects();
            }
            if !found.quarantined.is_empty() {
                observe::quarantined(&self.subscription, &found.quarantined);
            }
            if found.more {
                // A large backlog of a dead host does not wait for the next interval.
                fetch_state.recover_at = Instant::now();
            }
            if !found.deliveries.is_empty() {
                fault::point("recovered");
                observe::recovered(&self.subscription, &found.deliveries);
                return Ok(found.deliveries);
            }
            let taken = self.take_left(backend, fetch_state, max).await?;
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
        let begun = Instant::now();
        let fetched = backend.fetch(&self.subscription, consumer, max, FETCH_WAIT).await?;
        if fetched.more {
            self.recovers_first.store(true, Ordering::Relaxed);
        }
        observe::fetched(&self.subscription, fetched.deliveries.len(), begun.elapsed());
        Ok(fetched.deliveries)
    }

    /// Takes what was left for hosts that want it, if this is one of them.
    async fn take_left(
        &self,
        backend: &dyn Consume,
        fetch_state: &mut FetchState,
        max: usize,
    ) -> Result<Vec<Delivery>, Error> {
        let agreed = self.agreed.load();
        if agreed.left == 0 || !agreed.takes || !lock(&self.taking).is_due(agreed.number, agreed.left, Instant::now()) {
            return Ok(Vec::new());
        }
        let taken = backend.take_left(&self.subscription, &self.context.consumer, max).await?;
        if taken.len() == max {
            // There may be more.
            fetch_state.recover_at = Instant::now();
        }
        lock(&self.taking).took(taken.iter().map(|delivery| delivery.entry));
        Ok(taken)
    }
}
