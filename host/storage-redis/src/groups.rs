//! Groups and consumers: create, keep alive, remove; and the trimming of streams, which spares what groups still need.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::keys;
use super::keys::Keys;
use super::reclaimed::{PAGE, QUEUES, key_of};
use super::record::WrittenBounds;
use super::script::{Arguments, DeregisterArgs, EnsureArgs, HeartbeatArgs, ReleaseArgs, TendArgs, TrimArgs};
use super::value::Fields;
use super::{Redis, error, millis, value};
use tidemill_core::clock;
use tidemill_core::model::delivery::{EntryId, Subscription};
use tidemill_storage::group::{POSITION_PENDING_MAX, WISH_LEAVE_TTL, WISH_TTL};
use tidemill_storage::{
    AUDIT_IDS_MAX, AUDIT_MAX, Bounds, Error, Group, HEARTBEAT_MAX, HostInfo, Operator, Overflow, Position, Result,
    Start, Tended, Trimmed, Wish,
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
        let no_operator = Operator::default();
        let act = act.unwrap_or(&no_operator);
        let place = match place {
            None => String::new(),
            Some(Position::Beginning) => "0".to_owned(),
            Some(Position::Now) => "$".to_owned(),
            Some(Position::After(id)) => id.to_string(),
        };
        let arguments = EnsureArgs {
            stream: keys.stream(),
            redelivery: keys.redelivery(),
            due: keys.due(),
            dead: keys.dead(),
            stats: keys.stats(),
            timers: keys.timers(),
            position: keys.position(),
            inbox: keys.seen(),
            audit_log: keys.audit(),
            operator: &act.name,
            reason: &act.reason,
            records_max: AUDIT_MAX,
            ids_max: AUDIT_IDS_MAX,
            group: &subscription.handler,
            start: match start {
                Start::Beginning => "0",
                Start::New => "$",
            },
            window_ms: self.inbox_window_ms(),
            remembered: &self.handed_out().get(subscription).map(EntryId::to_string).unwrap_or_default(),
            place: &place,
        };
        Ok(match value::count(&self.run_script(&arguments.call(), subscription).await?)? {
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
        let (mut tended, replaced) = self.tend_once(subscription, consumer, wish, every, &[]).await?;
        let silent = tended.wishes.iter().filter(|wish| !wish.alive && replaced.contains(&wish.consumer));
        let silent: Vec<&str> = silent.map(|wish| &*wish.consumer).collect();
        if !silent.is_empty() {
            // Seldom: their wishes are removed.
            let (again, _) = self.tend_once(subscription, consumer, wish, every, &silent).await?;
            // Both may have looked at what other programs did; the second one sees the wishes as they are now.
            tended = Tended {
                strayed: tended.strayed + again.strayed,
                repeated: tended.repeated + again.repeated,
                set_back: tended.set_back.or(again.set_back),
                ..again
            };
        }
        Ok(tended)
    }

    /// The script cannot see heartbeats, which are in another slot: beside what it has done it answers which hosts have
    /// been replaced if they have none. `silent` are those of them that have none.
    async fn tend_once(
        &self,
        subscription: &Subscription,
        consumer: &str,
        wish: &str,
        every: Duration,
        silent: &[&str],
    ) -> Result<(Tended, Vec<String>)> {
        let keys = Keys::of(subscription);
        let arguments = TendArgs {
            stream: keys.stream(),
            redelivery: keys.redelivery(),
            due: keys.due(),
            dead: keys.dead(),
            stats: keys.stats(),
            timers: keys.timers(),
            position: keys.position(),
            wishes: keys.wishes(),
            group: &subscription.handler,
            consumer,
            wish,
            ttl_ms: millis(WISH_TTL),
            pending_max: POSITION_PENDING_MAX,
            every_ms: millis(every),
            ended_ttl_ms: millis(WISH_LEAVE_TTL),
        };
        let mut call = arguments.call();
        call.cmd.arg(silent);
        let mut answer = Fields::of(self.run_script(&call, subscription).await?)?;
        self.note_handed_out(subscription, answer.id("last")?);
        let tended = Tended {
            agreed: answer.count("agreed")?,
            wishes: self.with_life(answer.list("wishes")?, subscription).await?,
            left: answer.count("left")?,
            strayed: answer.count("strayed")?,
            repeated: answer.count("repeated")?,
            set_back: answer.id_if_any("set_back")?,
        };
        let replaced = answer.list("replaced")?.into_iter().map(value::text).collect::<Result<_>>()?;
        Ok((tended, replaced))
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

    pub(super) fn note_handed_out(&self, subscription: &Subscription, last: EntryId) {
        let mut handed_out = self.handed_out();
        match handed_out.get_mut(subscription) {
            Some(noted) => *noted = last,
            None => _ = handed_out.insert(subscription.clone(), last),
        }
    }

    fn handed_out(&self) -> std::sync::MutexGuard<'_, HashMap<Subscription, EntryId>> {
        // Whole at any time, also after a panic.
        self.handed_out.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) async fn say_alive(&self, consumer: &str, ttl: Duration, note: &str) -> Result<()> {
        let arguments = HeartbeatArgs {
            heartbeat: keys::heartbeat(consumer),
            hosts: keys::HOSTS.to_owned(),
            consumer,
            ttl_ms: millis(ttl.min(HEARTBEAT_MAX)).max(1),
            report: note,
        };
        self.run_script_on(&self.pulse, &arguments.call(), &consumer).await?;
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
        value::bytes(key)?.try_into().map_err(|_| error::odd_answer("a secret of 32 bytes in {tm}:ids-key"))
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
                let arguments = ReleaseArgs {
                    queue: key_of(&keys, queue),
                    dead: keys.dead(),
                    stats: keys.stats(),
                    group: &subscription.handler,
                    consumer,
                    max: PAGE,
                    letter_bounds: WrittenBounds::of(&self.options),
                };
                let some = value::count(&self.run_script(&arguments.call(), subscription).await?)?;
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
        let arguments = DeregisterArgs {
            stream: keys.stream(),
            redelivery: keys.redelivery(),
            wishes: keys.wishes(),
            group: &subscription.handler,
            consumer,
            wish_ttl_ms: millis(WISH_LEAVE_TTL),
        };
        self.run_script(&arguments.call(), subscription).await?;
        Ok(released)
    }

    pub(super) async fn trim_stream(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed> {
        let arguments = TrimArgs {
            stream: stream.to_owned(),
            length_max: &bounds.maxlen.map(|max| max.to_string()).unwrap_or_default(),
            age_max_ms: &bounds.retention.map(|age| millis(age).to_string()).unwrap_or_default(),
            drop: u8::from(bounds.overflow == Overflow::Drop),
            stats_prefix: &keys::stats_prefix(stream),
            caller_ms: clock::now_ms(),
        };
        let mut call = arguments.call();
        bounds.groups.iter().for_each(|group| _ = call.cmd.arg(&**group));
        let mut trimmed = Trimmed::default();
        for _ in 0..TRIM_CALLS_MAX {
            let mut answer = Fields::of(self.run_script(&call, &stream).await?)?;
            let removed = answer.count("removed")?;
            trimmed = Trimmed {
                removed: trimmed.removed + removed,
                lost: trimmed.lost + answer.count("lost")?,
                length: answer.count("length")?,
                oldest_age: answer.time_if_any("oldest_ms")?,
                held: answer.count("held")?,
            };
            if removed < TRIM_MORE {
                break;
            }
        }
        Ok(trimmed)
    }
}
