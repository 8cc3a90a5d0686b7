//! What came of trying to handle a delivery. An outcome is what the plugin did; what the *host* could not do is an
//! error, never a verdict.

use std::time::Duration;

use super::delivery::Effects;
use super::plain_text::PlainText;

/// What came of a delivery: the plugin was called, or there was a reason not to.
pub type Verdict = Result<Outcome, NotRun>;

/// What the plugin did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done(Effects),
    /// It requests a retry, optionally not before `after`.
    Failed {
        reason: String,
        after: Option<Duration>,
        log: Vec<String>,
    },
    /// It reports a permanent failure; or it requested an effect that it may not have.
    Rejected {
        reason: String,
        log: Vec<String>,
    },
    /// It requested an event that exceeds the hop limit, counted from the first event of the chain.
    Looped {
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

/// An enum with one label for each variant, as records and metrics use it.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident $word:literal)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about])* $variant,)*
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

impl Outcome {
    /// It set timers for which there is no room.
    pub fn full() -> Self {
        let reason = "timer: too many timers wait (host.timers_max)".to_owned();
        Self::Crashed { crash: Crash::TimersWaiting, reason, log: Vec::new() }
    }
}

labels! {
    /// How a plugin broke, or which limit stopped it: the class of the attempt in its record.
    Crash {
        Trap "trap"
        /// Its `lifecycle.init` refused the instance.
        Init "init"
        /// It made the host panic: a bug of the host.
        Panic "panic"
        Deadline "deadline"
        Memory "memory"
        Table "table"
        Stack "stack"
        HostCalls "host-calls"
        HostcallBytes "hostcall-bytes"
        Handles "handles"
        Emits "emits"
        EmitBytes "emit-bytes"
        EventBytes "event-bytes"
        StateBytes "state-bytes"
        StateTotal "state-total"
        Timers "timers"
        TimerBytes "timer-bytes"
        TimersWaiting "timers-waiting"
        HttpRequests "http-requests"
        HttpBytes "http-bytes"
        WasiWait "wasi-wait"
        WasiBytes "wasi-bytes"
    }
}

impl Crash {
    /// A limit was reached; else the plugin broke by itself.
    pub fn is_limit(self) -> bool {
        !matches!(self, Self::Trap | Self::Init | Self::Panic)
    }
}

labels! {
    /// A limit beyond which the host truncates the plugin's output. The attempt goes on.
    Truncation {
        LogLines "log-lines"
        LogBytes "log-bytes"
        LogRate "log-rate"
        ReasonBytes "reason-bytes"
    }
}

/// Why the plugin was not called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRun {
    /// Not an envelope at all.
    Undecodable(PlainText),
    /// An envelope that its schema refuses: where and why.
    Invalid(PlainText),
    /// An envelope of a type and version that have no schema.
    Unknown(PlainText),
    /// An event that this handler's routes match on no host, by what hosts agreed on under this number.
    NotWanted(u64),
    /// One that the routes of another host match.
    WantedElsewhere,
    /// The inbox holds this very event.
    Duplicate,
    /// The inbox holds another event with this id.
    Conflict,
    /// Hosts died while it was in flight, among others: it is to be run in isolation.
    Suspect,
    /// A host died while it ran this and nothing else.
    Poison(PlainText),
}
