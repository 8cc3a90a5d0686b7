//! `tidemill:plugin/emit`: events that the plugin asks for. Checked here (granted? valid?), published by the settlement.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::context::Context;
use crate::fault;
use crate::model::name::is_kind;
use crate::model::outcome::Refusal;
use crate::plugin::abi::latest::tidemill::plugin::emit::{self, NewEvent};
use crate::policy::route::Pattern;

impl emit::Host for Context {
    fn emit(&mut self, event: NewEvent) -> wasmtime::Result<Result<String, String>> {
        fault::point("in-plugin");
        let id = self.next_emit_id()?;
        if let Err(reason) = self.room_for(&event) {
            return Ok(Err(self.refuse(true, reason)));
        }
        let checked = match self.stream_for(&event) {
            Ok(stream) => self.envelope(&event, id)?.map(|body| (stream, body)),
            Err(reason) => Err(reason),
        };
        let payload_max = self.terms.limits.payload_bytes_max;
        Ok(match checked {
            Ok((_, body)) if body.len() > payload_max => {
                let size = body.len();
                let reason =
                    format!("emit: the event has {size} bytes; at most {payload_max} (payload_bytes_max) are allowed");
                Err(self.refuse(true, reason))
            }
            Ok((stream, body)) => {
                self.push_emit(stream, body);
                Ok(id.to_string())
            }
            Err(reason) => Err(self.refuse(false, reason)),
        })
    }
}

impl Context {
    fn room_for(&self, event: &NewEvent) -> Result<(), String> {
        let limits = &self.terms.limits;
        if self.attempt.effects.emits.len() >= limits.emits_max {
            return Err(format!("emit: an attempt may emit {} events (limits.emits)", limits.emits_max));
        }
        if self.attempt.emit_bytes + event.data.len() > limits.emit_bytes_max {
            return Err(format!("emit: an attempt may emit {} bytes (limits.emit_bytes)", limits.emit_bytes_max));
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

    /// Puts the envelope around the data, which stays as the guest wrote it, and holds both against the schema.
    fn envelope(&self, event: &NewEvent, id: Uuid) -> wasmtime::Result<Result<Bytes, String>> {
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
        Ok(self.check(kind, version, &body).map(|()| Bytes::from(body)))
    }

    fn check(&self, kind: &str, version: u32, body: &str) -> Result<(), String> {
        let checked = self.terms.schemas.find(kind, version).and_then(|schema| {
            let value: Value = serde_json::from_str(body).map_err(|error| Refusal::Undecodable(error.to_string()))?;
            schema.check(&value)
        });
        checked.map_err(|refusal| match refusal {
            Refusal::Invalid(text) | Refusal::Unknown(text) | Refusal::Undecodable(text) => {
                format!("emit: {kind}.v{version}: {text}")
            }
            other => format!("emit: {kind}.v{version}: {other:?}"),
        })
    }
}
