//! Admission of a batch. What one handler has found out about an entry serves the others that read the same stream: seven
//! handlers do not parse and validate an event seven times.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::set_aside::suspicion;
use super::{Agreed, Handler, HostContext, Item};
use tidemill_core::model::delivery::{Body, Delivery, EntryId, Large, Queue, Subscription};
use tidemill_core::model::outcome::NotRun;
use tidemill_schema::admit::{admit_for_all, admit_timer};
use tidemill_schema::event::Event;

/// What is remembered of one stream, in bytes: what handlers that read side by side have between them, and some more.
/// One that is further behind than that admits for itself.
const RECENT_BYTES_MAX: usize = 16 << 20;
/// How much of a field's name is said.
const FIELD_NAME_BYTES: usize = 60;
/// What an event takes beside its bytes, about.
const FACTS_BYTES: usize = 512;

/// All streams of a host, and how their handlers make keys.
#[derive(Default)]
pub struct Admissions(HashMap<Arc<str>, Stream>);

#[derive(Default)]
struct Stream {
    /// The lists of JSON pointers by which its handlers make their keys, each once.
    keyings: Vec<Vec<String>>,
    handlers: usize,
    recent: Mutex<Recent>,
}

/// Admitted events, one for each keying. Entries never change, but a stream may be recreated: bytes are compared.
type Known = Arc<[Arc<Event>]>;

#[derive(Default)]
struct Recent {
    known: HashMap<EntryId, Known>,
    order: VecDeque<EntryId>,
    bytes: usize,
}

impl Admissions {
    /// `key` is how this handler makes keys on that stream.
    pub fn add(&mut self, stream: &Arc<str>, key: &[String]) {
        let stream = self.0.entry(stream.clone()).or_default();
        stream.handlers += 1;
        if !stream.keyings.iter().any(|known| known == key) {
            stream.keyings.push(key.to_vec());
        }
    }

    /// The stream, and which of its keyings this is.
    fn find(&self, stream: &str, key: &[String]) -> Option<(&Stream, usize)> {
        let stream = self.0.get(stream)?;
        let keying = stream.keyings.iter().position(|known| known == key)?;
        Some((stream, keying))
    }
}

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
            alone = Stream { keyings: vec![handler.key.clone()], handlers: 1, recent: Mutex::default() };
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

impl Stream {
    /// What others have found out, for each delivery. The redelivery queue has ids of its own, and one reader.
    fn recall(&self, batch: &[Delivery]) -> Vec<Option<Known>> {
        if self.handlers < 2 {
            return vec![None; batch.len()];
        }
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |delivery: &Delivery| match delivery.queue {
            Queue::Stream => recent.known.get(&delivery.entry).cloned(),
            Queue::Redelivery => None,
        };
        batch.iter().map(known).collect()
    }

    fn remember(&self, fresh: Vec<(Queue, EntryId, Known)>) {
        if self.handlers < 2 || fresh.is_empty() {
            return;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        fresh
            .into_iter()
            .filter(|(queue, ..)| *queue == Queue::Stream)
            .for_each(|(_, entry, known)| recent.add(entry, known));
    }
}

impl Recent {
    fn add(&mut self, entry: EntryId, known: Known) {
        // A key is a copy, one for each keying, and so are the attributes: a producer may make them as long as the event.
        let size = |known: &Known| {
            let keys = known.iter().map(|event| event.key().len()).sum::<usize>();
            let shared = |event: &Arc<Event>| event.envelope().len() + event.attributes_bytes();
            FACTS_BYTES + keys + known.first().map_or(0, shared)
        };
        self.bytes += size(&known);
        match self.known.insert(entry, known) {
            Some(before) => self.bytes -= size(&before),
            None => self.order.push_back(entry),
        }
        while self.bytes > RECENT_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.known.remove(&oldest).as_ref().map_or(0, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_schema::Registry;

    fn known(number: u64, padding: usize) -> Known {
        admitted(number, &format!("\"data\":\"{}\"", "x".repeat(padding)))
    }

    /// An event with these members, under two ways of making keys.
    fn admitted(number: u64, members: &str) -> Known {
        let mut registry = Registry::default();
        registry.add("User.Created.v1", "{}").unwrap();
        let id = uuid::Uuid::from_u128(u128::from(number));
        let event = format!(
            r#"{{"event_id":"{id}","event_type":"User.Created","version":"1","timestamp":"t","correlation_id":"{id}",{members}}}"#
        );
        let events = admit_for_all(&registry, &Bytes::from(event), &|_, _| true, &[vec![], vec![]], 2 << 20).unwrap();
        events.into_iter().map(Arc::new).collect()
    }

    /// Reaches `RECENT_BYTES_MAX`.
    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let mut recent = Recent::default();
        for number in 0..40 {
            recent.add(EntryId(number, 0), known(number, 1 << 20));
            assert!(recent.bytes <= RECENT_BYTES_MAX);
        }
        assert_eq!(recent.known.len(), 15);
        assert_eq!(recent.order.front(), Some(&EntryId(25, 0)));
        let bytes = recent.bytes;
        recent.add(EntryId(39, 0), known(39, 1 << 20));
        assert_eq!((recent.bytes, recent.known.len(), recent.order.len()), (bytes, 15, 15));
    }

    /// What is copied out of an event counts as well.
    ///
    /// Reaches `RECENT_BYTES_MAX`.
    #[test]
    fn what_is_remembered_is_bounded_whatever_its_bytes_are() {
        let long = "x".repeat(1 << 20);
        let attributes: Vec<String> = (0..30_000).map(|n| format!("\"{n}\":\"\"")).collect();
        let attributes = format!("\"attributes\":{{{}}},\"data\":1", attributes.join(","));
        for (members, kept) in [(format!("\"key\":\"{long}\",\"data\":1"), 5), (attributes, 8)] {
            let mut recent = Recent::default();
            (0..20).for_each(|number| recent.add(EntryId(number, 0), admitted(number, &members)));
            assert_eq!(recent.known.len(), kept, "{}", &members[..20]);
        }
    }

    #[test]
    fn each_way_of_making_keys_is_kept_once() {
        let mut admissions = Admissions::default();
        let stream: Arc<str> = "orders".into();
        for key in [&["/data/a"][..], &["/data/b"], &["/data/a"]] {
            admissions.add(&stream, &key.iter().map(|pointer| (*pointer).to_owned()).collect::<Vec<_>>());
        }
        let found =
            |key: &str| admissions.find("orders", &[key.to_owned()]).map(|(stream, keying)| (stream.handlers, keying));
        assert_eq!([found("/data/a"), found("/data/b"), found("/data/c")], [Some((3, 0)), Some((3, 1)), None]);
        assert!(admissions.find("payments", &[]).is_none());
    }
}
