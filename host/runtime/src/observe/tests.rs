//! What the log is spared.

use super::*;

/// Reaches `LOGGED_REASON_BYTES`.
#[test]
fn the_log_has_the_beginning_of_a_reason() {
    let long = "x".repeat(LOGGED_REASON_BYTES);
    assert_eq!((logged(&long), logged(&format!("{long}y"))), (&*long, &*long));
}
