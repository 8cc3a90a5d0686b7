//! The sections that turn one knob: handlers, hosts, payload, instances, backlog; and how soon a host serves.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use tidemill_benches::Case;

use crate::bench::{Bench, Plan, Taken};
use crate::drain::{drain, first};
use crate::drains::without_aof;
use crate::model::Section;
use crate::on_redis::OnRedis;
use crate::on_sqlite::OnSqlite;
use crate::setup::{Backlog, Setup};

const HANDLERS: [usize; 4] = [1, 2, 4, 7];
const HOSTS: [usize; 2] = [1, 2];
const PAYLOAD_BYTES: [usize; 6] = [200, 400, 2_000, 8_000, 32_000, 64_000];
/// What the events of one drain come to at most: there are fewer of the large ones.
const PAYLOAD_BYTES_IN_ALL: u64 = 400_000_000;
const INSTANCE_EVENTS: [u32; 4] = [1, 16, 64, 1000];
const BACKLOG: [u64; 3] = [10_000, 100_000, 1_000_000];
const BACKLOG_FULL: u64 = 10_000_000;
/// One round of such a backlog says enough, and takes long enough.
const BACKLOG_LONG: u64 = 1_000_000;

/// One drain of this set-up from Redis; of what else it finds out, what `keep` wants.
fn row<'a>(
    bench: &'a Bench,
    redis: &'a RefCell<OnRedis>,
    name: &str,
    setup: Setup,
    keep: fn(&str) -> bool,
) -> Plan<'a> {
    Plan::new(name, move || {
        let mut taken = drain(bench, &mut *redis.borrow_mut(), &setup)?;
        taken.extra.retain(|(name, _)| keep(name));
        Ok(taken)
    })
}

fn nothing(_extra: &str) -> bool {
    false
}

pub(crate) fn handlers(bench: &Bench) -> anyhow::Result<Section> {
    let server = without_aof();
    let redis = RefCell::new(OnRedis::new(server.url())?);
    let events = bench.events(20_000);
    let plan = |handlers: usize| {
        let plugins = (1..=handlers).map(|number| own_copy(bench.folder.path(), number)).collect::<Result<_, _>>()?;
        let setup = Setup { plugins, ..Setup::new(events, Case::Stateless, 1) };
        anyhow::Ok(row(bench, &redis, "stateless", setup, nothing).at(handlers as f64))
    };
    let plans = HANDLERS.into_iter().map(plan).collect::<Result<_, _>>()?;
    bench.run("handlers", events, bench.rounds(3), plans)
}

/// The stateless guest as a component of its own, with bytes of its own: handlers that do different things share no code.
fn own_copy(folder: &Path, number: usize) -> anyhow::Result<PathBuf> {
    let mut bytes = std::fs::read(Case::Stateless.plugin())?;
    // A custom section: its id, its length; in it the length of its name, and the name.
    let name = format!("copy-{number}");
    bytes.extend([0, name.len() as u8 + 1, name.len() as u8]);
    bytes.extend(name.as_bytes());
    let file = folder.join(format!("{name}.wasm"));
    std::fs::write(&file, bytes)?;
    Ok(file)
}

pub(crate) fn hosts(bench: &Bench) -> anyhow::Result<Section> {
    let server = without_aof();
    let redis = RefCell::new(OnRedis::new(server.url())?);
    let events = bench.events(100_000);
    let plan = |hosts: usize| {
        let setup = Setup { hosts, ..Setup::new(events, Case::Emit, 1) };
        row(bench, &redis, "emit", setup, |name| name.ends_with("_share")).at(hosts as f64)
    };
    bench.run("hosts", events, bench.rounds(3), HOSTS.into_iter().map(plan).collect())
}

pub(crate) fn payload(bench: &Bench) -> anyhow::Result<Section> {
    let server = without_aof();
    let redis = RefCell::new(OnRedis::new(server.url())?);
    let events = bench.events(30_000);
    let plan = |bytes: usize| {
        let exact = Backlog { events, bytes: Some(bytes) }.event(0).len();
        let backlog = Backlog { events: events.min(PAYLOAD_BYTES_IN_ALL / exact as u64), bytes: Some(bytes) };
        let setup = Setup { backlog, ..Setup::new(events, Case::Stateless, 1) };
        row(bench, &redis, "stateless", setup, nothing).at(exact as f64).with(format!("{} events", backlog.events))
    };
    bench.run("payload", events, bench.rounds(3), PAYLOAD_BYTES.into_iter().map(plan).collect())
}

pub(crate) fn instances(bench: &Bench) -> anyhow::Result<Section> {
    let server = without_aof();
    let redis = RefCell::new(OnRedis::new(server.url())?);
    let events = bench.events(30_000);
    let mut plans = Vec::new();
    for instance_events_max in INSTANCE_EVENTS {
        for case in Case::ALL {
            let setup = Setup::new(events, case, instance_events_max);
            plans.push(row(bench, &redis, case.name(), setup, nothing).at(f64::from(instance_events_max)));
        }
        if let Some(plugin) = &bench.options.heavy {
            let setup = Setup {
                plugins: vec![std::path::absolute(plugin)?],
                ..Setup::new((events / 10).max(1), Case::Stateless, instance_events_max)
            };
            plans.push(row(bench, &redis, "heavy", setup, nothing).at(f64::from(instance_events_max)));
        }
    }
    bench.run("instances", events, bench.rounds(3), plans)
}

pub(crate) fn backlog(bench: &Bench) -> anyhow::Result<Section> {
    let server = without_aof();
    let redis = RefCell::new(OnRedis::new(server.url())?);
    let small = if bench.options.quick { &BACKLOG[..2] } else { &BACKLOG[..] };
    let sizes: Vec<u64> = small.iter().copied().chain(bench.options.full.then_some(BACKLOG_FULL)).collect();
    let most = sizes.iter().copied().max().unwrap_or_default();
    let plans = sizes.into_iter().map(|events| waiting(bench, &redis, events)).collect();
    bench.run("backlog", most, bench.rounds(3), plans)
}

/// A backlog of so many events, and what the inbox takes when it is drained.
fn waiting<'a>(bench: &'a Bench, redis: &'a RefCell<OnRedis>, events: u64) -> Plan<'a> {
    let setup = Setup::new(events, Case::Stateless, 1);
    let run = move || -> anyhow::Result<Taken> {
        let mut redis = redis.borrow_mut();
        let mut taken = drain(bench, &mut *redis, &setup)?;
        taken.extra.retain(|(name, _)| name.starts_with("mib_"));
        let bytes = setup.handlers().iter().map(|handler| redis.inbox_bytes(handler)).sum::<anyhow::Result<u64>>()?;
        taken.extra.push(("inbox_bytes", bytes as f64 / events as f64));
        Ok(taken)
    };
    Plan { long: events >= BACKLOG_LONG, ..Plan::new("stateless", run).at(events as f64) }
}

pub(crate) fn start(bench: &Bench) -> anyhow::Result<Section> {
    let server = without_aof();
    let redis = RefCell::new(OnRedis::new(server.url())?);
    let sqlite = RefCell::new(OnSqlite::new(bench.folder.path().join("start.db"), bench.runtime.handle().clone()));
    let setup = Setup::new(1, Case::Stateless, 1);
    let plans = vec![
        Plan::new("stateless", || first(bench, &mut *redis.borrow_mut(), &setup))
            .with("Redis; compiled code is cached"),
        Plan::new("sqlite", || first(bench, &mut *sqlite.borrow_mut(), &setup)).with("SQLite; compiled code is cached"),
    ];
    bench.run("start", 1, bench.rounds(10), plans)
}
