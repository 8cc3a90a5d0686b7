//! One call into a guest: an instance in, an outcome out. A trap, a deadline or a host error ends the instance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;
use wasmtime::{Store, Trap};

use crate::abi::latest::HandlerPlugin;
use crate::abi::latest::exports::tidemill::plugin::handler::{Event as GuestEvent, Failure};
use crate::abi::latest::tidemill::plugin::types::RetryHint;
use crate::capability::context::{Attempt, Context, REASON_BYTES_MAX, Violation, bytes_of, truncate};
use crate::capability::http::outbound::SentRequest;
use crate::capability::ids::Ids;
use crate::capability::meter::Stop;
use crate::component::plugin::Plugin;
use crate::engine::Engine;
use tidemill_config as config;
use tidemill_core::model::outcome::{Crash, Outcome, Truncation};
use tidemill_schema::event::Event;

/// How long a component may take to start, its `lifecycle.init` included.
const START_MAX: Duration = Duration::from_secs(1);

/// One instance. Not to be used again once `call` has returned `Crashed`.
pub struct Instance {
    plugin: Arc<Plugin>,
    store: Store<Context>,
    handler: HandlerPlugin,
    calls: u32,
    /// When it was called last.
    used: Option<Instant>,
}

/// What one call needs to know.
pub struct Call<'a> {
    pub event: &'a Arc<Event>,
    pub stream: &'a Arc<str>,
    pub now: &'a Arc<str>,
    pub ids: Ids,
    /// 1 = the first try.
    pub attempt: u32,
    /// The state of the event's key, and its version.
    pub values: Arc<BTreeMap<String, Bytes>>,
    pub state_version: u64,
    pub deadline: Duration,
}

/// What came of one call.
pub struct CallResult {
    pub outcome: Outcome,
    /// The version of the key's state that the outcome depends on, if the guest read or wrote it.
    pub state_version: Option<u64>,
    /// With the time that it took to have an instance.
    pub took: Duration,
    /// Truncations of the plugin's output.
    pub(crate) truncated: Vec<Truncation>,
    /// The requests that it made.
    pub sent: Vec<SentRequest>,
}

impl CallResult {
    /// The limits that it reached, as metrics call them.
    pub fn limits(&self) -> impl Iterator<Item = &'static str> {
        let crash = match &self.outcome {
            Outcome::Crashed { crash, .. } if crash.is_limit() => Some(crash.as_str()),
            _ => None,
        };
        crash.into_iter().chain(self.truncated.iter().map(|cut| cut.as_str()))
    }

    /// What the host has to keep of it until it is settled.
    pub(crate) fn bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Done(effects) => effects.bytes(),
            _ => 0,
        }
    }

    /// What counts as a crash of the guest, though the guest did not get as far.
    pub fn crashed(crash: Crash, reason: String) -> Self {
        let outcome = Outcome::Crashed { crash, reason, log: Vec::new() };
        Self { outcome, state_version: None, took: Duration::ZERO, truncated: Vec::new(), sent: Vec::new() }
    }
}

/// Why there is no instance.
#[derive(Debug)]
pub enum NoInstance {
    /// The guest's start was stopped, or broke: that counts as a crash.
    Guest(Crash, String),
    /// The host has none to give: out of instances, out of address space. It says nothing about the guest.
    Host(wasmtime::Error),
}

