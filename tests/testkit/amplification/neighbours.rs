//! Good orders beside the bombs: published at a steady rate, and all of their effects are looked for at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidemill_core::model::dead_letter::ReasonClass;
use tidemill_core::model::delivery::Body;
use tidemill_storage::{Backend, NewEntry};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::bombs::{order, rejected_order};
use super::shop::Shop;

/// One order each time.
const EVERY: Duration = Duration::from_millis(20);
/// Letters that somebody needs.
const REAL_LETTERS: usize = 5;
/// Entries that are read in one step: some have a megabyte.
const PAGE: usize = 64;
/// Where an order's effects lie, one on each.
const EFFECTS: [&str; 2] = ["notification-events", "payment-events"];

pub(super) struct Neighbours {
    on: Arc<AtomicBool>,
    task: JoinHandle<Vec<Uuid>>,
    rejected: Vec<Uuid>,
}

impl Neighbours {
    /// Begins with those that the payment service rejects.
    pub(super) fn start(shop: &Shop) -> Result<Self, String> {
        let rejected: Vec<Uuid> = (0..REAL_LETTERS).map(|_| Uuid::new_v4()).collect();
        let entries: Vec<NewEntry> = rejected.iter().map(|id| entry(&rejected_order(*id))).collect();
        let sent = shop.runtime.block_on(shop.backend.publish("order-events", &entries));
        sent.map_err(|error| format!("cannot publish: {error}"))?;
        let on = Arc::new(AtomicBool::new(true));
        let task = shop.runtime.spawn(publish(shop.backend.clone(), on.clone()));
        Ok(Self { on, task, rejected })
    }

    /// Ends them; what to look for then.
    pub(super) fn stop(self, shop: &Shop) -> Result<Sent, String> {
        self.on.store(false, Ordering::Relaxed);
        let good = shop.runtime.block_on(self.task).map_err(|error| error.to_string())?;
        Ok(Sent { good, rejected: self.rejected })
    }
}

async fn publish(backend: Arc<dyn Backend>, on: Arc<AtomicBool>) -> Vec<Uuid> {
    let (mut good, mut tick) = (Vec::new(), tokio::time::interval(EVERY));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while on.load(Ordering::Relaxed) {
        tick.tick().await;
        let id = Uuid::new_v4();
        // What was not acknowledged may be there or not, and is not looked for.
        if backend.publish("order-events", &[entry(&order(id))]).await.is_ok() {
            good.push(id);
        }
    }
    good
}

fn entry(event: &Value) -> NewEntry {
    NewEntry { body: event.to_string().into(), dedup_key: None }
}

pub(super) struct Sent {
    pub(super) good: Vec<Uuid>,
    rejected: Vec<Uuid>,
}

impl Sent {
    /// What is missing, or there twice.
    pub(super) fn missing(&self, shop: &Shop) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for stream in EFFECTS {
            let effects = effects(shop, stream)?;
            let of = |id: &&Uuid| effects.get(&id.to_string()).copied().unwrap_or_default();
            let none = self.good.iter().filter(|id| of(id) == 0).count();
            let twice = self.good.iter().filter(|id| of(id) > 1).count();
            if none + twice > 0 {
                let all = self.good.len();
                found.push(format!("{stream}: of {all} good orders {none} have no effect and {twice} more than one"));
            }
        }
        let kept = self.rejected_and_kept(shop)?;
        if kept < self.rejected.len() {
            found.push(format!("payment-service: of {REAL_LETTERS} letters that were rejected {kept} are still there"));
        }
        Ok(found)
    }

    fn rejected_and_kept(&self, shop: &Shop) -> Result<usize, String> {
        let Some(subscription) = shop.targets().find(|subscription| &*subscription.handler == "payment-service") else {
            return Ok(0);
        };
        let (mut kept, mut last) = (BTreeSet::<&Uuid>::new(), None);
        loop {
            let page = shop.letters_after(subscription, last)?;
            let Some(newest) = page.last() else { return Ok(kept.len()) };
            last = Some(newest.id);
            for letter in page.iter().filter(|letter| letter.reason.class == ReasonClass::Rejected) {
                let Body::Event(body) = &letter.body else { continue };
                let event: Value = serde_json::from_slice(body).unwrap_or_default();
                kept.extend(self.rejected.iter().filter(|id| event["event_id"] == id.to_string()));
            }
        }
    }
}

/// How many entries of this stream each correlation has.
fn effects(shop: &Shop, stream: &str) -> Result<BTreeMap<String, u64>, String> {
    let (mut found, mut last) = (BTreeMap::new(), None);
    loop {
        let page = shop.runtime.block_on(shop.backend.entries(stream, last, PAGE));
        let page = page.map_err(|error| format!("{stream}: {error}"))?;
        let Some((newest, _)) = page.last() else { return Ok(found) };
        last = Some(*newest);
        for (_, body) in &page {
            let event: Value = serde_json::from_slice(body).unwrap_or_default();
            *found.entry(event["correlation_id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
}
