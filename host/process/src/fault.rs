//! Fault points: places in the code at which a test lets this process die, to see what it leaves behind.
//!
//! `TIDEMILL_FAULT=settled:3` ends the process when it comes to the point `settled` for the third time. It ends by
//! `abort`: nothing is unwound, flushed or deregistered, which to others is the same as SIGKILL. In release
//! builds there are no fault points.
//!
//! The others do less than kill. `TIDEMILL_PANIC=worker:3` lets the third turn of the task `worker` panic (`worker:3+`: every
//! turn from the third on), and `TIDEMILL_STUCK=worker:3` lets it hang there for ever; either takes the name of a point, too.
//! `TIDEMILL_STUCK_MS` shortens the time after which one that hangs is detected.

#[cfg(not(debug_assertions))]
use std::time::Duration;

/// Every point there is.
pub const POINTS: [&str; 12] = [
    "fetched",
    "in-plugin",
    "plugin-returned",
    "settling",
    "settled",
    "promoting",
    "promoted",
    "recovering",
    "recovered",
    "trimming",
    "trimmed",
    "replaying",
];

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn tick(_task: &'static str) {}

#[cfg(not(debug_assertions))]
pub fn shortened(time: Duration) -> Duration {
    time
}

#[cfg(debug_assertions)]
pub use planned::{point, shortened, tick};

#[cfg(debug_assertions)]
mod planned {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::POINTS;

    /// What is to happen, where, and from which passage on.
    struct Plan {
        name: String,
        passage: u64,
        for_good: bool,
        passed: AtomicU64,
    }

    impl Plan {
        fn read(variable: &str) -> Option<Self> {
            let wanted = std::env::var(variable).ok()?;
            let (name, times) = wanted.split_once(':').unwrap_or((&wanted, "1"));
            let (passage, for_good) = times.strip_suffix('+').map_or((times, false), |times| (times, true));
            let passage = passage.parse().unwrap_or_else(|_| panic!("{variable}={wanted}: write NAME:TIMES"));
            Some(Self { name: name.to_owned(), passage, for_good, passed: AtomicU64::new(0) })
        }

        fn is_due(&self, name: &str) -> bool {
            if self.name != name {
                return false;
            }
            let passed = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
            passed == self.passage || (self.for_good && passed > self.passage)
        }
    }

    static DIES: LazyLock<Option<Plan>> = LazyLock::new(|| {
        let plan = Plan::read("TIDEMILL_FAULT")?;
        let Plan { name, .. } = &plan;
        assert!(POINTS.contains(&&**name), "TIDEMILL_FAULT={name}: there is no such point; there are {POINTS:?}");
        Some(plan)
    });
    static PANICS: LazyLock<Option<Plan>> = LazyLock::new(|| Plan::read("TIDEMILL_PANIC"));
    static HANGS: LazyLock<Option<Plan>> = LazyLock::new(|| Plan::read("TIDEMILL_STUCK"));

    pub fn point(name: &'static str) {
        if DIES.as_ref().is_some_and(|plan| plan.is_due(name)) {
            #[expect(
                clippy::disallowed_methods,
                reason = "dying with everything in flight is what a test asks for here"
            )]
            std::process::abort();
        }
        tick(name);
    }

    pub fn tick(name: &'static str) {
        assert!(!PANICS.as_ref().is_some_and(|plan| plan.is_due(name)), "a test lets `{name}` panic");
        if HANGS.as_ref().is_some_and(|plan| plan.is_due(name)) {
            loop {
                std::thread::park();
            }
        }
    }

    pub fn shortened(time: Duration) -> Duration {
        static MS: LazyLock<Option<u64>> = LazyLock::new(|| std::env::var("TIDEMILL_STUCK_MS").ok()?.parse().ok());
        MS.map_or(time, Duration::from_millis)
    }
}
