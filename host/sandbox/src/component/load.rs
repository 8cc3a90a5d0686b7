//! From a component to a `Plugin`: its origin, its permissions, their grants, and its world.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::{InstancePre, Linker};

use super::compile::Compiler;
use super::compile_child::Failure;
use super::inspect;
use super::inspect::{Inspected, LATEST};
use super::manifest;
use super::manifest::Manifest;
use super::plugin::Plugin;
use super::trust::{Origin, Trust};
use crate::abi::latest::HandlerPluginIndices;
use crate::abi::latest::lifecycle::LifecyclePluginIndices;
use crate::capability;
use crate::capability::context::{Context, Permissions};
use crate::engine::Engine;
use crate::error::Error;
use crate::worlds::handler::{Instance, NoInstance};
use tidemill_process::tasks;
use tidemill_process::tasks::Task;

/// A component that was looked at, and not compiled.
pub struct InspectedComponent {
    pub path: PathBuf,
    pub wasm: Vec<u8>,
    pub origin: Origin,
    pub found: Inspected,
    /// Empty, if it has none.
    pub manifest: Manifest,
}

/// How components are read, and which are trusted.
pub struct ComponentReader {
    pub bytes_max: u64,
    pub trust: Trust,
}

impl ComponentReader {
    /// Reads a component and looks at all that can be seen without compiling it or knowing its grants.
    pub fn inspect(&self, path: &Path, pin: Option<&str>, handler: &str) -> Result<InspectedComponent, Error> {
        let wasm = read(path, self.bytes_max, handler)?;
        let origin = self.trust.check(path, &wasm, pin, handler)?;
        let found = inspect::inspect(&wasm).map_err(|what| Error::NotAComponent {
            handler: handler.to_owned(),
            path: path.to_owned(),
            what,
        })?;
        let read = manifest::of(&wasm, &found).map_err(|what| Error::Manifest {
            handler: handler.to_owned(),
            what,
            hint: "`tidemill plugin stamp` writes one that is good".to_owned(),
        })?;
        let manifest::ManifestReading { manifest, unknown } = read.unwrap_or_default();
        if !unknown.is_empty() {
            tracing::warn!(handler, keys = %unknown.join(", "), "the plugin's manifest holds keys that this host does not know");
        }
        found.check_world(handler)?;
        Ok(InspectedComponent { path: path.to_owned(), wasm, origin, found, manifest })
    }
}

impl InspectedComponent {
    /// Is everything that it imports requested, and granted?
    pub fn check_granted(&self, terms: &Permissions) -> Result<(), Error> {
        for (row, interface) in self.found.imports.iter().filter_map(|import| capability::of_import(import)) {
            let handler = terms.handler.to_string();
            if self.manifest.permissions.as_ref().is_some_and(|asks| !asks.has(row.name)) {
                return Err(Error::Manifest {
                    handler,
                    what: format!("it imports {}, and its manifest does not ask for \"{}\"", interface.name, row.name),
                    hint: "add it to `permissions`; an empty list requests nothing through it".to_owned(),
                });
            }
            if !(row.granted)(terms) {
                return Err(Error::NotGranted { handler, capability: row.name, example: row.example });
            }
        }
        Ok(())
    }

    /// Compiles it, and links what it imports.
    pub fn compile(&self, engine: &Engine, compiler: &Compiler, handler: &str) -> Result<Compiled, Error> {
        let component = compiler.component(engine, &self.wasm).map_err(|failure| match failure {
            Failure::Invalid(what) => {
                Error::NotAComponent { handler: handler.to_owned(), path: self.path.clone(), what }
            }
            Failure::Stopped { what, hint } => Error::Compile { handler: handler.to_owned(), what, hint },
        })?;
        let mut linker = Linker::new(engine.wasmtime());
        let mut linked = BTreeSet::new();
        for import in &self.found.imports {
            let Some((_, interface)) = capability::of_import(import) else { continue };
            // Two versions of one interface are met by one.
            if !linked.insert(interface.name) {
                continue;
            }
            (interface.link)(&mut linker).map_err(|error| Error::Engine(format!("linking {import}: {error:#}")))?;
        }
        let wrong_world = |error: wasmtime::Error| Error::WrongWorld {
            handler: handler.to_owned(),
            what: format!("it does not fit the world handler-plugin: {error:#}"),
            hint: format!("build it from wit/{LATEST} as it is"),
        };
        let roles = |pre: InstancePre<Context>| {
            let handles = HandlerPluginIndices::new(&pre)?;
            let lifecycle = self.found.has_lifecycle().then(|| LifecyclePluginIndices::new(&pre)).transpose()?;
            Ok(Compiled { pre, handles, lifecycle })
        };
        linker.instantiate_pre(&component).and_then(roles).map_err(wrong_world)
    }
}

/// Compiled and linked, with no grants yet.
pub struct Compiled {
    pre: InstancePre<Context>,
    handles: HandlerPluginIndices,
    lifecycle: Option<LifecyclePluginIndices>,
}

impl Plugin {
    /// Makes a plugin of a component that was looked at.
    pub fn new(
        engine: &Engine,
        compiler: &Compiler,
        looked: InspectedComponent,
        mut terms: Permissions,
    ) -> Result<Self, Error> {
        looked.check_granted(&terms)?;
        if let Some(asks) = &looked.manifest.permissions {
            asks.narrow(&mut terms);
        }
        let handler = terms.handler.clone();
        let Compiled { pre, handles, lifecycle } = looked.compile(engine, compiler, &handler)?;
        let plugin = Self {
            digest: looked.origin.sha256[..12].into(),
            handler,
            imports: looked.found.imports,
            origin: Arc::new(looked.origin),
            manifest: Arc::new(looked.manifest),
            pre,
            handles,
            lifecycle,
            terms: Arc::new(terms),
        };
        trial(engine, &plugin).map_err(|what| Error::WrongWorld {
            handler: plugin.handler.to_string(),
            what: format!("no instance of it can be made: {what}"),
            hint: "its start must keep to the limits of its handler, and end within a second".to_owned(),
        })?;
        Ok(plugin)
    }
}

/// Makes an instance once, so that a component that cannot even start is refused and not found out by events. On a thread
/// of its own, with a stack for guests: a start function that recurses would overflow the caller's.
fn trial(engine: &Engine, plugin: &Plugin) -> Result<(), String> {
    let plugin = Arc::new(plugin.clone());
    let try_it = move || Instance::new(&plugin).map(drop);
    let made = tasks::thread(Task::Trial, "trial".to_owned(), Some(engine.thread_stack_bytes()), None, try_it)
        .map_err(|error| format!("no thread for it: {error}"))?
        .join();
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(NoInstance::Guest(crash, reason))) => Err(format!("{}: {reason}", crash.as_str())),
        Ok(Err(NoInstance::Host(error))) => Err(format!("{error:#}")),
        Err(_) => Err("the host panicked while it made one".to_owned()),
    }
}

/// The component's bytes, no more than this many.
fn read(path: &Path, bytes_max: u64, handler: &str) -> Result<Vec<u8>, Error> {
    let unreadable = |cause| Error::Unreadable { handler: handler.to_owned(), path: path.to_owned(), cause };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut wasm = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut wasm).map_err(unreadable)?;
    if wasm.len() as u64 > bytes_max {
        return Err(Error::Compile {
            handler: handler.to_owned(),
            what: format!("{} is larger than {bytes_max} bytes", path.display()),
            hint: "make it smaller, or allow more: component_bytes_max under [plugins]".to_owned(),
        });
    }
    Ok(wasm)
}
