//! A backlog on Redis, and what is there when it is drained.

use std::collections::HashSet;

use anyhow::{Context, ensure};
use redis::{Connection, Value};
use serde::Deserialize;
use tidemill_benches::Case;

use crate::setup::{Backlog, OUT, STREAM, Setup};
use crate::store::Store;

/// Connections that fill at once, and entries that one of them sends in one go.
const FILLERS: u64 = 4;
const FILL_BYTES: usize = 256 * 1024;
/// Entries or values that are read back at once.
const PAGE: usize = 1000;

pub(crate) struct OnRedis {
    url: String,
    connection: Connection,
}

#[derive(Deserialize)]
struct Emitted {
    causation_id: String,
}

#[derive(Deserialize)]
struct Day {
    events: u64,
}

impl OnRedis {
    pub(crate) fn new(url: String) -> anyhow::Result<Self> {
        let connection = redis::Client::open(url.as_str())?.get_connection()?;
        Ok(Self { url, connection })
    }

    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Whether a group has read and acked all of the stream.
    pub(crate) fn check_acked(&mut self, group: &str, events: u64) -> anyhow::Result<()> {
        let pending: Value = redis::cmd("XPENDING").arg(STREAM).arg(group).query(&mut self.connection)?;
        let Value::Array(parts) = pending else { anyhow::bail!("XPENDING answers oddly") };
        ensure!(parts.first() == Some(&Value::Int(0)), "entries are still pending: {parts:?}");
        let groups: redis::streams::StreamInfoGroupsReply =
            redis::cmd("XINFO").arg("GROUPS").arg(STREAM).query(&mut self.connection)?;
        let found = groups.groups.iter().find(|found| found.name == group).context("the group is gone")?;
        let length: u64 = redis::cmd("XLEN").arg(STREAM).query(&mut self.connection)?;
        ensure!(length == events, "{length} entries on the stream, not {events}");
        ensure!(found.lag == Some(0) && found.entries_read == Some(events as usize), "not read to its end: {found:?}");
        Ok(())
    }

    /// Whether the inbox holds a deduplication key for each event.
    pub(crate) fn check_marks(&mut self, handler: &str, events: u64) -> anyhow::Result<()> {
        let mut dedup_keys = 0;
        for key in self.inbox_keys(handler)? {
            dedup_keys += redis::cmd("HLEN").arg(key).query::<u64>(&mut self.connection)?;
        }
        ensure!(dedup_keys == events, "{dedup_keys} events in the inbox of {handler}, not {events}");
        Ok(())
    }

    /// What the inbox takes, in bytes.
    pub(crate) fn inbox_bytes(&mut self, handler: &str) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for key in self.inbox_keys(handler)? {
            // SAMPLES 0: all of it is looked at.
            let usage = redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query(&mut self.connection);
            bytes += usage.unwrap_or(0_u64);
        }
        Ok(bytes)
    }

    fn inbox_keys(&mut self, handler: &str) -> anyhow::Result<Vec<String>> {
        let pattern = format!("{{{STREAM}}}:tm:seen:{handler}:*");
        Ok(redis::cmd("KEYS").arg(pattern).query(&mut self.connection)?)
    }

    /// One emitted event for each that was drained; answers how many were emitted more than once.
    fn check_emitted(&mut self, events: u64) -> anyhow::Result<u64> {
        let (mut causes, mut count, mut after) = (HashSet::new(), 0, "-".to_owned());
        loop {
            let page: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
                .arg(OUT)
                .arg(&after)
                .arg("+")
                .arg("COUNT")
                .arg(PAGE)
                .query(&mut self.connection)?;
            let Some(last) = page.ids.last() else { break };
            after = format!("({}", last.id);
            for entry in &page.ids {
                let event: Vec<u8> = entry.get("event").context("an emitted entry without an event")?;
                let emitted: Emitted = serde_json::from_slice(&event).context("reading an emitted event")?;
                causes.insert(emitted.causation_id);
                count += 1;
            }
        }
        ensure!(causes.len() as u64 == events, "{} of {events} events have emitted", causes.len());
        Ok(count - events)
    }

    /// One state for each event, each with a key of its own; answers how many were written more than once.
    fn check_states(&mut self, handler: &str, events: u64) -> anyhow::Result<u64> {
        let mut doubled = 0;
        let index = format!("{{{STREAM}}}:tm:keys:{handler}");
        for from in (0..events).step_by(PAGE) {
            let keys: Vec<String> =
                redis::cmd("ZRANGE").arg(&index).arg(from).arg(from + PAGE as u64 - 1).query(&mut self.connection)?;
            ensure!(keys.len() as u64 == (events - from).min(PAGE as u64), "fewer states than {events} events");
            let mut pipe = redis::pipe();
            for key in keys {
                pipe.cmd("HGET").arg(format!("{{{STREAM}}}:tm:state:{handler}:{key}")).arg("=2026-01-31");
            }
            for day in pipe.query::<Vec<Vec<u8>>>(&mut self.connection)? {
                let day: Day = serde_json::from_slice(&day).context("reading a state")?;
                doubled += day.events - 1;
            }
        }
        Ok(doubled)
    }
}

