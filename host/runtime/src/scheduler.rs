//! The scheduler: moves retries and timers that are due back to where their handler fetches from, a bounded number at a time.

use std::sync::Arc;
use std::time::Duration;

use super::consumer::Consumer;
use super::observe;
use super::shutdown::Shutdown;
use tidemill_process::{fault, tasks};

/// Deliveries moved in one step.
const PROMOTE_MAX: usize = 500;
/// How long to sleep when nothing is known to come: another host may have scheduled something.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Not more often than this, however soon the next one is due.
const LOOK_SOONEST: Duration = Duration::from_millis(10);

pub(crate) async fn run(consumer: Arc<Consumer>, mut shutdown: Shutdown) {
    while !shutdown.is_set() {
        tasks::tick();
        fault::point("promoting");
        let promoted = consumer.context.backend.promote(&consumer.subscription, PROMOTE_MAX).await;
        fault::point("promoted");
        let wait = match promoted {
            Ok(promoted) if promoted.moved == PROMOTE_MAX => LOOK_SOONEST,
            Ok(promoted) => promoted.next_in.unwrap_or(LOOK_EVERY).clamp(LOOK_SOONEST, LOOK_EVERY),
            Err(error) => {
                observe::task_trouble("scheduler", &error);
                LOOK_EVERY
            }
        };
        tokio::select! {
            _ = shutdown.sleep(wait) => {}
            () = consumer.delayed.notified() => {}
        }
    }
}
