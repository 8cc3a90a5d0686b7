//! The last step of a batch: what is decided for each delivery, and what the backend makes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Handler, Hands, Item, Report};
use crate::backend::{Entry, Error, Settled, Settlement};
use crate::clock;
use crate::fault;
use crate::model::delivery::Delivery;
use crate::model::event::Event;
use crate::model::outcome::{Outcome, Refusal, Verdict};
use crate::observe;
use crate::plugin::Plugin;
use crate::plugin::serving::{Contest, Serving};
use crate::policy::breaker::Tally;
use crate::policy::disposition::{Facts, decide};

/// Decides and settles; what could not be settled as decided turns once more: a conflict becomes a dead letter, a stale
/// state is run again, and timers without room are a limit that was reached.
pub(super) async fn settle(
    hands: &Hands,
    serving: &Arc<Serving>,
    items: Vec<Item>,
    report: &mut Report,
) -> Result<(), Error> {
    let mut turned = Vec::new();
    let mut contest = Contest::new(serving.clone());
    // One settlement for each version, so that each says whose work it is. What no version ran goes with the stable one.
    for (plugin, items) in by_version(serving, items) {
        let is_canary = serving.is_canary(plugin);
        let mut entries = Vec::with_capacity(items.len());
        for item in items {
            match item.verdict {
                None => report.again.push(item.delivery),
                Some(verdict) => {
                    let (delivery, state) = (item.delivery, item.state_version);
                    contest.add(is_canary, &verdict, delivery.attempts, item.took);
                    if !is_canary {
                        count(&verdict, delivery.attempts, &mut report.tally);
                    }
                    entries.push(entry(&hands.handler, plugin, is_canary, delivery, item.event, state, verdict));
                }
            }
        }
        let turn = |delivery, verdict| entry(&hands.handler, plugin, is_canary, delivery, None, None, verdict);
        for (entry, settled) in settle_entries(hands, plugin, entries).await? {
            match settled {
                Settled::Stale => report.again.push(entry.delivery),
                Settled::Conflict => turned.push(turn(entry.delivery, Err(Refusal::Conflict))),
                Settled::Full => turned.push(turn(entry.delivery, Ok(Outcome::full()))),
                Settled::Committed => report.put_off += entry.disposition.timers(),
                Settled::Retried => report.put_off += 1,
                Settled::Quarantined => report.suspects += 1,
                _ => {}
            }
        }
    }
    let turned = settle_entries(hands, &serving.stable, turned).await?;
    report.put_off += turned.iter().filter(|(_, settled)| *settled == Settled::Retried).count();
    report.contest = serving.canary.is_some().then_some(contest);
    Ok(())
}

fn by_version(serving: &Serving, items: Vec<Item>) -> Vec<(&Arc<Plugin>, Vec<Item>)> {
    let mut rest = items;
    let by_canary = |item: &mut Item| item.plugin.as_ref().is_some_and(|plugin| serving.is_canary(plugin));
    let canary = serving.canary.as_ref().map(|canary| (&canary.plugin, rest.extract_if(.., by_canary).collect()));
    std::iter::once((&serving.stable, rest)).chain(canary).collect()
}

fn count(verdict: &Verdict, attempts: u32, tally: &mut Tally) {
    match verdict {
        Ok(Outcome::Done(_) | Outcome::Rejected { .. }) => tally.good += 1,
        Ok(Outcome::Failed { .. } | Outcome::Crashed { .. }) if attempts == 0 => tally.bad += 1,
        Ok(Outcome::Failed { .. } | Outcome::Crashed { .. }) => tally.bad_again += 1,
        Err(_) => {}
    }
}

fn entry(
    handler: &Handler,
    plugin: &Plugin,
    canary: bool,
    delivery: Delivery,
    event: Option<Arc<Event>>,
    state_version: Option<u64>,
    verdict: Verdict,
) -> Entry {
    let facts = Facts {
        attempts: delivery.attempts,
        retry: &handler.retry,
        now_ms: clock::now_ms(),
        plugin: &plugin.digest,
        dice: rand::random(),
        canary,
    };
    let disposition = decide(verdict, &facts);
    let mark = event.as_ref().map(|event| (event.id(), event.hash()));
    let state = event.and_then(|event| Some((event.key().clone(), state_version?)));
    Entry { delivery, mark, state, disposition }
}

/// How long to wait before a settlement is sent again: doubled each time, up to the last.
const RESEND_FIRST: Duration = Duration::from_millis(50);
const RESEND_LAST: Duration = Duration::from_secs(5);

/// Settles under one token until the backend has said what came of it: a reply may be lost, a settlement may not.
async fn settle_entries(hands: &Hands, plugin: &Plugin, entries: Vec<Entry>) -> Result<Vec<(Entry, Settled)>, Error> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let Hands { house, source, .. } = hands;
    let begun = Instant::now();
    let settlement = Settlement {
        source: source.clone(),
        consumer: house.consumer.clone(),
        plugin: plugin.digest.clone(),
        token: Uuid::new_v4(),
        entries,
    };
    let mut wait = RESEND_FIRST;
    let results = loop {
        fault::point("settling");
        match hands.backend.settle(&settlement).await {
            Ok(results) => break results,
            Err(error @ Error::Unavailable { .. }) => {
                observe::backend_trouble("settling", source, &error, wait);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RESEND_LAST);
            }
            Err(error) => return Err(error),
        }
    };
    fault::point("settled");
    observe::settled(&house.meters, source, &settlement.entries, &results, begun.elapsed());
    Ok(settlement.entries.into_iter().zip(results).collect())
}
