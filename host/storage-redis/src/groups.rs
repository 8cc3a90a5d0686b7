//! Groups and consumers: create, keep alive, remove; and the trimming of streams, which spares what groups still need.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::admin::begin;
use super::keys;
use super::keys::Keys;
use super::record::WriteBounds;
use super::recover::{PAGE, QUEUES, key_of};
use super::script::{DEREGISTER, ENSURE, HEARTBEAT, RELEASE, TEND, TRIM};
use super::{Redis, error, millis, value};
use tidemill_core::clock;
use tidemill_core::model::delivery::Subscription;
use tidemill_storage::group::{POSITION_PENDING_MAX, WISH_LEAVE_TTL, WISH_TTL};
use tidemill_storage::{
    Bounds, Error, Group, HEARTBEAT_MAX, HostInfo, Operator, Overflow, Position, Result, Start, Tended, Trimmed, Wish,
};

/// A position is noted again after so long, by the first host to tend.
pub(super) const POSITION_EVERY: Duration = Duration::from_millis(900);
/// Hosts listed at most: those with the latest heartbeats.
const HOSTS_MAX: usize = 1000;
/// A call of the script that removed this many has met its own bound; then it is called again, this often at most.
const TRIM_MORE: u64 = 50_000;
const TRIM_CALLS_MAX: usize = 20;

impl Redis {
    /// Creates the group unless it exists: a lost one where it was, or where an operator chose (`place`, with the
    /// operator).
    pub(super) async fn make_group(
        &self,
        subscription: &Subscription,
        start: Start,
        place: Option<(Position, &Operator)>,
    ) -> Result<Group> {
        let keys = Keys::of(subscription);
        let (place, act) = place.map_or((None, None), |(place, act)| (Some(place), Some(act)));
        let mut call = begin(
            &ENSURE,
            &[
                keys.stream(),
                keys.redelivery(),
                keys.due(),
                keys.dead(),
                keys.stats(),
                keys.timers(),
                keys.position(),
                keys.seen(),
                keys.audit(),
            ],
            act.unwrap_or(&Operator::default()),
        );
        call.arg(&*subscription.handler).arg(match start {
            Start::Beginning => "0",
            Start::New => "$",
        });
        call.arg(self.inbox_window_ms()).arg(self.handed_out().get(subscription).map_or("", String::as_str));
        call.arg(match place {
            None => String::new(),
            Some(Position::Beginning) => "0".to_owned(),
            Some(Position::Now) => "$".to_owned(),
            Some(Position::After(id)) => id.to_string(),
        });
        Ok(match value::count(&self.run_script(&ENSURE, &call, subscription).await?)? {
            0 => Group::There,
            1 => Group::New,
            2 => Group::Restored,
            _ => Group::Lost,
        })
    }

    /// Without a wish, the one before stays. A position that was noted less than `every` ago is good enough.
    pub(super) async fn look_after(
        &self,
        subscription: &Subscription,
        consumer: &str,
        wish: &str,
        every: Duration,
    ) -> Result<Tended> {
        let keys = Keys::of(subscription);
        let mut call = TEND.call(&[
            keys.stream(),
            keys.redelivery(),
            keys.due(),
            keys.dead(),
            keys.stats(),
            keys.timers(),
            keys.position(),
            keys.wishes(),
        ]);
        call.arg(&*subscription.handler).arg(consumer).arg(wish).arg(millis(WISH_TTL)).arg(POSITION_PENDING_MAX);
        call.arg(millis(every)).arg(keys::HEARTBEAT_PREFIX).arg(millis(WISH_LEAVE_TTL));
        let mut answer = value::array(self.run_script(&TEND, &call, subscription).await?)?.into_iter();
        let mut next = || answer.next().unwrap_or(Value::Nil);
        let (agreed, left) = (value::count(&next())?, value::count(&next())?);
        let (strayed, repeated) = (value::count(&next())?, value::count(&next())?);
        let set_back = value::text(next())?.parse().ok();
        let last = value::text(next())?;
        self.handed_out().insert(subscription.clone(), last);
        let wishes = self.with_life(answer.collect(), subscription).await?;
        Ok(Tended { agreed, wishes, left, strayed, repeated, set_back })
    }

    /// The hosts' wishes for a subscription as they are stored: expired ones stay until the next `tend`.
    pub(super) async fn list_wishes(&self, subscription: &Subscription) -> Result<Vec<Wish>> {
        let mut read = redis::cmd("HGETALL");
        read.arg(Keys::of(subscription).wishes());
        let mut said = value::array(self.run(&read, subscription).await?)?;
        for value in said.iter_mut().skip(1).step_by(2) {
            let text = value::text(std::mem::replace(value, Value::Nil))?;
            *value = Value::BulkString(text.split_once(' ').map_or("", |(_, wish)| wish).into());
        }
        self.with_life(said, subscription).await
    }

    /// `said`: consumer and wish in turn.
    async fn with_life(&self, said: Vec<Value>, subscription: &Subscription) -> Result<Vec<Wish>> {
        let mut said = said.into_iter();
        let mut wishes = Vec::new();
        while let (Some(consumer), Some(wish)) = (said.next(), said.next()) {
            wishes.push(Wish { consumer: value::text(consumer)?, wish: value::text(wish)?, alive: false });
        }
        if wishes.is_empty() {
            return Ok(wishes);
        }
        let mut beats = redis::cmd("MGET");
        wishes.iter().for_each(|wish| _ = beats.arg(keys::heartbeat(&wish.consumer)));
        let beats = value::array(self.run(&beats, subscription).await?)?;
        wishes.iter_mut().zip(beats).for_each(|(wish, beat)| wish.alive = beat != Value::Nil);
        Ok(wishes)
    }

