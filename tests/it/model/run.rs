//! Takes the steps of a case on a backend and on the model, and compares the answers. What was done is written down in
//! words, for whoever has to understand a case that failed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tidemill_core::model::dead_letter::{Reason, ReasonClass};
use tidemill_core::model::delivery::{
    Body, Delivery, Disposition, Effects, Emitted, EntryId, Queue, Subscription, Timer,
};
use tidemill_storage::{Backend, Bounds, NewEntry, Operator, Published, Settled, Settlement, SettlementEntry, Start};
use uuid::Uuid;

use super::forms::{copy, mark_of, names, record, tell_settled};
use super::reference::Model;
use super::steps::{self, Does, KEYS, Mark, NAMES, PlannedEntry, Step, Version};

/// Long enough never to be reached.
const HOUR: Duration = Duration::from_secs(3600);

pub(super) struct Run<'a> {
    pub backend: &'a dyn Backend,
    pub model: Model,
    pub input: Arc<str>,
    pub output: Arc<str>,
    /// Those that are there; the last one comes later.
    pub subscriptions: Vec<Subscription>,
    late: Subscription,
    consumers: [Arc<str>; steps::CONSUMERS],
    /// What each consumer was ever handed, by subscription: it may act on any of it, also when it is long out of date.
    known: HashMap<(Subscription, Arc<str>), Vec<Delivery>>,
    sent: Vec<Settlement>,
    /// The dead letters of a subscription that were ever seen.
    pub letters: HashMap<Subscription, Vec<EntryId>>,
    bodies: usize,
    told: Vec<String>,
    census: &'a mut Census,
}

/// How often what came about: a test that never gets a `Fenced` says nothing about fences.
pub(super) type Census = BTreeMap<String, usize>;

/// With the answers that have to come about at least once; the other things join as soon as they are looked for.
pub(super) fn census() -> Census {
    use Settled::*;
    [Committed, Skipped, Retried, Dead, Duplicate, Conflict, Stale, Fenced].map(|what| (format!("{what:?}"), 0)).into()
}

/// A case from its beginning to its end; the error tells all steps, and where model and backend differ.
pub(super) async fn run(
    backend: &dyn Backend,
    dead_letters_max: usize,
    steps: &[Step],
    census: &mut Census,
) -> Result<()> {
    let mut run = Run::new(backend, dead_letters_max, census);
    let result = run.take_all(steps).await;
    let dropped = run.model.groups.values().map(|group| group.dropped as usize).sum();
    run.count("dropped", dropped);
    let subscriptions = [&run.subscriptions[..], std::slice::from_ref(&run.late)].concat();
    for consumer in &run.consumers {
        backend.deregister(consumer, &subscriptions).await?;
    }
    result.map_err(|error| error.context(format!("\n{}\nmodel and backend differ", run.told.join("\n"))))
}

impl<'a> Run<'a> {
    fn new(backend: &'a dyn Backend, dead_letters_max: usize, census: &'a mut Census) -> Self {
        let suffix = Uuid::new_v4().simple();
        let input: Arc<str> = format!("input-{suffix}").into();
        let subscription = |handler: &str| Subscription { stream: input.clone(), handler: handler.into() };
        Self {
            backend,
            model: Model { dead_letters_max, ..Model::default() },
            output: format!("output-{suffix}").into(),
            subscriptions: vec![subscription("one"), subscription("two")],
            late: subscription("late"),
            consumers: ["anna", "bert", "cleo"].map(|name| format!("{name}-{suffix}").into()),
            input,
            known: HashMap::new(),
            sent: Vec::new(),
            letters: HashMap::new(),
            bodies: 0,
            told: Vec::new(),
            census,
        }
    }

    async fn take_all(&mut self, steps: &[Step]) -> Result<()> {
        for subscription in self.subscriptions.clone() {
            self.join(&subscription, Start::Beginning).await?;
        }
        for (number, step) in steps.iter().enumerate() {
            self.told.push(format!("{number:3}. {step:?}"));
            self.take(step).await?;
            self.look().await?;
        }
        Ok(())
    }

    fn tell(&mut self, what: String) {
        self.told.push(format!("       {what}"));
    }

    fn count(&mut self, what: &str, by: usize) {
        *self.census.entry(what.to_owned()).or_default() += by;
    }

