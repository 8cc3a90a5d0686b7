//! A worker: a thread with a runtime and a connection of its own. From fetch to settlement, a batch stays on its
//! thread: on an idle host, waking other threads is most of what an event takes (docs/decisions/0023).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{MutexGuard, oneshot};

use super::{Consumer, FETCH_WAIT, FetchState, lock};
use crate::observe;
use crate::pipeline::WorkerContext;
use crate::shutdown::Shutdown;
use tidemill_core::policy::breaker::Permit;
use tidemill_process::tasks;
use tidemill_process::tasks::{STUCK_MAX, Task};
use tidemill_sandbox::executor::batch::WarmInstances;

/// A batch of so few is what an idle host has.
const FEW: usize = 8;

impl Consumer {
    /// Runs a worker on a thread of its own until it is time to stop, or until this future is dropped: then the running
    /// call is its last.
    ///
    /// # Panics
    /// When its thread has, or there is none to be had.
    pub async fn worker(self: Arc<Self>, number: usize, shutdown: Shutdown) {
        let (mut ended, is_ended) = oneshot::channel::<()>();
        let (name, stack_bytes) = (format!("{}-{number}", self.handler.name), self.context.executor.stack_bytes());
        let silent_max = STUCK_MAX + self.handler.lease();
        let thread = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::select! { () = self.work(number, shutdown) => {}, () = ended.closed() => {} }
            });
            // The receiver may be gone.
            let _ = ended.send(());
            Ok(())
        };
        let started = tasks::thread(Task::Worker, name, Some(stack_bytes), Some(silent_max), move || {
            let ran: std::io::Result<()> = thread();
            ran.inspect_err(observe::no_thread)
        });
        match started {
            Err(error) => observe::no_thread(&error),
            Ok(_) if is_ended.await.is_ok() => return,
            Ok(_) => {}
        }
        tasks::die();
    }

    async fn work(&self, number: usize, mut shutdown: Shutdown) {
        let context = &self.context;
        let mut worker = WorkerContext {
            backend: context.backend.for_one_task().unwrap_or_else(|| context.backend.clone()),
            context: context.clone(),
            handler: self.handler.clone(),
            subscription: self.subscription.clone(),
            warm: WarmInstances::default(),
            kept: self.kept.clone(),
            agreed: self.agreed.clone(),
        };
        let mut fetch_lock = None;
        while !shutdown.is_set() {
            tasks::tick();
            if self.is_paused() && lock(&self.requeued).is_empty() {
                fetch_lock = None;
                shutdown.sleep(FETCH_WAIT).await;
                continue;
            }
            if !self.kept.has_room() {
                // No room for more that may be refused.
                fetch_lock = None;
                shutdown.sleep(FETCH_WAIT).await;
                continue;
            }
            let permit = lock(&self.breaker).permit(Instant::now());
            let max = match permit {
                Permit::Batch => self.batch,
                // A probe is one delivery, and one worker's business.
                Permit::Probe if number == 0 => 1,
                Permit::Probe => {
                    fetch_lock = None;
                    shutdown.sleep(FETCH_WAIT).await;
                    continue;
                }
                Permit::Wait(time) => {
                    fetch_lock = None;
                    shutdown.sleep(time.min(FETCH_WAIT)).await;
                    continue;
                }
            };
            match self.process_batch(&mut worker, fetch_lock, max, &shutdown).await {
                Ok(guard) => fetch_lock = guard,
                Err(wait) => {
                    fetch_lock = None;
                    shutdown.sleep(wait).await;
                }
            }
            worker.warm.sweep();
            if permit == Permit::Batch && self.suspects_are_due() && !shutdown.is_set() && !self.is_paused() {
                fetch_lock = None;
                self.run_suspects(&mut worker, &shutdown).await;
            }
        }
    }

    /// One batch, beside those of others. Returns the fetch lock if this worker keeps it; on failure, how long to wait.
    async fn process_batch<'a>(
        &'a self,
        worker: &mut WorkerContext,
        fetch_lock: Option<MutexGuard<'a, FetchState>>,
        max: usize,
        shutdown: &Shutdown,
    ) -> Result<Option<MutexGuard<'a, FetchState>>, Duration> {
        // What is in flight already does not wait for the fetch lock.
        let requeued = self.take_requeued(max);
        if !requeued.is_empty() {
            let _shared = tasks::waits(self.context.isolation_lock.read()).await;
            let ticket = tasks::waits(self.key_locks.ticket()).await;
            self.run(worker, requeued, ticket).await?;
            return Ok(fetch_lock);
        }
        let mut fetch_lock = match fetch_lock {
            Some(fetch_lock) => fetch_lock,
            None => match tokio::time::timeout(FETCH_WAIT, self.fetch_state.lock()).await {
                Ok(fetch_lock) => fetch_lock,
                Err(_) => return Ok(None),
            },
        };
        let _shared = tasks::waits(self.context.isolation_lock.read()).await;
        let batch = self.fetch(&*worker.backend, &mut fetch_lock, max, shutdown).await?;
        if batch.is_empty() {
            return Ok(None);
        }
        let ticket = tasks::waits(self.key_locks.ticket()).await;
        // A worker that has caught up and is quick fetches again: waking another one would take as long as the batch.
        let keeps = batch.len() <= FEW && self.quick.load(Ordering::Relaxed);
        let fetch_lock = keeps.then_some(fetch_lock);
        self.run(worker, batch, ticket).await?;
        Ok(fetch_lock)
    }
}
