//! The stack of a Rust plugin: the linker's flag for it, added to what the author has set and never in its place.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// Small, because a fresh instance may serve a single event; and enough for the 128 levels that serde_json follows into
/// a document before it refuses. The linker puts the stack below everything else: one that overflows leaves the memory
/// and traps, it overwrites nothing.
const STACK_KIB: u32 = 128;

const FLAG: &str = "-zstack-size=";

/// Cargo's sources of flags, of which it takes the first that is set, and what parts the flags in each.
const FLAG_PLACES: [(&str, &str); 3] =
    [("CARGO_ENCODED_RUSTFLAGS", "\u{1f}"), ("RUSTFLAGS", " "), ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", " ")];

/// Cargo with a stack for the plugins: as asked for, else as the author has set it, else `STACK_KIB`.
pub(super) fn cargo(folder: &Path, stack_kib: Option<u32>) -> Command {
    let mut cargo = Command::new("cargo");
    let set = FLAG_PLACES.iter().find_map(|(name, part)| Some((*name, *part, std::env::var_os(name)?)));
    let (name, part, flags) = set.unwrap_or((FLAG_PLACES[2].0, FLAG_PLACES[2].1, OsString::new()));
    // Cargo reads its configuration only where no variable of more weight is set.
    let own = flags.to_string_lossy().contains(FLAG) || name == FLAG_PLACES[2].0 && in_config(folder);
    if let Some(kib) = stack_kib.or((!own).then_some(STACK_KIB)) {
        cargo.env(name, with_stack(flags, part, kib));
    }
    cargo
}

/// The last flag of its kind is the one that the linker obeys.
fn with_stack(mut flags: OsString, part: &str, kib: u32) -> OsString {
    if !flags.is_empty() {
        flags.push(part);
    }
    flags.push(format!("-Clink-arg={FLAG}{}", u64::from(kib) * 1024));
    flags
}

/// Whether a `.cargo/config.toml` that cargo reads for this folder sets a stack.
fn in_config(folder: &Path) -> bool {
    let Ok(folder) = std::path::absolute(folder) else { return false };
    folder.ancestors().any(|folder| {
        let text = std::fs::read_to_string(folder.join(".cargo/config.toml"));
        text.is_ok_and(|text| text.contains(FLAG))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_and_not_replaced() {
        assert_eq!(with_stack(OsString::new(), " ", 64), "-Clink-arg=-zstack-size=65536");
        assert_eq!(with_stack("--cfg x".into(), " ", 64), "--cfg x -Clink-arg=-zstack-size=65536");
        assert_eq!(with_stack("--cfg\u{1f}x".into(), "\u{1f}", 64), "--cfg\u{1f}x\u{1f}-Clink-arg=-zstack-size=65536");
    }

    #[test]
    fn the_authors_own_stack_is_left_alone() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
        assert!(in_config(&repository), "plugins/.cargo/config.toml sets one");
        assert!(!in_config(&std::env::temp_dir()), "none is set there");
    }
}
