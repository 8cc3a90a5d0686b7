//! The view from outside: the counters of a subscription, its dead letters and states, the events of a stream.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::keys::Keys;
use super::publish::key_state;
use super::record;
use super::record::WriteId;
use super::script::{COUNT, STATUS};
use super::value::RawEntry;
use super::{Redis, error, millis, value};
use tidemill_core::model::dead_letter::DeadLetter;
use tidemill_core::model::delivery::{EntryId, KeyState, Subscription};
use tidemill_storage::{IDLE_TIMER_HORIZON, Result, SubscriptionStatus, VersionCount};

/// Entries read at a time. Bodies may be large, so an answer of more would be a large one.
const PAGE: usize = 200;
/// Entries counted in one script, and in all, where Redis cannot tell the lag of a group.
const COUNT_PAGE: u64 = 1000;
const COUNT_MAX: u64 = 100_000;

impl Redis {
    pub(super) async fn read_counters(&self, subscription: &Subscription) -> Result<SubscriptionStatus> {
        let keys = Keys::of(subscription);
        let mut call =
            STATUS.call(&[keys.stream(), keys.redelivery(), keys.due(), keys.dead(), keys.stats(), keys.timers()]);
        call.arg(&*subscription.handler).arg(millis(IDLE_TIMER_HORIZON));
        let answer = value::array(self.run_script(&STATUS, &call, subscription).await?)?;
        if answer.len() < 29 {
            return Err(error::odd_answer("the counters of a subscription"));
        }
        let count = |at: usize| if answer[at] == Value::Nil { Ok(0) } else { value::count(&answer[at]) };
        let lag = match &answer[2] {
            Value::Nil => self.count_after(subscription, value::entry_id(&answer[3])?).await?,
            lag => value::count(lag)?,
        };
        let mut status = SubscriptionStatus {
            published: 0,
            timers: count(20)?,
            committed: count(9)?,
            skipped: count(10)?,
            duplicates: count(11)?,
            retried: count(12)?,
            dead: count(8)?,
            dead_unrun: count(22)?,
            dead_bytes: count(23)?,
            dropped: count(13)?,
            evicted_ran: count(24)?,
            evicted_unrun: count(25)?,
            strayed: count(26)?,
            repeated: count(27)?,
            lag,
            pending: count(4)? + count(5)?,
            due: count(7)?,
            far: count(21)?,
            redelivery: count(6)?.saturating_sub(count(5)?),
            quarantined: count(15)?,
            left: count(28)?,
            consumers: count(16)?,
            oldest_pending_age: oldest_age(count(14)?, answer[17..19].iter().filter(|id| **id != Value::Nil))?,
            oldest_age: oldest_age(count(14)?, &answer[29..])?,
            torn: count(19)?,
        };
        status.published = match &answer[1] {
            // The counters of a group that another program created begin with what it holds.
            Value::Nil => {
                let gone = status.committed + status.skipped + status.dead + status.dropped + status.strayed;
                (gone + status.waiting()).saturating_sub(status.timers + status.repeated)
            }
            base => (value::number(&answer[0])? - value::number(base)?).max(0).unsigned_abs(),
        };
        Ok(status)
    }

    /// Redis does not know a group's lag after entries in the middle of its stream were deleted.
    async fn count_after(&self, subscription: &Subscription, mut after: EntryId) -> Result<u64> {
        let mut counted = 0;
        while counted < COUNT_MAX {
            let mut call = COUNT.call(&[subscription.stream.to_string()]);
            call.write_id(after);
            call.arg(COUNT_PAGE);
            let [count, last] = value::tuple(self.run_script(&COUNT, &call, subscription).await?)?;
            let count = value::count(&count)?;
            counted += count;
            if count < COUNT_PAGE {
                break;
            }
            after = value::entry_id(&last)?;
        }
        Ok(counted)
    }

