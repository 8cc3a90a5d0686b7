//! What the backend refused to settle, kept as it was decided: its entries stay in flight on this host, and it is
//! sent again until it is settled, so that no plugin is called twice for a backend error (`consumer::resend` sends).
//!
//! ```text
//! refused in the same words, for the same streams  -->  one line: [head, next, next..]
//!     the head is tried after growing waits; once it goes through, the others follow at once
//! a state key of which something is kept           -->  what comes later of that key waits behind it, in order
//! ```

mod refused;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::item::Item;
pub(crate) use refused::{RefusedSettlement, chain_key};
use tidemill_core::model::delivery::{Delivery, EntryId, Queue};
use tidemill_core::policy::backoff::Backoff;

/// Deliveries that one subscription keeps because their settlement was refused, or the one before it of their key. Beyond it
/// the oldest is given up: a dead letter.
pub(crate) const REFUSED_KEPT_MAX: usize = 1000;
/// Bytes of those, with what their attempts asked for.
pub(crate) const REFUSED_KEPT_BYTES_MAX: usize = 16 << 20;
/// For how long one is kept before it is given up.
pub(crate) const REFUSED_KEPT_AGE_MAX: Duration = Duration::from_secs(3600);
/// Before a line is tried again.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(30) };

/// A refused settlement that is to be sent now, and what is to be given back with it.
pub struct Due {
    /// In the backend's words.
    pub reason: Arc<str>,
    /// There is no room or time to keep it any longer.
    pub give_up: bool,
    line: u64,
    key: Option<Arc<str>>,
    bytes: usize,
}

/// Why a line waits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cause {
    reason: Arc<str>,
    /// The streams that its entries emit to.
    targets: Vec<Arc<str>>,
}

struct Line {
    number: u64,
    cause: Cause,
    queue: VecDeque<RefusedSettlement>,
    due: Instant,
    /// How often its head was refused.
    times: u32,
    /// Its head could not even be given up: it waits, also when there is no room.
    stuck: bool,
}

/// All that one subscription keeps.
#[derive(Default)]
pub struct Kept {
    shelf: Mutex<Shelf>,
    /// How many it holds, readable without the lock: most hosts keep nothing, and each batch asks.
    count: AtomicUsize,
    changed: Notify,
}

#[derive(Default)]
struct Shelf {
    lines: Vec<Line>,
    numbers: u64,
    /// Of all that is kept, what waits behind it included.
    count: usize,
    bytes: usize,
    /// What is kept of each state key, the one that is being sent included. A chain lies in one line.
    keys: HashMap<Arc<str>, InLine>,
    /// Not handled yet: these wait for what is kept of their key.
    behind: Vec<(Arc<str>, Delivery)>,
}

#[derive(Debug, Clone, Copy)]
struct InLine {
    line: u64,
    count: usize,
}

impl Kept {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Plain lists, as good as before if a holder panicked.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many deliveries are kept.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether more may be fetched; if not, some of it is to be settled or given up before.
    pub(crate) fn has_room(&self) -> bool {
        self.count() == 0 || !self.shelf().is_over()
    }

    /// The words in which the oldest was refused.
    pub fn reason(&self) -> Option<Arc<str>> {
        let shelf = self.shelf();
        let oldest = shelf.lines.iter().filter_map(|line| Some((line.queue.front()?.since, line)));
        oldest.min_by_key(|(since, _)| *since).map(|(_, line)| line.cause.reason.clone())
    }

    /// Waits until something more was refused.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether something of this state key is kept.
    pub(super) fn has(&self, key: &str) -> bool {
        self.count() > 0 && self.shelf().keys.contains_key(key)
    }

    /// Keeps a settlement that the backend refused in these words. Answers whether nothing else is kept for this cause.
    pub fn keep(&self, refused: RefusedSettlement, reason: &str) -> bool {
        let is_new = self.put(refused, reason);
        self.changed.notify_one();
        is_new
    }

