//! The one table: what came of a delivery -> what is done with it.
//!
//! | verdict | attempts left | none left |
//! |---|---|---|
//! | Done | Commit | Commit |
//! | Failed, Crashed | Retry | DeadLetter(exhausted) |
//! | Rejected, Looped, Undecodable, Invalid, Unknown, Conflict, Poison | DeadLetter | DeadLetter |
//! | Duplicate | Skip | Skip |
//! | NotWanted | Pass | Pass |
//! | WantedElsewhere | Leave | Leave |
//! | Suspect | Quarantine | Quarantine |
//!
//! A canary never dead-letters: where the table has DeadLetter for what the plugin did, it is Retry if a canary did it.
//! The stable version has the next try.

use std::time::Duration;

use super::retry::RetryPolicy;
use crate::model::dead_letter::{AttemptRecord, Reason, ReasonClass};
use crate::model::delivery::Disposition;
use crate::model::outcome::{NotRun, Outcome, Verdict};

/// What `decide` needs to know besides the verdict.
#[derive(Debug, Clone)]
pub struct DecisionInput<'a> {
    /// Tries that failed before this one.
    pub attempts: u32,
    pub retry: &'a RetryPolicy,
    /// Unix time in milliseconds, for the record.
    pub now_ms: u64,
    /// The plugin's short digest, for the record.
    pub plugin: &'a str,
    /// Evenly spread in 0..1, for the jitter.
    pub jitter: f64,
    /// A canary did it, and not the stable version.
    pub canary: bool,
}

pub fn decide(verdict: Verdict, facts: &DecisionInput<'_>) -> Disposition {
    match verdict {
        Ok(Outcome::Done(effects)) => Disposition::Commit(effects),
        Ok(Outcome::Failed { reason, after, log }) => again(facts, "failed", reason, after, log),
        Ok(Outcome::Crashed { crash, reason, log }) => again(facts, crash.as_str(), reason, None, log),
        Ok(Outcome::Rejected { reason, log }) if facts.canary => again(facts, "rejected", reason, None, log),
        Ok(Outcome::Looped { reason, log }) if facts.canary => again(facts, "looped", reason, None, log),
        Ok(Outcome::Rejected { reason, log }) => last(facts, ReasonClass::Rejected, reason, log),
        Ok(Outcome::Looped { reason, log }) => last(facts, ReasonClass::Looped, reason, log),
        Err(NotRun::Undecodable(text)) => dead(ReasonClass::Undecodable, text),
        Err(NotRun::Invalid(text)) => dead(ReasonClass::Invalid, text),
        Err(NotRun::Unknown(text)) => dead(ReasonClass::Unknown, text),
        Err(NotRun::Poison(text)) => dead(ReasonClass::Poison, text),
        Err(NotRun::Conflict) => {
            dead(ReasonClass::Conflict, "another event with this event_id and other content was handled before")
        }
        Err(NotRun::NotWanted(agreed)) => Disposition::Pass { agreed },
        Err(NotRun::WantedElsewhere) => Disposition::Leave,
        Err(NotRun::Duplicate) => Disposition::Skip { duplicate: true },
        Err(NotRun::Suspect) => Disposition::Quarantine,
    }
}

/// What becomes of a delivery whose settlement the backend refuses, in these words, for too long. None where only the backend
/// can end it: it holds no effects, so nothing is won by dropping them.
pub fn given_up(decided: &Disposition, refusal: &str) -> Option<Disposition> {
    let record = match decided {
        Disposition::Commit(_) => None,
        Disposition::Retry { record, .. } => Some(record.clone()),
        Disposition::Skip { .. }
        | Disposition::Pass { .. }
        | Disposition::Leave
        | Disposition::Quarantine
        | Disposition::DeadLetter { .. } => return None,
    };
    // One line: hints of errors stand in a line of their own.
    let refusal = refusal.replace("\n  hint: ", "; hint: ");
    let text = format!("the backend refused what it would have committed: {refusal}");
    Some(Disposition::DeadLetter { reason: Reason { class: ReasonClass::Refused, text }, record })
}

/// Retry while the policy allows it, then a dead letter.
fn again(
    facts: &DecisionInput<'_>,
    class: &str,
    reason: String,
    after: Option<Duration>,
    log: Vec<String>,
) -> Disposition {
    let failed = facts.attempts + 1;
    let record = record(facts, class, reason, log);
    if facts.canary || facts.retry.allows(failed) {
        return Disposition::Retry { after: facts.retry.wait(failed, after, facts.jitter), record };
    }
    let text = format!("{failed} attempts failed, the last one: {class}: {}", record.reason);
    Disposition::DeadLetter { reason: Reason { class: ReasonClass::Exhausted, text }, record: Some(record) }
}

/// Another try would end in the same way: the class of the attempt is that of the letter.
fn last(facts: &DecisionInput<'_>, class: ReasonClass, reason: String, log: Vec<String>) -> Disposition {
    let record = record(facts, class.as_str(), reason.clone(), log);
    Disposition::DeadLetter { reason: Reason { class, text: reason }, record: Some(record) }
}

