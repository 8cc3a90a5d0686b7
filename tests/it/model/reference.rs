//! The contract of `backend` as plain data. What a backend keeps in tables or keys is here a few maps, and each rule is
//! a few lines. Where the contract leaves a backend free (which queue comes first, which of the due are promoted), the
//! model checks that the answer was allowed and goes on from it.
//!
//! An entry of a stream is, for each group, in exactly one [`Place`] until it is finished:
//!
//! ```text
//! Waiting ─fetch─► Held ─commit, skip─► finished
//!                  ▲ │ └──retry──► Due ─promote─► Again ─fetch─► Held
//!          recover ┘ └─dead letter─► Dead ─replay─► Again        (one too many: dropped)
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tidemill_core::model::delivery::{Body, Delivery, EntryId, KeyState, Queue, Replayed, Subscription};
use tidemill_core::model::entry::PayloadHash;
use tidemill_storage::{CRASHES_MAX, NewEntry, Published, Recovered, Settled, Start, Trimmed};
use uuid::Uuid;

use super::tracked::timer_number;
pub(super) use super::tracked::{Place, Tracked};

/// How many entries came before it on its stream: a name for an entry whose id nobody has told us yet.
pub(super) type Number = usize;
/// In whose hands is what nobody holds: released by who left, or set aside to be run alone.
pub(super) const RELEASED: &str = "(released)";
pub(super) const QUARANTINE: &str = "(quarantine)";

pub(super) type Inbox = HashMap<Uuid, PayloadHash>;

#[derive(Default)]
pub(super) struct Model {
    pub streams: BTreeMap<Arc<str>, Stream>,
    pub groups: BTreeMap<(Arc<str>, Arc<str>), Group>,
    /// Consumers with a heartbeat.
    pub alive: BTreeSet<Arc<str>>,
    pub dead_letters_max: usize,
    /// The answers that were given to settlements, by their tokens.
    pub receipts: HashMap<Uuid, Vec<Settled>>,
}

#[derive(Default)]
pub(super) struct Stream {
    /// All that were ever appended; the first `trimmed` lie here no more.
    pub entries: Vec<Appended>,
    pub trimmed: usize,
    /// What was published with a deduplication key.
    pub inbox: Inbox,
}

pub(super) struct Appended {
    /// Unknown if a handler emitted it, until the stream is listed.
    pub id: Option<EntryId>,
    pub body: Bytes,
}

/// One handler on one stream: its deliveries, what it remembers, its counters.
#[derive(Default)]
pub(super) struct Group {
    /// All that are not finished.
    pub deliveries: BTreeMap<Number, Tracked>,
    /// How many of those that are due now have been promoted. Which ones they were shows when they are fetched.
    pub promoted: usize,
    pub last_again: Option<EntryId>,
    /// The dead letters, in the order in which they died.
    pub dead: Vec<Number>,
    pub inbox: Inbox,
    pub states: BTreeMap<String, KeyState>,
    pub published: u64,
    pub timers: u64,
    pub committed: u64,
    pub skipped: u64,
    pub duplicates: u64,
    pub retried: u64,
    pub dropped: u64,
    /// Of those dropped: by the bounds, of letters that ran and of the others.
    pub evicted_ran: u64,
    pub evicted_unrun: u64,
}

impl Model {
    /// A group that is there stays as it is.
    pub(super) fn ensure_group(&mut self, subscription: &Subscription, start: Start) {
        let stream = self.streams.entry(subscription.stream.clone()).or_default();
        let history = match start {
            Start::Beginning => stream.trimmed..stream.entries.len(),
            Start::New => 0..0,
        };
        self.groups.entry((subscription.stream.clone(), subscription.handler.clone())).or_insert_with(|| {
            let mut group = Group::default();
            history.for_each(|number| group.add(number, &stream.entries[number].body));
            group
        });
    }

    pub(super) fn group(&mut self, subscription: &Subscription) -> &mut Group {
        self.groups
            .get_mut(&(subscription.stream.clone(), subscription.handler.clone()))
            .expect("no step names another group")
    }

    /// Every group of the stream has one more to handle.
    pub(super) fn append(&mut self, stream: &Arc<str>, body: &Bytes, id: Option<EntryId>) {
        let entries = &mut self.streams.entry(stream.clone()).or_default().entries;
        entries.push(Appended { id, body: body.clone() });
        let number = entries.len() - 1;
        let readers = self.groups.iter_mut().filter(|((name, _), _)| name == stream);
        readers.for_each(|(_, group)| group.add(number, body));
    }

