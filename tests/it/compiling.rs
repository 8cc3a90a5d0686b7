//! Compiling is a stranger's work too: in a child process, within bounds, and what is kept of it is bounded.

use std::path::{Path, PathBuf};

use tidemill_config::read;
use tidemill_runtime::build;
use tidemill_testkit::world;

/// Loads this plugin with these keys of `[plugins]`, and with a cache of its own.
fn load(plugin: &Path, cache: &Path, keys: &str) -> Result<(), String> {
    let text = world::config("sqlite::memory:", plugin, "x", "", &format!("[plugins]\n{keys}"));
    let cache = ("TIDEMILL__HOST__CACHE".to_owned(), cache.display().to_string());
    let config = read::parse(&text, "compiling.toml".as_ref(), tidemill_testkit::root(), &[cache]).unwrap();
    let checked = build::check(&config).map_err(|error| error.to_string())?;
    build::plugins(&config, &checked).map(drop).map_err(|error| error.to_string())
}

/// A component that looks like a plugin and holds this module.
fn around(folder: &Path, module: &str) -> PathBuf {
    let text = format!(
        r#"(component (core module $m {module}) (core instance (instantiate $m))
           (instance $i) (export "tidemill:plugin/handler@0.1.1" (instance $i)))"#
    );
    let path = folder.join("plugin.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path
}

fn bomb(folder: &Path) -> PathBuf {
    let path = folder.join("plugin.wasm");
    std::fs::write(&path, tidemill_testkit::hostile_guests::guests::compile_bomb()).unwrap();
    path
}

/// Reaches `COMPILE_MEMORY`, `COMPILE_CPU`, `COMPILE_WALL` and `COMPONENT_BYTES`.
#[test]
fn a_compile_bomb_is_stopped_at_each_of_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = bomb(folder.path());
    for (keys, said) in [
        ("compile_memory = \"400MiB\"", "compiling it needs more than 400.0 MiB of memory\n  hint: "),
        ("compile_cpu = \"1s\"", "compiling it takes more than 1s of processor time\n  hint: "),
        ("compile_wall = \"300ms\"", "compiling it took longer than 300ms\n  hint: "),
        ("component_bytes_max = \"1KiB\"", "plugin.wasm is larger than 1024 bytes\n  hint: "),
    ] {
        let refused = load(&plugin, folder.path(), keys).unwrap_err();
        assert!(refused.contains(said), "wanted {said}\n found {refused}");
    }
}

#[test]
fn what_the_compiler_refuses_is_said_in_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = around(folder.path(), "(func (result i32) i64.const 1)");
    let refused = load(&plugin, folder.path(), "").unwrap_err();
    assert!(refused.contains("is not a WebAssembly component") && refused.contains("type mismatch"), "{refused}");
}

#[test]
fn a_component_that_asks_for_what_is_not_offered_is_never_compiled() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("plugin.wasm");
    // Invalid inside: that shows only when it is compiled.
    let text = r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)) (core module (func (result i32) i64.const 1))
        (instance $i) (export "tidemill:plugin/handler@0.1.1" (instance $i)))"#;
    std::fs::write(&plugin, wat::parse_str(text).unwrap()).unwrap();
    let refused = load(&plugin, folder.path(), "").unwrap_err();
    assert!(refused.contains("it imports \"wasi:sockets/tcp@0.2.0\", which this host does not offer"), "{refused}");
}

fn kept(cache: &Path) -> Vec<(std::ffi::OsString, u64, std::time::SystemTime)> {
    let entries = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap());
    let codes = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "cwasm"));
    codes
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            (entry.file_name(), metadata.len(), metadata.modified().unwrap())
        })
        .collect()
}

#[test]
fn compiled_code_is_kept_within_cache_bytes_max_and_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = tidemill_testkit::guest("mischief");
    load(&plugin, folder.path(), "cache_bytes_max = \"1KiB\"").unwrap();
    assert_eq!(kept(folder.path()).len(), 0, "too large to be kept");
    load(&plugin, folder.path(), "").unwrap();
    let first = kept(folder.path());
    assert_eq!(first.len(), 1);
    load(&plugin, folder.path(), "").unwrap();
    let again = kept(folder.path());
    assert_eq!((again.len(), &again[0].0, again[0].1), (1, &first[0].0, first[0].1));
    assert!(again[0].2 > first[0].2, "used, not written anew: its time moves on");
}

#[test]
fn code_in_the_cache_that_was_changed_is_compiled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = tidemill_testkit::guest("mischief");
    load(&plugin, folder.path(), "").unwrap();
    let path = folder.path().join(&kept(folder.path())[0].0);
    let good = std::fs::read(&path).unwrap();
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    load(&plugin, folder.path(), "").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), good);
}