impl Instance {
    /// Makes a fresh instance.
    pub fn new(plugin: &Arc<Plugin>) -> Result<Self, NoInstance> {
        let limits = &plugin.terms.limits;
        let mut store = Store::new(plugin.pre.engine(), Context::new(plugin.terms.clone()));
        store.limiter(|context| &mut context.meter);
        store.set_hostcall_fuel(bytes_of(limits.hostcall_bytes));
        store.set_max_component_handles(limits.handles);
        // A start function may run here.
        store.set_epoch_deadline(Engine::ticks(START_MAX));
        let broke = |error: wasmtime::Error| match crash(&error, START_MAX, limits) {
            // No word of the guest's own code in it.
            (Crash::Trap, _) if error.downcast_ref::<Trap>().is_none() => NoInstance::Host(error),
            (crash, reason) => NoInstance::Guest(crash, truncate(reason, REASON_BYTES_MAX)),
        };
        let instance = plugin.pre.instantiate(&mut store).map_err(broke)?;
        let handler = plugin.handles.load(&mut store, &instance).map_err(broke)?;
        if let Some(lifecycle) = &plugin.lifecycle {
            let lifecycle = lifecycle.load(&mut store, &instance).map_err(broke)?;
            let answer = lifecycle.tidemill_plugin_lifecycle().call_init(&mut store).map_err(broke)?;
            store.data_mut().flush_stdio();
            // It belongs to no delivery: what it asked for takes no effect, and what it was refused refuses it.
            let attempt = std::mem::take(&mut store.data_mut().attempt);
            let refused = attempt.refused.map(|refused| refused.reason);
            if let Some(reason) = answer.err().or(refused) {
                let reason = plugin.terms.secrets.redact(format!("lifecycle.init: {reason}"));
                return Err(NoInstance::Guest(Crash::Init, truncate(reason, REASON_BYTES_MAX)));
            }
        }
        Ok(Self { plugin: plugin.clone(), store, handler, calls: 0, used: None })
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Since it was called last.
    pub fn idle(&self) -> Duration {
        self.used.map_or(Duration::ZERO, |used| used.elapsed())
    }

    /// Calls into the guest so far.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Whether a fresh instance should take its place, though it ended its last call well.
    pub(crate) fn leaks(&self) -> bool {
        self.store.data().leaks()
    }

    pub fn call(&mut self, call: &Call<'_>) -> CallResult {
        let begun = Instant::now();
        (self.calls, self.used) = (self.calls + 1, Some(begun));
        self.store.set_epoch_deadline(Engine::ticks(call.deadline));
        self.store.data_mut().attempt = Attempt {
            event: Some(call.event.clone()),
            stream: call.stream.clone(),
            now: call.now.clone(),
            ids: call.ids,
            values: Some(call.values.clone()),
            ends: begun.checked_add(call.deadline),
            ..Attempt::default()
        };
        let mut id = Uuid::encode_buffer();
        let event = GuestEvent {
            id: call.event.id().hyphenated().encode_lower(&mut id),
            kind: &call.event.name().kind,
            version: call.event.name().version,
            key: call.event.key(),
            attempt: call.attempt,
            data: call.event.data(),
        };
        let result = self.handler.tidemill_plugin_handler().call_handle(&mut self.store, event);
        self.store.data_mut().flush_stdio();
        let attempt = std::mem::take(&mut self.store.data_mut().attempt);
        self.ran(result, attempt, call)
    }

    fn ran(&self, result: wasmtime::Result<Result<(), Failure>>, mut attempt: Attempt, call: &Call<'_>) -> CallResult {
        if let Ok(Err(Failure::Retry(RetryHint { reason, .. }) | Failure::Reject(reason))) = &result
            && reason.len() > REASON_BYTES_MAX
        {
            attempt.leave_out(Truncation::ReasonBytes);
        }
        let (truncated, sent) = (std::mem::take(&mut attempt.truncated), std::mem::take(&mut attempt.sent));
        CallResult {
            state_version: attempt.state_touched.then_some(call.state_version),
            outcome: self.outcome(result, attempt, call.deadline),
            took: Duration::ZERO,
            truncated,
            sent,
        }
    }

    fn outcome(&self, result: wasmtime::Result<Result<(), Failure>>, attempt: Attempt, deadline: Duration) -> Outcome {
        let Attempt { refused, log, effects, .. } = attempt;
        match (result, refused) {
            (Err(error), refused) => {
                let (crash, reason) = crash(&error, deadline, &self.plugin.terms.limits);
                // The limit that was reached first is the cause; what came of it is told after it.
                let (crash, reason) = match refused {
                    Some(Violation { crash: Some(first), reason: why, .. }) => {
                        (first, format!("{why}\nthen {}: {reason}", crash.as_str()))
                    }
                    _ => (crash, reason),
                };
                Outcome::Crashed { crash, reason: self.said(reason), log }
            }
            // Whatever the guest made of a refusal: the refusal decides.
            (Ok(_), Some(Violation { crash: Some(crash), reason, .. })) => Outcome::Crashed { crash, reason, log },
            (Ok(_), Some(Violation { looped: true, reason, .. })) => Outcome::Looped { reason, log },
            (Ok(_), Some(Violation { reason, .. })) => Outcome::Rejected { reason, log },
            (Ok(Ok(())), None) => Outcome::Done(effects),
            (Ok(Err(Failure::Retry(hint))), None) => {
                Outcome::Failed { reason: self.said(hint.reason), after: hint.after_ms.map(Duration::from_millis), log }
            }
            (Ok(Err(Failure::Reject(reason))), None) => Outcome::Rejected { reason: self.said(reason), log },
        }
    }

    /// The guest's own words, without its secrets and not too many.
    fn said(&self, reason: String) -> String {
        truncate(self.plugin.terms.secrets.redact(reason), REASON_BYTES_MAX)
    }
}

/// Tells the ways apart in which a guest ends badly.
fn crash(error: &wasmtime::Error, deadline: Duration, limits: &config::Limits) -> (Crash, String) {
    if let Some(Stop { crash, reason }) = error.root_cause().downcast_ref::<Stop>() {
        return (*crash, reason.clone());
    }
    let cause = error.root_cause().to_string();
    // wasmtime has no type for these two.
    if cause.contains("fuel allocated for hostcalls") {
        let max = bytes_of(limits.hostcall_bytes);
        let reason = format!("it handed the host more than {max} bytes in one call (limits.hostcall_bytes)");
        return (Crash::HostcallBytes, reason);
    }
    if cause.contains("store handle limit exceeded") {
        let max = limits.handles;
        return (Crash::Handles, format!("it held more than {max} handles of resources (limits.handles)"));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => {
            (Crash::Deadline, format!("stopped after its deadline of {}", humantime::format_duration(deadline)))
        }
        Some(Trap::StackOverflow) => (Crash::Stack, format!("call stack exhausted (plugins.stack)\n{error}")),
        // The cause first: what is shown of a reason in a list is its beginning.
        _ => (Crash::Trap, format!("{cause}\n{error}")),
    }
}
