//! What one handler has found out about an entry serves the others that read the same stream: seven handlers do not parse
//! and validate an event seven times.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_core::model::delivery::{Delivery, EntryId, Queue};
use tidemill_schema::event::Event;

/// What is remembered of one stream, in bytes: what handlers that read side by side have between them, and some more.
/// One that is further behind than that admits for itself.
const RECENT_BYTES_MAX: usize = 16 << 20;
/// What an event takes beside its bytes, about.
const FACTS_BYTES: usize = 512;

/// All streams of a host, and how their handlers make keys.
#[derive(Default)]
pub struct Admissions(HashMap<Arc<str>, Stream>);

#[derive(Default)]
pub(super) struct Stream {
    /// The lists of JSON pointers by which its handlers make their keys, each once.
    pub(super) keyings: Vec<Vec<String>>,
    handlers: usize,
    recent: Mutex<Recent>,
}

/// Admitted events, one for each keying. Entries never change, but a stream may be recreated: bytes are compared.
pub(super) type Known = Arc<[Arc<Event>]>;

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
    pub(super) fn find(&self, stream: &str, key: &[String]) -> Option<(&Stream, usize)> {
        let stream = self.0.get(stream)?;
        let keying = stream.keyings.iter().position(|known| known == key)?;
        Some((stream, keying))
    }
}

impl Stream {
    /// One that a single handler reads.
    pub(super) fn of(key: &[String]) -> Self {
        Self { keyings: vec![key.to_vec()], handlers: 1, recent: Mutex::default() }
    }

    /// What others have found out, for each delivery. The redelivery queue has ids of its own, and one reader.
    pub(super) fn recall(&self, batch: &[Delivery]) -> Vec<Option<Known>> {
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

    pub(super) fn remember(&self, fresh: Vec<(Queue, EntryId, Known)>) {
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
    use bytes::Bytes;
    use tidemill_schema::admit::admit_for_all;

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
