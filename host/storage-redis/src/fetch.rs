//! Fetching: taking new entries from both queues of a subscription.
//!
//! COUNT goes for each queue by itself, and no more than `max` may be handed out in all, so the queues have to share. A
//! reader that finds little waits on both queues at once with half of `max` for each: one round trip, and the shortest
//! way from publish to handler. Once a queue gives all that was asked for there is a backlog, and the reader stops
//! waiting: it asks both queues in one round trip, by shares that follow what they had last time.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Pipeline, Value};
use tokio::sync::Mutex;

use super::keys::Keys;
use super::link::Link;
use super::value;
use super::value::RawEntry;
use super::{Redis, error, record, replies};
use tidemill_core::model::delivery::{Delivery, Queue, Subscription};
use tidemill_storage::{Fetched, Result};

/// How much later than the end of its wait an answer may come.
const ANSWER_MARGIN: Duration = Duration::from_secs(10);
/// With `max` = 1 only one queue can be waited on. The other is looked at this often.
const SINGLE_WAIT_MAX: Duration = Duration::from_millis(100);

/// One reader for each subscription and consumer.
#[derive(Default)]
pub(super) struct Readers(std::sync::Mutex<ReaderMap>);

type ReaderMap = HashMap<(Subscription, String), Arc<Mutex<Reader>>>;

impl Readers {
    fn of(&self, subscription: &Subscription, consumer: &str, new: impl FnOnce() -> Reader) -> Arc<Mutex<Reader>> {
        let mut readers = self.lock();
        readers
            .entry((subscription.clone(), consumer.to_owned()))
            .or_insert_with(|| Arc::new(Mutex::new(new())))
            .clone()
    }

