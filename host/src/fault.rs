//! Fault points: places in the code at which a test lets this process die, to see what it leaves behind.
//!
//! `TIDEMILL_FAULT=settled:3` ends the process when it comes to the point `settled` for the third time. It ends by
//! `abort`: nothing is unwound, flushed or said goodbye to, which to everybody else is the same as SIGKILL. In release
//! builds there are no fault points.

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

#[cfg(debug_assertions)]
pub fn point(name: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let wanted = std::env::var("TIDEMILL_FAULT").ok()?;
        let (name, times) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        assert!(POINTS.contains(&name), "TIDEMILL_FAULT={wanted}: there is no such point; there are {POINTS:?}");
        let times = times.parse().expect("TIDEMILL_FAULT=NAME:TIMES");
        Some((name.to_owned(), AtomicU64::new(times)))
    });
    if let Some((wanted, left)) = &*WANTED
        && *wanted == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        #[expect(clippy::disallowed_methods, reason = "dying with everything in hand is what a test asks for here")]
        std::process::abort();
    }
}
