//! What of a batch waits for a later one, or runs in isolation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::item::Item;
use tidemill_core::model::delivery::{Delivery, KeyState};
use tidemill_core::model::outcome::{NotRun, Outcome};
use tidemill_storage::CRASHES_MAX;

/// Whether it is too dangerous to run. What hosts died with runs in isolation once; if one dies then, it is the cause.
pub(super) fn suspicion(delivery: &Delivery) -> Option<NotRun> {
    let crashes = delivery.crashes;
    if delivery.died_alone {
        return Some(NotRun::Poison(
            format!("{crashes} hosts crashed with it in flight, the last one in isolation").into(),
        ));
    }
    (crashes >= CRASHES_MAX && !delivery.isolated).then_some(NotRun::Suspect)
}

/// Takes out what repeats an event of this very batch: it goes into the next one, where the inbox knows the first.
pub(super) fn take_repeated(items: &mut Vec<Item>) -> Vec<Delivery> {
    let mut seen = HashSet::new();
    let repeats = |item: &mut Item| item.event.as_ref().is_some_and(|event| !seen.insert(event.id()));
    items.extract_if(.., repeats).map(|item| item.delivery).collect()
}

/// Takes out what goes by a key whose state was not read: it goes into a later batch, as all of that key does. The key
/// of the oldest is always read, so every batch gets further.
pub(super) fn take_unread(items: &mut Vec<Item>, states: &HashMap<Arc<str>, KeyState>) -> Vec<Delivery> {
    let unread = |item: &mut Item| {
        item.verdict.is_none() && item.event.as_ref().is_some_and(|event| !states.contains_key(event.key()))
    };
    items.extract_if(.., unread).map(|item| item.delivery).collect()
}

/// Takes out what failed after reading uncommitted state: an event before it in this batch wrote it, and may yet not
/// be committed. It is run again on what then is there.
pub(super) fn take_hasty(items: &mut Vec<Item>, versions: &HashMap<Arc<str>, u64>) -> Vec<Delivery> {
    let hasty = |item: &mut Item| {
        let failed = matches!(&item.verdict, Some(Ok(outcome)) if !matches!(outcome, Outcome::Done(_)));
        let there = item.event.as_ref().and_then(|event| versions.get(event.key())).copied();
        failed && item.state_version.is_some() && item.state_version != there
    };
    items.extract_if(.., hasty).map(|item| item.delivery).collect()
}