    /// Closes the connections of a consumer that deregisters.
    pub(crate) fn close(&self, consumer: &str) {
        self.lock().retain(|(_, name), _| name != consumer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ReaderMap> {
        // The map is whole at any time: a panic elsewhere is no reason to stop reading.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Reader {
    link: Arc<Link>,
    subscription: Subscription,
    consumer: String,
    stream: String,
    redelivery: String,
    /// The last read found a backlog.
    busy: bool,
    /// The redelivery queue gave all that it was asked for.
    redelivery_full: bool,
    /// The stream had nothing.
    input_empty: bool,
    /// Counts the single fetches, so that each queue has its turn.
    turn: u32,
    /// How many entries are asked for at most; none before the first time. What comes is bounded in bytes, but the
    /// server has to send all of it: so where entries are large, few are asked for.
    count: Option<usize>,
}

/// What is asked for at first if the size of entries is unknown. It doubles as long as they have room.
const COUNT_FIRST: usize = 16;
/// How many times what there is room for may be asked for at first: it is an estimate.
const ROOM_TIMES: u64 = 4;

type Raw = Vec<(Queue, RawEntry)>;

impl Redis {
    pub(super) async fn fetch_batch(
        &self,
        subscription: &Subscription,
        consumer: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Fetched> {
        if max == 0 {
            return Ok(Fetched::default());
        }
        let bounds = super::reply_bounds(&self.options);
        let link =
            || if self.one_task { self.link.clone() } else { Arc::new(Link::gated(self.client.clone(), bounds)) };
        let reader = self.readers.of(subscription, consumer, || Reader::new(link(), subscription, consumer));
        let mut reader = reader.lock().await;
        let count = match reader.count {
            Some(count) => count,
            None => reader.first_count(self.options.fetch_bytes_max).await,
        };
        let raw = match max.min(count) {
            1 => reader.read_one(wait).await,
            max => reader.read(max, wait).await,
        };
        // It may be that so many of these entries take longer than there is time.
        if raw.is_err() {
            reader.count = Some((count.min(max) / 2).max(1));
        }
        let fetched = deliveries(raw.map_err(|failure| failure.meaning(&self.at, subscription))?)?;
        let of_stream = fetched.deliveries.iter().filter(|delivery| delivery.queue == Queue::Stream);
        if let Some(last) = of_stream.map(|delivery| delivery.entry).max() {
            self.note_handed_out(subscription, last);
        }
        reader.count = Some(match fetched.more {
            true => (count.min(max) / 2).max(1),
            false if fetched.deliveries.is_empty() => count,
            false => count.saturating_mul(2),
        });
        Ok(fetched)
    }

    /// What XREADGROUP answered for both queues of a subscription. Needs no server, so that it can be measured by
    /// itself.
    pub fn decode(answer: Value, subscription: &Subscription) -> Result<Fetched> {
        deliveries(by_queue(answer, &Keys::of(subscription).redelivery())?)
    }
}

fn deliveries(raw: Raw) -> Result<Fetched> {
    let all = raw.len();
    let held = raw.into_iter().filter(|(_, (_, fields))| !fields.as_deref().is_some_and(replies::is_left));
    let deliveries: Vec<Delivery> =
        held.map(|(queue, (id, fields))| record::delivery(queue, id, fields)).collect::<Result<_>>()?;
    Ok(Fetched { more: deliveries.len() < all, deliveries })
}

fn by_queue(answer: Value, redelivery: &str) -> Result<Raw> {
    let mut raw = Vec::new();
    for (key, entries) in value::read_streams(answer)? {
        let of = if key == redelivery.as_bytes() { Queue::Redelivery } else { Queue::Stream };
        raw.extend(tagged(of, entries));
    }
    Ok(raw)
}

/// A read either gets no proper answer from the server, or one of an odd form.
enum Failure {
    Redis(redis::RedisError),
    Form(tidemill_storage::Error),
}

impl Failure {
    fn meaning(self, at: &str, subscription: &dyn Display) -> tidemill_storage::Error {
        match self {
            Self::Redis(error) => error::meaning(at, subscription, &error),
            Self::Form(error) => error,
        }
    }
}

impl From<redis::RedisError> for Failure {
    fn from(error: redis::RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<tidemill_storage::Error> for Failure {
    fn from(error: tidemill_storage::Error) -> Self {
        Self::Form(error)
    }
}

impl Reader {
    fn new(link: Arc<Link>, subscription: &Subscription, consumer: &str) -> Self {
        let keys = Keys::of(subscription);
        Self {
            link,
            subscription: subscription.clone(),
            consumer: consumer.to_owned(),
            stream: keys.stream(),
            redelivery: keys.redelivery(),
            busy: false,
            redelivery_full: false,
            input_empty: false,
            turn: 0,
            count: None,
        }
    }

    /// How many entries there is room for, going by what the stream takes of the server's memory.
    async fn first_count(&self, bytes_max: usize) -> usize {
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("XLEN").arg(&self.stream).cmd("MEMORY").arg("USAGE").arg(&self.stream);
        // Not every user may run these.
        let Ok(answers) = self.link.send_all(&ask).await else { return COUNT_FIRST };
        let [Value::Int(length), Value::Int(bytes)] = answers[..] else { return COUNT_FIRST };
        let entry_bytes = bytes.unsigned_abs() / length.unsigned_abs().max(1);
        usize::try_from(ROOM_TIMES * bytes_max as u64 / entry_bytes.max(1)).unwrap_or(usize::MAX).max(1)
    }

    /// `max` is at least 2: each queue can be asked for something.
    async fn read(&mut self, max: usize, wait: Duration) -> std::result::Result<Raw, Failure> {
        if self.busy {
            let raw = self.read_backlog(max).await?;
            if !raw.is_empty() {
                return Ok(raw);
            }
        }
        let each = max / 2;
        let raw = self.read_both(each, wait).await?;
        let on = |queue| raw.iter().filter(|(l, _)| *l == queue).count();
        (self.redelivery_full, self.input_empty) = (on(Queue::Redelivery) == each, on(Queue::Stream) == 0);
        self.busy = self.redelivery_full || on(Queue::Stream) == each;
        Ok(raw)
    }

    /// Both queues by shares, without waiting. A queue that had little is asked for one entry, to see whether that has
    /// changed; the other gets the rest.
    async fn read_backlog(&mut self, max: usize) -> std::result::Result<Raw, Failure> {
        let redelivery_share = match (self.redelivery_full, self.input_empty) {
            (true, false) => max / 2,
            (_, true) => max - 1,
            (false, false) => 1,
        };
        let input_share = max - redelivery_share;
        let mut both = Pipeline::with_capacity(2);
        both.add_command(self.command(redelivery_share, None, &[&self.redelivery]));
        both.add_command(self.command(input_share, None, &[&self.stream]));
        let [redelivery, input] = value::tuple(Value::Array(self.link.send_all(&both).await?))?;
        let (redelivery, input) = (value::read_entries(redelivery)?, value::read_entries(input)?);
        (self.redelivery_full, self.input_empty) = (redelivery.len() == redelivery_share, input.is_empty());
        self.busy = self.redelivery_full || input.len() == input_share;
        Ok(tagged(Queue::Redelivery, redelivery).chain(tagged(Queue::Stream, input)).collect())
    }

    /// One entry, from either queue: `Redelivery` comes first at every fourth time. Both cannot be asked at once,
    /// because both might answer.
    async fn read_one(&mut self, wait: Duration) -> std::result::Result<Raw, Failure> {
        let deadline = Instant::now() + wait;
        self.turn = self.turn.wrapping_add(1);
        let queues = if self.turn.is_multiple_of(4) {
            [Queue::Redelivery, Queue::Stream]
        } else {
            [Queue::Stream, Queue::Redelivery]
        };
        loop {
            for queue in queues {
                let found = self.read_queue(queue, None).await?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now()).min(SINGLE_WAIT_MAX);
            if left.is_zero() {
                return Ok(Vec::new());
            }
            let found = self.read_queue(Queue::Stream, Some(left)).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    async fn read_queue(&self, of: Queue, wait: Option<Duration>) -> std::result::Result<Raw, Failure> {
        let key = if of == Queue::Redelivery { &self.redelivery } else { &self.stream };
        let answer = self.send(&self.command(1, wait, &[key]), wait).await?;
        Ok(tagged(of, value::read_entries(answer)?).collect())
    }

    async fn read_both(&self, count: usize, wait: Duration) -> std::result::Result<Raw, Failure> {
        let wait = (!wait.is_zero()).then_some(wait);
        let command = self.command(count, wait, &[&self.redelivery, &self.stream]);
        Ok(by_queue(self.send(&command, wait).await?, &self.redelivery)?)
    }

    async fn send(&self, command: &Cmd, wait: Option<Duration>) -> redis::RedisResult<redis::Value> {
        self.link.send_within(command, wait.unwrap_or_default() + ANSWER_MARGIN).await
    }

    fn command(&self, count: usize, wait: Option<Duration>, keys: &[&String]) -> Cmd {
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP").arg(&*self.subscription.handler).arg(&self.consumer).arg("COUNT").arg(count);
        if let Some(wait) = wait {
            // BLOCK 0 would mean for ever.
            cmd.arg("BLOCK").arg(super::millis(wait).max(1));
        }
        cmd.arg("STREAMS").arg(keys);
        for _ in keys {
            cmd.arg(">");
        }
        cmd
    }
}

fn tagged(queue: Queue, entries: Vec<RawEntry>) -> impl Iterator<Item = (Queue, RawEntry)> {
    entries.into_iter().map(move |entry| (queue, entry))
}
