//! A plugin that can be called: compiled, linked, with its grants.

use std::sync::Arc;

use wasmtime::component::InstancePre;

use super::manifest::Manifest;
use super::trust::Origin;
use crate::abi::latest::HandlerPluginIndices;
use crate::abi::latest::lifecycle::LifecyclePluginIndices;
use crate::capability::context::{Context, Permissions};

/// A compiled plugin with its grants: ready to make instances of. Immutable, and cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub handler: Arc<str>,
    /// The first 12 hex digits of the component's SHA-256: what the records of attempts show.
    pub digest: Arc<str>,
    /// The interfaces it imports; `config check --json` shows them.
    pub imports: Vec<String>,
    pub origin: Arc<Origin>,
    pub manifest: Arc<Manifest>,
    pub(crate) pre: InstancePre<Context>,
    pub(crate) handles: HandlerPluginIndices,
    /// The optional role: asked once for each fresh instance.
    pub(crate) lifecycle: Option<LifecyclePluginIndices>,
    pub(crate) terms: Arc<Permissions>,
}

impl Plugin {
    /// Whether it reads or writes state.
    pub fn has_state(&self) -> bool {
        self.imports.iter().any(|import| import.starts_with("tidemill:plugin/state"))
    }

    /// Whether its calls may block on other services, and so belong on the I/O pool.
    pub fn blocking(&self) -> bool {
        self.imports.iter().any(|import| import.starts_with("tidemill:plugin/http"))
    }
}
