//! `tidemill plugin build|pause|resume|reload|rollback`. Build: Rust crates in, components out. It adds the WebAssembly target where it is missing and
//! encodes the component itself; no other tool is needed.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode, Stdio};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{Globals, Refused, pause, reload};

const TARGET: &str = "wasm32-unknown-unknown";

#[derive(clap::Subcommand)]
pub enum Command {
    /// Build the Rust plugins of a folder (a crate or a workspace) to components.
    Build {
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where NAME.wasm goes; default: the folder `dist` in it.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Let no host fetch anything for a handler until it is resumed. What is in hand is finished.
    Pause(pause::Args),
    /// Let a paused handler go on.
    Resume(pause::Args),
    /// Let the running host take the plugin in the handler's file, also one that was refused or rolled back.
    Reload(reload::Args),
    /// Let the running host go back to the version that served before.
    Rollback(reload::Args),
}

pub fn plugin(command: Command, globals: &Globals) -> anyhow::Result<ExitCode> {
    match command {
        Command::Build { folder, out } => build_all(&folder, out, globals),
        Command::Pause(args) => pause::set(&args, true, globals),
        Command::Resume(args) => pause::set(&args, false, globals),
        Command::Reload(args) => reload::plugin(&args, "reload", globals),
        Command::Rollback(args) => reload::plugin(&args, "rollback", globals),
    }
}

fn build_all(folder: &Path, out: Option<PathBuf>, globals: &Globals) -> anyhow::Result<ExitCode> {
    let out = out.unwrap_or_else(|| folder.join("dist"));
    let built = build(folder, &out)?;
    for (path, bytes) in &built {
        if globals.json {
            println!("{}", json!({ "component": path, "bytes": bytes }));
        } else {
            println!("{} ({bytes} bytes)", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds every `cdylib` of the crate or workspace in `folder` and writes `out/NAME.wasm` for each.
pub fn build(folder: &Path, out: &Path) -> anyhow::Result<Vec<(PathBuf, usize)>> {
    if !folder.join("Cargo.toml").is_file() {
        return Err(Refused(format!("{} holds no Cargo.toml", folder.display())).into());
    }
    add_target()?;
    let output = Process::new("cargo")
        .current_dir(folder)
        .args(["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo\n  hint: install Rust from https://rustup.rs")?;
    if !output.status.success() {
        bail!("cargo build failed in {}", folder.display());
    }
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let modules: Vec<(String, PathBuf)> = output.stdout.split(|byte| *byte == b'\n').filter_map(module).collect();
    modules.iter().map(|(name, module)| encode(name, module, out)).collect()
}

/// The name and file of a plugin, from a line of cargo's messages.
fn module(line: &[u8]) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_slice(line).ok()?;
    let is_plugin = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "cdylib");
    let files = message["filenames"].as_array()?;
    let module = files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm"))?;
    // Cargo writes a library's name with underscores; handlers and files are named like the package.
    is_plugin.then(|| (message["target"]["name"].as_str().unwrap_or_default().replace('_', "-"), PathBuf::from(module)))
}

fn encode(name: &str, module: &Path, out: &Path) -> anyhow::Result<(PathBuf, usize)> {
    let core = std::fs::read(module).with_context(|| format!("reading {}", module.display()))?;
    let mut encoder = wit_component::ComponentEncoder::default().validate(true);
    encoder = encoder.module(&core).with_context(|| format!("{name} is not built for a world of wit/"))?;
    let component = encoder.encode().with_context(|| format!("encoding {name} as a component"))?;
    let path = out.join(format!("{name}.wasm"));
    // Beside it and renamed: a host that watches the file never reads half of it.
    let beside = out.join(format!(".{name}.wasm.new"));
    std::fs::write(&beside, &component)
        .and_then(|()| std::fs::rename(&beside, &path))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok((path, component.len()))
}

/// Adds the WebAssembly target to the toolchain, if it is not there.
fn add_target() -> anyhow::Result<()> {
    let folder = Process::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("running rustc")?;
    let folder = String::from_utf8_lossy(&folder.stdout).trim().to_owned();
    if Path::new(&folder).read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(());
    }
    eprintln!("adding the target {TARGET} with rustup");
    let added = Process::new("rustup").args(["target", "add", TARGET]).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "this Rust toolchain cannot build for {TARGET}\n  hint: `rustup target add {TARGET}`, or install the target with the \
             package manager that the toolchain came from"
        ),
    }
}
