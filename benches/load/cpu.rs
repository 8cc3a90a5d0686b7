//! Processor time of this process and of the server, before and after.

use std::time::Duration;

use anyhow::Context;
use redis::aio::MultiplexedConnection;

use crate::report::Sample;

pub struct Cpu {
    host_s: f64,
    redis_s: f64,
}

/// The unit of /proc/self/stat on Linux, everywhere that matters (sysconf(_SC_CLK_TCK)).
const TICKS_PER_S: f64 = 100.0;

impl Cpu {
    pub async fn now(connection: &mut MultiplexedConnection) -> anyhow::Result<Self> {
        let info: String = redis::cmd("INFO").arg("cpu").query_async(connection).await?;
        let of = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            line.trim().parse::<f64>().unwrap_or(0.0)
        };
        Ok(Self { host_s: host_seconds()?, redis_s: of("used_cpu_sys:") + of("used_cpu_user:") })
    }

    pub async fn sample(
        self,
        took: Duration,
        events: u64,
        connection: &mut MultiplexedConnection,
    ) -> anyhow::Result<Sample> {
        let now = Self::now(connection).await?;
        let per_event = |seconds: f64| seconds * 1e6 / events as f64;
        Ok(Sample {
            events_per_s: events as f64 / took.as_secs_f64(),
            host_us: per_event(now.host_s - self.host_s),
            redis_us: per_event(now.redis_s - self.redis_s),
        })
    }
}

fn host_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    // Behind the name in parentheses: utime and stime are the 12th and 13th from there.
    let (_, rest) = stat.rsplit_once(')').context("an odd /proc/self/stat")?;
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_S)
}
