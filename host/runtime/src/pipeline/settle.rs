//! The last step of a batch: what is decided for each delivery, and what the backend makes of it. What it refuses as a
//! whole is settled entry by entry, and what it refuses then is kept.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::{BatchReport, Handler, WorkerContext};
use super::item::Item;
use super::kept::{RefusedSettlement, chain_key};
use crate::observe;
use tidemill_core::clock;
use tidemill_core::model::delivery::Delivery;
use tidemill_core::model::outcome::{NotRun, Outcome, Verdict};
use tidemill_core::policy::backoff::Backoff;
use tidemill_core::policy::breaker::Tally;
use tidemill_core::policy::disposition::{DecisionInput, decide};
use tidemill_process::fault;
use tidemill_process::tasks;
use tidemill_sandbox::Plugin;
use tidemill_sandbox::versions::{ActiveVersions, CanaryComparison};
use tidemill_schema::event::Event;
use tidemill_storage::{Consume, Error, Settled, Settlement, SettlementEntry};

/// Decides and settles; what could not be settled as decided is decided again: a conflict becomes a dead letter, a
/// stale state is run again, and timers without room are a limit that was reached.
pub(super) async fn settle(
    worker: &WorkerContext,
    serving: &Arc<ActiveVersions>,
    items: Vec<Item>,
    report: &mut BatchReport,
) -> Result<(), Error> {
    let mut redecided = Vec::new();
    let mut contest = CanaryComparison::new(serving.clone());
    // One settlement for each version, so that each says whose work it is. What no version ran goes with the stable one.
    for (plugin, items) in by_version(serving, items) {
        let is_canary = serving.is_canary(plugin);
        let mut entries = Vec::with_capacity(items.len());
        for item in items {
            match item.verdict {
                None => report.requeue.push(item.delivery),
                Some(verdict) => {
                    let (delivery, state) = (item.delivery, item.state_version);
                    contest.add(is_canary, &verdict, delivery.attempts, item.took);
                    if !is_canary {
                        count(&verdict, delivery.attempts, &mut report.tally);
                    }
                    entries.push(entry(
                        &worker.handler,
                        &plugin.digest,
                        is_canary,
                        delivery,
                        item.event,
                        state,
                        verdict,
                    ));
                }
            }
        }
        for (entry, settled) in settle_entries(worker, &plugin.digest, is_canary, entries, report).await? {
            match settled {
                Settled::Stale => report.requeue.push(entry.delivery),
                Settled::Outdated => {
                    report.outdated = true;
                    report.requeue.push(entry.delivery);
                }
                Settled::Conflict | Settled::Full => {
                    redecided.extend(redecide(&worker.handler, &plugin.digest, is_canary, entry.delivery, settled));
                }
                Settled::Committed => report.delayed += entry.disposition.timers(),
                Settled::Retried => report.delayed += 1,
                Settled::Quarantined => report.suspects += 1,
                Settled::Left => report.left.push(entry.delivery.entry),
                _ => {}
            }
        }
    }
    let redecided = settle_entries(worker, &serving.stable.digest, false, redecided, report).await?;
    report.delayed += redecided.iter().filter(|(_, settled)| *settled == Settled::Retried).count();
    report.contest = serving.canary.is_some().then_some(contest);
    Ok(())
}

fn by_version(serving: &ActiveVersions, items: Vec<Item>) -> Vec<(&Arc<Plugin>, Vec<Item>)> {
    let mut rest = items;
    let by_canary = |item: &mut Item| item.plugin.as_ref().is_some_and(|plugin| serving.is_canary(plugin));
    let canary = serving.canary.as_ref().map(|canary| (&canary.plugin, rest.extract_if(.., by_canary).collect()));
    std::iter::once((&serving.stable, rest)).chain(canary).collect()
}

fn count(verdict: &Verdict, attempts: u32, tally: &mut Tally) {
    match verdict {
        Ok(Outcome::Done(_) | Outcome::Rejected { .. } | Outcome::Looped { .. }) => tally.good += 1,
        Ok(Outcome::Failed { .. } | Outcome::Crashed { .. }) if attempts == 0 => tally.bad += 1,
        Ok(Outcome::Failed { .. } | Outcome::Crashed { .. }) => tally.bad_again += 1,
        Err(_) => {}
    }
}