    async fn take(&mut self, step: &Step) -> Result<()> {
        let subscription = |number: &usize| self.subscriptions[number % self.subscriptions.len()].clone();
        let by = |number: &usize| self.consumers[*number].clone();
        match step {
            Step::Publish { to_output, dedup_keys } => self.publish(*to_output, dedup_keys).await,
            Step::Fetch { subscription: s, by: b, max } => self.fetch(subscription(s), by(b), *max).await,
            Step::Settle { subscription: s, by: b, planned, twice } => {
                self.settle(subscription(s), by(b), *b, planned, *twice).await
            }
            Step::Resend { nth } => self.resend(*nth).await,
            Step::Recover { subscription: s, by: b, known, lease_is_over, max } => {
                self.recover(subscription(s), by(b), *known, *lease_is_over, *max).await
            }
            Step::TakeSuspect { subscription: s, by: b } => {
                let (subscription, by) = (subscription(s), by(b));
                let got = self.backend.take_suspect(&subscription, &by).await?;
                self.tell(format!("got {}", names(got.as_slice())));
                self.model.suspect_taken(&subscription, &by, got.as_ref())?;
                self.count("suspects taken", got.iter().len());
                self.known.entry((subscription, by)).or_default().extend(got);
                Ok(())
            }
            Step::Beat { by: b } => {
                let consumer = by(b);
                self.backend.heartbeat(&consumer, HOUR, "").await?;
                self.model.alive.insert(consumer);
                Ok(())
            }
            Step::Leave { by: b } => {
                let consumer = by(b);
                let released = self.backend.deregister(&consumer, &self.subscriptions).await?;
                let expected = self.model.left(&self.subscriptions, &consumer);
                ensure!(released == expected, "{released} were released, not {expected}");
                self.count("released", usize::try_from(released)?);
                Ok(())
            }
            Step::Promote { subscription: s, max } => self.promote(subscription(s), *max).await,
            Step::Replay { subscription: s, nths } => self.replay(subscription(s), nths).await,
            Step::Trim { output, maxlen } => self.trim(*output, *maxlen).await,
            Step::Join { subscription: number, from_beginning } => {
                let start = if *from_beginning { Start::Beginning } else { Start::New };
                let subscription = self.subscriptions.get(*number).unwrap_or(&self.late).clone();
                self.join(&subscription, start).await
            }
        }
    }

    async fn join(&mut self, subscription: &Subscription, start: Start) -> Result<()> {
        self.backend.ensure_group(subscription, start).await?;
        self.model.ensure_group(subscription, start);
        if !self.subscriptions.contains(subscription) {
            self.subscriptions.push(subscription.clone());
        }
        Ok(())
    }

    fn body(&mut self) -> Bytes {
        self.bodies += 1;
        format!("body {}", self.bodies).into()
    }

    async fn publish(&mut self, to_output: bool, dedup_keys: &[Option<Mark>]) -> Result<()> {
        let stream = if to_output { self.output.clone() } else { self.input.clone() };
        let entries: Vec<NewEntry> = dedup_keys
            .iter()
            .map(|dedup_key| NewEntry { body: self.body(), dedup_key: dedup_key.map(mark_of) })
            .collect();
        let answers = self.backend.publish(&stream, &entries).await?;
        self.tell(format!("{answers:?}"));
        for (what, is) in [("published twice", Published::Duplicate), ("published in conflict", Published::Conflict)] {
            self.count(what, answers.iter().filter(|answer| **answer == is).count());
        }
        self.model.published(&stream, &entries, &answers)
    }

    async fn fetch(&mut self, subscription: Subscription, by: Arc<str>, max: usize) -> Result<()> {
        let got = self.backend.fetch(&subscription, &by, max, Duration::ZERO).await?.deliveries;
        self.tell(format!("got {}", names(&got)));
        self.model.fetched(&subscription, &by, max, &got)?;
        for queue in [Queue::Stream, Queue::Redelivery] {
            self.count(&format!("fetched on {queue:?}"), got.iter().filter(|d| d.queue == queue).count());
        }
        self.count("timers fetched", got.iter().filter(|d| matches!(d.body, Body::Timer(_))).count());
        self.known.entry((subscription, by)).or_default().extend(got);
        Ok(())
    }

