//! Locks per state key. Batches of a handler with state run side by side while they share no key; those that do
//! run one after the other, in the order in which they were fetched: each would only make the other's state stale.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The keys of one consumer that batches are at work on.
#[derive(Default)]
pub struct KeyLocks {
    order: tokio::sync::Mutex<()>,
    taken: Mutex<HashSet<Arc<str>>>,
    freed: Notify,
}

/// The right to lock before all later tickets. Issued in the order of fetching.
pub struct Ticket<'a> {
    locks: &'a KeyLocks,
    _order: tokio::sync::MutexGuard<'a, ()>,
}

/// Keys that no other batch has until this is dropped.
pub struct KeyGuard<'a> {
    locks: &'a KeyLocks,
    keys: HashSet<Arc<str>>,
}

impl KeyLocks {
    pub(crate) async fn ticket(&self) -> Ticket<'_> {
        Ticket { locks: self, _order: self.order.lock().await }
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        // A set of names, as good as before if a holder panicked.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Ticket<'a> {
    /// Waits until all of the keys are free. Later tickets wait for that, too, so that no key is overtaken.
    pub async fn lock(self, keys: HashSet<Arc<str>>) -> KeyGuard<'a> {
        let locks = self.locks;
        loop {
            // Made before the look, so that nothing that is freed after it is missed.
            let freed = locks.freed.notified();
            let free = {
                let mut taken = locks.taken();
                let free = taken.is_disjoint(&keys);
                if free {
                    taken.extend(keys.iter().cloned());
                }
                free
            };
            if free {
                return KeyGuard { locks, keys };
            }
            freed.await;
        }
    }
}

impl Drop for KeyGuard<'_> {
    fn drop(&mut self) {
        let mut taken = self.locks.taken();
        for key in &self.keys {
            taken.remove(key);
        }
        drop(taken);
        self.locks.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keys(names: &[&str]) -> HashSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    /// Whether a future ends while nothing else happens.
    async fn ends<T>(future: impl Future<Output = T>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), future).await.is_ok()
    }

    #[tokio::test]
    async fn who_shares_no_key_does_not_wait() {
        let locks = KeyLocks::default();
        let one = locks.ticket().await.lock(keys(&["a", "b"])).await;
        let other = locks.ticket().await.lock(keys(&["c"])).await;
        assert_eq!(*locks.taken(), keys(&["a", "b", "c"]));
        drop(one);
        assert_eq!(*locks.taken(), keys(&["c"]));
        drop(other);
        assert!(locks.taken().is_empty());
    }

    #[tokio::test]
    async fn a_key_is_waited_for_and_nobody_overtakes_who_waits() {
        let locks = KeyLocks::default();
        let first = locks.ticket().await.lock(keys(&["a"])).await;
        let second = locks.ticket().await.lock(keys(&["a", "b"]));
        tokio::pin!(second);
        assert!(!ends(&mut second).await);
        assert!(!ends(locks.ticket()).await, "b is free, but it is the second's");
        drop(first);
        let second = second.await;
        assert!(!ends(locks.ticket().await.lock(keys(&["b"]))).await);
        drop(second);
        assert!(ends(locks.ticket().await.lock(keys(&["b"]))).await);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_nothing_behind() {
        let locks = KeyLocks::default();
        let first = locks.ticket().await.lock(keys(&["a"])).await;
        assert!(!ends(locks.ticket().await.lock(keys(&["a", "b"]))).await);
        assert_eq!(*locks.taken(), keys(&["a"]));
        drop(first);
        assert!(ends(locks.ticket().await.lock(keys(&["a", "b"]))).await);
    }
}
