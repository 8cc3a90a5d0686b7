//! `tidemill:plugin/timer`: delayed deliveries to its handler. Checked here, set by the settlement; each call is a timer
//! of its own, also under a name that was used before.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::context::{Context, bytes_of};
use crate::abi::latest::tidemill::plugin::timer;
use tidemill_core::model::delivery::Timer;
use tidemill_core::model::name::TIMER_KIND;
use tidemill_core::model::outcome::{Crash, NotRun};
use tidemill_schema::admit::admit_timer;
use tidemill_schema::event::HOPS_MEMBER;

/// The longest name of a timer, in bytes.
const NAME_BYTES_MAX: usize = 256;

impl timer::Host for Context {
    fn after(&mut self, ms: u64, name: String, data: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.enter()?;
        let after = Duration::from_millis(ms);
        if let Err((crash, reason)) = self.has_room_for_timer(&data) {
            return Ok(Err(self.refuse(Some(crash), reason)));
        }
        let checked = match self.allowed(after, &name) {
            Ok(()) => self.timer_event(&name, &data)?,
            Err(reason) => Err(reason),
        };
        Ok(match checked {
            Ok(body) => {
                self.attempt.emit_bytes += body.len();
                self.attempt.effects.timers.push(Timer { after, body });
                Ok(())
            }
            Err(reason) => Err(self.refuse(None, reason)),
        })
    }
}

impl Context {
    fn has_room_for_timer(&self, data: &[u8]) -> Result<(), (Crash, String)> {
        let limits = &self.terms.limits;
        if self.attempt.effects.timers.len() >= limits.timers {
            let reason = format!("timer: an attempt may set {} timers (limits.timers)", limits.timers);
            return Err((Crash::Timers, reason));
        }
        if data.len() > bytes_of(limits.timer_bytes) {
            let (size, max) = (data.len(), bytes_of(limits.timer_bytes));
            let reason = format!("timer: the data has {size} bytes; at most {max} (limits.timer_bytes) are allowed");
            return Err((Crash::TimerBytes, reason));
        }
        if self.attempt.emit_bytes + data.len() > bytes_of(limits.emit_bytes) {
            let max = bytes_of(limits.emit_bytes);
            let reason = format!("timer: an attempt may emit and set timers of {max} bytes (limits.emit_bytes)");
            return Err((Crash::EmitBytes, reason));
        }
        Ok(())
    }

    fn allowed(&self, after: Duration, name: &str) -> Result<(), String> {
        let max = self.terms.limits.timer_wait;
        if after > max {
            let (asked, max) = (humantime::format_duration(after), humantime::format_duration(max));
            return Err(format!("timer: \"{name}\" in {asked}; at most {max} (limits.timer_wait) are allowed"));
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(format!("timer: a name has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len()));
        }
        Ok(())
    }

    /// Puts the envelope around the data, which stays as the guest wrote it. What comes of that is admitted here once, so
    /// that it will be admitted when it is delivered.
    fn timer_event(&self, name: &str, data: &[u8]) -> wasmtime::Result<Result<Bytes, String>> {
        // On its own first: bytes that are not exactly one JSON value could otherwise write members of the envelope.
        let data = match serde_json::from_slice::<&RawValue>(data) {
            Ok(data) => data.get(),
            Err(error) => return Ok(Err(format!("timer: the data of \"{name}\" is not JSON: {error}"))),
        };
        let (source, handler) = (self.event()?, &*self.terms.handler);
        // The same id whenever this attempt is tried again, and none that an emitted event has.
        let place = format!("timer-{}", self.attempt.effects.timers.len());
        let body = Bytes::from(format!(
            r#"{{"event_id":"{}","event_type":"{TIMER_KIND}","version":"1","timestamp":"{}","correlation_id":"{}","causation_id":"{}","source":{},"key":{},"{HOPS_MEMBER}":{},"attributes":{{"timer":{}}},"data":{data}}}"#,
            self.attempt.ids.of(source.id(), handler, &place),
            self.attempt.now,
            source.correlation_id(),
            source.id(),
            Value::from(handler),
            Value::from(&**source.key()),
            // A timer is no hop: one that sets the next is a clock, and no loop. What it emits is one more than what set it.
            source.hops(),
            Value::from(name),
        ));
        Ok(match admit_timer(&body, self.terms.payload_bytes_max) {
            Ok(_) => Ok(body),
            Err(NotRun::Undecodable(text) | NotRun::Invalid(text)) => Err(format!("timer: \"{name}\": {text}")),
            Err(other) => Err(format!("timer: \"{name}\": {other:?}")),
        })
    }
}
