//! What came of trying to handle a delivery. An outcome is what the plugin did; what the *host* could not do is an
//! error, never a verdict.

use std::time::Duration;

use super::delivery::Effects;

/// What came of a delivery: the plugin was called, or there was a reason not to.
pub type Verdict = Result<Outcome, Refusal>;

/// What the plugin did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done(Effects),
    /// It asks to be tried again, if it likes not before `after`.
    Failed {
        reason: String,
        after: Option<Duration>,
        log: Vec<String>,
    },
    /// It says that trying again is no use; or it asked for an effect that it may not have.
    Rejected {
        reason: String,
        log: Vec<String>,
    },
    /// It broke, or was stopped.
    Crashed {
        crash: Crash,
        reason: String,
        log: Vec<String>,
    },
}

impl Outcome {
    /// It set timers for which there is no room.
    pub fn full() -> Self {
        let reason = "timer: as many wait as may (host.timers_max)".to_owned();
        Self::Crashed { crash: Crash::Limit, reason, log: Vec::new() }
    }
}

/// How a plugin broke or why it was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    Trap,
    Deadline,
    Memory,
    Stack,
    Limit,
}

impl Crash {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Limit => "limit",
        }
    }
}

/// Why the plugin was not called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not an envelope at all.
    Undecodable(String),
    /// An envelope that its schema refuses: where and why.
    Invalid(String),
    /// An envelope of a type and version that have no schema.
    Unknown(String),
    /// An event that this handler's routes do not ask for.
    NotWanted,
    /// The inbox holds this very event.
    Duplicate,
    /// The inbox holds another event with this id.
    Conflict,
    /// Hosts died with it in hand, among others: it is to be run alone.
    Suspect,
    /// A host died while it ran this and nothing else.
    Poison(String),
}
