//! One call into a guest: a live instance in, an outcome out. A trap, a deadline or a host error ends the instance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::{Store, Trap};

use super::abi::latest::HandlerPlugin;
use super::abi::latest::exports::tidemill::plugin::handler::{Event as GuestEvent, Failure};
use super::{Engine, Plugin};
use crate::capability::context::{Attempt, Context, Stop};
use crate::model::event::Event;
use crate::model::outcome::{Crash, Outcome};

/// What a guest says as its reason is cut to this many bytes.
const REASON_BYTES_MAX: usize = 4096;

/// How long a component may take to start.
const START_MAX: Duration = Duration::from_secs(1);

/// One live instance. Not to be used again once `call` has said `Crashed`.
pub struct Live {
    plugin: Arc<Plugin>,
    store: Store<Context>,
    handler: HandlerPlugin,
    calls: u32,
}

/// What one call needs to know.
pub struct Call<'a> {
    pub event: &'a Arc<Event>,
    pub stream: &'a Arc<str>,
    pub now: &'a Arc<str>,
    /// 1 = the first try.
    pub attempt: u32,
    pub values: Arc<BTreeMap<String, Bytes>>,
    pub deadline: Duration,
}

pub struct Ran {
    pub outcome: Outcome,
    /// The guest read or wrote its state, so that the outcome depends on it.
    pub state_touched: bool,
}

impl Live {
    /// Makes a fresh instance. An error here is the host's (out of instances, out of address space), not the guest's.
    pub fn new(plugin: &Arc<Plugin>) -> wasmtime::Result<Self> {
        let mut store = Store::new(plugin.pre.engine(), Context::new(plugin.terms.clone()));
        store.limiter(|context| &mut context.memory);
        store.set_hostcall_fuel(plugin.terms.limits.hostcall_bytes_max);
        // A start function may run here.
        store.set_epoch_deadline(Engine::ticks(START_MAX));
        let handler = plugin.pre.instantiate(&mut store)?;
        Ok(Self { plugin: plugin.clone(), store, handler, calls: 0 })
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Calls into the guest so far.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Whether a fresh instance should take its place, though it ended its last call well.
    pub fn leaks(&self) -> bool {
        self.store.data().leaks()
    }

    pub fn call(&mut self, call: &Call<'_>) -> Ran {
        self.calls += 1;
        self.store.set_epoch_deadline(Engine::ticks(call.deadline));
        self.store.data_mut().attempt = Attempt {
            event: Some(call.event.clone()),
            stream: call.stream.clone(),
            now: call.now.clone(),
            values: call.values.clone(),
            until: Instant::now().checked_add(call.deadline),
            ..Attempt::default()
        };
        let id = call.event.id().hyphenated().to_string();
        let event = GuestEvent {
            id: &id,
            kind: &call.event.name().kind,
            version: call.event.name().version,
            key: call.event.key(),
            attempt: call.attempt,
            data: call.event.data(),
        };
        let result = self.handler.tidemill_plugin_handler().call_handle(&mut self.store, event);
        self.store.data_mut().flush_stdio();
        let attempt = std::mem::take(&mut self.store.data_mut().attempt);
        let state_touched = attempt.state_touched;
        Ran { outcome: self.outcome(result, attempt, call.deadline), state_touched }
    }

    fn outcome(&self, result: wasmtime::Result<Result<(), Failure>>, attempt: Attempt, deadline: Duration) -> Outcome {
        let refused = attempt.refusal().map(|(crash, reason)| (crash, reason.to_owned()));
        let log = attempt.log;
        match (result, refused) {
            (Err(error), _) => {
                let (crash, reason) = self.crash(&error, deadline);
                Outcome::Crashed { crash, reason: cut(reason), log }
            }
            // Whatever the guest made of a refusal: the refusal decides.
            (Ok(_), Some((Some(crash), reason))) => Outcome::Crashed { crash, reason, log },
            (Ok(_), Some((None, reason))) => Outcome::Rejected { reason, log },
            (Ok(Ok(())), None) => Outcome::Done(attempt.effects),
            (Ok(Err(Failure::Retry(hint))), None) => {
                Outcome::Failed { reason: cut(hint.reason), after: hint.after_ms.map(Duration::from_millis), log }
            }
            (Ok(Err(Failure::Reject(reason))), None) => Outcome::Rejected { reason: cut(reason), log },
        }
    }

    /// Tells the ways apart in which a guest ends badly.
    fn crash(&self, error: &wasmtime::Error, deadline: Duration) -> (Crash, String) {
        if self.store.data().memory.exceeded {
            return (Crash::Memory, error.root_cause().to_string());
        }
        if let Some(Stop { crash, reason }) = error.downcast_ref::<Stop>() {
            return (*crash, reason.clone());
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                (Crash::Deadline, format!("stopped after its deadline of {}", humantime::format_duration(deadline)))
            }
            Some(Trap::StackOverflow) => (Crash::Stack, "call stack exhausted".to_owned()),
            _ if error.to_string().contains("fuel allocated for hostcalls") => {
                let max = self.plugin.terms.limits.hostcall_bytes_max;
                (Crash::Limit, format!("it handed the host more than {max} bytes in one call (hostcall_bytes_max)"))
            }
            // The cause first: what is shown of a reason in a list is its beginning.
            _ => (Crash::Trap, format!("{}\n{error}", error.root_cause())),
        }
    }
}

fn cut(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        reason.push_str("...");
    }
    reason
}
