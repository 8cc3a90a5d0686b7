//! Which keys are in whose hands. Batches of a handler with state run side by side while they share no key; those that do
//! run one after the other, in the order in which they were fetched: each would only make the other's state stale.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The keys of one consumer that batches are at work on.
#[derive(Default)]
pub struct Claims {
    turn: tokio::sync::Mutex<()>,
    taken: Mutex<HashSet<Arc<str>>>,
    freed: Notify,
}

/// The right to claim before all who come later. To be had in the order of fetching.
pub struct Turn<'a> {
    claims: &'a Claims,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

/// Keys that nobody else has until this is dropped.
pub struct Claim<'a> {
    claims: &'a Claims,
    keys: HashSet<Arc<str>>,
}

impl Claims {
    pub async fn turn(&self) -> Turn<'_> {
        Turn { claims: self, _turn: self.turn.lock().await }
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        // A set of names, as good as before if a holder panicked.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Turn<'a> {
    /// Waits until all of the keys are free. Whoever comes later waits for that, too, so that no key is overtaken.
    pub async fn claim(self, keys: HashSet<Arc<str>>) -> Claim<'a> {
        let claims = self.claims;
        loop {
            // Made before the look, so that nothing that is freed after it is missed.
            let freed = claims.freed.notified();
            let is_free = {
                let mut taken = claims.taken();
                let is_free = taken.is_disjoint(&keys);
                if is_free {
                    taken.extend(keys.iter().cloned());
                }
                is_free
            };
            if is_free {
                return Claim { claims, keys };
            }
            freed.await;
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut taken = self.claims.taken();
        for key in &self.keys {
            taken.remove(key);
        }
        drop(taken);
        self.claims.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keys(names: &[&str]) -> HashSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    /// Whether a future ends while nobody else does anything.
    async fn ends<T>(future: impl Future<Output = T>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), future).await.is_ok()
    }

    #[tokio::test]
    async fn who_shares_no_key_does_not_wait() {
        let claims = Claims::default();
        let one = claims.turn().await.claim(keys(&["a", "b"])).await;
        let other = claims.turn().await.claim(keys(&["c"])).await;
        assert_eq!(*claims.taken(), keys(&["a", "b", "c"]));
        drop(one);
        assert_eq!(*claims.taken(), keys(&["c"]));
        drop(other);
        assert!(claims.taken().is_empty());
    }

    #[tokio::test]
    async fn a_key_is_waited_for_and_nobody_overtakes_who_waits() {
        let claims = Claims::default();
        let first = claims.turn().await.claim(keys(&["a"])).await;
        let second = claims.turn().await.claim(keys(&["a", "b"]));
        tokio::pin!(second);
        assert!(!ends(&mut second).await);
        assert!(!ends(claims.turn()).await, "b is free, but it is the second's");
        drop(first);
        let second = second.await;
        assert!(!ends(claims.turn().await.claim(keys(&["b"]))).await);
        drop(second);
        assert!(ends(claims.turn().await.claim(keys(&["b"]))).await);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_nothing_behind() {
        let claims = Claims::default();
        let first = claims.turn().await.claim(keys(&["a"])).await;
        assert!(!ends(claims.turn().await.claim(keys(&["a", "b"]))).await);
        assert_eq!(*claims.taken(), keys(&["a"]));
        drop(first);
        assert!(ends(claims.turn().await.claim(keys(&["a", "b"]))).await);
    }
}
