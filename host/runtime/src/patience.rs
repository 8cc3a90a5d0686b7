//! What a start does about a backend that is away, busy or loading: it waits, within a bound, and says what for.

use std::time::Duration;

use tokio::time::Instant;

use super::observe;
use super::shutdown::Shutdown;
use tidemill_process::tasks;
use tidemill_storage::Error;

/// How long the start of a host waits for its backend, over all of its steps; the step that is running then is tried to
/// its end.
pub const START_WAIT_MAX: Duration = Duration::from_secs(60);
/// The same for other commands, whose callers wait.
pub const COMMAND_WAIT_MAX: Duration = Duration::from_secs(10);
const TRY_EVERY: Duration = Duration::from_millis(500);

/// One start's patience.
pub struct Patience {
    /// None: as long as it takes.
    wait_max: Option<Duration>,
    begun: Instant,
    shutdown: Shutdown,
    /// The step whose error was logged last.
    said: &'static str,
}

impl Patience {
    pub fn new(wait_max: Option<Duration>, shutdown: Shutdown) -> Self {
        Self { wait_max, begun: Instant::now(), shutdown, said: "" }
    }

    /// Tries a step until it is done; none if it is time to stop.
    ///
    /// # Errors
    /// What waiting does not mend, at once; else the last error when the time is up.
    pub async fn out<T, F: Future<Output = Result<T, Error>>>(
        &mut self,
        step: &'static str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<Option<T>, Error> {
        loop {
            tasks::look();
            if let Some(reason) = tasks::is_fatal() {
                return Err(Error::Permanent(reason.to_string()));
            }
            let error = tokio::select! {
                biased;
                () = self.shutdown.wait() => return Ok(None),
                tried = attempt() => match tried {
                    Ok(done) => return Ok(Some(done)),
                    Err(error) => error,
                },
            };
            if !error.is_transient() {
                return Err(error);
            }
            if let Some(wait_max) = self.wait_max
                && self.begun.elapsed() >= wait_max
            {
                return Err(waited(error, wait_max));
            }
            if self.said != step {
                self.said = step;
                observe::start_waits(step, &error, self.wait_max);
            }
            if self.shutdown.sleep(TRY_EVERY).await {
                return Ok(None);
            }
        }
    }
}

fn waited(error: Error, wait_max: Duration) -> Error {
    match error {
        Error::Unavailable { what, cause } => {
            Error::Unavailable { what, cause: format!("{cause} (waited {wait_max:?} for it)") }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::ShutdownTrigger;

    fn away() -> Error {
        Error::Unavailable { what: "x".into(), cause: "away".into() }
    }

    #[tokio::test]
    async fn what_passes_is_waited_out_over_all_steps_and_no_longer() {
        let (_trigger, shutdown) = ShutdownTrigger::new();
        let wait_max = 4 * TRY_EVERY;
        let mut patience = Patience::new(Some(wait_max), shutdown);
        let mut left = 3;
        let passes = patience.out("one", || {
            left -= 1;
            std::future::ready(if left > 0 { Err(away()) } else { Ok(()) })
        });
        assert!(passes.await.is_ok_and(|done| done.is_some()));
        let mut tried = 0;
        let fails = patience.out("two", || {
            tried += 1;
            std::future::ready(Err::<(), _>(away()))
        });
        let error = fails.await.expect_err("it never passes");
        assert!(error.to_string().contains("away (waited 2s for it)"), "{error}");
        assert!(patience.begun.elapsed() >= wait_max && tried <= 4, "what the first step took counts: {tried}");
    }

    #[tokio::test]
    async fn what_does_not_pass_is_said_at_once() {
        let (_trigger, shutdown) = ShutdownTrigger::new();
        let mut tried = 0;
        let mut patience = Patience::new(Some(START_WAIT_MAX), shutdown);
        let refused = patience.out("one", || {
            tried += 1;
            std::future::ready(Err::<(), _>(Error::Permanent("no".into())))
        });
        assert!(refused.await.is_err() && tried == 1);
    }

    #[tokio::test]
    async fn without_a_bound_it_waits_until_it_is_told_to_stop() {
        let (trigger, shutdown) = ShutdownTrigger::new();
        let mut tried = 0;
        let mut patience = Patience::new(None, shutdown);
        let waits = patience.out("one", || {
            tried += 1;
            if tried == 3 {
                trigger.trigger();
            }
            std::future::ready(Err::<(), _>(away()))
        });
        assert!(waits.await.is_ok_and(|done| done.is_none()) && tried == 3);
    }

    /// An attempt that hangs does not keep a host from ending.
    #[tokio::test]
    async fn it_stops_in_the_middle_of_an_attempt() {
        let (trigger, shutdown) = ShutdownTrigger::new();
        let mut patience = Patience::new(None, shutdown);
        let waits = patience.out("one", std::future::pending::<Result<(), Error>>);
        let stops = async { trigger.trigger() };
        assert!(tokio::join!(waits, stops).0.is_ok_and(|done| done.is_none()));
    }
}
