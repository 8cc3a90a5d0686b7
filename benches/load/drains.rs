//! The sections about the pipeline as such: beside raw Redis, and on backends that are durable to different degrees.

use std::cell::RefCell;

use tidemill_benches::Case;
use tidemill_testkit::server::RedisServer;

use crate::bench::{Bench, Plan, Taken};
use crate::clients;
use crate::drain::drain;
use crate::model::Section;
use crate::on_redis::OnRedis;
use crate::on_sqlite::OnSqlite;
use crate::setup::Setup;
use crate::store::Store;

/// A server that keeps nothing: what Redis can do at best.
pub(crate) fn without_aof() -> RedisServer {
    RedisServer::start(&["--save", "", "--appendonly", "no"])
}

/// Events of one instance, besides the default of one.
pub(crate) const INSTANCE_EVENTS: u32 = 64;

pub(crate) fn pipeline(bench: &Bench) -> anyhow::Result<Section> {
    let server = without_aof();
    let redis = RefCell::new(OnRedis::new(server.url())?);
    let events = bench.events(100_000);
    let raw = || clients::raw(bench, &mut redis.borrow_mut(), events);
    let mut plans = vec![
        Plan::new("raw", raw).with("XREADGROUP and XACK, 100 at a time"),
        Plan::new("bare", || clients::bare(bench, &mut redis.borrow_mut(), events))
            .with("fetch and settle of the host, 128 at a time"),
    ];
    for instance_events_max in [1, INSTANCE_EVENTS] {
        for case in Case::ALL {
            plans.push(of_case(bench, &redis, case, instance_events_max, events));
        }
    }
    plans.push(Plan::new("raw again", raw).with("the same as raw: what the two differ by is noise"));
    bench.run("pipeline", events, bench.rounds(5), plans)
}

/// The row of a case in the pipeline as it is by default, or with instances that live longer.
pub(crate) fn of_case<'a>(
    bench: &'a Bench,
    redis: &'a RefCell<OnRedis>,
    case: Case,
    instance_events_max: u32,
    events: u64,
) -> Plan<'a> {
    let name = match instance_events_max {
        1 => case.name().to_owned(),
        more => format!("{} {more}", case.name()),
    };
    let setup = Setup::new(events, case, instance_events_max);
    Plan::new(name, move || drain(bench, &mut *redis.borrow_mut(), &setup))
        .with(format!("instance_events_max = {instance_events_max}"))
}

/// How Redis is told to keep what it was told, in words and in options. Nothing is rewritten while somebody measures.
const FSYNC: [(&str, &str, &[&str]); 3] = [
    ("none", "no append-only file", &["--appendonly", "no"]),
    ("everysec", "append-only file, fsync once a second", &["--appendonly", "yes", "--appendfsync", "everysec"]),
    ("always", "append-only file, fsync before each answer", &["--appendonly", "yes", "--appendfsync", "always"]),
];
const QUIETLY: [&str; 4] = ["--save", "", "--auto-aof-rewrite-percentage", "0"];

pub(crate) fn fsync(bench: &Bench) -> anyhow::Result<Section> {
    let events = bench.events(50_000);
    let start = |(_, _, options): &(&str, &str, &[&str])| RedisServer::start(&[&QUIETLY, *options].concat());
    let servers: Vec<RedisServer> = FSYNC.iter().map(start).collect();
    let plan = |((name, says, _), server): (&(&str, &str, &[&str]), &RedisServer)| {
        let redis = RefCell::new(OnRedis::new(server.url())?);
        anyhow::Ok(stateless(bench, name, redis, events).with(format!("Redis, {says}")))
    };
    let mut plans: Vec<Plan> = FSYNC.iter().zip(&servers).map(plan).collect::<Result<_, _>>()?;
    let sqlite = RefCell::new(OnSqlite::new(bench.folder.path().join("bench.db"), bench.runtime.handle().clone()));
    plans.push(stateless(bench, "sqlite", sqlite, events).with("a SQLite file, WAL, synchronous=FULL"));
    bench.run("fsync", events, bench.rounds(3), plans)
}

fn stateless<'a>(bench: &'a Bench, name: &str, store: RefCell<impl Store + 'a>, events: u64) -> Plan<'a> {
    let setup = Setup::new(events, Case::Stateless, 1);
    Plan::new(name, move || -> anyhow::Result<Taken> { drain(bench, &mut *store.borrow_mut(), &setup) })
}