    /// Keeps a settlement that is to be sent at once.
    pub(crate) fn keep_for_now(&self, refused: RefusedSettlement) {
        self.put(refused, "it was not sent yet");
        self.hurry();
    }

    fn put(&self, refused: RefusedSettlement, reason: &str) -> bool {
        let mut shelf = self.shelf();
        let known = refused.key().and_then(|key| shelf.keys.get(key)).map(|known| known.line);
        let number =
            known.unwrap_or_else(|| shelf.line_for(Cause { reason: reason.into(), targets: refused.targets() }));
        shelf.bytes += refused.bytes;
        shelf.count += 1;
        shelf.note_key(refused.key(), number);
        let queue = &mut shelf.line(number).queue;
        let is_new = queue.is_empty();
        queue.push_back(refused);
        self.count.store(shelf.count, Ordering::Relaxed);
        is_new
    }

    /// Takes out what is to wait because something of its state key is kept. Answers which deliveries that is.
    pub(super) fn hold_back(&self, items: &mut Vec<Item>) -> Vec<(Queue, EntryId)> {
        if self.count() == 0 {
            return Vec::new();
        }
        let mut shelf = self.shelf();
        let waits = |item: &mut Item| item.event.as_ref().is_some_and(|event| shelf.keys.contains_key(event.key()));
        let taken: Vec<Item> = items.extract_if(.., waits).collect();
        let mut held = Vec::with_capacity(taken.len());
        for Item { delivery, event, .. } in taken {
            let Some(event) = event else { continue };
            held.push((delivery.queue, delivery.entry));
            shelf.bytes += delivery.bytes();
            shelf.count += 1;
            shelf.behind.push((event.key().clone(), delivery));
        }
        self.count.store(shelf.count, Ordering::Relaxed);
        held
    }

    /// What is to be sent now, if anything is. One task asks, and gives it back before it asks again.
    pub fn take(&self, now: Instant) -> Option<(RefusedSettlement, Due)> {
        let mut shelf = self.shelf();
        let is_over = shelf.is_over();
        let due = shelf.lines.iter_mut().filter(|line| line.due <= now || is_over && !line.stuck);
        // The oldest first: it is what has to go if there is no room.
        let line = due.min_by_key(|line| line.queue.front().map(|refused| refused.since))?;
        let refused = line.queue.pop_front()?;
        let give_up = is_over || now.duration_since(refused.since) > REFUSED_KEPT_AGE_MAX;
        let (reason, line) = (line.cause.reason.clone(), line.number);
        let due = Due { reason, give_up, line, key: refused.key().cloned(), bytes: refused.bytes };
        Some((refused, due))
    }

    /// It is no longer in flight. `breaks` says that its state was not written as those behind it saw it: they are to
    /// be run again. Answers what goes on now, because nothing of its key is kept any more.
    pub fn settled(&self, due: Due, breaks: bool) -> Vec<Delivery> {
        let mut shelf = self.shelf();
        let mut freed = Vec::new();
        shelf.forget(due.key.as_ref(), due.bytes);
        let line = shelf.line(due.line);
        // What stopped it is gone, perhaps: the others follow.
        (line.due, line.times, line.stuck) = (Instant::now(), 0, false);
        if let Some(key) = due.key {
            if breaks {
                for refused in extract_chain(&mut line.queue, &key) {
                    shelf.forget(Some(&key), refused.bytes);
                    freed.extend(refused.settlement.entries.into_iter().map(|entry| entry.delivery));
                }
            }
            if !shelf.keys.contains_key(&key) {
                let behind: Vec<_> = shelf.behind.extract_if(.., |(behind, _)| *behind == key).collect();
                for (_, delivery) in behind {
                    shelf.forget(None, delivery.bytes());
                    freed.push(delivery);
                }
            }
        }
        shelf.drop_empty_lines();
        self.count.store(shelf.count, Ordering::Relaxed);
        freed
    }

