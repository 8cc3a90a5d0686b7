//! The shutdown signal: one side triggers it, every task listens to the other.

use std::time::Duration;

use tokio::sync::watch;

/// Tells every task to stop fetching. Cheap to clone and to ask.
#[derive(Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is time to stop.
    pub async fn wait(&mut self) {
        // An error means that the sender is gone, and so the host.
        let _ = self.0.wait_for(|set| *set).await;
    }

    /// Sleeps, but not past the moment when it is time to stop. True: time to stop.
    pub async fn sleep(&mut self, time: Duration) -> bool {
        // An error means that the sender is gone, and so the host.
        tokio::time::timeout(time, self.0.wait_for(|set| *set)).await.is_ok()
    }
}

/// Triggers a [`Shutdown`].
pub struct ShutdownTrigger(watch::Sender<bool>);

impl ShutdownTrigger {
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Shutdown(receiver))
    }

    pub fn trigger(&self) {
        self.0.send_replace(true);
    }
}
