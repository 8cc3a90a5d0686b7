//! Cargo, and the programs of this workspace that it builds.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, bail};

/// Cargo sets these for a program that it runs. Handed down to another cargo they look like a changed environment to the
/// build scripts that watch them, and what those build is built again, here and at the next plain `cargo build`.
const OF_THE_RUN: [&str; 6] =
    ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];

/// The folder of the workspace. Cargo tells where it is now: it may have been moved since this program was built, or
/// share its target folder with another one.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).parent().unwrap_or(Path::new(".")).to_owned()
}

/// A program in the workspace's folder, in the environment of the person that called `cargo xtask`.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OF_THE_RUN.iter().any(|start| name.starts_with(start))) {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
}

/// The cargo that runs this program.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args);
    cargo
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// A program of the workspace, as cargo has built it; or will.
pub(crate) fn built(profile: Profile, program: &str, args: &[&str]) -> Command {
    let mut built = command(path(profile, program));
    built.args(args);
    built
}

/// Cargo has put this program where it puts the others, whoever has told it to: a variable, or a `.cargo/config.toml`.
pub(crate) fn path(profile: Profile, program: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let target = own.ancestors().nth(2).map_or_else(|| root().join("target"), Path::to_owned);
    target.join(profile.folder()).join(program).with_extension(std::env::consts::EXE_EXTENSION)
}

/// Builds these programs.
pub(crate) fn build(profile: Profile, programs: &[&str]) -> anyhow::Result<()> {
    // What needs the host needs all that takes long.
    if programs.contains(&"tidemill") && !path(profile, "tidemill").is_file() {
        eprintln!("{}", estimate(profile));
    }
    // What is selected decides the features of what is shared (docs/decisions/0025): so the host always is.
    let mut build = cargo(&["build", "--package", "tidemill"]);
    for program in programs {
        build.args(["--package", package_of(program), "--bin", program]);
    }
    if profile == Profile::Release {
        build.arg("--release");
    }
    passes(&mut build)
}

fn package_of(program: &str) -> &'static str {
    match program {
        "tidemill" => "tidemill",
        "load" | "instructions" => "tidemill-benches",
        "retail" => "tidemill-oracle",
        _ => "tidemill-chaos",
    }
}

/// What a first build takes (docs/decisions/0025): processor minutes on a quick machine, and two and a half times that on a slow one.
fn estimate(profile: Profile) -> String {
    let (crates, core_minutes) = match profile {
        Profile::Dev => (300, 12),
        Profile::Release => (300, 22),
    };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    // More than about eight cores wait for the longest chain of crates.
    let minutes = (core_minutes as f64 / cores.min(8) as f64).ceil();
    format!(
        "The first build compiles about {crates} crates, wasmtime among them: {minutes} to {} min on {cores} cores. Later \
         builds take seconds.",
        2.5 * minutes
    )
}

/// Runs a command, and answers the code that it ended with.
pub(crate) fn code(command: &mut Command) -> anyhow::Result<u8> {
    let program = command.get_program().to_string_lossy().into_owned();
    code_of(&program, command.status().with_context(|| format!("running {program}"))?)
}

/// # Errors
/// A signal has ended it: then there is no code.
pub(crate) fn code_of(program: &str, status: ExitStatus) -> anyhow::Result<u8> {
    status.code().and_then(|code| u8::try_from(code).ok()).with_context(|| format!("{program} ended with {status}"))
}

/// Runs a command that is expected to end well.
pub(crate) fn passes(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("running {program}"))?;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn the_code_of_a_program_is_passed_on() {
        for wanted in [0, 2, 101] {
            assert_eq!(code(Command::new("sh").args(["-c", &format!("exit {wanted}")])).unwrap(), wanted);
        }
        let error = code(Command::new("sh").args(["-c", "kill -9 $$"])).unwrap_err();
        assert!(error.to_string().starts_with("sh ended with signal: 9"), "{error}");
    }
}