    pub(super) async fn read_versions(&self, subscription: &Subscription) -> Result<Vec<VersionCount>> {
        let mut read = redis::cmd("HGETALL");
        read.arg(Keys::of(subscription).stats());
        let fields = value::array(self.run(&read, subscription).await?)?;
        let mut fields = fields.into_iter().map(value::text);
        let mut all = HashMap::new();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            all.insert(name?, value?);
        }
        let number = |name: String| all.get(&name).and_then(|text| text.parse().ok()).unwrap_or_default();
        let digests = all.keys().filter_map(|name| name.strip_prefix("by:"));
        let mut versions: Vec<VersionCount> = digests
            .map(|digest| VersionCount {
                digest: digest.to_owned(),
                committed: number(format!("by:{digest}")),
                since_ms: number(format!("at:{digest}")),
            })
            .collect();
        versions.sort_by(|a, b| b.since_ms.cmp(&a.since_ms).then_with(|| b.digest.cmp(&a.digest)));
        Ok(versions)
    }

    pub(super) async fn list_dead(
        &self,
        subscription: &Subscription,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<DeadLetter>> {
        let (key, mut letters, mut after) = (Keys::of(subscription).dead(), Vec::new(), after);
        while letters.len() < max {
            let (page, more) = self.page(&key, after, max - letters.len(), subscription).await?;
            after = page.last().map(|(id, _)| *id);
            for (id, fields) in page {
                letters.push(record::dead_letter(id, fields.unwrap_or_default())?);
            }
            if !more {
                break;
            }
        }
        Ok(letters)
    }

    pub(super) async fn list_entries(
        &self,
        stream: &str,
        after: Option<EntryId>,
        max: usize,
    ) -> Result<Vec<(EntryId, Bytes)>> {
        let (mut events, mut after) = (Vec::new(), after);
        while events.len() < max {
            let (page, more) = self.page(stream, after, max - events.len(), &stream).await?;
            after = page.last().map(|(id, _)| *id);
            for (id, fields) in page {
                // An entry without the field `event` is no event.
                if let Some(event) = record::event(fields.unwrap_or_default())? {
                    events.push((id, event));
                }
            }
            if !more {
                break;
            }
        }
        Ok(events)
    }

    pub(super) async fn list_states(
        &self,
        subscription: &Subscription,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, KeyState)>> {
        let keys = Keys::of(subscription);
        let mut cmd = redis::cmd("ZRANGEBYLEX");
        cmd.arg(keys.state_index()).arg(after.map_or_else(|| "-".to_owned(), |after| format!("({after}"))).arg("+");
        cmd.arg("LIMIT").arg(0).arg(max);
        let names = value::array(self.run(&cmd, subscription).await?)?;
        let names = names.into_iter().map(value::text).collect::<Result<Vec<_>>>()?;
        let mut states = Vec::with_capacity(names.len());
        for some in names.chunks(PAGE) {
            let mut read = Pipeline::with_capacity(some.len());
            for name in some {
                read.cmd("HGETALL").arg(keys.state_prefix() + name);
            }
            for (name, fields) in some.iter().zip(self.run_all(&read, subscription).await?) {
                states.push((name.clone(), key_state(fields)?));
            }
        }
        Ok(states)
    }

    /// One page of a stream, and whether there may be more.
    async fn page(
        &self,
        key: &str,
        after: Option<EntryId>,
        max: usize,
        subject: &(dyn std::fmt::Display + Sync),
    ) -> Result<(Vec<RawEntry>, bool)> {
        let count = max.min(PAGE);
        let mut cmd = Cmd::new();
        cmd.arg("XRANGE").arg(key).arg(after.map_or_else(|| "-".to_owned(), |id| format!("({id}")));
        cmd.arg("+").arg("COUNT").arg(count);
        let page = value::entries(self.run(&cmd, subject).await?)?;
        let more = page.len() == count;
        Ok((page, more))
    }
}

/// An id begins with the time at which its entry was added, by the server's clock.
fn oldest_age<'a>(now_ms: u64, ids: impl IntoIterator<Item = &'a Value>) -> Result<Option<Duration>> {
    let mut oldest: Option<u64> = None;
    for id in ids {
        let EntryId(ms, _) = value::entry_id(id)?;
        oldest = Some(oldest.map_or(ms, |before| before.min(ms)));
    }
    Ok(oldest.map(|ms| Duration::from_millis(now_ms.saturating_sub(ms))))
}
