//! `tidemill init [DIR]`: a ready project. What it writes lies in `project/` beside this file; the SDK and the worlds
//! come from their own folders, so that a project needs nothing from elsewhere.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::UsageError;
use super::out::outln;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The folder; made if it is not there.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

/// Where each file goes, and its text.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("README.md", include_str!("project/README.md")),
    (".gitignore", include_str!("project/gitignore")),
    ("tidemill.toml", include_str!("project/tidemill.toml")),
    ("events.jsonl", include_str!("project/events.jsonl")),
    ("schemas/Order.Placed.v1.json", include_str!("project/schemas/Order.Placed.v1.json")),
    ("schemas/Order.Confirmed.v1.json", include_str!("project/schemas/Order.Confirmed.v1.json")),
    ("plugins/Cargo.toml", include_str!("project/plugins/workspace.toml")),
    ("plugins/.cargo/config.toml", include_str!("../../../../../plugins/.cargo/config.toml")),
    ("plugins/order-service/Cargo.toml", include_str!("project/plugins/order-service/package.toml")),
    ("plugins/order-service/src/lib.rs", include_str!("project/plugins/order-service/src/lib.rs")),
    ("plugins/sdk/rust/Cargo.toml", include_str!("../../../../../plugins/sdk/rust/Cargo.toml")),
    ("plugins/sdk/rust/src/lib.rs", include_str!("../../../../../plugins/sdk/rust/src/lib.rs")),
    ("plugins/sdk/rust/src/allocator.rs", include_str!("../../../../../plugins/sdk/rust/src/allocator.rs")),
    ("plugins/sdk/rust/src/config.rs", include_str!("../../../../../plugins/sdk/rust/src/config.rs")),
    ("plugins/sdk/rust/src/emit.rs", include_str!("../../../../../plugins/sdk/rust/src/emit.rs")),
    ("plugins/sdk/rust/src/event.rs", include_str!("../../../../../plugins/sdk/rust/src/event.rs")),
    ("plugins/sdk/rust/src/failure.rs", include_str!("../../../../../plugins/sdk/rust/src/failure.rs")),
    ("plugins/sdk/rust/src/http.rs", include_str!("../../../../../plugins/sdk/rust/src/http.rs")),
    ("plugins/sdk/rust/src/log.rs", include_str!("../../../../../plugins/sdk/rust/src/log.rs")),
    ("plugins/sdk/rust/src/money.rs", include_str!("../../../../../plugins/sdk/rust/src/money.rs")),
    ("plugins/sdk/rust/src/secrets.rs", include_str!("../../../../../plugins/sdk/rust/src/secrets.rs")),
    ("plugins/sdk/rust/src/state.rs", include_str!("../../../../../plugins/sdk/rust/src/state.rs")),
    ("plugins/sdk/rust/src/timer.rs", include_str!("../../../../../plugins/sdk/rust/src/timer.rs")),
    ("wit/0.1.1/handler.wit", include_str!("../../../../../wit/0.1.1/handler.wit")),
];

pub(crate) fn init(args: &Args) -> anyhow::Result<ExitCode> {
    // All or nothing: a project that is half there is of no use.
    let in_the_way: Vec<&str> =
        FILES.iter().map(|(name, _)| *name).filter(|name| args.folder.join(name).exists()).collect();
    if !in_the_way.is_empty() {
        let (folder, names) = (args.folder.display(), in_the_way.join(", "));
        return Err(UsageError(format!(
            "{folder} holds {names} already\n  hint: name an empty folder: tidemill init DIR"
        ))
        .into());
    }
    for (name, text) in FILES {
        write(&args.folder.join(name), text)?;
    }
    outln!("a project in {}:", args.folder.display());
    outln!("");
    outln!("  tidemill plugin build plugins     # builds plugins/dist/order-service.wasm");
    outln!("  tidemill publish events.jsonl     # three orders: two go on the stream, one is refused");
    outln!("  tidemill run --until-idle         # handles the others");
    outln!("  tidemill status");
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