    pub(super) fn published(&mut self, stream: &Arc<str>, entries: &[NewEntry], answers: &[Published]) -> Result<()> {
        ensure!(answers.len() == entries.len(), "{} answers for {} entries", answers.len(), entries.len());
        for (entry, answer) in entries.iter().zip(answers) {
            let log = self.streams.entry(stream.clone()).or_default();
            let seen = entry.dedup_key.and_then(|(id, hash)| Some((*log.inbox.get(&id)?, hash)));
            match (seen, answer) {
                (Some((seen, hash)), Published::Duplicate) if seen == hash => {}
                (Some((seen, hash)), Published::Conflict) if seen != hash => {}
                (None, Published::Added(id)) => {
                    log.inbox.extend(entry.dedup_key);
                    let last = log.entries.last().and_then(|last| last.id);
                    ensure!(last < Some(*id), "ids do not grow: {id} after {last:?}");
                    self.append(stream, &entry.body, Some(*id));
                }
                _ => bail!("{answer:?} for an event whose id was seen before with (this, the event's) hash {seen:?}"),
            }
        }
        Ok(())
    }

    /// The stream as it lies there. What was emitted shows its ids here.
    pub(super) fn listed(&mut self, stream: &Arc<str>, listed: &[(EntryId, Bytes)]) -> Result<()> {
        let log = self.streams.entry(stream.clone()).or_default();
        let model = &mut log.entries[log.trimmed..];
        ensure!(listed.len() == model.len(), "{} entries on {stream}, not {}", listed.len(), model.len());
        let mut last = None;
        for (at, (entry, (id, body))) in model.iter_mut().zip(listed).enumerate() {
            let id_is = *entry.id.get_or_insert(*id);
            ensure!(id_is == *id && last < Some(*id), "entry {at} of {stream} is {id}, not {id_is}, after {last:?}");
            ensure!(entry.body == *body, "entry {at} of {stream} is {body:?}, not {:?}", entry.body);
            last = Some(*id);
        }
        Ok(())
    }

    /// Any number of the oldest may go, but never one that a group has not fetched or not finished.
    pub(super) fn trimmed(&mut self, stream: &Arc<str>, maxlen: u64, answer: &Trimmed) -> Result<()> {
        let log = self.streams.entry(stream.clone()).or_default();
        let removed = usize::try_from(answer.removed)?;
        let left = (log.entries.len() - log.trimmed).checked_sub(removed).context("more went than there were")?;
        ensure!(removed == 0 || left as u64 >= maxlen, "{left} are left where {maxlen} may stay");
        ensure!(answer.lost == 0, "{} were lost to a group, though the bounds do not ask for it", answer.lost);
        log.trimmed += removed;
        for ((_, handler), group) in self.groups.iter().filter(|((name, _), _)| name == stream) {
            let needs =
                |tracked: &Tracked| matches!(tracked.place, Place::Waiting | Place::Held { queue: Queue::Stream, .. });
            let first = group.deliveries.iter().find(|(_, tracked)| needs(tracked));
            if let Some((number, tracked)) = first.filter(|(number, _)| **number < log.trimmed) {
                bail!("{handler} has not finished entry {number}, which is trimmed: {:?}", tracked.place);
            }
        }
        Ok(())
    }

    pub(super) fn number(&self, stream: &str, delivery: &Delivery) -> Result<Number> {
        if let Body::Timer(body) = &delivery.body {
            return Ok(timer_number(body));
        }
        let id = delivery.origin;
        let entries = &self.streams[stream].entries;
        entries.iter().position(|entry| entry.id == Some(id)).with_context(|| format!("no entry {id} was on {stream}"))
    }

    /// At most `max`; nothing only if nothing waits. The stream in order; each with its account as we know it.
    pub(super) fn fetched(
        &mut self,
        subscription: &Subscription,
        by: &Arc<str>,
        max: usize,
        got: &[Delivery],
    ) -> Result<()> {
        let counters = self.group(subscription).counters();
        ensure!(got.len() <= max, "{} came where {max} were asked for", got.len());
        ensure!(!got.is_empty() || max == 0 || counters.lag + counters.again == 0, "something waits, but nothing came");
        for delivery in got {
            let number = self.number(&subscription.stream, delivery)?;
            self.group(subscription).hand_out(number, delivery, by).with_context(|| format!("entry {number}"))?;
        }
        Ok(())
    }

