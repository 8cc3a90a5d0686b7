//! Shadow: the last events of a handler's streams, run on the version that is configured and on a candidate, side by
//! side. Both begin with the state as it is now, which then goes on in memory, for each of them apart. Nothing is settled,
//! published or written.

mod compare;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use uuid::Uuid;

use super::loading::Checked;
use compare::{Difference, differ, shown};
use tidemill_config::Config;
use tidemill_core::clock;
use tidemill_core::model::delivery::{EntryId, KeyState, Subscription};
use tidemill_core::model::outcome::Outcome;
use tidemill_sandbox::Plugin;
use tidemill_sandbox::capability::ids::Ids;
use tidemill_sandbox::executor::batch::{GuestBatch, GuestCall};
use tidemill_sandbox::executor::io_pool::IoPool;
use tidemill_sandbox::worlds::handler::CallResult;
use tidemill_schema::admit::{AdmitOptions, admit};
use tidemill_schema::event::Event;
use tidemill_storage::{self as storage, Backend};

/// Differences that are shown in full; the others are counted.
pub(crate) const SHOWN_MAX: usize = 10;
/// What the events of one stream take at most: beyond it, the oldest are left out.
const EVENT_BYTES_MAX: usize = 64 << 20;
/// What the state of their keys takes at most, for one of the two versions.
const STATE_BYTES_MAX: usize = 128 << 20;
/// Entries or keys that are read in one step.
const PAGE: usize = 100;
/// Calls are timed with two significant digits, up to ten minutes.
const TOP_US: u64 = 600_000_000;
/// What a candidate cannot do without an effect on the outside.
const OUTSIDE: &str = "tidemill:plugin/http";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the {which} version of \"{handler}\" asks for http: a request is an effect on the outside, so it cannot be run in the shadow\n  hint: try it as a canary instead ([handlers.{handler}] canary)"
    )]
    Outside { which: &'static str, handler: String },
    #[error(
        "the state of the keys of {subscription} takes more than {} MiB\n  hint: take fewer events with --last",
        STATE_BYTES_MAX >> 20
    )]
    State { subscription: String },
    #[error("cannot run the plugin: {0}")]
    Plugin(String),
    #[error(transparent)]
    Backend(#[from] storage::Error),
}

/// The two versions, and what their handler wants and may.
pub struct Shadow<'a> {
    pub config: &'a Config,
    pub checked: &'a Checked,
    pub current: Arc<Plugin>,
    pub candidate: Arc<Plugin>,
    pub workers: IoPool,
}

/// What came of it.
pub struct ShadowReport {
    /// Events that both versions were called with.
    pub events: u64,
    /// Entries that no plugin is called with: not wanted, not valid, or there before.
    pub skipped: u64,
    pub different: u64,
    pub kinds: BTreeMap<Difference, u64>,
    /// The first of them, in full.
    pub differences: Vec<Value>,
    current_us: Histogram<u64>,
    candidate_us: Histogram<u64>,
}

impl Shadow<'_> {
    /// Runs the last entries of each subscription.
    pub async fn run(
        &self,
        backend: &dyn Backend,
        subscriptions: &[Subscription],
        last: usize,
    ) -> Result<ShadowReport, Error> {
        for (which, plugin) in [("current", &self.current), ("candidate", &self.candidate)] {
            if plugin.imports.iter().any(|import| import.starts_with(OUTSIDE)) {
                return Err(Error::Outside { which, handler: plugin.handler.to_string() });
            }
        }
        let mut report = ShadowReport::new();
        for subscription in subscriptions {
            self.run_subscription(backend, subscription, last, &mut report).await?;
        }
        Ok(report)
    }

    async fn run_subscription(
        &self,
        backend: &dyn Backend,
        subscription: &Subscription,
        last: usize,
        report: &mut ShadowReport,
    ) -> Result<(), Error> {
        let entries = last_entries(backend, subscription, last, EVENT_BYTES_MAX).await?;
        let events = self.admitted(entries, report);
        let mut states = match self.current.has_state() || self.candidate.has_state() {
            true => states_of(backend, subscription, &events, STATE_BYTES_MAX).await?,
            false => HashMap::new(),
        };
        let mut candidate_states = states.clone();
        for (entry, event) in events {
            let now = clock::now_rfc3339();
            let current = self.call(&self.current, subscription, &now, &event, &mut states).await?;
            let candidate = self.call(&self.candidate, subscription, &now, &event, &mut candidate_states).await?;
            report.add(subscription, entry, &event, &current, &candidate);
        }
        Ok(())
    }

    /// The entries as events, oldest first: those that the handler would be called with, each id once.
    fn admitted(&self, entries: VecDeque<(EntryId, Bytes)>, report: &mut ShadowReport) -> Vec<(EntryId, Arc<Event>)> {
        let handler = &self.config.handlers[&*self.current.handler];
        let patterns = self.config.events_of(&self.current.handler);
        let wants = |kind: &str, version: u32| patterns.iter().any(|pattern| pattern.matches(kind, version));
        let payload_bytes_max = self.config.host.payload_bytes_max.as_u64() as usize;
        let terms = AdmitOptions { wants: &wants, key: &handler.key, payload_bytes_max };
        let (mut events, mut seen) = (Vec::new(), HashSet::<Uuid>::new());
        for (entry, bytes) in entries {
            match admit(&self.checked.schemas, &bytes, &terms) {
                Ok(event) if seen.insert(event.id()) => events.push((entry, Arc::new(event))),
                _ => report.skipped += 1,
            }
        }
        events
    }

    /// One call, whose writes go into the states if it is done.
    async fn call(
        &self,
        plugin: &Arc<Plugin>,
        subscription: &Subscription,
        now: &Arc<str>,
        event: &Arc<Event>,
        states: &mut HashMap<Arc<str>, KeyState>,
    ) -> Result<CallResult, Error> {
        let handler = &self.config.handlers[&*plugin.handler];
        let state = states.get(event.key()).cloned();
        let job = GuestBatch {
            plugin: plugin.clone(),
            stream: subscription.stream.clone(),
            now: now.clone(),
            // Nothing is published: both versions have the same, and that is all.
            ids: Ids::default(),
            calls: vec![GuestCall { event: event.clone(), attempt: 1 }],
            states: state.into_iter().map(|state| (event.key().clone(), state)).collect(),
            deadline: handler.deadline,
            instance_events_max: handler.instance_events_max,
            versions: 2,
            begun: Arc::default(),
        };
        let answer = self.workers.run(job).await.ok_or_else(|| Error::Plugin("its worker is gone".to_owned()))?;
        let called = answer.map_err(Error::Plugin)?.pop();
        let called = called.ok_or_else(|| Error::Plugin("its worker has not called it".to_owned()))?;
        if let (Outcome::Done(effects), Some(state)) = (&called.outcome, states.get_mut(event.key())) {
            state.apply(effects.writes.clone());
        }
        Ok(called)
    }
}

