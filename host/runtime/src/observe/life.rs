//! Facts of the host's own life: what it waits for at its start, and what it lacks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::process;
use tidemill_storage::Error;

/// A step of the start has to wait. Said once for each step, however often it is tried.
pub fn start_waits(step: &str, error: &Error, give_up_after: Option<Duration>) {
    process().store_errors.add(&["starting"], 1);
    match give_up_after {
        Some(time) => tracing::warn!(step, %error, "the start waits for the backend, up to {time:?} in all"),
        None => tracing::warn!(step, %error, "the new settings wait for the backend"),
    }
}

/// Of one task's backend errors, which may recur each second for each of its subscriptions, a line is written this
/// often at most.
const TROUBLE_EVERY: Duration = Duration::from_secs(10);

/// When a line was written last for each task, and how many were left out since.
static TROUBLES: Mutex<BTreeMap<String, (Instant, u64)>> = Mutex::new(BTreeMap::new());

/// A task cannot ask the backend now. It tries again.
pub fn task_trouble(task: &str, error: &Error) {
    process().store_errors.add(&[task], 1);
    if let Some(left_out) = is_to_be_said(&TROUBLES, task, Instant::now()) {
        tracing::warn!(task, %error, left_out, "backend error");
    }
}

/// How many lines of this task were left out before this one; none if this one is left out, too.
fn is_to_be_said(said: &Mutex<BTreeMap<String, (Instant, u64)>>, task: &str, now: Instant) -> Option<u64> {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    match said.get_mut(task) {
        Some((at, left_out)) if now.duration_since(*at) < TROUBLE_EVERY => {
            *left_out += 1;
            None
        }
        known => {
            let left_out = known.map_or(0, |(_, left_out)| *left_out);
            said.insert(task.to_owned(), (now, 0));
            Some(left_out)
        }
    }
}

/// It takes heartbeats again.
pub fn backend_is_back(after: Duration) {
    tracing::info!(?after, "the backend takes heartbeats again");
}

/// Its wish counts until it expires, as with a host that dies.
pub fn left_without_leave(consumer: &str) {
    tracing::warn!(consumer, "the start has failed, and the backend did not deregister this host in time");
}

/// A worker has no thread or no runtime to run on.
pub fn no_thread(error: &std::io::Error) {
    tracing::error!(%error, "cannot start the thread of a worker");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_task_s_trouble_a_line_is_written_now_and_then() {
        let (said, now) = (Mutex::default(), Instant::now());
        let is_to_be_said = |task: &str, after| is_to_be_said(&said, task, now + after);
        assert_eq!(is_to_be_said("agreement", Duration::ZERO), Some(0));
        for ms in [0, 1, 9_999] {
            assert_eq!(is_to_be_said("agreement", Duration::from_millis(ms)), None);
        }
        assert_eq!(is_to_be_said("scheduler", Duration::from_secs(9)), Some(0), "another one");
        assert_eq!(is_to_be_said("agreement", TROUBLE_EVERY), Some(3));
        assert_eq!(is_to_be_said("agreement", TROUBLE_EVERY * 3), Some(0));
    }
}
