//! A large backlog, part of it in the hands of consumers that are no more: how fast is it recovered and worked off,
//! and does the host's memory stay flat?

use std::time::{Duration, Instant};

use redis::{Connection, RedisResult, Value, cmd};
use serde_json::json;
use uuid::Uuid;

use tidemill_testkit::checker::{Database, Store};
use tidemill_testkit::ledger::host::Host;
use tidemill_testkit::server::RedisServer;

const STREAM: &str = "backlog";
const HANDLER: &str = "check";
/// Entries that one dead consumer holds.
const HELD: usize = 200;
const PIPELINE: usize = 1000;
const LOOK_EVERY: Duration = Duration::from_millis(250);
const STUCK_AFTER: Duration = Duration::from_secs(1800);

#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) entries: usize,
    pub(super) pending: usize,
}

/// One look at it.
struct Sample {
    at: Duration,
    /// Pending under consumers that are no more.
    dead_hold: usize,
    memory_kib: u64,
}

/// Fills a server, lets one host work it off, and answers what was measured.
pub(super) fn measure(size: Size) -> Result<serde_json::Value, String> {
    let server = RedisServer::start(&["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]);
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let config = folder.path().join("tidemill.toml");
    std::fs::write(&config, text(&server.url())).map_err(|error| error.to_string())?;
    let start = |name: &str| Host::start(&config, &folder.path().join(name), &["run", "--until-idle"], None);
    // The first host makes the group and ends.
    let mut first = start("first.log");
    if !first.ends_within(STUCK_AFTER).is_some_and(|exit| exit.success()) {
        return Err(first.said());
    }
    fill(&server.url(), size).map_err(|error| error.to_string())?;
    let samples = watch(&server, start("second.log"))?;
    let store = Store {
        database: Database::Redis(server.url()),
        input: STREAM.to_owned(),
        output: "none".to_owned(),
        handler: HANDLER.to_owned(),
    };
    let found = store.read()?;
    if found.counters.committed != size.entries as u64 || !found.waiting.is_empty() {
        return Err(format!("{} entries became {:?}, {} wait", size.entries, found.counters, found.waiting.len()));
    }
    Ok(figures(size, &samples))
}

fn text(url: &str) -> String {
    format!(
        r#"
        [backend]
        url = "{url}"
        [schemas]
        path = "{schemas}"
        [streams.{STREAM}]
        events = ["User.*"]
        [handlers.{HANDLER}]
        plugin = "{plugin}"
        events = ["User.Created"]
        "#,
        schemas = tidemill_testkit::root().join("schemas").display(),
        plugin = tidemill_testkit::guest("bench-check").display(),
    )
}

fn fill(url: &str, size: Size) -> RedisResult<()> {
    let mut server = redis::Client::open(url)?.get_connection()?;
    for from in (0..size.entries).step_by(PIPELINE) {
        let mut pipe = redis::pipe();
        for number in from..(from + PIPELINE).min(size.entries) {
            pipe.cmd("XADD").arg(STREAM).arg("*").arg("event").arg(user_created(number as u64)).ignore();
        }
        pipe.query::<()>(&mut server)?;
    }
    for from in (0..size.pending).step_by(HELD) {
        let count = HELD.min(size.pending - from);
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(HANDLER).arg(format!("gone-{from}")).arg("COUNT").arg(count);
        read.arg("STREAMS").arg(STREAM).arg(">").query::<Value>(&mut server)?;
    }
    Ok(())
}

fn user_created(number: u64) -> String {
    let id = Uuid::from_u128(0x0191_d3a0_0000_7000_8000_0000_0000_0000 + u128::from(number));
    let at = "2026-01-31T12:00:00.000Z";
    json!({
        "event_id": id, "event_type": "User.Created", "version": "1", "timestamp": at, "correlation_id": id,
        "data": {
            "user_id": number, "username": format!("user-{number:08}"), "email": format!("user-{number:08}@example.com"),
            "created_at": at, "user_type": "customer",
        },
    })
    .to_string()
}

/// Looks at it until the host has ended, idle.
fn watch(server: &RedisServer, mut host: Host) -> Result<Vec<Sample>, String> {
    let mut connection = redis::Client::open(server.url())
        .and_then(|client| client.get_connection())
        .map_err(|error| error.to_string())?;
    let (begun, mut samples) = (Instant::now(), Vec::new());
    loop {
        if let Some(exit) = host.exit() {
            return if exit.success() { Ok(samples) } else { Err(host.said()) };
        }
        if begun.elapsed() > STUCK_AFTER {
            return Err(format!("stuck after {STUCK_AFTER:?}: {}", host.said()));
        }
        let dead_hold = dead_hold(&mut connection).map_err(|error| error.to_string())?;
        if let Some(memory_kib) = host.memory_kib().filter(|_| host.consumer().is_some()) {
            samples.push(Sample { at: begun.elapsed(), dead_hold, memory_kib });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn dead_hold(server: &mut Connection) -> RedisResult<usize> {
    type Summary = (usize, Value, Value, Option<Vec<(String, String)>>);
    let (_, _, _, consumers): Summary = cmd("XPENDING").arg(STREAM).arg(HANDLER).query(server)?;
    let gone = consumers.unwrap_or_default().into_iter().filter(|(name, _)| name.starts_with("gone-"));
    Ok(gone.filter_map(|(_, count)| count.parse::<usize>().ok()).sum())
}

fn figures(size: Size, samples: &[Sample]) -> serde_json::Value {
    let begun = samples.first().map(|sample| sample.at).unwrap_or_default();
    let ended = samples.last().map(|sample| sample.at).unwrap_or_default();
    let taking = |sample: &&Sample| sample.dead_hold < size.pending;
    let first_taken = samples.iter().find(taking).map_or(ended, |sample| sample.at);
    let all_taken = samples.iter().find(|sample| sample.dead_hold == 0).map_or(ended, |sample| sample.at);
    let per_second = |count: usize, time: Duration| (count as f64 / time.as_secs_f64().max(0.001)).round();
    let memory = |share: f64| {
        let at = ((samples.len().saturating_sub(1)) as f64 * share) as usize;
        samples.get(at).map_or(0.0, |sample| (sample.memory_kib as f64 / 102.4).round() / 10.0)
    };
    json!({
        "entries": size.entries, "pending_of_dead": size.pending,
        "recovery_begins_s": (first_taken - begun).as_secs_f64().round(),
        "recovered_per_s": per_second(size.pending, all_taken.saturating_sub(first_taken)),
        "recovered_after_s": (all_taken - begun).as_secs_f64().round(),
        "drained_per_s": per_second(size.entries, ended - begun), "drained_after_s": (ended - begun).as_secs_f64().round(),
        "host_memory_mib": {
            "start": memory(0.0), "quarter": memory(0.25), "middle": memory(0.5), "three_quarters": memory(0.75),
            "end": memory(1.0),
            "most": samples.iter().map(|sample| sample.memory_kib).max().unwrap_or(0) / 1024,
        },
    })
}
