//! `hostile`: the hostile corpus against a host at work. A row each: how it was stopped, how long that took, the host's
//! memory, and what was left of another handler's throughput. The exit code is 1 if one was not stopped as it has to be.

mod field;

use std::process::ExitCode;

use tidemill_testkit::hostile_guests::HOSTILE_GUESTS;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these.
    #[arg(long)]
    only: Vec<String>,
    /// Verdicts that are timed, for each.
    #[arg(long, default_value_t = 5)]
    times: usize,
    /// JSON Lines: one document a row.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let all: Vec<String> = HOSTILE_GUESTS.iter().map(|row| row.name.to_owned()).collect();
    let names = if args.only.is_empty() { all } else { args.only.clone() };
    if !args.json {
        println!("{:<24} {:>10} {:>10} {:>9} {:>7}  outcome", "guest", "median ms", "max ms", "peak MiB", "ratio");
    }
    let mut failed = 0;
    for name in &names {
        match field::measure(name, args.times) {
            Ok(figures) => {
                failed += usize::from(!figures.as_expected);
                let (median, max) = figures.verdict_ms();
                let (peak, ratio) = (figures.peak_kib as f64 / 1024.0, figures.ratio());
                let sign = if figures.as_expected { "" } else { "NOT AS EXPECTED: " };
                if args.json {
                    println!("{}", figures.json());
                } else {
                    println!(
                        "{name:<24} {median:>10.1} {max:>10.1} {peak:>9.1} {ratio:>7.2}  {sign}{}",
                        figures.outcome
                    );
                }
            }
            Err(error) => {
                failed += 1;
                eprintln!("{name}: {error}");
            }
        }
    }
    println!("not stopped as they have to be: {failed}");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