    /// What a consumer holds, it lets go of when it leaves.
    pub(super) fn left(&mut self, subscriptions: &[Subscription], by: &Arc<str>) -> u64 {
        let mut released = 0;
        for subscription in subscriptions {
            let held = self.group(subscription).deliveries.values_mut().filter(|tracked| tracked.is_held_by(by));
            released += held.map(|tracked| tracked.give_to(RELEASED)).count() as u64;
        }
        self.alive.remove(by);
        released
    }

    /// Any of those in quarantine, if there is one.
    pub(super) fn suspect_taken(
        &mut self,
        subscription: &Subscription,
        by: &Arc<str>,
        got: Option<&Delivery>,
    ) -> Result<()> {
        let there = self.group(subscription).counters().quarantined;
        ensure!(got.is_some() == (there > 0), "{there} are in quarantine");
        let Some(delivery) = got else { return Ok(()) };
        let number = self.number(&subscription.stream, delivery)?;
        let tracked = self.group(subscription).deliveries.get_mut(&number).context("a finished entry came")?;
        ensure!(tracked.is_held_by(QUARANTINE), "entry {number} is {:?}", tracked.place);
        tracked.give_to(by);
        tracked.alone = true;
        ensure!(!delivery.died_alone, "nobody has died");
        tracked.equals(delivery).with_context(|| format!("entry {number}"))
    }

    /// As many as there are, up to `max`: those of its own that the caller does not hold; what was released; and, with
    /// their lease over, those of the dead, with one more crash. A backend may let one consumer at a time look after what
    /// others left. What the third host has died with goes into quarantine; of what the second one has, a few may come
    /// at a time. Answers how many crashes that were.
    pub(super) fn recovered(
        &mut self,
        subscription: &Subscription,
        by: &Arc<str>,
        held: &HashSet<(Queue, EntryId)>,
        lease_is_over: bool,
        max: usize,
        got: &Recovered,
    ) -> Result<usize> {
        let alive = self.alive.clone();
        let crash = |place: &Place| match place {
            Place::Held { by: owner, queue, entry } if owner == by => (!held.contains(&(*queue, *entry))).then_some(0),
            Place::Held { by: owner, .. } if &**owner == RELEASED => Some(0),
            Place::Held { by: owner, .. } if &**owner == QUARANTINE => None,
            Place::Held { by: owner, .. } => (lease_is_over && !alive.contains(owner)).then_some(1),
            _ => None,
        };
        let group = &self.groups[&(subscription.stream.clone(), subscription.handler.clone())];
        let all = || group.deliveries.values();
        let there = all().filter(|tracked| crash(&tracked.place).is_some()).count();
        let own = all().filter(|tracked| tracked.is_held_by(by) && crash(&tracked.place).is_some()).count();
        let heavy = all().any(|tracked| crash(&tracked.place) == Some(1) && tracked.deaths > 0);
        let count = got.deliveries.len();
        let told = format!(
            "{count} came, {} went into quarantine; there are {there}, {own} of them its own, and {max} were asked for",
            got.quarantined.len()
        );
        match got.more && heavy {
            true => ensure!(count <= max && count + got.quarantined.len() > 0, "{told}, and more is said to come"),
            false => ensure!(
                [max.min(there), max.min(own)].contains(&(count + got.quarantined.len())) || heavy && count <= max,
                "{told}"
            ),
        }
        let (mut seen, mut all_crashes) = (BTreeSet::new(), 0);
        for (queue, entry) in &got.quarantined {
            let is_it = |tracked: &&mut Tracked| matches!(&tracked.place, Place::Held { queue: l, entry: e, .. } if (l, e) == (queue, entry));
            let tracked =
                self.group(subscription).deliveries.values_mut().find(is_it).context("it is in nobody's hands")?;
            ensure!(crash(&tracked.place) == Some(1), "entry {entry} is {:?}", tracked.place);
            tracked.crashes += 1;
            tracked.deaths += 1;
            all_crashes += 1;
            ensure!(tracked.deaths >= CRASHES_MAX && !tracked.alone, "{} hosts have died with {entry}", tracked.deaths);
            tracked.give_to(QUARANTINE);
        }
        for delivery in &got.deliveries {
            let number = self.number(&subscription.stream, delivery)?;
            ensure!(seen.insert(number), "entry {number} came twice");
            let tracked = self.group(subscription).deliveries.get_mut(&number).context("a finished entry came")?;
            let crashes = crash(&tracked.place).with_context(|| format!("entry {number} is {:?}", tracked.place))?;
            let died_alone = crashes == 1 && tracked.alone;
            ensure!(delivery.died_alone == died_alone, "died_alone is {}", delivery.died_alone);
            tracked.alone &= crashes == 0;
            tracked.crashes += crashes;
            tracked.deaths += crashes;
            ensure!(
                crashes == 0 || died_alone || tracked.deaths < CRASHES_MAX,
                "entry {number} came, with which {} hosts have died",
                tracked.deaths
            );
            all_crashes += crashes as usize;
            let place = Place::Held { by: by.clone(), queue: delivery.queue, entry: delivery.entry };
            let Place::Held { queue, entry, .. } = std::mem::replace(&mut tracked.place, place) else { unreachable!() };
            ensure!((queue, entry) == (delivery.queue, delivery.entry), "entry {number} is {entry} on {queue:?}");
            tracked.equals(delivery).with_context(|| format!("entry {number}"))?;
        }
        Ok(all_crashes)
    }
}

