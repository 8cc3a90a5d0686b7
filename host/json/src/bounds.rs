//! What a check of one event may take. The schema library neither stops nor counts: it collects every error there is, and a
//! union asks each of its branches. It looks at the event through our tree, though, and that counts for it: every step of a
//! check, and every error. What is beyond a bound ends the check by unwinding, and what was collected is freed.
//!
//! Steps and not time, so that every host comes to the same verdict on an event.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

#[cfg(not(panic = "unwind"))]
compile_error!("a check that is stopped unwinds: leave `panic = \"abort\"` out of the profile");

/// Steps that any check may take, and those that it may take for each byte of the event. A real schema takes one or two
/// for a byte.
pub const STEPS_MIN: u64 = 1 << 20;
pub const STEPS_PER_BYTE: u64 = 64;
/// Errors that may be collected before the first of them are put into words. Each takes about half a KiB.
pub const ERRORS_MAX: u32 = 1_000;

/// Bytes of a text that are a step, each time that the check goes through it: for a pattern, a format, its length.
pub const STEP_BYTES: usize = 4;
/// Verdicts on objects and lists that the library may remember in one check, so that recursive schemas do not ask twice. Each
/// takes up to 50 bytes. What goes beyond is asked again, and costs steps.
pub const REMEMBERED_MAX: u32 = 1 << 19;

thread_local! {
    static REMEMBERED_LEFT: Cell<u32> = const { Cell::new(u32::MAX) };
    /// Patterns that each name of an object is tried on.
    static PATTERNS: Cell<usize> = const { Cell::new(1) };
    static STEPS_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    static ERRORS_LEFT: Cell<u32> = const { Cell::new(u32::MAX) };
    /// Where the tree has the first value that was found wrong.
    static FIRST: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Why a check has ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    Steps,
    /// With the address of the first value that was found wrong.
    Errors {
        first: usize,
    },
}

/// Runs a check of an event of this size within its bounds, by a schema that tries each name of an object on up to so many
/// patterns. There is no check inside a check: the counters are one set.
pub fn within<T>(event_bytes: usize, patterns: usize, check: impl FnOnce() -> T) -> Result<T, Beyond> {
    debug_assert_eq!(ERRORS_LEFT.get(), u32::MAX, "a check inside a check");
    STEPS_LEFT.set(STEPS_MIN + STEPS_PER_BYTE * event_bytes as u64);
    ERRORS_LEFT.set(ERRORS_MAX);
    REMEMBERED_LEFT.set(REMEMBERED_MAX);
    PATTERNS.set(patterns.max(1));
    FIRST.set(None);
    // What the check has made is dropped; the schema is only read.
    let done = catch_unwind(AssertUnwindSafe(check));
    STEPS_LEFT.set(u64::MAX);
    ERRORS_LEFT.set(u32::MAX);
    REMEMBERED_LEFT.set(u32::MAX);
    done.map_err(|panic| match panic.downcast::<Beyond>() {
        Ok(beyond) => *beyond,
        Err(panic) => resume_unwind(panic),
    })
}

/// A step of the check: a value is looked at.
#[inline]
pub fn step() {
    let left = STEPS_LEFT.get();
    if left == 0 {
        beyond(Beyond::Steps);
    }
    STEPS_LEFT.set(left - 1);
}

/// So many of them at once.
pub fn steps(count: usize) {
    let left = STEPS_LEFT.get();
    match left.checked_sub(count as u64) {
        // Nothing is counted outside of a check.
        _ if left == u64::MAX => {}
        Some(left) => STEPS_LEFT.set(left),
        None => beyond(Beyond::Steps),
    }
}

/// A text of so many bytes is gone through.
#[inline]
pub fn text(bytes: usize) {
    if bytes >= STEP_BYTES {
        steps(bytes / STEP_BYTES);
    }
}

/// So is a name, for each pattern that it is tried on.
#[inline]
pub fn name(bytes: usize) {
    if bytes >= STEP_BYTES {
        steps(bytes / STEP_BYTES * PATTERNS.get());
    }
}

/// Whether one more verdict may be remembered, or looked up. Outside of a check all may.
pub fn may_remember() -> bool {
    let left = REMEMBERED_LEFT.get();
    if left == u32::MAX {
        return true;
    }
    REMEMBERED_LEFT.set(left.saturating_sub(1));
    left > 0
}

/// In a check: the value at this address was found wrong. Answers whether this is a check at all.
pub fn error(address: usize) -> bool {
    let left = ERRORS_LEFT.get();
    if left == u32::MAX {
        return false;
    }
    let first = FIRST.get().unwrap_or(address);
    FIRST.set(Some(first));
    match left.checked_sub(1) {
        Some(left) => ERRORS_LEFT.set(left),
        None => beyond(Beyond::Errors { first }),
    }
    true
}

/// Without the panic hook: nothing has gone wrong in the host.
#[cold]
fn beyond(beyond: Beyond) -> ! {
    resume_unwind(Box::new(beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches `STEPS_MIN` and `STEPS_PER_BYTE`.
    #[test]
    fn a_check_has_its_steps_and_not_one_more() {
        for event_bytes in [0, 1000] {
            let most = STEPS_MIN + STEPS_PER_BYTE * event_bytes as u64;
            let taken = |count: u64| within(event_bytes, 1, || (0..count).for_each(|_| step()));
            assert_eq!((taken(most), taken(most + 1)), (Ok(()), Err(Beyond::Steps)), "{event_bytes}");
            let at_once = |count: u64| within(event_bytes, 1, || steps(count as usize));
            assert_eq!((at_once(most), at_once(most + 1)), (Ok(()), Err(Beyond::Steps)), "{event_bytes}");
        }
    }

    /// Reaches `STEP_BYTES`.
    #[test]
    fn a_text_costs_a_step_for_so_many_of_its_bytes() {
        let most = STEPS_MIN as usize * STEP_BYTES;
        let taken = |bytes: usize| within(0, 7, || text(bytes));
        assert_eq!((taken(most + STEP_BYTES - 1), taken(most + STEP_BYTES)), (Ok(()), Err(Beyond::Steps)));
        let taken = |bytes: usize| within(0, 8, || name(bytes));
        assert_eq!(
            (taken(most / 8), taken(most / 8 + STEP_BYTES)),
            (Ok(()), Err(Beyond::Steps)),
            "on each of 8 patterns"
        );
    }

    /// Reaches `REMEMBERED_MAX`.
    #[test]
    fn so_many_verdicts_are_remembered_in_a_check() {
        for _ in 0..2 {
            let asked = |count: u32| within(0, 1, || (0..count).filter(|_| may_remember()).count());
            assert_eq!(asked(REMEMBERED_MAX + 5), Ok(REMEMBERED_MAX as usize), "from 0 again in each check");
        }
        assert!((0..=REMEMBERED_MAX).all(|_| may_remember()), "outside of a check");
    }

    /// Reaches `ERRORS_MAX`.
    #[test]
    fn a_check_has_its_errors_and_not_one_more() {
        let found = |count: u32| within(0, 1, || (1..=count).for_each(|address| assert!(error(address as usize))));
        assert_eq!((found(ERRORS_MAX), found(ERRORS_MAX + 1)), (Ok(()), Err(Beyond::Errors { first: 1 })));
        assert!(!error(1), "outside of a check nothing is counted");
    }
}