    async fn recover(
        &mut self,
        subscription: Subscription,
        by: Arc<str>,
        known: u16,
        lease_is_over: bool,
        max: usize,
    ) -> Result<()> {
        let mine = self.known.entry((subscription.clone(), by.clone())).or_default();
        let still = mine.iter().enumerate().filter(|(at, _)| known >> (at % 16) & 1 == 1);
        let held: HashSet<(Queue, EntryId)> = still.map(|(_, delivery)| (delivery.queue, delivery.entry)).collect();
        let lease = if lease_is_over { Duration::ZERO } else { HOUR };
        let got = self.backend.recover(&subscription, &by, &held, lease, max).await?;
        self.tell(format!("got {}, set aside {:?}", names(&got.deliveries), got.quarantined));
        let crashes = self.model.recovered(&subscription, &by, &held, lease_is_over, max, &got)?;
        self.count("recovered after a crash", crashes);
        let set_aside = got.quarantined.len();
        // Three deaths of one delivery are rare here; the exam has them.
        if set_aside > 0 {
            self.count("set aside unread", set_aside);
        }
        let got = got.deliveries;
        self.count("recovered its own", (got.len() + set_aside).saturating_sub(crashes));
        self.known.entry((subscription, by)).or_default().extend(got);
        Ok(())
    }

    async fn settle(
        &mut self,
        subscription: Subscription,
        by: Arc<str>,
        number: usize,
        planned: &[PlannedEntry],
        twice: bool,
    ) -> Result<()> {
        let mut entries = Vec::new();
        let mut chain = HashMap::new();
        for planned in planned {
            let owner = if planned.stolen { &self.consumers[(number + 1) % steps::CONSUMERS] } else { &by };
            if let Some(delivery) = self.choose(&subscription, owner, planned, &entries) {
                entries.push(self.entry(&subscription, delivery, planned, &mut chain));
            }
        }
        let settlement = Settlement { subscription, consumer: by, plugin: "v1".into(), token: Uuid::new_v4(), entries };
        let last = self.send(&settlement).await?;
        if twice {
            ensure!(self.send(&settlement).await? == last, "the same token has another answer");
        }
        // With nothing done, the answer to the same question may be another one later.
        let done = |settled: &Settled| !matches!(settled, Settled::Fenced | Settled::Stale | Settled::Conflict);
        if last.iter().any(done) {
            self.sent.push(settlement);
        }
        Ok(())
    }

    async fn resend(&mut self, nth: usize) -> Result<()> {
        if nth < self.sent.len() {
            let settlement = self.sent.remove(nth);
            let answers = self.send(&settlement).await?;
            self.sent.insert(nth, settlement);
            self.count("settled long ago", answers.len());
        }
        Ok(())
    }

    async fn send(&mut self, settlement: &Settlement) -> Result<Vec<Settled>> {
        let answers = self.backend.settle(settlement).await?;
        let told: Vec<String> = settlement.entries.iter().zip(&answers).map(tell_settled).collect();
        self.tell(format!("{} settles:", settlement.consumer.split('-').next().unwrap_or_default()));
        self.told.extend(told);
        let expected = self.model.settle(settlement);
        ensure!(answers == expected, "settle answers {answers:?}, not {expected:?}");
        answers.iter().for_each(|answer| self.count(&format!("{answer:?}"), 1));
        Ok(answers)
    }

    /// One that is held and not in this settlement yet, or, with a stale choice, any.
    fn choose(
        &self,
        subscription: &Subscription,
        owner: &Arc<str>,
        planned: &PlannedEntry,
        taken: &[SettlementEntry],
    ) -> Option<Delivery> {
        let mut known: Vec<&Delivery> = self.known.get(&(subscription.clone(), owner.clone()))?.iter().collect();
        if !planned.stale {
            let group = &self.model.groups[&(subscription.stream.clone(), subscription.handler.clone())];
            known.retain(|delivery| {
                let number = self.model.number(&subscription.stream, delivery);
                let place = |delivery: &Delivery| (delivery.queue, delivery.entry);
                let again = taken.iter().any(|entry| place(&entry.delivery) == place(delivery));
                !again && number.is_ok_and(|number| group.holds(owner, number, delivery))
            });
        }
        (!known.is_empty()).then(|| copy(known[planned.nth % known.len()]))
    }

