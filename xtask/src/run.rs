//! Running other programs: cargo and the host that it has built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// The cargo that runs us, in the workspace's folder.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// The host, as `guests` left it.
pub fn tidemill() -> Command {
    built("debug", "tidemill")
}

/// A program of the workspace that cargo has built; `profile` is the name of its folder.
pub fn built(profile: &str, program: &str) -> Command {
    let mut command = Command::new(target().join(profile).join(program));
    command.current_dir(root());
    command
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds the host, then lets it build every guest into `plugins/dist`.
///
/// The whole workspace is built and not the host alone: which packages are built together decides the features of what
/// they share, and so whether wasmtime is built once or twice.
pub fn guests() -> anyhow::Result<()> {
    passes(&mut cargo(&["build", "--workspace", "--all-targets"]))?;
    plugins("debug")
}

/// Lets the host of this profile build every guest.
pub fn plugins(profile: &str) -> anyhow::Result<()> {
    // Progress; what a command has to say comes after it, on stdout alone.
    passes(built(profile, "tidemill").args(["plugin", "build", "plugins"]).stdout(std::io::stderr()))
}

/// Runs a command that is expected to end well.
pub fn passes(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("running {program}"))?;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok(())
}
