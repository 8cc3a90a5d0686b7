//! What comes back to a handler by itself: retries and timers whose time has come. (What a person brings back: `desk`.)

use std::time::Duration;

use super::keys::Keys;
use super::script::PROMOTE;
use super::{Redis, value};
use crate::backend::{Promoted, Result};
use crate::model::delivery::Source;

/// A script holds up the server while it runs: no call moves more than this.
const CALL_MAX: usize = 200;

impl Redis {
    pub(super) async fn promote_due(&self, source: &Source, max: usize) -> Result<Promoted> {
        let keys = Keys::of(source);
        let keys = [keys.again(), keys.due(), keys.due_bodies(), keys.timers()];
        let mut moved = 0;
        loop {
            let count = (max - moved).min(CALL_MAX);
            let mut call = PROMOTE.call(&keys);
            call.arg(count);
            let [now, next_in] = value::tuple(self.run_script(&PROMOTE, &call, source).await?)?;
            let now = usize::try_from(value::count(&now)?).unwrap_or(usize::MAX);
            moved = moved.saturating_add(now).min(max);
            if now < count || moved == max {
                let next_in = u64::try_from(value::number(&next_in)?).ok().map(Duration::from_millis);
                return Ok(Promoted { moved, next_in });
            }
        }
    }
}
