//! The two workers on which guests run, and which of them a job takes.
//!
//! ```text
//! compute  the thread that asks; a batch is one job, its calls one after the other, and as many at once as there are workers
//! I/O      many threads, most of them asleep; a batch is split, so that one slow call delays no other
//! ```
//! A call that waits costs a thread: its stack, and the guest's memory. See docs/decisions/0013.

pub mod batch;
pub mod io_pool;
mod slow_handlers;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::worlds::handler::CallResult;
use batch::{GuestBatch, GuestCall, WarmInstances};
use io_pool::IoPool;
use slow_handlers::SlowHandlers;
use tidemill_core::model::delivery::KeyState;
use tidemill_process::tasks;
use tidemill_process::tasks::Task;

pub struct Executor {
    /// Guests that may compute at once.
    compute: Semaphore,
    slow: SlowHandlers,
    io: IoPool,
    stack_bytes: usize,
}

impl Executor {
    pub fn start(workers: usize, io_workers: usize, stack_bytes: usize) -> std::io::Result<Self> {
        let io = IoPool::start("io", io_workers, stack_bytes)?;
        Ok(Self { compute: Semaphore::new(workers), slow: SlowHandlers::new(workers), io, stack_bytes })
    }

    /// The native stack that a thread needs to ask for a job.
    pub fn stack_bytes(&self) -> usize {
        self.stack_bytes
    }

    /// Runs a batch, on the I/O pool not more of its calls at once than there are permits. Answers what came of each
    /// call, nothing for those not begun; or why the host could run none of them. None: the process ends.
    /// Guests that compute hold this thread for as long, and `warm` are their instances.
    pub async fn run(
        &self,
        job: GuestBatch,
        warm: &mut WarmInstances,
        permits: &Arc<Semaphore>,
    ) -> Option<Result<Vec<Option<CallResult>>, String>> {
        let mut all: Vec<Option<CallResult>> = job.calls.iter().map(|_| None).collect();
        if !job.plugin.blocking() {
            let handler = job.plugin.handler.clone();
            let _place = tasks::waits(self.slow.acquire(&handler)).await;
            let _room = tasks::waits(self.compute.acquire()).await.ok()?;
            let answer = batch::run(warm, job);
            self.slow.note(&handler, answer.iter().flatten().map(|called| called.took).sum());
            return Some(answer.map(|called| {
                all.iter_mut().zip(called).for_each(|(place, called)| *place = Some(called));
                all
            }));
        }
        let mut running = JoinSet::new();
        for (places, part) in split(job) {
            let (io, permits) = (self.io.clone(), permits.clone());
            tasks::once_in(&mut running, Task::Call, async move {
                let _permit = permits.acquire_owned().await.ok()?;
                Some((places, io.run(part).await?))
            });
        }
        let mut trouble = None;
        // The workers are watched for themselves.
        while let Some(part) = tasks::waits(running.join_next()).await {
            match part {
                Ok(Some((places, Ok(called)))) => {
                    places.into_iter().zip(called).for_each(|(at, one)| all[at] = Some(one));
                }
                Ok(Some((_, Err(error)))) => trouble = Some(error),
                Ok(None) | Err(_) => trouble = Some("the worker of a call has died".to_owned()),
            }
        }
        // What ran stands: it may have called other services already. The rest is returned untouched.
        Some(match trouble {
            Some(error) if all.iter().all(Option::is_none) => Err(error),
            _ => Ok(all),
        })
    }
}

/// A job for each call; with state one for each key, because later events of a key see what earlier ones wrote. With
/// each, the places of its calls in the batch.
fn split(job: GuestBatch) -> Vec<(Vec<usize>, GuestBatch)> {
    let GuestBatch { calls, mut states, plugin, stream, now, ids, deadline, begun, instance_events_max, versions } =
        job;
    let keys: Vec<Option<Arc<str>>> =
        calls.iter().map(|call| states.contains_key(call.event.key()).then(|| call.event.key().clone())).collect();
    let mut calls: Vec<Option<GuestCall>> = calls.into_iter().map(Some).collect();
    let part = |places: Vec<usize>| {
        let calls = places.iter().filter_map(|at| calls[*at].take()).collect();
        let key = keys[places[0]].as_ref();
        let states: HashMap<Arc<str>, KeyState> = key.and_then(|key| states.remove_entry(key)).into_iter().collect();
        let (plugin, stream, now, begun) = (plugin.clone(), stream.clone(), now.clone(), begun.clone());
        let part =
            GuestBatch { plugin, stream, now, ids, calls, states, deadline, begun, instance_events_max, versions };
        (places, part)
    };
    groups(&keys).into_iter().map(part).collect()
}

/// The places of equal keys together, in order; a place without a key is by itself.
fn groups(keys: &[Option<Arc<str>>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut of_key: HashMap<&str, usize> = HashMap::new();
    for (place, key) in keys.iter().enumerate() {
        match key.as_deref().and_then(|key| of_key.get(key)) {
            Some(group) => groups[*group].push(place),
            None => {
                if let Some(key) = key {
                    of_key.insert(key, groups.len());
                }
                groups.push(vec![place]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_key_with_state_stay_in_order_and_all_others_go_side_by_side() {
        let keys: Vec<Option<Arc<str>>> =
            ["a", "", "b", "a", "", "b", "a"].iter().map(|key| (!key.is_empty()).then(|| (*key).into())).collect();
        assert_eq!(groups(&keys), [vec![0, 3, 6], vec![1], vec![2, 5], vec![4]]);
    }
}