/// The part of the counters that is counted, not kept.
#[derive(Default)]
pub(super) struct Counts {
    pub lag: u64,
    pub pending: u64,
    /// Of those pending.
    pub quarantined: u64,
    pub due: u64,
    pub due_now: u64,
    /// Of those due: timers that are far away.
    pub far: u64,
    pub again: u64,
}

impl Group {
    fn add(&mut self, number: Number, body: &Bytes) {
        self.deliveries.insert(number, Tracked::new(Place::Waiting, None, Body::Event(body.clone())));
        self.published += 1;
    }

    pub(super) fn counters(&self) -> Counts {
        let mut counts = Counts::default();
        for tracked in self.deliveries.values() {
            counts.far += u64::from(tracked.is_far());
            match tracked.place {
                Place::Waiting => counts.lag += 1,
                Place::Held { ref by, .. } => {
                    counts.pending += 1;
                    counts.quarantined += u64::from(&**by == QUARANTINE);
                }
                Place::Due { now } => {
                    counts.due += 1;
                    counts.due_now += u64::from(now);
                }
                Place::Again => counts.again += 1,
                Place::Dead { .. } => {}
            }
        }
        let promoted = self.promoted as u64;
        counts.due -= promoted;
        counts.due_now -= promoted;
        counts.again += promoted;
        counts
    }

    fn hand_out(&mut self, number: Number, delivery: &Delivery, by: &Arc<str>) -> Result<()> {
        let first =
            self.deliveries.iter().find(|(_, tracked)| tracked.place == Place::Waiting).map(|(number, _)| *number);
        let tracked = self.deliveries.get_mut(&number).context("it is finished")?;
        match (delivery.queue, &tracked.place) {
            (Queue::Stream, Place::Waiting) => {
                ensure!(delivery.entry == delivery.origin, "its ids differ: {} {}", delivery.entry, delivery.origin);
                ensure!(first == Some(number), "entry {first:?} comes first");
            }
            (Queue::Redelivery, Place::Again) => {}
            (Queue::Redelivery, Place::Due { now: true }) if self.promoted > 0 => self.promoted -= 1,
            (queue, place) => bail!("it came on {queue:?}, but is {place:?}"),
        }
        if delivery.queue == Queue::Redelivery {
            let last = self.last_again.replace(delivery.entry);
            ensure!(last < self.last_again, "ids on the queue do not grow: {} after {last:?}", delivery.entry);
        }
        tracked.place = Place::Held { by: by.clone(), queue: delivery.queue, entry: delivery.entry };
        tracked.equals(delivery)
    }

    /// Some of those that are due, at least one if there is one; none before its time.
    pub(super) fn promote(&mut self, max: usize, moved: usize) -> Result<()> {
        let due_now = usize::try_from(self.counters().due_now)?;
        ensure!(moved <= max.min(due_now), "{moved} were moved; {due_now} are due, {max} were asked for");
        ensure!(moved > 0 || max.min(due_now) == 0, "nothing was moved, and {due_now} are due");
        self.promoted += moved;
        Ok(())
    }

    /// Each letter that is there goes back once, with a clean account and a link to the letter that it was.
    pub(super) fn replay(&mut self, ids: &[EntryId]) -> usize {
        let before = self.dead.len();
        for id in ids {
            let is = |tracked: &Tracked| matches!(&tracked.place, Place::Dead { letter, .. } if *letter == Some(*id));
            let Some((number, tracked)) = self.deliveries.iter_mut().find(|(_, tracked)| is(tracked)) else { continue };
            (tracked.place, tracked.attempts, tracked.crashes) = (Place::Again, 0, 0);
            let times = tracked.replayed.map_or(1, |replayed| replayed.times + 1);
            tracked.replayed = Some(Replayed { letter: *id, times });
            self.dead.retain(|dead| dead != number);
        }
        before - self.dead.len()
    }
}
