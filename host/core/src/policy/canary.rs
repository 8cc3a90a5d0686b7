//! Judges a canary: a new version of a plugin that serves some of the keys beside the stable one.
//!
//! Only first tries count, on both sides, and a rejection counts as bad on both: what the stable version rejects as well
//! says nothing against the canary, because the two are compared.
//!
//! ```text
//! running --(surely fails more often than the stable one, or is much slower)--> rolled back
//!         --(min_events handled well, min_time over, not worse)---------------> promoted
//! ```

use std::fmt;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::units;

use hdrhistogram::Histogram;

use crate::model::outcome::{Outcome, Verdict};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryPolicy {
    /// The share of the keys that it serves, 0 to 1.
    pub share: f64,
    /// It is promoted only once it has handled this many events well.
    pub min_events: u32,
    /// It is rolled back when it fails more often than the stable version by more than this, 0 to 1.
    pub failure_rate: f64,
    /// It is rolled back when its median call takes more than this many times the stable version's.
    pub slower: f64,
    /// It is promoted only once it has served for this long.
    #[serde(deserialize_with = "units::duration")]
    pub min_time: Duration,
}

impl Default for CanaryPolicy {
    fn default() -> Self {
        Self { share: 0.1, min_events: 200, failure_rate: 0.05, slower: 3.0, min_time: Duration::from_secs(300) }
    }
}

/// How sure one must be that the failures are no chance: the odds against it, as a natural logarithm. 4.6 is 100 to 1.
/// Two of two are enough by default; a version that fails one event in five is found out after about 40 of them.
const CERTAINTY_LN: f64 = 4.6;
/// A rate that is not judged to be certain, so that the comparison with it stays finite.
const RATE_MAX: f64 = 0.999;
/// Calls on both sides before medians are compared.
const CALLS_MIN: u64 = 30;
/// The median must be longer by this as well: below it, a fresh instance or a busy machine makes more difference than
/// the version.
const SLOWER_MIN: Duration = Duration::from_millis(1);

/// What is known of one version since the canary began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Side {
    /// First tries that ended well.
    pub good: u32,
    /// First tries that failed, crashed or were rejected.
    pub bad: u32,
    pub calls: u64,
    pub median: Duration,
}

/// What the judge needs to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CanarySnapshot {
    pub age: Duration,
    pub stable: Side,
    pub canary: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Wait,
    Promote,
    RollBack(RollbackReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollbackReason {
    Failing,
    Slow,
}

impl Side {
    fn all(&self) -> u32 {
        self.good + self.bad
    }

    /// The share of bad ones; 0 if there are none at all.
    pub fn failure_rate(&self) -> f64 {
        f64::from(self.bad) / f64::from(self.all().max(1))
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} first tries were bad, median {:?}", self.bad, self.all(), self.median)
    }
}

pub fn judge(policy: &CanaryPolicy, facts: &CanarySnapshot) -> Decision {
    let CanarySnapshot { age, stable, canary } = facts;
    let allowed = stable.failure_rate() + policy.failure_rate;
    let worse = canary.failure_rate() > allowed;
    if worse && evidence(canary, allowed.min(RATE_MAX)) >= CERTAINTY_LN {
        return Decision::RollBack(RollbackReason::Failing);
    }
    let slower = canary.median > stable.median.mul_f64(policy.slower) && canary.median > stable.median + SLOWER_MIN;
    if slower && canary.calls >= CALLS_MIN && stable.calls >= CALLS_MIN {
        return Decision::RollBack(RollbackReason::Slow);
    }
    if !worse && canary.good >= policy.min_events && *age >= policy.min_time {
        return Decision::Promote;
    }
    Decision::Wait
}

/// The odds, as a logarithm, against seeing so many bad ones by chance if the true rate were no more than `allowed`
/// (Chernoff's bound: n times the relative entropy of the two rates).
fn evidence(side: &Side, allowed: f64) -> f64 {
    let rate = side.failure_rate();
    let part = |of: f64, to: f64| if of > 0.0 { of * (of / to.max(f64::MIN_POSITIVE)).ln() } else { 0.0 };
    f64::from(side.all()) * (part(rate, allowed) + part(1.0 - rate, 1.0 - allowed))
}

/// What one version did in one batch.
#[derive(Debug, Default)]
pub struct BatchStats {
    pub good: u32,
    pub bad: u32,
    pub took: Vec<Duration>,
}

impl BatchStats {
    /// Records a verdict, if it is of a first try.
    pub fn add(&mut self, verdict: &Verdict, attempts: u32, took: Duration) {
        if attempts > 0 {
            return;
        }
        match verdict {
            Ok(Outcome::Done(_)) => self.good += 1,
            Ok(
                Outcome::Failed { .. } | Outcome::Crashed { .. } | Outcome::Rejected { .. } | Outcome::Looped { .. },
            ) => self.bad += 1,
            // The plugin was not called.
            Err(_) => return,
        }
        self.took.push(took);
    }
}

/// A canary's record from its beginning on.
#[derive(Debug)]
pub struct CanaryStats {
    policy: CanaryPolicy,
    began: Instant,
    stable: Tally,
    canary: Tally,
}

