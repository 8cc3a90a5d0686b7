//! Groups and consumers: made, alive, gone; and the trimming of streams, which has to spare what groups still need.

use std::time::Duration;

use redis::{Pipeline, Value};

use super::keys::{self, Keys};
use super::record::WriteBounds;
use super::recover::{LANES, PAGE, key_of};
use super::script::{BEAT, ENSURE, LEAVE, RELEASE, TRIM};
use super::{Redis, error, millis, value};
use crate::backend::{Bounds, HEARTBEAT_MAX, HostNote, Overflow, Result, Start, Trimmed};
use crate::clock;
use crate::model::delivery::Source;

/// Hosts that are listed at most; those that were heard last.
const HOSTS_MAX: usize = 1000;
/// A call of the script that removed this many has met its own bound; then it is called again, this often at most.
const TRIM_MORE: u64 = 50_000;
const TRIM_CALLS_MAX: usize = 20;

impl Redis {
    pub(super) async fn make_group(&self, source: &Source, start: Start) -> Result<()> {
        let keys = Keys::of(source);
        let mut call =
            ENSURE.call(&[keys.stream(), keys.again(), keys.due(), keys.dead(), keys.stats(), keys.timers()]);
        call.arg(&*source.handler).arg(match start {
            Start::Beginning => "0",
            Start::New => "$",
        });
        self.run_script(&ENSURE, &call, source).await?;
        Ok(())
    }

    pub(super) async fn say_alive(&self, consumer: &str, ttl: Duration, note: &str) -> Result<()> {
        let mut call = BEAT.call(&[keys::heartbeat(consumer), keys::HOSTS.to_owned()]);
        call.arg(consumer).arg(millis(ttl.min(HEARTBEAT_MAX)).max(1)).arg(note);
        self.run_script_on(&self.pulse, &BEAT, &call, &consumer).await?;
        Ok(())
    }

    /// Those that live, whatever they read: Redis 7.0 makes a consumer only when it has read something, so the groups do
    /// not know the hosts that are idle.
    pub(super) async fn list_hosts(&self) -> Result<Vec<HostNote>> {
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
        // A heartbeat that has run out is gone at once, its row here only with the next beat of somebody else.
        let alive = names.into_iter().zip(beats).filter(|(_, beat)| *beat != Value::Nil);
        alive.map(|(consumer, beat)| Ok(HostNote { consumer, note: value::text(beat)? })).collect()
    }

    /// One secret for all hosts of this server, made by the first of them.
    pub(super) async fn find_or_keep_key(&self, fresh: [u8; 32]) -> Result<[u8; 32]> {
        let mut both = Pipeline::with_capacity(2);
        both.cmd("SET").arg(keys::IDS_KEY).arg(&fresh).arg("NX");
        both.cmd("GET").arg(keys::IDS_KEY);
        let [_, key] = value::tuple(Value::Array(self.run_all(&both, &keys::IDS_KEY).await?))?;
        value::bytes(key)?.try_into().map_err(|_| error::odd_answer("a secret of 32 bytes in tm:ids-key"))
    }

    /// The heartbeat ends last: until all is released, nobody is to think that this host has died with it.
    pub(super) async fn take_leave(&self, consumer: &str, sources: &[Source]) -> Result<u64> {
        self.readers.close(consumer);
        let (mut released, mut failed) = (0, None);
        for source in sources {
            // One that cannot be released is no reason to leave the others behind like a dead host.
            match self.release(source, consumer).await {
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

    async fn release(&self, source: &Source, consumer: &str) -> Result<u64> {
        let (keys, mut released) = (Keys::of(source), 0);
        for lane in LANES {
            loop {
                let mut call = RELEASE.call(&[key_of(&keys, lane), keys.dead(), keys.stats()]);
                call.arg(&*source.handler).arg(consumer).arg(PAGE).write_bounds(&self.options);
                let some = value::count(&self.run_script(&RELEASE, &call, source).await?)?;
                released += some;
                if some < PAGE as u64 {
                    break;
                }
            }
        }
        let mut call = LEAVE.call(&[keys.stream(), keys.again()]);
        call.arg(&*source.handler).arg(consumer);
        self.run_script(&LEAVE, &call, source).await?;
        Ok(released)
    }

    pub(super) async fn trim_stream(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed> {
        let mut call = TRIM.call(&[stream.to_owned()]);
        call.arg(bounds.maxlen.map(|max| max.to_string()).unwrap_or_default());
        call.arg(bounds.retention.map(|age| millis(age).to_string()).unwrap_or_default());
        call.arg(u8::from(bounds.overflow == Overflow::Drop)).arg(keys::stats_prefix(stream)).arg(clock::now_ms());
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
