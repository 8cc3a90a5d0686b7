//! One delivery in the model: where it is, and its account.

use std::sync::Arc;

use anyhow::{Result, ensure};
use tidemill_core::model::dead_letter::{AttemptRecord, Reason};
use tidemill_core::model::delivery::{Body, Delivery, EntryId, Queue, Replayed};
use tidemill_storage::wire;

use super::reference::Number;

/// Timers have numbers, too, beyond those of all entries: by their bodies, of which no two are equal.
const FIRST_TIMER: Number = 1_000_000;

/// The number of a timer: its body is `body 12`.
pub(super) fn timer_number(body: &[u8]) -> Number {
    let text = std::str::from_utf8(body).expect("bodies are text");
    FIRST_TIMER + text.trim_start_matches("body ").parse::<Number>().expect("bodies are numbered")
}

/// A delivery on its way, with its account.
pub(super) struct Tracked {
    pub place: Place,
    /// Of a timer: the origin of the delivery that set it. Of an entry: its id, which may not be known yet.
    pub origin: Option<EntryId>,
    pub body: Body,
    pub attempts: u32,
    pub crashes: u32,
    /// Of those: since it was last handed out from its queue.
    pub deaths: u32,
    /// It was taken out of quarantine, to be run alone.
    pub alone: bool,
    pub history: Vec<AttemptRecord>,
    pub replayed: Option<Replayed>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Place {
    /// On the stream, not fetched yet.
    Waiting,
    Held {
        by: Arc<str>,
        queue: Queue,
        entry: EntryId,
    },
    /// A retry: its time has come, or is far away.
    Due {
        now: bool,
    },
    /// Put on the redelivery queue by a replay.
    Again,
    /// The letter's id is unknown until the dead letters are listed.
    Dead {
        letter: Option<EntryId>,
        reason: Reason,
    },
}

impl Tracked {
    /// A dead letter of an event that no plugin was given.
    pub(super) fn never_ran(&self) -> bool {
        matches!(&self.place, Place::Dead { reason, .. } if !reason.class.ran()) && self.history.is_empty()
    }

    /// What a dead letter counts for: body, reason and history, as they are written.
    pub(super) fn letter_bytes(&self) -> u64 {
        let Place::Dead { reason, .. } = &self.place else { return 0 };
        let body = match &self.body {
            Body::Event(bytes) | Body::Timer(bytes) => bytes.len(),
            Body::Fields(_) | Body::Large(_) => unreachable!("the model publishes small events only"),
        };
        (body + reason.text.len() + wire::write_history(&self.history).len()) as u64
    }

    pub(super) fn new(place: Place, origin: Option<EntryId>, body: Body) -> Self {
        Self {
            place,
            origin,
            body,
            attempts: 0,
            crashes: 0,
            deaths: 0,
            alone: false,
            history: Vec::new(),
            replayed: None,
        }
    }

    /// It was set and has not come yet; one that is retried is a retry.
    pub(super) fn is_far(&self) -> bool {
        self.place == Place::Due { now: false } && matches!(self.body, Body::Timer(_)) && self.attempts == 0
    }

    pub(super) fn is_held_by(&self, consumer: &str) -> bool {
        matches!(&self.place, Place::Held { by, .. } if &**by == consumer)
    }

    /// Only who takes a suspect is to run it alone.
    pub(super) fn give_to(&mut self, consumer: &str) {
        if let Place::Held { by, .. } = &mut self.place {
            *by = consumer.into();
            self.alone = false;
        }
    }

    pub(super) fn equals(&self, delivery: &Delivery) -> Result<()> {
        let Delivery { body, attempts, crashes, history, replayed, .. } = delivery;
        ensure!(*body == self.body, "its body is {body:?}, not {:?}", self.body);
        ensure!(
            (*attempts, *crashes) == (self.attempts, self.crashes),
            "it has {attempts} attempts and {crashes} crashes, not {} and {}",
            self.attempts,
            self.crashes
        );
        ensure!(*history == self.history, "its history is {history:?}, not {:?}", self.history);
        ensure!(*replayed == self.replayed, "its link is {replayed:?}, not {:?}", self.replayed);
        Ok(())
    }
}
