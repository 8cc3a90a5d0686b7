//! From a component to a `Plugin`: what does it ask for, is that granted, does it export the world?

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::Linker;

use super::abi::latest::HandlerPluginPre;
use super::child::Failure;
use super::compile::Compiler;
use super::inspect::{self, LATEST};
use super::invoke::Live;
use super::{Engine, Error, hex};
use crate::capability::context::{Context, Terms};

/// A compiled plugin with its grants: ready to make instances of. Immutable, and cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub handler: Arc<str>,
    /// The first 12 hex digits of the component's SHA-256: what the records of attempts show.
    pub digest: Arc<str>,
    /// The interfaces it imports; `config check --json` shows them.
    pub asks: Vec<String>,
    pub(super) pre: HandlerPluginPre<Context>,
    pub(super) terms: Arc<Terms>,
}

impl Plugin {
    /// Whether it reads or writes state.
    pub fn has_state(&self) -> bool {
        self.asks.iter().any(|import| import.starts_with("tidemill:plugin/state"))
    }

    pub fn load(
        engine: &Engine,
        compiler: &Compiler,
        path: &Path,
        bytes_max: u64,
        terms: Arc<Terms>,
    ) -> Result<Self, Error> {
        let wasm = read(path, bytes_max, &terms.handler)?;
        Self::from_bytes(engine, compiler, path, &wasm, terms)
    }

    /// As `load`, for a component that is in memory; `path` is for words only.
    pub fn from_bytes(
        engine: &Engine,
        compiler: &Compiler,
        path: &Path,
        wasm: &[u8],
        terms: Arc<Terms>,
    ) -> Result<Self, Error> {
        let handler = terms.handler.to_string();
        let not_a_component = |what| Error::NotAComponent { handler: handler.clone(), path: path.to_owned(), what };
        let found = inspect::inspect(wasm).map_err(not_a_component)?;
        found.check_world(&handler)?;
        found.check_granted(&terms)?;
        let component = compiler.component(engine, wasm).map_err(|failure| match failure {
            Failure::Invalid(what) => not_a_component(what),
            Failure::Stopped { what, hint } => Error::Compile { handler: handler.clone(), what, hint },
        })?;
        let mut linker = Linker::new(engine.wasmtime());
        link(&found.imports, &mut linker)?;
        let wrong_world = |error: wasmtime::Error| Error::WrongWorld {
            handler: handler.clone(),
            what: format!("it does not fit the world handler-plugin: {error:#}"),
            hint: format!("build it from wit/{LATEST} as it is"),
        };
        let pre = linker.instantiate_pre(&component).and_then(HandlerPluginPre::new).map_err(wrong_world)?;
        let digest = hex(&Sha256::digest(wasm))[..12].into();
        let plugin = Self { handler: terms.handler.clone(), digest, asks: found.imports, pre, terms };
        // Once here, so that a component that cannot even start is refused and not found out by events.
        Live::new(&Arc::new(plugin.clone())).map_err(|error| Error::WrongWorld {
            handler,
            what: format!("no instance of it can be made: {error:#}"),
            hint: "its start must neither trap nor ask for more memory than limits.memory".to_owned(),
        })?;
        Ok(plugin)
    }
}

/// The component's bytes, no more than this many.
pub fn read(path: &Path, bytes_max: u64, handler: &str) -> Result<Vec<u8>, Error> {
    let unreadable = |cause| Error::Unreadable { handler: handler.to_owned(), path: path.to_owned(), cause };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut wasm = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut wasm).map_err(unreadable)?;
    if wasm.len() as u64 > bytes_max {
        return Err(Error::Compile {
            handler: handler.to_owned(),
            what: format!("{} is larger than {} bytes", path.display(), bytes_max),
            hint: "make it smaller, or allow more: component_bytes_max under [plugins]".to_owned(),
        });
    }
    Ok(wasm)
}

/// Links the rows that the component imports, and no others. That they may be had is checked before.
fn link(imports: &[String], linker: &mut Linker<Context>) -> Result<(), Error> {
    for import in imports {
        let Some(row) = inspect::capability(import) else { continue };
        (row.link)(linker).map_err(|error| Error::Engine(format!("linking {import}: {error:#}")))?;
    }
    Ok(())
}
