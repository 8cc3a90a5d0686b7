//! What this host has seen of time, by a clock that nobody sets (docs/decisions/0030). The server's clock may be set while it
//! runs, or become another server's: whoever was there can tell, the server cannot.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::delivery::Subscription;

/// A change of the server's clock by more than this against the time that has passed is a step. `common.lua` has it, too.
const STEP_MIN: Duration = Duration::from_secs(60);
/// After a step forward all heartbeats have run out: so long nobody is taken for dead, and whoever lives has said so by then.
const STEP_PAUSE: Duration = Duration::from_secs(5);

/// All times are those since the machine was started ([`crate::clock::since_boot`]), or by the server's clock where they end in `_ms`.
#[derive(Default)]
pub(super) struct Witness(Mutex<HashMap<Subscription, Seen>>);

/// Who was not looked at for longer than this may have had a heartbeat meanwhile.
const WATCH_GAP_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Seen {
    /// The steady time that was told last, and when it was asked for.
    told: Option<KnownPosition>,
    /// The server's time at the last look for what others left.
    looked: Option<KnownPosition>,
    /// Until then nobody is taken for dead.
    wait_until: Duration,
    /// The consumers without a heartbeat, and since when they have been seen to have none.
    silent: HashMap<Vec<u8>, Duration>,
    /// When that was looked at last.
    watched: Duration,
}

#[derive(Clone, Copy)]
pub(super) struct KnownPosition {
    pub ms: u64,
    pub at: Duration,
}

impl Witness {
    pub fn told(&self, subscription: &Subscription) -> Option<KnownPosition> {
        self.seen().get(subscription)?.told
    }

    pub fn tell(&self, subscription: &Subscription, told: KnownPosition) {
        self.of(subscription, |seen| seen.told = Some(told));
    }

    /// Takes note of the server's time. Whether heartbeats can be believed: they cannot for a while after a step forward.
    pub fn look(&self, subscription: &Subscription, now: KnownPosition) -> bool {
        self.of(subscription, |seen| {
            let before = seen.looked.replace(now);
            if before.is_some_and(|before| steps_forward(before, now)) {
                seen.wait_until = now.at + STEP_PAUSE;
                seen.silent.clear();
            }
            now.at >= seen.wait_until
        })
    }

    /// Takes note of all consumers that have no heartbeat; for each, how long that has been so. What this host did not
    /// watch for a while begins anew: they may have spoken meanwhile.
    pub fn silent(&self, subscription: &Subscription, names: &[&[u8]], now: Duration) -> Vec<Duration> {
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

    pub fn forget(&self, subscription: &Subscription) {
        self.seen().remove(subscription);
    }

    fn of<T>(&self, subscription: &Subscription, work: impl FnOnce(&mut Seen) -> T) -> T {
        let mut all = self.seen();
        match all.get_mut(subscription) {
            Some(seen) => work(seen),
            None => work(all.entry(subscription.clone()).or_default()),
        }
    }

    /// Plain values: as good as before if somebody panicked over them.
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
        assert!(witness.look(&subscription(), at(21, 5011)), "heartbeats last longer after a step back, and are cut");
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
        assert_eq!(silent(&[b"a", b"b"], 114), [seconds(0), seconds(4)], "it has spoken meanwhile");
        assert_eq!(silent(&[b"a", b"b"], 125), [seconds(0), seconds(0)], "nobody has looked for 11 s");
    }

    #[test]
    fn the_scripts_know_the_same_step() {
        let line = format!("local STEP_MS = {}", STEP_MIN.as_millis());
        assert!(include_str!("common.lua").contains(&line), "common.lua has no {line}");
    }
}
