//! What a live instance carries: the handler's terms, the attempt that is running, and the meter of its memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::wasi::Wasi;
use crate::config;
use crate::model::delivery::{Effects, Emitted};
use crate::model::event::Event;
use crate::model::outcome::Crash;
use crate::policy::route::{Pattern, Streams};
use crate::schema::Registry;

/// What a handler may do, for all its attempts.
#[derive(Debug)]
pub struct Terms {
    pub handler: Arc<str>,
    /// The event types that it may emit; none = it has no `emit` at all.
    pub emit: Option<Vec<Pattern>>,
    pub state: bool,
    /// The parts of WASI that it may use.
    pub wasi: Vec<config::Wasi>,
    pub config: BTreeMap<String, String>,
    pub limits: Limits,
    pub schemas: Arc<Registry>,
    pub streams: Arc<Streams>,
}

/// The bounds of one attempt. Defaults and names: `config::limits`.
#[derive(Debug, Clone)]
pub struct Limits {
    pub memory_bytes_max: usize,
    pub table_elements_max: usize,
    pub emits_max: usize,
    pub emit_bytes_max: usize,
    /// The largest event, as it may lie on a stream: an emitted one has to be admitted again.
    pub payload_bytes_max: usize,
    pub state_bytes_max: usize,
    pub log_lines_max: u32,
    pub log_bytes_max: usize,
    /// What may cross from the guest to the host in one call, and so what one call can make the host allocate.
    pub hostcall_bytes_max: usize,
}

/// The data of a store: one instance of one handler's plugin.
pub struct Context {
    pub terms: Arc<Terms>,
    pub memory: MemoryMeter,
    pub attempt: Attempt,
    pub(super) wasi: Option<Box<Wasi>>,
}

/// The attempt that is running. Made anew for each call; what it gathers takes effect only at settlement.
#[derive(Default)]
pub struct Attempt {
    pub event: Option<Arc<Event>>,
    pub stream: Arc<str>,
    /// The time that emitted events bear, RFC 3339.
    pub now: Arc<str>,
    /// The key's values as they were before this attempt.
    pub values: Arc<BTreeMap<String, Bytes>>,
    pub state_touched: bool,
    pub state_bytes: usize,
    pub effects: Effects,
    pub emit_bytes: usize,
    pub log: Vec<String>,
    pub log_lines: u32,
    /// The first thing that was asked for and may not be had. An attempt with one never commits.
    pub refused: Option<Refused>,
    /// When its deadline passes: a host function must not wait beyond it.
    pub until: Option<Instant>,
    /// How long it has waited in WASI.
    pub waited: Duration,
    /// Blocks that it has drawn from the insecure kind of randomness.
    pub insecure_drawn: u64,
}

#[derive(Debug, Clone)]
pub struct Refused {
    /// A limit was reached (counts as a crash); else it was something that the plugin may never do.
    pub limit: bool,
    pub reason: String,
}

/// The error with which a host function stops a guest at a limit. Any other error is a trap.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Stop {
    pub crash: Crash,
    pub reason: String,
}

impl Context {
    pub fn new(terms: Arc<Terms>) -> Self {
        let memory = MemoryMeter {
            bytes: 0,
            bytes_max: terms.limits.memory_bytes_max,
            elements_max: terms.limits.table_elements_max,
            exceeded: false,
        };
        Self { terms, memory, attempt: Attempt::default(), wasi: None }
    }

    /// The event in hand. Host functions run only during a call, and every call has one.
    pub fn event(&self) -> wasmtime::Result<&Arc<Event>> {
        self.attempt
            .event
            .as_ref()
            .ok_or_else(|| wasmtime::format_err!("the guest called the host outside of an attempt"))
    }

    /// Marks the attempt as one that never commits, and gives the reason back for the guest.
    pub fn refuse(&mut self, limit: bool, reason: String) -> String {
        self.attempt.refused.get_or_insert(Refused { limit, reason: reason.clone() });
        reason
    }

    pub fn push_emit(&mut self, stream: Arc<str>, body: Bytes) {
        self.attempt.emit_bytes += body.len();
        self.attempt.effects.emits.push(Emitted { stream, body });
    }

    /// The id of the next emitted event: the same for the same delivery, handler and place, whenever it is tried again
    /// (UUIDv5, RFC 9562 section 5.5).
    pub fn next_emit_id(&self) -> wasmtime::Result<Uuid> {
        let name = format!("{}/{}", self.terms.handler, self.attempt.effects.emits.len());
        Ok(Uuid::new_v5(&self.event()?.id(), name.as_bytes()))
    }
}

/// Bounds the sum over all memories of an instance, and its tables.
pub struct MemoryMeter {
    pub bytes: usize,
    bytes_max: usize,
    elements_max: usize,
    /// Set when the bound was hit, so that the trap that follows is told apart from others.
    pub exceeded: bool,
}

impl wasmtime::ResourceLimiter for MemoryMeter {
    fn memory_growing(&mut self, current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_add(desired.saturating_sub(current));
        if bytes > self.bytes_max {
            self.exceeded = true;
            return Err(wasmtime::format_err!(
                "the guest asked for {bytes} bytes of memory; its limit is {}",
                self.bytes_max
            ));
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.elements_max {
            self.exceeded = true;
            return Err(wasmtime::format_err!(
                "the guest asked for a table of {desired} elements; its limit is {}",
                self.elements_max
            ));
        }
        Ok(true)
    }
}

impl Attempt {
    /// How it ended, if something was refused on the way.
    pub fn refusal(&self) -> Option<(Option<Crash>, &str)> {
        self.refused.as_ref().map(|refused| (refused.limit.then_some(Crash::Limit), refused.reason.as_str()))
    }
}
