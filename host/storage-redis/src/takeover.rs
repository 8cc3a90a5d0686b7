//! Takeover: reclaims the deliveries of dead consumers, and removes these; takes released deliveries, and quarantined
//! ones one at a time.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::keys;
use super::keys::Keys;
use super::reclaimed::{Claimed, Found, PAGE, QUEUES, key_of, name_of};
use super::record::WrittenBounds;
use super::script::{Arguments, IdleConsumersArgs, ReapConsumersArgs, ReclaimerArgs, SilentArgs, TakeoverArgs};
use super::value::Fields;
use super::witness::KnownPosition;
use super::{Redis, millis, value};
use tidemill_core::clock;
use tidemill_core::model::delivery::{Delivery, EntryId, Queue, Subscription};
use tidemill_storage::group::LEFT_FOR;
use tidemill_storage::{CRASH_WINDOW, CRASHED_WEIGHT, CRASHES_MAX, HEARTBEAT_MAX, Result};

/// Dead consumers with nothing pending that are removed in one call, and such calls in a row. They are many where hosts
/// came and went for long without any recovery.
const BURIALS_MAX: u64 = 2000;
const BURIAL_CALLS_MAX: usize = 50;

/// Lease of the elected reclaimer. Longer than the time between two recoveries, so that a live one keeps it; shorter
/// than a heartbeat, so that its own death delays nothing.
const RECLAIMER_LEASE: Duration = Duration::from_secs(3);

/// A consumer seen without a heartbeat for so long, by this host's own clock, has no lease any more.
const SILENT_LONG: Duration = Duration::from_secs(30);

/// Placeholder consumers: entries pending under them are in flight on no host; `common.lua` has them, too.
const RELEASED: &[u8] = b"(released)";
const QUARANTINE: &[u8] = b"(quarantine)";
const ELSEWHERE: &[u8] = b"(elsewhere)";

/// The consumer to reclaim from, and what is noted of its deliveries.
struct From<'a> {
    consumer: &'a [u8],
    note: Note,
    lease: Duration,
}

#[derive(Clone, Copy)]
enum Note {
    /// A host crashed while processing it.
    Crash,
    /// Nothing: it was released.
    Nothing,
    /// It will be run alone.
    Suspect,
}

impl Note {
    /// As the script calls it.
    fn letter(self) -> &'static str {
        match self {
            Self::Crash => "c",
            Self::Nothing => "r",
            Self::Suspect => "s",
        }
    }
}

impl Redis {
    /// Adds to `found` what was released, and what dead consumers have had for longer than `lease`.
    pub(super) async fn claim_from_others(
        &self,
        subscription: &Subscription,
        keys: &Keys,
        consumer: &str,
        lease: Duration,
        found: &mut Found,
    ) -> Result<Claimed> {
        if found.is_full() || !self.is_reclaimer(subscription, keys, consumer).await? {
            return Ok(Claimed::default());
        }
        self.reap_consumers(subscription, keys, lease).await?;
        let (mut suspects, mut quarantined) = (0, Vec::new());
        for other in self.dead_consumers(subscription, keys, consumer).await? {
            let from = match &*other.name {
                ELSEWHERE => continue,
                QUARANTINE => {
                    suspects += other.pending.iter().map(|(_, pending)| pending).sum::<u64>();
                    continue;
                }
                RELEASED => From { consumer: RELEASED, note: Note::Nothing, lease: Duration::ZERO },
                // By the server's clock. If that was set back, delivery times lie in the future: so also by what this
                // host has observed.
                dead => {
                    let lease = if other.silent >= lease.max(SILENT_LONG) { Duration::ZERO } else { lease };
                    From { consumer: dead, note: Note::Crash, lease }
                }
            };
            for (queue, pending) in other.pending {
                while pending > 0 && !found.is_full() {
                    let count = found.room().min(PAGE);
                    let begun = found.deliveries.len();
                    let aside = self.claim(subscription, keys, queue, consumer, &from, count, found).await?;
                    let claimed = found.deliveries.len() - begun;
                    // Fewer come at a time after several crashes: the next call gets the others.
                    found.more |= claimed > 0 && ((claimed + aside.len()) as u64) < pending;
                    suspects += aside.len() as u64;
                    quarantined.extend(aside.into_iter().map(|id| (queue, id)));
                    if claimed < count {
                        break;
                    }
                }
            }
        }
        Ok(Claimed { suspects, quarantined })
    }

