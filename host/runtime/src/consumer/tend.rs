//! Tends a subscription: declares what this host wants of it, and reads what others do. The backend records the group's
//! position with that, so that it can be recreated there, and answers what other programs did to it.

use std::sync::Arc;
use std::time::Duration;

use super::Consumer;
use crate::agreement::{look, others, refuse_other_keys, what_others_want};
use crate::gaps::gaps;
use crate::observe;
use crate::pipeline::Agreed;
use crate::shutdown::{Shutdown, ShutdownTrigger};
use tidemill_process::tasks;
use tidemill_storage::{Error, Tended, Wish};

/// How often a host tends its subscriptions.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// Declares what this host wants, before it fetches anything. Refused where another live host keeps the state of a
/// handler under other keys.
pub(crate) async fn begin(consumers: &[Arc<Consumer>]) -> Result<(), Error> {
    // Before this host is announced: one that is refused must not affect others.
    for consumer in consumers {
        let context = &consumer.context;
        match look(&*context.backend, &consumer.subscription, &consumer.wanted(), &context.consumer).await {
            Err(Error::GroupGone { .. }) => {}
            looked => looked?,
        }
    }
    for consumer in consumers {
        let tended = match tend(consumer).await {
            // Its position is lost: nothing is fetched from it.
            Err(Error::GroupGone { .. }) => continue,
            tended => tended?,
        };
        let ours = consumer.wanted();
        refuse_other_keys(&consumer.subscription, &ours, &tended.wishes, &consumer.context.consumer)?;
        // Neither dead hosts nor this host with its previous settings.
        let alive: Vec<Wish> = tended.wishes.iter().filter(|wish| wish.alive).cloned().collect();
        for theirs in others(&alive, &consumer.context.consumer) {
            for (what, theirs, ours) in ours.differences(&theirs) {
                observe::differs(&consumer.subscription, what, &theirs, &ours);
            }
        }
        take(consumer, &tended);
    }
    Ok(())
}

async fn tend(consumer: &Consumer) -> Result<Tended, Error> {
    let context = &consumer.context;
    context.backend.tend(&consumer.subscription, &context.consumer, &consumer.wanted().to_json()).await
}

/// Applies what hosts have agreed on, and reports what other programs did.
fn take(consumer: &Consumer, tended: &Tended) {
    let subscription = &consumer.subscription;
    let (others, takes) = what_others_want(&consumer.wanted(), &tended.wishes, &consumer.context.consumer);
    consumer.agreed.store(Arc::new(Agreed { number: tended.agreed, others, left: tended.left, takes }));
    observe::strangers(subscription, tended.strayed, tended.repeated);
    if let Some(from) = tended.set_back {
        observe::set_back(subscription, from);
    }
}

/// Asks what hosts have agreed on. What cannot be asked now is asked again soon.
pub(crate) async fn ask(consumer: &Consumer) -> Result<(), Error> {
    let gaps = gaps();
    match tend(consumer).await {
        Ok(tended) => {
            // Others took this host for dead meanwhile. One of them may keep the state by other keys now.
            if consumer.gaps_seen() != gaps
                && let Err(error) = refuse_other_keys(
                    &consumer.subscription,
                    &consumer.wanted(),
                    &tended.wishes,
                    &consumer.context.consumer,
                )
            {
                tasks::end_host(&error.to_string());
                return Err(error);
            }
            consumer.saw_gaps(gaps);
            take(consumer, &tended);
        }
        Err(Error::GroupGone { .. }) => consumer.make_group_again().await,
        Err(error) => {
            observe::task_trouble("agreement", &error);
            return Err(error);
        }
    }
    Ok(())
}

/// Tends all subscriptions until it is time to stop, as it is once the backend was replaced.
pub(crate) async fn run(consumers: Vec<Arc<Consumer>>, trigger: Arc<ShutdownTrigger>, mut shutdown: Shutdown) {
    while !shutdown.sleep(TEND_EVERY).await {
        tasks::tick();
        for consumer in &consumers {
            // A backend that is slow with each of many is no reason to take this for stuck.
            tasks::alive();
            if let Err(error @ Error::Replaced(_)) = ask(consumer).await {
                observe::replaced(&error);
                trigger.trigger();
                return;
            }
        }
    }
}
