//! What recovery and takeover hand each other: deliveries that are reclaimed, within bounds, and the queues they are in.

use super::keys::Keys;
use tidemill_core::model::delivery::{Delivery, EntryId, Queue};

/// Pending ids asked for at a time, entries read again at a time at most, and entries claimed in one script.
pub(super) const PAGE: usize = 500;

pub(super) const QUEUES: [Queue; 2] = [Queue::Stream, Queue::Redelivery];

/// The suspects found.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    /// How many lie in quarantine.
    pub(crate) suspects: u64,
    /// Those that have just been put there.
    pub quarantined: Vec<(Queue, EntryId)>,
}

/// What is recovered, within bounds.
pub(super) struct Found {
    pub deliveries: Vec<Delivery>,
    /// There is more, for which there is no room.
    pub more: bool,
    max: usize,
    bytes_left: usize,
}

impl Found {
    pub(crate) fn new(max: usize, bytes: usize) -> Self {
        Self { deliveries: Vec::new(), more: false, max, bytes_left: bytes }
    }

    /// What there is no room for is not returned: it is pending, and found again.
    pub(crate) fn add(&mut self, delivery: Delivery) {
        let bytes = delivery.bytes();
        if bytes > self.bytes_left && !self.deliveries.is_empty() {
            self.more = true;
            self.bytes_left = 0;
            return;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.deliveries.push(delivery);
    }

    /// How many more there is room for.
    pub(crate) fn room(&self) -> usize {
        if self.bytes_left == 0 { 0 } else { self.max - self.deliveries.len() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.room() == 0
    }
}

pub(super) fn key_of(keys: &Keys, queue: Queue) -> String {
    match queue {
        Queue::Stream => keys.stream(),
        Queue::Redelivery => keys.redelivery(),
    }
}

/// How scripts call a queue.
pub(super) fn name_of(queue: Queue) -> &'static str {
    match queue {
        Queue::Stream => "i",
        Queue::Redelivery => "a",
    }
}
