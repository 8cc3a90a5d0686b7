//! `cargo xtask`: what a fresh machine needs to set up, and the commands that README names, a row each.
//!
//! It has next to no dependencies, so that it is there in seconds and shares no crate whose features it would change.

mod cargo;
mod matched;
mod redis;

use std::process::ExitCode;

use anyhow::bail;
use cargo::Profile;

struct Task {
    name: &'static str,
    about: &'static str,
    /// Whether it starts redis-servers of its own.
    redis: bool,
    run: Run,
}

/// What runs once the host and the guests are built, with the user's options behind it.
enum Run {
    Nothing,
    Tests,
    /// A command of the host.
    Host(&'static str),
    /// A program of `tests/` or `benches/`, and its first arguments.
    Program(&'static str, &'static [&'static str]),
    /// A program that needs neither host nor guests, in the folder of the caller.
    Tool(&'static str),
}

#[rustfmt::skip]
const TASKS: [Task; 12] = [
    Task { name: "demo", redis: false, run: Run::Host("demo"), about: "build the host and the guests, run the main job: `tidemill demo`; takes its options, such as --redis URL" },
    Task { name: "test", redis: true, run: Run::Tests, about: "build everything and run all tests, or those whose names hold one of the given words; a real Redis is found or installed" },
    Task { name: "guests", redis: false, run: Run::Nothing, about: "build every Rust guest to a component in plugins/dist" },
    Task { name: "faults", redis: true, run: Run::Program("chaos", &["soak"]), about: "hosts at work, and everything that can happen to them" },
    Task { name: "hostile", redis: true, run: Run::Program("chaos", &["hostile"]), about: "let the corpus of hostile guests loose on a host at work" },
    Task { name: "bytes", redis: true, run: Run::Program("chaos", &["bytes"]), about: "byte bombs at the bounds against a host with little memory; --memory 512MiB --seconds N --seed S [--sqlite]" },
    Task { name: "fuzz", redis: false, run: Run::Program("chaos", &["fuzz"]), about: "change good inputs at random and see whether the host stands it" },
    Task { name: "canary", redis: true, run: Run::Program("chaos", &["canary"]), about: "measure how soon a canary that fails is found out, and what it costs" },
    Task { name: "reload", redis: true, run: Run::Program("chaos", &["reload"]), about: "replace a plugin again and again under load, with bad builds in between" },
    Task { name: "load", redis: true, run: Run::Program("load", &[]), about: "measure the pipeline beside raw Redis, as a release build; --dev: as it is" },
    Task { name: "instructions", redis: false, run: Run::Program("instructions", &[]), about: "count the instructions of each step and compare them with the baseline; --save replaces it" },
    Task { name: "retail", redis: false, run: Run::Tool("retail"), about: "make events from order lines in the shape of the UCI \"Online Retail\" data: JSON Lines on stdout" },
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let options: Vec<String> = args.collect();
    if is_help(&name) || name == "help" {
        println!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        let what = if name.is_empty() { "no task is named".to_owned() } else { format!("there is no task \"{name}\"") };
        eprintln!("error: {what}\n\n{}", help());
        return ExitCode::from(2);
    };
    let ended = if options.iter().any(|option| is_help(option)) { help_of(task) } else { run(task, options) };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_help(option: &str) -> bool {
    ["-h", "--help"].contains(&option)
}

fn help() -> String {
    let rows: Vec<String> = TASKS.iter().map(|task| format!("  {:<13} {}", task.name, task.about)).collect();
    format!(
        "Usage: cargo xtask TASK [OPTIONS]; `cargo xtask TASK --help` lists the options of most\n\n{}",
        rows.join("\n")
    )
}

/// Says what a task does and which options it takes. Nothing is built for it: a program that is there lists its own.
fn help_of(task: &Task) -> anyhow::Result<u8> {
    println!("cargo xtask {}: {}\n", task.name, task.about);
    let (program, first): (&str, &[&str]) = match &task.run {
        Run::Nothing => {
            println!("It takes no options.");
            return Ok(0);
        }
        Run::Tests => {
            println!(
                "Usage: cargo xtask test [WORD]... [OPTION]...\n\nThe options are those of every Rust test binary, such as \
                 --list, --exact, --skip WORD, --nocapture and --test-threads N."
            );
            return Ok(0);
        }
        Run::Host(first) => ("tidemill", std::slice::from_ref(first)),
        Run::Program(program, first) => (program, first),
        Run::Tool(program) => (program, &[]),
    };
    // Whichever there is.
    let profiles = [Profile::Dev, Profile::Release];
    let Some(profile) = profiles.into_iter().find(|profile| cargo::path(*profile, program).is_file()) else {
        println!("Its options are listed here once it is built: cargo build --workspace --bin {program}");
        return Ok(0);
    };
    cargo::code(cargo::built(profile, program, first).arg("--help"))
}

fn run(task: &Task, mut options: Vec<String>) -> anyhow::Result<u8> {
    if matches!(task.run, Run::Nothing) && !options.is_empty() {
        bail!("`cargo xtask {}` takes no options", task.name);
    }
    let server = if task.redis { Some(redis::find_or_install()?) } else { None };
    // Only the load harness publishes figures.
    let release = task.name == "load" && !take(&mut options, "--dev");
    let profile = if release { Profile::Release } else { Profile::Dev };
    match task.run {
        Run::Tool(program) => cargo::build(profile, &[program])?,
        Run::Program(program, _) => guests(profile, &["tidemill", program])?,
        _ => guests(profile, &["tidemill"])?,
    }
    let mut command = match task.run {
        Run::Nothing => return Ok(0),
        Run::Tests => cargo::cargo(&["test", "--workspace", "--no-fail-fast", "--"]),
        Run::Host(first) => cargo::built(profile, "tidemill", &[first]),
        Run::Program(program, first) => cargo::built(profile, program, first),
        Run::Tool(program) => {
            let mut tool = cargo::built(profile, program, &[]);
            tool.current_dir(std::env::current_dir()?);
            tool
        }
    };
    command.args(&options).envs(server.map(|path| ("TIDEMILL_REDIS_SERVER", path)));
    match task.run {
        Run::Tests if !options.is_empty() => matched::run(&mut command, &options),
        _ => cargo::code(&mut command),
    }
}

/// Whether this flag is among the options; takes it out.
fn take(options: &mut Vec<String>, flag: &str) -> bool {
    let before = options.len();
    options.retain(|option| option != flag);
    options.len() < before
}

/// Builds these programs, the host among them, then lets the host build every guest into `plugins/dist`.
fn guests(profile: Profile, programs: &[&str]) -> anyhow::Result<()> {
    cargo::build(profile, programs)?;
    let mut guests = cargo::built(profile, "tidemill", &["plugin", "build", "plugins"]);
    // Progress; what a task has to say comes after it, on stdout alone.
    cargo::passes(guests.stdout(std::io::stderr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No program lies where this one looks for them: in the folder beside that of its tests.
    #[test]
    fn help_needs_nothing_that_is_built() {
        for task in TASKS {
            assert_eq!(help_of(&task).unwrap(), 0, "{}", task.name);
        }
        assert!(!cargo::path(Profile::Dev, "tidemill").exists(), "help has built the host");
    }
}
