//! What this host observed of time, by its monotonic clock (docs/decisions/0030). The server's clock may be set while
//! it runs, or become another server's: a host that was running can detect that, the server cannot.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_core::model::delivery::Subscription;

/// A change of the server's clock by more than this against the time that has passed is a step. `common.lua` has it,
/// too.
const STEP_MIN: Duration = Duration::from_secs(60);
/// After a step forward all heartbeats have expired: for so long no host is taken for dead, and live ones renew theirs.
const STEP_PAUSE: Duration = Duration::from_secs(5);

/// All times are since the machine was started ([`tidemill_core::clock::since_boot`]), or, if they end in `_ms`, by the
/// server's clock.
#[derive(Default)]
pub(super) struct Witness(Mutex<HashMap<Subscription, Seen>>);

/// A consumer not watched for longer than this may have had a heartbeat meanwhile.
const WATCH_GAP_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Seen {
    /// The last steady time that was returned, and when it was asked for.
    told: Option<KnownPosition>,
    /// The server's time at the last takeover check.
    looked: Option<KnownPosition>,
    /// Until then no host is taken for dead.
    wait_until: Duration,
    /// The consumers without a heartbeat, and since when they have been seen to have none.
    silent: HashMap<Vec<u8>, Duration>,
    /// When that was checked last.
    watched: Duration,
}

#[derive(Clone, Copy)]
pub(super) struct KnownPosition {
    pub ms: u64,
    pub at: Duration,
}

impl Witness {
    pub(crate) fn told(&self, subscription: &Subscription) -> Option<KnownPosition> {
        self.seen().get(subscription)?.told
    }

    pub(crate) fn tell(&self, subscription: &Subscription, told: KnownPosition) {
        self.of(subscription, |seen| seen.told = Some(told));
    }

    /// Records the server's time. Returns whether heartbeats can be trusted: not for a while after a step forward.
    pub(crate) fn look(&self, subscription: &Subscription, now: KnownPosition) -> bool {
        self.of(subscription, |seen| {
            let before = seen.looked.replace(now);
            if before.is_some_and(|before| steps_forward(before, now)) {
                seen.wait_until = now.at + STEP_PAUSE;
                seen.silent.clear();
            }
            now.at >= seen.wait_until
        })
    }

    /// Records all consumers that have no heartbeat; returns for each how long that has been so. After a gap in
    /// watching the time starts at zero: they may have had one meanwhile.
    pub(crate) fn silent(&self, subscription: &Subscription, names: &[&[u8]], now: Duration) -> Vec<Duration> {
        self.of(subscription, |seen| {
            let gap = now.saturating_sub(std::mem::replace(&mut seen.watched, now));
            let mut before = std::mem::take(&mut seen.silent);
            if gap > WATCH_GAP_MAX {
                before.clear();
            }
            let since = |name: &&[u8]| (name.to_vec(), before.remove(*name).unwrap_or(now));
            let silent: Vec<(Vec<u8>, Duration)> = names.iter().map(since).collect();
            let times = silent.iter().map(|(_, since)| now.saturating_sub(*since)).collect();
            seen.silent = silent.into_iter().collect();
            times
        })
    }

    pub(crate) fn forget(&self, subscription: &Subscription) {
        self.seen().remove(subscription);
    }

    fn of<T>(&self, subscription: &Subscription, work: impl FnOnce(&mut Seen) -> T) -> T {
        let mut all = self.seen();
        match all.get_mut(subscription) {
            Some(seen) => work(seen),
            None => work(all.entry(subscription.clone()).or_default()),
        }
    }

    /// Plain values: as good as before after a panic.
    fn seen(&self) -> MutexGuard<'_, HashMap<Subscription, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn steps_forward(before: KnownPosition, now: KnownPosition) -> bool {
    let passed = now.at.saturating_sub(before.at);
    Duration::from_millis(now.ms.saturating_sub(before.ms)) > passed + STEP_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription() -> Subscription {
        Subscription { stream: "s".into(), handler: "h".into() }
    }

    fn at(seconds: u64, server_seconds: u64) -> KnownPosition {
        KnownPosition { ms: server_seconds * 1000, at: Duration::from_secs(seconds) }
    }

    /// Reaches `STEP_MIN` and `STEP_PAUSE`.
    #[test]
    fn after_a_step_forward_nobody_is_taken_for_dead_for_a_while() {
        let witness = Witness::default();
        let rows = [(10, 5000, true), (12, 5002, true), (14, 15_004, false), (18, 15_008, false), (19, 15_009, true)];
        for (seconds, server, believed) in rows {
            assert_eq!(witness.look(&subscription(), at(seconds, server)), believed, "at {seconds}");
        }
        assert!(witness.look(&subscription(), at(21, 5011)), "heartbeats that last longer are shortened");
        assert!(witness.look(&subscription(), at(5021, 10_011)), "a host that looks seldom is no step");
    }

    /// Reaches `WATCH_GAP_MAX`.
    #[test]
    fn who_has_been_silent_is_known_until_it_speaks_or_nobody_looks() {
        let witness = Witness::default();
        let silent = |names: &[&[u8]], seconds| witness.silent(&subscription(), names, Duration::from_secs(seconds));
        let seconds = Duration::from_secs;
        assert_eq!(silent(&[b"a"], 100), [seconds(0)]);
        assert_eq!(silent(&[b"a", b"b"], 110), [seconds(10), seconds(0)]);
        assert_eq!(silent(&[b"b"], 112), [seconds(2)]);
        assert_eq!(silent(&[b"a", b"b"], 114), [seconds(0), seconds(4)], "it had one meanwhile");
        assert_eq!(silent(&[b"a", b"b"], 125), [seconds(0), seconds(0)], "not watched for 11 s");
    }

    #[test]
    fn the_scripts_know_the_same_step() {
        let line = format!("local STEP_MS = {}", STEP_MIN.as_millis());
        assert!(include_str!("lua/common.lua").contains(&line), "common.lua has no {line}");
    }
}
