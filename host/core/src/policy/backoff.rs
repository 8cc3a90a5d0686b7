//! How long to wait after one failure more: twice as long each time, up to a longest wait.

use std::time::Duration;

/// The waits of the host itself. Those of a handler are its operator's: [`super::retry::RetryPolicy`].
///
/// ```
/// # use std::time::Duration; use tidemill_core::policy::backoff::Backoff;
/// let s = Duration::from_secs;
/// const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(5) };
/// assert_eq!([1, 2, 3, 4].map(|failed| BACKOFF.wait(failed)), [s(1), s(2), s(4), s(5)]);
/// assert_eq!(BACKOFF.wait(u32::MAX), s(5));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// Where it stops growing.
    pub last: Duration,
}

impl Backoff {
    /// How long to wait after `failed` failures in a row (1 = the first).
    pub fn wait(&self, failed: u32) -> Duration {
        let doubled = 2u32.checked_pow(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.last)
    }
}
