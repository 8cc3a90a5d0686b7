//! What both backends say in the same words when they are examined.

use std::time::Duration;

use crate::model::delivery::Source;

/// One thing that `doctor` looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    /// What was looked at: `durability`, `eviction`, ..
    pub check: &'static str,
    pub text: String,
    /// What to do; empty if nothing.
    pub hint: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Good,
    Warning,
    Bad,
}

/// Dead letters are worth a warning from this share of their bound on.
const DEAD_SHARE: f64 = 0.8;
/// A delivery that has been in somebody's hands for longer is not being worked on.
const PENDING_AGE_MAX: Duration = Duration::from_secs(3600);
/// Dead consumers without deliveries go within seconds while a host runs: more than these leak.
const SILENT_MAX: u64 = 100;

pub fn good(check: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Good, check, text: text.into(), hint: String::new() }
}

pub fn warning(check: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, check, text: text.into(), hint: hint.into() }
}

pub fn bad(check: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { level: Level::Bad, check, text: text.into(), hint: hint.into() }
}

/// What was found out of the ordinary about one source.
#[derive(Debug, Default)]
pub(super) struct Signs {
    pub dead: u64,
    pub dead_max: u64,
    /// Of the delivery that has been in a consumer's hands the longest.
    pub pending_age: Option<Duration>,
    /// Consumers without a heartbeat, and those of them that hold deliveries.
    pub silent: u64,
    pub silent_holding: u64,
}

pub(super) fn signs(source: &Source, signs: &Signs) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Signs { dead, dead_max, silent, silent_holding, .. } = *signs;
    if dead as f64 >= DEAD_SHARE * dead_max as f64 {
        findings.push(warning(
            "dead letters",
            format!("{source}: {dead} dead letters of at most {dead_max}; beyond that the oldest go"),
            "look at them (tidemill dead ls), replay or drop them, or raise host.dead_letters_max",
        ));
    }
    if let Some(age) = signs.pending_age.filter(|age| *age > PENDING_AGE_MAX) {
        findings.push(warning(
            "pending",
            format!("{source}: a delivery has been in a consumer's hands for {}", short(age)),
            "start a host with this handler: it takes over what dead ones left; what is pending holds up trimming",
        ));
    }
    if silent > SILENT_MAX || silent_holding > 0 {
        findings.push(warning(
            "consumers",
            format!("{source}: {silent} consumers have no heartbeat, {silent_holding} of them hold deliveries"),
            "start a host with this handler: it takes over their deliveries and removes them",
        ));
    }
    findings
}

/// A duration for people: whole seconds.
pub(super) fn short(age: Duration) -> String {
    humantime::format_duration(Duration::from_secs(age.as_secs())).to_string()
}
