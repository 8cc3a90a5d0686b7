//! Suspects: possible poison messages, which are run one by one and in isolation.

use std::time::{Duration, Instant};

use super::{Consumer, lock};
use crate::observe;
use crate::pipeline::WorkerContext;
use crate::shutdown::Shutdown;
use tidemill_process::tasks;

/// Suspects that are run in a row, while all other workers of this host wait.
const SUSPECTS_MAX: usize = 50;
/// How long they are left alone after one could not be settled.
const SUSPECTS_PAUSE: Duration = Duration::from_secs(10);

impl Consumer {
    /// Some of them lie in quarantine. An earlier time that is known stays.
    pub(super) fn expect_suspects(&self) {
        lock(&self.suspects).get_or_insert_with(Instant::now);
    }

    pub(super) fn suspects_are_due(&self) -> bool {
        let due = lock(&self.suspects).filter(|due| *due <= Instant::now());
        due.is_some()
    }

    /// Runs suspects one by one, with nothing else in flight: if this host dies of one, no other delivery is suspected.
    pub(super) async fn run_suspects(&self, worker: &mut WorkerContext, shutdown: &Shutdown) {
        let _alone = tasks::waits(self.context.isolation_lock.write()).await;
        for _ in 0..SUSPECTS_MAX {
            if shutdown.is_set() {
                return;
            }
            tasks::alive();
            match worker.backend.take_suspect(&self.subscription, &self.context.consumer).await {
                Ok(Some(mut suspect)) => {
                    suspect.isolated = true;
                    observe::running_alone(&self.subscription, &suspect);
                    lock(&self.in_flight).insert((suspect.queue, suspect.entry));
                    let ticket = self.key_locks.ticket().await;
                    if self.run(worker, vec![suspect], ticket).await.is_err() {
                        // It cannot be settled now. The other workers do not wait for it time and again.
                        *lock(&self.suspects) = Some(Instant::now() + SUSPECTS_PAUSE);
                        return;
                    }
                }
                Ok(None) => {
                    *lock(&self.suspects) = None;
                    return;
                }
                Err(error) => {
                    *lock(&self.suspects) = Some(Instant::now() + SUSPECTS_PAUSE);
                    observe::backend_trouble("taking a suspect", &self.subscription, &error, SUSPECTS_PAUSE);
                    return;
                }
            }
        }
    }
}
