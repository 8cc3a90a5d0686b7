//! Gaps between heartbeats in which others took this host for dead. The heartbeat task notes them, consumers ask.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A consumer counts as dead when it has sent no heartbeat for this long.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(5);

/// How often so much time had passed between two heartbeats that others took this host for dead.
static GAPS: AtomicU64 = AtomicU64::new(0);
/// When the last heartbeat was sent that the backend has taken.
static BEATEN: Mutex<Option<Instant>> = Mutex::new(None);

/// See [`GAPS`]; one more while there is such a gap now.
pub(crate) fn gaps() -> u64 {
    let beaten = BEATEN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_now = beaten.is_some_and(|at| at.elapsed() > HEARTBEAT_TTL);
    GAPS.load(Ordering::Relaxed) + u64::from(is_now)
}

/// The backend has taken a heartbeat that was sent then.
pub(crate) fn beaten(at: Instant) {
    let before = BEATEN.lock().unwrap_or_else(PoisonError::into_inner).replace(at);
    if before.is_some_and(|before| at.duration_since(before) > HEARTBEAT_TTL) {
        GAPS.fetch_add(1, Ordering::Relaxed);
    }
}
