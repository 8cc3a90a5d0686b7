//! The one door for effects: a settlement, entry by entry, in one transaction.
//!
//! ```text
//! receipt? ─► held by this consumer? ─► id seen before? ─► state as expected? ─► effects ─► ack ─► receipt
//!  answer        else Fenced            Duplicate, Conflict     else Stale
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::error::Result;
use super::fence::Fence;
use super::inbox::Inbox;
use super::plan::{OpKind, SettleBatch, SettleOp};
use super::row::DeliveryRow;
use super::state::StateCache;
use super::tx::Tx;
use super::{dead, delayed, receipts, streams, subscriptions, versions};
use tidemill_core::model::delivery::Emitted;
use tidemill_core::model::entry::PayloadHash;
use tidemill_storage::{Options, Settled};

pub(crate) fn settle(tx: &mut Tx<'_>, plan: SettleBatch, options: &Options) -> Result<Vec<Settled>> {
    if let Some(answer) = receipts::find(tx, plan.token)? {
        return Ok(answer);
    }
    let subscriptions::SubscriptionRow { id: subscription, agreed, .. } = subscriptions::find(tx, &plan.subscription)?;
    let dedup_keys =
        plan.steps.iter().any(|step| step.dedup_key.is_some() && matches!(step.deed, OpKind::Commit { .. }));
    let mut batch = Batch {
        fence: Fence::read(tx, subscription, &plan)?,
        inbox: if dedup_keys { Some(Inbox::open(tx, subscription, options.inbox_window)?) } else { None },
        shelf: StateCache::new(subscription),
        broken: HashSet::new(),
        subscription,
        agreed,
        timers_max: i64::try_from(options.timers_max).unwrap_or(i64::MAX),
        plugin: plan.plugin,
        tally: Tally::default(),
        emitted: HashMap::new(),
        tx,
    };
    let answers = plan.steps.into_iter().map(|step| batch.step(step)).collect::<Result<Vec<_>>>()?;
    batch.close(options)?;
    receipts::keep(tx, plan.token, &answers)?;
    Ok(answers)
}

struct Batch<'a, 'b> {
    tx: &'a mut Tx<'b>,
    subscription: i64,
    /// The number of what hosts have agreed on.
    agreed: u64,
    timers_max: i64,
    plugin: Arc<str>,
    fence: Fence,
    inbox: Option<Inbox>,
    shelf: StateCache,
    /// State keys that an entry was to write and did not: later entries saw a state that will never be. The version
    /// alone does not show that, because another consumer may have raised it just as much.
    broken: HashSet<Arc<str>>,
    tally: Tally,
    /// Streams that were emitted to: number, and how many events.
    emitted: HashMap<Arc<str>, (i64, i64)>,
}

/// What goes into the subscription's counters.
#[derive(Default)]
struct Tally {
    committed: i64,
    skipped: i64,
    duplicates: i64,
    retried: i64,
    dead: i64,
    timers: i64,
}

impl Batch<'_, '_> {
    fn step(&mut self, step: SettleOp) -> Result<Settled> {
        let writes = match (&step.deed, &step.state) {
            (OpKind::Commit { writes, .. }, Some((key, _))) if !writes.is_empty() => Some(key.clone()),
            _ => None,
        };
        let settled = match step.deed {
            _ if !self.fence.hold(step.place) => Settled::Fenced,
            OpKind::Quarantine => {
                self.fence.set_aside(self.tx, step.place)?;
                Settled::Quarantined
            }
            OpKind::Leave => {
                self.fence.leave(self.tx, step.place)?;
                Settled::Left
            }
            OpKind::Pass { agreed } if agreed != self.agreed => Settled::Outdated,
            OpKind::Pass { .. } | OpKind::Skip { duplicate: false } => Settled::Skipped,
            OpKind::Skip { duplicate: true } => Settled::Duplicate,
            OpKind::Commit { emits, writes, timers } => {
                self.commit(step.dedup_key, step.state, &emits, writes, &timers)?
            }
            OpKind::Retry { after_ms, parcel } => {
                delayed::schedule(self.tx, self.subscription, after_ms, &parcel)?;
                Settled::Retried
            }
            OpKind::DeadLetter { reason, parcel } => {
                dead::write_dead_letter(self.tx, self.subscription, &reason, &parcel)?;
                Settled::Dead
            }
        };
        if let Some(key) = writes.filter(|_| settled != Settled::Committed) {
            self.broken.insert(key);
        }
        if self.tally.count(settled) {
            self.fence.let_go(step.place);
        }
        Ok(settled)
    }

