//! Moves due retries and timers to the redelivery queue. (What an operator replays: `admin`.)

use super::keys::Keys;
use super::script::{Arguments, PromoteArgs};
use super::value::Fields;
use super::witness::KnownPosition;
use super::{Redis, millis};
use tidemill_core::clock;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{Promoted, Result};

/// A script holds up the server while it runs: no call moves more than this.
const CALL_MAX: usize = 200;

impl Redis {
    pub(super) async fn promote_due(&self, subscription: &Subscription, max: usize) -> Result<Promoted> {
        let keys = Keys::of(subscription);
        let mut moved = 0;
        loop {
            let count = (max - moved).min(CALL_MAX);
            let (at, told) = (clock::since_boot(), self.witness.told(subscription));
            let arguments = PromoteArgs {
                redelivery: keys.redelivery(),
                due: keys.due(),
                due_bodies: keys.due_bodies(),
                timers: keys.timers(),
                stats: keys.stats(),
                max: count,
                told_ms: &told.map(|told| told.ms.to_string()).unwrap_or_default(),
                passed_ms: told.map_or(0, |told| millis(at.saturating_sub(told.at))),
            };
            let mut answer = Fields::of(self.run_script(&arguments.call(), subscription).await?)?;
            self.witness.tell(subscription, KnownPosition { ms: answer.count("now_ms")?, at });
            let now = usize::try_from(answer.count("moved")?).unwrap_or(usize::MAX);
            moved = moved.saturating_add(now).min(max);
            if now < count || moved == max {
                let next_in = answer.time_if_any("next_in_ms")?;
                return Ok(Promoted { moved, next_in });
            }
        }
    }
}
