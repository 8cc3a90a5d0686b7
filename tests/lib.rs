//! What the tests share: redis-servers of their own, a network that fails on request, and worlds: a host with the hostile
//! guest on a backend.

pub mod proxy;
pub mod server;
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

/// The host's binary: beside the test's own.
pub fn tidemill() -> std::process::Command {
    let test = std::env::current_exe().expect("a running test has a file");
    let binary = test.ancestors().nth(2).expect("target/debug").join("tidemill");
    assert!(binary.is_file(), "{} is not built: run `cargo xtask guests`", binary.display());
    std::process::Command::new(binary)
}
