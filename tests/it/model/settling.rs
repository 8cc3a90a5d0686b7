//! What a settlement does, entry by entry: the one door for effects.

use std::collections::HashSet;
use std::sync::Arc;

use tidemill_core::model::dead_letter::AttemptRecord;
use tidemill_core::model::delivery::{Body, Delivery, Disposition, Effects, Emitted, EntryId, Timer};
use tidemill_storage::{Settled, Settlement, SettlementEntry};

use super::reference::{Group, Model, Number, Place, QUARANTINE, Tracked};
use super::tracked::timer_number;

/// State keys that an entry of this settlement was to write and did not. Those behind it read a state that will never
/// be, whatever its version says.
type Broken = HashSet<Arc<str>>;

impl Model {
    /// A token that was settled is not settled again: the old answer stands.
    pub(super) fn settle(&mut self, settlement: &Settlement) -> Vec<Settled> {
        if let Some(answer) = self.receipts.get(&settlement.token) {
            return answer.clone();
        }
        let Settlement { subscription, consumer, entries, .. } = settlement;
        let numbers: Vec<Option<Number>> =
            entries.iter().map(|entry| self.number(&subscription.stream, &entry.delivery).ok()).collect();
        let dead_letters_max = self.dead_letters_max;
        let group = self.group(subscription);
        let (mut broken, mut emits) = (Broken::new(), Vec::new());
        let answers: Vec<Settled> = entries
            .iter()
            .zip(numbers)
            .map(|(entry, number)| match number.filter(|number| group.holds(consumer, *number, &entry.delivery)) {
                Some(number) => group.settle_one(number, entry, &mut broken, &mut emits),
                None => group.fence(entry, &mut broken),
            })
            .collect();
        group.bound_dead(dead_letters_max);
        for emitted in emits {
            self.append(&emitted.stream, &emitted.body, None);
        }
        self.receipts.insert(settlement.token, answers.clone());
        answers
    }
}

impl Group {
    pub(super) fn holds(&self, consumer: &Arc<str>, number: Number, delivery: &Delivery) -> bool {
        let place = Place::Held { by: consumer.clone(), queue: delivery.queue, entry: delivery.entry };
        self.deliveries.get(&number).is_some_and(|tracked| tracked.place == place)
    }

    fn fence(&self, entry: &SettlementEntry, broken: &mut Broken) -> Settled {
        broken.extend(written_key(entry));
        Settled::Fenced
    }

    fn settle_one(
        &mut self,
        number: Number,
        entry: &SettlementEntry,
        broken: &mut Broken,
        emits: &mut Vec<Emitted>,
    ) -> Settled {
        let delivery = &entry.delivery;
        match &entry.disposition {
            Disposition::Commit(effects) => {
                let settled = self.commit(number, entry, effects, broken);
                if settled == Settled::Committed {
                    emits.extend(effects.emits.iter().cloned());
                    effects.timers.iter().for_each(|timer| self.set(delivery.origin, timer));
                } else {
                    broken.extend(written_key(entry));
                }
                settled
            }
            Disposition::Skip { duplicate } => self.skip(number, *duplicate),
            Disposition::Retry { after, record } => {
                self.retried += 1;
                self.put(number, delivery, Some(record), Place::Due { now: after.is_zero() });
                Settled::Retried
            }
            Disposition::DeadLetter { reason, record } => {
                self.put(number, delivery, record.as_ref(), Place::Dead { letter: None, reason: reason.clone() });
                self.dead.push(number);
                Settled::Dead
            }
            Disposition::Pass { .. } | Disposition::Leave => unreachable!("no step does that"),
            Disposition::Quarantine => {
                self.set_aside(number);
                Settled::Quarantined
            }
        }
    }

    /// The inbox comes first: what was handled before is a duplicate, whatever state was read since. Then the state has
    /// to be the one that was read.
    fn commit(&mut self, number: Number, entry: &SettlementEntry, effects: &Effects, broken: &Broken) -> Settled {
        let seen = entry.dedup_key.and_then(|(id, hash)| Some((self.inbox.get(&id)?, hash)));
        match seen {
            Some((seen, hash)) if *seen == hash => return self.skip(number, true),
            Some(_) => return Settled::Conflict,
            None => {}
        }
        if let Some((key, version)) = &entry.state {
            let there = self.states.get(&**key).map_or(0, |state| state.version);
            if broken.contains(key) || there != *version {
                return Settled::Stale;
            }
            if !effects.writes.is_empty() {
                self.states.entry(key.to_string()).or_default().apply(effects.writes.clone());
            }
        }
        self.inbox.extend(entry.dedup_key);
        self.deliveries.remove(&number);
        self.committed += 1;
        Settled::Committed
    }

    fn set(&mut self, origin: EntryId, timer: &Timer) {
        let place = Place::Due { now: timer.after.is_zero() };
        let tracked = Tracked::new(place, Some(origin), Body::Timer(timer.body.clone()));
        self.deliveries.insert(timer_number(&timer.body), tracked);
        self.timers += 1;
    }

    /// Still pending, but in nobody's worker.
    fn set_aside(&mut self, number: Number) {
        let tracked = self.deliveries.get_mut(&number).expect("it is held");
        tracked.give_to(QUARANTINE);
    }

    fn skip(&mut self, number: Number, duplicate: bool) -> Settled {
        self.deliveries.remove(&number);
        self.skipped += 1;
        self.duplicates += u64::from(duplicate);
        if duplicate { Settled::Duplicate } else { Settled::Skipped }
    }

    /// Elsewhere with the account that the settlement brings along, and one more try on it if there is a record.
    fn put(&mut self, number: Number, delivery: &Delivery, record: Option<&AttemptRecord>, place: Place) {
        let Delivery { attempts, crashes, history, replayed, .. } = delivery;
        let tracked = self.deliveries.get_mut(&number).expect("it is held");
        let history = history.iter().chain(record).cloned().collect();
        let attempts = attempts + u32::from(record.is_some());
        let (body, crashes, replayed) = (tracked.body.clone(), *crashes, *replayed);
        *tracked = Tracked {
            place,
            origin: tracked.origin,
            body,
            attempts,
            crashes,
            deaths: 0,
            alone: false,
            history,
            replayed,
        };
    }

    /// When there are too many dead letters, the oldest of those go that never ran, of which half may lie here at most;
    /// then the oldest.
    fn bound_dead(&mut self, max: usize) {
        loop {
            let over = self.dead.len() > max;
            let unrun: Vec<usize> =
                (0..self.dead.len()).filter(|at| self.deliveries[&self.dead[*at]].never_ran()).collect();
            match unrun.first() {
                Some(at) if over || unrun.len() > max / 2 => {
                    self.deliveries.remove(&self.dead.remove(*at));
                    self.evicted_unrun += 1;
                }
                _ if over => {
                    self.deliveries.remove(&self.dead.remove(0));
                    self.evicted_ran += 1;
                }
                _ => break,
            }
            self.dropped += 1;
        }
    }
}

/// The key of an entry that was to write state.
fn written_key(entry: &SettlementEntry) -> Option<Arc<str>> {
    match (&entry.disposition, &entry.state) {
        (Disposition::Commit(effects), Some((key, _))) if !effects.writes.is_empty() => Some(key.clone()),
        _ => None,
    }
}
