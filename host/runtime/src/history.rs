//! The versions that have served a handler, as far back as rollback goes; and what was refused.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use tidemill_core::clock;
use tidemill_sandbox::Plugin;

/// How a version came to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// With the host, or with its settings.
    Start,
    /// Its file changed.
    File,
    /// An operator asked for a reload.
    Request,
    /// An operator asked for the version before.
    Rollback,
    /// It was tried on some of the keys before.
    Canary,
}

impl How {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::File => "file",
            Self::Request => "reload",
            Self::Rollback => "rollback",
            Self::Canary => "canary",
        }
    }
}

#[derive(Clone)]
pub(crate) struct Generation {
    pub number: u64,
    pub plugin: Arc<Plugin>,
    pub since_ms: u64,
    pub how: How,
}

/// What was not taken, and why.
#[derive(Debug, Clone)]
pub(crate) struct RejectedVersion {
    pub at_ms: u64,
    pub digest: Option<String>,
    pub reason: String,
}

pub(crate) struct History {
    /// The oldest first; the last one serves.
    kept: VecDeque<Generation>,
    keep: usize,
    numbers: u64,
    /// The digest that the file had when it was looked at last, whatever came of that: taken, refused, or rolled back
    /// since. The file is not tried again before it has another.
    pub(crate) considered: Option<String>,
    pub refused: Option<RejectedVersion>,
}

impl History {
    /// `numbers`: how many generations there were before these settings. `keep`: how many are kept, the one that serves
    /// among them.
    pub(crate) fn new(plugin: Arc<Plugin>, numbers: u64, keep: usize) -> Self {
        let considered = Some(plugin.digest.to_string());
        let mut history = Self { kept: VecDeque::new(), keep: keep.max(1), numbers, considered, refused: None };
        history.push(plugin, How::Start);
        history
    }

    pub(crate) fn push(&mut self, plugin: Arc<Plugin>, how: How) -> u64 {
        self.numbers += 1;
        self.kept.push_back(Generation { number: self.numbers, plugin, since_ms: clock::now_ms(), how });
        while self.kept.len() > self.keep {
            self.kept.pop_front();
        }
        self.numbers
    }

    /// Takes the version that serves off the list, and answers the one before it, which is taken off too: it comes
    /// back as a generation of its own. None, and nothing changed: there is none before it.
    pub(crate) fn step_back(&mut self) -> Option<Arc<Plugin>> {
        if self.kept.len() < 2 {
            return None;
        }
        self.kept.pop_back();
        Some(self.kept.pop_back()?.plugin)
    }

    /// The generation that serves.
    pub(crate) fn now(&self) -> Option<&Generation> {
        self.kept.back()
    }

    pub(crate) fn numbers(&self) -> u64 {
        self.numbers
    }

    /// Whether another version serves than the one in the file, which was good to begin with: a person rolled it back, or
    /// the judge of canaries did.
    pub(crate) fn gave_up_the_file(&self) -> bool {
        let refused = self.refused.as_ref().and_then(|refused| refused.digest.as_deref());
        let considered = self.considered.as_deref().filter(|digest| Some(*digest) != refused);
        self.now().is_some_and(|now| considered.is_some_and(|digest| digest != &*now.plugin.digest))
    }

    pub(crate) fn to_json(&self) -> Value {
        let generation = |one: &Generation| {
            json!({
                "generation": one.number, "digest": &*one.plugin.digest, "since": clock::rfc3339(one.since_ms),
                "how": one.how.as_str(),
            })
        };
        let refused = self.refused.as_ref().map(|refused| {
            let RejectedVersion { at_ms, digest, reason } = refused;
            json!({ "at": clock::rfc3339(*at_ms), "digest": digest, "reason": reason })
        });
        let mut value = self.now().map_or_else(|| json!({}), generation);
        value["generations"] = self.kept.iter().rev().map(generation).collect();
        value["refused"] = refused.into();
        value
    }
}
