//! The load harness: events a second through the whole host, beside clients that do less, in the same run, as ratios.
//! Absolute figures move with the machine; ratios within a round much less.
//!
//! Each section asks one question (`sections::ALL`). Its rows are run in turn: fill, drain, look whether every effect is
//! there, once for each row in each round. The first round is thrown away. The main section runs its raw row twice in
//! each round: what the two differ by is the noise (the A/A control).

mod bare;
mod bench;
mod beside;
mod clients;
mod drain;
mod drains;
mod host;
mod latency;
mod machine;
mod model;
mod on_redis;
mod on_sqlite;
mod page;
mod peers;
mod plot;
mod questions;
mod raw;
mod report;
mod sections;
mod setup;
mod store;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Parser;

use bench::{Bench, Options};
use model::Run;

/// Measures the pipeline beside raw Redis and other clients, and what durability, payload, handlers and backlog cost.
#[derive(Parser)]
#[command(name = "cargo xtask load")]
struct Args {
    #[command(flatten)]
    options: Options,
    /// Only these sections, by name.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    sections: Vec<String>,
    /// Peers too: what people use today. The first time, they are installed and built.
    #[arg(long)]
    peers: bool,
    /// The whole run as JSON, instead of tables.
    #[arg(long)]
    json: bool,
    /// Write docs/performance.md, its pictures, and docs/performance.json, of a whole run.
    #[arg(long, conflicts_with_all = ["sections", "only", "quick"])]
    write: bool,
    /// Measure nothing: show this run, a file that --json or --write has made.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

fn main() -> ExitCode {
    match work(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(args: &Args) -> anyhow::Result<()> {
    let (run, failed) = match &args.from {
        Some(file) => (read(file)?, Vec::new()),
        None => measure(args)?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&run)?);
    } else {
        report::print(&run);
    }
    ensure!(failed.is_empty(), "of the sections, {} failed; what they said is above", failed.join(", "));
    if args.write {
        report::write(&run, &tidemill_testkit::root())?;
    }
    Ok(())
}

fn read(file: &PathBuf) -> anyhow::Result<Run> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no run of this harness", file.display()))
}

/// Runs the sections; also says which of them failed. The others are worth their time all the same.
fn measure(args: &Args) -> anyhow::Result<(Run, Vec<&'static str>)> {
    let chosen = sections::chosen(&args.sections, args.peers)?;
    let bench = Bench {
        options: args.options.clone(),
        runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        folder: tempfile::tempdir()?,
    };
    let (machine, mut sections, mut failed) = (machine::machine(), Vec::new(), Vec::new());
    for question in chosen {
        match (question.run)(&bench) {
            // `--only` may have left it without rows.
            Ok(section) if section.rows.is_empty() => {}
            Ok(section) => sections.push(section),
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.push(question.name);
            }
        }
    }
    Ok((Run { machine, sections }, failed))
}