/// What could not be settled as decided, decided once more; none if it was settled, or is another host's.
pub fn redecide(
    handler: &Handler,
    plugin: &str,
    canary: bool,
    delivery: Delivery,
    settled: Settled,
) -> Option<SettlementEntry> {
    let verdict = match settled {
        Settled::Conflict => Err(NotRun::Conflict),
        Settled::Full => Ok(Outcome::full()),
        _ => return None,
    };
    Some(entry(handler, plugin, canary, delivery, None, None, verdict))
}

fn entry(
    handler: &Handler,
    plugin: &str,
    canary: bool,
    delivery: Delivery,
    event: Option<Arc<Event>>,
    state_version: Option<u64>,
    verdict: Verdict,
) -> SettlementEntry {
    let facts = DecisionInput {
        attempts: delivery.attempts,
        retry: &handler.retry,
        now_ms: clock::now_ms(),
        plugin,
        jitter: rand::random(),
        canary,
    };
    let disposition = decide(verdict, &facts);
    let dedup_key = event.as_ref().map(|event| (event.id(), event.hash()));
    let state = event.and_then(|event| Some((event.key().clone(), state_version?)));
    SettlementEntry { delivery, dedup_key, state, disposition }
}

/// Before a settlement is sent again that the backend has not answered.
const RESEND: Backoff = Backoff { first: Duration::from_millis(50), last: Duration::from_secs(5) };
/// How often a backend may say of a batch that it is full before its entries are sent each by itself.
const FULL_MAX: u32 = 3;

/// Settles a batch; what is refused by itself is kept, and is not in the answer.
async fn settle_entries(
    worker: &WorkerContext,
    plugin: &Arc<str>,
    canary: bool,
    entries: Vec<SettlementEntry>,
    report: &mut BatchReport,
) -> Result<Vec<(SettlementEntry, Settled)>, Error> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let begun = Instant::now();
    let settlement = worker.settlement(plugin, entries);
    let settled = match send(&*worker.backend, &settlement).await {
        Ok(results) => settlement.entries.into_iter().zip(results).collect(),
        // An answer of the server: nothing of it was done.
        Err(Error::Permanent(reason)) => one_by_one(worker, settlement, canary, &reason, report).await?,
        Err(error) if error.is_full() => what_has_room_first(worker, settlement, canary, report).await?,
        Err(error) => return Err(error),
    };
    fault::point("settled");
    report.tally.settled += u32::try_from(settled.len()).unwrap_or(u32::MAX);
    observe::settled(&worker.context.meters, &worker.subscription, &settled, begun.elapsed());
    Ok(settled)
}

/// Sends a settlement under its one token until the backend has said what came of it: a reply may be lost, a settlement
/// may not. A backend that is full for long, and has said so of several entries together, may have room for some of them.
async fn send(backend: &dyn Consume, settlement: &Settlement) -> Result<Vec<Settled>, Error> {
    let (mut failed, mut full) = (0_u32, 0);
    loop {
        // A backend that is away for long is no reason to take this one for stuck.
        tasks::alive();
        fault::point("settling");
        match backend.settle(settlement).await {
            Err(error @ Error::Unavailable { .. }) => {
                failed = failed.saturating_add(1);
                let wait = RESEND.wait(failed);
                observe::backend_trouble("settling", &settlement.subscription, &error, wait);
                full += u32::from(error.is_full());
                if full > FULL_MAX && settlement.entries.len() > 1 {
                    return Err(error);
                }
                tokio::time::sleep(wait).await;
            }
            answer => return answer,
        }
    }
}

/// Settles the entries of a refused batch, each by itself and in their order. One that is refused once more is kept, and so
/// is what comes behind it in the chain of its state key: it is sent when the one before it is settled.
async fn one_by_one(
    worker: &WorkerContext,
    batch: Settlement,
    canary: bool,
    reason: &str,
    report: &mut BatchReport,
) -> Result<Vec<(SettlementEntry, Settled)>, Error> {
    observe::batch_refused(&worker.subscription, batch.entries.len(), reason);
    let is_alone = batch.entries.len() == 1;
    let mut each = OneByOne::new(worker, &batch.plugin, canary, report);
    for entry in batch.entries {
        if is_alone {
            each.keep(worker.settlement(&batch.plugin, vec![entry]), reason);
        } else {
            each.settle(entry, Sending::UntilThereIsRoom, reason).await?;
        }
    }
    Ok(each.settled)
}

