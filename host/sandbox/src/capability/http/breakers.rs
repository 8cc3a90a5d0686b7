//! One circuit breaker for each host that a handler's requests go to, shared by the handler's instances. Open means that
//! nothing is sent: a service that is down must not delay every event, nor be kept down.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tidemill_core::policy::breaker::{Breaker, BreakerPolicy, Permit, Tally};

/// Hosts that are tracked. A grant with `*.` may reach more of them: then healthy ones are forgotten.
const HOSTS_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Breakers {
    policy: BreakerPolicy,
    hosts: Mutex<HashMap<String, HostBreaker>>,
}

#[derive(Debug)]
struct HostBreaker {
    breaker: Breaker,
    /// A request is under way to see whether the host works again.
    probing: bool,
}

/// A permit to send one request to a host. Its holder reports the result; dropping it reports nothing.
#[must_use]
pub(super) struct Pass<'a> {
    gates: &'a Breakers,
    host: String,
    probe: bool,
}

impl Breakers {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self { policy, hosts: Mutex::default() }
    }

    /// None: the breaker is open.
    pub(crate) fn enter(&self, host: &str) -> Option<Pass<'_>> {
        let mut hosts = self.lock();
        if !hosts.contains_key(host) && hosts.len() >= HOSTS_MAX {
            hosts.retain(|_, gate| gate.breaker.name() != "closed");
            if hosts.len() >= HOSTS_MAX {
                hosts.clear();
            }
        }
        let fresh = || HostBreaker { breaker: Breaker::new(self.policy.clone()), probing: false };
        let gate = hosts.entry(host.to_owned()).or_insert_with(fresh);
        let probe = match gate.breaker.permit(Instant::now()) {
            Permit::Batch => false,
            Permit::Probe if !gate.probing => true,
            Permit::Probe | Permit::Wait(_) => return None,
        };
        gate.probing |= probe;
        Some(Pass { gates: self, host: host.to_owned(), probe })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HostBreaker>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// `good`: the host answered, and reported no error of its own.
    pub(crate) fn went(self, good: bool) {
        if let Some(gate) = self.gates.lock().get_mut(&self.host) {
            let tally = Tally { good: good.into(), bad: (!good).into(), ..Tally::default() };
            gate.breaker.record(Instant::now(), tally);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(gate) = self.gates.lock().get_mut(&self.host)
        {
            gate.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gates(open_for: Duration) -> Breakers {
        Breakers::new(BreakerPolicy { failure_rate: 0.5, min_events: 2, open_for })
    }

    #[test]
    fn a_host_that_fails_is_left_alone_and_others_are_not() {
        let gates = gates(Duration::from_secs(3600));
        for _ in 0..2 {
            gates.enter("a:80").unwrap().went(false);
        }
        assert!(gates.enter("a:80").is_none() && gates.enter("b:80").is_some());
    }

    #[test]
    fn one_request_at_a_time_probes_and_a_good_one_closes() {
        let gates = gates(Duration::ZERO);
        for _ in 0..2 {
            gates.enter("a:80").unwrap().went(false);
        }
        let probe = gates.enter("a:80").unwrap();
        assert!(gates.enter("a:80").is_none(), "one probe at a time");
        drop(probe);
        gates.enter("a:80").expect("a probe that said nothing leaves room for the next").went(true);
        assert!(gates.enter("a:80").is_some() && gates.enter("a:80").is_some());
    }

    /// Reaches `breakers::HOSTS_MAX`.
    #[test]
    fn there_is_a_bound_to_the_hosts() {
        let gates = gates(Duration::from_secs(3600));
        for number in 0..1000 {
            gates.enter(&format!("h{number}:80")).unwrap().went(true);
            assert_eq!(gates.lock().len(), number % HOSTS_MAX + 1, "those that do well are forgotten");
        }
    }
}
