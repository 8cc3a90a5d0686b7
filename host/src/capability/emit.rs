//! `tidemill:plugin/emit`: events that the plugin asks for. Checked here (granted? valid?), published by the settlement.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_json::Json;
use uuid::Uuid;

use super::context::Context;
use crate::fault;
use crate::model::name::is_kind;
use crate::model::outcome::{Crash, Refusal};
use crate::plugin::abi::latest::tidemill::plugin::emit::{self, NewEvent};
use crate::policy::route::Pattern;

/// An attribute in an envelope: `"":"",` around its name and its value.
const ATTRIBUTE_BYTES: usize = 6;

impl emit::Host for Context {
    fn emit(&mut self, event: NewEvent) -> wasmtime::Result<Result<String, String>> {
        self.enter()?;
        fault::point("in-plugin");
        let id = self.next_emit_id()?;
        // Before anything is made of it: what the guest hands over may be many times of what it may emit.
        if let Err((crash, reason)) = self.room_for(asked_bytes(&event)) {
            return Ok(Err(self.refuse(Some(crash), reason)));
        }
        let (stream, body) = match self.stream_for(&event) {
            Ok(stream) => (stream, self.envelope(&event, id)?),
            Err(reason) => return Ok(Err(self.refuse(None, reason))),
        };
        let body = match body {
            Ok(body) => body,
            Err(reason) => return Ok(Err(self.refuse(None, reason))),
        };
        if let Err((crash, reason)) = self.room_for(body.len()) {
            return Ok(Err(self.refuse(Some(crash), reason)));
        }
        if let Err(reason) = self.check(&event.kind, event.version, &body) {
            return Ok(Err(self.refuse(None, reason)));
        }
        self.push_emit(stream, Bytes::from(body));
        Ok(Ok(id.to_string()))
    }
}

/// The least that the event will have as an envelope.
fn asked_bytes(event: &NewEvent) -> usize {
    let key = event.key.as_ref().map_or(0, String::len);
    let attributes = event.attributes.iter().map(|(name, value)| name.len() + value.len() + ATTRIBUTE_BYTES);
    event.kind.len() + key + attributes.sum::<usize>() + event.data.len()
}

impl Context {
    /// Whether one more event of this size may be emitted.
    fn room_for(&self, bytes: usize) -> Result<(), (Crash, String)> {
        let limits = &self.terms.limits;
        if self.attempt.effects.emits.len() >= limits.emits_max {
            let reason = format!("emit: an attempt may emit {} events (limits.emits)", limits.emits_max);
            return Err((Crash::Emits, reason));
        }
        if bytes > limits.payload_bytes_max {
            let max = limits.payload_bytes_max;
            let reason =
                format!("emit: the event has {bytes} bytes; at most {max} (host.payload_bytes_max) are allowed");
            return Err((Crash::EventBytes, reason));
        }
        if self.attempt.emit_bytes + bytes > limits.emit_bytes_max {
            let reason = format!("emit: an attempt may emit {} bytes (limits.emit_bytes)", limits.emit_bytes_max);
            return Err((Crash::EmitBytes, reason));
        }
        Ok(())
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
            return Err(format!("emit: {kind}.v{version} is not asked for in the plugin's manifest (hint: asks.emit)"));
        }
        let stream = self.terms.streams.find(kind, version);
        stream.cloned().ok_or_else(|| format!("emit: no stream takes {kind}.v{version} (hint: [streams.NAME] events)"))
    }

    /// Puts the envelope around the data, which stays as the guest wrote it.
    fn envelope(&self, event: &NewEvent, id: Uuid) -> wasmtime::Result<Result<String, String>> {
        let (kind, version) = (&*event.kind, event.version);
        // On its own first: bytes that are not exactly one JSON value could otherwise write members of the envelope.
        let data = match serde_json::from_slice::<&RawValue>(&event.data) {
            Ok(data) => data.get(),
            Err(error) => return Ok(Err(format!("emit: the data of {kind}.v{version} is not JSON: {error}"))),
        };
        let source = self.event()?;
        let key = event.key.as_deref().unwrap_or(source.key());
        let mut body = String::with_capacity(data.len() + 512);
        body.push_str(&format!(
            r#"{{"event_id":"{id}","event_type":"{kind}","version":"{version}","timestamp":"{}","correlation_id":"{}","causation_id":"{}","source":{},"key":{}"#,
            self.attempt.now,
            source.correlation_id(),
            source.id(),
            Value::from(&*self.terms.handler),
            Value::from(key),
        ));
        if !event.attributes.is_empty() {
            let attributes = event.attributes.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            body.push_str(&format!(r#","attributes":{}"#, Value::Object(attributes.collect())));
        }
        body.push_str(r#","data":"#);
        body.push_str(data);
        body.push('}');
        Ok(Ok(body))
    }

    /// Holds the whole event against its schema.
    fn check(&self, kind: &str, version: u32, body: &str) -> Result<(), String> {
        let checked = self.terms.schemas.find(kind, version).and_then(|schema| {
            let event = Json::read(body).map_err(|error| Refusal::Undecodable(error.to_string()))?;
            schema.check(&event)
        });
        checked.map_err(|refusal| match refusal {
            Refusal::Invalid(text) | Refusal::Unknown(text) | Refusal::Undecodable(text) => {
                format!("emit: {kind}.v{version}: {text}")
            }
            other => format!("emit: {kind}.v{version}: {other:?}"),
        })
    }
}
