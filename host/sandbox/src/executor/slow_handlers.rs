//! Handlers whose batches compute for long. Together they never have all of the `host.workers`: one is left to the others,
//! however many endless loops come in. A handler is known as slow by its last batches, as the host cannot tell beforehand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// A batch that keeps a worker for this long is a slow one.
const SLOW: Duration = Duration::from_millis(200);
/// Batches that have to be quick before their handler is no longer slow: alternating gains nothing.
const QUICK_BATCHES: u32 = 16;

pub(crate) struct SlowHandlers {
    /// How many more quick batches each slow handler needs.
    quick_batches_left: Mutex<HashMap<Arc<str>, u32>>,
    room: Semaphore,
}

impl SlowHandlers {
    pub(super) fn new(workers: usize) -> Self {
        Self { quick_batches_left: Mutex::default(), room: Semaphore::new(workers.saturating_sub(1).max(1)) }
    }

    /// Waits for a place among the slow, if this handler is one of them. The place is free again when this is dropped.
    pub(crate) async fn acquire(&self, handler: &str) -> Option<SemaphorePermit<'_>> {
        let slow = self.quick_batches_left.lock().unwrap_or_else(PoisonError::into_inner).contains_key(handler);
        // The semaphore is never closed, so there is no error.
        if slow { self.room.acquire().await.ok() } else { None }
    }

    /// A batch of this handler has kept a worker for so long.
    pub(super) fn note(&self, handler: &Arc<str>, took: Duration) {
        let mut owing = self.quick_batches_left.lock().unwrap_or_else(PoisonError::into_inner);
        if took >= SLOW {
            owing.insert(handler.clone(), QUICK_BATCHES);
        } else if let Some(left) = owing.get_mut(handler) {
            *left -= 1;
            if *left == 0 {
                owing.remove(handler);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_slow_never_have_all_workers() {
        let slow = SlowHandlers::new(3);
        let (loops, also): (Arc<str>, Arc<str>) = ("loops".into(), "also".into());
        assert!(slow.acquire("loops").await.is_none(), "nothing is known of it yet");
        slow.note(&loops, SLOW);
        slow.note(&also, SLOW);
        let places = (slow.acquire("loops").await, slow.acquire("also").await);
        assert!(places.0.is_some() && places.1.is_some());
        assert_eq!(slow.room.available_permits(), 0, "the third worker is for others");
        assert!(slow.acquire("quick").await.is_none());
        drop(places);
        assert_eq!(slow.room.available_permits(), 2);
    }

    #[tokio::test]
    async fn a_handler_is_slow_until_it_has_been_quick_for_a_while() {
        let slow = SlowHandlers::new(1);
        let handler: Arc<str> = "a".into();
        slow.note(&handler, SLOW);
        for _ in 0..QUICK_BATCHES {
            assert!(slow.acquire("a").await.is_some());
            slow.note(&handler, Duration::ZERO);
        }
        assert!(slow.acquire("a").await.is_none());
    }
}
