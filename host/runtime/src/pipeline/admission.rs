//! Admission of a batch: each delivery is decoded, routed and validated, or it is known what it is.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;

use super::agreed::Agreed;
use super::context::{Handler, HostContext};
use super::item::Item;
use super::recent::{Known, Stream};
use super::set_aside::suspicion;
use tidemill_core::model::delivery::{Body, Delivery, EntryId, Large, Queue, Subscription};
use tidemill_core::model::outcome::NotRun;
use tidemill_schema::admit::{admit_for_all, admit_timer};

/// How much of a field's name is said.
const FIELD_NAME_BYTES: usize = 60;

/// Decodes, routes and validates each delivery.
pub(super) fn admitted(
    context: &HostContext,
    handler: &Handler,
    agreed: &Agreed,
    subscription: &Subscription,
    batch: Vec<Delivery>,
) -> Vec<Item> {
    let alone;
    let (stream, keying) = match context.admissions.find(&subscription.stream, &handler.key) {
        Some(found) => found,
        // Under no other handler's keys: better to share nothing.
        None => {
            alone = Stream::of(&handler.key);
            (&alone, 0)
        }
    };
    let known = stream.recall(&batch);
    let mut fresh = Vec::new();
    let wants = |kind: &str, version: u32| handler.events.iter().any(|pattern| pattern.matches(kind, version));
    let unwanted = |kind: &str, version: u32| match agreed.wants(kind, version) {
        true => NotRun::WantedElsewhere,
        false => NotRun::NotWanted(agreed.number),
    };
    let mut admit = |delivery: &Delivery, known: Option<Known>| match &delivery.body {
        Body::Event(bytes) => {
            let known = match known.filter(|known| known[keying].envelope() == bytes) {
                Some(known) if wants(&known[keying].name().kind, known[keying].name().version) => known,
                Some(known) => return Err(unwanted(&known[keying].name().kind, known[keying].name().version)),
                None => {
                    let max = context.payload_bytes_max;
                    // What is redelivered was wanted once, and is handled whatever is wanted now.
                    let refusal = Cell::new(None);
                    let asks = |kind: &str, version: u32| {
                        let wanted = delivery.queue == Queue::Redelivery || wants(kind, version);
                        refusal.set((!wanted).then(|| unwanted(kind, version)));
                        wanted
                    };
                    let events = admit_for_all(&context.schemas, bytes, &asks, &stream.keyings, max);
                    let events = events.map_err(|error| refusal.take().unwrap_or(error))?;
                    let known: Known = events.into_iter().map(Arc::new).collect();
                    fresh.push((delivery.queue, delivery.entry, known.clone()));
                    known
                }
            };
            Ok(known[keying].clone())
        }
        Body::Timer(bytes) => admit_timer(bytes, context.payload_bytes_max).map(Arc::new),
        Body::Large(large) => Err(too_large(large, delivery.origin, context.payload_bytes_max)),
        Body::Fields(fields) => Err(no_event(fields)),
    };
    let item = |(delivery, known): (Delivery, Option<Known>)| {
        // First of all: reading it may be what hosts die of.
        let admission = match suspicion(&delivery) {
            Some(refusal) => Err(refusal),
            None => admit(&delivery, known),
        };
        match admission {
            Ok(event) => Item::new(delivery, Some(event)),
            Err(refusal) => Item::refused(delivery, refusal),
        }
    };
    let items = batch.into_iter().zip(known).map(item).collect();
    stream.remember(fresh);
    items
}

fn too_large(large: &Large, origin: EntryId, max: usize) -> NotRun {
    let what = if large.event { "event" } else { "entry" };
    let said = format!(
        "the {what} has {large}; at most {max} (host.payload_bytes_max) are read, and its first {} are kept \
         (hint: as long as the stream keeps it, all of it lies there as entry {origin})",
        large.prefix.len(),
    );
    NotRun::Undecodable(said.into())
}

fn no_event(fields: &[(Bytes, Bytes)]) -> NotRun {
    let name = |name: &Bytes| String::from_utf8_lossy(&name[..name.len().min(FIELD_NAME_BYTES)]).into_owned();
    let names: Vec<_> = fields.iter().take(10).map(|(field, _)| name(field)).collect();
    NotRun::Undecodable(format!("the entry has no field \"event\"; its fields: {}", names.join(", ")).into())
}