    fn commit(
        &mut self,
        dedup_key: Option<(Uuid, PayloadHash)>,
        state: Option<(Arc<str>, u64)>,
        emits: &[Emitted],
        writes: BTreeMap<String, Option<Bytes>>,
        timers: &[(i64, DeliveryRow)],
    ) -> Result<Settled> {
        let fits = self.fits(&state)?;
        let room = self.has_room_for(timers)?;
        if let (Some(inbox), Some((id, hash))) = (&self.inbox, dedup_key) {
            // A stale entry leaves no dedup key; one that was committed before is a duplicate, whatever its state.
            match if fits && room { inbox.record(self.tx, id, hash)? } else { inbox.find(self.tx, id)? } {
                Some(seen) if seen == hash => return Ok(Settled::Duplicate),
                Some(_) => return Ok(Settled::Conflict),
                None => {}
            }
        }
        if !fits {
            return Ok(Settled::Stale);
        }
        if !room {
            return Ok(Settled::Full);
        }
        if let Some((key, _)) = state.filter(|_| !writes.is_empty()) {
            self.shelf.write(self.tx, key, writes)?;
        }
        for event in emits {
            self.emit(event)?;
        }
        self.set(timers)?;
        Ok(Settled::Committed)
    }

    fn has_room_for(&self, timers: &[(i64, DeliveryRow)]) -> Result<bool> {
        let count = i64::try_from(timers.len()).unwrap_or(i64::MAX);
        Ok(count == 0 || delayed::timers_waiting(self.tx, self.subscription)?.saturating_add(count) <= self.timers_max)
    }

    fn set(&mut self, timers: &[(i64, DeliveryRow)]) -> Result<()> {
        for (after_ms, parcel) in timers {
            delayed::schedule(self.tx, self.subscription, *after_ms, parcel)?;
            self.tally.timers += 1;
        }
        Ok(())
    }

    /// Whether the key has the version that the entry was handled with, after what was committed before it here.
    fn fits(&mut self, state: &Option<(Arc<str>, u64)>) -> Result<bool> {
        match state {
            Some((key, expected)) => Ok(!self.broken.contains(key) && self.shelf.version(self.tx, key)? == *expected),
            None => Ok(true),
        }
    }

    fn emit(&mut self, event: &Emitted) -> Result<()> {
        let stream = match self.emitted.get_mut(&event.stream) {
            Some((stream, count)) => {
                *count += 1;
                *stream
            }
            None => {
                let stream = subscriptions::make_stream(self.tx, &event.stream)?;
                self.emitted.insert(event.stream.clone(), (stream, 1));
                stream
            }
        };
        streams::append(self.tx, stream, &event.body)?;
        Ok(())
    }

    fn close(mut self, options: &Options) -> Result<()> {
        self.shelf.close(self.tx)?;
        for (name, (id, count)) in self.emitted.drain() {
            streams::added(self.tx, &name, id, count)?;
        }
        self.fence.close(self.tx)?;
        if self.tally.dead > 0 {
            dead::evict(self.tx, self.subscription, options)?;
        }
        let Tally { committed, skipped, duplicates, retried, dead: _, timers } = self.tally;
        let sql = "UPDATE subscriptions SET committed = committed + ?2, skipped = skipped + ?3,
                   duplicates = duplicates + ?4, retried = retried + ?5, timers = timers + ?6
                   WHERE id = ?1";
        self.tx.run(sql, (self.subscription, committed, skipped, duplicates, retried, timers))?;
        versions::count(self.tx, self.subscription, &self.plugin, committed)?;
        Ok(())
    }
}

impl Tally {
    /// Counts an answer; returns whether the entry is finished for its consumer.
    fn count(&mut self, settled: Settled) -> bool {
        match settled {
            Settled::Committed => self.committed += 1,
            Settled::Skipped => self.skipped += 1,
            Settled::Duplicate => {
                self.skipped += 1;
                self.duplicates += 1;
            }
            Settled::Retried => self.retried += 1,
            Settled::Dead => self.dead += 1,
            Settled::Quarantined | Settled::Conflict | Settled::Stale | Settled::Fenced | Settled::Full => {
                return false;
            }
            Settled::Left | Settled::Outdated => return false,
        }
        true
    }
}
