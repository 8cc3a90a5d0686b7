//! Groups and consumers: made, alive, gone; and the trimming of streams, which has to spare what groups still need.

use std::time::Duration;

use super::keys::{self, Keys};
use super::recover::{LANES, PAGE, key_of};
use super::script::{ENSURE, LEAVE, RELEASE, TRIM};
use super::{Redis, millis, value};
use crate::backend::{Bounds, HostNote, Result, Start, Trimmed};
use crate::model::delivery::Source;

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
        if value::number(&self.run_on_pulse(&prolong, &consumer).await?)? == 0 {
            let mut set = redis::cmd("SET");
            set.arg(&key).arg(1).arg("PX").arg(ttl);
            self.run_on_pulse(&set, &consumer).await?;
        }
        Ok(())
    }

    pub(super) async fn list_hosts(&self, _sources: &[Source]) -> Result<Vec<HostNote>> {
        Ok(Vec::new())
    }

    /// The heartbeat ends last: until all is released, nobody is to think that this host has died with it.
    pub(super) async fn take_leave(&self, consumer: &str, sources: &[Source]) -> Result<u64> {
        self.readers.close(consumer);
        let mut released = 0;
        for source in sources {
            let keys = Keys::of(source);
            for lane in LANES {
                loop {
                    let mut call = RELEASE.call(&[key_of(&keys, lane), keys.dead()]);
                    call.arg(&*source.handler).arg(consumer).arg(PAGE);
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
        }
        let mut cmd = redis::cmd("DEL");
        cmd.arg(keys::heartbeat(consumer));
        self.run(&cmd, &consumer).await?;
        Ok(released)
    }

    pub(super) async fn trim_stream(&self, stream: &str, bounds: &Bounds) -> Result<Trimmed> {
        let mut call = TRIM.call(&[stream.to_owned()]);
        call.arg(bounds.maxlen.map(|max| max.to_string()).unwrap_or_default());
        call.arg(bounds.retention.map(|age| millis(age).to_string()).unwrap_or_default());
        let removed = value::count(&self.run_script(&TRIM, &call, &stream).await?)?;
        Ok(Trimmed { removed, ..Trimmed::default() })
    }
}
