//! What the integration tests, the chaos runs and the benches share: redis-servers of their own and clocks that are moved; worlds: a host with the hostile
//! guest on a backend, and two versions of a plugin beside each other; ledgers: hosts as processes, to be killed, and the checker that judges what they leave behind.
//! What only one of them uses lies with it.

pub mod amplification;
pub mod beside;
mod chance;
pub mod checker;
pub mod clock;
pub mod fuzz;
pub mod hostile_guests;
pub mod ledger;
pub mod reload;
pub mod server;
pub mod service;
pub mod soak;
pub mod world;

use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/testkit lies in the workspace").to_owned()
}

/// A compiled guest. They are built by `cargo xtask guests`.
pub fn guest(name: &str) -> PathBuf {
    let path = root().join("plugins/dist").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is not built: run `cargo xtask guests`", path.display());
    path
}

/// The guest `editions` in another version: a component of its own, with bytes of its own. The file goes with the answer.
pub fn edition(name: &str) -> tempfile::TempPath {
    let (before, after) = (*b"edition:same", format!("edition:{name}"));
    let mut bytes = std::fs::read(guest("editions")).expect("a component");
    let at = bytes.windows(before.len()).position(|window| window == before).expect("the dedup_key in its bytes");
    bytes[at..at + before.len()].copy_from_slice(after.as_bytes());
    let mut file = tempfile::Builder::new().suffix(".wasm").tempfile().expect("a file");
    std::io::Write::write_all(&mut file, &bytes).expect("written");
    file.into_temp_path()
}

/// The host's binary: cargo puts it above the tests, and beside the other programs.
pub fn tidemill() -> std::process::Command {
    let own = std::env::current_exe().expect("a running program has a file");
    let binary = own.ancestors().skip(1).take(2).map(|folder| folder.join("tidemill")).find(|file| file.is_file());
    let binary =
        binary.unwrap_or_else(|| panic!("tidemill is not built beside {}: run `cargo xtask guests`", own.display()));
    std::process::Command::new(binary)
}
