//! Pausing: asks which subscriptions an operator has paused, and tells their consumers. In-flight deliveries are
//! finished, and retries go on becoming due.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::consumer::Consumer;
use super::observe;
use super::shutdown::Shutdown;
use tidemill_core::model::delivery::Subscription;
use tidemill_process::tasks;
use tidemill_storage::{Backend, Error, Pause};

/// How long a host may go on fetching after an operator has paused a subscription, a fetch that waits not counted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(backend: Arc<dyn Backend>, consumers: Vec<Arc<Consumer>>, mut shutdown: Shutdown) {
    while !shutdown.sleep(LOOK_EVERY).await {
        tasks::tick();
        if let Err(error) = look(&*backend, &consumers).await {
            observe::task_trouble("pause", &error);
        }
    }
}

/// Looks once. A host does that before it fetches anything.
pub(crate) async fn look(backend: &dyn Backend, consumers: &[Arc<Consumer>]) -> Result<(), Error> {
    let subscriptions: Vec<Subscription> = consumers.iter().map(|consumer| consumer.subscription.clone()).collect();
    for (consumer, pause) in consumers.iter().zip(backend.paused(&subscriptions).await?) {
        let (paused, lost) = (pause != Pause::No, pause == Pause::Lost);
        let was_lost = consumer.lost_position.swap(lost, Ordering::Relaxed);
        match (consumer.paused.swap(paused, Ordering::Relaxed), paused) {
            _ if lost && !was_lost => observe::position_lost(&consumer.subscription),
            (false, true) if !lost => observe::paused(&consumer.subscription),
            (true, false) => observe::resumed(&consumer.subscription),
            _ => {}
        }
    }
    Ok(())
}
