//! The load harness: events a second through the whole pipeline on Redis, beside a raw client that only reads and acks,
//! in the same run, as ratios. Absolute figures move with the machine; ratios within a round much less.
//!
//! Each round: fill a stream, drain it, look in Redis whether every effect is there; once for each row, in turn. The
//! raw row is run twice in each round: what the two differ by is the noise floor (the A/A control).

mod cpu;
mod isolation;
mod model;
mod peers;
mod raw;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use redis::aio::MultiplexedConnection;
use tidemill::backend::{Backend, DataPlane, NewEntry};
use tidemill::config::Config;
use tidemill::model::delivery::{Disposition, Effects, Source};
use tidemill::service::{Switch, build};
use tidemill_benches::{Case, user_created};
use tidemill_tests::server::RedisServer;
use uuid::Uuid;

use cpu::Cpu;
use report::Sample;

#[derive(Parser)]
struct Args {
    /// Events in each drain.
    #[arg(long, default_value_t = 50_000)]
    events: u64,
    /// Rounds that count; one more runs first and is thrown away.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    /// Only this row, again and again: for a profiler.
    #[arg(long)]
    only: Option<String>,
    /// Measure what isolation costs instead: the pipeline with fresh instances after 1, 16, 64 and 1,000 events.
    #[arg(long)]
    isolation: bool,
    /// With `--isolation`: a component of a heavy language too, which wants no grants. It gets a tenth of the events.
    #[arg(long, value_name = "FILE")]
    heavy: Option<PathBuf>,
    /// Measure what others need instead: the peers of `benches/peers/`, installed and built when they are not there.
    #[arg(long)]
    peers: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let server = RedisServer::start(&["--save", "", "--appendonly", "no"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if args.isolation {
        let guests = isolation::guests(&args);
        let samples = runtime.block_on(isolation::rounds(&args, &guests, &server))?;
        if args.json {
            isolation::json(&args, &guests, &samples);
        } else {
            isolation::table(&args, &guests, &samples);
        }
        return Ok(());
    }
    if args.peers {
        peers::prepare(&tidemill_tests::root())?;
        return runtime.block_on(peers(&args, &server));
    }
    let samples = runtime.block_on(rounds(&args, &server))?;
    if args.json {
        report::json(&args, &samples)
    } else {
        report::table(&args, &samples)
    }
    Ok(())
}

/// The rows in the order in which each round runs them.
const ROWS: [&str; 6] = ["raw", "bare", "stateless", "emit", "keyed", "raw again"];

async fn rounds(args: &Args, server: &RedisServer) -> anyhow::Result<Vec<Vec<Sample>>> {
    let mut connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
    let mut rounds = Vec::new();
    for round in 0..=args.rounds {
        let mut samples = Vec::new();
        for row in ROWS.iter().filter(|row| args.only.as_deref().is_none_or(|only| only == **row)) {
            let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
            fill(server, args.events).await?;
            samples.push(drain(row, args.events, server, &mut connection).await.with_context(|| format!("row {row}"))?);
        }
        if round > 0 {
            rounds.push(samples);
        }
        eprintln!("round {round} of {}", args.rounds);
    }
    Ok(rounds)
}

/// Every peer in turn, in every round, beside the raw row.
async fn peers(args: &Args, server: &RedisServer) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
    let wanted = |peer: &&peers::Peer| args.only.as_deref().is_none_or(|only| peer.name.starts_with(only));
    let chosen: Vec<&peers::Peer> = peers::PEERS.iter().filter(wanted).collect();
    let mut raw = Vec::new();
    let mut samples = vec![Vec::new(); chosen.len()];
    let mut settings = vec![String::new(); chosen.len()];
    for round in 0..=args.rounds {
        let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
        fill(server, args.events).await?;
        let yard = drain("raw", args.events, server, &mut connection).await?;
        raw.extend((round > 0).then_some(yard.events_per_s));
        for (index, peer) in chosen.iter().enumerate() {
            let (sample, said) = peers::drain(peer, args.events, &server.url(), &mut connection).await?;
            samples[index].extend((round > 0).then_some(sample));
            settings[index] = said;
        }
        eprintln!("round {round} of {}", args.rounds);
    }
    for (index, peer) in chosen.iter().enumerate() {
        let of = |value: fn(&model::Sample) -> f64| {
            let spread = report::spread(samples[index].iter().map(value));
            format!("{:.1} [{:.1} - {:.1}]", spread.median, spread.min, spread.max)
        };
        let ratio = report::spread(samples[index].iter().zip(&raw).map(|(sample, raw)| sample.events_per_s / raw));
        println!(
            "| {} ({}) | {} | {} | {:.3} [{:.3} - {:.3}] | {} | {} | {} | {} | {} |",
            peer.name,
            peer.language,
            args.events.min(peer.events_max),
            of(|s| s.events_per_s),
            ratio.median,
            ratio.min,
            ratio.max,
            of(|s| s.client_us),
            of(|s| s.redis_us),
            of(|s| s.client_mib),
            peer.gives,
            settings[index],
        );
    }
    Ok(())
}

async fn fill(server: &RedisServer, events: u64) -> anyhow::Result<()> {
    let backend = open(Case::Stateless, server).await?;
    for start in (0..events).step_by(500) {
        let entry = |number| NewEntry { body: user_created(number).into(), mark: None };
        let entries: Vec<NewEntry> = (start..(start + 500).min(events)).map(entry).collect();
        backend.publish("bench-users", &entries).await?;
    }
    Ok(())
}

async fn open(case: Case, server: &RedisServer) -> anyhow::Result<Arc<dyn Backend>> {
    Ok(build::open_backend(&case.config(&server.url(), "")).await?)
}

async fn drain(
    row: &str,
    events: u64,
    server: &RedisServer,
    connection: &mut MultiplexedConnection,
) -> anyhow::Result<Sample> {
    let source = Source { stream: "bench-users".into(), handler: "bench".into() };
    let backend = open(Case::Stateless, server).await?;
    backend.ensure_group(&source, tidemill::backend::Start::Beginning).await?;
    let case = Case::ALL.into_iter().find(|case| case.name() == row);
    let sample = match (row, case) {
        (_, Some(case)) => pipeline(&case.config(&server.url(), ""), events, connection).await?,
        ("bare", _) => {
            let cpu = Cpu::now(connection).await?;
            let begun = Instant::now();
            bare(&*backend, &source, events).await?;
            cpu.sample(begun.elapsed(), events, connection).await?
        }
        _ => {
            let mut reader = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
            let cpu = Cpu::now(connection).await?;
            let begun = Instant::now();
            raw::drain(&mut reader, events).await?;
            cpu.sample(begun.elapsed(), events, connection).await?
        }
    };
    check(row, case, events, connection).await?;
    Ok(sample)
}

/// The same backend calls as the pipeline makes, with nothing in between: no admission, no plugin.
async fn bare(backend: &dyn DataPlane, source: &Source, events: u64) -> anyhow::Result<()> {
    let mut done = 0;
    while done < events {
        let batch = backend.fetch(source, "bare", 128, Duration::from_secs(1)).await?;
        done += batch.len() as u64;
        let entry = |delivery| {
            let mark = Some((Uuid::from_u128(rand_bits()), [0; 16]));
            tidemill::backend::Entry {
                delivery,
                mark,
                state: None,
                disposition: Disposition::Commit(Effects::default()),
            }
        };
        let entries = batch.into_iter().map(entry).collect();
        let settlement = tidemill::backend::Settlement {
            source: source.clone(),
            consumer: "bare".into(),
            plugin: "bare".into(),
            token: Uuid::new_v4(),
            entries,
        };
        backend.settle(&settlement).await?;
    }
    Ok(())
}

fn rand_bits() -> u128 {
    Uuid::new_v4().as_u128()
}

/// The whole host. The clock stops when the handler's books say that every event is committed.
async fn pipeline(config: &Config, events: u64, connection: &mut MultiplexedConnection) -> anyhow::Result<Sample> {
    let checked = build::check(config)?;
    let plugins = build::plugins(config, &checked)?;
    let backend = build::open_backend(config).await?;
    let host = build::host(config, &checked, plugins, backend)?;
    let (switch, quiet) = Switch::new();
    let switch = Arc::new(switch);
    let cpu = Cpu::now(connection).await?;
    let begun = Instant::now();
    let running = tokio::spawn(host.run(switch.clone(), quiet, false));
    loop {
        let committed: Option<u64> =
            redis::cmd("HGET").arg("{bench-users}:tm:stats:bench").arg("committed").query_async(connection).await?;
        if committed == Some(events) {
            break;
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(120),
            "only {committed:?} of {events} committed after two minutes"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sample = cpu.sample(begun.elapsed(), events, connection).await?;
    switch.quiet();
    running.await??;
    Ok(sample)
}

/// Looks in Redis itself whether everything is there, and nothing twice.
async fn check(
    row: &str,
    case: Option<Case>,
    events: u64,
    connection: &mut MultiplexedConnection,
) -> anyhow::Result<()> {
    let pending: redis::Value = redis::cmd("XPENDING").arg("bench-users").arg("bench").query_async(connection).await?;
    let redis::Value::Array(parts) = pending else { anyhow::bail!("XPENDING answers oddly") };
    ensure!(parts.first() == Some(&redis::Value::Int(0)), "{row}: entries are still pending: {parts:?}");
    if case == Some(Case::Emit) {
        let emitted: u64 = redis::cmd("XLEN").arg("bench-out").query_async(connection).await?;
        ensure!(emitted == events, "{emitted} events emitted for {events}");
    }
    if case == Some(Case::Keyed) {
        let keys: u64 = redis::cmd("DBSIZE").query_async(connection).await?;
        ensure!(keys >= events, "{keys} keys for {events} states");
    }
    Ok(())
}
