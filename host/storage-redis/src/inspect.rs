//! The view from outside: the counters of a subscription, its dead letters and states, the events of a stream.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::keys::Keys;
use super::publish::key_state;
use super::record;
use super::record::WrittenId;
use super::script::{Arguments, CountArgs, StatusArgs};
use super::value::{Fields, RawEntry};
use super::{Redis, millis, value};
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
        let arguments = StatusArgs {
            stream: keys.stream(),
            redelivery: keys.redelivery(),
            due: keys.due(),
            dead: keys.dead(),
            stats: keys.stats(),
            timers: keys.timers(),
            group: &subscription.handler,
            far_ms: millis(IDLE_TIMER_HORIZON),
        };
        let mut answer = Fields::of(self.run_script(&arguments.call(), subscription).await?)?;
        let lag = match answer.take("lag")? {
            Value::Nil => self.count_after(subscription, answer.id("last_delivered")?).await?,
            lag => value::count(&lag)?,
        };
        let now_ms = answer.count("now_ms")?;
        let redelivery_pending = answer.count("redelivery_pending")?;
        let mut status = SubscriptionStatus {
            published: 0,
            timers: answer.count("timers")?,
            committed: answer.count("committed")?,
            skipped: answer.count("skipped")?,
            duplicates: answer.count("duplicates")?,
            retried: answer.count("retried")?,
            dead: answer.count("dead")?,
            dead_unrun: answer.count("dead_unrun")?,
            dead_bytes: answer.count("dead_bytes")?,
            dropped: answer.count("dropped")?,
            evicted_ran: answer.count("evicted_ran")?,
            evicted_unrun: answer.count("evicted_unrun")?,
            strayed: answer.count("strayed")?,
            repeated: answer.count("repeated")?,
            lag,
            pending: answer.count("pending")? + redelivery_pending,
            due: answer.count("due")?,
            far: answer.count("far")?,
            redelivery: answer.count("redelivery_length")?.saturating_sub(redelivery_pending),
            quarantined: answer.count("quarantined")?,
            left: answer.count("left")?,
            consumers: answer.count("consumers")?,
            oldest_pending_age: oldest_age(now_ms, &answer.list("oldest_pending")?)?,
            oldest_age: oldest_age(now_ms, &answer.list("oldest")?)?,
            torn: answer.count("torn")?,
        };
        status.published = match answer.take("base")? {
            // The counters of a group that another program created begin with what it holds.
            Value::Nil => {
                let gone = status.committed + status.skipped + status.dead + status.dropped + status.strayed;
                (gone + status.waiting()).saturating_sub(status.timers + status.repeated)
            }
            base => (value::number(&answer.take("added")?)? - value::number(&base)?).max(0).unsigned_abs(),
        };
        Ok(status)
    }

    /// Redis does not know a group's lag after entries in the middle of its stream were deleted.
    async fn count_after(&self, subscription: &Subscription, mut after: EntryId) -> Result<u64> {
        let mut counted = 0;
        while counted < COUNT_MAX {
            let stream = subscription.stream.to_string();
            let call = CountArgs { stream, after: WrittenId(after), page: COUNT_PAGE }.call();
            let mut answer = Fields::of(self.run_script(&call, subscription).await?)?;
            let count = answer.count("count")?;
            counted += count;
            if count < COUNT_PAGE {
                break;
            }
            after = answer.id("last")?;
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