    /// It was refused again. Answers how often that was.
    pub fn refused(&self, refused: RefusedSettlement, due: Due, reason: &str) -> u32 {
        let mut shelf = self.shelf();
        let same = due.give_up || *due.reason == *reason;
        let (mut chain, mut number) = (vec![refused], due.line);
        if !same {
            // It fails for a cause of its own, which does not hold up those that waited behind it for another one.
            if let Some(key) = &due.key {
                chain.extend(extract_chain(&mut shelf.line(due.line).queue, key));
            }
            number = shelf.line_for(Cause { reason: reason.into(), targets: chain[0].targets() });
            if let Some(known) = due.key.as_ref().and_then(|key| shelf.keys.get_mut(key)) {
                known.line = number;
            }
            shelf.line(due.line).due = Instant::now();
        }
        let line = shelf.line(number);
        for refused in chain.into_iter().rev() {
            line.queue.push_front(refused);
        }
        line.times = line.times.saturating_add(1);
        (line.due, line.stuck) = (Instant::now() + BACKOFF.wait(line.times), due.give_up);
        let times = line.times;
        shelf.drop_empty_lines();
        times
    }

    /// The backend did not say what came of it. Answers after which wait the next try is.
    pub(crate) fn unanswered(&self, refused: RefusedSettlement, due: &Due) -> Duration {
        let mut shelf = self.shelf();
        let line = shelf.line(due.line);
        line.queue.push_front(refused);
        let wait = BACKOFF.wait(line.times.saturating_add(1));
        (line.due, line.stuck) = (Instant::now() + wait, true);
        wait
    }

    /// When something is to be tried again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.shelf().lines.iter().map(|line| line.due).min()
    }

    /// Has every line tried once more: this host ends.
    pub(crate) fn hurry(&self) {
        self.shelf().lines.iter_mut().for_each(|line| line.due = Instant::now());
    }
}

fn extract_chain(queue: &mut VecDeque<RefusedSettlement>, key: &Arc<str>) -> Vec<RefusedSettlement> {
    let (chain, rest): (Vec<_>, Vec<_>) =
        std::mem::take(queue).into_iter().partition(|refused| refused.key() == Some(key));
    *queue = rest.into();
    chain
}

impl Shelf {
    fn is_over(&self) -> bool {
        self.count > REFUSED_KEPT_MAX || self.bytes > REFUSED_KEPT_BYTES_MAX
    }

    /// The line of what waits for this cause; a new one if there is none.
    fn line_for(&mut self, cause: Cause) -> u64 {
        if let Some(line) = self.lines.iter().find(|line| line.cause == cause) {
            return line.number;
        }
        self.numbers += 1;
        let (number, queue, due) = (self.numbers, VecDeque::new(), Instant::now() + BACKOFF.wait(1));
        self.lines.push(Line { number, cause, queue, due, times: 1, stuck: false });
        number
    }

    /// Lines go only when they are empty and nothing of them is being sent.
    fn line(&mut self, number: u64) -> &mut Line {
        let at = self.lines.iter().position(|line| line.number == number).expect("a line that is not empty");
        &mut self.lines[at]
    }

    fn note_key(&mut self, key: Option<&Arc<str>>, line: u64) {
        if let Some(key) = key {
            self.keys.entry(key.clone()).or_insert(InLine { line, count: 0 }).count += 1;
        }
    }

    fn forget(&mut self, key: Option<&Arc<str>>, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.count = self.count.saturating_sub(1);
        if let Some(key) = key
            && let Some(known) = self.keys.get_mut(key)
        {
            known.count -= 1;
            if known.count == 0 {
                self.keys.remove(key);
            }
        }
    }

    /// To be called only when nothing is being sent.
    fn drop_empty_lines(&mut self) {
        self.lines.retain(|line| !line.queue.is_empty());
    }
}

#[cfg(test)]
mod tests;
