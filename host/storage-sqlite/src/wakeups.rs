//! Wakes fetches of this process when something came to their stream. Other processes' writes are found by polling.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// One notifier for each stream that this process has ever fetched from.
#[derive(Default)]
pub(crate) struct Wakeups(Mutex<HashMap<Arc<str>, Arc<Notify>>>);

impl Wakeups {
    pub(crate) fn of(&self, stream: &Arc<str>) -> Arc<Notify> {
        self.wakeups().entry(stream.clone()).or_default().clone()
    }

    pub(crate) fn notify(&self, streams: &[Arc<str>]) {
        if streams.is_empty() {
            return;
        }
        let wakeups = self.wakeups();
        for wakeup in streams.iter().filter_map(|stream| wakeups.get(stream)) {
            wakeup.notify_waiters();
        }
    }

    fn wakeups(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Notify>>> {
        // A panic leaves nothing half done in this map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
