//! `tidemill:plugin/emit`: events that the plugin asks for. Checked here (granted? valid?), published by the settlement.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_json::Json;

use super::context::{Context, bytes_of};
use super::envelope::Outgoing;
use crate::abi::latest::tidemill::plugin::emit;
use crate::abi::latest::tidemill::plugin::emit::NewEvent;
use tidemill_core::model::name::is_kind;
use tidemill_core::model::outcome::{Crash, NotRun};
use tidemill_core::policy::route::Pattern;
use tidemill_process::fault;
use tidemill_schema::event::Event;

/// An attribute in an envelope: `"":"",` around its name and its value.
const ATTRIBUTE_BYTES: usize = 6;

impl emit::Host for Context {
    fn emit(&mut self, event: NewEvent) -> wasmtime::Result<Result<String, String>> {
        self.enter()?;
        fault::point("in-plugin");
        let id = self.next_emit_id()?.to_string();
        let source = self.event()?.clone();
        match self.ready(&event, &id, &source) {
            Ok((stream, body)) => {
                self.push_emit(stream, Bytes::from(body));
                Ok(Ok(id))
            }
            Err(no) => {
                // Refusing it takes as much as taking it.
                self.attempt.emit_bytes += asked_bytes(&event);
                Ok(Err(match no {
                    EmitRefused::Limit(crash, reason) => self.refuse(Some(crash), reason),
                    EmitRefused::Never(reason) => self.refuse(None, reason),
                    EmitRefused::Hops(reason) => self.refuse_hop(reason),
                }))
            }
        }
    }
}

/// Why an event may not be emitted.
enum EmitRefused {
    /// It reached a limit.
    Limit(Crash, String),
    Never(String),
    /// It would be one hop too many.
    Hops(String),
}

/// The least that the event will have as an envelope.
fn asked_bytes(event: &NewEvent) -> usize {
    let key = event.key.as_ref().map_or(0, String::len);
    let attributes = event.attributes.iter().map(|(name, value)| name.len() + value.len() + ATTRIBUTE_BYTES);
    event.kind.len() + key + attributes.sum::<usize>() + event.data.len()
}

impl Context {
    /// The stream that it goes to, and what is published there.
    fn ready(&self, event: &NewEvent, id: &str, source: &Event) -> Result<(Arc<str>, Vec<u8>), EmitRefused> {
        // Before anything is made of it: what the guest hands over may be many times of what it may emit.
        self.room_for(asked_bytes(event))?;
        let stream = self.stream_for(event).map_err(EmitRefused::Never)?;
        let hops = self.next_hop(event, source)?;
        let (kind, version) = (&*event.kind, event.version);
        let [correlation_id, causation_id] = [source.correlation_id(), source.id()].map(|id| id.to_string());
        let version_text = version.to_string();
        let texts = [
            ("event_id", id),
            ("event_type", kind),
            ("version", &version_text),
            ("timestamp", &self.attempt.now),
            ("correlation_id", &correlation_id),
            ("causation_id", &causation_id),
            ("source", &self.terms.handler),
            ("key", event.key.as_deref().unwrap_or(source.key())),
        ];
        let outgoing = Outgoing::new(texts, hops, &event.attributes, &event.data)
            .map_err(|error| EmitRefused::Never(format!("emit: the data of {kind}.v{version} is not JSON: {error}")))?;
        let body = outgoing.bytes();
        self.room_for(body.len())?;
        self.check(kind, version, &outgoing.into_tree(), body.len()).map_err(EmitRefused::Never)?;
        Ok((stream, body))
    }

    /// Whether one more event of this size may be emitted.
    fn room_for(&self, bytes: usize) -> Result<(), EmitRefused> {
        let limits = &self.terms.limits;
        if self.attempt.effects.emits.len() >= limits.emits {
            let reason = format!("emit: an attempt may emit {} events (limits.emits)", limits.emits);
            return Err(EmitRefused::Limit(Crash::Emits, reason));
        }
        if bytes > self.terms.payload_bytes_max {
            let max = self.terms.payload_bytes_max;
            let reason =
                format!("emit: the event has {bytes} bytes; at most {max} (host.payload_bytes_max) are allowed");
            return Err(EmitRefused::Limit(Crash::EventBytes, reason));
        }
        if self.attempt.emit_bytes + bytes > bytes_of(limits.emit_bytes) {
            let reason = format!(
                "emit: an attempt may emit and set timers of {} bytes (limits.emit_bytes)",
                bytes_of(limits.emit_bytes)
            );
            return Err(EmitRefused::Limit(Crash::EmitBytes, reason));
        }
        Ok(())
    }

    /// How many hops will have led to it. Handlers that emit what each other want would go on for ever.
    fn next_hop(&self, event: &NewEvent, source: &Event) -> Result<u32, EmitRefused> {
        let (hops, max) = (source.hops().saturating_add(1), self.terms.limits.hops);
        if hops <= max {
            return Ok(hops);
        }
        Err(EmitRefused::Hops(format!(
            "emit: {}.v{} would be hop {hops} from the event that all this began with; at most {max} (limits.hops) are \
             allowed (hint: `tidemill config check` names handlers that can go round in a circle)",
            event.kind, event.version
        )))
    }

    /// Granted, known, and with a stream to go to.
    fn stream_for(&self, event: &NewEvent) -> Result<Arc<str>, String> {
        let (kind, version) = (&*event.kind, event.version);
        if !is_kind(kind) {
            return Err(format!("emit: \"{kind}\" is not an event kind such as \"Payment.Order.Paid\""));
        }
        let granted = self.terms.emit.iter().flatten().any(|pattern| pattern.matches(kind, version));
        if !granted {
            let handler = &self.terms.handler;
            return Err(format!(
                "emit: {kind}.v{version} is not among the grants (hint: [handlers.{handler}.grants] emit)"
            ));
        }
        let unasked = |asked: &Vec<Pattern>| !asked.iter().any(|pattern| pattern.matches(kind, version));
        if self.terms.asked_emit.as_ref().is_some_and(unasked) {
            return Err(format!("emit: {kind}.v{version} is not in the plugin's manifest (hint: permissions.emit)"));
        }
        let stream = self.terms.streams.find(kind, version);
        stream.cloned().ok_or_else(|| format!("emit: no stream takes {kind}.v{version} (hint: [streams.NAME] events)"))
    }

    /// Holds the whole event against its schema.
    fn check(&self, kind: &str, version: u32, event: &Json, bytes: usize) -> Result<(), String> {
        let checked = self.terms.schemas.find(kind, version).and_then(|schema| schema.check(event, bytes));
        checked.map_err(|refusal| match refusal {
            NotRun::Invalid(text) | NotRun::Unknown(text) | NotRun::Undecodable(text) => {
                format!("emit: {kind}.v{version}: {text}")
            }
            other => format!("emit: {kind}.v{version}: {other:?}"),
        })
    }
}
