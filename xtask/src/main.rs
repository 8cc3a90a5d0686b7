//! `cargo xtask`: what a fresh machine needs to set up, and the commands that README names.

mod canary;
mod faults;
mod fuzz;
mod instructions;
mod load;
mod redis;
mod reload;
mod retail;
mod run;
mod strangers;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, demo, tests, guests, load, instructions, faults, strangers, fuzz, canary"
)]
enum Task {
    /// Build everything, then run the main job: `tidemill demo`. Takes its options too, such as --redis URL.
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Build everything and run all tests, with a real Redis (found, or installed).
    Test {
        /// Only tests whose name holds one of these.
        filters: Vec<String>,
    },
    /// Build every Rust guest to a component.
    Guests,
    /// Make events from order lines in the shape of the UCI "Online Retail" data: JSON Lines on stdout.
    Retail { csv: PathBuf },
    /// Run the soak: hosts at work, and everything that can happen to them. `--help` lists its options.
    Faults {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Let the hostile corpus loose on a host at work. `--help` lists its options.
    Strangers {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Change good inputs at random and see whether the host stands it. `--help` lists its options.
    Fuzz {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Measure how soon a canary that fails is found out, and what it costs. `--help` lists its options.
    Canary {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Replace a plugin again and again under load, with bad builds in between. `--help` lists its options.
    Reload {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Measure the pipeline beside raw Redis, as a release build; `--dev`: as it is. `--help` lists the other options.
    Load {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Count the instructions of each step and compare them with the baseline; `--save` writes it anew.
    Instructions {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Demo { options } => demo(&options),
        Task::Test { filters } => test(&filters),
        Task::Guests => run::guests(),
        Task::Retail { csv } => retail(&csv),
        Task::Faults { options } => faults::faults(&options),
        Task::Strangers { options } => strangers::strangers(&options),
        Task::Fuzz { options } => fuzz::fuzz(&options),
        Task::Canary { options } => canary::canary(&options),
        Task::Reload { options } => reload::reload(&options),
        Task::Load { options } => load::load(&options),
        Task::Instructions { options } => instructions::instructions(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(options: &[String]) -> anyhow::Result<()> {
    run::guests()?;
    run::passes(run::tidemill().arg("demo").args(options))
}

fn test(filters: &[String]) -> anyhow::Result<()> {
    let server = redis::find_or_install()?;
    run::guests()?;
    let mut tests = run::cargo(&["test", "--workspace", "--no-fail-fast"]);
    tests.env("TIDEMILL_REDIS_SERVER", server).arg("--").args(filters);
    run::passes(&mut tests)
}

fn retail(csv: &std::path::Path) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let summary = retail::run(csv, &mut out)?;
    out.flush()?;
    for (kind, count) in &summary.events {
        eprintln!("{count} {kind}");
    }
    for unreadable in &summary.unreadable {
        eprintln!("line {}: {}", unreadable.line, unreadable.reason);
    }
    if !summary.unreadable.is_empty() {
        anyhow::bail!("{} lines could not be read", summary.unreadable.len());
    }
    Ok(())
}
