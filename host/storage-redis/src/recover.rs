//! Recovery: first what this consumer was given in a lost reply, then (in `takeover`) what dead hosts had pending.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use redis::Value;

use super::keys::Keys;
use super::reclaimed::{Claimed, Found, PAGE, QUEUES, key_of, name_of};
use super::record;
use super::record::WrittenId;
use super::{Redis, replies, value};
use tidemill_core::model::delivery::{Body, Delivery, EntryId, Queue, Subscription};
use tidemill_storage::{Recovered, Result};

/// Entries read again at first; each time twice as many.
const COUNT_FIRST: usize = 8;

impl Redis {
    pub(super) async fn recover_some(
        &self,
        subscription: &Subscription,
        consumer: &str,
        held: &HashSet<(Queue, EntryId)>,
        lease: Duration,
        max: usize,
    ) -> Result<Recovered> {
        let keys = Keys::of(subscription);
        let mut found = Found::new(max, self.options.fetch_bytes_max);
        for queue in QUEUES {
            let lost = self.lost(subscription, &keys, queue, consumer, held, found.room()).await?;
            self.read_again(subscription, &keys, queue, consumer, lost, &mut found).await?;
        }
        self.add_crashes(subscription, &keys, &mut found.deliveries).await?;
        let claimed = self.claim_from_others(subscription, &keys, consumer, lease, &mut found).await?;
        let more = found.more || found.is_full();
        let Claimed { suspects, quarantined } = claimed;
        Ok(Recovered { deliveries: found.deliveries, more, quarantined, suspects })
    }

    /// The entries of one queue that are pending under this consumer and not in flight in it. Only ids travel: usually
    /// many are in flight and none is lost.
    async fn lost(
        &self,
        subscription: &Subscription,
        keys: &Keys,
        queue: Queue,
        consumer: &str,
        held: &HashSet<(Queue, EntryId)>,
        max: usize,
    ) -> Result<BTreeSet<EntryId>> {
        let (mut lost, mut from) = (BTreeSet::new(), "-".to_owned());
        while lost.len() < max {
            let mut cmd = redis::cmd("XPENDING");
            cmd.arg(key_of(keys, queue)).arg(&*subscription.handler).arg(&from).arg("+").arg(PAGE).arg(consumer);
            let rows = value::array(self.run(&cmd, subscription).await?)?;
            let mut last = None;
            for row in &rows {
                let Value::Array(row) = row else { continue };
                let id = value::entry_id(row.first().unwrap_or(&Value::Nil))?;
                if !held.contains(&(queue, id)) && lost.len() < max {
                    lost.insert(id);
                }
                last = Some(id);
            }
            match last {
                Some(last) if rows.len() == PAGE => from = format!("({last}"),
                _ => break,
            }
        }
        Ok(lost)
    }

    /// Reads pending entries a second time. This reads the consumer's own list, so one that another consumer has
    /// reclaimed meanwhile is absent. A few at first: their size is unknown, and the server sends them all.
    pub(super) async fn read_again(
        &self,
        subscription: &Subscription,
        keys: &Keys,
        queue: Queue,
        consumer: &str,
        mut wanted: BTreeSet<EntryId>,
        found: &mut Found,
    ) -> Result<()> {
        let mut count = COUNT_FIRST;
        while let Some(first) = wanted.first().copied() {
            if found.is_full() {
                found.more = true;
                break;
            }
            let mut cmd = redis::cmd("XREADGROUP");
            cmd.arg("GROUP").arg(&*subscription.handler).arg(consumer).arg("COUNT").arg(wanted.len().min(count));
            cmd.arg("STREAMS").arg(key_of(keys, queue)).arg(WrittenId(before(first)));
            let entries = match self.run(&cmd, subscription).await.and_then(value::read_entries) {
                Ok(entries) => entries,
                // What has come is not read a second time for what has not: that may be too large for the time there
                // is.
                Err(_) if !found.deliveries.is_empty() => {
                    found.more = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let Some(last) = entries.last().map(|(id, _)| *id) else { break };
            let mut are_small = true;
            for (id, fields) in entries.into_iter().filter(|(id, _)| wanted.contains(id)) {
                if fields.as_deref().is_some_and(replies::is_left) {
                    (found.more, are_small) = (true, false);
                    continue;
                }
                let delivery = record::delivery(queue, id, fields)?;
                are_small &= !matches!(delivery.body, Body::Large(_));
                found.add(delivery);
            }
            wanted = wanted.split_off(&after(last));
            if are_small {
                count = (2 * count).min(PAGE);
            }
        }
        Ok(())
    }

    /// Adds the host crashes counted for these entries to those on the entries' own records.
    async fn add_crashes(&self, subscription: &Subscription, keys: &Keys, deliveries: &mut [Delivery]) -> Result<()> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(keys.crashes());
        for delivery in deliveries.iter() {
            cmd.arg(format!("{}{}", name_of(delivery.queue), delivery.entry));
        }
        let counts = value::array(self.run(&cmd, subscription).await?)?;
        for (delivery, count) in deliveries.iter_mut().zip(counts) {
            if count != Value::Nil {
                // `crashes:when the last one was:a` (common.lua); of an older Tidemill the first number alone.
                let text = value::text(count)?;
                let crashes = text.split(':').next().and_then(|crashes| crashes.parse().ok()).unwrap_or(0);
                delivery.crashes = delivery.crashes.saturating_add(crashes);
            }
        }
        Ok(())
    }
}

fn before(id: EntryId) -> EntryId {
    match id {
        EntryId(ms, 0) => EntryId(ms.saturating_sub(1), u64::MAX),
        EntryId(ms, seq) => EntryId(ms, seq - 1),
    }
}

fn after(id: EntryId) -> EntryId {
    match id {
        EntryId(ms, u64::MAX) => EntryId(ms.saturating_add(1), 0),
        EntryId(ms, seq) => EntryId(ms, seq + 1),
    }
}