/// The newest entries of the stream, oldest first. The stream is read from its beginning: backends know no other way.
async fn last_entries(
    backend: &dyn Backend,
    subscription: &Subscription,
    last: usize,
    bytes_max: usize,
) -> Result<VecDeque<(EntryId, Bytes)>, Error> {
    let (mut kept, mut bytes, mut after) = (VecDeque::new(), 0, None);
    loop {
        let page = backend.entries(&subscription.stream, after, PAGE).await?;
        let full = page.len() == PAGE;
        for (entry, body) in page {
            after = Some(entry);
            bytes += body.len();
            kept.push_back((entry, body));
            while kept.len() > last || bytes > bytes_max {
                bytes -= kept.pop_front().map_or(0, |(_, body): (_, Bytes)| body.len());
            }
        }
        if !full {
            return Ok(kept);
        }
    }
}

/// The state of every key of these events, as it is now.
async fn states_of(
    backend: &dyn Backend,
    subscription: &Subscription,
    events: &[(EntryId, Arc<Event>)],
    bytes_max: usize,
) -> Result<HashMap<Arc<str>, KeyState>, Error> {
    let keys: HashSet<&Arc<str>> = events.iter().map(|(_, event)| event.key()).collect();
    let keys: Vec<Arc<str>> = keys.into_iter().cloned().collect();
    let (mut states, mut bytes) = (HashMap::new(), 0);
    let mut rest = &keys[..];
    while !rest.is_empty() {
        let found = backend.look_up(subscription, &[], &rest[..rest.len().min(PAGE)]).await?.states;
        let (read, later) = rest.split_at(found.len());
        for (key, state) in read.iter().zip(found) {
            bytes += state.bytes();
            states.insert(key.clone(), state);
        }
        rest = later;
        if bytes > bytes_max {
            return Err(Error::State { subscription: subscription.to_string() });
        }
    }
    Ok(states)
}

impl ShadowReport {
    fn new() -> Self {
        // The bounds are constants that the histogram accepts.
        let histogram = || Histogram::new_with_max(TOP_US, 2).expect("valid bounds");
        Self {
            events: 0,
            skipped: 0,
            different: 0,
            kinds: Difference::ALL.map(|kind| (kind, 0)).into(),
            differences: Vec::new(),
            current_us: histogram(),
            candidate_us: histogram(),
        }
    }

    fn add(
        &mut self,
        subscription: &Subscription,
        entry: EntryId,
        event: &Event,
        current: &CallResult,
        candidate: &CallResult,
    ) {
        self.events += 1;
        for (histogram, called) in [(&mut self.current_us, current), (&mut self.candidate_us, candidate)] {
            histogram.saturating_record(u64::try_from(called.took.as_micros()).unwrap_or(TOP_US));
        }
        let kinds = differ(&current.outcome, &candidate.outcome);
        if kinds.is_empty() {
            return;
        }
        self.different += 1;
        kinds.iter().for_each(|kind| *self.kinds.entry(*kind).or_default() += 1);
        if self.differences.len() < SHOWN_MAX {
            let kinds: Vec<&str> = kinds.into_iter().map(Difference::as_str).collect();
            self.differences.push(json!({
                "stream": *subscription.stream,
                "entry": entry.to_string(),
                "event_id": event.id().to_string(),
                "event_type": event.name().to_string(),
                "key": **event.key(),
                "differs": kinds,
                "current": shown(&current.outcome),
                "candidate": shown(&candidate.outcome),
            }));
        }
    }

    /// The median time of a call: of the current version, of the candidate.
    pub fn medians(&self) -> (Duration, Duration) {
        let median = |histogram: &Histogram<u64>| Duration::from_micros(histogram.value_at_quantile(0.5));
        (median(&self.current_us), median(&self.candidate_us))
    }
}

#[cfg(test)]
mod tests;
