//! What an instance carries: the handler's permissions, the attempt that is running, and the meter of what it holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytesize::ByteSize;
use uuid::Uuid;

use super::http::outbound::{Outbound, SentRequest};
use super::ids::Ids;
use super::log_rate::LogRateLimit;
use super::meter::{Meter, Stop};
use super::secret::Secrets;
use super::wasi::held::Wasi;
use tidemill_config as config;
use tidemill_core::model::delivery::{Effects, Emitted};
use tidemill_core::model::outcome::{Crash, Truncation};
use tidemill_core::policy::route::{Pattern, StreamRoutes};
use tidemill_schema::Registry;
use tidemill_schema::event::Event;

/// A reason, of the guest or of the host, is truncated to this many bytes.
pub(crate) const REASON_BYTES_MAX: usize = 4096;

/// What a handler may do, for all its attempts.
#[derive(Debug)]
pub struct Permissions {
    pub handler: Arc<str>,
    /// The event types that it may emit; none = it has no `emit` at all.
    pub emit: Option<Vec<Pattern>>,
    /// The event types that its manifest requests; none = no list there, any.
    pub asked_emit: Option<Vec<Pattern>>,
    pub state: bool,
    pub timer: bool,
    /// The parts of WASI that it may use.
    pub wasi: Vec<config::WasiGrant>,
    /// Where its requests may go; none = it has no `http` at all.
    pub http: Option<Outbound>,
    pub secrets: Secrets,
    pub config: BTreeMap<String, String>,
    /// The bounds of one attempt.
    pub limits: config::Limits,
    /// The largest event, as it may lie on a stream: an emitted one has to be admitted again.
    pub payload_bytes_max: usize,
    pub log_gate: LogRateLimit,
    pub schemas: Arc<Registry>,
    pub streams: Arc<StreamRoutes>,
}

/// A bound as the sizes in memory are compared with it.
pub(crate) fn bytes_of(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// The data of a store: one instance of one handler's plugin.
pub struct Context {
    pub terms: Arc<Permissions>,
    pub meter: Meter,
    pub attempt: Attempt,
    pub(super) wasi: Option<Box<Wasi>>,
}

/// The attempt that is running. New for each call; what it gathers takes effect only at settlement.
#[derive(Default)]
pub struct Attempt {
    pub event: Option<Arc<Event>>,
    pub stream: Arc<str>,
    /// The time that emitted events bear, RFC 3339.
    pub now: Arc<str>,
    /// What makes their ids.
    pub ids: Ids,
    /// The key's values as they were before this attempt. None between attempts: an empty map would be allocated.
    pub values: Option<Arc<BTreeMap<String, Bytes>>>,
    pub(crate) state_touched: bool,
    pub(crate) state_bytes: usize,
    /// What the key holds with this attempt's writes; counted at the first of them.
    pub(crate) state_held: Option<usize>,
    pub effects: Effects,
    pub emit_bytes: usize,
    pub log: Vec<String>,
    pub log_lines: u32,
    pub host_calls: u32,
    /// Truncations of the plugin's output; each limit once.
    pub(crate) truncated: Vec<Truncation>,
    /// Requests asked for, and what came of those within the limit.
    pub requests: u32,
    pub sent: Vec<SentRequest>,
    /// The first thing that was asked for and may not be had. An attempt with one never commits.
    pub refused: Option<Violation>,
    /// When its deadline passes: a host function must not wait beyond it.
    pub ends: Option<Instant>,
    /// How long it has waited in WASI.
    pub waited: Duration,
    /// Blocks that it has drawn from the insecure kind of randomness.
    pub(crate) insecure_drawn: u64,
}

#[derive(Debug, Clone)]
pub struct Violation {
    /// The limit that was reached, which counts as a crash; none: it was something that the plugin may never do.
    pub crash: Option<Crash>,
    /// More hops led to an event than are allowed.
    pub(crate) looped: bool,
    pub reason: String,
}

impl Context {
    pub fn new(terms: Arc<Permissions>) -> Self {
        let meter = Meter::new(bytes_of(terms.limits.memory), terms.limits.tables);
        Self { terms, meter, attempt: Attempt::default(), wasi: None }
    }

    /// The first line of every host function: counts the call, and stops a guest that makes too many of them.
    pub(crate) fn enter(&mut self) -> wasmtime::Result<()> {
        self.attempt.host_calls += 1;
        let max = self.terms.limits.host_calls;
        if self.attempt.host_calls > max {
            let reason = format!("it called the host more than {max} times (limits.host_calls)");
            return Err(Stop { crash: Crash::HostCalls, reason }.into());
        }
        Ok(())
    }

    /// The event being handled. Host functions run only during a call, and every call has one.
    pub fn event(&self) -> wasmtime::Result<&Arc<Event>> {
        self.attempt
            .event
            .as_ref()
            .ok_or_else(|| wasmtime::format_err!("the guest called the host outside of an attempt"))
    }

    /// Marks the attempt as one that never commits, and gives the reason back for the guest.
    pub fn refuse(&mut self, crash: Option<Crash>, reason: String) -> String {
        let reason = truncate(reason, REASON_BYTES_MAX);
        self.attempt.refused.get_or_insert(Violation { crash, looped: false, reason: reason.clone() });
        reason
    }

    /// The same for an event that would be one hop too many: every try would emit it again.
    pub(crate) fn refuse_hop(&mut self, reason: String) -> String {
        self.attempt.refused.get_or_insert(Violation { crash: None, looped: true, reason: reason.clone() });
        reason
    }

    pub(crate) fn push_emit(&mut self, stream: Arc<str>, body: Bytes) {
        self.attempt.emit_bytes += body.len();
        self.attempt.effects.emits.push(Emitted { stream, body });
    }

    /// The id of the next emitted event: the same for the same delivery, handler and place, whenever it is tried again
    /// (see [`Ids`]).
    pub(crate) fn next_emit_id(&self) -> wasmtime::Result<Uuid> {
        let place = self.attempt.effects.emits.len().to_string();
        Ok(self.attempt.ids.of(self.event()?.id(), &self.terms.handler, &place))
    }
}

impl Attempt {
    /// A value of the key as this attempt sees it.
    pub fn value(&self, name: &str) -> Option<&Bytes> {
        match self.effects.writes.get(name) {
            Some(written) => written.as_ref(),
            None => self.values.as_ref()?.get(name),
        }
    }

    /// Records a truncation.
    pub(crate) fn leave_out(&mut self, what: Truncation) {
        if !self.truncated.contains(&what) {
            self.truncated.push(what);
        }
    }
}

/// The text, or its beginning if it is longer than that. It is copied then: a string that is only shortened goes on
/// holding the memory of the whole.
pub fn truncate(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    format!("{}...", &text[..text.floor_char_boundary(bytes_max)])
}
