//! Instructions of each step of the pipeline, counted by valgrind: on a busy machine the same as on an idle one, so that
//! a pull request can be compared with a baseline.
//!
//! Each step runs in a process of its own, under callgrind, which counts while [`measured`] runs and only then. What it
//! saw lies beside this program in `callgrind/`, for `callgrind_annotate`.

mod baseline;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};
use tidemill_benches::steps::{Run, STEPS, Step};

use baseline::Baseline;

/// Runs that are counted, and runs before them, after which nothing is done for the first time.
const RUNS: usize = 64;
const RUNS_BEFORE: usize = 8;

#[derive(Parser)]
struct Args {
    /// Write the baseline anew.
    #[arg(long)]
    save: bool,
    /// Only steps whose names hold this.
    #[arg(long, value_name = "NAME", conflicts_with = "save")]
    only: Option<String>,
    /// Run a step, to be counted.
    #[arg(long, hide = true, value_name = "NAME")]
    run: Option<String>,
    /// Only set up a step.
    #[arg(long, hide = true, value_name = "NAME")]
    set_up: Vec<String>,
}

fn main() -> ExitCode {
    match count(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn count(args: &Args) -> anyhow::Result<bool> {
    let named =
        |name: &String| STEPS.iter().find(|step| step.name == name).with_context(|| format!("there is no step {name}"));
    if let Some(name) = &args.run {
        run(named(name)?);
        return Ok(true);
    }
    for name in &args.set_up {
        drop((named(name)?.set_up)());
    }
    if !args.set_up.is_empty() {
        return Ok(true);
    }
    let mut found = Baseline::empty()?;
    let wanted = |step: &&Step| args.only.as_deref().is_none_or(|only| step.name.contains(only));
    let steps: Vec<&Step> = STEPS.iter().filter(wanted).collect();
    ensure!(!steps.is_empty(), "there is no such step\n  hint: the steps are {}", names());
    few_files()?;
    compile_plugins(&steps)?;
    for step in steps {
        found.instructions.insert(step.name.to_owned(), count_step(step)?);
        eprintln!("counted {}", step.name);
    }
    if args.save {
        found.table(None);
        found.save()?;
        return Ok(true);
    }
    let baseline = Baseline::load();
    found.table(baseline.as_ref().ok());
    found.compare(&baseline?, args.only.is_none())
}

fn names() -> String {
    STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ")
}

fn run(step: &Step) {
    let mut ready = (step.set_up)();
    (0..RUNS_BEFORE).for_each(|_| ready()());
    measured((0..RUNS).map(|_| ready()).collect());
}

/// Valgrind knows it by its name. No closure in here: its name would begin with the same.
#[inline(never)]
fn measured(runs: Vec<Run>) {
    for run in runs {
        run();
    }
}

/// Has every plugin compiled for the processor that valgrind plays, which knows less than the one below it. The code is
/// found in the cache from then on.
fn compile_plugins(steps: &[&Step]) -> anyhow::Result<()> {
    let mut valgrind = valgrind(&["--tool=none", "--trace-children=yes"])?;
    answer(valgrind.args(steps.iter().flat_map(|step| ["--set-up", step.name])))?;
    Ok(())
}

/// Instructions of the step for one event.
fn count_step(step: &Step) -> anyhow::Result<u64> {
    let out = folder()?.join(format!("{}.out", step.name));
    let out = format!("--callgrind-out-file={}", out.display());
    let mut valgrind = valgrind(&["--tool=callgrind", "--toggle-collect=instructions::measured*", &out])?;
    let said = answer(valgrind.args(["--run", step.name]))?;
    // ==4711== Collected : 123456
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    match collected {
        None | Some(0) => {
            bail!("{}: valgrind counted nothing; is the program stripped of its names?\n{said}", step.name)
        }
        Some(all) => Ok(all / (RUNS * step.events) as u64),
    }
}

/// This program once more, under valgrind.
fn valgrind(options: &[&str]) -> anyhow::Result<Command> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(options).arg(std::env::current_exe()?).env("XDG_CACHE_HOME", folder()?);
    Ok(valgrind)
}

/// What valgrind says when all goes well.
fn answer(valgrind: &mut Command) -> anyhow::Result<String> {
    let output = valgrind.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "valgrind ended with {}\n{said}", output.status);
    Ok(said)
}

/// Beside this program.
fn folder() -> anyhow::Result<PathBuf> {
    let folder = std::env::current_exe()?.with_file_name("callgrind");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The compiler's child lowers how many files it may open, and is stopped if it cannot. Valgrind refuses any change of
/// that bound, so it must have been what the child wants before; and valgrind keeps some for itself.
fn few_files() -> anyhow::Result<()> {
    const CHILD: u64 = 16;
    const VALGRIND: u64 = 12;
    let files = Some(CHILD + VALGRIND);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files })?)
}
