//! `fuzz`: every target, or the one that is named, for its share of the time.
//!
//! The first line names the seed, the last one says `crashes: N`; the exit code is 1 if N > 0. A crash that ends the whole
//! process, such as a stack overflow, comes again with the same seed and target.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tidemill_testkit::fuzz::{NAMES, Until, fuzz, target};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Default: by chance.
    #[arg(long)]
    seed: Option<u64>,
    /// How long in all; every target gets the same share.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// A target is left sooner, after so many.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    executions: u64,
    /// Only this one.
    #[arg(long, value_parser = NAMES)]
    target: Option<String>,
    /// Where inputs that crashed are kept.
    #[arg(long, default_value = "target/fuzz")]
    out: PathBuf,
    /// Run the target named by --target once, on this file, and say what it answers.
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let names: Vec<&str> = args.target.as_deref().map_or_else(|| NAMES.to_vec(), |name| vec![name]);
    let folder = tempfile::tempdir().expect("a folder");
    if let (Some(file), [name]) = (&args.input, &names[..]) {
        return once(name, file, folder.path());
    }
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("seed: {seed}");
    let share = Duration::from_secs_f64(60.0 * args.minutes / names.len() as f64);
    let until = Until { time: share, executions: args.executions };
    let (mut crashes, mut executions) = (0, 0);
    for name in names {
        let mut target = target(name, folder.path()).expect("a target of this name");
        let ran = fuzz(&mut target, seed, until, true);
        println!("{ran}");
        let paths = ran.save(&args.out, seed).expect("inputs can be written");
        for (crash, path) in ran.crashes.iter().zip(paths) {
            println!("  {}\n  input: {} ({} bytes)", crash.panic, path.display(), crash.input.len());
        }
        crashes += ran.crashes.len();
        executions += ran.executions;
    }
    println!("executions: {executions}");
    println!("crashes: {crashes}");
    if crashes == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn once(name: &str, file: &Path, folder: &Path) -> ExitCode {
    let input = std::fs::read(file).expect("a file that can be read");
    let mut target = target(name, folder).expect("a target of this name");
    println!("{}", (target.run)(&input));
    ExitCode::SUCCESS
}
