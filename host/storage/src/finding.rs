//! The findings of `doctor` that both backends report in the same words.

use std::time::Duration;

use crate::options::Options;
use crate::status::SubscriptionStatus;
use tidemill_core::model::delivery::Subscription;

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
/// A delivery that has been pending for longer is not being processed.
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

/// What was found out of the ordinary about one subscription.
#[derive(Debug, Default)]
pub struct Signs {
    /// The counters as far as they are about dead letters.
    pub letters: SubscriptionStatus,
    /// Of the delivery that has been pending the longest.
    pub pending_age: Option<Duration>,
    /// Consumers without a heartbeat, and those of them that hold deliveries.
    pub silent: u64,
    pub silent_holding: u64,
}

pub fn signs(subscription: &Subscription, signs: &Signs, options: &Options) -> Vec<Finding> {
    let mut findings: Vec<Finding> = dead_letters(subscription, &signs.letters, options).into_iter().collect();
    let Signs { silent, silent_holding, .. } = *signs;
    if let Some(age) = signs.pending_age.filter(|age| *age > PENDING_AGE_MAX) {
        findings.push(warning(
            "pending",
            format!("{subscription}: a delivery has been pending for {}", short(age)),
            "start a host with this handler: it reclaims deliveries of dead consumers; pending ones block trimming",
        ));
    }
    if silent > SILENT_MAX || silent_holding > 0 {
        findings.push(warning(
            "consumers",
            format!("{subscription}: {silent} consumers have no heartbeat, {silent_holding} of them hold deliveries"),
            "start a host with this handler: it reclaims their deliveries and removes them",
        ));
    }
    findings
}

/// How near the dead letters are to their bounds, and what the bounds have cost.
fn dead_letters(subscription: &Subscription, counters: &SubscriptionStatus, options: &Options) -> Option<Finding> {
    let SubscriptionStatus { dead, dead_unrun, dead_bytes, evicted_ran, evicted_unrun, .. } = *counters;
    let Options { dead_letters_max: max, dead_letters_bytes_max: bytes_max, .. } = *options;
    let near = |count: u64, max: u64| count as f64 >= DEAD_SHARE * max as f64;
    if near(dead, max) || near(dead_bytes, bytes_max) {
        let (mib, mib_max) = (dead_bytes >> 20, bytes_max >> 20);
        return Some(warning(
            "dead letters",
            format!(
                "{subscription}: {dead} dead letters of at most {max}, {mib} MiB of at most {mib_max}; beyond that the oldest \
                 go, and {evicted_ran} of those that ran have gone"
            ),
            "look at them (tidemill dead ls), replay or drop them, or raise host.dead_letters_max and \
             host.dead_letters_bytes_max",
        ));
    }
    near(dead_unrun, max / 2).then(|| {
        warning(
            "dead letters",
            format!(
                "{subscription}: {dead_unrun} dead letters never ran, of at most {}; beyond that the oldest of them go, and \
                 {evicted_unrun} have gone",
                max / 2
            ),
            "a producer sends what no handler takes: see the reasons (tidemill dead ls), fix the producer, drop them",
        )
    })
}

/// A duration for people: whole seconds.
pub fn short(age: Duration) -> String {
    humantime::format_duration(Duration::from_secs(age.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches `PENDING_AGE_MAX` and `finding::SILENT_MAX`.
    #[test]
    fn what_is_out_of_the_ordinary_is_told_and_nothing_else() {
        let subscription = Subscription { stream: "s".into(), handler: "h".into() };
        let told = |pending: Duration, silent: u64| {
            let facts = Signs { pending_age: Some(pending), silent, ..Signs::default() };
            signs(&subscription, &facts, &Options::default()).iter().map(|finding| finding.check).collect::<Vec<_>>()
        };
        assert!(told(PENDING_AGE_MAX, SILENT_MAX).is_empty());
        assert_eq!(told(PENDING_AGE_MAX + Duration::from_millis(1), SILENT_MAX), ["pending"]);
        assert_eq!(told(Duration::ZERO, SILENT_MAX + 1), ["consumers"]);
    }
}
