//! `tidemill plugin ...`. Build: Rust crates in, components out. It adds the WebAssembly target where it is missing and
//! encodes the component itself; no other tool is needed.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode, Stdio};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::out;
use super::out::{errln, outln};
use super::{Globals, UsageError, component, pause, reload, shadow, stack};
use tidemill_sandbox::component::manifest::Manifest;

const TARGET: &str = "wasm32-unknown-unknown";

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Build the Rust plugins of a folder (a crate or a workspace) to components.
    Build {
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where NAME.wasm goes; default: the folder `dist` in it.
        #[arg(long)]
        out: Option<PathBuf>,
        /// The stack of the plugins, in KiB; default: what `.cargo/config.toml` says, else 128.
        #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u32).range(16..=1 << 16))]
        stack: Option<u32>,
    },
    /// Show each handler's plugin: whose it is, and what it asks for and is granted.
    Ls,
    /// Inspect a component, compile it, and report whether a host would accept it.
    Check { file: PathBuf },
    /// Write a manifest into a component, in place of any that it has.
    Stamp {
        component: PathBuf,
        /// The manifest, in TOML.
        #[arg(long)]
        manifest: PathBuf,
        /// Where the stamped component goes; default: over the one that it was.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Pause consumption for a handler on all hosts. In-flight deliveries are finished.
    Pause(pause::Args),
    /// Resume a paused handler, or one whose group was lost.
    Resume(pause::ResumeArgs),
    /// Run the last events on another version of a plugin, beside the configured one, and show what would be different.
    /// Nothing is settled.
    Shadow(shadow::Args),
    /// Reload the plugin from the handler's file on the running host, also one that was refused or rolled back.
    Reload(reload::Args),
    /// Return the running host to the version that served before.
    Rollback(reload::Args),
}

pub(super) fn plugin(command: Command, globals: &Globals) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls => component::ls(globals),
        Command::Check { file } => component::check(&file, globals),
        Command::Stamp { component, manifest, out } => component::stamp(&component, &manifest, out),
        Command::Build { folder, out, stack } => build_all(&folder, out, stack, globals),
        Command::Pause(args) => pause::pause(&args, globals),
        Command::Resume(args) => pause::resume(&args, globals),
        Command::Shadow(args) => shadow::shadow(&args, globals),
        Command::Reload(args) => reload::plugin(&args, "reload", globals),
        Command::Rollback(args) => reload::plugin(&args, "rollback", globals),
    }
}

fn build_all(folder: &Path, out: Option<PathBuf>, stack: Option<u32>, globals: &Globals) -> anyhow::Result<ExitCode> {
    let out = out.unwrap_or_else(|| folder.join("dist"));
    let built = build(folder, &out, stack)?;
    for (path, bytes) in &built {
        if globals.json {
            out::json(&json!({ "component": path, "bytes": bytes }));
        } else {
            outln!("{} ({bytes} bytes)", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds every `cdylib` of the crate or workspace in `folder` and writes `out/NAME.wasm` for each.
pub(super) fn build(folder: &Path, out: &Path, stack: Option<u32>) -> anyhow::Result<Vec<(PathBuf, usize)>> {
    if !folder.join("Cargo.toml").is_file() {
        return Err(UsageError(format!("{} holds no Cargo.toml", folder.display())).into());
    }
    add_target()?;
    let output = stack::cargo(folder, stack)
        .current_dir(folder)
        .args(["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo\n  hint: install Rust from https://rustup.rs")?;
    if !output.status.success() {
        bail!("cargo build failed in {}", folder.display());
    }
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let messages: Vec<Value> =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let sdk = messages.iter().find(|message| message["target"]["name"] == "tidemill_sdk").map(version);
    let packages = packages(folder)?;
    let modules = messages.iter().filter_map(|message| module(message, &packages));
    modules.map(|module| encode(&module?, sdk.as_deref(), out)).collect()
}

/// A plugin that cargo has built, and what its `Cargo.toml` says of it.
struct Module {
    name: String,
    file: PathBuf,
    manifest: Manifest,
}

/// What `Cargo.toml` says, for each package of the crate or workspace.
fn packages(folder: &Path) -> anyhow::Result<Vec<Value>> {
    let output = Process::new("cargo")
        .current_dir(folder)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo metadata")?;
    let mut metadata: Value = serde_json::from_slice(&output.stdout).context("reading what cargo metadata says")?;
    match metadata["packages"].take() {
        Value::Array(packages) => Ok(packages),
        _ => bail!("cargo metadata names no packages in {}", folder.display()),
    }
}

/// The plugin that a message of cargo's is about, if it is about one.
fn module(message: &Value, packages: &[Value]) -> Option<anyhow::Result<Module>> {
    let is_plugin = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "cdylib");
    let files = message["filenames"].as_array()?;
    let file = PathBuf::from(files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm"))?);
    // Cargo writes a library's name with underscores; handlers and files are named like the package.
    let name = message["target"]["name"].as_str().unwrap_or_default().replace('_', "-");
    let package = packages.iter().find(|package| package["manifest_path"] == message["manifest_path"]);
    let package = package.unwrap_or(&Value::Null);
    let mut manifest = json!({ "name": name, "version": package["version"].as_str().unwrap_or_default() });
    for (key, value) in package["metadata"]["tidemill"].as_object().into_iter().flatten() {
        manifest[key] = value.clone();
    }
    let manifest = component::strict(manifest)
        .map_err(|what| UsageError(format!("[package.metadata.tidemill] of {name}: {what}")).into());
    is_plugin.then(|| manifest.map(|manifest| Module { name, file, manifest }))
}

/// `path+file:///sdk#tidemill-sdk@0.1.0` -> `rust 0.1.0`
fn version(message: &Value) -> String {
    let id = message["package_id"].as_str().unwrap_or_default();
    format!("rust {}", id.rsplit(['#', '@']).next().unwrap_or_default())
}

fn encode(module: &Module, sdk: Option<&str>, out: &Path) -> anyhow::Result<(PathBuf, usize)> {
    let name = &module.name;
    let core = std::fs::read(&module.file).with_context(|| format!("reading {}", module.file.display()))?;
    let mut encoder = wit_component::ComponentEncoder::default().validate(true);
    encoder = encoder.module(&core).with_context(|| format!("{name} is not built for a world of wit/"))?;
    let encoded = encoder.encode().with_context(|| format!("encoding {name} as a component"))?;
    let sdk = module.manifest.sdk.clone().or(sdk.map(str::to_owned));
    let stamped = component::stamped(&encoded, Manifest { sdk, ..module.manifest.clone() });
    let stamped = stamped.map_err(|what| anyhow::anyhow!("the manifest of {name}: {what}"))?;
    let path = out.join(format!("{name}.wasm"));
    component::replace(&path, &stamped)?;
    Ok((path, stamped.len()))
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
    errln!("adding the target {TARGET} with rustup");
    let added = Process::new("rustup").args(["target", "add", TARGET]).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "this Rust toolchain cannot build for {TARGET}\n  hint: `rustup target add {TARGET}`, or install the target with the \
             package manager that the toolchain came from"
        ),
    }
}
