//! A handler's circuit breaker. Open means *stop fetching*: no attempts are burned, no dead letters fill up.
//!
//! Only first tries can open it. Retries are a biased sample: when the backlog is done and nothing but hopeless
//! retries is left, their failures say nothing about the handler's dependencies.
//!
//! A backend that refuses to settle opens it too, but only when it refuses every settlement: what one event asked for is no
//! reason to stop the others.
//!
//! ```text
//! closed --(failure rate reached over at least min_events)--> open --(open_for)--> half-open --(one probe works)--> closed
//!                                                              ^---------------------(it fails)---'
//! ```

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::units;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerPolicy {
    /// Opens at this share of failed attempts, 0 to 1. Above 1: never opens.
    pub failure_rate: f64,
    /// Looks at the rate only once this many attempts are in.
    pub min_events: u32,
    /// How long it stays open before a probe.
    #[serde(deserialize_with = "units::duration")]
    pub open_for: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failure_rate: 0.5, min_events: 20, open_for: Duration::from_secs(30) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Fetch as much as there is room for.
    Batch,
    /// Fetch one, alone.
    Probe,
    /// Fetch nothing for this long.
    Wait(Duration),
}

/// What finished attempts came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub good: u32,
    /// First tries that failed.
    pub bad: u32,
    /// Retries that failed.
    pub bad_again: u32,
    /// Deliveries that the backend settled, whatever their attempts came to.
    pub settled: u32,
    /// Deliveries that it refused to settle.
    pub refused: u32,
}

#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Counts of the current window, halved when it is full so that old news fades.
    Closed {
        good: u32,
        bad: u32,
        /// Refused since the last one that was settled.
        refused: u32,
    },
    Open {
        until: Instant,
        /// The backend refused, and no attempt failed.
        by_refusals: bool,
    },
    HalfOpen,
}

impl State {
    const CLOSED: Self = Self::Closed { good: 0, bad: 0, refused: 0 };
}

/// The window is this many times `min_events`: long enough to see a rate, short enough to see it change.
const WINDOW_FACTOR: u32 = 5;

