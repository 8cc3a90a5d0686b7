//! `bytes`: byte bombs at the bounds, and the hostile corpus, against a host with little memory. A row each: what it cost the host, its log, its dead
//! letters, its backend and its neighbours. The exit code is 1 if a bound was broken.

use std::process::ExitCode;
use std::time::Duration;

use tidemill_testkit::amplification::{Plan, figures, row_names, run};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What a host may take; it is killed beyond that.
    #[arg(long, default_value = "512MiB", value_parser = bytes)]
    memory: u64,
    /// Passes over all rows begin until then; at least one is made.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Default: by chance.
    #[arg(long)]
    seed: Option<u64>,
    /// On a SQLite file instead of Redis.
    #[arg(long)]
    sqlite: bool,
    /// Only these rows.
    #[arg(long, value_parser = row)]
    only: Vec<String>,
    /// One pass, over fewer and smaller rows: what the tests run.
    #[arg(long)]
    short: bool,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("seed: {seed}");
    let plan = Plan {
        sqlite: args.sqlite,
        memory_bytes: args.memory,
        length: Duration::from_secs(args.seconds),
        seed,
        short: args.short,
        only: args.only.clone(),
    };
    let outcome = match run(&plan) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("error: seed {seed}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("a host with good orders alone: {} MiB", outcome.base_kib >> 10);
    println!("{}", figures::table(&outcome.figures));
    for broken in &outcome.broken {
        println!("broken: seed {seed}: {broken}");
    }
    println!("bounds broken: {}", outcome.broken.len());
    if outcome.broken.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("the last host said:\n{}", outcome.last_words);
    ExitCode::FAILURE
}

/// `512MiB` or `1GiB`, as in the configuration.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let read =
        |(unit, shift): (&str, u32)| text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(1 << shift);
    units.into_iter().find_map(read).ok_or_else(|| format!("\"{text}\" is no size; one looks like 512MiB"))
}

fn row(name: &str) -> Result<String, String> {
    let names: Vec<&str> = row_names().collect();
    if names.contains(&name) { Ok(name.to_owned()) } else { Err(format!("there are {}", names.join(", "))) }
}
