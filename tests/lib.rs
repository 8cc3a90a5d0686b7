//! What the tests share: redis-servers of their own, a network that fails on request; worlds: a host with the hostile guest
//! on a backend; ledgers: hosts as processes, to be killed, and the checker that judges what they leave behind.

pub mod checker;
pub mod fuzz;
pub mod ledger;
pub mod proxy;
pub mod server;
pub mod soak;
pub mod world;

use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// A compiled guest. They are built by `cargo xtask guests`.
pub fn guest(name: &str) -> PathBuf {
    let path = root().join("plugins/dist").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is not built: run `cargo xtask guests`", path.display());
    path
}

/// A plugin that was compiled with an old version of the interfaces.
pub fn corpus(version: &str, name: &str) -> PathBuf {
    root().join("tests/corpus").join(version).join(format!("{name}.wasm"))
}

/// The host's binary: cargo puts it above the tests, and beside the other programs.
pub fn tidemill() -> std::process::Command {
    let own = std::env::current_exe().expect("a running program has a file");
    let binary = own.ancestors().skip(1).take(2).map(|folder| folder.join("tidemill")).find(|file| file.is_file());
    let binary =
        binary.unwrap_or_else(|| panic!("tidemill is not built beside {}: run `cargo xtask guests`", own.display()));
    std::process::Command::new(binary)
}