#[derive(Debug)]
struct Tally {
    good: u32,
    bad: u32,
    took_us: Histogram<u64>,
}

/// Calls are kept with two significant digits, up to ten minutes: more than any deadline.
const TOP_US: u64 = 600_000_000;

impl Tally {
    fn new() -> Self {
        Self { good: 0, bad: 0, took_us: Histogram::new_with_max(TOP_US, 2).expect("valid bounds") }
    }

    fn add(&mut self, round: &BatchStats) {
        self.good = self.good.saturating_add(round.good);
        self.bad = self.bad.saturating_add(round.bad);
        for took in &round.took {
            self.took_us.saturating_record(u64::try_from(took.as_micros()).unwrap_or(TOP_US));
        }
    }

    fn side(&self) -> Side {
        let median = Duration::from_micros(self.took_us.value_at_quantile(0.5));
        Side { good: self.good, bad: self.bad, calls: self.took_us.len(), median }
    }
}

impl CanaryStats {
    pub fn new(policy: CanaryPolicy, now: Instant) -> Self {
        Self { policy, began: now, stable: Tally::new(), canary: Tally::new() }
    }

    /// Records a batch and judges again.
    pub fn record(&mut self, now: Instant, stable: &BatchStats, canary: &BatchStats) -> Decision {
        self.stable.add(stable);
        self.canary.add(canary);
        judge(&self.policy, &self.facts(now))
    }