impl Breaker {
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::CLOSED }
    }

    /// What may be fetched now.
    pub fn permit(&mut self, now: Instant) -> Permit {
        if let State::Open { until, .. } = self.state {
            if now < until {
                return Permit::Wait(until - now);
            }
            self.state = State::HalfOpen;
        }
        if matches!(self.state, State::HalfOpen) { Permit::Probe } else { Permit::Batch }
    }

    /// Records finished attempts. True if the breaker has opened or closed by it.
    pub fn record(&mut self, now: Instant, tally: Tally) -> bool {
        let Tally { good, bad, bad_again, settled, refused } = tally;
        let open = |by_refusals| State::Open { until: now + self.policy.open_for, by_refusals };
        match &mut self.state {
            // What was refused is sent again meanwhile: the backend settles once more.
            State::Open { by_refusals: true, .. } if settled > 0 => {
                self.state = State::CLOSED;
                true
            }
            // Results of attempts that began before it opened change nothing.
            State::Open { .. } => false,
            State::HalfOpen if good + bad + bad_again + refused == 0 => false,
            State::HalfOpen => {
                let has_failed = bad + bad_again > 0;
                self.state = if has_failed || refused > 0 { open(!has_failed) } else { State::CLOSED };
                true
            }
            State::Closed { good: all_good, bad: all_bad, refused: all_refused } => {
                *all_good += good;
                *all_bad += bad;
                *all_refused = if settled > 0 { 0 } else { all_refused.saturating_add(refused) };
                let all = *all_good + *all_bad;
                let is_failing = bad > 0
                    && all >= self.policy.min_events
                    && f64::from(*all_bad) >= self.policy.failure_rate * f64::from(all);
                let is_refused =
                    refused > 0 && *all_refused >= self.policy.min_events && self.policy.failure_rate <= 1.0;
                if is_failing || is_refused {
                    self.state = open(!is_failing);
                    return true;
                }
                if all >= self.policy.min_events.max(1).saturating_mul(WINDOW_FACTOR) {
                    *all_good /= 2;
                    *all_bad /= 2;
                }
                false
            }
        }
    }

    pub fn name(&self) -> &'static str {
        match self.state {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half-open",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Instant) {
        let policy = BreakerPolicy { failure_rate: 0.5, min_events: 20, open_for: Duration::from_secs(30) };
        (Breaker::new(policy), Instant::now())
    }

    fn tally(good: u32, bad: u32) -> Tally {
        Tally { good, bad, ..Tally::default() }
    }

    #[test]
    fn hopeless_retries_do_not_open_it_but_fail_a_probe() {
        let (mut breaker, now) = breaker();
        assert!(!breaker.record(now, Tally { bad_again: 1000, ..Tally::default() }));
        assert!(breaker.record(now, tally(0, 20)));
        let later = now + Duration::from_secs(31);
        assert_eq!(breaker.permit(later), Permit::Probe);
        assert!(breaker.record(later, Tally { bad_again: 1, ..Tally::default() }));
        assert_eq!(breaker.name(), "open");
    }

    #[test]
    fn a_few_failures_do_not_open_it() {
        let (mut breaker, now) = breaker();
        assert!(!breaker.record(now, tally(0, 19)));
        assert_eq!(breaker.permit(now), Permit::Batch);
    }

    #[test]
    fn it_opens_then_probes_one_by_one_and_closes_on_success() {
        let (mut breaker, now) = breaker();
        assert!(breaker.record(now, tally(10, 10)));
        assert_eq!(breaker.permit(now), Permit::Wait(Duration::from_secs(30)));
        let later = now + Duration::from_secs(31);
        assert_eq!(breaker.permit(later), Permit::Probe);
        assert!(breaker.record(later, tally(0, 1)), "a failed probe opens it again");
        assert_eq!(breaker.permit(later), Permit::Wait(Duration::from_secs(30)));
        let later = later + Duration::from_secs(31);
        assert_eq!(breaker.permit(later), Permit::Probe);
        assert!(breaker.record(later, tally(1, 0)));
        assert_eq!((breaker.permit(later), breaker.name()), (Permit::Batch, "closed"));
    }

    #[test]
    fn it_opens_for_a_backend_that_refuses_all_and_not_for_one_that_refuses_some() {
        let (mut breaker, now) = breaker();
        let refused = |refused, settled| Tally { good: refused + settled, settled, refused, ..Tally::default() };
        for _ in 0..100 {
            assert!(!breaker.record(now, refused(19, 0)));
            assert!(!breaker.record(now, refused(50, 1)), "one was settled: the others are their own affair");
        }
        assert!(!breaker.record(now, refused(19, 0)));
        assert!(breaker.record(now, refused(1, 0)), "twenty in a row, and none was settled");
        let later = now + Duration::from_secs(31);
        assert_eq!(breaker.permit(later), Permit::Probe);
        assert!(breaker.record(later, refused(1, 0)), "the plugin worked, but the backend refused it");
        let later = later + Duration::from_secs(31);
        assert_eq!(breaker.permit(later), Permit::Probe);
        assert!(breaker.record(later, refused(0, 1)));
        assert_eq!((breaker.permit(later), breaker.name()), (Permit::Batch, "closed"));
    }

    #[test]
    fn what_is_sent_again_and_settled_closes_it_only_if_it_was_refused() {
        let settled = Tally { settled: 1, ..Tally::default() };
        let (mut breaker, now) = breaker();
        assert!(breaker.record(now, Tally { good: 20, refused: 20, ..Tally::default() }));
        assert!(breaker.record(now, settled));
        assert_eq!((breaker.permit(now), breaker.name()), (Permit::Batch, "closed"));
        assert!(breaker.record(now, tally(0, 20)));
        assert!(!breaker.record(now, settled), "the plugin failed: that the backend works is no news");
        assert_eq!(breaker.name(), "open");
    }

    #[test]
    fn a_rate_that_cannot_be_reached_never_opens_it() {
        let policy = BreakerPolicy { failure_rate: 2.0, min_events: 1, open_for: Duration::from_secs(30) };
        let mut breaker = Breaker::new(policy);
        assert!(!breaker.record(Instant::now(), Tally { good: 1000, refused: 1000, ..Tally::default() }));
    }

    #[test]
    fn old_successes_fade() {
        let (mut breaker, now) = breaker();
        for _ in 0..1000 {
            breaker.record(now, tally(10, 0));
        }
        let opened_after = (0..200).position(|_| breaker.record(now, tally(0, 1))).expect("it opens");
        assert!(opened_after <= 100, "opened only after {opened_after} failures in a row");
    }
}