fn dead(class: ReasonClass, text: impl Into<String>) -> Disposition {
    Disposition::DeadLetter { reason: Reason { class, text: text.into() }, record: None }
}

fn record(facts: &DecisionInput<'_>, class: &str, reason: String, log: Vec<String>) -> AttemptRecord {
    AttemptRecord {
        attempt: facts.attempts + 1,
        at_ms: facts.now_ms,
        class: class.to_owned(),
        reason,
        plugin: facts.plugin.to_owned(),
        log,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::delivery::Effects;
    use crate::model::outcome::Crash;

    const RETRY: RetryPolicy =
        RetryPolicy { max: 3, base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(300) };

    fn decided(verdict: Verdict, attempts: u32) -> String {
        decided_by(false, verdict, attempts)
    }

    fn decided_by(canary: bool, verdict: Verdict, attempts: u32) -> String {
        let facts = DecisionInput { attempts, retry: &RETRY, now_ms: 0, plugin: "0123456789ab", jitter: 1.0, canary };
        match decide(verdict, &facts) {
            Disposition::Commit(_) => "commit".to_owned(),
            Disposition::Skip { .. } => "skip".to_owned(),
            Disposition::Pass { agreed } => format!("pass {agreed}"),
            Disposition::Leave => "leave".to_owned(),
            Disposition::Quarantine => "quarantine".to_owned(),
            Disposition::Retry { after, record } => format!("retry {} in {after:?}", record.attempt),
            Disposition::DeadLetter { reason, .. } => format!("dead {}", reason.class),
        }
    }

    #[test]
    fn the_table() {
        let failed = |after| Ok(Outcome::Failed { reason: "busy".into(), after, log: vec![] });
        let crashed = || Ok(Outcome::Crashed { crash: Crash::Deadline, reason: "1s".into(), log: vec![] });
        let rejected = || Ok(Outcome::Rejected { reason: "no".into(), log: vec![] });
        let looped = || Ok(Outcome::Looped { reason: "hop 65".into(), log: vec![] });
        let rows: Vec<(Verdict, &str, &str)> = vec![
            (Ok(Outcome::Done(Effects::default())), "commit", "commit"),
            (failed(None), "retry 1 in 1s", "dead exhausted"),
            (failed(Some(Duration::from_secs(9))), "retry 1 in 9s", "dead exhausted"),
            (crashed(), "retry 1 in 1s", "dead exhausted"),
            (rejected(), "dead rejected", "dead rejected"),
            (looped(), "dead looped", "dead looped"),
            (Err(NotRun::Undecodable("x".into())), "dead undecodable", "dead undecodable"),
            (Err(NotRun::Invalid("x".into())), "dead invalid", "dead invalid"),
            (Err(NotRun::Unknown("x".into())), "dead unknown", "dead unknown"),
            (Err(NotRun::Poison("x".into())), "dead poison", "dead poison"),
            (Err(NotRun::Conflict), "dead conflict", "dead conflict"),
            (Err(NotRun::Duplicate), "skip", "skip"),
            (Err(NotRun::NotWanted(7)), "pass 7", "pass 7"),
            (Err(NotRun::WantedElsewhere), "leave", "leave"),
            (Err(NotRun::Suspect), "quarantine", "quarantine"),
        ];
        for (verdict, first, last) in rows {
            assert_eq!(decided(verdict.clone(), 0), first, "{verdict:?}");
            assert_eq!(decided(verdict.clone(), 3), last, "{verdict:?}");
        }
    }

    #[test]
    fn a_canary_never_has_the_last_word() {
        let verdicts: [Verdict; 4] = [
            Ok(Outcome::Failed { reason: "busy".into(), after: None, log: vec![] }),
            Ok(Outcome::Crashed { crash: Crash::Trap, reason: "x".into(), log: vec![] }),
            Ok(Outcome::Rejected { reason: "no".into(), log: vec![] }),
            Ok(Outcome::Looped { reason: "no".into(), log: vec![] }),
        ];
        for verdict in verdicts {
            assert_eq!(decided_by(true, verdict.clone(), 0), "retry 1 in 1s", "{verdict:?}");
            assert_eq!(decided_by(true, verdict.clone(), 3), "retry 4 in 8s", "{verdict:?}");
        }
        assert_eq!(decided_by(true, Err(NotRun::Conflict), 0), "dead conflict");
    }

    #[test]
    fn three_retries_are_four_runs() {
        let runs: Vec<String> = (0..4)
            .map(|attempts| decided(Ok(Outcome::Failed { reason: "x".into(), after: None, log: vec![] }), attempts))
            .collect();
        assert_eq!(runs, ["retry 1 in 1s", "retry 2 in 2s", "retry 3 in 4s", "dead exhausted"]);
    }
}
