//! One batch through the pipeline. What becomes of a delivery is decided in this folder and in `policy::disposition`.
//!
//! ```text
//! fetch -> admit (decode, route, validate) -> look up (seen? state) -> invoke -> decide -> settle
//!           CPU                               one round trip, only      CPU       pure     one round trip
//!                                             for handlers with state
//! ```

mod admission;
mod agreed;
mod context;
mod invoke;
mod item;
mod kept;
mod key_locks;
mod recent;
mod set_aside;
mod settle;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::observe;
pub use agreed::{Agreed, Agreement};
pub use context::{BatchReport, Handler, HostContext, WorkerContext};
use item::Item;
pub use kept::Kept;
pub(crate) use kept::{Due, RefusedSettlement};
pub use key_locks::{KeyLocks, Ticket};
pub use recent::Admissions;
pub use settle::redecide;
use tidemill_core::model::delivery::{Delivery, KeyState};
use tidemill_core::model::outcome::NotRun;
use tidemill_process::tasks;
use tidemill_schema::event::Event;
use tidemill_storage::Error;

/// Takes a batch through. Until its dispositions are decided, any failure of the backend is an error, and the deliveries stay
/// pending. After that only a lost group or a replaced backend is one: settlements that are refused are kept, and the plugin
/// is not called again. The report lists what is kept also with an error.
pub async fn deliver(
    worker: &mut WorkerContext,
    batch: Vec<Delivery>,
    ticket: Ticket<'_>,
    report: &mut BatchReport,
) -> Result<(), Error> {
    let begun = Instant::now();
    let agreed = worker.agreed.load_full();
    let mut items = admission::admitted(&worker.context, &worker.handler, &agreed, &worker.subscription, batch);
    let serving = worker.handler.serving.load_full();
    let (mut states, mut _guard) = (HashMap::new(), None);
    if serving.has_state() {
        report.requeue = set_aside::take_repeated(&mut items);
        let keys = items.iter().filter_map(|item| Some(item.event.as_ref()?.key().clone())).collect();
        _guard = Some(tasks::waits(ticket.lock(keys)).await);
        report.kept = worker.kept.hold_back(&mut items);
        states = look_up(worker, &mut items).await?;
        // First of all: what repeats one of them must not go before it.
        report.requeue.splice(..0, set_aside::take_unread(&mut items, &states));
    } else {
        drop(ticket);
    }
    let versions = states.iter().map(|(key, state)| (key.clone(), state.version)).collect();
    invoke::invoke(worker, &serving, &mut items, states).await?;
    report.requeue.extend(set_aside::take_hasty(&mut items, &versions));
    settle::settle(worker, &serving, items, report).await?;
    observe::batch_done(&worker.context.meters, &worker.subscription, begun.elapsed());
    Ok(())
}

/// Asks the inbox and reads the state of the keys in the batch, the oldest event's first, as far as there is room.
async fn look_up(worker: &WorkerContext, items: &mut [Item]) -> Result<HashMap<Arc<str>, KeyState>, Error> {
    let waiting: Vec<&mut Item> = items.iter_mut().filter(|item| item.verdict.is_none()).collect();
    let events: Vec<Arc<Event>> = waiting.iter().filter_map(|item| item.event.clone()).collect();
    if events.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = events.iter().map(|event| event.id()).collect();
    let mut known = HashSet::with_capacity(events.len());
    let keys: Vec<Arc<str>> =
        events.iter().map(|event| event.key()).filter(|key| known.insert(*key)).cloned().collect();
    let begun = Instant::now();
    let found = worker.backend.look_up(&worker.subscription, &ids, &keys).await?;
    observe::looked_up(&worker.subscription, begun.elapsed());
    for ((item, event), seen) in waiting.into_iter().zip(&events).zip(found.seen) {
        item.verdict = match seen {
            Some(hash) if hash == event.hash() => Some(Err(NotRun::Duplicate)),
            Some(_) => Some(Err(NotRun::Conflict)),
            None => None,
        };
    }
    Ok(keys.into_iter().zip(found.states).collect())
}
