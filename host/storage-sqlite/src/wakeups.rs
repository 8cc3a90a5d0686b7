//! Wakes fetches of this process when something came to their stream. Other processes' writes are found by polling.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// One notifier for each stream that this process has ever fetched from.
#[derive(Default)]
pub(crate) struct Wakeups(Mutex<HashMap<Arc<str>, Arc<Notify>>>);

impl Wakeups {
    pub(crate) fn of(&self, stream: &Arc<str>) -> Arc<Notify> {
        self.bells().entry(stream.clone()).or_default().clone()
    }

    pub(crate) fn notify(&self, streams: &[Arc<str>]) {
        if streams.is_empty() {
            return;
        }
        let bells = self.bells();
        for bell in streams.iter().filter_map(|stream| bells.get(stream)) {
            bell.notify_waiters();
        }
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Notify>>> {
        // A panic leaves nothing half done in this map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
