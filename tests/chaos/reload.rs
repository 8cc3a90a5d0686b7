//! `reload`: swaps between real versions of a plugin under full load, with bad builds in between.
//!
//! The last line says `violations: N`; the exit code is 1 if N > 0.

use std::process::ExitCode;

use tidemill_testkit::reload::{Plan, run};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often a good version is replaced by another one.
    #[arg(long, default_value_t = 100)]
    swaps: u32,
    /// Events a second.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let outcome = run(Plan { swaps: args.swaps, per_second: args.rate, seed: args.seed });
    if args.json {
        println!("{}", outcome.json());
    } else {
        println!("{outcome}");
    }
    eprintln!("violations: {}", outcome.violations.len());
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
