//! What isolation costs: the whole pipeline with a fresh instance after every 1, 16, 64 and 1,000 events, as ratios to
//! 1,000 within each round. Each round turns the order by one, so that none of them always comes first.

use std::path::PathBuf;

use redis::aio::MultiplexedConnection;
use serde_json::json;
use tidemill_benches::Case;
use tidemill_tests::server::RedisServer;

use crate::report::{Sample, Spread, spread};
use crate::{Args, check, fill, open, pipeline};

const INSTANCE_EVENTS: [u32; 4] = [1, 16, 64, 1000];
/// The one that the others are compared with: the last.
const REFERENCE: usize = INSTANCE_EVENTS.len() - 1;

pub struct Guest {
    name: &'static str,
    case: Case,
    plugin: PathBuf,
    events: u64,
}

pub fn guests(args: &Args) -> Vec<Guest> {
    let rust = Case::ALL.map(|case| Guest { name: case.name(), case, plugin: case.plugin(), events: args.events });
    let heavy = |plugin: &PathBuf| {
        let (events, plugin) = ((args.events / 10).max(1), plugin.clone());
        Guest { name: "heavy", case: Case::Stateless, plugin, events }
    };
    rust.into_iter().chain(args.heavy.as_ref().map(heavy)).collect()
}

/// For each round, for each guest, a sample for each of `INSTANCE_EVENTS`.
type Round = Vec<Vec<Sample>>;

pub async fn rounds(args: &Args, guests: &[Guest], server: &RedisServer) -> anyhow::Result<Vec<Round>> {
    let mut connection = redis::Client::open(server.url())?.get_multiplexed_async_connection().await?;
    let mut rounds = Vec::new();
    for number in 0..=args.rounds {
        let mut round = Vec::new();
        for guest in guests {
            let mut samples = Vec::new();
            for turn in 0..INSTANCE_EVENTS.len() {
                let index = (turn + number) % INSTANCE_EVENTS.len();
                samples.push((index, drain(guest, INSTANCE_EVENTS[index], server, &mut connection).await?));
            }
            samples.sort_by_key(|(index, _)| *index);
            round.push(samples.into_iter().map(|(_, sample)| sample).collect());
        }
        if number > 0 {
            rounds.push(round);
        }
        eprintln!("round {number} of {}", args.rounds);
    }
    Ok(rounds)
}

async fn drain(
    guest: &Guest,
    instance_events_max: u32,
    server: &RedisServer,
    connection: &mut MultiplexedConnection,
) -> anyhow::Result<Sample> {
    let _: () = redis::cmd("FLUSHALL").query_async(connection).await?;
    fill(server, guest.events).await?;
    let source = tidemill::model::delivery::Source { stream: "bench-users".into(), handler: "bench".into() };
    let backend = open(Case::Stateless, server).await?;
    backend.ensure_group(&source, tidemill::backend::Start::Beginning).await?;
    let extra = format!("instance_events_max = {instance_events_max}");
    let config = guest.case.config_with(&server.url(), &guest.plugin, &extra);
    let sample = pipeline(&config, guest.events, connection).await?;
    check(guest.name, Some(guest.case), guest.events, connection).await?;
    Ok(sample)
}

/// Of guest `at`: the rate, the ratio to the reference, and the processor time of the host, for one of `INSTANCE_EVENTS`.
fn figures(rounds: &[Round], at: usize, index: usize) -> [Spread; 3] {
    let of = |value: &dyn Fn(&[Sample]) -> f64| spread(rounds.iter().map(|round| value(&round[at])));
    [
        of(&|samples| samples[index].events_per_s),
        of(&|samples| samples[index].events_per_s / samples[REFERENCE].events_per_s),
        of(&|samples| samples[index].host_us),
    ]
}

pub fn table(args: &Args, guests: &[Guest], rounds: &[Round]) {
    println!("{} events in each drain, {} rounds; median [min - max]\n", args.events, args.rounds);
    println!("{:<10} {:>9} {:>28} {:>22} {:>20}", "guest", "events", "events/s", "ratio to 1000", "host µs/event");
    for (at, guest) in guests.iter().enumerate() {
        for (index, instance_events) in INSTANCE_EVENTS.into_iter().enumerate() {
            let [rate, ratio, cpu] = figures(rounds, at, index);
            println!(
                "{:<10} {instance_events:>9} {:>28} {:>22} {:>20}",
                guest.name,
                format!("{:.0} [{:.0} - {:.0}]", rate.median, rate.min, rate.max),
                format!("{:.3} [{:.3} - {:.3}]", ratio.median, ratio.min, ratio.max),
                format!("{:.1} [{:.1} - {:.1}]", cpu.median, cpu.min, cpu.max),
            );
        }
    }
}

pub fn json(args: &Args, guests: &[Guest], rounds: &[Round]) {
    let mut document = json!({ "events": args.events, "rounds": args.rounds, "isolation": {} });
    for (at, guest) in guests.iter().enumerate() {
        for (index, instance_events) in INSTANCE_EVENTS.into_iter().enumerate() {
            let [rate, ratio, cpu] = figures(rounds, at, index);
            document["isolation"][guest.name][instance_events.to_string()] =
                json!({ "events_per_s": rate.json(), "ratio_to_1000": ratio.json(), "host_us": cpu.json() });
        }
    }
    println!("{document}");
}
