//! Groups and consumers: made, alive, gone; and the trimming of streams, which has to spare what groups still need.

use std::time::Duration;

use super::keys::{self, Keys};
use super::script::{ENSURE, LEAVE, TRIM};
use super::{Redis, millis, value};
use crate::backend::{Bounds, HostNote, Overflow, Result, Start, Trimmed};
use crate::model::delivery::Source;

/// A call of the script that removed this many has met its own bound; then it is called again, this often at most.
const TRIM_MORE: u64 = 50_000;
const TRIM_CALLS_MAX: usize = 20;

impl Redis {
    pub(super) async fn make_group(&self, source: &Source, start: Start) -> Result<()> {
        let keys = Keys::of(source);
        let mut call = ENSURE.call(&[keys.stream(), keys.again(), keys.due(), keys.dead(), keys.stats()]);
        call.arg(&*source.handler).arg(match start {
            Start::Beginning => "0",
            Start::New => "$",
        });
        self.run_script(&ENSURE, &call, source).await?;
        Ok(())
    }

    pub(super) async fn say_alive(&self, consumer: &str, ttl: Duration, _note: &str) -> Result<()> {
        let (key, ttl) = (keys::heartbeat(consumer), millis(ttl).max(1));
        // A server whose memory is full still takes a PEXPIRE: that is no time to be thought dead.
        let mut prolong = redis::cmd("PEXPIRE");
        prolong.arg(&key).arg(ttl);
        if value::number(&self.run(&prolong, &consumer).await?)? == 0 {
            let mut set = redis::cmd("SET");
            set.arg(&key).arg(1).arg("PX").arg(ttl);
            self.run(&set, &consumer).await?;
        }
        Ok(())
    }

    pub(super) async fn list_hosts(&self, _sources: &[Source]) -> Result<Vec<HostNote>> {
        Ok(Vec::new())
    }

    pub(super) async fn take_leave(&self, consumer: &str, sources: &[Source]) -> Result<()> {
        self.readers.close(consumer);
        let mut cmd = redis::cmd("DEL");
        cmd.arg(keys::heartbeat(consumer));
        self.run(&cmd, &consumer).await?;
        for source in sources {
            let keys = Keys::of(source);
            let mut call = LEAVE.call(&[keys.stream(), keys.again()]);
            call.arg(&*source.handler).arg(consumer);
            self.run_script(&LEAVE, &call, source).await?;
        }
        Ok(())
    }

    pub(super) async fn trim_stream(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed> {
        let mut call = TRIM.call(&[stream.to_owned()]);
        call.arg(bounds.maxlen.map(|max| max.to_string()).unwrap_or_default());
        call.arg(bounds.retention.map(|age| millis(age).to_string()).unwrap_or_default());
        call.arg(u8::from(bounds.overflow == Overflow::Drop)).arg(keys::stats_prefix(stream));
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
