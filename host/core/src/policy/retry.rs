//! When to try again: exponential backoff with full jitter, or what the plugin asked for.

use std::time::Duration;

use serde::Deserialize;

use crate::units;

/// The longest that a plugin may ask to wait. A longer wait is capped to it.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Tries after the first one. 3 means at most four runs in all.
    pub max: u32,
    /// The upper end of the first wait.
    #[serde(deserialize_with = "units::duration")]
    pub base: Duration,
    /// By how much the upper end grows with each failed try.
    pub factor: f64,
    /// Where it stops growing.
    #[serde(deserialize_with = "units::duration")]
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max: 3, base: Duration::from_secs(1), factor: 2.0, cap: Duration::from_secs(300) }
    }
}

impl RetryPolicy {
    /// How long to wait after `failed` failed tries (1 = the first). Full jitter: evenly spread between 0 and the
    /// exponential bound, so that what failed together is not retried together
    /// (AWS Architecture Blog, "Exponential Backoff And Jitter"). `jitter` is in 0..1.
    ///
    /// ```
    /// # use std::time::Duration; use tidemill_core::policy::retry::RetryPolicy;
    /// let s = Duration::from_secs;
    /// let policy = RetryPolicy { max: 3, base: s(1), factor: 2.0, cap: s(5) };
    /// assert_eq!(policy.wait(1, None, 0.5), s(1) / 2);
    /// assert_eq!(policy.wait(3, None, 0.5), s(2));
    /// assert_eq!(policy.wait(9, None, 1.0), s(5));
    /// assert_eq!(policy.wait(1, Some(s(60)), 0.5), s(60));   // jitter never undercuts what the plugin asked for
    /// ```
    pub fn wait(&self, failed: u32, asked: Option<Duration>, jitter: f64) -> Duration {
        match asked {
            Some(asked) => asked.min(RETRY_AFTER_MAX),
            None => {
                let bound = self.base.as_secs_f64() * self.factor.powi(failed.saturating_sub(1).min(64) as i32);
                Duration::from_secs_f64(bound.min(self.cap.as_secs_f64()) * jitter)
            }
        }
    }

    /// Whether there is another try after `failed` failed ones.
    pub fn allows(&self, failed: u32) -> bool {
        failed <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_never_negative_and_never_over_its_bound(
            failed in 1u32..10_000, base_ms in 0u64..100_000, factor in 1.0f64..10.0, cap_ms in 0u64..1_000_000, jitter in 0.0f64..1.0,
        ) {
            let policy = RetryPolicy {
                max: 3, base: Duration::from_millis(base_ms), factor, cap: Duration::from_millis(cap_ms),
            };
            prop_assert!(policy.wait(failed, None, jitter) <= policy.cap);
        }

        /// Reaches `RETRY_AFTER_MAX`.
        #[test]
        fn what_the_plugin_asks_for_is_cut_to_a_week(asked_ms in 0u64..u64::MAX) {
            let policy = RetryPolicy { max: 3, base: Duration::ZERO, factor: 2.0, cap: Duration::ZERO };
            let asked = Duration::from_millis(asked_ms);
            prop_assert_eq!(policy.wait(1, Some(asked), 0.0), asked.min(RETRY_AFTER_MAX));
        }
    }
}
