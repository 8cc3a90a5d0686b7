//! Reporting why an attempt failed. A trap, a deadline or a limit needs no words: the host sees those itself.

use std::time::Duration;

use crate::Failure;
use crate::bindings::tidemill::plugin::types::RetryHint;

impl Failure {
    /// May work later: counted as an attempt, then retried by the handler's policy.
    ///
    /// ```
    /// # use tidemill_sdk::Failure;
    /// # use std::time::Duration;
    /// let failure = Failure::retry("the gateway is busy").after(Duration::from_secs(2));
    /// # let Failure::Retry(hint) = failure else { panic!() };
    /// # assert_eq!((hint.reason.as_str(), hint.after_ms), ("the gateway is busy", Some(2000)));
    /// ```
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry(RetryHint { reason: reason.into(), after_ms: None })
    }

    /// Will never work: the delivery becomes a dead letter at once, with this reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(reason.into())
    }

    /// Not before this much time has passed; without it the handler's backoff decides. A rejection stays as it is.
    pub fn after(mut self, time: Duration) -> Self {
        if let Self::Retry(hint) = &mut self {
            hint.after_ms = Some(time.as_millis().try_into().unwrap_or(u64::MAX));
        }
        self
    }
}

/// JSON that cannot be read or written will not be better next time.
impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::reject(error.to_string())
    }
}