    pub fn facts(&self, now: Instant) -> CanarySnapshot {
        CanarySnapshot {
            age: now.saturating_duration_since(self.began),
            stable: self.stable.side(),
            canary: self.canary.side(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn policy() -> CanaryPolicy {
        CanaryPolicy {
            share: 0.1,
            min_events: 200,
            failure_rate: 0.05,
            slower: 3.0,
            min_time: Duration::from_secs(300),
        }
    }

    fn side(good: u32, bad: u32, median_us: u64) -> Side {
        Side { good, bad, calls: u64::from(good + bad), median: Duration::from_micros(median_us) }
    }

    fn said(policy: &CanaryPolicy, age_s: u64, stable: Side, canary: Side) -> Decision {
        judge(policy, &CanarySnapshot { age: Duration::from_secs(age_s), stable, canary })
    }

    const FAILING: Decision = Decision::RollBack(RollbackReason::Failing);
    const SLOW: Decision = Decision::RollBack(RollbackReason::Slow);

    /// Reaches `CALLS_MIN` and `SLOWER_MIN`.
    #[test]
    fn the_table() {
        let shutdown = Side::default();
        let rows = [
            ("nothing has come yet", 9999, shutdown, shutdown, Decision::Wait),
            ("one failure says little", 1, side(9, 0, 50), side(0, 1, 50), Decision::Wait),
            ("two of two say enough", 1, side(9, 0, 50), side(0, 2, 50), FAILING),
            ("also where the stable one had nothing to do", 1, shutdown, side(0, 2, 50), FAILING),
            ("one of five, seen ten times, may be chance", 1, side(90, 0, 50), side(8, 2, 50), Decision::Wait),
            ("seen forty times it is none", 1, side(360, 0, 50), side(32, 8, 50), FAILING),
            ("both fail: that is not the version", 1, side(0, 90, 50), side(0, 10, 50), Decision::Wait),
            ("half of both fail", 1, side(450, 450, 50), side(49, 51, 50), Decision::Wait),
            ("a failure more is within the margin", 400, side(1800, 0, 50), side(200, 5, 50), Decision::Promote),
            ("good, but not for long enough", 299, side(1800, 0, 50), side(200, 0, 50), Decision::Wait),
            ("good, but too few", 300, side(1791, 0, 50), side(199, 0, 50), Decision::Wait),
            ("good", 300, side(1800, 0, 50), side(200, 0, 50), Decision::Promote),
            ("while all fails, nothing is promoted", 9999, side(0, 9000, 50), side(0, 1000, 50), Decision::Wait),
            ("better than the stable one", 300, side(1000, 800, 50), side(200, 0, 50), Decision::Promote),
            ("four times as slow", 1, side(270, 0, 1000), side(30, 0, 4000), SLOW),
            ("the same, but too few calls to tell", 1, side(270, 0, 1000), side(29, 0, 4000), Decision::Wait),
            ("the same, but too few to compare with", 1, side(29, 0, 1000), side(30, 0, 4000), Decision::Wait),
            ("twice as slow is borne", 300, side(1800, 0, 1000), side(200, 0, 2000), Decision::Promote),
            ("a millisecond more is borne", 1, side(270, 0, 10), side(30, 0, 1010), Decision::Wait),
            ("what is beyond that is not", 1, side(270, 0, 10), side(30, 0, 1011), SLOW),
            ("four times nearly nothing", 300, side(1800, 0, 10), side(200, 0, 40), Decision::Promote),
        ];
        for (what, age_s, stable, canary, wanted) in rows {
            assert_eq!(said(&policy(), age_s, stable, canary), wanted, "{what}");
        }
    }

    /// Where nearly nothing goes well on the stable side, so many failures are needed that the odds stay numbers.
    ///
    /// Reaches `RATE_MAX`.
    #[test]
    fn of_two_that_fail_all_the_time_none_is_worse() {
        let all_but_strict = CanaryPolicy { failure_rate: 0.0, ..policy() };
        let stable = side(1, 1999, 50);
        let needed = (CERTAINTY_LN / -RATE_MAX.ln()).ceil() as u32;
        assert_eq!(said(&all_but_strict, 1, stable, side(0, needed - 1, 50)), Decision::Wait);
        assert_eq!(said(&all_but_strict, 1, stable, side(0, needed, 50)), FAILING);
        assert_eq!(said(&all_but_strict, 1, side(0, 2000, 50), side(0, 100_000, 50)), Decision::Wait);
    }

    #[test]
    fn each_key_of_the_policy_has_its_effect() {
        let (stable, canary) = (side(1800, 0, 1000), side(200, 8, 2500));
        assert_eq!(said(&policy(), 300, stable, canary), Decision::Promote);
        let rows = [
            (CanaryPolicy { min_events: 201, ..policy() }, Decision::Wait),
            (CanaryPolicy { min_time: Duration::from_secs(301), ..policy() }, Decision::Wait),
            (CanaryPolicy { failure_rate: 0.005, ..policy() }, FAILING),
            (CanaryPolicy { slower: 2.0, ..policy() }, SLOW),
        ];
        for (policy, wanted) in rows {
            assert_eq!(said(&policy, 300, stable, canary), wanted, "{policy:?}");
        }
    }

    #[test]
    fn retries_and_refusals_count_on_no_side() {
        let failed = || Ok(Outcome::Failed { reason: "x".into(), after: None, log: vec![] });
        let rejected = Ok(Outcome::Rejected { reason: "x".into(), log: vec![] });
        let mut round = BatchStats::default();
        for (verdict, attempts) in [
            (failed(), 0),
            (failed(), 1),
            (rejected, 0),
            (Ok(Outcome::Done(Default::default())), 0),
            (Err(crate::model::outcome::NotRun::Duplicate), 0),
        ] {
            round.add(&verdict, attempts, Duration::from_millis(1));
        }
        assert_eq!((round.good, round.bad, round.took.len()), (1, 2, 3));
    }

    /// Plays a canary at a tenth of the keys in batches of 128, until it has done 200 well. The events that met it before
    /// it was rolled back; none if it was not.
    fn exposed(stable_rate: f64, canary_rate: f64, seed: u64) -> Option<u32> {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut stable, mut canary) = (side(0, 0, 50), side(0, 0, 50));
        while canary.good < 200 {
            for _ in 0..128 {
                let (side, rate) =
                    if rng.random_bool(0.1) { (&mut canary, canary_rate) } else { (&mut stable, stable_rate) };
                if rng.random_bool(rate) { side.bad += 1 } else { side.good += 1 }
            }
            if said(&policy(), 0, stable, canary) == FAILING {
                return Some(canary.all());
            }
        }
        None
    }

    #[test]
    fn as_good_is_seldom_rolled_back_and_much_worse_always_and_soon() {
        for rate in [0.0, 0.01, 0.2, 0.5] {
            let wrong = (0..500).filter(|seed| exposed(rate, rate, *seed).is_some()).count();
            assert!(wrong <= 5, "{wrong} of 500 that fail as often as the stable one, {rate}, were rolled back");
        }
        let mut met: Vec<u32> = (0..500).filter_map(|seed| exposed(0.0, 0.2, seed)).collect();
        met.sort_unstable();
        assert_eq!(met.len(), 500);
        assert!((20..60).contains(&met[250]), "half of them had met {} events", met[250]);
        assert!(met[475] < 150, "one in twenty had met {} events", met[475]);
    }

    proptest! {
        /// Whatever the rest looks like: worse never promotes, and no worse never rolls back for failing.
        #[test]
        fn a_side_that_fails_no_more_often_is_never_rolled_back_for_failing(
            good in 0u32..2000, bad in 0u32..50_000, times in 1u32..20, age_s in 0u64..1000,
        ) {
            let (canary, stable) = (side(good, bad, 50), side(good * times, bad * times, 50));
            prop_assert_ne!(said(&policy(), age_s, stable, canary), FAILING);
        }

        #[test]
        fn more_failures_never_help(good in 0u32..500, bad in 0u32..500, stable_bad in 0u32..500) {
            let stable = side(500, stable_bad, 50);
            let rank = |decision| match decision {
                Decision::Promote => 0,
                Decision::Wait => 1,
                Decision::RollBack(_) => 2,
            };
            let of = |bad| rank(said(&policy(), 9999, stable, side(good, bad, 50)));
            prop_assert!(of(bad) <= of(bad + 1), "{} then {}", of(bad), of(bad + 1));
        }

        #[test]
        fn what_always_fails_is_found_out_after_two(stable_good in 1u32..10_000, failed in 2u32..100) {
            prop_assert_eq!(said(&policy(), 0, side(stable_good, 0, 50), side(0, failed, 50)), FAILING);
        }
    }
}