    fn entry(
        &mut self,
        subscription: &Subscription,
        delivery: Delivery,
        planned: &PlannedEntry,
        chain: &mut HashMap<usize, u64>,
    ) -> SettlementEntry {
        let attempt = delivery.attempts + 1;
        let disposition = match &planned.does {
            Does::Commit { emits, writes, timers } => {
                // Without a state to write to, a handler cannot ask for writes.
                let writes = if planned.state.is_some() { &writes[..] } else { &[] };
                let value = |value: &Option<u8>| value.map(|value| value.to_string().into());
                let writes = writes.iter().map(|(name, new)| (NAMES[*name].to_owned(), value(new))).collect();
                let emits = emits.iter().map(|to_input| {
                    let stream = if *to_input { self.input.clone() } else { self.output.clone() };
                    Emitted { stream, body: self.body() }
                });
                let emits = emits.collect();
                let after = |later: &bool| if *later { HOUR } else { Duration::ZERO };
                let timers = timers.iter().map(|later| Timer { after: after(later), body: self.body() }).collect();
                Disposition::Commit(Effects { emits, writes, timers })
            }
            Does::Skip { duplicate } => Disposition::Skip { duplicate: *duplicate },
            Does::Retry { later } => {
                let after = if *later { HOUR } else { Duration::ZERO };
                Disposition::Retry { after, record: record(attempt) }
            }
            Does::DeadLetter { counted } => {
                let class = ReasonClass::ALL[planned.nth % ReasonClass::ALL.len()];
                let reason = Reason { class, text: format!("because {attempt}") };
                Disposition::DeadLetter { reason, record: counted.then(|| record(attempt)) }
            }
            Does::Quarantine => Disposition::Quarantine,
        };
        let state = planned.state.map(|(key, version)| {
            let now = self.model.group(subscription).states.get(KEYS[key]).map_or(0, |state| state.version);
            let chained = chain.entry(key).or_insert(now);
            let read = match version {
                Version::Chained => *chained,
                Version::Now => now,
                Version::Wrong => *chained + 1,
            };
            *chained += u64::from(matches!(&disposition, Disposition::Commit(e) if !e.writes.is_empty()));
            (KEYS[key].into(), read)
        });
        SettlementEntry { delivery, dedup_key: planned.dedup_key.map(mark_of), state, disposition }
    }

    async fn promote(&mut self, subscription: Subscription, max: usize) -> Result<()> {
        let promoted = self.backend.promote(&subscription, max).await?;
        self.tell(format!("{promoted:?}"));
        let group = self.model.group(&subscription);
        group.promote(max, promoted.moved)?;
        let counters = group.counters();
        let next_in = promoted.next_in;
        match (counters.due_now, counters.due) {
            (0, 0) => ensure!(next_in.is_none(), "nothing waits, but the next is due in {next_in:?}"),
            (0, _) => {
                let fits = |next_in| next_in > HOUR / 2 && next_in <= HOUR;
                ensure!(next_in.is_some_and(fits), "the next is due in an hour, not in {next_in:?}");
            }
            _ => ensure!(next_in == Some(Duration::ZERO), "the next is due now, not in {next_in:?}"),
        }
        Ok(())
    }

    async fn replay(&mut self, subscription: Subscription, nths: &[usize]) -> Result<()> {
        let seen = self.letters.entry(subscription.clone()).or_default();
        let ids: Vec<EntryId> = nths.iter().map(|nth| seen.get(*nth).copied().unwrap_or(EntryId(7, 7))).collect();
        let replayed = self.backend.replay(&subscription, &ids, &Operator::default()).await?;
        self.tell(format!("{ids:?}: {replayed}"));
        let expected = self.model.group(&subscription).replay(&ids);
        ensure!(replayed == expected, "{replayed} letters were replayed, not {expected}");
        self.count("replayed", replayed);
        Ok(())
    }

    async fn trim(&mut self, output: bool, maxlen: u64) -> Result<()> {
        let stream = if output { self.output.clone() } else { self.input.clone() };
        let trimmed = self.backend.trim(&stream, &Bounds { maxlen: Some(maxlen), ..Bounds::default() }).await?;
        self.tell(format!("{} were removed", trimmed.removed));
        self.count("trimmed", usize::try_from(trimmed.removed)?);
        self.model.trimmed(&stream, maxlen, &trimmed).context("trim")
    }
}
