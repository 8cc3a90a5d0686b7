//! Compiling components: from the cache, else in a child process, one at a time.
//!
//! The compiler never runs in the host's own process, and what it makes is taken from nowhere but the child's pipe and
//! our own cache.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::cache::Cache;
use super::compile_child;
use super::compile_child::Failure;
use crate::engine::Engine;
use tidemill_config as config;
use tidemill_core::units::hex;

/// A second core stays with the events, however many plugins are to be loaded.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub struct Compiler {
    cache: Cache,
    settings: config::PluginsConfig,
}

impl Compiler {
    pub fn new(cache: &Path, settings: &config::PluginsConfig) -> Self {
        Self { cache: Cache::open(cache, settings.cache_bytes_max.as_u64()), settings: settings.clone() }
    }

    /// `$XDG_CACHE_HOME/tidemill`, else `~/.cache/tidemill`, else below the system's folder for temporary files.
    pub fn default_folder() -> PathBuf {
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        base.unwrap_or_else(std::env::temp_dir).join("tidemill")
    }

    /// One that compiles each time, and keeps nothing.
    pub fn without_cache(settings: &config::PluginsConfig) -> Self {
        Self { cache: Cache::none(), settings: settings.clone() }
    }

    /// Compiles, or takes the code from the cache.
    pub fn component(&self, engine: &Engine, wasm: &[u8]) -> Result<Component, Failure> {
        let name = name(engine, wasm);
        if let Some(component) = self.cached(engine, &name) {
            return Ok(component);
        }
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread or host may have compiled it meanwhile.
        if let Some(component) = self.cached(engine, &name) {
            return Ok(component);
        }
        let code = compile_child::compile(wasm, &self.settings)?;
        let component = load(engine, &code).map_err(|error| Failure::Stopped {
            what: format!("its compiled code cannot be loaded: {error:#}"),
            hint: "is the program `tidemill` beside this one of the same build?".to_owned(),
        })?;
        self.cache.put(&name, &code);
        Ok(component)
    }

    fn cached(&self, engine: &Engine, name: &str) -> Option<Component> {
        self.cache.get(name).and_then(|code| load(engine, &code).ok())
    }
}

fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` runs what it is given. These bytes come from a compiler that this process has started, over
    // its pipe, or they came so earlier: then they bear a MAC under a key that only this user can read, and their name
    // holds the hash of the component and of the engine's settings.
    #[expect(unsafe_code, reason = "loading our own compiled code, see the module's text")]
    unsafe {
        Component::deserialize(engine.wasmtime(), code)
    }
}

/// The name of the code: the hash of all that it depends on.
fn name(engine: &Engine, wasm: &[u8]) -> String {
    use std::hash::{Hash, Hasher};
    // Not against attackers, who do not choose the settings. Another Rust may hash otherwise, and recompile.
    let mut settings = std::hash::DefaultHasher::new();
    engine.wasmtime().precompile_compatibility_hash().hash(&mut settings);
    let mut digest = Sha256::new();
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(settings.finish().to_le_bytes());
    digest.update(wasm);
    hex(&digest.finalize())
}
