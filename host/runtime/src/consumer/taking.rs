//! When to take what was left for others. What only a dead host wants stays there until its wish expires: a host that
//! takes it leaves it again, and backs off before it looks once more.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tidemill_core::model::delivery::EntryId;
use tidemill_core::policy::backoff::Backoff;

/// After a batch of which nothing was wanted here.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), last: Duration::from_secs(60) };

#[derive(Debug, Default)]
pub(super) struct Taking {
    /// The agreement under which it was taken.
    agreed: u64,
    /// Of what was taken last: what has not been left again.
    taken: HashSet<EntryId>,
    /// How much was left for others when it was looked at last.
    there: u64,
    /// Batches in a row of which nothing was wanted here.
    in_vain: u32,
    from: Option<Instant>,
}

impl Taking {
    /// Whether it is time to take some; it always is under another agreement, and where more lies there (`there`) than before.
    pub(crate) fn is_due(&mut self, agreed: u64, there: u64, now: Instant) -> bool {
        if self.agreed != agreed {
            *self = Self { agreed, ..Self::default() };
        }
        let is_due = there > self.there || self.from.is_none_or(|from| now >= from);
        self.there = there;
        is_due
    }

    pub(super) fn took(&mut self, taken: impl Iterator<Item = EntryId>) {
        let taken: HashSet<EntryId> = taken.collect();
        if !taken.is_empty() {
            let was_worth_it = !self.taken.is_empty();
            if was_worth_it {
                self.in_vain = 0;
            }
            (self.taken, self.from) = (taken, None);
        }
    }

    /// These are left for others, once more.
    pub(super) fn left(&mut self, left: &[EntryId], now: Instant) {
        let before = self.taken.len();
        left.iter().for_each(|entry| _ = self.taken.remove(entry));
        if before > 0 && self.taken.is_empty() {
            self.in_vain = self.in_vain.saturating_add(1);
            self.from = Some(now + BACKOFF.wait(self.in_vain));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_only_to_leave_again_waits_longer_each_time() {
        let (now, secs) = (Instant::now(), Duration::from_secs);
        let ids: Vec<EntryId> = (1..=3).map(|ms| EntryId(ms, 0)).collect();
        let mut taking = Taking { agreed: 7, there: 3, ..Taking::default() };
        let take = |taking: &mut Taking| taking.took(ids.iter().copied());
        for wait in [2, 4, 8, 16, 32, 60, 60] {
            take(&mut taking);
            taking.left(&ids[..2], now);
            assert!(taking.is_due(7, 3, now), "one of them may be wanted here");
            taking.left(&ids[2..], now);
            assert!(!taking.is_due(7, 3, now + secs(wait) - Duration::from_millis(1)), "{wait}");
            assert!(taking.is_due(7, 3, now + secs(wait)), "{wait}");
        }
        take(&mut taking);
        taking.left(&ids[1..], now);
        take(&mut taking);
        taking.left(&ids, now);
        assert!(taking.is_due(7, 3, now + secs(2)), "one of the batch before was wanted here");
        assert!(taking.is_due(7, 4, now) && !taking.is_due(7, 4, now), "one more was left");
        assert!(taking.is_due(8, 3, now), "another host wants something else by now");
        take(&mut taking);
        taking.left(&ids, now);
        assert!(!taking.is_due(8, 3, now + secs(1)) && taking.is_due(8, 3, now + secs(2)), "from the beginning");
    }
}
