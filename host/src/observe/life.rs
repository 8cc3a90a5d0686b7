//! Facts of the host's own life: what it waits for at its start, and what it lacks.

use std::time::Duration;

use super::metrics::process;
use crate::backend::Error;

/// A step of the start has to wait. Said once for each step, however often it is tried.
pub fn start_waits(step: &str, error: &Error, give_up_after: Option<Duration>) {
    process().store_errors.add(&["starting"], 1);
    match give_up_after {
        Some(time) => tracing::warn!(step, %error, "the start waits for the backend, up to {time:?} in all"),
        None => tracing::warn!(step, %error, "the new settings wait for the backend"),
    }
}

/// What it wanted counts until its time is over, as with one that dies.
pub fn left_without_leave(consumer: &str) {
    tracing::warn!(consumer, "the start has failed, and the backend did not take leave of this host in time");
}

/// A lane has no thread or no runtime to run on.
pub fn no_thread(error: &std::io::Error) {
    tracing::error!(%error, "the machine gives no thread to a lane");
}