    /// Removes dead consumers that have nothing, before the others are listed: a list of all might be long.
    /// Queues with something pending are left to `claim`, which knows when the last of it is gone.
    async fn reap_consumers(&self, subscription: &Subscription, keys: &Keys, lease: Duration) -> Result<()> {
        let list = IdleConsumersArgs {
            stream: keys.stream(),
            redelivery: keys.redelivery(),
            group: &subscription.handler,
            lease_ms: millis(lease),
            max: BURIALS_MAX,
        };
        let list = list.call();
        for _ in 0..BURIAL_CALLS_MAX {
            let idle = value::array(self.run_script(&list, subscription).await?)?;
            let idle = idle.into_iter().map(value::bytes).collect::<Result<Vec<_>>>()?;
            let all = idle.len() as u64;
            let silent = self.without_heartbeat(subscription, idle, |name| name).await?;
            if silent.is_empty() {
                break;
            }
            let arguments = ReapConsumersArgs {
                stream: keys.stream(),
                redelivery: keys.redelivery(),
                group: &subscription.handler,
            };
            let mut reap = arguments.call();
            reap.cmd.arg(&silent);
            self.run_script(&reap, subscription).await?;
            if all < BURIALS_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Those of some consumers that have no heartbeat. In one call, because they may be many.
    async fn without_heartbeat<T>(
        &self,
        subscription: &Subscription,
        consumers: Vec<T>,
        name: impl Fn(&T) -> &Vec<u8>,
    ) -> Result<Vec<T>> {
        if consumers.is_empty() {
            return Ok(consumers);
        }
        let heartbeat = |consumer: &T| [keys::HEARTBEAT_PREFIX.as_bytes(), name(consumer)].concat();
        let heartbeats: Vec<Vec<u8>> = consumers.iter().map(heartbeat).collect();
        let call = SilentArgs { longest_ms: millis(HEARTBEAT_MAX) }.call_with(&heartbeats, 0, 0);
        let silent = value::array(self.run_script(&call, subscription).await?)?;
        let consumers = consumers.into_iter().zip(silent);
        Ok(consumers.filter(|(_, silent)| *silent == Value::Int(1)).map(|(consumer, _)| consumer).collect())
    }

    /// Whether this consumer is the elected reclaimer. There is one at a time: with many hosts, searching would cost
    /// more than what is found. Two at once do no harm, the scripts ensure that. There is none while heartbeats cannot
    /// be trusted.
    async fn is_reclaimer(&self, subscription: &Subscription, keys: &Keys, consumer: &str) -> Result<bool> {
        let arguments = ReclaimerArgs { reclaimer: keys.reclaimer(), consumer, ttl_ms: millis(RECLAIMER_LEASE) };
        let at = clock::since_boot();
        let mut answer = Fields::of(self.run_script(&arguments.call(), subscription).await?)?;
        let believed = self.witness.look(subscription, KnownPosition { ms: answer.count("now_ms")?, at });
        Ok(answer.count("elected")? == 1 && believed)
    }

    /// Takes one delivery out of quarantine.
    pub(super) async fn take_from_quarantine(
        &self,
        subscription: &Subscription,
        consumer: &str,
    ) -> Result<Option<Delivery>> {
        let keys = Keys::of(subscription);
        let from = From { consumer: QUARANTINE, note: Note::Suspect, lease: Duration::ZERO };
        for queue in QUEUES {
            let mut found = Found::new(1, usize::MAX);
            self.claim(subscription, &keys, queue, consumer, &from, 1, &mut found).await?;
            if let Some(suspect) = found.deliveries.pop() {
                return Ok(Some(suspect));
            }
        }
        Ok(None)
    }

    /// Takes what was left for other hosts. What has just been left waits: those hosts may fetch it yet.
    pub(super) async fn take_what_was_left(
        &self,
        subscription: &Subscription,
        consumer: &str,
        max: usize,
    ) -> Result<Vec<Delivery>> {
        let (keys, mut found) = (Keys::of(subscription), Found::new(max, self.options.fetch_bytes_max));
        let from = From { consumer: ELSEWHERE, note: Note::Nothing, lease: LEFT_FOR };
        self.claim(subscription, &keys, Queue::Stream, consumer, &from, max, &mut found).await?;
        Ok(found.deliveries)
    }

    /// Reclaims up to `count` and reads them. Returns which went into quarantine.
    #[expect(clippy::too_many_arguments, reason = "of one subscription's queue, from one consumer to another")]
    async fn claim(
        &self,
        subscription: &Subscription,
        keys: &Keys,
        queue: Queue,
        consumer: &str,
        from: &From<'_>,
        count: usize,
        found: &mut Found,
    ) -> Result<Vec<EntryId>> {
        let arguments = TakeoverArgs {
            queue: key_of(keys, queue),
            crashes: keys.crashes(),
            dead: keys.dead(),
            stats: keys.stats(),
            group: &subscription.handler,
            consumer,
            holder: from.consumer,
            lease_ms: millis(from.lease),
            max: count,
            queue_name: name_of(queue),
            letter_bounds: WrittenBounds::of(&self.options),
            note: from.note.letter(),
            crash_window_ms: millis(CRASH_WINDOW),
            crashes_max: CRASHES_MAX,
            crashed_weight: CRASHED_WEIGHT,
        };
        let mut answer = Fields::of(self.run_script(&arguments.call(), subscription).await?)?;
        let mut accounts = HashMap::new();
        let ids = answer.list("ids")?;
        for ((id, crashes), alone) in ids.iter().zip(answer.list("crashes")?).zip(answer.list("alone")?) {
            accounts.insert(value::entry_id(id)?, (value::to_u32(value::count(&crashes)?), value::count(&alone)? == 1));
        }
        let begun = found.deliveries.len();
        self.read_again(subscription, keys, queue, consumer, accounts.keys().copied().collect(), found).await?;
        for delivery in &mut found.deliveries[begun..] {
            let (crashes, alone) = accounts.get(&delivery.entry).copied().unwrap_or_default();
            delivery.crashes = delivery.crashes.saturating_add(crashes);
            delivery.died_alone = alone;
        }
        answer.list("quarantined")?.iter().map(value::entry_id).collect()
    }

    /// The consumers of the group that have no heartbeat.
    async fn dead_consumers(
        &self,
        subscription: &Subscription,
        keys: &Keys,
        consumer: &str,
    ) -> Result<Vec<DeadConsumer>> {
        let mut ask = Pipeline::with_capacity(2);
        for queue in QUEUES {
            ask.cmd("XINFO").arg("CONSUMERS").arg(key_of(keys, queue)).arg(&*subscription.handler);
        }
        let mut others: HashMap<Vec<u8>, DeadConsumer> = HashMap::new();
        for (queue, answer) in QUEUES.into_iter().zip(self.run_all(&ask, subscription).await?) {
            for row in value::array(answer)? {
                let (name, pending) = consumer_row(row)?;
                if name == consumer.as_bytes() {
                    continue;
                }
                let other = others.entry(name.clone()).or_insert_with(|| DeadConsumer::new(name));
                other.pending[queue as usize].1 = pending;
            }
        }
        let mut dead = self
            .without_heartbeat(subscription, others.into_values().collect(), |other: &DeadConsumer| &other.name)
            .await?;
        let names: Vec<&[u8]> = dead.iter().map(|dead| &*dead.name).collect();
        let times = self.witness.silent(subscription, &names, clock::since_boot());
        dead.iter_mut().zip(times).for_each(|(dead, time)| dead.silent = time);
        Ok(dead)
    }
}

struct DeadConsumer {
    /// Ours are text; another program's may be any bytes.
    name: Vec<u8>,
    /// On each of the [`QUEUES`].
    pending: [(Queue, u64); 2],
    /// How long it has been seen to have no heartbeat.
    silent: Duration,
}

impl DeadConsumer {
    fn new(name: Vec<u8>) -> Self {
        Self { name, pending: QUEUES.map(|queue| (queue, 0)), silent: Duration::ZERO }
    }
}

fn consumer_row(row: Value) -> Result<(Vec<u8>, u64)> {
    let (mut name, mut pending) = (Vec::new(), 0);
    let mut fields = value::array(row)?.into_iter();
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        match &value::bytes(field)?[..] {
            b"name" => name = value::bytes(value)?,
            b"pending" => pending = value::count(&value)?,
            _ => {}
        }
    }
    Ok((name, pending))
}
