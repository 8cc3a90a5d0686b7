//! A dead letter: what a person needs to see why a delivery was given up, and to replay it.

use std::fmt;

use super::entry::{Body, EntryId, Replayed};

/// Why a delivery was given up. `class` groups them; the text is for the person who looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub class: ReasonClass,
    pub text: String,
}

/// The classes by which dead letters are counted and grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonClass {
    /// Not an envelope: broken JSON, wrong UTF-8, too large, too deep, no `event` field.
    Undecodable,
    /// An envelope that its schema refuses.
    Invalid,
    /// An envelope whose type and version have no schema.
    Unknown,
    /// Another event with the same id was handled before.
    Conflict,
    /// The plugin said that it will never work, or asked for an effect that it may not have.
    Rejected,
    /// Every attempt failed.
    Exhausted,
    /// The host died each time that this was run.
    Poison,
    /// The plugin was run, and the backend refused what it asked for until there was no room or time to keep it.
    Refused,
    /// What it asked for would be one hop too many: handlers emit in a circle.
    Looped,
}

impl ReasonClass {
    pub const ALL: [Self; 9] = [
        Self::Undecodable,
        Self::Invalid,
        Self::Unknown,
        Self::Conflict,
        Self::Rejected,
        Self::Exhausted,
        Self::Poison,
        Self::Refused,
        Self::Looped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
            Self::Conflict => "conflict",
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::Poison => "poison",
            Self::Refused => "refused",
            Self::Looped => "looped",
        }
    }

    /// Whether a letter of this class is of an event that a plugin was given. An untrusted producer can cause any
    /// number of the others.
    pub fn ran(self) -> bool {
        match self {
            Self::Undecodable | Self::Invalid | Self::Unknown | Self::Conflict => false,
            Self::Rejected | Self::Exhausted | Self::Poison | Self::Refused | Self::Looped => true,
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

impl fmt::Display for ReasonClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failed try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// 1 = the first try.
    pub attempt: u32,
    /// Unix time in milliseconds, by the host's clock: for people, never for decisions.
    pub at_ms: u64,
    /// How it ended: `failed`, `rejected`, or the word of a `Crash`.
    pub class: String,
    pub reason: String,
    /// The first 12 hex digits of the plugin's SHA-256.
    pub plugin: String,
    /// The attempt's last log lines.
    pub log: Vec<String>,
}

impl AttemptRecord {
    /// What it takes of memory, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.reason.len() + self.log.iter().map(String::len).sum::<usize>()
    }

    /// How many attempts are missing between the record before this one, if there is one, and this one. Attempts are
    /// counted from 1 again when a letter is replayed.
    pub fn left_out(&self, before: Option<&Self>) -> u32 {
        let before = before.map_or(0, |before| before.attempt);
        let next = if self.attempt > before { before + 1 } else { 1 };
        self.attempt.saturating_sub(next)
    }
}

/// A dead letter as it lies in the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its own id among the dead letters of its subscription.
    pub id: EntryId,
    /// The entry of the input stream that it came from.
    pub origin: EntryId,
    pub body: Body,
    pub reason: Reason,
    /// Unix time in milliseconds, by the backend's clock.
    pub at_ms: u64,
    pub attempts: u32,
    pub crashes: u32,
    pub history: Vec<AttemptRecord>,
    /// If it was a dead letter before: which, and how often it had been replayed when it failed again.
    pub replayed: Option<Replayed>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_shows_in_the_numbers() {
        let of = |attempt| AttemptRecord {
            attempt,
            at_ms: 0,
            class: "failed".into(),
            reason: String::new(),
            plugin: String::new(),
            log: Vec::new(),
        };
        let missing = |before: Option<u32>, attempt| of(attempt).left_out(before.map(of).as_ref());
        assert_eq!((missing(None, 1), missing(Some(1), 2), missing(Some(20), 1981)), (0, 0, 1960));
        assert_eq!((missing(None, 3), missing(Some(4), 1)), (2, 0), "a replay counts from 1 again");
    }
}
