//! A delivery: one stream entry handed to one handler, and what becomes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::dead_letter::{AttemptRecord, Reason};
pub use super::entry::{Body, EntryId, LARGE_PREFIX_BYTES, Large, Replayed};

/// One handler reading one stream: a consumer group (named like the handler) on that stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription {
    pub stream: Arc<str>,
    pub handler: Arc<str>,
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.handler, self.stream)
    }
}

/// Where a delivery was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// The stream itself.
    Stream,
    /// This handler's redelivery queue: due retries and timers, and replayed dead letters.
    Redelivery,
}

/// One stream entry handed to one handler. Owned and not `Clone`: it goes into exactly one settlement.
#[must_use = "a delivery that is not settled stays pending"]
#[derive(Debug)]
pub struct Delivery {
    pub queue: Queue,
    pub entry: EntryId,
    /// The entry of the input stream that all this began with; equal to `entry` on the stream.
    pub origin: EntryId,
    pub body: Body,
    /// Tries that failed so far, by the handler's own doing. The try now starting is number `attempts + 1`.
    pub attempts: u32,
    /// Times that a host died while this delivery was in flight. Counted apart: not the handler's doing.
    pub crashes: u32,
    /// The last of them died while it ran this delivery and nothing else.
    pub died_alone: bool,
    /// It runs with nothing else in flight in this host: taken out of quarantine for that.
    pub isolated: bool,
    /// One record for each failed try, oldest first.
    pub history: Vec<AttemptRecord>,
    /// If it was a dead letter before: which, and how often it has been replayed.
    pub replayed: Option<Replayed>,
}

impl Delivery {
    /// An entry that was never handed out before, nor came from anywhere else: its own origin, with nothing on its account.
    pub fn first(queue: Queue, entry: EntryId, body: Body) -> Self {
        Self {
            queue,
            entry,
            origin: entry,
            body,
            attempts: 0,
            crashes: 0,
            died_alone: false,
            isolated: false,
            history: Vec::new(),
            replayed: None,
        }
    }

    /// What it takes of memory, in bytes, about: its body, and the records of its attempts.
    pub fn bytes(&self) -> usize {
        self.body.bytes() + self.history.iter().map(AttemptRecord::bytes).sum::<usize>()
    }
}

/// The state of one handler for one event key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyState {
    /// 0 = never written. Each committed settlement that writes the key adds one.
    pub version: u64,
    pub values: BTreeMap<String, Bytes>,
}

impl KeyState {
    /// Its names and values, in bytes.
    pub fn bytes(&self) -> usize {
        self.values.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// What the state becomes when [`Effects::writes`] are committed.
    pub fn apply(&mut self, writes: BTreeMap<String, Option<Bytes>>) {
        if writes.is_empty() {
            return;
        }
        self.version += 1;
        for (name, value) in writes {
            match value {
                Some(value) => self.values.insert(name, value),
                None => self.values.remove(&name),
            };
        }
    }
}

/// What the plugin asked for. Nothing of it leaves the host before the settlement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    pub emits: Vec<Emitted>,
    /// The last write of each name; `None` deletes.
    pub writes: BTreeMap<String, Option<Bytes>>,
    pub timers: Vec<Timer>,
}

impl Effects {
    /// What they take of memory, in bytes, about.
    pub fn bytes(&self) -> usize {
        let emits = self.emits.iter().map(|emitted| emitted.body.len());
        let timers = self.timers.iter().map(|timer| timer.body.len());
        let writes = self.writes.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len));
        emits.chain(timers).chain(writes).sum()
    }
}

/// A delayed delivery to the same handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    pub after: std::time::Duration,
    /// An event of kind [`TIMER_KIND`](super::name::TIMER_KIND), complete with its envelope.
    pub body: Bytes,
}

/// An event that a plugin emitted: checked against its schema, complete with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    pub stream: Arc<str>,
    pub body: Bytes,
}

/// What the host decided to do with a delivery.
#[derive(Debug, Clone, PartialEq)]
pub enum Disposition {
    /// Effects, dedup key and ack, all at once.
    Commit(Effects),
    /// Ack, no effects: not wanted, or (a duplicate) one that was handled before.
    Skip { duplicate: bool },
    /// Ack, no effects: no host wants it, by what hosts agreed on under this number (`storage::Tended`).
    /// Nothing is done if that is another one by now.
    Pass { agreed: u64 },
    /// Not acked but left for another host, which wants it.
    Leave,
    /// Ack, and retry after this delay.
    Retry { after: std::time::Duration, record: AttemptRecord },
    /// Not acked but set aside, to be run in isolation: hosts died while it was in flight.
    Quarantine,
    /// Ack, and keep the exact bytes for a person to look at.
    DeadLetter { reason: Reason, record: Option<AttemptRecord> },
}

impl Disposition {
    /// How many timers it sets.
    pub fn timers(&self) -> usize {
        match self {
            Self::Commit(effects) => effects.timers.len(),
            _ => 0,
        }
    }
    /// Whether it writes state.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Commit(effects) if !effects.writes.is_empty())
    }
}