/// The backend has no room for these entries together. Each is sent by itself and in their order, once; what there is
/// no room for even so waits, with all that comes behind it in the chain of its state key. What is settled meanwhile
/// makes room: a redelivery is removed from the backend by its settlement.
async fn what_has_room_first(
    worker: &WorkerContext,
    batch: Settlement,
    canary: bool,
    report: &mut BatchReport,
) -> Result<Vec<(SettlementEntry, Settled)>, Error> {
    let reason = "what comes before it for its state key was refused";
    let mut each = OneByOne::new(worker, &batch.plugin, canary, report);
    let (mut left, mut waits) = (Vec::new(), HashSet::new());
    for entry in batch.entries {
        let key = chain_key(&entry).cloned();
        let unsettled = match &key {
            Some(key) if waits.contains(key) => Some(entry),
            _ => each.settle(entry, Sending::Once, reason).await?,
        };
        if let Some(entry) = unsettled {
            waits.extend(key);
            left.push(entry);
        }
    }
    for entry in left {
        each.settle(entry, Sending::UntilThereIsRoom, reason).await?;
    }
    Ok(each.settled)
}

#[derive(Clone, Copy)]
enum Sending {
    Once,
    UntilThereIsRoom,
}

/// The entries of a batch, each settled by itself.
struct OneByOne<'a> {
    worker: &'a WorkerContext,
    plugin: &'a Arc<str>,
    canary: bool,
    report: &'a mut BatchReport,
    settled: Vec<(SettlementEntry, Settled)>,
    /// State keys of which an entry was to write and did not, as within one settlement (docs/decisions/0008).
    broken: HashSet<Arc<str>>,
}

impl<'a> OneByOne<'a> {
    fn new(worker: &'a WorkerContext, plugin: &'a Arc<str>, canary: bool, report: &'a mut BatchReport) -> Self {
        Self { worker, plugin, canary, report, settled: Vec::new(), broken: HashSet::new() }
    }

    /// Settles it; keeps it if it is refused, or (for this reason) if one before it in its chain is kept. Answers it if there
    /// is no room for it.
    async fn settle(
        &mut self,
        entry: SettlementEntry,
        sending: Sending,
        reason: &str,
    ) -> Result<Option<SettlementEntry>, Error> {
        let (worker, key) = (self.worker, chain_key(&entry).cloned());
        if key.as_ref().is_some_and(|key| self.broken.contains(key)) {
            self.settled.push((entry, Settled::Stale));
            return Ok(None);
        }
        tasks::alive();
        let writes = entry.disposition.writes();
        let mut alone = worker.settlement(self.plugin, vec![entry]);
        if key.as_ref().is_some_and(|key| worker.kept.has(key)) {
            self.keep(alone, reason);
            return Ok(None);
        }
        let answer = match sending {
            Sending::Once => worker.backend.settle(&alone).await,
            Sending::UntilThereIsRoom => send(&*worker.backend, &alone).await,
        };
        let answer = match answer {
            // It may have been settled all the same: only its own token tells.
            Err(error @ Error::Unavailable { .. }) if !error.is_full() => send(&*worker.backend, &alone).await,
            answer => answer,
        };
        match answer {
            Ok(results) => {
                self.broken.extend(key.filter(|_| writes && results != [Settled::Committed]));
                self.settled.extend(alone.entries.drain(..).zip(results));
            }
            Err(error) if error.is_full() => return Ok(alone.entries.pop()),
            Err(Error::Permanent(reason)) => self.keep(alone, &reason),
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    fn keep(&mut self, alone: Settlement, reason: &str) {
        let ids: Vec<_> = alone.entries.iter().map(|entry| (entry.delivery.queue, entry.delivery.entry)).collect();
        let is_new = self.worker.kept.keep(RefusedSettlement::new(alone, self.canary), reason);
        for id in ids {
            observe::settlement_refused(&self.worker.subscription, id.1, self.worker.kept.count(), reason, is_new);
            self.report.kept.push(id);
            self.report.tally.refused += 1;
        }
    }
}
