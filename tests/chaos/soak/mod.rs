//! `soak`: long runs. Rounds of the soak, one seed each; or, with `--backlog`, a large backlog worked off.
//!
//! The first line names the seed, the last one says `violations: N`; the exit code is 1 if N > 0.

mod backlog;

use std::process::ExitCode;
use std::time::Duration;

use backlog::Size;
use tidemill_testkit::soak::{Kind, Only, Plan, quantiles, round};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The seed of the first round; the next one has the next seed. Default: by chance.
    #[arg(long)]
    seed: Option<u64>,
    /// How long in all.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// How long each round is.
    #[arg(long, default_value_t = 3.0)]
    each: f64,
    /// redis or sqlite; default: every third seed on SQLite, the others on Redis.
    #[arg(long, value_parser = ["redis", "sqlite"])]
    backend: Option<String>,
    /// Only this fault, by its name as a round's report says it; may be given several times. Another word lists them.
    #[arg(long, value_name = "FAULT")]
    only: Vec<String>,
    /// JSON Lines: one document a round.
    #[arg(long)]
    json: bool,
    /// Measure a backlog instead.
    #[arg(long)]
    backlog: bool,
    #[arg(long, default_value_t = 1_000_000)]
    entries: usize,
    /// Of the entries: in the hands of consumers that are no more.
    #[arg(long, default_value_t = 200_000)]
    pending: usize,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    if args.backlog {
        return measure(args);
    }
    let only = match Only::new(&args.only) {
        Ok(only) => only,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("seed: {seed}");
    let rounds = (args.minutes / args.each).floor().max(1.0) as u64;
    let length = Duration::from_secs_f64(60.0 * args.each.min(args.minutes));
    let (mut violations, mut events, mut recoveries) = (0, 0, Vec::new());
    for seed in seed..seed + rounds {
        let outcome = round(Plan { seed, kind: kind(args, seed), length, only: only.clone() });
        if args.json {
            println!("{}", outcome.json());
        } else {
            println!("{outcome}");
        }
        if outcome.violations() > 0 {
            let file = std::env::temp_dir().join(format!("tidemill-faults-{seed}.log"));
            match std::fs::write(&file, &outcome.said) {
                Ok(()) => eprintln!("what the hosts said is in {}", file.display()),
                Err(error) => eprintln!("{}: {error}", file.display()),
            }
        }
        violations += outcome.violations();
        events += outcome.events;
        recoveries.extend(outcome.recoveries);
    }
    eprintln!("{rounds} rounds, {events} events, recovery in ms: {}", quantiles(&recoveries));
    println!("violations: {violations}");
    if violations > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn kind(args: &Args, seed: u64) -> Kind {
    match args.backend.as_deref() {
        Some("sqlite") => Kind::Sqlite,
        Some(_) => Kind::Redis,
        None if seed.is_multiple_of(3) => Kind::Sqlite,
        None => Kind::Redis,
    }
}

fn measure(args: &Args) -> ExitCode {
    match backlog::measure(Size { entries: args.entries, pending: args.pending }) {
        Ok(figures) if args.json => println!("{figures}"),
        Ok(figures) => {
            for (name, value) in figures.as_object().into_iter().flatten() {
                println!("{name:>20}  {value}");
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
