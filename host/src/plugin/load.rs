//! From a component to a `Plugin`: what does it ask for, is that granted, does it export the world?

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre, Linker};

use super::abi::latest::HandlerPluginIndices;
use super::abi::latest::lifecycle::LifecyclePluginIndices;
use super::compile::{Cache, hex};
use super::invoke::Live;
use super::{Engine, Error, abi};
use crate::capability::CAPABILITIES;
use crate::capability::context::{Context, Terms};

/// The newest version of the worlds, for hints.
const LATEST: &str = abi::VERSIONS[abi::VERSIONS.len() - 1];

/// A compiled plugin with its grants: ready to make instances of. Immutable, and cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub handler: Arc<str>,
    /// The first 12 hex digits of the component's SHA-256: what the records of attempts show.
    pub digest: Arc<str>,
    /// The interfaces it imports; `config check --json` shows them.
    pub asks: Vec<String>,
    pub(super) pre: InstancePre<Context>,
    pub(super) handles: HandlerPluginIndices,
    /// The optional role: asked once for each fresh instance.
    pub(super) lifecycle: Option<LifecyclePluginIndices>,
    pub(super) terms: Arc<Terms>,
}

impl Plugin {
    /// Whether it reads or writes state.
    pub fn has_state(&self) -> bool {
        self.asks.iter().any(|import| import.starts_with("tidemill:plugin/state"))
    }

    pub fn load(engine: &Engine, cache: &Cache, path: &Path, terms: Arc<Terms>) -> Result<Self, Error> {
        let handler = terms.handler.to_string();
        let wasm = std::fs::read(path).map_err(|cause| Error::Unreadable {
            handler: handler.clone(),
            path: path.to_owned(),
            cause,
        })?;
        Self::from_bytes(engine, cache, path, &wasm, terms)
    }

    /// As `load`, for a component that is in memory; `path` is for words only.
    pub fn from_bytes(
        engine: &Engine,
        cache: &Cache,
        path: &Path,
        wasm: &[u8],
        terms: Arc<Terms>,
    ) -> Result<Self, Error> {
        let handler = terms.handler.to_string();
        let not_a_component = |what| Error::NotAComponent { handler: handler.clone(), path: path.to_owned(), what };
        if wasm.starts_with(b"\0asm\x01\0\0\0") {
            return Err(not_a_component(
                "it is a core module\n  hint: encode it as a component (cargo xtask guests does)".to_owned(),
            ));
        }
        let component = cache.component(engine, wasm).map_err(|error| not_a_component(format!("{error:#}")))?;
        check_export(engine, &component, &handler)?;
        let mut linker = Linker::new(engine.wasmtime());
        let asks = link_what_is_granted(engine, &component, &terms, &mut linker)?;
        let wrong_world = |error: wasmtime::Error| Error::WrongWorld {
            handler: handler.clone(),
            what: format!("it does not fit the world handler-plugin: {error:#}"),
            hint: format!("build it from wit/{LATEST} as it is"),
        };
        let pre = linker.instantiate_pre(&component).map_err(wrong_world)?;
        let handles = HandlerPluginIndices::new(&pre).map_err(wrong_world)?;
        let lifecycle = lifecycle(engine, &component, &pre).map_err(wrong_world)?;
        let digest = hex(&Sha256::digest(wasm))[..12].into();
        let plugin = Self { handler: terms.handler.clone(), digest, asks, pre, handles, lifecycle, terms };
        // Once here, so that a component that cannot even start is refused and not found out by events.
        Live::new(&Arc::new(plugin.clone())).map_err(|error| Error::WrongWorld {
            handler,
            what: format!("no instance of it can be made: {error:#}"),
            hint:
                "its start and its lifecycle.init must neither trap nor fail nor ask for more memory than limits.memory"
                    .to_owned(),
        })?;
        Ok(plugin)
    }
}

/// The role `lifecycle`, if the component exports it.
fn lifecycle(
    engine: &Engine,
    component: &Component,
    pre: &InstancePre<Context>,
) -> wasmtime::Result<Option<LifecyclePluginIndices>> {
    let wanted = format!("{}/lifecycle@", abi::PACKAGE);
    let exported = component.component_type().exports(engine.wasmtime()).any(|(name, _)| name.starts_with(&wanted));
    exported.then(|| LifecyclePluginIndices::new(pre)).transpose()
}

/// Links the rows that the component imports, and no others.
fn link_what_is_granted(
    engine: &Engine,
    component: &Component,
    terms: &Terms,
    linker: &mut Linker<Context>,
) -> Result<Vec<String>, Error> {
    let handler = terms.handler.to_string();
    let mut asks = Vec::new();
    for (import, _) in component.component_type().imports(engine.wasmtime()) {
        let (interface, version) = import.split_once('@').unwrap_or((import, ""));
        let Some(row) = CAPABILITIES.iter().find(|row| row.interface == interface) else {
            return Err(Error::WrongWorld {
                handler,
                what: format!("it imports \"{import}\", which this host does not offer"),
                hint: hint_for_import(interface),
            });
        };
        if !abi::VERSIONS.contains(&version) {
            return Err(Error::WrongWorld {
                handler,
                what: format!("it imports \"{import}\"; this host speaks {}", abi::VERSIONS.join(", ")),
                hint: format!("build it with the interfaces of wit/{}", abi::VERSIONS.join(" or wit/")),
            });
        }
        if !(row.granted)(terms) {
            return Err(Error::NotGranted { handler, capability: row.name, example: row.example });
        }
        (row.link)(linker).map_err(|error| Error::Engine(format!("linking {import}: {error:#}")))?;
        asks.push(import.to_owned());
    }
    Ok(asks)
}

fn hint_for_import(interface: &str) -> String {
    if interface.starts_with("wasi:") {
        return "build it without WASI: wasm32-unknown-unknown for Rust, the stub options of other tools (docs/guides/languages.md)"
            .to_owned();
    }
    let offered: Vec<&str> = CAPABILITIES.iter().map(|row| row.interface).collect();
    format!("the host offers {}", offered.join(", "))
}

/// Says what is wrong in the words of the worlds, before wasmtime says it in its own.
fn check_export(engine: &Engine, component: &Component, handler: &str) -> Result<(), Error> {
    let exports: Vec<String> =
        component.component_type().exports(engine.wasmtime()).map(|(name, _)| name.to_owned()).collect();
    let wanted = format!("{}/handler@", abi::PACKAGE);
    let Some(found) = exports.iter().find_map(|name| name.strip_prefix(&wanted)) else {
        let listed = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        return Err(Error::WrongWorld {
            handler: handler.to_owned(),
            what: format!("it does not export {wanted}{LATEST}; it exports {listed}"),
            hint: format!("build it for the world handler-plugin of wit/{LATEST}"),
        });
    };
    if !abi::VERSIONS.contains(&found) {
        return Err(Error::WrongWorld {
            handler: handler.to_owned(),
            what: format!("it is built for {} {found}; this host speaks {}", abi::PACKAGE, abi::VERSIONS.join(", ")),
            hint: "build it again with the interfaces of this host".to_owned(),
        });
    }
    Ok(())
}