    fn handed_out(&self) -> std::sync::MutexGuard<'_, HashMap<Subscription, String>> {
        // Whole at any time, also after a panic.
        self.handed_out.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) async fn say_alive(&self, consumer: &str, ttl: Duration, note: &str) -> Result<()> {
        let mut call = HEARTBEAT.call(&[keys::heartbeat(consumer), keys::HOSTS.to_owned()]);
        call.arg(consumer).arg(millis(ttl.min(HEARTBEAT_MAX)).max(1)).arg(note);
        self.run_script_on(&self.pulse, &HEARTBEAT, &call, &consumer).await?;
        Ok(())
    }

    /// Live hosts, whatever they read: Redis 7.0 creates a consumer only when it has read something, so the groups do
    /// not know idle hosts.
    pub(super) async fn list_hosts(&self) -> Result<Vec<HostInfo>> {
        let mut list = redis::cmd("ZREVRANGE");
        list.arg(keys::HOSTS).arg(0).arg(HOSTS_MAX - 1);
        let names = value::array(self.run(&list, &keys::HOSTS).await?)?;
        let mut names = names.into_iter().map(value::text).collect::<Result<Vec<_>>>()?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        names.sort();
        let mut beats = redis::cmd("MGET");
        names.iter().for_each(|name| _ = beats.arg(keys::heartbeat(name)));
        let beats = value::array(self.run(&beats, &keys::HOSTS).await?)?;
        // A heartbeat that has expired is gone at once, its row here only with another host's next heartbeat.
        let alive = names.into_iter().zip(beats).filter(|(_, beat)| *beat != Value::Nil);
        alive.map(|(consumer, beat)| Ok(HostInfo { consumer, report: value::text(beat)? })).collect()
    }

    /// One secret for all hosts of this server, made by the first of them.
    pub(super) async fn find_or_keep_key(&self, fresh: [u8; 32]) -> Result<[u8; 32]> {
        let mut both = Pipeline::with_capacity(2);
        both.cmd("SET").arg(keys::IDS_KEY).arg(&fresh).arg("NX");
        both.cmd("GET").arg(keys::IDS_KEY);
        let [_, key] = value::tuple(Value::Array(self.run_all(&both, &keys::IDS_KEY).await?))?;
        value::bytes(key)?.try_into().map_err(|_| error::odd_answer("a secret of 32 bytes in tm:ids-key"))
    }

    /// The heartbeat ends last: until all is released, no host may count a crash of this one.
    pub(super) async fn deregister_consumer(&self, consumer: &str, subscriptions: &[Subscription]) -> Result<u64> {
        self.readers.close(consumer);
        let (mut released, mut failed) = (0, None);
        for subscription in subscriptions {
            // One that cannot be released is no reason to leave the others pending like a dead host's.
            match self.release(subscription, consumer).await {
                Ok(count) => released += count,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let mut end = Pipeline::with_capacity(2);
        end.cmd("DEL").arg(keys::heartbeat(consumer));
        end.cmd("ZREM").arg(keys::HOSTS).arg(consumer);
        self.run_all(&end, &consumer).await?;
        failed.map_or(Ok(released), Err)
    }

    async fn release(&self, subscription: &Subscription, consumer: &str) -> Result<u64> {
        let (keys, mut released) = (Keys::of(subscription), 0);
        for queue in QUEUES {
            loop {
                let mut call = RELEASE.call(&[key_of(&keys, queue), keys.dead(), keys.stats()]);
                call.arg(&*subscription.handler).arg(consumer).arg(PAGE).write_bounds(&self.options);
                let some = value::count(&self.run_script(&RELEASE, &call, subscription).await?)?;
                released += some;
                if some < PAGE as u64 {
                    break;
                }
            }
        }
        match self.look_after(subscription, consumer, "", Duration::ZERO).await {
            // No group: nothing is to be noted.
            Ok(_) | Err(Error::GroupGone { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut call = DEREGISTER.call(&[keys.stream(), keys.redelivery(), keys.wishes()]);
        call.arg(&*subscription.handler).arg(consumer).arg(millis(WISH_LEAVE_TTL));
        self.run_script(&DEREGISTER, &call, subscription).await?;
        Ok(released)
    }

    pub(super) async fn trim_stream(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed> {
        let mut call = TRIM.call(&[stream.to_owned()]);
        call.arg(bounds.maxlen.map(|max| max.to_string()).unwrap_or_default());
        call.arg(bounds.retention.map(|age| millis(age).to_string()).unwrap_or_default());
        call.arg(u8::from(bounds.overflow == Overflow::Drop)).arg(keys::stats_prefix(stream)).arg(clock::now_ms());
        bounds.groups.iter().for_each(|group| _ = call.arg(&**group));
        let mut trimmed = Trimmed::default();
        for _ in 0..TRIM_CALLS_MAX {
            let [removed, lost, length, age, held] = value::tuple(self.run_script(&TRIM, &call, &stream).await?)?;
            let removed = value::count(&removed)?;
            trimmed = Trimmed {
                removed: trimmed.removed + removed,
                lost: trimmed.lost + value::count(&lost)?,
                length: value::count(&length)?,
                oldest_age: u64::try_from(value::number(&age)?).ok().map(Duration::from_millis),
                held: value::count(&held)?,
            };
            if removed < TRIM_MORE {
                break;
            }
        }
        Ok(trimmed)
    }
}
