//! A handler's circuit breaker. Open means *stop fetching*: no attempts are burned, no dead letters fill up.
//!
//! Only first tries can open it. Those who fail again are a chosen few: when the backlog is done and nothing but hopeless
//! retries is left, their failures say nothing about whatever the handler depends on.
//!
//! ```text
//! closed --(failure rate reached over at least min_events)--> open --(open_for)--> half-open --(one probe works)--> closed
//!                                                              ^---------------------(it fails)---'
//! ```

use std::time::{Duration, Instant};

#[derive(Debug, Clone, PartialEq)]
pub struct BreakerPolicy {
    /// Opens at this share of failed attempts, 0 to 1. Above 1: never opens.
    pub failure_rate: f64,
    /// Looks at the rate only once this many attempts are in.
    pub min_events: u32,
    /// How long it stays open before a probe.
    pub open_for: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Fetch as much as there is room for.
    Full,
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
    },
    Open {
        until: Instant,
    },
    HalfOpen,
}

/// The window is this many times `min_events`: long enough to see a rate, short enough to see it change.
const WINDOW_FACTOR: u32 = 5;

impl Breaker {
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Closed { good: 0, bad: 0 } }
    }

    /// What may be fetched now.
    pub fn permit(&mut self, now: Instant) -> Permit {
        if let State::Open { until } = self.state {
            if now < until {
                return Permit::Wait(until - now);
            }
            self.state = State::HalfOpen;
        }
        if matches!(self.state, State::HalfOpen) { Permit::Probe } else { Permit::Full }
    }

    /// Takes note of finished attempts. True if the breaker has opened or closed by it.
    pub fn record(&mut self, now: Instant, Tally { good, bad, bad_again }: Tally) -> bool {
        let open = State::Open { until: now + self.policy.open_for };
        match &mut self.state {
            // Results of attempts that began before it opened change nothing.
            State::Open { .. } => false,
            State::HalfOpen if good + bad + bad_again == 0 => false,
            State::HalfOpen => {
                self.state = if bad + bad_again > 0 { open } else { State::Closed { good: 0, bad: 0 } };
                true
            }
            State::Closed { good: all_good, bad: all_bad } => {
                *all_good += good;
                *all_bad += bad;
                let all = *all_good + *all_bad;
                if bad > 0
                    && all >= self.policy.min_events
                    && f64::from(*all_bad) >= self.policy.failure_rate * f64::from(all)
                {
                    self.state = open;
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
        Tally { good, bad, bad_again: 0 }
    }

    #[test]
    fn hopeless_retries_do_not_open_it_but_fail_a_probe() {
        let (mut breaker, now) = breaker();
        assert!(!breaker.record(now, Tally { good: 0, bad: 0, bad_again: 1000 }));
        assert!(breaker.record(now, tally(0, 20)));
        let later = now + Duration::from_secs(31);
        assert_eq!(breaker.permit(later), Permit::Probe);
        assert!(breaker.record(later, Tally { good: 0, bad: 0, bad_again: 1 }));
        assert_eq!(breaker.name(), "open");
    }

    #[test]
    fn a_few_failures_do_not_open_it() {
        let (mut breaker, now) = breaker();
        assert!(!breaker.record(now, tally(0, 19)));
        assert_eq!(breaker.permit(now), Permit::Full);
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
        assert_eq!((breaker.permit(later), breaker.name()), (Permit::Full, "closed"));
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
