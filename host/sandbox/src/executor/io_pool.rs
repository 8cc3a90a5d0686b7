//! Threads for guests that block on other services (`http`): each takes a job at a time, and most of them are asleep.

use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use tokio::sync::oneshot;

use super::batch;
use super::batch::{Answer, GuestBatch, SWEEP_EVERY, WarmInstances};
use tidemill_core::limits;
use tidemill_process::tasks;
use tidemill_process::tasks::{STUCK_MAX, Task};

/// Batches that may wait for a worker. Consumers keep no more in flight than a few each, so it is rarely reached.
const JOBS_MAX: usize = 1024;

/// A job may take the longest deadline, and the call that is running then as long again.
const SILENT_MAX: Duration = STUCK_MAX.saturating_add(limits::DEADLINE_MAX).saturating_add(limits::DEADLINE_MAX);

/// A job, and the channel for its result.
type Asked = (GuestBatch, oneshot::Sender<Answer>);

#[derive(Clone)]
pub struct IoPool {
    jobs: crossbeam_channel::Sender<Asked>,
}

impl IoPool {
    pub fn start(name: &str, threads: usize, stack_bytes: usize) -> std::io::Result<Self> {
        let (jobs, queue) = crossbeam_channel::bounded::<Asked>(JOBS_MAX);
        for number in 0..threads {
            let queue = queue.clone();
            tasks::serve_thread(
                Task::Io,
                format!("{name}-{number}"),
                Some(stack_bytes),
                Some(SILENT_MAX),
                move || {
                    let mut warm = WarmInstances::default();
                    loop {
                        tasks::tick();
                        match queue.recv_timeout(SWEEP_EVERY) {
                            // No receiver waits if the host is ending: what was not begun is left, what was done is
                            // simply not settled.
                            Ok((_, reply)) if reply.is_closed() => {}
                            Ok((job, reply)) => drop(reply.send(batch::run(&mut warm, job))),
                            Err(RecvTimeoutError::Timeout) => {}
                            Err(RecvTimeoutError::Disconnected) => return,
                        }
                        warm.sweep();
                    }
                },
            )?;
        }
        Ok(Self { jobs })
    }

    /// Runs a job. None: its worker has died of it, or the process is ending.
    pub async fn run(&self, job: GuestBatch) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        let (mut asked, jobs) = ((job, reply), &self.jobs);
        while let Err(error) = jobs.try_send(asked) {
            match error {
                crossbeam_channel::TrySendError::Full(back) => asked = back,
                crossbeam_channel::TrySendError::Disconnected(_) => return None,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answer.await.ok()
    }
}
