//! Moves due retries and timers to the redelivery queue. (What an operator replays: `admin`.)

use std::time::Duration;

use super::keys::Keys;
use super::script::PROMOTE;
use super::witness::KnownPosition;
use super::{Redis, millis, value};
use tidemill_core::clock;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::{Promoted, Result};

/// A script holds up the server while it runs: no call moves more than this.
const CALL_MAX: usize = 200;

impl Redis {
    pub(super) async fn promote_due(&self, subscription: &Subscription, max: usize) -> Result<Promoted> {
        let keys = Keys::of(subscription);
        let keys = [keys.redelivery(), keys.due(), keys.due_bodies(), keys.timers(), keys.stats()];
        let mut moved = 0;
        loop {
            let count = (max - moved).min(CALL_MAX);
            let mut call = PROMOTE.call(&keys);
            let (at, told) = (clock::since_boot(), self.witness.told(subscription));
            call.arg(count).arg(told.map(|told| told.ms.to_string()).unwrap_or_default());
            call.arg(told.map_or(0, |told| millis(at.saturating_sub(told.at))));
            let [now, next_in, ms] = value::tuple(self.run_script(&PROMOTE, &call, subscription).await?)?;
            self.witness.tell(subscription, KnownPosition { ms: value::count(&ms)?, at });
            let now = usize::try_from(value::count(&now)?).unwrap_or(usize::MAX);
            moved = moved.saturating_add(now).min(max);
            if now < count || moved == max {
                let next_in = u64::try_from(value::number(&next_in)?).ok().map(Duration::from_millis);
                return Ok(Promoted { moved, next_in });
            }
        }
    }
}
