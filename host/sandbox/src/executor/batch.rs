//! A batch of calls, one after the other on the thread that asks: from the events to what came of each.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::capability::ids::Ids;
use crate::component::plugin::Plugin;
use crate::worlds::handler::{Call, CallResult, Instance, NoInstance};
use tidemill_core::limits::INSTANCE_IDLE_MAX;
use tidemill_core::model::delivery::KeyState;
use tidemill_core::model::outcome::{Crash, Outcome};
use tidemill_schema::event::Event;

/// What the effects of one batch may take in the host's memory: no call is begun beyond it, so that a batch of greedy
/// events does not add up to more than one of them may have on top of this.
const BATCH_EFFECT_BYTES_MAX: usize = 16 << 20;

/// How often a thread looks for idle instances of its own: of versions that are no longer active, above all.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A batch of events for one plugin, or a part of one.
pub struct GuestBatch {
    pub plugin: Arc<Plugin>,
    pub stream: Arc<str>,
    pub now: Arc<str>,
    pub ids: Ids,
    pub calls: Vec<GuestCall>,
    /// The state of every key in the batch. Later events of a key see what earlier ones wrote.
    pub states: HashMap<Arc<str>, KeyState>,
    /// Of each call. It bounds the batch, too: after that no new call is begun and the rest is returned untouched, so that a slow
    /// event does not make its neighbours outlive their lease.
    pub deadline: Duration,
    /// When the batch's first call was begun, for all jobs that it was split into.
    pub begun: Arc<OnceLock<Instant>>,
    pub instance_events_max: u32,
    /// How many versions serve the handler now: so many instances are kept warm.
    pub versions: usize,
}

pub struct GuestCall {
    pub event: Arc<Event>,
    pub attempt: u32,
}

/// What came of each call that was begun, in order; or why not even the first could be: the host had no instance to
/// give, which says nothing about the events.
pub(crate) type Answer = Result<Vec<CallResult>, String>;

/// The warm instances of one thread: one for each version that serves a handler, the last used at the end, so that the
/// next batch finds it warm.
pub struct WarmInstances {
    of: HashMap<Arc<str>, Vec<Instance>>,
    swept: Instant,
}

impl Default for WarmInstances {
    fn default() -> Self {
        Self { of: HashMap::new(), swept: Instant::now() }
    }
}

impl WarmInstances {
    /// Ends those that have been idle for long. To be called every [`SWEEP_EVERY`], or more often.
    pub fn sweep(&mut self) {
        if self.swept.elapsed() >= SWEEP_EVERY {
            self.swept = Instant::now();
            self.of.values_mut().for_each(|kept| kept.retain(|instance| instance.idle() < INSTANCE_IDLE_MAX));
        }
    }
}

/// Runs a job on this thread.
pub fn run(warm: &mut WarmInstances, mut job: GuestBatch) -> Answer {
    let mut called = Vec::with_capacity(job.calls.len());
    let mut effect_bytes = 0;
    for index in 0..job.calls.len() {
        let mut first = false;
        let begun = job.begun.get_or_init(|| {
            first = true;
            Instant::now()
        });
        if !first && (begun.elapsed() >= job.deadline || effect_bytes >= BATCH_EFFECT_BYTES_MAX) {
            break;
        }
        match one_call(warm, &mut job, index) {
            Ok(one) => {
                effect_bytes += one.bytes();
                called.push(one);
            }
            // What ran before stands; the rest is returned untouched.
            Err(_) if index > 0 => break,
            Err(error) => return Err(format!("{error:#}")),
        }
    }
    Ok(called)
}

fn one_call(warm: &mut WarmInstances, job: &mut GuestBatch, index: usize) -> wasmtime::Result<CallResult> {
    let begun = Instant::now();
    let mut instance = match take_instance(warm, job) {
        Ok(instance) => instance,
        Err(NoInstance::Host(error)) => return Err(error),
        Err(NoInstance::Guest(crash, reason)) => {
            return Ok(CallResult { took: begun.elapsed(), ..CallResult::crashed(crash, reason) });
        }
    };
    let GuestCall { event, attempt } = &job.calls[index];
    // Lent to the guest's context for the time of the call, and taken back: a key may hold many values.
    let state = job.states.remove(event.key());
    let has_state = state.is_some();
    let KeyState { version, values } = state.unwrap_or_default();
    let values = Arc::new(values);
    let call = Call {
        event,
        stream: &job.stream,
        now: &job.now,
        ids: job.ids,
        attempt: *attempt,
        values: values.clone(),
        state_version: version,
        deadline: job.deadline,
    };
    // A panic in here is a fault of the host. It must not end the worker, and the event must not be retried for ever:
    // so it counts as a crash of this attempt.
    let ran = catch_unwind(AssertUnwindSafe(|| instance.call(&call)));
    drop(call);
    let panicked = |_| CallResult::crashed(Crash::Panic, "the host panicked while it ran the plugin".to_owned());
    let mut result = ran.unwrap_or_else(panicked);
    if !matches!(result.outcome, Outcome::Crashed { .. })
        && instance.calls() < job.instance_events_max
        && !instance.leaks()
    {
        let kept = warm.of.entry(job.plugin.handler.clone()).or_default();
        kept.push(instance);
        kept.drain(..kept.len().saturating_sub(job.versions));
    }
    if has_state {
        let mut state = KeyState { version, values: Arc::unwrap_or_clone(values) };
        if let Outcome::Done(effects) = &result.outcome {
            state.apply(effects.writes.clone());
        }
        job.states.insert(event.key().clone(), state);
    }
    result.took = begun.elapsed();
    Ok(result)
}

/// The warm instance of this very plugin version, or a fresh one. It is out of the map while it runs, so that a panic
/// cannot leave a broken one behind.
fn take_instance(warm: &mut WarmInstances, job: &GuestBatch) -> Result<Instance, NoInstance> {
    if let Some(kept) = warm.of.get_mut(&job.plugin.handler)
        && let Some(at) = kept.iter().position(|instance| Arc::ptr_eq(instance.plugin(), &job.plugin))
    {
        return Ok(kept.remove(at));
    }
    match Instance::new(&job.plugin) {
        Err(NoInstance::Host(_)) => {
            // Perhaps the pool is empty: the instances that this thread keeps warm are the first to go.
            warm.of.clear();
            Instance::new(&job.plugin)
        }
        made => made,
    }
}