impl Store for OnRedis {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn fill(&mut self, backlog: &Backlog) -> anyhow::Result<()> {
        redis::cmd("FLUSHALL").arg("SYNC").exec(&mut self.connection)?;
        let share = backlog.events.div_ceil(FILLERS);
        let part = |filler: u64| fill(&self.url, backlog, filler * share..((filler + 1) * share).min(backlog.events));
        std::thread::scope(|scope| {
            let start =
                |filler| std::thread::Builder::new().name("fill".to_owned()).spawn_scoped(scope, move || part(filler));
            let fillers: Vec<_> = (0..FILLERS).map(start).collect::<Result<_, _>>()?;
            for filler in fillers {
                filler.join().map_err(|_| anyhow::anyhow!("a thread that fills the stream broke down"))??;
            }
            Ok(())
        })
    }

    fn committed(&mut self, handlers: &[String]) -> anyhow::Result<u64> {
        let mut pipe = redis::pipe();
        for handler in handlers {
            pipe.cmd("HGET").arg(format!("{{{STREAM}}}:tm:stats:{handler}")).arg("committed");
        }
        let counts: Vec<Option<u64>> = pipe.query(&mut self.connection)?;
        Ok(counts.into_iter().flatten().sum())
    }

    fn readers(&mut self, handler: &str) -> anyhow::Result<usize> {
        let consumers: redis::streams::StreamInfoConsumersReply =
            redis::cmd("XINFO").arg("CONSUMERS").arg(STREAM).arg(handler).query(&mut self.connection)?;
        // Names in parentheses are nobody's: what is released or in quarantine.
        Ok(consumers.consumers.iter().filter(|consumer| !consumer.name.starts_with('(')).count())
    }

    fn cpu_s(&mut self) -> anyhow::Result<f64> {
        let info: String = redis::cmd("INFO").arg("cpu").query(&mut self.connection)?;
        let of = |name: &str| {
            let found = info.lines().find_map(|line| line.strip_prefix(name));
            found.and_then(|text| text.trim().parse::<f64>().ok()).with_context(|| format!("INFO has no {name}"))
        };
        Ok(of("used_cpu_sys:")? + of("used_cpu_user:")?)
    }

    fn check(&mut self, setup: &Setup) -> anyhow::Result<u64> {
        let events = setup.backlog.events;
        let mut doubled = 0;
        for handler in setup.handlers() {
            self.check_acked(&handler, events)?;
            self.check_marks(&handler, events)?;
            let dead: u64 =
                redis::cmd("XLEN").arg(format!("{{{STREAM}}}:tm:dead:{handler}")).query(&mut self.connection)?;
            ensure!(dead == 0, "{dead} dead letters of {handler}");
            doubled += match setup.case {
                Case::Stateless => 0,
                Case::Emit => self.check_emitted(events)?,
                Case::Keyed => self.check_states(&handler, events)?,
            };
        }
        Ok(doubled)
    }
}

fn fill(url: &str, backlog: &Backlog, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let (mut pipe, mut bytes) = (redis::pipe(), 0);
    for number in numbers.clone() {
        let event = backlog.event(number);
        bytes += event.len();
        pipe.cmd("XADD").arg(STREAM).arg("*").arg("event").arg(event).ignore();
        if bytes > FILL_BYTES || number + 1 == numbers.end {
            pipe.exec(&mut connection)?;
            (pipe, bytes) = (redis::pipe(), 0);
        }
    }
    Ok(())
}
